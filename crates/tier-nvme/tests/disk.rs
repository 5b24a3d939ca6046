//! Regions of a disk under the rules of storage and its adaptors.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::error::Error;
use std::sync::Arc;

use core_alloc::conformance::{Spec, outlive, run};
use core_alloc::{
    Fallback, Fault, FixedPool, Limit, Pool, Stats, Storage, StorageAllocator, StorageError,
    StorageMemset, StorageType, SystemAllocator, validate_storage,
};
use core_view::BufferMut;
use core_view::contract::ErrorKind;
use tier_nvme::sim::{FaultRates, Latency, Random, SimVolume};
use tier_nvme::{DiskAllocator, DiskStorage, Volume};

fn spec() -> Spec {
    Spec::default().with_churn(2, 20)
}

fn simulated() -> DiskAllocator {
    DiskAllocator::on_volume(SimVolume::new(3).handle())
}

fn page(byte: u8) -> BufferMut {
    let mut page = BufferMut::zeroed(4096, 4096).unwrap();
    page.fill(byte);
    page
}

/// All bytes of a region.
fn bytes_of(region: &DiskStorage) -> Vec<u8> {
    let unit = region.alignment().offset_bytes;
    let padded = region.size().next_multiple_of(unit);
    let target = BufferMut::zeroed(padded, 4096).unwrap();
    region.read(0, target).wait().unwrap()[..region.size()].to_vec()
}

#[test]
fn a_directory_keeps_the_rules_of_allocators() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let make = || DiskAllocator::new(directory.path());
    let report = run(&make(), &spec())?;
    assert!(report.served > 50 && report.refused == 0);
    outlive(make, &spec())?;
    assert_eq!(
        std::fs::read_dir(directory.path())?.count(),
        0,
        "nothing is left"
    );
    Ok(())
}

#[test]
fn stacks_of_adaptors_keep_the_rules() -> Result<(), Box<dyn Error>> {
    run(&Pool::new(simulated())?, &spec())?;
    run(&Limit::new(simulated(), 1 << 30), &spec())?;
    run(&Stats::new(Pool::new(simulated())?), &spec())?;
    let equal = spec().with_sizes([65_536]).accepting_refusals();
    run(&FixedPool::new(&simulated(), 65_536, 8)?, &equal)?;
    let faulty = Fault::probability(simulated(), 0.2, 5)?;
    let report = run(&faulty, &spec().accepting_refusals())?;
    assert!(report.refused > 0);
    outlive(|| Limit::new(simulated(), 1 << 30), &spec())?;
    Ok(())
}

#[test]
fn a_region_is_zero_and_holds_what_is_written() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let mut region = DiskStorage::new(directory.path().join("made/on/demand"), 100_000)?;
    validate_storage(&region)?;
    assert!(region.as_addressable().is_none() && region.as_host().is_none());
    let mut expected = vec![0; 100_000];
    assert_eq!(bytes_of(&region), expected);
    let mut random = Random::new(4);
    for round in 1..60_u8 {
        if random.chance(500) {
            let offset = random.below(100_001) as usize;
            let len = random.below(100_001 - offset as u64) as usize;
            region.memset(round, offset, len)?;
            expected[offset..offset + len].fill(round);
        } else {
            let at = random.below(24) as usize * 4096;
            region.write(at as u64, page(round)).wait()?;
            expected[at..at + 4096].fill(round);
        }
    }
    region.flush().wait()?;
    assert!(bytes_of(&region) == expected);
    Ok(())
}

#[test]
fn large_ranges_are_set_in_several_writes() -> Result<(), Box<dyn Error>> {
    let volume = SimVolume::new(1);
    let mut region = DiskAllocator::on_volume(volume.handle()).allocate(7 << 20)?;
    volume.set_latency(Some(Latency::of_flash()));
    region.memset(9, 5000, (6 << 20) + 77)?;
    volume.set_latency(None);
    let bytes = bytes_of(&region);
    let end = 5000 + (6 << 20) + 77;
    assert!(bytes[5000..end].iter().all(|&byte| byte == 9));
    assert!(
        bytes[..5000]
            .iter()
            .chain(&bytes[end..])
            .all(|&byte| byte == 0)
    );
    volume.set_faults(FaultRates {
        write_errors: 1000,
        ..FaultRates::default()
    });
    let error = region.memset(1, 0, 3 << 20).unwrap_err();
    assert!(matches!(
        error,
        StorageError::OperationFailed {
            operation: "memset",
            ..
        }
    ));
    Ok(())
}

#[test]
fn what_does_not_fit_gives_the_buffer_back() -> Result<(), Box<dyn Error>> {
    let mut region = simulated().allocate(5000)?;
    region.write(4096, page(1)).wait()?;
    for offset in [8192, 4097, u64::MAX, u64::MAX - 4095] {
        for transfer in [region.read(offset, page(2)), region.write(offset, page(2))] {
            let failure = transfer.wait().unwrap_err();
            assert_eq!(failure.kind(), ErrorKind::InvalidInput);
            let (_, buffers) = failure.into_parts();
            assert_eq!(buffers.reclaim()[0].len(), 4096);
        }
    }
    for (offset, len) in [(0, 5001), (5001, 0), (usize::MAX, 1), (1, usize::MAX)] {
        let error = region.memset(0, offset, len).unwrap_err();
        assert!(matches!(
            error,
            StorageError::OutOfBounds {
                size_bytes: 5000,
                ..
            }
        ));
    }
    Ok(())
}

#[test]
fn a_full_disk_is_told_with_what_is_left() -> Result<(), Box<dyn Error>> {
    let volume = SimVolume::new(1);
    volume.set_capacity(1 << 20);
    let allocator = DiskAllocator::on_volume(volume.handle());
    let error = allocator.allocate(2 << 20).unwrap_err();
    let facts = matches!(
        error,
        StorageError::AllocationFailed {
            kind: StorageType::Disk(_),
            requested_bytes: 2_097_152,
            available_bytes: Some(1_048_576),
            ..
        }
    );
    assert!(facts && error.is_out_of_memory(), "{error:?}");
    assert!(allocator.allocate(1 << 20).is_ok());
    let either = Fallback::new(allocator, SystemAllocator);
    assert_eq!(
        either.allocate(4 << 20)?.storage_type(),
        StorageType::System
    );
    Ok(())
}

#[test]
fn a_wrong_path_is_a_wrong_setting() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("file");
    std::fs::write(&file, b"x")?;
    for path in [file.clone(), file.join("below")] {
        let error = DiskAllocator::new(path).allocate(4096).unwrap_err();
        assert!(
            matches!(error, StorageError::InvalidConfig { field: "path", .. }),
            "{error:?}"
        );
    }
    Ok(())
}

#[test]
fn transfers_outlive_their_region() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let allocator = DiskAllocator::new(directory.path());
    let region = allocator.allocate(1 << 20)?;
    let transfers: Vec<_> = (0..64)
        .map(|i| region.write(i * 4096, page(i as u8)))
        .collect();
    let other = allocator.allocate(4096)?;
    assert_ne!(region.storage_type(), other.storage_type());
    drop((region, allocator, other));
    for (i, transfer) in transfers.into_iter().enumerate() {
        assert_eq!(transfer.wait()?[0], i as u8);
    }
    Ok(())
}

#[test]
fn nothing_is_left_after_a_power_loss() {
    let volume = SimVolume::new(8);
    let handle: Arc<dyn Volume> = volume.handle();
    let region = DiskAllocator::on_volume(Arc::clone(&handle)).allocate(8192);
    handle.sync_directory().unwrap();
    assert!(region.is_ok() && volume.files().is_empty());
    volume.crash();
    assert!(volume.files().is_empty());
}
