//! How much memory it takes to add and get a model that is much larger, and a fine-tune of it.
//!
//! `STEPWELL_MEMORY_MIB` sets the size of the model (768 if unset, 4096 for the full measurement).
#![cfg(target_os = "linux")]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use core_view::DType;
use core_view::safetensors::HeaderBuilder;

const MIB: u64 = 1 << 20;
const LARGEST_TENSOR_MIB: u64 = 128;
const BOUND_MIB: u64 = 256;
/// What the documentation of `add_model` promises, whatever the largest tensor.
const ADD_BOUND_MIB: u64 = 160;

/// A model of tensors of 128 MiB and of 8 MiB whose bytes do not compress; a tuned one has another lowest bit in
/// half of its elements.
fn make_model(path: &Path, size_mib: u64, tuned: bool) -> Result<(), Box<dyn Error>> {
    let mut header = HeaderBuilder::new();
    let mut left_mib = size_mib;
    let mut sizes_mib = Vec::new();
    while left_mib > 0 {
        let wanted = if sizes_mib.len() % 2 == 0 {
            LARGEST_TENSOR_MIB
        } else {
            8
        };
        let tensor_mib = wanted.min(left_mib);
        let name = format!("layer.{}", sizes_mib.len());
        header = header.tensor(name, DType::F32, &[tensor_mib, MIB / 4]);
        sizes_mib.push(tensor_mib);
        left_mib -= tensor_mib;
    }
    let mut file = BufWriter::with_capacity(MIB as usize, File::create(path)?);
    file.write_all(header.build()?.raw())?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chunk = vec![0_u8; MIB as usize];
    for _ in 0..size_mib {
        for word in chunk.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let change = if tuned { state >> 40 & 1 } else { 0 };
            word.copy_from_slice(&(state ^ change).to_le_bytes());
        }
        file.write_all(&chunk)?;
    }
    file.flush()?;
    Ok(())
}

/// Anonymous and shared memory of a process in KiB, `None` once it is gone.
fn memory_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some(field("RssAnon:")? + field("RssShmem:")?)
}

/// Runs the program and returns the most memory that it was seen to have, in MiB.
fn peak_mib(arguments: &[&str]) -> Result<u64, Box<dyn Error>> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stepwell"))
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()?;
    let mut peak_kib = 0;
    loop {
        peak_kib = peak_kib.max(memory_kib(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait()? {
            assert!(status.success(), "stepwell {arguments:?}: {status}");
            return Ok(peak_kib / 1024);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether two files have the same bytes.
fn same(first: &Path, second: &Path) -> Result<bool, Box<dyn Error>> {
    let (mut first, mut second) = (File::open(first)?, File::open(second)?);
    let (mut here, mut there) = (vec![0; MIB as usize], vec![0; MIB as usize]);
    if first.metadata()?.len() != second.metadata()?.len() {
        return Ok(false);
    }
    loop {
        let len = first.read(&mut here)?;
        second.read_exact(there.get_mut(..len).unwrap_or_default())?;
        if len == 0 || here.get(..len) != there.get(..len) {
            return Ok(len == 0);
        }
    }
}

#[test]
fn memory_stays_bounded_whatever_the_size_of_the_model() -> Result<(), Box<dyn Error>> {
    let size_mib = match std::env::var("STEPWELL_MEMORY_MIB") {
        Ok(value) => value.parse()?,
        Err(_) => 768,
    };
    let directory = tempfile::tempdir()?;
    let model = directory.path().join("model.safetensors");
    let tuned = directory.path().join("tuned.safetensors");
    let store = directory.path().join("store");
    let restored = directory.path().join("restored.safetensors");
    make_model(&model, size_mib, false)?;
    make_model(&tuned, size_mib, true)?;
    let [model, tuned, store, restored] =
        [&model, &tuned, &store, &restored].map(|path| path.to_string_lossy());
    let mut worst = [0, 0];
    for (name, file) in [("model", &model), ("tuned", &tuned)] {
        let add = peak_mib(&["weights", "add", "--store", &store, file])?;
        let output = ["--force", "--output", &restored];
        let get = ["weights", "get", "--store", &store, name];
        let get = peak_mib(&[&get[..], &output[..]].concat())?;
        assert!(
            same(Path::new(&**file), Path::new(&*restored))?,
            "{name} came back changed"
        );
        println!("{name}, {size_mib} MiB: add took {add} MiB, get took {get} MiB at most");
        worst = [add.max(worst[0]), get.max(worst[1])];
    }
    let stats = Command::new(env!("CARGO_BIN_EXE_stepwell"))
        .args(["--json", "weights", "stats", "--store", &store])
        .output()?;
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout)?;
    let saved = stats["saved"]["delta_bytes"].as_u64().unwrap_or(0);
    assert!(
        saved > size_mib * MIB / 2,
        "the second was no fine-tune: {stats}"
    );
    let [add, get] = worst;
    assert!(add > 1 && get > 1, "the process was never seen");
    assert!(add < ADD_BOUND_MIB, "add took {add} MiB");
    assert!(get < BOUND_MIB + LARGEST_TENSOR_MIB, "get took {get} MiB");
    Ok(())
}
