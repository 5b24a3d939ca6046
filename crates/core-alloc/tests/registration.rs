//! Registrations end before the memory goes, whatever they do.
//!
//! The count of leaked storages is the process's, so that these tests run as one.

use std::sync::{Arc, Mutex};

use core_alloc::{
    RegisterableStorage, Registered, RegistrationHandle, Stats, StorageAllocator, StorageError,
    StorageType, SystemAllocator, Trace, leaked_storages,
};

/// Asked by LeakSanitizer: storage whose registration does not end is leaked, which the test shows.
#[unsafe(no_mangle)]
extern "C" fn __lsan_default_suppressions() -> *const std::ffi::c_char {
    c"leak:registration::registrations".as_ptr()
}

type Log = Arc<Mutex<Vec<String>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Ends,
    Fails,
    Panics,
    PanicsOnDrop,
}

#[derive(Debug)]
struct Handle {
    name: &'static str,
    manner: Manner,
    log: Log,
}

impl Handle {
    fn note(&self, what: &str) {
        if let Ok(mut log) = self.log.lock() {
            log.push(format!("{what} {}", self.name));
        }
    }
}

impl RegistrationHandle for Handle {
    fn deregister(&mut self) -> Result<(), StorageError> {
        self.note("end");
        assert!(self.manner != Manner::Panics, "planned");
        match self.manner {
            Manner::Fails => Err(StorageError::OperationFailed {
                kind: StorageType::System,
                operation: "deregister",
                source: std::io::Error::from_raw_os_error(16),
            }),
            _ => Ok(()),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.note("drop");
        if self.manner == Manner::PanicsOnDrop {
            // Raised without the assertion macros, which lints keep out of drops.
            std::panic::resume_unwind(Box::new("planned"));
        }
    }
}

fn handle(name: &'static str, manner: Manner, log: &Log) -> Box<dyn RegistrationHandle> {
    let log = Arc::clone(log);
    Box::new(Handle { name, manner, log })
}

fn lines(log: &Log) -> Vec<String> {
    log.lock().map(|log| log.clone()).unwrap_or_default()
}

#[test]
fn registrations() -> Result<(), StorageError> {
    handles_go_last_first_and_before_the_memory()?;
    a_taken_key_is_an_error_and_ends_the_new_registration()?;
    unregistering_ends_one()?;
    what_does_not_end_keeps_its_memory()
}

fn handles_go_last_first_and_before_the_memory() -> Result<(), StorageError> {
    let log = Log::default();
    let freed = Arc::clone(&log);
    let trace = Trace::with_callback(SystemAllocator, move |event| {
        if let Ok(mut log) = freed.lock() {
            log.push(format!("{:?}", event.action));
        }
    });
    let mut storage = Registered::without_handles(trace.allocate(100)?);
    storage.register("a", handle("a", Manner::Ends, &log))?;
    storage.register("b", handle("b", Manner::Ends, &log))?;
    assert!(storage.is_registered("a") && !storage.is_registered("c"));
    assert!(storage.registration_handle("b").is_some());
    drop(storage);
    assert_eq!(
        lines(&log),
        [
            "Allocated",
            "end b",
            "drop b",
            "end a",
            "drop a",
            "Released"
        ]
    );
    Ok(())
}

fn a_taken_key_is_an_error_and_ends_the_new_registration() -> Result<(), StorageError> {
    let log = Log::default();
    let mut storage = Registered::without_handles(SystemAllocator.allocate(100)?);
    storage.register("key", handle("old", Manner::Ends, &log))?;
    let refused = storage.register("key", handle("new", Manner::Ends, &log));
    assert!(matches!(refused, Err(StorageError::AlreadyRegistered { key }) if key == "key"));
    assert_eq!(lines(&log), ["end new", "drop new"]);
    assert!(storage.is_registered("key"));
    Ok(())
}

fn unregistering_ends_one() -> Result<(), StorageError> {
    let log = Log::default();
    let mut storage = Registered::without_handles(SystemAllocator.allocate(100)?);
    storage.register("a", handle("a", Manner::Ends, &log))?;
    storage.register("b", handle("b", Manner::Ends, &log))?;
    storage.unregister("a")?;
    assert!(!storage.is_registered("a") && storage.is_registered("b"));
    let none = storage.unregister("a");
    assert!(matches!(none, Err(StorageError::NotRegistered { key }) if key == "a"));
    assert_eq!(lines(&log), ["end a", "drop a"]);
    Ok(())
}

fn what_does_not_end_keeps_its_memory() -> Result<(), StorageError> {
    let stats = Stats::new(SystemAllocator);
    let before = leaked_storages();
    for (nth, manner) in [Manner::Fails, Manner::Panics, Manner::PanicsOnDrop]
        .into_iter()
        .enumerate()
    {
        let log = Log::default();
        let mut storage = Registered::without_handles(stats.allocate(100)?);
        storage.register("a", handle("a", Manner::Ends, &log))?;
        storage.register("b", handle("b", manner, &log))?;
        drop(storage);
        let nth = nth as u64 + 1;
        assert_eq!(
            lines(&log).last().map(String::as_str),
            Some("drop a"),
            "{manner:?}"
        );
        assert_eq!(leaked_storages() - before, nth, "{manner:?}");
        assert_eq!(
            stats.all().current_count,
            nth,
            "leaked storage stays in the books"
        );
    }
    // A failure on request keeps the registration, to be tried again.
    let log = Log::default();
    let mut storage = Registered::without_handles(SystemAllocator.allocate(100)?);
    storage.register("a", handle("a", Manner::Fails, &log))?;
    assert!(storage.unregister("a").is_err());
    assert!(storage.is_registered("a"));
    Ok(())
}
