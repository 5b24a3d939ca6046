//! What all threads may know and change of a slot without a lock.

use super::directory::NONE;
use super::matching::access;
use crate::SequenceHash;
use crate::policy::{Access, Request};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A hash as the index takes it.
pub(super) type Key = [u64; 2];

/// What a slot is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// In the free list.
    Free,
    /// In the hands of whoever allocated it, not registered; or about to be freed.
    Taken,
    /// Has the block that the directory names; kept after its last user, until it is evicted.
    Registered,
    /// Has a block that another slot has too; goes with its last user.
    Duplicate,
}

const USERS_BITS: u32 = 32;
const GENERATION_BITS: u32 = 30;
const STATE_SHIFT: u32 = USERS_BITS + GENERATION_BITS;

/// State, generation and users of a slot, which change together.
///
/// A registered block gets a user only while its state and generation are what they were when its identity was read, and loses its
/// slot only while it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) state: State,
    /// Counts the blocks that the slot has had, in 30 bits.
    pub(super) generation: u32,
    /// Handles to the block; or a number larger than [`USERS_MAX`], if there were more: then the block stays for good.
    pub(super) users: u32,
}

/// The most users that are counted.
const USERS_MAX: u32 = (1 << (USERS_BITS - 1)) - 1;
/// Stands for more. Threads that take one from this and put it back don't bring it to what is counted.
const UNCOUNTED: u32 = 3 << (USERS_BITS - 2);

impl Hold {
    fn packed(self) -> u64 {
        let state = match self.state {
            State::Free => 0,
            State::Taken => 1,
            State::Registered => 2,
            State::Duplicate => 3,
        };
        state << STATE_SHIFT | u64::from(self.generation) << USERS_BITS | u64::from(self.users)
    }

    fn unpacked(word: u64) -> Self {
        Self {
            state: match word >> STATE_SHIFT {
                0 => State::Free,
                1 => State::Taken,
                2 => State::Registered,
                _ => State::Duplicate,
            },
            generation: (word >> USERS_BITS) as u32 & ((1 << GENERATION_BITS) - 1),
            users: word as u32,
        }
    }

    /// With one user more.
    #[inline]
    fn used_once_more(self) -> Self {
        let users = match self.users {
            counted @ 0..USERS_MAX => counted + 1,
            USERS_MAX => UNCOUNTED,
            uncounted => uncounted,
        };
        Self { users, ..self }
    }

    /// For another block.
    fn next(self, state: State) -> Self {
        Self {
            state,
            generation: self.generation.wrapping_add(1) & ((1 << GENERATION_BITS) - 1),
            users: 0,
        }
    }
}

/// Somebody took hold of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pin {
    pub(super) generation: u32,
    /// Nobody else had.
    pub(super) is_first: bool,
}

/// Requests that matched a block while it was in use already, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Again {
    times: u32,
    /// The largest of them.
    priority: u8,
    /// Of the newest.
    chain_blocks: u32,
}

const CHAIN_BITS: u32 = 32;
const PRIORITY_BITS: u32 = 8;
const TIMES_MAX: u32 = (1 << (64 - CHAIN_BITS - PRIORITY_BITS)) - 1;

impl Again {
    fn packed(self) -> u64 {
        let times = u64::from(self.times.min(TIMES_MAX));
        (times << PRIORITY_BITS | u64::from(self.priority)) << CHAIN_BITS
            | u64::from(self.chain_blocks)
    }

    fn unpacked(word: u64) -> Self {
        Self {
            times: (word >> (CHAIN_BITS + PRIORITY_BITS)) as u32,
            priority: (word >> CHAIN_BITS) as u8,
            chain_blocks: word as u32,
        }
    }
}

/// One slot, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Cell {
    /// A [`Hold`].
    hold: AtomicU64,
    low: AtomicU64,
    high: AtomicU64,
    /// What the policy said last of the chain that ends here.
    heritage: AtomicU64,
    /// An [`Again`], not told to the policy yet. Who notes a request reads and writes it without a lock: of two requests at once one may be lost,
    /// and what was told meanwhile may be told once more.
    again: AtomicU64,
    /// When the newest of these requests arrived; of two at once perhaps the other one.
    again_ms: AtomicU64,
    position: AtomicU32,
    /// When a request last matched or registered the block: its number, modulo 2³².
    used: AtomicU32,
    /// Where the block that followed this one last was, in any shard; a guess.
    next: AtomicU32,
}

impl Cell {
    /// Of a free slot.
    pub(super) fn new() -> Self {
        Self {
            hold: AtomicU64::new(0),
            low: AtomicU64::new(0),
            high: AtomicU64::new(0),
            heritage: AtomicU64::new(0),
            again: AtomicU64::new(0),
            again_ms: AtomicU64::new(0),
            position: AtomicU32::new(0),
            used: AtomicU32::new(0),
            next: AtomicU32::new(NONE),
        }
    }

    /// How the slot stands; unless the caller has a part in it, how it stood.
    #[inline]
    pub(super) fn hold(&self) -> Hold {
        Hold::unpacked(self.hold.load(Ordering::Acquire))
    }

    /// The hash of the block, while somebody uses it or its shard is locked; else it is a guess.
    #[inline]
    pub(super) fn key(&self) -> Key {
        [
            self.low.load(Ordering::Relaxed),
            self.high.load(Ordering::Relaxed),
        ]
    }

    /// The identity of the block, as stable as [`Cell::key`] is.
    #[inline]
    pub(super) fn identity(&self) -> SequenceHash {
        let [low, high] = self.key();
        let position = self.position.load(Ordering::Relaxed);
        SequenceHash::new(u128::from(high) << 64 | u128::from(low), position)
    }

    /// States the identity of a block that is not registered yet.
    #[inline]
    pub(super) fn set_identity(&self, hash: SequenceHash) {
        let [low, high] = hash.words();
        self.low.store(low, Ordering::Relaxed);
        self.high.store(high, Ordering::Relaxed);
        self.position.store(hash.position(), Ordering::Relaxed);
    }

    /// Changes the hold as long as `change` agrees with it; what it was.
    #[inline]
    fn change(&self, change: impl Fn(Hold) -> Option<Hold>) -> Option<Hold> {
        let mut word = self.hold.load(Ordering::Acquire);
        loop {
            let before = Hold::unpacked(word);
            let after = change(before)?.packed();
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            match self
                .hold
                .compare_exchange_weak(word, after, success, failure)
            {
                Ok(_) => return Some(before),
                Err(now) => word = now,
            }
        }
    }

    #[inline]
    fn add_user(&self, may: impl Fn(Hold) -> bool) -> Option<Pin> {
        let change = |before: Hold| may(before).then(|| before.used_once_more());
        self.change(change).map(|before| Pin {
            generation: before.generation,
            is_first: before.users == 0,
        })
    }

    /// Takes hold of the registered block of this hash, if the slot has it.
    #[inline]
    pub(super) fn pin(&self, key: Key) -> Option<Pin> {
        if self.key() != key {
            return None;
        }
        let mut word = self.hold.load(Ordering::Acquire);
        loop {
            let before = Hold::unpacked(word);
            // The identity is read between two looks at the hold: it is that of the generation that gets a user.
            let is_it = before.state == State::Registered && self.key() == key;
            if !is_it {
                return None;
            }
            // Users are the lowest bits.
            let after = match before.users {
                0..USERS_MAX => word + 1,
                _ => before.used_once_more().packed(),
            };
            let order = Ordering::Acquire;
            match self.hold.compare_exchange_weak(word, after, order, order) {
                Ok(_) => {
                    return Some(Pin {
                        generation: before.generation,
                        is_first: before.users == 0,
                    });
                }
                Err(now) => word = now,
            }
        }
    }

    /// Takes hold of the block of this hash and generation, if the slot still has it. Generations come again after a long time: then the
    /// slot has another block.
    #[inline]
    pub(super) fn upgrade(&self, generation: u32, key: Key) -> Option<Pin> {
        self.add_user(|hold| {
            let is_kept = match hold.state {
                State::Registered => true,
                State::Duplicate => hold.users > 0,
                State::Free | State::Taken => false,
            };
            is_kept && hold.generation == generation && self.key() == key
        })
    }

    /// Adds a user to a block that has one, the caller's.
    #[inline]
    pub(super) fn retain(&self) {
        self.change(|before| Some(before.used_once_more()));
    }

    /// Takes the caller's use from a block; how it stood before. The last user of a duplicate has the slot.
    #[inline]
    pub(super) fn release(&self) -> Hold {
        let before = Hold::unpacked(self.hold.fetch_sub(1, Ordering::AcqRel));
        if before.users > USERS_MAX {
            self.hold.fetch_add(1, Ordering::Relaxed);
        }
        before
    }

    /// Takes the slot from a registered block that nobody uses.
    #[inline]
    pub(super) fn claim(&self) -> bool {
        let change = |hold: Hold| {
            if hold.users > 0 {
                // mutant: kv-pool-no-pin-check
                return None;
            }
            (hold.state == State::Registered).then(|| hold.next(State::Taken))
        };
        self.change(change).is_some()
    }

    /// States how a slot stands that is the caller's alone; its generation stays.
    #[inline]
    pub(super) fn set(&self, state: State, users: u32) {
        let generation = Hold::unpacked(self.hold.load(Ordering::Relaxed)).generation;
        let hold = Hold {
            state,
            generation,
            users,
        };
        self.hold.store(hold.packed(), Ordering::Release);
    }

    /// Frees a slot that is the caller's alone.
    #[inline]
    pub(super) fn free(&self) {
        let hold = Hold::unpacked(self.hold.load(Ordering::Relaxed));
        let free = hold.next(State::Free);
        self.hold.store(free.packed(), Ordering::Release);
    }

    #[inline]
    pub(super) fn heritage(&self) -> u64 {
        self.heritage.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_heritage(&self, heritage: u64) {
        if self.heritage() != heritage {
            self.heritage.store(heritage, Ordering::Relaxed);
        }
    }

    /// The number of the request that used the block last.
    #[inline]
    pub(super) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_used(&self, tick: u64) {
        self.used.store(tick as u32, Ordering::Relaxed);
    }

    /// Notes that a request matched the block while it was in use already. It has the block: which stays so until this is noted.
    #[inline]
    pub(super) fn note_again(&self, request: &Request) {
        let before = Again::unpacked(self.again.load(Ordering::Relaxed));
        let again = Again {
            times: before.times.saturating_add(1),
            priority: before.priority.max(request.priority),
            chain_blocks: request.chain_blocks,
        };
        self.again.store(again.packed(), Ordering::Relaxed);
        self.again_ms.store(request.time_ms, Ordering::Relaxed);
    }

    /// How many requests were noted so, with the newest, which is the last that used the block; none from now on, unless one is just being
    /// noted. Of its number the slot has the lower half: the rest is that of `tick`, a request at about that time.
    #[inline]
    pub(super) fn take_again(&self, tick: u64) -> Option<(u32, Access)> {
        let again = Again::unpacked(self.again.load(Ordering::Relaxed));
        if again.times == 0 {
            return None;
        }
        self.forget_again();
        let identity = self.identity();
        let later = self.used().wrapping_sub(tick as u32).cast_signed();
        let request = Request {
            tick: tick.saturating_add_signed(later.into()),
            time_ms: self.again_ms.load(Ordering::Relaxed),
            chain_blocks: again.chain_blocks,
            matched_blocks: identity.position().saturating_add(1),
            priority: again.priority,
            ..Request::default()
        };
        Some((again.times, access(identity, request)))
    }

    /// Of a block that left nothing is told.
    #[inline]
    pub(super) fn forget_again(&self) {
        if self.again.load(Ordering::Relaxed) != 0 {
            self.again.store(0, Ordering::Relaxed);
        }
    }

    /// Where the next block may be, or [`NONE`].
    #[inline]
    pub(super) fn next(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_next(&self, slot: u32) {
        if self.next() != slot {
            self.next.store(slot, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    fn registered(number: u128, users: u32) -> Cell {
        let cell = Cell::new();
        cell.set(State::Taken, 0);
        cell.set_identity(SequenceHash::new(number, 3));
        cell.set(State::Registered, users);
        cell
    }

    #[test]
    fn a_hold_comes_back_from_its_word() {
        for state in [
            State::Free,
            State::Taken,
            State::Registered,
            State::Duplicate,
        ] {
            let hold = Hold {
                state,
                generation: (1 << GENERATION_BITS) - 1,
                users: u32::MAX,
            };
            assert_eq!(Hold::unpacked(hold.packed()), hold);
            assert_eq!(hold.next(state).generation, 0, "it begins anew");
        }
    }

    #[test]
    fn uses_of_a_block_in_use_are_told_once() {
        let cell = registered(7, 1);
        assert!(cell.take_again(5).is_none());
        for (tick, priority) in [(u64::from(u32::MAX), 2), (1 << 32, 1)] {
            let request = Request {
                tick,
                time_ms: tick + 9,
                chain_blocks: 6,
                priority,
                ..Request::default()
            };
            cell.set_used(tick);
            cell.note_again(&request);
        }
        // The newest of two; 32 bits of its number are kept, and completed by one that is near.
        let told = cell.take_again((1 << 32) - 20);
        let expected = Request {
            tick: 1 << 32,
            time_ms: (1 << 32) + 9,
            chain_blocks: 6,
            matched_blocks: 4,
            priority: 2,
            ..Request::default()
        };
        assert_eq!(told, Some((2, access(cell.identity(), expected))));
        assert!(cell.take_again(5).is_none());
        let again = Again {
            times: TIMES_MAX,
            priority: u8::MAX,
            chain_blocks: u32::MAX,
        };
        assert_eq!(Again::unpacked(again.packed()), again);
        let more = Again {
            times: TIMES_MAX + 1,
            ..again
        };
        assert_eq!(Again::unpacked(more.packed()), again);
    }

    #[test]
    fn a_block_with_more_users_than_can_be_counted_stays_for_good() {
        let key = [7, 0];
        let cell = registered(7, USERS_MAX - 1);
        let before = cell.hold();
        cell.retain();
        assert_eq!(cell.hold().users, USERS_MAX);
        for _ in 0..3 {
            cell.retain();
            assert!(cell.pin(key).is_some_and(|pin| !pin.is_first));
            assert!(cell.upgrade(before.generation, key).is_some());
        }
        let full = Hold {
            users: UNCOUNTED,
            ..before
        };
        assert_eq!(cell.hold(), full, "nothing but users changed");
        for _ in 0..20 {
            assert!(cell.release().users > 1);
        }
        assert_eq!(cell.hold(), full, "nobody knows how many are left");
        assert!(!cell.claim());
        let counted = registered(7, USERS_MAX);
        counted.release();
        assert_eq!(counted.hold().users, USERS_MAX - 1);
    }

    #[test]
    fn only_the_block_that_is_meant_gets_a_user() {
        let cell = registered(7, 0);
        assert!(cell.pin([8, 0]).is_none());
        let pin = cell.pin([7, 0]).map(|pin| (pin.generation, pin.is_first));
        assert_eq!(pin, Some((0, true)));
        assert!(!cell.claim(), "it is in use");
        assert!(cell.upgrade(0, [7, 0]).is_some_and(|pin| !pin.is_first));
        cell.release();
        assert_eq!(cell.release().users, 1);
        assert!(cell.claim() && !cell.claim());
        assert!(cell.pin([7, 0]).is_none() && cell.upgrade(0, [7, 0]).is_none());
        cell.free();
        cell.set(State::Taken, 0);
        cell.set(State::Registered, 0);
        assert!(
            cell.upgrade(0, [7, 0]).is_none(),
            "another block of the slot"
        );
        assert!(cell.pin([7, 0]).is_some());
    }

    #[test]
    fn a_generation_that_comes_again_is_not_taken_for_the_block_that_had_it() {
        let cell = registered(7, 0);
        assert!(cell.upgrade(0, [7, 0]).is_some());
        cell.release();
        let last = Hold {
            state: State::Free,
            generation: (1 << GENERATION_BITS) - 1,
            users: 0,
        };
        cell.hold.store(last.packed(), Ordering::Relaxed);
        cell.free();
        cell.set(State::Taken, 0);
        cell.set_identity(SequenceHash::new(8, 3));
        cell.set(State::Registered, 0);
        assert_eq!(cell.hold().generation, 0);
        assert!(cell.upgrade(0, [7, 0]).is_none(), "another block");
        assert!(cell.upgrade(0, [8, 0]).is_some());
    }

    #[test]
    fn a_duplicate_is_found_by_nobody_and_goes_with_its_users() {
        let cell = registered(7, 0);
        cell.set(State::Duplicate, 1);
        assert!(cell.pin([7, 0]).is_none() && !cell.claim());
        assert!(cell.upgrade(0, [7, 0]).is_some());
        cell.release();
        cell.release();
        assert!(cell.upgrade(0, [7, 0]).is_none());
    }
}
