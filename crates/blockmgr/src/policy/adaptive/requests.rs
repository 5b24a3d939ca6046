//! What the newest requests found.

/// Requests remembered; a pool that serves more at once knows less of the oldest.
const REMEMBERED: usize = 64;

/// The newest requests, each in the place that its tick gives it.
#[derive(Debug)]
pub(super) struct Requests {
    places: [Found; REMEMBERED],
}

#[derive(Debug, Clone, Copy, Default)]
struct Found {
    tick: u32,
    /// Leading blocks that were known, in the pool or as ghosts.
    blocks: u32,
    /// The largest generation among ghosts.
    generation: u8,
    /// Where the chain goes on with a block that was not known, if it was seen to.
    unknown_from: Option<u32>,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            places: [Found::default(); REMEMBERED],
        }
    }

    /// A request knew so many leading blocks, the last of this generation.
    #[inline]
    pub(super) fn found(&mut self, tick: u32, blocks: u32, generation: u8) {
        let place = self.place_mut(tick);
        place.blocks = place.blocks.max(blocks);
        place.generation = place.generation.max(generation);
    }

    /// A request has a block at `position` that is neither in the pool nor a ghost.
    #[inline]
    pub(super) fn unknown(&mut self, tick: u32, position: u32) {
        let place = self.place_mut(tick);
        place.unknown_from = Some(
            place
                .unknown_from
                .map_or(position, |from| from.min(position)),
        );
    }

    /// Whether a block before `position` was not known: then those behind it need not be looked for.
    #[inline]
    pub(super) fn is_unknown(&self, tick: u32, position: u32) -> bool {
        self.place(tick)
            .unknown_from
            .is_some_and(|from| from < position)
    }

    fn place_mut(&mut self, tick: u32) -> &mut Found {
        let place = &mut self.places[tick as usize % REMEMBERED];
        if place.tick != tick {
            *place = Found {
                tick,
                ..Found::default()
            };
        }
        place
    }

    /// Leading blocks that a request knew.
    pub(super) fn found_blocks(&self, tick: u32) -> u32 {
        self.place(tick).blocks
    }

    /// The generation of the last ghost that a request brought back.
    pub(super) fn generation(&self, tick: u32) -> u8 {
        self.place(tick).generation
    }

    fn place(&self, tick: u32) -> Found {
        let place = self.places[tick as usize % REMEMBERED];
        if place.tick == tick {
            place
        } else {
            Found::default()
        }
    }
}
