//! A store with live and dead content in several segments, and bits to flip in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use core_view::DType;
use core_view::safetensors::HeaderBuilder;
use tempfile::TempDir;
use tier_nvme::StorageConfig;
use weightstore::{NativeConfig, NativeStore, WeightStore};

use crate::flipped::{Answers, Outcome, examine, stepwell};

const SEGMENT_BYTES: u64 = 2 << 20;

/// One bit of a file.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) bit: u8,
}

pub(crate) struct Store {
    folder: TempDir,
    files: BTreeMap<String, Vec<u8>>,
    models: Vec<(&'static str, Vec<u8>)>,
    answers: Answers,
}

impl Store {
    /// Adds three models and removes one, by the program.
    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let storage = StorageConfig::default().with_segment_bytes(SEGMENT_BYTES);
        let config = NativeConfig::default()
            .with_batch_bytes(NativeConfig::BATCH_BYTES_MIN)
            .with_storage(storage);
        NativeStore::open(&path, config).unwrap().close().unwrap();
        let models = [("gone", 1), ("first", 2), ("second", 3)];
        let mut kept = Vec::new();
        for (name, seed) in models {
            let bytes = model(seed);
            let file = folder.path().join(name);
            std::fs::write(&file, &bytes).unwrap();
            let added = stepwell("add", &path, &[file.to_str().unwrap()]);
            assert!(added.status.success(), "{added:?}");
            kept.push((name, bytes));
        }
        kept.remove(0);
        assert!(stepwell("rm", &path, &["gone"]).status.success());
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
        // The lock holds a process id for messages, and nothing is read from it.
        files.retain(|name, _| !name.starts_with('.'));
        let answers = Answers::of(&path, &kept);
        Self {
            folder,
            files,
            models: kept,
            answers,
        }
    }

    /// Flips a bit, examines the store, and flips it back.
    pub(crate) fn flip(&self, file: &str, offset: u64, bit: u8) -> Outcome {
        let path = self.folder.path().join("store");
        let handle = File::options().write(true).open(path.join(file)).unwrap();
        let byte = *self.files.get(file).unwrap().get(offset as usize).unwrap();
        handle.write_all_at(&[byte ^ (1 << bit)], offset).unwrap();
        let context = format!("bit {bit} of byte {offset} of {file}");
        let outcome = examine(&path, &self.models, &self.answers, &context);
        handle.write_all_at(&[byte], offset).unwrap();
        outcome
    }

    /// Where those bytes are, in which files.
    pub(crate) fn find(&self, wanted: &[u8]) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for (name, bytes) in &self.files {
            let offsets = bytes.windows(wanted.len()).enumerate();
            let offsets = offsets.filter(|(_, window)| *window == wanted);
            found.extend(offsets.map(|(offset, _)| (name.clone(), offset as u64)));
        }
        found
    }

    /// The beginnings of the large tensors' chunks of each model that is there.
    pub(crate) fn live_content(&self) -> Vec<(Vec<u8>, &'static str)> {
        let part = |seed: u64, at: usize| large(seed).get(at..at + 24).unwrap().to_vec();
        vec![
            (part(2, 0), "first"),
            (part(2, 1 << 20), "first"),
            (part(3, 500_000), "second"),
        ]
    }

    /// Content of the model that was removed.
    pub(crate) fn dead_content(&self) -> Vec<Vec<u8>> {
        vec![large(1).get(..24).unwrap().to_vec()]
    }

    /// Bits by a seed: half of them anywhere, half of them spread evenly over the files and what is
    /// not zero in them.
    pub(crate) fn random_places(&self, count: u64, seed: u64) -> Vec<Place> {
        let total: u64 = self.files.values().map(|bytes| bytes.len() as u64).sum();
        let mut random = Random(seed | 1 << 40);
        let anywhere = |mut at: u64| {
            for (name, bytes) in &self.files {
                if at < bytes.len() as u64 {
                    return (name.clone(), at);
                }
                at -= bytes.len() as u64;
            }
            unreachable!("the offset is below the sum of all files")
        };
        let names: Vec<&String> = self.files.keys().collect();
        let places = (0..count).map(|index| {
            let (file, offset) = if index % 2 == 0 {
                anywhere(random.below(total))
            } else {
                let name = *names
                    .get(random.below(names.len() as u64) as usize)
                    .unwrap();
                let bytes = self.files.get(name).unwrap();
                let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0) as u64 + 1;
                (name.clone(), random.below(used))
            };
            Place {
                file,
                offset,
                bit: random.below(8) as u8,
            }
        });
        places.collect()
    }

    /// Compares every file with what it was at first.
    pub(crate) fn check_unchanged(&self) {
        let path = self.folder.path().join("store");
        for (name, bytes) in &self.files {
            assert!(std::fs::read(path.join(name)).unwrap() == *bytes, "{name}");
        }
    }
}

/// xorshift64*.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % limit
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed << 20 | 1);
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// The bytes of a model's large tensor: more than one chunk.
fn large(seed: u64) -> Vec<u8> {
    noise(seed, 1_300_000)
}

/// A model with tensors in chunks and inline, one of them shared by all.
fn model(seed: u64) -> Vec<u8> {
    let header = HeaderBuilder::new()
        .tensor("large", DType::U8, &[1_300_000])
        .tensor("medium", DType::BF16, &[100, 50])
        .tensor("small", DType::F32, &[10])
        .tensor("tiny", DType::U8, &[3])
        .tensor("shared", DType::I16, &[20])
        .build()
        .unwrap();
    let mut bytes = header.raw().to_vec();
    bytes.extend(large(seed));
    bytes.extend(noise(seed + 100, 10_000 + 40 + 3));
    bytes.extend(noise(99, 40));
    bytes
}
