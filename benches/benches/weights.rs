//! The codecs of the weight store, and differences, beside plain zstd and a copy of memory: one core,
//! hashing excluded.
//!
//! `STEPWELL_MODEL` names a safetensors file whose tensors are measured too.

#![expect(clippy::unwrap_used, reason = "a benchmark has no one to report to")]

use std::hint::black_box;
use std::io::Write as _;
use std::process::ExitCode;

use core_view::DType;
use core_view::safetensors::Header;
use stepwell_benches::{Bench, GroupReport};
use weightstore::{CHUNK_LEN_BYTES, ChunkEncoding, Codec, Difference, encode_delta};

const LEN_BYTES: usize = 2 << 20;

/// What the product promises of an input: output by input, and GB/s in and out.
#[derive(Clone, Copy)]
struct Bar {
    ratio: f64,
    encode: f64,
    decode: f64,
}

/// Bytes of one type.
struct Input {
    name: String,
    dtype: DType,
    bytes: Vec<u8>,
    bar: Option<Bar>,
}

/// A generator of normal numbers that is the same everywhere.
struct Normal(u64);

impl Normal {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((mixed ^ (mixed >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// With that deviation, by the method of Box and Muller.
    fn next(&mut self, deviation: f64) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos() * deviation
    }
}

const DEVIATION: f64 = 0.02;

fn weights(count: usize, seed: u64) -> Vec<f64> {
    let mut normal = Normal(seed);
    (0..count).map(|_| normal.next(DEVIATION)).collect()
}

/// Rounded to the nearest bfloat16.
fn bf16(x: f64) -> [u8; 2] {
    let bits = (x as f32).to_bits();
    let rounded = bits + 0x7FFF + ((bits >> 16) & 1);
    ((rounded >> 16) as u16).to_le_bytes()
}

/// Rounded to the nearest half float.
fn f16(x: f64) -> [u8; 2] {
    let bits = (x as f32).to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = f32::from_bits(bits & 0x7FFF_FFFF);
    let smallest_normal = 1.0 / 16384.0;
    let half = match magnitude < smallest_normal {
        true => (magnitude * 16_777_216.0).round() as u16,
        false => {
            let bits = magnitude.to_bits() - (112 << 23);
            ((bits + 0xFFF + ((bits >> 13) & 1)) >> 13) as u16
        }
    };
    (sign | half).to_le_bytes()
}

fn input<const W: usize>(
    name: &str,
    dtype: DType,
    elements: impl Iterator<Item = [u8; W]>,
    bar: Option<Bar>,
) -> Input {
    Input {
        name: name.into(),
        dtype,
        bytes: elements.flatten().take(LEN_BYTES).collect(),
        bar,
    }
}

fn synthetic() -> Vec<Input> {
    let weights = weights(LEN_BYTES / 2, 1);
    let all = || weights.iter().copied();
    let tenth = || {
        all()
            .zip(weights.iter().rev())
            .map(|(x, y)| if y.abs() < 0.0025 { x } else { 0.0 })
    };
    let bar = |ratio, encode, decode| {
        Some(Bar {
            ratio,
            encode,
            decode,
        })
    };
    vec![
        input(
            "bf16, normal",
            DType::BF16,
            all().map(bf16),
            bar(0.662, 1.3, 2.0),
        ),
        input(
            "fp16, normal",
            DType::F16,
            all().map(f16),
            bar(0.844, 1.0, 2.0),
        ),
        input(
            "fp32, normal",
            DType::F32,
            all().map(|x| (x as f32).to_le_bytes()),
            bar(0.831, 1.2, 2.5),
        ),
        input(
            "fp64, normal",
            DType::F64,
            all().map(f64::to_le_bytes),
            None,
        ),
        input(
            "fp32 that was bf16",
            DType::F32,
            all().map(|x| {
                let [low, high] = bf16(x);
                [0, 0, low, high]
            }),
            bar(0.5, 0.0, 0.0),
        ),
        input(
            "fp32, a tenth not zero",
            DType::F32,
            tenth().map(|x| (x as f32).to_le_bytes()),
            bar(0.1, 0.0, 0.0),
        ),
        input(
            "fp32, constant",
            DType::F32,
            all().map(|_| 1.0_f32.to_le_bytes()),
            bar(0.001, 0.0, 0.0),
        ),
        input(
            "int8, normal",
            DType::I8,
            all().map(|x| [(x * 1500.0) as i8 as u8]),
            None,
        ),
    ]
}

/// Tensors of the model that the environment names, one input for each type.
fn real() -> Vec<Input> {
    let Ok(path) = std::env::var("STEPWELL_MODEL") else {
        let _ = writeln!(
            std::io::stdout(),
            "skipped: no real model (STEPWELL_MODEL names one)"
        );
        return Vec::new();
    };
    let file = std::fs::read(&path).unwrap();
    let header = Header::read(&mut &file[..], file.len() as u64).unwrap();
    let data = &file[header.data_start() as usize..];
    let mut inputs: Vec<Input> = Vec::new();
    for tensor in header.tensors() {
        let bytes = &data[tensor.start as usize..tensor.end as usize];
        match inputs.iter_mut().find(|input| input.dtype == tensor.dtype) {
            Some(input) => input.bytes.extend_from_slice(bytes),
            None => inputs.push(Input {
                name: format!("real {}", tensor.dtype),
                dtype: tensor.dtype,
                bytes: bytes.to_vec(),
                bar: None,
            }),
        }
    }
    for input in &mut inputs {
        input.bytes.truncate(16 << 20);
    }
    inputs.retain(|input| input.bytes.len() >= 1 << 16);
    inputs
}

type Encoded = Vec<(Option<ChunkEncoding>, Vec<u8>)>;

fn encode(codec: Codec, input: &Input) -> Encoded {
    let chunks = input.bytes.chunks(CHUNK_LEN_BYTES);
    let encode = |chunk: &[u8]| match ChunkEncoding::encode(codec, input.dtype, chunk) {
        Some((encoding, encoded)) => (Some(encoding), encoded),
        None => (None, chunk.to_vec()),
    };
    chunks.map(encode).collect()
}

fn decode(encoded: &Encoded, target: &mut [u8]) {
    for ((encoding, encoded), chunk) in encoded.iter().zip(target.chunks_mut(CHUNK_LEN_BYTES)) {
        match encoding {
            Some(encoding) => encoding.decode(encoded, chunk).unwrap(),
            None => chunk.copy_from_slice(encoded),
        }
    }
}

fn ratio(encoded: usize, input: &Input) -> f64 {
    encoded as f64 / input.bytes.len() as f64
}

const CODECS: [Codec; 3] = [Codec::Auto, Codec::Lz4, Codec::Gzip { level: 4 }];

/// Measures all codecs on an input; whether its bar of the ratio is met.
fn codecs(bench: &mut Bench, input: &Input) -> bool {
    let encoded: Vec<Encoded> = CODECS.iter().map(|codec| encode(*codec, input)).collect();
    let ratios: Vec<f64> = encoded
        .iter()
        .map(|encoded| ratio(encoded.iter().map(|chunk| chunk.1.len()).sum(), input))
        .collect();
    let plain = zstd::bulk::compress(&input.bytes, 3).unwrap();
    let plain_name = format!("zstd 3 → {:.4}", ratio(plain.len(), input));
    let names: Vec<String> = CODECS
        .iter()
        .zip(&ratios)
        .map(|(codec, ratio)| format!("{codec} → {ratio:.4}"))
        .collect();
    let len = input.bytes.len();
    let mut target = vec![0; len];
    let mut group = bench.group(&format!("{}: encode", input.name));
    group.case("memcpy", || {
        black_box(&mut target).copy_from_slice(&input.bytes)
    });
    group.bytes(len as u64);
    for (codec, name) in CODECS.iter().zip(&names) {
        group.case(name, || encode(*codec, black_box(input)));
        group.bytes(len as u64);
    }
    group.case(&plain_name, || {
        zstd::bulk::compress(&input.bytes, 3).unwrap()
    });
    group.bytes(len as u64);
    let encode_report = group.run();

    let mut targets = vec![vec![0; len]; CODECS.len() + 2];
    let mut targets_left = targets.iter_mut();
    let mut group = bench.group(&format!("{}: decode", input.name));
    let target = targets_left.next().unwrap();
    group.case("memcpy", move || {
        black_box(&mut *target).copy_from_slice(&input.bytes)
    });
    group.bytes(len as u64);
    for (encoded, name) in encoded.iter().zip(&names) {
        let target = targets_left.next().unwrap();
        group.case(name, move || decode(encoded, black_box(&mut *target)));
        group.bytes(len as u64);
    }
    let target = targets_left.next().unwrap();
    group.case(&plain_name, move || {
        zstd::bulk::decompress_to_buffer(&plain, black_box(&mut target[..])).unwrap()
    });
    group.bytes(len as u64);
    let decode_report = group.run();
    drop(targets);
    judge(
        bench,
        input,
        ratios[0],
        [(&encode_report, &names[0]), (&decode_report, &names[0])],
    )
}

/// Prints an input's bars; whether that of the ratio, which no machine changes, is met.
fn judge(bench: &Bench, input: &Input, ratio: f64, reports: [(&GroupReport, &str); 2]) -> bool {
    let Some(bar) = input.bar else { return true };
    let met = ratio <= bar.ratio;
    let word = |met: bool| if met { "met" } else { "MISSED" };
    let mut out = std::io::stdout();
    let _ = writeln!(
        out,
        "  bar: ratio {ratio:.4}, wanted ≤ {}: {}",
        bar.ratio,
        word(met)
    );
    for ((report, name), (what, wanted)) in reports
        .into_iter()
        .zip([("encode", bar.encode), ("decode", bar.decode)])
    {
        let Some(case) = report.cases.iter().find(|case| case.name == name) else {
            continue;
        };
        if wanted > 0.0 && !bench.settings().is_quick() {
            let rate = input.bytes.len() as f64 / case.median_ns;
            let word = word(rate >= wanted);
            let _ = writeln!(
                out,
                "  bar: {what} {rate:.2} GB/s, wanted ≥ {wanted}: {word}"
            );
        }
    }
    let _ = writeln!(out);
    met
}

/// A fine-tune against its base: all weights changed a little, a thousandth by root mean square.
fn fine_tunes() -> Vec<(Vec<u8>, Input)> {
    let base = weights(LEN_BYTES / 2, 1);
    let mut normal = Normal(2);
    let tuned: Vec<f64> = base
        .iter()
        .map(|x| x + normal.next(DEVIATION * 1e-3))
        .collect();
    let make = |name, dtype, cast: fn(f64) -> Vec<u8>, bar| {
        let bytes = |weights: &[f64]| {
            weights
                .iter()
                .flat_map(|x| cast(*x))
                .take(LEN_BYTES)
                .collect()
        };
        let input = Input {
            name: format!("{name}, 0.1 % changed"),
            dtype,
            bytes: bytes(&tuned),
            bar,
        };
        (bytes(&base), input)
    };
    let bar = Some(Bar {
        ratio: 0.12,
        encode: 0.3,
        decode: 0.0,
    });
    vec![
        make("bf16", DType::BF16, |x| bf16(x).to_vec(), bar),
        make("fp16", DType::F16, |x| f16(x).to_vec(), None),
        make(
            "fp32",
            DType::F32,
            |x| (x as f32).to_le_bytes().to_vec(),
            None,
        ),
    ]
}

/// Measures a difference chunk by chunk, so that one core does it.
fn difference(bench: &mut Bench, base: &[u8], input: &Input) -> bool {
    let pairs = || {
        base.chunks(CHUNK_LEN_BYTES)
            .zip(input.bytes.chunks(CHUNK_LEN_BYTES))
    };
    let encode = || -> Vec<Vec<u8>> {
        pairs()
            .map(|(base, target)| encode_delta(base, target, input.dtype).unwrap())
            .collect()
    };
    let deltas = encode();
    let ratio = ratio(deltas.iter().map(Vec::len).sum(), input);
    let name = format!("difference → {ratio:.4}");
    let xored: Vec<u8> = base.iter().zip(&input.bytes).map(|(a, b)| a ^ b).collect();
    let plain = zstd::bulk::compress(&xored, 3).unwrap();
    let plain_name = format!(
        "xor + zstd 3 → {:.4}",
        plain.len() as f64 / xored.len() as f64
    );
    let len = input.bytes.len() as u64;
    let mut group = bench.group(&format!("{}: encode", input.name));
    group.case(&name, encode);
    group.bytes(len);
    group.case(&plain_name, || {
        let xored: Vec<u8> = base.iter().zip(&input.bytes).map(|(a, b)| a ^ b).collect();
        zstd::bulk::compress(&xored, 3).unwrap()
    });
    group.bytes(len);
    let encode_report = group.run();
    let mut target = vec![0; input.bytes.len()];
    let mut group = bench.group(&format!("{}: decode", input.name));
    group.case(&name, || {
        let targets = target.chunks_mut(CHUNK_LEN_BYTES);
        for ((delta, base), target) in deltas.iter().zip(base.chunks(CHUNK_LEN_BYTES)).zip(targets)
        {
            Difference::parse(delta)
                .unwrap()
                .decode_range(base, 0, target)
                .unwrap();
        }
    });
    group.bytes(len);
    let decode_report = group.run();
    judge(
        bench,
        input,
        ratio,
        [(&encode_report, &name), (&decode_report, &name)],
    )
}

fn main() -> ExitCode {
    let mut bench = Bench::from_args("weights");
    let mut met = true;
    for input in synthetic().iter().chain(&real()) {
        met &= codecs(&mut bench, input);
    }
    for (base, input) in &fine_tunes() {
        met &= difference(&mut bench, base, input);
    }
    match bench.finish() && met {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
