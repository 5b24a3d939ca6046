//! Stores families of checkpoints and says what they take: beside the plain files, and beside Coral where
//! it is installed.
//!
//! The first family is that of Coral's own benchmark: of two small models each five variations with more and more noise
//! and three copies, 18 models of 126 tensors. The second has the same sizes, and what happens to
//! checkpoints besides: fine-tunes of some layers, and a training from scratch. Every tensor is compared bit by
//! bit.
//!
//! With `STEPWELL_CORAL_PYTHON` naming a Python that has Coral, it stores the same files with it.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use core_view::DType;
use core_view::safetensors::HeaderBuilder;
use weightstore::{
    ExportOptions, ImportOptions, NativeConfig, NativeStore, SourceFile, WeightStore,
};

/// What Coral says that it saves of its own family.
const SAVED_BY_CORAL: f64 = 0.376;

/// Layers of a model: name, shape, and inputs of each output.
type Layers = &'static [(&'static str, &'static [u64], u64)];

const CNN: Layers = &[
    ("conv1.weight", &[16, 3, 3, 3], 27),
    ("conv1.bias", &[16], 27),
    ("conv2.weight", &[32, 16, 3, 3], 144),
    ("conv2.bias", &[32], 144),
    ("fc.weight", &[10, 2048], 2048),
    ("fc.bias", &[10], 2048),
];

const MLP: Layers = &[
    ("layers.0.weight", &[512, 784], 784),
    ("layers.0.bias", &[512], 784),
    ("layers.2.weight", &[256, 512], 512),
    ("layers.2.bias", &[256], 512),
    ("layers.4.weight", &[128, 256], 256),
    ("layers.4.bias", &[128], 256),
    ("layers.6.weight", &[10, 128], 128),
    ("layers.6.bias", &[10], 128),
];

/// The values of each layer.
type Model = Vec<Vec<f32>>;

/// Numbers that look like nothing, by a seed.
struct Random(u64);

impl Random {
    /// Evenly in [0, 1).
    fn even(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Normally distributed, mean 0, deviation 1.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.even()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.even()).cos()
    }
}

/// A model as PyTorch begins a training with it.
fn fresh(layers: Layers, random: &mut Random) -> Model {
    layers
        .iter()
        .map(|(_, shape, inputs)| {
            let bound = 1.0 / (*inputs as f64).sqrt();
            let len = shape.iter().product::<u64>();
            (0..len)
                .map(|_| ((2.0 * random.even() - 1.0) * bound) as f32)
                .collect()
        })
        .collect()
}

/// The model with noise on the layers from `first` on.
fn varied(model: &Model, first: usize, noise: f64, random: &mut Random) -> Model {
    let mut model = model.clone();
    for layer in model.iter_mut().skip(first) {
        for value in layer {
            *value += (random.normal() * noise) as f32;
        }
    }
    model
}

/// The family of Coral's benchmark.
fn noise_and_copies(layers: Layers, random: &mut Random) -> Vec<(&'static str, Model)> {
    let base = fresh(layers, random);
    let mut family = vec![("base", base.clone())];
    let variations = ["var1", "var2", "var3", "var4", "var5"];
    for (name, noise) in variations.into_iter().zip([0.001, 0.01, 0.05, 0.05, 0.05]) {
        family.push((name, varied(&base, 0, noise, random)));
    }
    family.extend(["copy1", "copy2", "copy3"].map(|name| (name, base.clone())));
    family
}

/// What else becomes of a checkpoint.
fn fine_tunes_and_retrained(layers: Layers, random: &mut Random) -> Vec<(&'static str, Model)> {
    let base = fresh(layers, random);
    let last = layers.len() - 2;
    let step = varied(&base, 0, 1e-5, random);
    vec![
        ("same", base.clone()),
        ("step", step.clone()),
        ("next-step", varied(&step, 0, 1e-5, random)),
        ("head", varied(&base, last, 0.01, random)),
        ("head-again", varied(&base, last, 0.01, random)),
        ("upper-half", varied(&base, layers.len() / 2, 0.001, random)),
        ("all", varied(&base, 0, 1e-4, random)),
        ("retrained", fresh(layers, random)),
        ("base", base),
    ]
}

fn safetensors(layers: Layers, model: &Model) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut header = HeaderBuilder::new();
    for (name, shape, _) in layers {
        header = header.tensor(*name, DType::F32, shape);
    }
    let mut file = header.build()?.raw().to_vec();
    let values = model.iter().flatten();
    file.extend(values.flat_map(|value| value.to_le_bytes()));
    Ok(file)
}

/// What a family takes.
struct Row {
    naive_bytes: u64,
    stored_bytes: u64,
    tensors: u64,
    exact_tensors: u64,
}

impl Row {
    fn saved(&self) -> f64 {
        1.0 - self.stored_bytes as f64 / self.naive_bytes as f64
    }

    fn print(&self, family: &str, store: &str) {
        println!(
            "| {family} | {store} | {} | {} | {:.1} % | {:.2}× | {} of {} |",
            self.naive_bytes,
            self.stored_bytes,
            100.0 * self.saved(),
            self.naive_bytes as f64 / self.stored_bytes as f64,
            self.exact_tensors,
            self.tensors,
        );
    }
}

/// Stores the files, and restores and compares each.
fn stored(files: &[(String, Vec<u8>)], tensors: u64) -> Result<Row, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let store = NativeStore::open(directory.path(), NativeConfig::default())?;
    for (name, bytes) in files {
        let source = SourceFile {
            name: "model.safetensors",
            source: bytes,
        };
        store.add_model(name, source, &ImportOptions::default())?;
    }
    let mut exact_tensors = 0;
    for (name, bytes) in files {
        let mut restored = Vec::new();
        let report = store.export_model(name, &mut restored, &ExportOptions::default())?;
        if restored == *bytes {
            exact_tensors += report.tensors;
        }
    }
    let stats = store.stats()?;
    store.close()?;
    Ok(Row {
        naive_bytes: files.iter().map(|file| file.1.len() as u64).sum(),
        stored_bytes: stats.stored_bytes,
        tensors,
        exact_tensors,
    })
}

/// What Coral makes of the same files: bytes of its store, and tensors that come back bit for bit.
fn coral(python: &Path, files: &[(String, Vec<u8>)], ours: &Row) -> Result<Row, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    for (number, (name, bytes)) in files.iter().enumerate() {
        let path = directory
            .path()
            .join(format!("{number:02}-{name}.safetensors"));
        std::io::copy(&mut bytes.as_slice(), &mut File::create(path)?)?;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/coral/family.py");
    let output = Command::new(python)
        .args(["-B", script])
        .arg(directory.path())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(stored_bytes)), Some(Ok(exact_tensors))) => Ok(Row {
            stored_bytes,
            exact_tensors,
            ..*ours
        }),
        _ => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}

/// A family of one model.
type MakeFamily = fn(Layers, &mut Random) -> Vec<(&'static str, Model)>;

fn main() -> Result<(), Box<dyn Error>> {
    let python = std::env::var_os("STEPWELL_CORAL_PYTHON").map(PathBuf::from);
    let families: [(&str, MakeFamily); 2] = [
        ("noise and copies", noise_and_copies),
        ("fine-tunes and retrained", fine_tunes_and_retrained),
    ];
    println!("| family | store | plain files | stored | saved | ratio | bit for bit |");
    println!("|---|---|---|---|---|---|---|");
    for (name, make) in families {
        let mut random = Random(0x5EED_5EED_5EED_5EED);
        let mut files = Vec::new();
        let mut tensors = 0;
        for (model, layers) in [("cnn", CNN), ("mlp", MLP)] {
            for (variation, values) in make(layers, &mut random) {
                tensors += layers.len() as u64;
                files.push((
                    format!("{model}-{variation}"),
                    safetensors(layers, &values)?,
                ));
            }
        }
        let ours = stored(&files, tensors)?;
        ours.print(name, "stepwell");
        if let Some(python) = &python {
            coral(python, &files, &ours)?.print(name, "Coral");
        }
        if ours.exact_tensors != ours.tensors {
            return Err("not every tensor came back bit for bit".into());
        }
        if ours.saved() <= SAVED_BY_CORAL {
            return Err(format!("saved {:.3}, Coral saves {SAVED_BY_CORAL}", ours.saved()).into());
        }
    }
    if python.is_none() {
        println!("\nskipped: Coral; STEPWELL_CORAL_PYTHON names no Python that has it");
    }
    Ok(())
}
