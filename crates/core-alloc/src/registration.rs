//! Storage that external libraries hold on to.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Guard, Guarded, Storage, StorageError};

/// What an external library returned when a storage was registered with it.
pub trait RegistrationHandle: fmt::Debug + Send + Sync + 'static {
    /// Ends the registration; called at most once with success. The handle is dropped afterwards.
    ///
    /// # Errors
    /// Why the library did not let go of the memory, which is then never freed.
    fn deregister(&mut self) -> Result<(), StorageError>;
}

/// Storage that can be registered with external libraries under a key for each.
pub trait RegisterableStorage: Storage {
    /// Takes over a registration.
    ///
    /// # Errors
    /// [`StorageError::AlreadyRegistered`] if the key is taken; the new handle is deregistered then.
    fn register(
        &mut self,
        key: &str,
        handle: Box<dyn RegistrationHandle>,
    ) -> Result<(), StorageError>;

    /// Ends a registration before the storage is dropped.
    ///
    /// # Errors
    /// [`StorageError::NotRegistered`] if there is none under the key; otherwise the handle's own
    /// failure, and the registration stays.
    fn unregister(&mut self, key: &str) -> Result<(), StorageError>;

    /// Whether there is a registration under the key.
    fn is_registered(&self, key: &str) -> bool {
        self.registration_handle(key).is_some()
    }

    /// The registration under the key.
    fn registration_handle(&self, key: &str) -> Option<&dyn RegistrationHandle>;
}

/// The registrations of a storage. They end, last one first, before the storage is freed. If one
/// does not (its handle fails or panics), the storage is leaked, because the library may still
/// touch the memory; [`leaked_storages`] counts that.
#[derive(Debug, Default)]
pub struct Registrations {
    handles: Vec<(String, Box<dyn RegistrationHandle>)>,
    stuck: bool,
}

static LEAKED: AtomicU64 = AtomicU64::new(0);

/// Storages that were never freed because a registration did not end.
pub fn leaked_storages() -> u64 {
    LEAKED.load(Ordering::Acquire)
}

impl Registrations {
    fn position(&self, key: &str) -> Option<usize> {
        self.handles.iter().position(|(taken, _)| taken == key)
    }
}

/// Ends a registration; says whether the memory is free of it. Never unwinds.
fn end(mut handle: Box<dyn RegistrationHandle>) -> bool {
    let ended = catch_unwind(AssertUnwindSafe(|| handle.deregister()));
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(handle)));
    matches!(ended, Ok(Ok(()))) && dropped.is_ok()
}

impl<S: Storage> Guard<S> for Registrations {
    fn give_back(mut self, storage: S) {
        let mut free = !self.stuck;
        while let Some((_, handle)) = self.handles.pop() {
            free &= end(handle);
        }
        if free {
            drop(storage);
        } else {
            LEAKED.fetch_add(1, Ordering::AcqRel);
            std::mem::forget(storage);
        }
    }
}

/// Any storage, made [`RegisterableStorage`].
///
/// ```
/// use core_alloc::{
///     RegisterableStorage, Registered, RegistrationHandle, StorageError, SystemStorage,
/// };
///
/// #[derive(Debug)]
/// struct Handle;
///
/// impl RegistrationHandle for Handle {
///     fn deregister(&mut self) -> Result<(), StorageError> {
///         Ok(())
///     }
/// }
///
/// let mut storage = Registered::without_handles(SystemStorage::new(4096)?);
/// storage.register("library", Box::new(Handle))?;
/// assert!(storage.is_registered("library"));
/// assert!(storage.register("library", Box::new(Handle)).is_err());
/// # Ok::<(), StorageError>(())
/// ```
pub type Registered<S> = Guarded<S, Registrations>;

impl<S: Storage> Registered<S> {
    /// Wraps a storage that has no registration yet.
    pub fn without_handles(storage: S) -> Self {
        let size = storage.size();
        Self::new(storage, size, Registrations::default())
    }
}

impl<S: Storage> RegisterableStorage for Registered<S> {
    fn register(
        &mut self,
        key: &str,
        handle: Box<dyn RegistrationHandle>,
    ) -> Result<(), StorageError> {
        let registrations = self.guard_mut();
        if registrations.position(key).is_some() {
            registrations.stuck |= !end(handle);
            return Err(StorageError::AlreadyRegistered {
                key: key.to_owned(),
            });
        }
        registrations.handles.push((key.to_owned(), handle));
        Ok(())
    }

    fn unregister(&mut self, key: &str) -> Result<(), StorageError> {
        let registrations = self.guard_mut();
        let position = registrations
            .position(key)
            .ok_or_else(|| StorageError::NotRegistered {
                key: key.to_owned(),
            })?;
        let (taken, mut handle) = registrations.handles.remove(position);
        // Should the handle panic, the registration may not have ended.
        let stuck = std::mem::replace(&mut registrations.stuck, true);
        let ended = handle.deregister();
        match ended {
            Ok(()) => drop(handle),
            Err(_) => registrations.handles.insert(position, (taken, handle)),
        }
        registrations.stuck = stuck;
        ended
    }

    fn registration_handle(&self, key: &str) -> Option<&dyn RegistrationHandle> {
        let registrations = self.guard();
        let position = registrations.position(key)?;
        registrations
            .handles
            .get(position)
            .map(|(_, handle)| &**handle)
    }
}
