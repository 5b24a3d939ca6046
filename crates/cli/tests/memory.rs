//! How much memory it takes to add and get a model that is much larger.
//!
//! `STEPWELL_MEMORY_MIB` sets the size of the model (768 if unset, 4096 for the full measurement).
#![cfg(target_os = "linux")]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use core_view::DType;
use core_view::safetensors::HeaderBuilder;

const MIB: u64 = 1 << 20;
const LARGEST_TENSOR_MIB: u64 = 128;
const BOUND_MIB: u64 = 256;

/// A model of tensors of 128 MiB and of 8 MiB whose bytes do not compress.
fn make_model(path: &Path, size_mib: u64) -> Result<(), Box<dyn Error>> {
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
            word.copy_from_slice(&state.to_le_bytes());
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

#[test]
fn memory_stays_bounded_whatever_the_size_of_the_model() -> Result<(), Box<dyn Error>> {
    let size_mib = match std::env::var("STEPWELL_MEMORY_MIB") {
        Ok(value) => value.parse()?,
        Err(_) => 768,
    };
    let directory = tempfile::tempdir()?;
    let model = directory.path().join("model.safetensors");
    let store = directory.path().join("store");
    let restored = directory.path().join("restored.safetensors");
    make_model(&model, size_mib)?;
    let [model, store, restored] = [&model, &store, &restored].map(|path| path.to_string_lossy());
    let add = peak_mib(&["weights", "add", "--store", &store, &model])?;
    std::fs::remove_file(&*model)?;
    let get = peak_mib(&[
        "weights", "get", "--store", &store, "model", "--output", &restored,
    ])?;
    println!("{size_mib} MiB: add took {add} MiB, get took {get} MiB at most");
    assert!(add > 1 && get > 1, "the process was never seen");
    assert!(add < BOUND_MIB + LARGEST_TENSOR_MIB, "add took {add} MiB");
    assert!(get < BOUND_MIB + LARGEST_TENSOR_MIB, "get took {get} MiB");
    Ok(())
}
