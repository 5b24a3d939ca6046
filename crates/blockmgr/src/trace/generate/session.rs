//! What one user, agent or job asks, turn after turn.

use super::random::Random;
use super::scenario::Scenario;
use crate::policy::mix;
use crate::trace::{BLOCK_TOKENS, TraceRequest};

/// A conversation: each turn's prompt is all that was said before and something new.
#[derive(Debug)]
pub(super) struct Session {
    kind: Scenario,
    /// Identities of the full blocks.
    chain: Vec<u64>,
    /// Tokens beyond the full blocks.
    tail_tokens: u64,
    turns: u32,
    turns_max: u32,
    /// This user's pace: think times are multiplied by it.
    pace: f64,
    /// Tells this session's new blocks from all others'.
    identity: u64,
    /// Tells the prompts of this session's tenant from others'.
    tenant: u64,
}

impl Session {
    pub(super) fn new(kind: Scenario, tenant: u64, identity: u64, random: &mut Random) -> Self {
        let mut session = Self {
            kind,
            chain: Vec::new(),
            tail_tokens: 0,
            turns: 0,
            turns_max: 1,
            pace: random.log_normal(1.0, 0.5),
            identity,
            tenant,
        };
        match kind {
            Scenario::Chat => {
                session.shared(1, 1);
                session.turns_max = turns(random, 0.3, 0.07, 0.85);
            }
            Scenario::Agents => {
                let kind_of_agent = random.popular(6);
                session.shared(10 + kind_of_agent, 6 + 3 * kind_of_agent);
                session.turns_max = turns(random, 0.9, 0.005, 0.95);
            }
            Scenario::Documents => {
                session.shared(2, 2);
                let document = random.popular(3_000);
                session.shared(1_000 + document, 3 + mix(document) % 40);
                session.turns_max = turns(random, 0.3, 0.0, 0.3);
            }
            Scenario::Batch => {
                session.shared(100 + identity / 400, 4 + (identity / 400) % 12);
            }
            Scenario::Tenants => {}
        }
        session
    }

    /// Appends a text that others have too, after the same beginning.
    fn shared(&mut self, text: u64, blocks: u64) {
        let before = self.chain.last().copied().unwrap_or(self.tenant);
        let chain = (0..blocks).map(|block| mix(mix(before ^ text << 20) ^ block) >> 12);
        self.chain.extend(chain);
    }

    /// The next request.
    pub(super) fn turn(&mut self, timestamp_ms: u64, random: &mut Random) -> TraceRequest {
        let (new_tokens, output_tokens) = self.lengths(random);
        self.extend(new_tokens);
        self.turns += 1;
        let mut hash_ids = self.chain.clone();
        if self.tail_tokens > 0 {
            hash_ids.push(self.block(hash_ids.len(), u64::from(self.turns)));
        }
        let input_tokens = self.chain.len() as u64 * BLOCK_TOKENS + self.tail_tokens;
        self.extend(output_tokens);
        TraceRequest {
            timestamp_ms,
            input_tokens,
            output_tokens,
            hash_ids,
        }
    }

    /// Milliseconds to the next turn; `None` if there is none.
    pub(super) fn pause_ms(&self, random: &mut Random) -> Option<u64> {
        if self.turns >= self.turns_max || self.chain.len() > 250 {
            return None;
        }
        let (median_ms, sigma) = match self.kind {
            Scenario::Agents => (6_000.0, 0.9),
            Scenario::Documents => (40_000.0, 0.8),
            _ => (90_000.0, 1.0),
        };
        Some((self.pace * random.log_normal(median_ms, sigma)) as u64)
    }

    /// Tokens of the next question, and of the answer.
    fn lengths(&self, random: &mut Random) -> (u64, u64) {
        let first = self.turns == 0;
        let (new, output): (f64, f64) = match self.kind {
            Scenario::Chat if first => (random.log_normal(3_500.0, 1.3), 350.0),
            Scenario::Chat => (random.log_normal(500.0, 1.4), 350.0),
            Scenario::Agents => (random.log_normal(900.0, 1.0), 150.0),
            Scenario::Documents => (random.log_normal(120.0, 0.7), 250.0),
            Scenario::Batch | Scenario::Tenants => (random.log_normal(8_000.0, 0.7), 100.0),
        };
        let output = random.log_normal(output, 0.7);
        ((new as u64).clamp(1, 60_000), (output as u64).max(1))
    }

    fn extend(&mut self, tokens: u64) {
        self.tail_tokens += tokens;
        while self.tail_tokens >= BLOCK_TOKENS {
            self.tail_tokens -= BLOCK_TOKENS;
            self.chain.push(self.block(self.chain.len(), 0));
        }
    }

    /// The identity of this session's block at a place; a partly filled one is new in each turn.
    fn block(&self, position: usize, turn: u64) -> u64 {
        mix(mix(self.tenant ^ self.identity << 16) ^ (position as u64) << 24 ^ turn) >> 12
    }
}

/// A number of turns, where each turn makes the next one likelier.
fn turns(random: &mut Random, first: f64, step: f64, most: f64) -> u32 {
    let mut turns = 1;
    let mut chance = first;
    while random.chance(chance) {
        turns += 1;
        chance = (chance + step).min(most);
    }
    turns
}
