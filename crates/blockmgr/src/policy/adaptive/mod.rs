//! The default policy: keeps what is likeliest to be used again soon, as learned from this very service.

mod age;
mod class;
mod ghost;
mod groups;
mod records;
mod requests;
mod survival;

use self::class::{Class, Traits};
use self::ghost::{Ghost, Ghosts};
use self::groups::Groups;
use self::requests::Requests;
use self::survival::Survival;
use super::{Access, EvictionPolicy, Heritage, Slot};

/// Ghosts for each slot, and at least.
const GHOSTS_PER_SLOT: usize = 16;
const GHOSTS_MIN: usize = 1 << 18;

/// Evicts the block that is worth least: uses to be expected for each request that it stays.
///
/// Blocks are put into classes by what an engine knows when a request ends: how often the block, or the chain that it continues, was
/// used again, how much the last request added, and whether the block ended the chain. For each class
/// the policy learns how many blocks survive to which age without a use, from blocks in the pool and from evicted ones,
/// and from that the best rate of uses that keeping one can give (the Gittins index). In each class
/// only the oldest and the newest blocks are compared: a worth that rises to the usual pause between two turns
/// and falls afterwards has its least value at an end. So a pool that is far too small drops what came last instead of what is due.
///
/// Within a request the end of the chain leaves first; a block never outlives the one before it by age, since
/// every use of it is one of that block too.
#[derive(Debug)]
pub struct Adaptive {
    blocks: Vec<Block>,
    groups: Groups,
    ghosts: Ghosts,
    survival: Survival,
    requests: Requests,
    now: u32,
    /// The group that evictions take from until something changes.
    victim: Option<u32>,
}

/// What is known of the block in a slot.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    identity: u64,
    known: Ghost,
    chain_blocks: u32,
    state: State,
    ends_chain: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Vacant,
    /// Used by a request that has not let go yet: its class is not known.
    InUse,
    /// Entered with a class.
    Aging,
}

impl Adaptive {
    /// For a pool of `slots` slots, all vacant.
    pub fn new(slots: u32) -> Self {
        Self {
            blocks: vec![Block::default(); slots as usize],
            groups: Groups::new(slots),
            ghosts: Ghosts::new((slots as usize * GHOSTS_PER_SLOT).max(GHOSTS_MIN)),
            survival: Survival::new(slots),
            requests: Requests::new(),
            now: 0,
            victim: None,
        }
    }

    #[inline]
    fn arrive(&mut self, tick: u32) {
        if (tick.wrapping_sub(self.now) as i32) > 0 {
            self.now = tick;
            self.victim = None;
            self.survival.advance(tick);
        }
    }

    /// The group that is worth least; of equals the older one.
    fn choose(&self) -> Option<u32> {
        let mut least = (f32::INFINITY, 0);
        let mut victim = None;
        for &class in self.groups.present() {
            for (group, tick) in [self.groups.oldest(class), self.groups.newest(class)] {
                // A request that began after the newest one known here has no age yet.
                let age = (self.now.wrapping_sub(tick) as i32).max(0) as u32;
                let worth = self.survival.worth(class, age);
                if worth < least.0 || (worth == least.0 && age > least.1) {
                    least = (worth, age);
                    victim = Some(group);
                }
            }
        }
        victim
    }

    /// Gives a block that a request let go its class.
    fn settle(&mut self, slot: Slot) {
        let block = &mut self.blocks[slot.index()];
        let known = &mut block.known;
        let found = self.requests.found_blocks(known.tick);
        known.class = Class::of(Traits {
            ends_chain: block.ends_chain,
            popularity: u32::from(known.generation) + u32::from(known.hits),
            growth_blocks: block.chain_blocks.saturating_sub(found),
        });
        known.record = self.survival.enter(known.class, known.tick);
        block.state = State::Aging;
    }

    /// Makes a slot vacant and remembers its block.
    fn vacate(&mut self, slot: Slot) {
        self.groups.remove(slot);
        let block = std::mem::take(&mut self.blocks[slot.index()]);
        if block.state == State::Aging {
            self.ghosts.insert(block.identity, block.known);
        }
    }
}

impl EvictionPolicy for Adaptive {
    fn insert(&mut self, slot: Slot, access: &Access) {
        let request = &access.request;
        let tick = request.tick as u32;
        self.arrive(tick);
        let identity = (access.sequence_hash >> 64) as u64 ^ access.sequence_hash as u64;
        let ghost = if self.requests.is_unknown(tick, access.position) {
            None
        } else {
            self.ghosts.take(identity)
        };
        let mut known = match ghost {
            Some(ghost) => {
                let age = tick.wrapping_sub(ghost.tick);
                self.survival.used_again(ghost.class, ghost.record, age);
                self.requests
                    .found(tick, access.position + 1, ghost.generation);
                Ghost {
                    hits: ghost.hits.saturating_add(1),
                    ..ghost
                }
            }
            None => {
                let inherited = (request.heritage.0 as u8).max(self.requests.generation(tick));
                self.requests.found(tick, request.matched_blocks, 0);
                self.requests.unknown(tick, access.position);
                Ghost {
                    generation: inherited.saturating_add(1),
                    ..Ghost::default()
                }
            }
        };
        known.tick = tick;
        self.blocks[slot.index()] = Block {
            identity,
            known,
            chain_blocks: request.chain_blocks,
            state: State::InUse,
            ends_chain: access.position + 1 == request.chain_blocks,
        };
    }

    fn hit(&mut self, slot: Slot, access: &Access) {
        let tick = access.request.tick as u32;
        self.arrive(tick);
        self.requests.found(tick, access.position + 1, 0);
        let block = &mut self.blocks[slot.index()];
        let known = &mut block.known;
        match block.state {
            State::Vacant => return,
            State::InUse => {}
            State::Aging => {
                let age = tick.wrapping_sub(known.tick);
                self.survival.used_again(known.class, known.record, age);
            }
        }
        known.hits = known.hits.saturating_add(1);
        known.tick = tick;
        block.chain_blocks = access.request.chain_blocks;
        block.ends_chain = access.position + 1 == block.chain_blocks;
        block.state = State::InUse;
    }

    fn pin(&mut self, slot: Slot) {
        self.groups.remove(slot);
    }

    fn release(&mut self, slot: Slot) {
        match self.blocks[slot.index()].state {
            State::Vacant => return,
            State::InUse => self.settle(slot),
            State::Aging => {}
        }
        let known = self.blocks[slot.index()].known;
        self.groups.insert(slot, known.class, known.tick);
        self.victim = None;
    }

    fn evict(&mut self) -> Option<Slot> {
        let standing = self.victim.and_then(|group| self.groups.last_of(group));
        let slot = match standing {
            Some(slot) => slot,
            None => {
                self.victim = self.choose();
                self.groups.last_of(self.victim?)?
            }
        };
        self.vacate(slot);
        Some(slot)
    }

    fn remove(&mut self, slot: Slot) {
        self.vacate(slot);
    }

    fn evictable_slots(&self) -> u32 {
        self.groups.len()
    }

    fn heritage(&self, slot: Slot) -> Heritage {
        Heritage(self.blocks[slot.index()].known.generation.into())
    }
}
