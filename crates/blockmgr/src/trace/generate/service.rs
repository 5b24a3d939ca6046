//! Sessions that arrive, take turns and end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::random::Random;
use super::scenario::Scenario;
use super::session::Session;
use crate::trace::TraceRequest;

/// The requests of a service, without end: take as many as needed.
#[derive(Debug)]
pub struct Generator {
    scenario: Scenario,
    random: Random,
    sessions: HashMap<u64, Session>,
    /// When each session takes its next turn.
    due: BinaryHeap<Reverse<(u64, u64)>>,
    next_arrival_ms: u64,
    arrived: u64,
}

impl Generator {
    /// A service of this kind; equal seeds make equal requests.
    pub fn new(scenario: Scenario, seed: u64) -> Self {
        Self {
            scenario,
            random: Random::new(seed),
            sessions: HashMap::new(),
            due: BinaryHeap::new(),
            next_arrival_ms: 0,
            arrived: 0,
        }
    }

    /// Kind and tenant of the next session.
    fn draw(&mut self) -> (Scenario, u64) {
        match self.scenario {
            // A job asks for minutes, then there is none for a while.
            Scenario::Batch => {
                let job = (self.next_arrival_ms / 240_000) % 2 == 1;
                if job && self.random.chance(0.7) {
                    (Scenario::Batch, 1)
                } else {
                    (Scenario::Chat, 2)
                }
            }
            Scenario::Tenants => {
                let tenant = self.random.popular(8);
                let kind = match tenant % 4 {
                    0 => Scenario::Chat,
                    1 => Scenario::Documents,
                    2 => Scenario::Agents,
                    _ => Scenario::Batch,
                };
                (kind, 10 + tenant)
            }
            kind => (kind, 3),
        }
    }

    fn arrive(&mut self) -> (u64, u64) {
        let (kind, tenant) = self.draw();
        let (time_ms, session) = (self.next_arrival_ms, self.arrived);
        self.arrived += 1;
        self.sessions.insert(
            session,
            Session::new(kind, tenant, session, &mut self.random),
        );
        let pause_ms = self.random.exponential(self.scenario.arrival_ms());
        self.next_arrival_ms += pause_ms as u64;
        (time_ms, session)
    }
}

impl Iterator for Generator {
    type Item = TraceRequest;

    fn next(&mut self) -> Option<TraceRequest> {
        let due = self.due.peek().map(|&Reverse(due)| due);
        let (time_ms, identity) = match due {
            Some(due) if due.0 < self.next_arrival_ms => {
                self.due.pop();
                due
            }
            _ => self.arrive(),
        };
        let session = self.sessions.get_mut(&identity)?;
        let request = session.turn(time_ms, &mut self.random);
        match session.pause_ms(&mut self.random) {
            Some(pause_ms) => self.due.push(Reverse((time_ms + pause_ms, identity))),
            None => drop(self.sessions.remove(&identity)),
        }
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{Workload, hit_ceiling};

    #[test]
    fn each_kind_repeats_some_and_not_all() {
        for scenario in Scenario::ALL {
            let workload: Workload = Generator::new(scenario, 3).take(3_000).collect();
            let rate = hit_ceiling(&workload).rate();
            assert!((0.1..0.97).contains(&rate), "{scenario:?}: {rate}");
        }
    }

    #[test]
    fn another_seed_makes_another_trace() {
        let first: Vec<_> = Generator::new(Scenario::Chat, 1).take(9).collect();
        assert_ne!(
            first,
            Generator::new(Scenario::Chat, 2)
                .take(9)
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_later_turn_begins_with_what_the_earlier_one_filled() {
        let mut beginnings: HashMap<u64, Vec<u64>> = HashMap::new();
        let mut continued = 0;
        for request in Generator::new(Scenario::Agents, 5).take(2_000) {
            let full = (request.input_tokens / 512) as usize;
            let Some(&last) = request.hash_ids[..full].last() else {
                continue;
            };
            continued += request.hash_ids[..full]
                .iter()
                .filter_map(|block| beginnings.get(block))
                .filter(|beginning| request.hash_ids.starts_with(beginning))
                .count();
            beginnings.insert(last, request.hash_ids[..full].to_vec());
        }
        assert!(continued > 1_000, "{continued}");
    }
}
