//! Every policy beside a model that only knows the state of each slot.

use blockmgr::policy::{Access, EvictionPolicy, Heritage, PolicyKind, Request, Slot};
use proptest::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Vacant,
    Pinned,
    Evictable,
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Use {
        slot: u32,
        hash: u8,
        position: u8,
    },
    Pin(u32),
    Release(u32),
    Remove(u32),
    Evict,
    NextRequest {
        chain_blocks: u8,
        priority: u8,
        skipped: u32,
    },
}

/// So many that a policy which keeps a part of them apart keeps several.
const SLOTS: u32 = 40;

fn operation() -> impl Strategy<Value = Operation> {
    let slot = 0..SLOTS;
    prop_oneof![
        6 => (slot.clone(), 0..40_u8, 0..6_u8)
            .prop_map(|(slot, hash, position)| Operation::Use { slot, hash, position }),
        2 => slot.clone().prop_map(Operation::Pin),
        6 => slot.clone().prop_map(Operation::Release),
        1 => slot.prop_map(Operation::Remove),
        4 => Just(Operation::Evict),
        3 => (0..8_u8, 0..4_u8, prop_oneof![9 => 0..3_u32, 1 => Just(u32::MAX / 2 - 9)])
            .prop_map(|(chain_blocks, priority, skipped)| Operation::NextRequest {
                chain_blocks,
                priority,
                skipped,
            }),
    ]
}

/// A policy and what must be true of it.
struct Pair {
    kind: PolicyKind,
    policy: blockmgr::policy::Policy,
    states: Vec<State>,
    request: Request,
}

impl Pair {
    fn new(kind: PolicyKind) -> Self {
        Self {
            kind,
            policy: kind.build(SLOTS),
            states: vec![State::Vacant; SLOTS as usize],
            request: Request {
                chain_blocks: 3,
                ..Request::default()
            },
        }
    }

    fn state(&mut self, slot: u32) -> &mut State {
        &mut self.states[slot as usize]
    }

    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Use {
                slot,
                hash,
                position,
            } => self.use_block(slot, hash, position),
            Operation::Pin(slot) if *self.state(slot) != State::Vacant => {
                self.policy.pin(Slot::new(slot));
                *self.state(slot) = State::Pinned;
            }
            Operation::Release(slot) if *self.state(slot) != State::Vacant => {
                self.policy.release(Slot::new(slot));
                *self.state(slot) = State::Evictable;
            }
            Operation::Remove(slot) => {
                self.policy.remove(Slot::new(slot));
                *self.state(slot) = State::Vacant;
            }
            Operation::Evict => {
                self.evict();
            }
            Operation::NextRequest {
                chain_blocks,
                priority,
                skipped,
            } => {
                self.request.tick += 1 + u64::from(skipped);
                self.request.chain_blocks = chain_blocks.into();
                self.request.priority = priority;
                self.request.heritage = Heritage::default();
                self.request.matched_blocks = 0;
            }
            Operation::Pin(_) | Operation::Release(_) => {}
        }
        assert_eq!(
            self.policy.evictable_slots(),
            self.evictable(),
            "{}",
            self.kind
        );
    }

    fn use_block(&mut self, slot: u32, hash: u8, position: u8) {
        let access = Access {
            sequence_hash: u128::from(hash) << 60 | 5,
            position: position.into(),
            request: self.request,
        };
        if *self.state(slot) == State::Vacant {
            self.policy.insert(Slot::new(slot), &access);
            *self.state(slot) = State::Pinned;
        } else {
            self.policy.hit(Slot::new(slot), &access);
            self.request.matched_blocks += 1;
            self.request.heritage = self.policy.heritage(Slot::new(slot));
        }
    }

    fn evict(&mut self) -> Option<Slot> {
        let any = self.evictable() > 0;
        let victim = self.policy.evict();
        assert_eq!(victim.is_some(), any, "{}: {:?}", self.kind, self.states);
        if let Some(slot) = victim {
            let state = std::mem::replace(self.state(slot.get()), State::Vacant);
            assert_eq!(state, State::Evictable, "{}", self.kind);
        }
        victim
    }

    fn evictable(&self) -> u32 {
        self.states
            .iter()
            .filter(|state| **state == State::Evictable)
            .count() as u32
    }
}

proptest! {
    #[test]
    fn a_victim_is_evictable_and_none_is_lost(
        operations in prop::collection::vec(operation(), 0..600)
    ) {
        for kind in PolicyKind::ALL {
            let mut pair = Pair::new(kind);
            for &operation in &operations {
                pair.run(operation);
            }
            // All that may leave does, each slot once; what is in use stays.
            let pinned = pair.states.iter().filter(|state| **state == State::Pinned).count();
            while pair.evict().is_some() {}
            let left = pair.states.iter().filter(|state| **state != State::Vacant).count();
            prop_assert_eq!(left, pinned, "{}", kind);
        }
    }
}

#[test]
fn of_two_priorities_the_lower_leaves_though_it_is_newer() {
    let mut policy = PolicyKind::Priority.build(3);
    for (index, priority) in [(0, 9), (1, 200), (2, 3)] {
        let request = Request {
            priority,
            ..Request::default()
        };
        let access = Access {
            sequence_hash: index.into(),
            position: 0,
            request,
        };
        policy.insert(Slot::new(index), &access);
        policy.release(Slot::new(index));
    }
    let order: Vec<u32> = std::iter::from_fn(|| policy.evict())
        .map(Slot::get)
        .collect();
    assert_eq!(order, [2, 0, 1]);
}

#[test]
fn a_block_that_another_continues_does_not_leave_before_it() {
    let mut policy = PolicyKind::Lineage.build(4);
    // A chain of three is used, then only its first block is released last and used least lately.
    for position in 0..3 {
        let access = Access {
            sequence_hash: position.into(),
            position,
            request: Request {
                chain_blocks: 3,
                ..Request::default()
            },
        };
        policy.insert(Slot::new(position), &access);
    }
    for slot in 0..3 {
        policy.release(Slot::new(slot));
    }
    let order: Vec<u32> = std::iter::from_fn(|| policy.evict())
        .map(Slot::get)
        .collect();
    assert_eq!(order, [2, 1, 0]);
}

#[test]
fn a_custom_policy_goes_in_as_it_is() {
    let inner: Box<dyn EvictionPolicy> = Box::new(blockmgr::policy::Lru::new(2));
    let mut policy = blockmgr::policy::Policy::Custom(inner);
    let access = Access {
        sequence_hash: 1,
        position: 0,
        request: Request::default(),
    };
    policy.insert(Slot::new(1), &access);
    policy.release(Slot::new(1));
    assert_eq!(policy.evict(), Some(Slot::new(1)));
}
