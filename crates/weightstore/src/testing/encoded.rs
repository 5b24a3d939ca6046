//! Checks of stores that move tensors as they are stored.

use core_view::{BufferMut, DType};

use super::Nonconformance;
use crate::{
    EncodedObject, EncodedSink, EncodedSource, TransferJournal, WeightError, WeightHash,
    WeightStore, WeightTensor,
};

/// A store that gives and takes tensors as they are stored.
pub trait EncodedStore: WeightStore + EncodedSource + EncodedSink + TransferJournal {}

impl<S: WeightStore + EncodedSource + EncodedSink + TransferJournal> EncodedStore for S {}

/// Makes a fresh, empty store for a check.
pub type MakeEncodedStore<'a> = dyn FnMut() -> Result<Box<dyn EncodedStore>, WeightError> + 'a;

type Check = fn(&dyn EncodedStore, &dyn EncodedStore) -> Result<(), String>;

const CHECKS: [(&str, Check); 5] = [
    ("tensors of every size move", tensors_move),
    ("ranges are parts of the whole", ranges_are_parts),
    ("what is damaged is refused", damage_is_refused),
    ("a transfer goes on where it was", transfers_go_on),
    ("a journal remembers", journals_remember),
];

/// Runs every check, each on two fresh stores that `make` makes.
///
/// # Errors
/// The first rule that is broken.
pub fn check_encoded_store(make: &mut MakeEncodedStore<'_>) -> Result<(), Nonconformance> {
    for (check, run) in CHECKS {
        let failed = |reason: String| Nonconformance { check, reason };
        let make = &mut *make;
        let mut fresh = || make().map_err(|error| failed(error.to_string()));
        let (source, sink) = (fresh()?, fresh()?);
        run(&*source, &*sink).map_err(failed)?;
    }
    Ok(())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn demand(holds: bool, rule: &str) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| rule.to_owned())
}

/// Tensors without elements, in one chunk, small and large, and in several.
fn tensors() -> Result<Vec<WeightTensor>, String> {
    let lens = [0, 1, 5000, (1 << 20) - 1, 1 << 20, (5 << 19) + 3];
    let tensor = |len: usize| {
        let mut state = len as u32 | 1;
        let bytes: Vec<u8> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                (state >> 27) as u8
            })
            .collect();
        WeightTensor::new("t", DType::U8, &[len as u64], bytes).map_err(text)
    };
    lens.into_iter().map(tensor).collect()
}

fn object(source: &dyn EncodedStore, hash: &WeightHash) -> Result<EncodedObject, String> {
    let object = source.encoded(hash).map_err(text)?;
    object.ok_or_else(|| "a stored tensor has no encoding".to_owned())
}

fn chunk(
    source: &dyn EncodedStore,
    object: &EncodedObject,
    index: u32,
) -> Result<BufferMut, String> {
    let range = object.chunk_range(index).ok_or("a chunk has no range")?;
    let mut bytes = vec![0; (range.end - range.start) as usize];
    source
        .read_encoded(object, range.start, &mut bytes)
        .map_err(text)?;
    Ok(BufferMut::from_vec(bytes))
}

fn stored(store: &dyn EncodedStore) -> Result<Vec<(WeightTensor, WeightHash)>, String> {
    let tensors = tensors()?.into_iter();
    let stored = tensors.map(|tensor| {
        let hash = store.store(&tensor, None).map_err(text)?;
        Ok((tensor, hash))
    });
    stored.collect()
}

fn tensors_move(source: &dyn EncodedStore, sink: &dyn EncodedStore) -> Result<(), String> {
    for (tensor, hash) in stored(source)? {
        let object = object(source, &hash)?;
        demand(object.hash() == hash, "an encoding has another hash")?;
        demand(
            object.logical_bytes() == tensor.bytes().len() as u64,
            "an encoding has another length",
        )?;
        let missing = sink.stage(&object).map_err(text)?;
        let missing = missing.ok_or("a fresh store has the tensor already")?;
        demand(
            missing.len() == object.chunk_count() as usize,
            "a fresh transfer does not miss every chunk",
        )?;
        if !missing.is_empty() {
            demand(
                matches!(sink.publish(&object), Err(WeightError::NotStaged { .. })),
                "a tensor is published before its chunks came",
            )?;
        }
        for index in missing {
            let chunks = vec![(index, chunk(source, &object, index)?)];
            sink.stage_chunks(&object, chunks).map_err(text)?;
            demand(
                !sink.exists(&hash.into()).map_err(text)?,
                "a tensor is seen before it is published",
            )?;
        }
        sink.publish(&object).map_err(text)?;
        sink.publish(&object).map_err(text)?;
        let loaded = sink.load(&hash.into()).map_err(text)?;
        demand(
            loaded.is_some_and(|loaded| loaded.bytes() == tensor.bytes()),
            "a tensor that moved has other bytes",
        )?;
        demand(
            sink.stage(&object).map_err(text)?.is_none(),
            "a tensor that is there is asked for again",
        )?;
    }
    demand(
        sink.staged().map_err(text)?.is_empty(),
        "something stays staged",
    )
}

fn ranges_are_parts(source: &dyn EncodedStore, _: &dyn EncodedStore) -> Result<(), String> {
    for (_, hash) in stored(source)? {
        let object = object(source, &hash)?;
        let mut whole = vec![0; object.len_bytes() as usize];
        source.read_encoded(&object, 0, &mut whole).map_err(text)?;
        demand(
            EncodedObject::parse(&whole).map_err(text)? == object,
            "the bytes of an encoding parse as another",
        )?;
        for start in (0..whole.len()).step_by(whole.len() / 9 + 1) {
            for len in [1, 100, whole.len() / 2] {
                let end = (start + len).min(whole.len());
                let mut part = vec![0; end - start];
                source
                    .read_encoded(&object, start as u64, &mut part)
                    .map_err(text)?;
                demand(part == whole[start..end], "a range has other bytes")?;
            }
        }
        let beyond = source.read_encoded(&object, whole.len() as u64, &mut [0]);
        demand(
            matches!(beyond, Err(WeightError::OutOfRange { .. })),
            "a range beyond the end is read",
        )?;
    }
    Ok(())
}

fn damage_is_refused(source: &dyn EncodedStore, sink: &dyn EncodedStore) -> Result<(), String> {
    for (_, hash) in stored(source)? {
        let object = object(source, &hash)?;
        for at in (0..object.head().len()).step_by(object.head().len() / 40 + 1) {
            let mut head = object.head().to_vec();
            head[at] ^= 1;
            if let Ok(other) = EncodedObject::parse(&head) {
                demand(other != object, "a changed head is the same")?;
                let published = sink
                    .stage(&other)
                    .and_then(|_| sink.publish(&other))
                    .is_ok();
                demand(!published, "a changed head is published")?;
                sink.discard(&other.hash()).map_err(text)?;
            }
        }
        sink.stage(&object).map_err(text)?;
        for index in 0..object.chunk_count() {
            let good = chunk(source, &object, index)?;
            for at in [0, good.len() / 2, good.len() - 1] {
                let mut bad = good.to_vec();
                bad[at] ^= 1;
                let chunks = vec![(index, BufferMut::from_vec(bad))];
                demand(
                    matches!(
                        sink.stage_chunks(&object, chunks),
                        Err(WeightError::Corrupt { .. })
                    ),
                    "a changed chunk is taken",
                )?;
            }
            let short = BufferMut::from_vec(good[1..].to_vec());
            let taken = sink.stage_chunks(&object, vec![(index, short)]).is_ok();
            demand(!taken, "a chunk that is too short is taken")?;
            let beyond = vec![(object.chunk_count(), good)];
            let taken = sink.stage_chunks(&object, beyond).is_ok();
            demand(!taken, "a chunk beyond the last is taken")?;
        }
        let missing = sink.stage(&object).map_err(text)?;
        demand(
            missing.is_some_and(|missing| missing.len() == object.chunk_count() as usize),
            "a chunk that was refused is there",
        )?;
        sink.discard(&hash).map_err(text)?;
    }
    demand(
        sink.list_weights().map_err(text)?.is_empty(),
        "something is stored that was never whole",
    )
}

fn transfers_go_on(source: &dyn EncodedStore, sink: &dyn EncodedStore) -> Result<(), String> {
    let stored = stored(source)?;
    let (_, hash) = stored.last().ok_or("no tensors")?;
    let object = object(source, hash)?;
    sink.stage(&object).map_err(text)?;
    let second = chunk(source, &object, 1)?;
    sink.stage_chunks(&object, vec![(1, second)])
        .map_err(text)?;
    demand(
        sink.stage(&object).map_err(text)? == Some(vec![0, 2]),
        "what was staged is asked for again",
    )?;
    demand(
        sink.staged().map_err(text)? == [*hash],
        "a transfer is not listed",
    )?;
    demand(
        sink.discard(hash).map_err(text)? && !sink.discard(hash).map_err(text)?,
        "a transfer is not discarded once",
    )?;
    let third = chunk(source, &object, 2)?;
    demand(
        matches!(
            sink.stage_chunks(&object, vec![(2, third)]),
            Err(WeightError::NotStaged { .. })
        ),
        "a chunk is taken without a transfer",
    )?;
    demand(
        sink.stage(&object).map_err(text)? == Some(vec![0, 1, 2]),
        "what was discarded is there",
    )
}

fn journals_remember(store: &dyn EncodedStore, _: &dyn EncodedStore) -> Result<(), String> {
    store.record("b", b"one").map_err(text)?;
    store.record("a", &[0; 4000]).map_err(text)?;
    store.record("b", b"two").map_err(text)?;
    demand(
        store.transfers().map_err(text)? == ["a", "b"],
        "transfers are not listed in order",
    )?;
    demand(
        store.recorded("b").map_err(text)? == Some(b"two".to_vec()),
        "a state is not the last one",
    )?;
    demand(
        store.forget("a").map_err(text)? && !store.forget("a").map_err(text)?,
        "a transfer is not forgotten once",
    )?;
    demand(
        store.recorded("a").map_err(text)?.is_none(),
        "what was forgotten is there",
    )?;
    demand(
        store.record("", b"").is_err()
            && store
                .record("c", &vec![0; crate::TRANSFER_STATE_LEN_MAX + 1])
                .is_err(),
        "a name or a state is taken that is out of bounds",
    )
}
