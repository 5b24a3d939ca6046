//! What was said of blocks on their way to the disk tier and off it.

use std::collections::HashSet;
use std::sync::Mutex;

use blockmgr::movement::{MoveEvent, MoveSink, TierId};

/// Takes note of moves over several lives.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Noted>);

#[derive(Debug, Default, Clone)]
pub(crate) struct Noted {
    /// Acknowledged, and not being removed.
    pub(crate) there: HashSet<u128>,
    /// On their way there or off: there as a whole, or not at all.
    pub(crate) open: HashSet<u128>,
    /// Damaged at rest since they were acknowledged.
    pub(crate) damaged: HashSet<u128>,
    /// Blocks that came to the disk.
    pub(crate) stored: u64,
    pub(crate) events: Vec<MoveEvent>,
}

impl Notes {
    pub(crate) fn read(&self) -> Noted {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn damage(&self, hash: u128) {
        self.0.lock().unwrap().damaged.insert(hash);
    }

    /// Whoever opened the tier and waited for what was under way found these.
    pub(crate) fn settle(&self, found: &HashSet<u128>) {
        let mut noted = self.0.lock().unwrap();
        noted.there.clone_from(found);
        noted.open.clear();
    }
}

impl MoveSink for Notes {
    fn publish(&self, events: &[MoveEvent]) {
        let mut noted = self.0.lock().unwrap();
        noted.events.extend(events);
        for event in events {
            match *event {
                MoveEvent::Began {
                    target: TierId::G3,
                    sequence_hash,
                } => {
                    let hash = sequence_hash.as_u128();
                    // One that is there is replaced by itself.
                    if !noted.there.contains(&hash) {
                        noted.open.insert(hash);
                    }
                }
                MoveEvent::Moved {
                    target: TierId::G3,
                    sequence_hash,
                    ..
                } => {
                    let hash = sequence_hash.as_u128();
                    noted.stored += 1;
                    noted.open.remove(&hash);
                    noted.damaged.remove(&hash);
                    noted.there.insert(hash);
                }
                MoveEvent::Removing { sequence_hash, .. } => {
                    let hash = sequence_hash.as_u128();
                    noted.there.remove(&hash);
                    noted.open.insert(hash);
                }
                MoveEvent::Removed { sequence_hash, .. } => {
                    noted.open.remove(&sequence_hash.as_u128());
                }
                _ => {}
            }
        }
    }
}
