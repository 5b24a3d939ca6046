//! The default policy: keeps what is likeliest to be used again soon, as learned from this very service.

mod age;
mod class;
mod cohorts;
mod experience;
mod ghost;
mod groups;
mod note;
mod requests;
mod survival;
mod victims;
mod worth;

use std::sync::Arc;

use self::class::{Class, Traits};
use self::experience::Experience;
use self::ghost::{GENERATION_MAX, Ghost, HITS_MAX};
use self::groups::Groups;
use self::note::{Note, Notes};
use self::victims::Victims;
use super::{Access, EvictionPolicy, Heritage, Slot, Study};

/// Blocks that leave before they are remembered, all at once: until then no other instance knows of them.
const DEPARTED_MAX: usize = 64;

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
///
/// The shards of a pool have an instance each, for the blocks that are in it, and learn together: what left one is
/// known when it comes to another, and what a victim is worth can be compared.
// Instances of neighbouring shards, which other threads change, share no cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Adaptive {
    blocks: Vec<Block>,
    groups: Groups,
    victims: Victims,
    /// Blocks that left and are not remembered yet.
    departed: Vec<(u64, Ghost)>,
    notes: Notes,
    experience: Arc<Experience>,
    /// The newest request seen here.
    now: u32,
}

/// What is known of the block in a slot.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    identity: u64,
    known: Ghost,
    chain_blocks: u32,
    state: State,
    ends_chain: bool,
    /// No request asked for the block since it came: the length is that of what was appended with it.
    is_unasked: bool,
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
        Self::part(slots, Arc::new(Experience::new(slots as usize, false)))
    }

    /// For the parts of one pool, each of so many slots; they learn together, best where the pool calls [`Study::study`].
    pub fn in_parts(slots: &[u32]) -> Vec<Self> {
        let total = slots.iter().map(|&slots| slots as usize).sum();
        let experience = Arc::new(Experience::new(total, true));
        let part = |&slots: &u32| Self::part(slots, Arc::clone(&experience));
        slots.iter().map(part).collect()
    }

    fn part(slots: u32, experience: Arc<Experience>) -> Self {
        Self {
            blocks: vec![Block::default(); slots as usize],
            groups: Groups::new(slots),
            victims: Victims::new(),
            departed: Vec::with_capacity(DEPARTED_MAX),
            notes: Notes::new(),
            experience,
            now: 0,
        }
    }

    #[inline]
    fn arrive(&mut self, tick: u32) {
        if tick.wrapping_sub(self.now).cast_signed() > 0 {
            self.now = tick;
        }
    }

    #[inline]
    fn note(&mut self, note: Note) {
        self.notes.push(note);
        self.experience.take(&mut self.notes);
    }

    /// A block in the pool was used so many times; `access` is the newest.
    fn use_again(&mut self, slot: Slot, access: &Access, times: u32) {
        let tick = access.request.tick as u32;
        self.arrive(tick);
        self.experience
            .requests
            .found(tick, access.position.saturating_add(1), 0);
        let block = &mut self.blocks[slot.index()];
        let before = *block;
        if before.state == State::Vacant {
            return;
        }
        block.known.hits = before
            .known
            .hits
            .saturating_add(times.min(HITS_MAX.into()) as u8)
            .min(HITS_MAX);
        block.known.tick = tick;
        block.chain_blocks = access.request.chain_blocks;
        block.ends_chain = ends_chain(access);
        block.is_unasked = false;
        block.state = State::InUse;
        if before.state == State::Aging {
            let known = before.known;
            let age = age::between(known.tick, tick);
            self.note(Note::used(known.class, known.tick, age));
        }
    }

    /// What is remembered of a block that comes back. Behind one that a request brought anew nothing is looked for.
    #[inline]
    fn recall(&self, identity: u64, access: &Access) -> Option<Ghost> {
        let Experience {
            ghosts, requests, ..
        } = &*self.experience;
        let request = &access.request;
        let tick = request.tick as u32;
        if !request.is_unasked && requests.is_unknown(tick, access.position) {
            return None;
        }
        let ghost = ghosts.take(identity, self.now)?;
        if !request.is_unasked {
            requests.found(tick, access.position.saturating_add(1), ghost.generation);
        }
        Some(ghost)
    }

    /// What is known of a block that was not seen before.
    #[inline]
    fn appended(&self, access: &Access) -> Ghost {
        let requests = &self.experience.requests;
        let request = &access.request;
        let mut inherited = request.heritage.0 as u8;
        if !request.is_unasked {
            let tick = request.tick as u32;
            inherited = inherited.max(requests.generation(tick));
            requests.found(tick, request.matched_blocks, 0);
            requests.unknown(tick, access.position);
        }
        Ghost {
            generation: inherited.saturating_add(1).min(GENERATION_MAX),
            ..Ghost::default()
        }
    }

    /// Gives a block that a request let go its class.
    fn settle(&mut self, slot: Slot) {
        let block = &mut self.blocks[slot.index()];
        let known = &mut block.known;
        let found = match block.is_unasked {
            true => 0,
            false => self.experience.requests.found_blocks(known.tick),
        };
        known.class = Class::of(Traits {
            ends_chain: block.ends_chain,
            popularity: u32::from(known.generation) + u32::from(known.hits),
            growth_blocks: block.chain_blocks.saturating_sub(found),
        });
        block.state = State::Aging;
        let note = Note::entered(known.class, known.tick);
        self.note(note);
    }

    /// Makes a slot not evictable.
    #[inline]
    fn hold(&mut self, slot: Slot) {
        if let Some((class, group)) = self.groups.remove(slot) {
            let worths = &self.experience.worths;
            self.victims.closed(class, group, &self.groups, worths);
        }
    }

    /// Makes a slot vacant; its block will be remembered.
    fn vacate(&mut self, slot: Slot) {
        self.hold(slot);
        let block = std::mem::take(&mut self.blocks[slot.index()]);
        if block.state == State::Aging {
            self.departed.push((block.identity, block.known));
            if self.departed.len() >= DEPARTED_MAX {
                self.remember();
            }
        }
    }

    /// Remembers the blocks that left.
    #[inline]
    fn remember(&mut self) {
        if !self.departed.is_empty() {
            let ghosts = &self.experience.ghosts;
            ghosts.insert_all(&self.departed, self.now);
            self.departed.clear();
        }
    }
}

/// Whether a request uses no block behind this one.
fn ends_chain(access: &Access) -> bool {
    access.position.checked_add(1) == Some(access.request.chain_blocks)
}

impl EvictionPolicy for Adaptive {
    fn insert(&mut self, slot: Slot, access: &Access) {
        self.remember();
        let request = &access.request;
        let tick = request.tick as u32;
        self.arrive(tick);
        let identity = (access.sequence_hash >> 64) as u64 ^ access.sequence_hash as u64;
        let mut known = match self.recall(identity, access) {
            Some(ghost) => {
                let age = age::between(ghost.tick, tick);
                self.note(Note::used(ghost.class, ghost.tick, age));
                Ghost {
                    hits: (ghost.hits + 1).min(HITS_MAX),
                    ..ghost
                }
            }
            None => self.appended(access),
        };
        known.tick = tick;
        let before = if request.is_unasked {
            request.matched_blocks
        } else {
            0
        };
        self.blocks[slot.index()] = Block {
            identity,
            known,
            chain_blocks: request.chain_blocks.saturating_sub(before),
            state: State::InUse,
            ends_chain: ends_chain(access),
            is_unasked: request.is_unasked,
        };
    }

    fn hit(&mut self, slot: Slot, access: &Access) {
        self.use_again(slot, access, 1);
    }

    fn hit_again(&mut self, slot: Slot, access: &Access, times: u32) {
        self.use_again(slot, access, times);
    }

    fn pin(&mut self, slot: Slot) {
        self.hold(slot);
    }

    fn release(&mut self, slot: Slot) {
        match self.blocks[slot.index()].state {
            State::Vacant => return,
            State::InUse => self.settle(slot),
            State::Aging => {}
        }
        let Ghost { class, tick, .. } = self.blocks[slot.index()].known;
        if self.groups.insert(slot, class, tick) {
            let worths = &self.experience.worths;
            self.victims.opened(class, &self.groups, worths);
        }
    }

    fn evict(&mut self) -> Option<Slot> {
        let worths = &self.experience.worths;
        self.victims.advance(self.now, &self.groups, worths);
        let slot = self.groups.last_of(self.victims.group()?)?;
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

    fn advance(&mut self, tick: u64) {
        self.remember();
        self.arrive(tick as u32);
        let worths = &self.experience.worths;
        self.victims.advance(self.now, &self.groups, worths);
    }

    fn study(&self) -> Option<Arc<dyn Study>> {
        Some(Arc::clone(&self.experience) as Arc<dyn Study>)
    }

    fn victim_worth(&self) -> Option<f32> {
        Some(self.victims.worth())
    }
}
