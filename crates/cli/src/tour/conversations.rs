//! The trace of the tour: conversations that take turns.

use blockmgr::trace::{BLOCK_TOKENS, TraceRequest};

const CONVERSATIONS: u64 = 24;
const TURNS: u64 = 5;
/// System prompts, each shared by many conversations.
const SYSTEMS: u64 = 3;
const SYSTEM_BLOCKS: u64 = 8;
/// That each turn adds.
const TURN_BLOCKS: u64 = 4;
/// Between requests.
const PAUSE_MS: u64 = 250;

/// Turn by turn, in an order that changes.
pub(super) fn make() -> Vec<TraceRequest> {
    let numbers = 0..TURNS * CONVERSATIONS;
    numbers.map(request).collect()
}

fn request(number: u64) -> TraceRequest {
    let turn = number / CONVERSATIONS;
    let conversation = (number * 7 + turn * 5) % CONVERSATIONS;
    let system = conversation % SYSTEMS * SYSTEM_BLOCKS;
    let own = SYSTEMS * SYSTEM_BLOCKS + conversation * TURNS * TURN_BLOCKS;
    let shared = system..system + SYSTEM_BLOCKS;
    let hash_ids: Vec<u64> = shared.chain(own..own + (turn + 1) * TURN_BLOCKS).collect();
    TraceRequest {
        timestamp_ms: number * PAUSE_MS,
        input_tokens: hash_ids.len() as u64 * BLOCK_TOKENS,
        output_tokens: BLOCK_TOKENS,
        hash_ids,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_turn_continues_the_one_before() {
        let requests = make();
        let mut known: HashSet<Vec<u64>> = HashSet::new();
        for (number, request) in requests.iter().enumerate() {
            let turn = number as u64 / CONVERSATIONS;
            let before = request.hash_ids.len() - TURN_BLOCKS as usize;
            let before = request.hash_ids[..before].to_vec();
            assert!(turn == 0 || known.contains(&before), "{number}");
            assert!(known.insert(request.hash_ids.clone()), "{number}");
        }
        let distinct: HashSet<u64> = requests.into_iter().flat_map(|r| r.hash_ids).collect();
        let expected = SYSTEMS * SYSTEM_BLOCKS + CONVERSATIONS * TURNS * TURN_BLOCKS;
        assert_eq!(distinct.len() as u64, expected);
    }
}
