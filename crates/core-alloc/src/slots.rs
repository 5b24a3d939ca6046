//! Lock-free stacks of values in slots that never move.
//!
//! A slot is owned by one party at a time: by a stack while its value waits there, otherwise by
//! whoever took it. Slots are added in segments of doubling size and freed with the whole, so that a
//! late reader of a slot's link never touches freed memory; a tag that changes with each push and pop
//! keeps it from acting on what it read (R. K. Treiber, "Systems programming: coping with
//! parallelism", 1986). One slot of each stack waits in front of it, by pointer, so that taking and
//! returning the same one in turns needs neither links nor indices.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

const FIRST_SEGMENT: u32 = 64;
const SEGMENTS: usize = 22;

/// The most slots there can be: a sum of segments, and below the reserved links.
pub(crate) const SLOTS_MAX: u32 = FIRST_SEGMENT * ((1 << SEGMENTS) - 1);

/// No slot follows.
const END: u32 = u32::MAX;
/// The stack is closed.
const CLOSED: u32 = u32::MAX - 1;
/// The slot is not in a stack.
const TAKEN: u32 = u32::MAX - 2;

/// A slot, for its owner of the moment.
pub(crate) struct SlotRef<T>(NonNull<Slot<T>>);

impl<T> Clone for SlotRef<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SlotRef<T> {}

impl<T> fmt::Debug for SlotRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// SAFETY: only the owner reaches the slot's value, and values are `Send`; the rest is atomic.
unsafe impl<T: Send> Send for SlotRef<T> {}
// SAFETY: a shared `SlotRef` gives no access to the value.
unsafe impl<T: Send> Sync for SlotRef<T> {}

struct Slot<T> {
    next: AtomicU32,
    class: AtomicU32,
    index: u32,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// The slots of one or more stacks.
pub(crate) struct Slots<T> {
    segments: [OnceLock<Box<[Slot<T>]>>; SEGMENTS],
    unused: Mutex<Unused>,
    slots_max: u32,
}

#[derive(Debug, Default)]
struct Unused {
    made: u32,
    returned: Vec<u32>,
}

// SAFETY: a slot's value is reached only by the party that owns the slot, and values are `Send`.
unsafe impl<T: Send> Sync for Slots<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Slots<T> {}

/// Which segment an index lies in, and where there.
fn locate(index: u32) -> (usize, usize) {
    let shifted = index + FIRST_SEGMENT;
    let segment = shifted.ilog2() - FIRST_SEGMENT.ilog2();
    (
        segment as usize,
        (shifted - (FIRST_SEGMENT << segment)) as usize,
    )
}

impl<T> Slots<T> {
    /// Room for up to `slots_max` slots; none is made yet.
    pub(crate) fn new(slots_max: u32) -> Self {
        Self {
            segments: std::array::from_fn(|_| OnceLock::new()),
            unused: Mutex::default(),
            slots_max: slots_max.min(SLOTS_MAX),
        }
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let (segment, offset) = locate(index);
        self.segments.get(segment)?.get()?.get(offset)
    }

    /// A slot that belongs to the caller, labelled with `class`; none if all are in use.
    pub(crate) fn acquire(&self, class: u32) -> Option<SlotRef<T>> {
        let index = {
            let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
            match unused.returned.pop() {
                Some(index) => index,
                None if unused.made < self.slots_max => {
                    let index = unused.made;
                    unused.made += 1;
                    index
                }
                None => return None,
            }
        };
        let (segment, _) = locate(index);
        let first = (FIRST_SEGMENT << segment) - FIRST_SEGMENT;
        self.segments.get(segment)?.get_or_init(|| {
            (first..first + (FIRST_SEGMENT << segment))
                .map(|index| Slot {
                    next: AtomicU32::new(TAKEN),
                    class: AtomicU32::new(0),
                    index,
                    value: UnsafeCell::new(MaybeUninit::uninit()),
                })
                .collect()
        });
        let slot = self.slot(index)?;
        slot.class.store(class, Ordering::Relaxed);
        Some(SlotRef(NonNull::from(slot)))
    }

    /// Takes back an empty slot.
    ///
    /// # Safety
    /// The slot is one of these, and the caller owned it.
    pub(crate) unsafe fn release(&self, slot: SlotRef<T>) {
        // SAFETY: slots live as long as `self`.
        let index = unsafe { slot.0.as_ref() }.index;
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        unused.returned.push(index);
    }

    /// How many values wait in stacks, by class: exact while nobody pushes or pops.
    pub(crate) fn waiting(&self, mut each: impl FnMut(u32)) {
        for slot in self.segments.iter().filter_map(OnceLock::get).flatten() {
            if slot.next.load(Ordering::Acquire) != TAKEN {
                each(slot.class.load(Ordering::Relaxed));
            }
        }
    }
}

/// A stack of slots. A closed one accepts nothing more.
#[repr(align(128))]
pub(crate) struct Stack<T> {
    /// The slot in front, or null, or [`closed`].
    front: AtomicPtr<Slot<T>>,
    /// Tag in the upper half, index of the top in the lower.
    head: AtomicU64,
}

fn pack(tag: u32, top: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(top)
}

fn unpack(head: u64) -> (u32, u32) {
    ((head >> 32) as u32, head as u32)
}

/// Stands in front of a closed stack; no slot has this address.
#[inline]
fn closed<T>() -> *mut Slot<T> {
    std::ptr::without_provenance_mut(1)
}

impl<T> Stack<T> {
    pub(crate) fn new() -> Self {
        Self {
            front: AtomicPtr::new(std::ptr::null_mut()),
            head: AtomicU64::new(pack(0, END)),
        }
    }

    /// Puts a value on the stack; a closed stack returns it.
    ///
    /// The moment the value is on the stack, another thread may take it, be the last to need the
    /// stack and its slots, and free both. So nothing is touched after that, and no reference to
    /// either is held across it.
    ///
    /// # Safety
    /// The stack lives, and so does the [`Slots`] of this slot, which is that of all on the stack. The
    /// caller owns the slot, it is empty, and it is given up on success.
    #[inline]
    pub(crate) unsafe fn push(this: NonNull<Self>, place: SlotRef<T>, value: T) -> Result<(), T> {
        {
            // SAFETY: the slot lives, and is the caller's until it is on the stack.
            let slot = unsafe { place.0.as_ref() };
            let cell = slot.value.get().cast::<T>();
            // SAFETY: the caller owns the slot, so that nobody else reaches its value.
            unsafe { cell.write(value) };
            slot.next.store(END, Ordering::Relaxed);
        }
        let (empty, full) = (std::ptr::null_mut(), place.0.as_ptr());
        // SAFETY: the stack lives until the exchange, which is the last use of the reference.
        let front = unsafe { &(*this.as_ptr()).front };
        let placed = front.compare_exchange(empty, full, Ordering::AcqRel, Ordering::Relaxed);
        // SAFETY: when the exchange failed, the slot is still the caller's, and the stack lives.
        if placed.is_ok() || unsafe { Self::push_behind(this, place) } {
            return Ok(());
        }
        // SAFETY: the stack is closed, so that the slot is still the caller's.
        let slot = unsafe { place.0.as_ref() };
        // SAFETY: the slot was filled above.
        Err(unsafe { Self::take(slot) })
    }

    /// Links a filled slot in; says whether the stack is open.
    ///
    /// # Safety
    /// As for [`Stack::push`], but that the slot is full.
    unsafe fn push_behind(this: NonNull<Self>, place: SlotRef<T>) -> bool {
        // SAFETY: the stack lives until the slot is on it, which is the last use of the reference.
        let top = unsafe { &(*this.as_ptr()).head };
        let (next, index) = {
            // SAFETY: the slot lives until it is on the stack.
            let slot = unsafe { place.0.as_ref() };
            (&slot.next, slot.index)
        };
        let mut head = top.load(Ordering::Acquire);
        loop {
            let (tag, first) = unpack(head);
            if first == CLOSED {
                return false;
            }
            next.store(first, Ordering::Relaxed);
            let new = pack(tag.wrapping_add(1), index);
            match top.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(current) => head = current,
            }
        }
    }

    /// Takes a value, and with it the slot.
    ///
    /// # Safety
    /// All slots that were pushed are some of `slots`.
    #[inline]
    pub(crate) unsafe fn pop(&self, slots: &Slots<T>) -> Option<(SlotRef<T>, T)> {
        loop {
            let front = self.front.load(Ordering::Relaxed);
            if let Some(place) = NonNull::new(front)
                && front != closed()
            {
                let (full, empty) = (front, std::ptr::null_mut());
                let taken =
                    self.front
                        .compare_exchange(full, empty, Ordering::AcqRel, Ordering::Relaxed);
                if taken.is_ok() {
                    // SAFETY: slots live as long as the `Slots` that they are part of.
                    let slot = unsafe { place.as_ref() };
                    // SAFETY: the exchange made the slot this caller's alone; a slot in front is full.
                    return Some((SlotRef(place), unsafe { Self::take(slot) }));
                }
            }
            if let Some(found) = self.pop_behind(slots) {
                return Some(found);
            }
            // What came to the front in the meantime is not to be missed.
            let front = self.front.load(Ordering::Relaxed);
            if front.is_null() || front == closed() {
                return None;
            }
        }
    }

    fn pop_behind(&self, slots: &Slots<T>) -> Option<(SlotRef<T>, T)> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let (tag, top) = unpack(head);
            if top == END || top == CLOSED {
                return None;
            }
            let slot = slots.slot(top)?;
            // Possibly out of date, or another stack's: the tag makes the exchange fail then.
            let next = slot.next.load(Ordering::Relaxed);
            let new = pack(tag.wrapping_add(1), next);
            match self
                .head
                .compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => {
                    let place = SlotRef(NonNull::from(slot));
                    // SAFETY: the exchange took the slot off the stack, so that it is this caller's
                    // alone, and each slot on a stack holds a value.
                    return Some((place, unsafe { Self::take(slot) }));
                }
                Err(current) => head = current,
            }
        }
    }

    /// # Safety
    /// The caller owns the slot, and it holds a value.
    #[inline]
    unsafe fn take(slot: &Slot<T>) -> T {
        slot.next.store(TAKEN, Ordering::Relaxed);
        let cell = slot.value.get().cast::<T>();
        // SAFETY: the caller's promise.
        unsafe { cell.read() }
    }

    /// Closes the stack for good and takes all that was on it.
    ///
    /// # Safety
    /// All slots that were pushed are some of `slots`.
    pub(crate) unsafe fn close(&self, slots: &Slots<T>) -> Vec<(SlotRef<T>, T)> {
        let mut taken = Vec::new();
        let front = self.front.swap(closed(), Ordering::AcqRel);
        if let Some(place) = NonNull::new(front)
            && front != closed()
        {
            // SAFETY: slots live as long as the `Slots` that they are part of.
            let slot = unsafe { place.as_ref() };
            // SAFETY: the swap took the slot from the front; a slot there holds a value.
            taken.push((SlotRef(place), unsafe { Self::take(slot) }));
        }
        let (_, mut top) = unpack(self.head.swap(pack(0, CLOSED), Ordering::AcqRel));
        while top != END && top != CLOSED {
            let Some(slot) = slots.slot(top) else {
                break;
            };
            top = slot.next.load(Ordering::Relaxed);
            let place = SlotRef(NonNull::from(slot));
            // SAFETY: the swap took the whole chain off the stack; each slot on it holds a value.
            taken.push((place, unsafe { Self::take(slot) }));
        }
        taken
    }
}

#[cfg(test)]
mod tests;
