//! A block store in memory whose work happens when a schedule says.

use std::collections::HashSet;
use std::sync::Arc;

use super::executor::{Executor, Work};
use super::schedule::{Fault, FaultCounters, Faults, count};
use super::{Dice, FaultCounts, MockMedia, Schedule};
use crate::BufferMut;
use crate::contract::{
    Block, BlockCapabilities, BlockEntry, BlockGet, BlockKey, BlockPut, BlockStore, BlockUsage,
    ContractError, ErrorKind, Failure, Transfer,
};

/// A [`BlockStore`] on a [`MockMedia`], under a [`Schedule`].
///
/// ```
/// use core_view::BufferMut;
/// use core_view::contract::mock::{MockBlockStore, Schedule};
/// use core_view::contract::{BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore, ErrorKind};
///
/// let store = MockBlockStore::new(Schedule::driven(7));
/// let key = BlockKey(1);
/// let payload = BufferMut::from_vec(vec![5; 100]);
/// let put = BlockPut { key, meta: BlockMeta::EMPTY, payload };
/// let target = store.put(vec![put]).wait()?.remove(0)?;
/// store.media().flip_bit(key, 3);
/// let got = store.get(vec![BlockGet { key, target }]).wait()?.remove(0);
/// assert_eq!(got.unwrap_err().kind(), ErrorKind::Corrupt);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MockBlockStore {
    media: MockMedia,
    capabilities: BlockCapabilities,
    executor: Executor,
}

impl MockBlockStore {
    /// An empty store without a bound, that takes payloads of up to 16 MiB at any alignment.
    pub fn new(schedule: Schedule) -> Self {
        Self::open(MockMedia::default(), schedule)
    }

    /// The store on `media`, with what was acknowledged before.
    pub fn open(media: MockMedia, schedule: Schedule) -> Self {
        Self {
            media,
            capabilities: BlockCapabilities {
                durable: true,
                payload_alignment_bytes: 1,
                payload_bytes_max: 16 << 20,
                capacity_bytes: None,
            },
            executor: Executor::new(schedule),
        }
    }

    /// Sets what the store can do.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: BlockCapabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// What the blocks are kept on.
    pub fn media(&self) -> &MockMedia {
        &self.media
    }

    /// The faults that came about so far.
    pub fn fault_counts(&self) -> FaultCounts {
        self.executor.faults().counts()
    }

    /// Carries out one batch that is queued, chosen by the seed; `false` if there is none.
    pub fn step(&self) -> bool {
        self.executor.step()
    }

    fn submit<I: Send + 'static, T: Send + 'static>(
        &self,
        operation: &'static str,
        input: I,
        give_back: fn(I) -> Vec<BufferMut>,
        carry_out: impl FnOnce(&Batch, I, &mut Dice) -> Result<T, Failure> + Send + 'static,
    ) -> Transfer<T> {
        let context = Batch {
            media: self.media.clone(),
            capabilities: self.capabilities,
            faults: self.executor.schedule().faults,
            counters: Arc::clone(self.executor.faults()),
        };
        self.executor.submit(Work {
            operation,
            input,
            give_back,
            carry_out: Box::new(move |input, mut dice| {
                Transfer::ready(carry_out(&context, input, &mut dice))
            }),
        })
    }

    fn fail_by_chance(&self, operation: &'static str) -> Result<(), ContractError> {
        let fault = self
            .executor
            .schedule()
            .faults
            .draw(&mut self.executor.dice());
        match fault {
            Some(Fault::Refused | Fault::Torn) => {
                self.executor.faults().note(Fault::Refused);
                Err(injected(operation))
            }
            Some(Fault::Flipped) | None => Ok(()),
        }
    }
}

fn injected(operation: &'static str) -> ContractError {
    ContractError::new(ErrorKind::Io, operation).detail("the schedule says so")
}

/// What a batch needs to be carried out.
struct Batch {
    media: MockMedia,
    capabilities: BlockCapabilities,
    faults: Faults,
    counters: Arc<FaultCounters>,
}

fn check_first(
    seen: &mut HashSet<BlockKey>,
    operation: &'static str,
    key: BlockKey,
) -> Result<(), ContractError> {
    if seen.insert(key) {
        return Ok(());
    }
    Err(ContractError::new(ErrorKind::InvalidInput, operation)
        .detail(format!("key {key} appears twice in the batch; split it")))
}

impl Batch {
    fn inject(&self, fault: Fault, operation: &'static str) -> ContractError {
        self.counters.note(fault);
        injected(operation)
    }

    fn put(&self, put: &BlockPut, dice: &mut Dice) -> Result<(), ContractError> {
        const OPERATION: &str = "put block";
        let (len, max) = (put.payload.len(), self.capabilities.payload_bytes_max);
        if len == 0 || len > max {
            return Err(
                ContractError::new(ErrorKind::InvalidInput, OPERATION).detail(format!(
                    "a payload of {len} bytes for key {}; 1 to {max} are allowed",
                    put.key
                )),
            );
        }
        let fault = self.faults.draw(dice);
        if fault == Some(Fault::Refused) {
            return Err(self.inject(Fault::Refused, OPERATION));
        }
        let stored = self
            .media
            .put(put.key, put.meta, &put.payload, &self.capabilities);
        stored.inspect_err(|_| count(&self.counters.full))?;
        match fault {
            Some(Fault::Torn) => return Err(self.inject(Fault::Torn, OPERATION)),
            Some(Fault::Flipped) => {
                self.counters.note(Fault::Flipped);
                self.media.flip_bit(put.key, dice.next_u64());
            }
            Some(Fault::Refused) | None => {}
        }
        Ok(())
    }

    fn put_all(&self, puts: Vec<BlockPut>, dice: &mut Dice) -> Vec<Result<BufferMut, Failure>> {
        let mut seen = HashSet::new();
        let mut one = |put: BlockPut| {
            let done =
                check_first(&mut seen, "put block", put.key).and_then(|()| self.put(&put, dice));
            match done {
                Ok(()) => Ok(put.payload),
                Err(error) => Err(Failure::new(error, vec![put.payload])),
            }
        };
        puts.into_iter().map(&mut one).collect()
    }

    fn get_all(&self, gets: Vec<BlockGet>, dice: &mut Dice) -> Vec<Result<Block, Failure>> {
        const OPERATION: &str = "get block";
        let mut seen = HashSet::new();
        let alignment_bytes = self.capabilities.payload_alignment_bytes;
        let mut one = |mut get: BlockGet| {
            let found = check_first(&mut seen, OPERATION, get.key).and_then(|()| {
                let fault = self.faults.draw(dice);
                if let Some(Fault::Refused | Fault::Torn) = fault {
                    return Err(self.inject(Fault::Refused, OPERATION));
                }
                self.media.get(get.key, &mut get.target, alignment_bytes)
            });
            match found {
                Ok((meta, payload_bytes)) => Ok(Block {
                    meta,
                    target: get.target,
                    payload_bytes,
                }),
                Err(error) => Err(Failure::new(error, vec![get.target])),
            }
        };
        gets.into_iter().map(&mut one).collect()
    }
}

impl BlockStore for MockBlockStore {
    fn capabilities(&self) -> BlockCapabilities {
        self.capabilities
    }

    fn usage(&self) -> BlockUsage {
        self.media.usage()
    }

    fn put(&self, puts: Vec<BlockPut>) -> Transfer<Vec<Result<BufferMut, Failure>>> {
        self.submit(
            "put blocks",
            puts,
            |puts| puts.into_iter().map(|put| put.payload).collect(),
            |work, puts, dice| Ok(work.put_all(puts, dice)),
        )
    }

    fn get(&self, gets: Vec<BlockGet>) -> Transfer<Vec<Result<Block, Failure>>> {
        self.submit(
            "get blocks",
            gets,
            |gets| gets.into_iter().map(|get| get.target).collect(),
            |work, gets, dice| Ok(work.get_all(gets, dice)),
        )
    }

    fn contains(&self, keys: &[BlockKey]) -> Result<Vec<bool>, ContractError> {
        self.fail_by_chance("look up blocks")?;
        Ok(keys.iter().map(|&key| self.media.contains(key)).collect())
    }

    fn remove(&self, keys: &[BlockKey]) -> Transfer<Vec<bool>> {
        self.submit(
            "remove blocks",
            keys.to_vec(),
            |_| Vec::new(),
            |work, keys, dice| {
                let fault = work.faults.draw(dice);
                if fault == Some(Fault::Refused) {
                    return Err(work.inject(Fault::Refused, "remove blocks").into());
                }
                let removed = keys.iter().map(|&key| work.media.remove(key)).collect();
                match fault {
                    Some(Fault::Torn) => Err(work.inject(Fault::Torn, "remove blocks").into()),
                    _ => Ok(removed),
                }
            },
        )
    }

    fn list(
        &self,
        after: Option<BlockKey>,
        count_max: usize,
    ) -> Result<Vec<BlockEntry>, ContractError> {
        self.fail_by_chance("list blocks")?;
        Ok(self.media.list(after, count_max))
    }
}
