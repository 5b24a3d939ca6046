//! A trace in the shape that simulations run over.

use std::collections::HashMap;

use crate::trace::TraceRequest;

/// The requests of a trace with the blocks numbered densely, in order of appearance; equal numbers mean equal prefixes.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    requests: Vec<Span>,
    blocks: Vec<u32>,
    distinct: u32,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    time_ms: u64,
}

/// One request of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadRequest<'a> {
    /// Time of arrival, milliseconds.
    pub time_ms: u64,
    /// The blocks of the prompt, first to last.
    pub blocks: &'a [u32],
}

impl Workload {
    /// Requests in order.
    pub fn requests(&self) -> impl ExactSizeIterator<Item = WorkloadRequest<'_>> {
        self.requests.iter().enumerate().map(|(index, span)| {
            let end = self
                .requests
                .get(index + 1)
                .map_or(self.blocks.len(), |next| next.start);
            WorkloadRequest {
                time_ms: span.time_ms,
                blocks: &self.blocks[span.start..end],
            }
        })
    }

    /// How many different blocks there are; all numbers are below it.
    pub fn distinct_blocks(&self) -> u32 {
        self.distinct
    }

    /// Blocks of all requests.
    pub fn total_blocks(&self) -> usize {
        self.blocks.len()
    }
}

impl FromIterator<TraceRequest> for Workload {
    /// A block is who it is by its whole prefix, as in a pool: an id after other ids is another block. One that a request
    /// names twice counts at its first place.
    fn from_iter<I: IntoIterator<Item = TraceRequest>>(requests: I) -> Self {
        let mut numbers: HashMap<(Option<u32>, u64), u32> = HashMap::new();
        let mut named_in: HashMap<u64, usize> = HashMap::new();
        let mut workload = Self::default();
        for (index, request) in requests.into_iter().enumerate() {
            workload.requests.push(Span {
                start: workload.blocks.len(),
                time_ms: request.timestamp_ms,
            });
            let mut parent = None;
            for id in request.hash_ids {
                if named_in.insert(id, index) == Some(index) {
                    continue;
                }
                let next = numbers.len() as u32;
                let number = *numbers.entry((parent, id)).or_insert(next);
                parent = Some(number);
                workload.blocks.push(number);
            }
        }
        workload.distinct = numbers.len() as u32;
        workload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_numbered_by_appearance_and_count_once_a_request() {
        let ask = |timestamp_ms, hash_ids: &[u64]| TraceRequest {
            timestamp_ms,
            hash_ids: hash_ids.to_vec(),
            ..Default::default()
        };
        let requests = [
            ask(1, &[90, 70, 90]),
            ask(2, &[]),
            ask(3, &[90, 8]),
            ask(4, &[70, 8]),
        ];
        let workload: Workload = requests.into_iter().collect();
        let requests: Vec<_> = workload.requests().collect();
        assert_eq!(requests[0].blocks, [0, 1]);
        assert_eq!(requests[1].blocks, [0; 0]);
        assert_eq!(
            requests[2],
            WorkloadRequest {
                time_ms: 3,
                blocks: &[0, 2]
            }
        );
        assert_eq!(requests[3].blocks, [3, 4], "after another prefix");
        assert_eq!(
            (workload.distinct_blocks(), workload.total_blocks()),
            (5, 6)
        );
    }
}
