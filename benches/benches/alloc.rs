//! Pools beside fresh mappings and the C library's heap, at the same work.

use std::process::ExitCode;
use std::ptr::NonNull;

use core_alloc::{
    FixedPool, HostStorage, Limit, MmapAllocator, Pool, Stats, StorageAllocator, StorageError,
    SystemAllocator,
};
use stepwell_benches::Bench;

const BLOCK_BYTES: usize = 2 << 20;
const PAGE_BYTES: usize = 4096;

/// Writes one byte to each page.
fn touch(start: NonNull<u8>) {
    for page in 0..BLOCK_BYTES / PAGE_BYTES {
        // SAFETY: callers pass a block of `BLOCK_BYTES`.
        let byte = unsafe { start.add(page * PAGE_BYTES) };
        // SAFETY: as above; the block is writable and the caller's alone.
        unsafe { byte.write_volatile(1) };
    }
}

fn touch_storage<S: HostStorage>(storage: &mut S) {
    if let Some(start) = NonNull::new(storage.as_mut_ptr()) {
        touch(start);
    }
}

/// Maps a fresh block, touches it and unmaps it.
fn mapped_once() {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), BLOCK_BYTES, protection, flags, -1, 0) };
    if let Some(block) = NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED) {
        touch(block);
        // SAFETY: the mapping was made above and is not used any more.
        unsafe { libc::munmap(start, BLOCK_BYTES) };
    }
}

/// Takes a block from the C library's heap and gives it back.
fn heap_once<const TOUCHED: bool>() {
    // SAFETY: any size may be asked for.
    let start = unsafe { libc::malloc(std::hint::black_box(BLOCK_BYTES)) };
    let start = std::hint::black_box(start);
    if TOUCHED && let Some(block) = NonNull::new(start.cast()) {
        touch(block);
    }
    // SAFETY: the block was taken above and is not used any more.
    unsafe { libc::free(start) };
}

/// Sets a parameter of the C library's heap.
fn tune(parameter: libc::c_int, bytes: libc::c_int) {
    // SAFETY: changes when the heap asks the system for memory, never what it has handed out.
    unsafe { libc::mallopt(parameter, bytes) };
}

/// Every block is a mapping of its own: nothing that would fit it is left in the heap.
fn map_each_block() {
    tune(libc::M_MMAP_THRESHOLD, 128 << 10);
    // SAFETY: gives unused memory back to the system.
    unsafe { libc::malloc_trim(0) };
}

/// Blocks stay in the heap, as they do after the library has adapted to their size.
fn keep_blocks_in_the_heap() {
    tune(libc::M_MMAP_THRESHOLD, 4 << 20);
    tune(libc::M_TRIM_THRESHOLD, 8 << 20);
    heap_once::<true>();
}

fn fresh_against_pooled(bench: &mut Bench) -> Result<(), StorageError> {
    let pages = MmapAllocator::default().with_base_pages_only(true);
    let pool = Pool::new(pages)?;
    let fixed = FixedPool::new(&pages, BLOCK_BYTES, 4)?;
    let mut group = bench.group("2 MiB, one byte touched per 4 KiB, base pages");
    group.case("mmap + touch + munmap", mapped_once);
    group.case_after(
        "malloc + touch + free, 128 KiB threshold",
        map_each_block,
        heap_once::<true>,
    );
    group.case("Pool get + touch + put", || {
        let block = pool.allocate_uninit(BLOCK_BYTES);
        // SAFETY: mapped memory is never uninitialised.
        block.map(|block| touch_storage(&mut unsafe { block.assume_init() }))
    });
    group.case("FixedPool get + touch + put", || {
        let block = fixed.allocate_uninit(BLOCK_BYTES);
        // SAFETY: mapped memory is never uninitialised.
        block.map(|block| touch_storage(&mut unsafe { block.assume_init() }))
    });
    for pooled in ["Pool get + touch + put", "FixedPool get + touch + put"] {
        let bar = format!("{pooled} against fresh mmap");
        group.bar_at_least(&bar, pooled, "mmap + touch + munmap", 150.0);
    }
    group.run();
    Ok(())
}

fn get_and_put(bench: &mut Bench) -> Result<(), StorageError> {
    let pool = Pool::new(SystemAllocator)?;
    let fixed = FixedPool::new(&SystemAllocator, BLOCK_BYTES, 4)?;
    let stack = Stats::new(Limit::new(Pool::new(SystemAllocator)?, 1 << 30));
    let mut group = bench.group("2 MiB, get and put");
    let (steady, mapped) = (
        "malloc + free, steady",
        "malloc + touch + free, 128 KiB threshold",
    );
    group.case_after(steady, keep_blocks_in_the_heap, heap_once::<false>);
    group.case_after(mapped, map_each_block, heap_once::<true>);
    group.case("Pool get + put", || {
        pool.allocate_uninit(BLOCK_BYTES).map(drop)
    });
    group.case("FixedPool get + put", || {
        fixed.allocate_uninit(BLOCK_BYTES).map(drop)
    });
    group.case("Stats<Limit<Pool>> get + put", || {
        stack.allocate_uninit(BLOCK_BYTES).map(drop)
    });
    for pooled in ["Pool get + put", "FixedPool get + put"] {
        group.bar_at_most(
            &format!("{pooled} against the steady heap"),
            pooled,
            steady,
            2.0,
        );
        group.bar_at_most(
            &format!("{pooled} against a mapping each"),
            pooled,
            mapped,
            0.01,
        );
    }
    group.run();
    Ok(())
}

fn small_blocks(bench: &mut Bench) -> Result<(), StorageError> {
    let pool = Pool::new(SystemAllocator)?;
    let mut group = bench.group("4 KiB, get and put");
    group.case("malloc + free", || {
        // SAFETY: any size may be asked for.
        let start = std::hint::black_box(unsafe { libc::malloc(std::hint::black_box(4096)) });
        // SAFETY: the block was taken above and is not used any more.
        unsafe { libc::free(start) };
    });
    group.case("SystemAllocator", || {
        SystemAllocator.allocate_uninit(4096).map(drop)
    });
    group.case("Pool", || pool.allocate_uninit(4096).map(drop));
    group.run();
    Ok(())
}

/// Two threads, each of which takes and gives back as many blocks as the case counts.
fn on_two_threads(times: u64, operation: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..times).for_each(|_| operation()));
        }
    });
}

fn two_threads(bench: &mut Bench) -> Result<(), StorageError> {
    let pool = Pool::new(SystemAllocator)?;
    let fixed = FixedPool::new(&SystemAllocator, BLOCK_BYTES, 4)?;
    let mut group = bench.group("2 MiB, get and put on each of two threads");
    group.case_batch("malloc + free, steady", keep_blocks_in_the_heap, |times| {
        on_two_threads(times, heap_once::<false>);
    });
    group.case_batch(
        "Pool get + put",
        || {},
        |times| {
            on_two_threads(times, || drop(pool.allocate_uninit(BLOCK_BYTES)));
        },
    );
    group.case_batch(
        "FixedPool get + put",
        || {},
        |times| {
            on_two_threads(times, || drop(fixed.allocate_uninit(BLOCK_BYTES)));
        },
    );
    group.run();
    Ok(())
}

fn main() -> Result<ExitCode, StorageError> {
    // SAFETY: asks the kernel not to use huge pages in this process, whatever its default.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    let mut bench = Bench::from_args("alloc");
    fresh_against_pooled(&mut bench)?;
    get_and_put(&mut bench)?;
    small_blocks(&mut bench)?;
    two_threads(&mut bench)?;
    Ok(match bench.finish() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
