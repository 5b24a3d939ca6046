//! Codecs and differences of the weight store beside those of others, one core, hashing excluded, in turns.
//!
//! `STEPWELL_MODEL` names a safetensors file with float32 tensors that is measured too, with its casts to
//! bfloat16 and half floats. Each name says what output by input is.

#![expect(clippy::unwrap_used, reason = "a benchmark has no one to report to")]

mod input;
mod peers;
#[cfg(feature = "xet")]
mod xet;

use std::hint::black_box;
use std::io::Write as _;
use std::process::ExitCode;

use stepwell_benches::Bench;

use input::{Input, Pair};
use peers::{DIFFERENCES, PEERS, Peer};

/// Encodes and decodes an input by every peer that takes it.
fn race(bench: &mut Bench, input: &Input) {
    let encoded: Vec<(&Peer, Vec<u8>)> = PEERS
        .iter()
        .filter_map(|peer| Some((peer, (peer.encode)(input.dtype, &input.bytes)?)))
        .collect();
    let name = |peer: &Peer, len: usize| {
        format!(
            "{} → {:.4}",
            peer.name,
            len as f64 / input.bytes.len() as f64
        )
    };
    let names: Vec<String> = encoded
        .iter()
        .map(|(peer, encoded)| name(peer, encoded.len()))
        .collect();
    let len = input.bytes.len();
    let mut copy = vec![0; len];
    let mut group = bench.group(&format!("{}: encode", input.name));
    group.case("memcpy", || {
        black_box(&mut copy).copy_from_slice(&input.bytes)
    });
    group.bytes(len as u64);
    for ((peer, _), name) in encoded.iter().zip(&names) {
        group.case(name, || (peer.encode)(input.dtype, black_box(&input.bytes)));
        group.bytes(len as u64);
    }
    group.run();
    let mut targets = vec![vec![0; len]; encoded.len() + 1];
    let (copy, targets) = targets.split_first_mut().unwrap();
    let mut group = bench.group(&format!("{}: decode", input.name));
    group.case("memcpy", || {
        black_box(&mut *copy).copy_from_slice(&input.bytes)
    });
    group.bytes(len as u64);
    for (((peer, encoded), name), target) in encoded.iter().zip(&names).zip(targets.iter_mut()) {
        group.case(name, move || {
            (peer.decode)(input.dtype, black_box(encoded), black_box(&mut *target));
        });
        group.bytes(len as u64);
    }
    group.run();
    for ((peer, encoded), target) in encoded.iter().zip(targets) {
        (peer.decode)(input.dtype, encoded, target);
        assert!(*target == input.bytes, "{} of {}", peer.name, input.name);
    }
}

/// Encodes a fine-tune against its base in every way, and alone.
fn race_pair(bench: &mut Bench, pair: &Pair) {
    let len = pair.tuned.len();
    let encoded: Vec<usize> = DIFFERENCES
        .iter()
        .map(|way| (way.encode)(pair.dtype, &pair.base, &pair.tuned))
        .collect();
    let names: Vec<String> = DIFFERENCES
        .iter()
        .zip(&encoded)
        .map(|(way, encoded)| format!("{} → {:.4}", way.name, *encoded as f64 / len as f64))
        .collect();
    let mut group = bench.group(&format!("{}: difference", pair.name));
    for (way, name) in DIFFERENCES.iter().zip(&names) {
        group.case(name, || {
            (way.encode)(pair.dtype, black_box(&pair.base), black_box(&pair.tuned))
        });
        group.bytes(len as u64);
    }
    group.run();
}

fn main() -> ExitCode {
    let mut bench = Bench::from_args("weights beside peers");
    let mut inputs = input::synthetic();
    let mut pairs = input::synthetic_fine_tunes();
    match std::env::var("STEPWELL_MODEL") {
        Ok(path) => {
            let model = input::real(&path);
            pairs.extend(input::real_fine_tunes(&model));
            inputs.extend(model);
        }
        Err(_) => {
            let _ = writeln!(
                std::io::stdout(),
                "skipped: no real model (STEPWELL_MODEL names one)"
            );
        }
    }
    for input in &inputs {
        race(&mut bench, input);
    }
    for pair in &pairs {
        race_pair(&mut bench, pair);
    }
    match bench.finish() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
