//! Clones and views of shared memory beside those of `Arc<[u8]>`, `bytes` and `arrow-buffer`.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use core_view::{Tensor, TensorStorage, ViewError};
use stepwell_benches::Bench;

const LEN_BYTES: usize = 1 << 20;

/// Makes a holder and drops it where it was made: moves are the caller's, and none are measured.
fn hold<T>(make: impl Fn() -> T) -> impl Fn() {
    move || {
        black_box(&make());
    }
}

/// The reference of every bar: one more holder of shared bytes, and one less.
const REFERENCE: &str = "Arc<[u8]> clone + drop";

fn clones(bench: &mut Bench) {
    let shared: Arc<[u8]> = vec![1; LEN_BYTES].into();
    let peer = bytes::Bytes::from(vec![1; LEN_BYTES]);
    // The first clone makes the bytes shared, which later ones are measured without.
    let _second = peer.clone();
    let arrow = arrow_buffer::Buffer::from_vec(vec![1_u8; LEN_BYTES]);
    let storage = TensorStorage::from_vec(vec![1_u8; LEN_BYTES]);
    let mut group = bench.group("1 MiB, clone and drop");
    group.case(REFERENCE, hold(|| Arc::clone(&shared)));
    group.case("bytes::Bytes", hold(|| peer.clone()));
    group.case("arrow_buffer::Buffer", hold(|| arrow.clone()));
    group.case("TensorStorage", hold(|| storage.clone()));
    group.bar_at_most("clone", "TensorStorage", REFERENCE, 1.05);
    group.run();
}

fn slices(bench: &mut Bench) {
    let shared: Arc<[u8]> = vec![1; LEN_BYTES].into();
    let peer = bytes::Bytes::from(vec![1; LEN_BYTES]);
    let _second = peer.clone();
    let arrow = arrow_buffer::Buffer::from_vec(vec![1_u8; LEN_BYTES]);
    let storage = TensorStorage::from_vec(vec![1_u8; LEN_BYTES]);
    let (start, len) = (black_box(4096), black_box(8192));
    let mut group = bench.group("1 MiB, view of 8 KiB and drop");
    group.case(REFERENCE, hold(|| Arc::clone(&shared)));
    group.case(
        "bytes::Bytes slice",
        hold(|| peer.slice(start..start + len)),
    );
    group.case(
        "arrow_buffer::Buffer slice_with_length",
        hold(|| arrow.slice_with_length(start, len)),
    );
    group.case("TensorStorage view", hold(|| storage.view(start, len)));
    group.bar_at_most("slice", "TensorStorage view", REFERENCE, 1.05);
    group.run();
}

fn tensors(bench: &mut Bench) -> Result<(), ViewError> {
    let shared: Arc<[u8]> = vec![1; LEN_BYTES].into();
    let tensor = Tensor::from_vec(vec![1.0_f32; LEN_BYTES / 4], &[64, 64, 64])?;
    let (start, len) = (black_box(16), black_box(32));
    let (dim, other) = (black_box(0), black_box(2));
    let mut group = bench.group("tensor of rank 3, view and drop");
    group.case(REFERENCE, hold(|| Arc::clone(&shared)));
    group.case("Tensor clone", hold(|| tensor.clone()));
    group.case("Tensor narrow", hold(|| tensor.narrow(dim, start, len)));
    group.case("Tensor transpose", hold(|| tensor.transpose(dim, other)));
    group.case(
        "Tensor slice",
        hold(|| tensor.slice(dim, start..start + len, 2)),
    );
    group.case("Tensor permute", hold(|| tensor.permute(&[other, dim, 1])));
    group.case("Tensor reshape", hold(|| tensor.reshape(&[len * 2, 4096])));
    group.bar_at_most("narrow", "Tensor narrow", REFERENCE, 1.7);
    group.bar_at_most("transpose", "Tensor transpose", REFERENCE, 1.7);
    group.run();
    Ok(())
}

fn main() -> Result<ExitCode, ViewError> {
    let mut bench = Bench::from_args("view");
    clones(&mut bench);
    slices(&mut bench);
    tensors(&mut bench)?;
    Ok(match bench.finish() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
