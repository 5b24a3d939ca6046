//! Lock-free stacks of values in slots that never move.
//!
//! A slot is named by its index. It is owned by one party at a time: by a stack while its value waits
//! there, otherwise by whoever took it. Slots are added in segments of doubling size and freed with
//! the whole, so that a late reader of a slot's link never touches freed memory; a tag that changes
//! with each push and pop keeps it from acting on what it read (R. K. Treiber, "Systems programming:
//! coping with parallelism", 1986).

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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

/// The index of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotIndex(u32);

struct Slot<T> {
    next: AtomicU32,
    class: AtomicU32,
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

    fn slot(&self, index: SlotIndex) -> Option<&Slot<T>> {
        let (segment, offset) = locate(index.0);
        self.segments.get(segment)?.get()?.get(offset)
    }

    /// A slot that belongs to the caller, labelled with `class`; none if all are in use.
    pub(crate) fn acquire(&self, class: u32) -> Option<SlotIndex> {
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
        self.segments.get(segment)?.get_or_init(|| {
            (0..FIRST_SEGMENT << segment)
                .map(|_| Slot {
                    next: AtomicU32::new(TAKEN),
                    class: AtomicU32::new(0),
                    value: UnsafeCell::new(MaybeUninit::uninit()),
                })
                .collect()
        });
        let index = SlotIndex(index);
        self.slot(index)?.class.store(class, Ordering::Relaxed);
        Some(index)
    }

    /// Takes back an empty slot that the caller owned.
    pub(crate) fn release(&self, index: SlotIndex) {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        unused.returned.push(index.0);
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
pub(crate) struct Stack {
    /// Tag in the upper half, index of the top in the lower.
    head: AtomicU64,
}

fn pack(tag: u32, top: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(top)
}

fn unpack(head: u64) -> (u32, u32) {
    ((head >> 32) as u32, head as u32)
}

impl Stack {
    pub(crate) fn new() -> Self {
        Self {
            head: AtomicU64::new(pack(0, END)),
        }
    }

    /// Puts a value on the stack; a closed stack returns it.
    ///
    /// # Safety
    /// The caller owns the slot, it is empty, and it is given up on success.
    #[inline]
    pub(crate) unsafe fn push<T>(
        &self,
        slots: &Slots<T>,
        index: SlotIndex,
        value: T,
    ) -> Result<(), T> {
        let Some(slot) = slots.slot(index) else {
            return Err(value);
        };
        let cell = slot.value.get().cast::<T>();
        // SAFETY: the caller owns the slot, so that nobody else reaches its value.
        unsafe { cell.write(value) };
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let (tag, top) = unpack(head);
            if top == CLOSED {
                slot.next.store(TAKEN, Ordering::Relaxed);
                // SAFETY: written above, and not read since.
                return Err(unsafe { cell.read() });
            }
            slot.next.store(top, Ordering::Relaxed);
            let new = pack(tag.wrapping_add(1), index.0);
            match self
                .head
                .compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ok(()),
                Err(current) => head = current,
            }
        }
    }

    /// Takes the latest value, and with it the slot.
    #[inline]
    pub(crate) fn pop<T>(&self, slots: &Slots<T>) -> Option<(SlotIndex, T)> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let (tag, top) = unpack(head);
            if top == END || top == CLOSED {
                return None;
            }
            let index = SlotIndex(top);
            let slot = slots.slot(index)?;
            // Possibly out of date, or another stack's: the tag makes the exchange fail then.
            let next = slot.next.load(Ordering::Relaxed);
            let new = pack(tag.wrapping_add(1), next);
            match self
                .head
                .compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire)
            {
                // SAFETY: the exchange took the slot off the stack, so that it is this caller's alone,
                // and each slot on a stack holds a value.
                Ok(_) => return Some((index, unsafe { Self::take(slot) })),
                Err(current) => head = current,
            }
        }
    }

    /// # Safety
    /// The caller owns the slot, and it holds a value.
    #[inline]
    unsafe fn take<T>(slot: &Slot<T>) -> T {
        slot.next.store(TAKEN, Ordering::Relaxed);
        let cell = slot.value.get().cast::<T>();
        // SAFETY: the caller's promise.
        unsafe { cell.read() }
    }

    /// Closes the stack for good and takes all that was on it.
    pub(crate) fn close<T>(&self, slots: &Slots<T>) -> Vec<(SlotIndex, T)> {
        let (_, mut top) = unpack(self.head.swap(pack(0, CLOSED), Ordering::AcqRel));
        let mut taken = Vec::new();
        while top != END && top != CLOSED {
            let index = SlotIndex(top);
            let Some(slot) = slots.slot(index) else {
                break;
            };
            top = slot.next.load(Ordering::Relaxed);
            // SAFETY: the swap took the whole chain off the stack; each slot on it holds a value.
            taken.push((index, unsafe { Self::take(slot) }));
        }
        taken
    }
}

#[cfg(test)]
mod tests;
