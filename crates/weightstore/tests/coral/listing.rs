//! What Coral reads from files, a line for each tensor.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use weightstore::{CoralFile, DecodedDelta, WeightTensor, decode_coral_delta};

/// One tensor as Coral reads it.
pub(crate) struct Line {
    pub(crate) file: String,
    /// The kind of delta that it is made of, if it is.
    pub(crate) delta: Option<String>,
    pub(crate) key: String,
    dtype: String,
    shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl Line {
    fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.split(' ').collect();
        let [file, kind, key, dtype, shape, content] = fields[..] else {
            unreachable!("{line}");
        };
        let list = |text: &'static str, given: &str| (given != text).then(|| given.to_owned());
        let shape = list("-", shape).unwrap_or_default();
        let content = list("-", content).unwrap_or_default();
        let digits = content.as_bytes().chunks_exact(2);
        Self {
            file: file.to_owned(),
            delta: kind.strip_prefix("delta:").map(str::to_owned),
            key: key.to_owned(),
            dtype: dtype.to_owned(),
            shape: shape
                .split(',')
                .filter(|dimension| !dimension.is_empty())
                .map(|dimension| dimension.parse().unwrap())
                .collect(),
            bytes: digits
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect(),
        }
    }

    /// Compares a tensor with what Coral read.
    pub(crate) fn check(&self, weight: &WeightTensor) {
        let what = format!("{} {}", self.file, self.key);
        assert_eq!(weight.dtype().numpy_name(), self.dtype, "{what}");
        assert_eq!(weight.shape(), self.shape, "{what}");
        let width = weight.dtype().size_bytes().unwrap();
        let elements = weight.bytes().chunks(width).zip(self.bytes.chunks(width));
        for (at, (found, expected)) in elements.enumerate() {
            assert_eq!(found, expected, "{what}, element {at}");
        }
        assert_eq!(weight.bytes().len(), self.bytes.len(), "{what}");
    }
}

pub(crate) fn parse(text: &str) -> Vec<Line> {
    text.lines().map(Line::parse).collect()
}

/// Opens files of a directory, each once.
#[derive(Default)]
pub(crate) struct Files(BTreeMap<String, Arc<CoralFile>>);

impl Files {
    pub(crate) fn open(&mut self, directory: &Path, name: &str) -> Arc<CoralFile> {
        let open = || {
            let bytes = std::fs::read(directory.join(name)).unwrap();
            Arc::new(CoralFile::open(name, Arc::new(bytes)).unwrap())
        };
        Arc::clone(self.0.entry(name.to_owned()).or_insert_with(open))
    }
}

pub(crate) fn decode(file: &CoralFile, key: &str) -> DecodedDelta {
    let delta = file.delta(key).unwrap();
    let reference = file.weight(&delta.reference_hash().to_string()).unwrap();
    decode_coral_delta(&delta, &reference).unwrap()
}

/// Holds every line against what this crate reads from the files; how many there were of each kind.
pub(crate) fn check_all(directory: &Path, text: &str) -> BTreeMap<String, usize> {
    let mut files = Files::default();
    let mut counts = BTreeMap::new();
    for line in parse(text) {
        let file = files.open(directory, &line.file);
        let kind = match &line.delta {
            None => {
                line.check(&file.weight(&line.key).unwrap());
                "weight".to_owned()
            }
            Some(kind) => {
                let delta = file.delta(&line.key).unwrap();
                assert_eq!(delta.kind().name(), kind);
                line.check(&decode(&file, &line.key).weight);
                kind.clone()
            }
        };
        *counts.entry(kind).or_default() += 1;
    }
    counts
}
