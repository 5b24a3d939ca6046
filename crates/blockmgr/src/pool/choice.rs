//! Where slots are taken from.

use super::cursor::Cursor;
use super::shards::{Place, Shards};
use crate::sync::Padded;
use crate::sync::atomic::Ordering;

/// Victims count as worth as little as the least that are worth more by less than this part.
const SLACK: f32 = 1.0 / 64.0;
/// And so much more, in a shard of one's own: threads that stay apart neither wait for each other nor fetch lines from each other's caches.
const HOME_SLACK: f32 = 0.125;
/// So many allocations of others in a row make a shard theirs.
const VISITS_MAX: u32 = 4;

/// No lane.
pub(super) const NOBODY: u32 = u32::MAX;

/// Where slots are to be taken from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) shard: usize,
    /// Whether no shard seems to have a free slot, so that blocks must leave.
    pub(super) evicts: bool,
    /// Once victims are worth more, another shard has to give.
    pub(super) worth_max: f32,
}

/// Where victims are worth least among some shards.
#[derive(Debug, Clone, Copy)]
struct Least {
    shard: Option<usize>,
    worth: f32,
    /// What they are worth in the next one.
    next: f32,
}

impl Least {
    fn of(worths: impl Iterator<Item = (usize, f32)>) -> Self {
        let mut least = Self {
            shard: None,
            worth: f32::INFINITY,
            next: f32::INFINITY,
        };
        for (shard, worth) in worths {
            if least.shard.is_some() && worth >= least.worth {
                least.next = least.next.min(worth);
                continue;
            }
            least.next = least.worth;
            least.worth = worth;
            least.shard = Some(shard);
        }
        least
    }
}

impl Shards {
    /// Locks the shard where the thread of a lane should take slots: one that has free slots; if there is none, one of
    /// those whose victims are worth about as little as any. `None` if no shard seems to have a slot. `now` is the number of the request.
    ///
    /// Each lane has shards of its own and stays there, while they have any, and free ones if there are; only if it `visits` it looks at all of them, and goes
    /// where victims are worth less. So threads stay out of each other's way, and the shards alike.
    pub(super) fn choose(&self, lane: u32, now: u32, visits: bool) -> Option<(Choice, Cursor<'_>)> {
        let count = self.places.len();
        // Reversed bits: half of the shards lie between the first two lanes, a quarter between those and the next two.
        let first = lane.reverse_bits().checked_shr(32 - self.bits).unwrap_or(0) as usize;
        let all = || (first..count).chain(0..first);
        let own = |&shard: &usize| self.is_of_lane(shard, lane);
        let has_own = all().filter(own).any(|shard| {
            let idle = self.place(shard).idle();
            idle.free > 0 || idle.cached > 0
        });
        // What others have comes from another processor's cache.
        let own_only = has_own && !visits && !self.has_free_elsewhere(lane);
        let seen = || all().filter(|shard| !own_only || own(shard));
        let (choice, cursor) = match self.choose_free(lane, seen()) {
            Some(found) => found,
            None => self.choose_victims(lane, now, seen(), all())?,
        };
        self.hold(choice.shard, lane);
        Some((choice, cursor))
    }

    fn place(&self, shard: usize) -> &Place {
        &self.places[shard].0
    }

    /// A shard that seems to have free slots: one of the lane's own before others, and one that nobody has locked before others.
    fn choose_free(
        &self,
        lane: u32,
        seen: impl Iterator<Item = usize> + Clone,
    ) -> Option<(Choice, Cursor<'_>)> {
        let mut free = seen.filter(|&shard| self.place(shard).idle().free > 0);
        let first = free.clone().next()?;
        let locked = |shard| Some((shard, self.try_cursor(shard)?));
        let own = free
            .clone()
            .filter(|&shard| self.is_of_lane(shard, lane))
            .find_map(locked);
        let not_busy = own.or_else(|| free.find_map(locked));
        let (shard, mut cursor) = not_busy.unwrap_or_else(|| (first, self.cursor()));
        cursor.enter(shard);
        let choice = Choice {
            shard,
            evicts: false,
            worth_max: f32::INFINITY,
        };
        Some((choice, cursor))
    }

    /// A shard whose victims are worth little.
    fn choose_victims(
        &self,
        lane: u32,
        now: u32,
        seen: impl Iterator<Item = usize> + Clone,
        mut all: impl Iterator<Item = usize>,
    ) -> Option<(Choice, Cursor<'_>)> {
        // Others change the numbers meanwhile, so that what was seen once has to do.
        let worth = |shard: usize| {
            let place = self.place(shard);
            (place.idle().cached > 0).then(|| (shard, place.victim_worth(now)))
        };
        let own = |shard: usize| self.is_of_lane(shard, lane);
        let least = Least::of(seen.clone().filter_map(worth));
        let least_own = Least::of(seen.clone().filter(|&shard| own(shard)).filter_map(worth));
        let any = least.shard?;
        let near = least.worth * (1.0 + HOME_SLACK);
        let stays = least_own.shard.is_some() && least_own.worth <= near;
        let among = if stays { least_own } else { least };
        let enough = among.worth * (1.0 + SLACK);
        let within = |shard: usize, most: f32| worth(shard).is_some_and(|(_, worth)| worth <= most);
        let locked = |shard| Some((shard, self.try_cursor(shard)?));
        let not_busy = seen
            .filter(|&shard| (!stays || own(shard)) && within(shard, enough))
            .find_map(locked);
        // A block that is worth a little more is given up rather than waited for.
        let not_busy = not_busy.or_else(|| {
            all.by_ref()
                .filter(|&shard| within(shard, near))
                .find_map(locked)
        });
        let (shard, mut cursor) = not_busy.unwrap_or_else(|| (any, self.cursor()));
        cursor.enter(shard);
        let choice = Choice {
            shard,
            evicts: true,
            worth_max: among.next.max(enough) * (1.0 + SLACK),
        };
        Some((choice, cursor))
    }

    /// Whether a shard is a lane's own, or nobody's yet.
    #[inline]
    pub(super) fn is_of_lane(&self, shard: usize, lane: u32) -> bool {
        let holder = self.place(shard).home.0.holder.load(Ordering::Relaxed);
        holder == lane || holder == NOBODY
    }

    /// Whether shards seem to have free slots, but none of a lane's own: these go before blocks that are kept.
    fn has_free_elsewhere(&self, lane: u32) -> bool {
        let mut elsewhere = false;
        for shard in 0..self.count() {
            if self.place(shard).home.0.has_free.load(Ordering::Relaxed) {
                if self.is_of_lane(shard, lane) {
                    return false;
                }
                elsewhere = true;
            }
        }
        elsewhere
    }

    /// Whether one shard of a lane's own seems to have so many slots that could be handed out.
    #[inline]
    pub(super) fn has_at_once(&self, lane: u32, slots: usize) -> bool {
        (0..self.count()).any(|shard| {
            self.is_of_lane(shard, lane) && {
                let idle = self.place(shard).idle();
                idle.free as usize + idle.cached as usize >= slots
            }
        })
    }

    /// States that a lane takes slots from a shard. It becomes the lane's own if it is nobody's, if the other one has more shards by two,
    /// or if that one stays away.
    fn hold(&self, shard: usize, lane: u32) {
        let home = &self.place(shard).home.0;
        let holder = home.holder.load(Ordering::Relaxed);
        if holder != lane && holder != NOBODY {
            let visits = home.visits.fetch_add(1, Ordering::Relaxed) + 1;
            if visits < VISITS_MAX && self.held(holder) <= self.held(lane) + 1 {
                return;
            }
        }
        if holder != lane {
            home.holder.store(lane, Ordering::Relaxed);
        }
        if home.visits.load(Ordering::Relaxed) > 0 {
            home.visits.store(0, Ordering::Relaxed);
        }
    }

    /// How many shards are a lane's own.
    fn held(&self, lane: u32) -> usize {
        let is_held =
            |Padded(place): &&Padded<Place>| place.home.0.holder.load(Ordering::Relaxed) == lane;
        self.places.iter().filter(is_held).count()
    }
}
