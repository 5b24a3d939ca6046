//! What a script says of the files that it wrote, and whether an import finds it there.

use std::path::Path;

use sha2::{Digest, Sha256};
use tier_nvme::StorageConfig;
use tier_nvme::sim::SimVolume;
use weightstore::{
    ExportOptions, ForeignFile, ImportOptions, NativeConfig, NativeStore, SourceFile, WeightError,
};

/// A tensor as Python sees it.
struct Expected {
    name: String,
    dtype: String,
    shape: String,
    sha256: String,
}

/// What is said of one file.
enum Entry {
    Tensors(Vec<Expected>),
    /// It can't be imported, and the message has these words.
    Refused(Vec<String>),
}

/// The files of a listing, in its order.
pub(crate) struct Listing(Vec<(String, Entry)>);

/// How many files were imported, and how many were refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) imported: usize,
    pub(crate) refused: usize,
}

impl Listing {
    pub(crate) fn parse(text: &str) -> Self {
        let mut files: Vec<(String, Entry)> = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
            match &fields[..] {
                [file, word, words @ ..] if word == "refused" => {
                    files.push((file.clone(), Entry::Refused(words.to_vec())));
                }
                [file, name, dtype, shape, sha256] => {
                    if files.last().is_none_or(|(last, _)| last != file) {
                        files.push((file.clone(), Entry::Tensors(Vec::new())));
                    }
                    let tensor = Expected {
                        name: name.clone(),
                        dtype: dtype.clone(),
                        shape: shape.clone(),
                        sha256: sha256.clone(),
                    };
                    match files.last_mut() {
                        Some((_, Entry::Tensors(tensors))) => tensors.push(tensor),
                        _ => panic!("{line}"),
                    }
                }
                _ => panic!("{line}"),
            }
        }
        Self(files)
    }

    /// Imports every file of the folder, and compares.
    pub(crate) fn check(&self, folder: &Path) -> Checked {
        let mut checked = Checked {
            imported: 0,
            refused: 0,
        };
        for (file, entry) in &self.0 {
            match entry {
                Entry::Tensors(tensors) => {
                    check_tensors(folder, file, tensors);
                    checked.imported += 1;
                }
                Entry::Refused(words) => {
                    check_refused(folder, file, words);
                    checked.refused += 1;
                }
            }
        }
        checked
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Imports a file, and compares each tensor of the store, and of the file exported again.
fn check_tensors(folder: &Path, file: &str, expected: &[Expected]) {
    let bytes = std::fs::read(folder.join(file)).unwrap();
    let foreign = ForeignFile::open(file, bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
    let volume = SimVolume::new(1);
    let storage = StorageConfig::default().with_segment_bytes(16 << 20);
    let config = NativeConfig::default()
        .with_storage(storage)
        .with_batch_bytes(8 << 20);
    let store = NativeStore::on_volume(volume.handle(), config).unwrap();
    let name = foreign.name();
    let source = SourceFile {
        name: &name,
        source: &foreign,
    };
    let report = store
        .add_model("m", source, &ImportOptions::default())
        .unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(report.tensors, expected.len() as u64, "{file}");
    for tensor in expected {
        let loaded = store.load_tensor("m", &tensor.name).unwrap();
        let context = format!("{file}: {}", tensor.name);
        assert_eq!(loaded.dtype().safetensors_name(), tensor.dtype, "{context}");
        assert_eq!(format!("{:?}", loaded.shape()), tensor.shape, "{context}");
        assert_eq!(
            hex(&Sha256::digest(loaded.bytes())),
            tensor.sha256,
            "{context}"
        );
    }
    let mut exported = Vec::new();
    store
        .export_model("m", &mut exported, &ExportOptions::default())
        .unwrap();
    assert!(exported.starts_with(foreign.header().raw()));
}

/// A file that can't be imported is refused when it is opened, or when a checksum shows it.
fn check_refused(folder: &Path, file: &str, words: &[String]) {
    let bytes = std::fs::read(folder.join(file)).unwrap();
    let message = match ForeignFile::open(file, bytes) {
        Err(error @ WeightError::Foreign { .. }) => error.to_string(),
        Err(error) => panic!("{file}: {error:?}"),
        Ok(_) => panic!("{file} was opened, which is to say {words:?}"),
    };
    for word in words {
        assert!(message.contains(word), "{file}: {message}");
    }
}
