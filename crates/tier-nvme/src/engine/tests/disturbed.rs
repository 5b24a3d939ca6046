//! Calls that transfer less, are put off, or fail.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use core_view::BufferMut;
use core_view::contract::ErrorKind;

use super::fixture::{Script, engines, open_file, pattern};
use crate::engine::Operation;
use crate::engine::attempt::Disturbance::{Error, Limit, None as Undisturbed};

const LEN_BYTES: usize = 64 * 1024;

#[test]
fn short_transfers_are_continued() {
    let plans: [(&[_], usize); 3] = [
        (&[Limit(1), Limit(4095), Undisturbed], 1),
        (&[Limit(700), Limit(512), Limit(100), Limit(30_000)], 512),
        (&[Limit(5000), Error(libc::EINTR), Limit(9000)], 4096),
    ];
    for engine in engines(4) {
        for (plan, unit_bytes) in plans {
            let expected = pattern(LEN_BYTES);
            let disk = tempfile::tempfile().unwrap();
            let handle = || disk.try_clone().unwrap();

            let file = open_file(handle(), unit_bytes, Some(Script::new(plan)));
            let source = BufferMut::from_vec(expected.clone());
            let (write, transfer) = Operation::write(file, 4096, source);
            engine.submit(write);
            transfer.wait().unwrap();
            let mut on_disk = vec![0; LEN_BYTES];
            disk.read_exact_at(&mut on_disk, 4096).unwrap();
            assert!(on_disk == expected, "{}: {plan:?}", engine.name());

            let script = Script::new(plan);
            let file = open_file(handle(), unit_bytes, Some(Arc::clone(&script) as _));
            let target = BufferMut::from_vec(vec![0; LEN_BYTES]);
            let (read, transfer) = Operation::read(file, 4096, target);
            engine.submit(read);
            let target = transfer.wait().unwrap();
            assert!(*target == *expected, "{}: {plan:?}", engine.name());

            for offset_bytes in script.offsets_bytes.lock().unwrap().iter() {
                assert!(offset_bytes.is_multiple_of(unit_bytes as u64), "{plan:?}");
            }

            disk.write_all_at(&vec![0; LEN_BYTES], 4096).unwrap();
            let file = open_file(handle(), unit_bytes, Some(Script::new(plan)));
            let sources = BufferMut::from_vec(expected.clone()).split_into(4096);
            let count = sources.len();
            let (write, transfer) = Operation::write_vectored(file, 4096, sources, LEN_BYTES);
            engine.submit(write);
            assert_eq!(transfer.wait().unwrap().len(), count);
            disk.read_exact_at(&mut on_disk, 4096).unwrap();
            assert!(on_disk == expected, "{}: {plan:?}", engine.name());
        }
        let statistics = engine.statistics();
        assert!(statistics.short_transfers >= 3 * 8, "{statistics:?}");
        assert!(statistics.retries >= 3, "{statistics:?}");
        assert_eq!((statistics.reads, statistics.writes), (3, 6));
        assert_eq!(statistics.read_bytes, 3 * LEN_BYTES as u64);
    }
}

#[test]
fn calls_that_are_put_off_are_made_again() {
    for engine in engines(4) {
        for code in [libc::EAGAIN, libc::EBUSY, libc::EINTR] {
            let plan = [Error(code), Error(code), Limit(100), Error(code)];
            let script = Script::new(&plan);
            let disk = tempfile::tempfile().unwrap();
            let file = open_file(disk, 1, Some(Arc::clone(&script) as _));
            let source = BufferMut::from_vec(pattern(LEN_BYTES));
            let (write, transfer) = Operation::write(file, 0, source);
            engine.submit(write);
            transfer.wait().unwrap();
            assert_eq!(script.calls.load(Ordering::Acquire), 5);
        }
        assert_eq!(engine.statistics().retries, 9, "{}", engine.name());
    }
}

#[test]
fn a_call_that_is_put_off_for_ever_fails_as_busy() {
    for engine in engines(4) {
        let script = Script::always(Error(libc::EAGAIN));
        let file = open_file(tempfile::tempfile().unwrap(), 1, Some(script));
        let (write, transfer) = Operation::write(file, 0, BufferMut::from_vec(vec![1; 10]));
        engine.submit(write);
        let failure = transfer.wait().unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::Busy, "{failure}");
        assert_eq!(failure.into_parts().1.len(), 1);
    }
}

#[test]
fn an_operation_that_is_put_off_can_be_cancelled() {
    for engine in engines(4) {
        let script = Script::always(Error(libc::EBUSY));
        let file = open_file(tempfile::tempfile().unwrap(), 1, Some(script));
        let (write, transfer) = Operation::write(file, 0, BufferMut::from_vec(vec![1; 10]));
        engine.submit(write);
        transfer.cancel();
        let failure = transfer.wait().unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::Cancelled, "{failure}");
        assert_eq!(engine.statistics().cancelled, 1);
    }
}

#[test]
fn errors_in_the_middle_end_the_operation_and_give_buffers_back() {
    let cases = [
        (libc::EIO, ErrorKind::Io),
        (libc::EFBIG, ErrorKind::NoSpace),
        (libc::ENOSPC, ErrorKind::NoSpace),
        (libc::EDQUOT, ErrorKind::NoSpace),
        (libc::EROFS, ErrorKind::Unsupported),
    ];
    for engine in engines(4) {
        for (code, kind) in cases {
            let script = Script::new(&[Limit(4096), Error(code)]);
            let disk = tempfile::tempfile().unwrap();
            let file = open_file(disk, 1, Some(Arc::clone(&script) as _));
            let sources = BufferMut::from_vec(pattern(LEN_BYTES)).split_into(1000);
            let addresses: Vec<_> = sources.iter().map(|source| source.as_ptr()).collect();
            let (write, transfer) = Operation::write_vectored(file, 0, sources, LEN_BYTES);
            engine.submit(write);
            let failure = transfer.wait().unwrap_err();
            assert_eq!(failure.kind(), kind, "{failure}");
            assert!(failure.to_string().contains("4096 of 65536 bytes"));
            let buffers = failure.into_parts().1.reclaim();
            let returned: Vec<_> = buffers.iter().map(|source| source.as_ptr()).collect();
            assert_eq!(returned, addresses);
            assert_eq!(script.calls.load(Ordering::Acquire), 2);
        }
        assert_eq!(engine.statistics().failures, cases.len() as u64);
    }
}

#[test]
fn a_transfer_without_progress_ends() {
    for engine in engines(4) {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(LEN_BYTES as u64).unwrap();
        for limit_bytes in [0, 100] {
            let script = Script::always(Limit(limit_bytes));
            let file = open_file(disk.try_clone().unwrap(), 512, Some(script));
            let buffer = BufferMut::from_vec(vec![1; 4096]);
            let (write, transfer) = Operation::write(Arc::clone(&file), 0, buffer);
            engine.submit(write);
            let failure = transfer.wait().unwrap_err();
            assert_eq!(failure.kind(), ErrorKind::Io, "{failure}");
            let buffer = failure.into_parts().1.reclaim().pop().unwrap();
            let (read, transfer) = Operation::read(file, 0, buffer);
            engine.submit(read);
            assert_eq!(transfer.wait().unwrap_err().kind(), ErrorKind::Io);
        }
    }
}

/// The kernel reports a failed sync once: a second try would succeed and mean nothing.
#[test]
fn a_sync_that_fails_is_never_tried_again() {
    for engine in engines(4) {
        for code in [libc::EIO, libc::EINTR, libc::EAGAIN] {
            let script = Script::new(&[Error(code)]);
            let disk = tempfile::tempfile().unwrap();
            let file = open_file(disk, 1, Some(Arc::clone(&script) as _));
            let (sync, transfer) = Operation::sync(Arc::clone(&file));
            engine.submit(sync);
            transfer.wait().unwrap_err();
            assert_eq!(script.calls.load(Ordering::Acquire), 1);
            let (sync, transfer) = Operation::sync(file);
            engine.submit(sync);
            transfer.wait().unwrap();
        }
        assert_eq!(engine.statistics().syncs, 3);
    }
}

#[test]
fn a_file_that_ends_within_a_unit_is_an_unexpected_end() {
    for engine in engines(4) {
        let disk = tempfile::tempfile().unwrap();
        disk.write_all_at(&pattern(5000), 0).unwrap();
        let file = open_file(disk, 4096, None);
        let (read, transfer) = Operation::read(file, 0, BufferMut::from_vec(vec![0; 8192]));
        engine.submit(read);
        let failure = transfer.wait().unwrap_err();
        assert!(
            failure.to_string().contains("unexpected end of file"),
            "{failure}"
        );
    }
}
