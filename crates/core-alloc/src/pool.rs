//! Reuse of blocks of any size.

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::slots::Stack;
use crate::{
    Guard, Guarded, Request, Storage, StorageAllocator, StorageError, StorageType, Uninit,
};

mod config;
mod shared;
mod size_class;

pub use config::PoolConfig;
use shared::{Seat, Shared};

/// Storage that goes back to a [`Pool`] when it is dropped.
pub type Pooled<S> = Guarded<S, Return<S>>;

/// The way back into a [`Pool`].
pub struct Return<S: Storage> {
    shared: Arc<Shared<S>>,
    place: Place<S>,
}

/// Where a block may wait.
#[derive(Debug)]
enum Place<S> {
    /// On the stack of its class.
    Seat(Seat<S>),
    /// Nowhere yet: there was no room for another block of its class.
    Class(u32),
    /// Nowhere: it is larger than any class.
    None { bytes: usize },
}

impl<S: Storage> fmt::Debug for Return<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Return")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl<S: Storage> Guard<S> for Return<S> {
    #[inline]
    fn give_back(self, storage: S) {
        // While the block waits, it keeps the hold on the pool that it had in use; this saves the two
        // counter updates that would be most of the cost.
        let this = ManuallyDrop::new(self);
        let shared = std::ptr::from_ref(&this.shared);
        // SAFETY: the field is read once, and never dropped in place.
        let shared = ManuallyDrop::new(unsafe { shared.read() });
        let seat = match this.place {
            Place::Seat(seat) => Some(seat),
            Place::Class(class) => shared.seat(class),
            Place::None { .. } => None,
        };
        let home = seat.and_then(|seat| Some((shared.stack(seat.class)?, seat.slot)));
        let storage = match home {
            // SAFETY: the guard holds the seat, and through its `Arc` the pool; it is gone after this.
            Some((stack, slot)) => match unsafe { Stack::push(stack, slot, storage) } {
                Ok(()) => return,
                Err(storage) => storage,
            },
            None => storage,
        };
        Self::free(ManuallyDrop::into_inner(shared), storage, &this.place, seat);
    }
}

impl<S: Storage> Return<S> {
    #[cold]
    fn free(shared: Arc<Shared<S>>, storage: S, place: &Place<S>, seat: Option<Seat<S>>) {
        if seat.is_none() {
            shared.released.fetch_add(1, Ordering::AcqRel);
        }
        let bytes = match *place {
            Place::Seat(Seat { class, .. }) | Place::Class(class) => {
                shared.classes.size_bytes(class)
            }
            Place::None { bytes } => bytes,
        };
        // SAFETY: the guard held the seat, and is gone after this.
        unsafe { shared.free(storage, seat, bytes) };
    }
}

/// What a [`Pool`] holds, and what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolUsage {
    /// Bytes had from the allocator inside and not given back: blocks in use and waiting.
    pub held_bytes: usize,
    /// Bytes of blocks that wait for reuse.
    pub idle_bytes: usize,
    /// Number of blocks that wait for reuse.
    pub idle_blocks: usize,
    /// The most bytes held at once since the start or the last reset.
    pub high_water_bytes: usize,
    /// Requests that needed the allocator inside.
    pub misses: u64,
    /// Blocks freed when given back, because of a bound on what is kept or because of their size.
    pub released: u64,
    /// Waiting blocks freed by trimming, to make room for another size, or for lack of memory.
    pub evicted: u64,
}

/// Keeps blocks for reuse, in size classes that waste at most an eighth.
///
/// A request is rounded up to a class: a multiple of the alignment up to eight times the alignment,
/// above that one of eight steps per doubling. A block that waits in the class is handed out again,
/// else the allocator inside is asked for one. Taking and returning a block is one atomic exchange
/// each and takes no lock.
///
/// What the pool holds beyond the blocks in use is bounded by
/// [`PoolConfig::with_retained_max_bytes`], so that at any time
/// `held ≤ 9/8 · requested + retained_max` for requests of at least eight times the alignment. When
/// the bound is reached, waiting blocks of other sizes make room; when the allocator inside has no
/// memory, all that waits is freed and the request is tried once more.
///
/// Storage can outlive the pool it came from. A block's contents are those of its last use unless
/// zero is asked for, which costs a memset.
///
/// ```
/// use core_alloc::{AddressableStorage, Pool, StorageAllocator, SystemAllocator};
///
/// let pool = Pool::new(SystemAllocator)?;
/// let first = pool.allocate(2 << 20)?;
/// let address = first.addr();
/// drop(first);
/// assert_eq!(pool.allocate_uninit(2 << 20)?.zero()?.addr(), address);
/// assert_eq!(pool.usage().misses, 1);
/// assert_eq!(pool.trim(0), 2 << 20);
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
pub struct Pool<A, S: Storage> {
    inner: A,
    shared: Arc<Shared<S>>,
}

impl<A: fmt::Debug, S: Storage> fmt::Debug for Pool<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish()
    }
}

impl<A, S: Storage> Drop for Pool<A, S> {
    fn drop(&mut self) {
        Shared::close(&self.shared);
    }
}

impl<S: Storage, A: StorageAllocator<S>> Pool<A, S> {
    /// A pool over `inner` with the default bounds.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] if the alignment of `inner` is not a power of two.
    pub fn new(inner: A) -> Result<Self, StorageError> {
        Self::with_config(inner, PoolConfig::default())
    }

    /// A pool over `inner`.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] naming the field of `config` that can't be used.
    pub fn with_config(inner: A, config: PoolConfig) -> Result<Self, StorageError> {
        let shared = Arc::new(Shared::new(&config, inner.alignment_bytes())?);
        Ok(Self { inner, shared })
    }

    /// Frees waiting blocks, largest first, until at most `keep_bytes` wait. Returns the bytes freed.
    pub fn trim(&self, keep_bytes: usize) -> usize {
        let (idle_bytes, _) = self.shared.idle();
        Shared::evict(&self.shared, idle_bytes.saturating_sub(keep_bytes))
    }

    /// What the pool holds and did. Walks all blocks; exact while no other thread uses the pool.
    pub fn usage(&self) -> PoolUsage {
        let (idle_bytes, idle_blocks) = self.shared.idle();
        PoolUsage {
            held_bytes: self.shared.held_bytes(),
            idle_bytes,
            idle_blocks,
            high_water_bytes: self.shared.high_water_bytes(),
            misses: self.shared.misses.load(Ordering::Acquire),
            released: self.shared.released.load(Ordering::Acquire),
            evicted: self.shared.evicted.load(Ordering::Acquire),
        }
    }

    /// Starts the high-water mark anew at what is held now.
    pub fn reset_high_water(&self) {
        self.shared.reset_high_water();
    }

    /// The block size in bytes that a request of `size` bytes gets.
    pub fn block_bytes(&self, size: usize) -> usize {
        match self.shared.classes.of(size.max(1)) {
            Some(class) => self.shared.classes.size_bytes(class),
            None => size,
        }
    }

    /// The allocator inside.
    pub fn inner(&self) -> &A {
        &self.inner
    }

    #[cold]
    fn miss(
        &self,
        request: Request,
        class: Option<u32>,
    ) -> Result<Uninit<Pooled<S>>, StorageError> {
        let shared = &self.shared;
        shared.misses.fetch_add(1, Ordering::AcqRel);
        let block = request.with_size(self.block_bytes(request.size()))?;
        let storage = match self.inner.request(block) {
            Err(error) if error.is_out_of_memory() && Shared::evict(shared, usize::MAX) > 0 => {
                self.inner.request(block)?
            }
            other => other?,
        };
        self.check(&storage, block)?;
        let bytes = block.size();
        shared.charge(bytes);
        let seat = |class| {
            shared.seat(class).or_else(|| {
                Shared::evict(shared, bytes);
                shared.seat(class)
            })
        };
        let place = match class {
            None => Place::None { bytes },
            Some(class) => seat(class).map_or(Place::Class(class), Place::Seat),
        };
        let guard = Return {
            shared: Arc::clone(shared),
            place,
        };
        // SAFETY: the guard reads nothing and covers a prefix of the block.
        Ok(unsafe { storage.map(|storage| Guarded::new(storage, request.size(), guard)) })
    }

    /// Checks a fresh block against what the allocator inside promises; it will be reused unseen.
    fn check(&self, storage: &Uninit<S>, block: Request) -> Result<(), StorageError> {
        let alignment_bytes = self.inner.alignment_bytes();
        let broken = match storage.address() {
            _ if storage.size() < block.size() => {
                format!("it returned {} bytes", storage.size())
            }
            Some(address) if !address.is_multiple_of(alignment_bytes as u64) => {
                format!("address {address:#x} is not a multiple of {alignment_bytes}")
            }
            _ => return Ok(()),
        };
        Err(StorageError::BrokenContract {
            kind: storage.storage_type(),
            requested_bytes: block.size(),
            broken,
        })
    }
}

impl<S: Storage, A: StorageAllocator<S>> StorageAllocator<Pooled<S>> for Pool<A, S> {
    fn storage_type(&self) -> StorageType {
        self.inner.storage_type()
    }

    fn alignment_bytes(&self) -> usize {
        self.inner.alignment_bytes()
    }

    #[inline]
    fn request(&self, request: Request) -> Result<Uninit<Pooled<S>>, StorageError> {
        let class = self.shared.classes.of(request.size());
        let Some((seat, storage)) = class.and_then(|class| self.shared.pop(class)) else {
            return self.miss(request, class);
        };
        let guard = Return {
            shared: Shared::take_hold(&self.shared),
            place: Place::Seat(seat),
        };
        Ok(Uninit::new(Guarded::new(storage, request.size(), guard)))
    }
}
