//! Which group of blocks is worth least.

use super::age;
use super::class::{CLASSES, Class};
use super::groups::Groups;
use super::worth::Worths;

/// Classes whose worth is computed anew with each request that evicts, in turns: their blocks grew older.
const CLASSES_AT_ONCE: usize = 8;

/// The least worth in each class, so that a choice is a look at a few numbers.
#[derive(Debug)]
pub(super) struct Victims {
    /// Infinite in a class that has no evictable block.
    least: Box<[f32; CLASSES]>,
    turn: usize,
    now: u32,
    victim: Option<Victim>,
}

/// The group to evict from, while nothing is worth less.
#[derive(Debug, Clone, Copy)]
struct Victim {
    group: u32,
    worth: f32,
}

impl Victims {
    pub(super) fn new() -> Self {
        Self {
            least: Box::new([f32::INFINITY; CLASSES]),
            turn: 0,
            now: 0,
            victim: None,
        }
    }

    /// What the next victim was worth when it was last looked at; infinite if there is none.
    #[inline]
    pub(super) fn worth(&self) -> f32 {
        self.victim.map_or(f32::INFINITY, |victim| victim.worth)
    }

    /// The group to evict from.
    #[inline]
    pub(super) fn group(&self) -> Option<u32> {
        self.victim.map(|victim| victim.group)
    }

    /// A class has a new group, its newest.
    #[inline]
    pub(super) fn opened(&mut self, class: Class, groups: &Groups, worths: &Worths) {
        self.appraise(class, groups, worths);
        let worth = self.least[class.index()];
        if worth < self.worth() {
            self.victim = Some(self.of_class(class, groups, worths));
        }
    }

    /// A class lost a group.
    #[inline]
    pub(super) fn closed(&mut self, class: Class, group: u32, groups: &Groups, worths: &Worths) {
        self.appraise(class, groups, worths);
        if self.group() == Some(group) {
            self.choose(groups, worths);
        }
    }

    /// Time has gone on since the last choice, perhaps.
    #[inline]
    pub(super) fn advance(&mut self, now: u32, groups: &Groups, worths: &Worths) {
        if self.now == now {
            return;
        }
        self.now = now;
        let present = groups.present();
        for _ in 0..CLASSES_AT_ONCE.min(present.len()) {
            self.turn = if self.turn + 1 < present.len() {
                self.turn + 1
            } else {
                0
            };
            self.appraise(present[self.turn], groups, worths);
        }
        self.choose(groups, worths);
    }

    fn appraise(&mut self, class: Class, groups: &Groups, worths: &Worths) {
        self.least[class.index()] = match groups.end_ticks(class) {
            None => f32::INFINITY,
            Some((oldest, newest)) => {
                let worth = |tick| worths.of(class, age::between(tick, self.now));
                worth(oldest).min(worth(newest))
            }
        };
    }

    fn choose(&mut self, groups: &Groups, worths: &Worths) {
        let least = |class: &Class| self.least[class.index()];
        let class = groups
            .present()
            .iter()
            .copied()
            .min_by(|one, other| least(one).total_cmp(&least(other)));
        self.victim = class.map(|class| self.of_class(class, groups, worths));
    }

    /// The end of a class that is worth less; of equals the older one.
    fn of_class(&self, class: Class, groups: &Groups, worths: &Worths) -> Victim {
        let worth = |tick| worths.of(class, age::between(tick, self.now));
        let (oldest, newest) = groups.end_ticks(class).unwrap_or_default();
        let (oldest, newest) = (worth(oldest), worth(newest));
        if newest < oldest {
            return Victim {
                group: groups.newest(class),
                worth: newest,
            };
        }
        Victim {
            group: groups.oldest(class),
            worth: oldest,
        }
    }
}
