//! A store, a slab and a log have one user at a time, and a killed one keeps nobody out: with real processes.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use core_view::BufferMut;
use core_view::contract::{BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore};
use tier_nvme::{
    BlockSlab, Lsn, NvmeError, NvmeStore, RealVolume, SlabConfig, StorageConfig, VolumeOptions,
    Wal, WalConfig,
};

const KIND_VARIABLE: &str = "STEPWELL_TEST_KIND";
const FOLDER_VARIABLE: &str = "STEPWELL_TEST_FOLDER";
const BLOCK_BYTES: usize = 8 << 10;
const SIGKILL: i32 = 9;
const LIFE_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Store,
    Slab,
    Log,
}

const KINDS: [Kind; 3] = [Kind::Store, Kind::Slab, Kind::Log];

impl Kind {
    fn named(name: &str) -> Self {
        let is_it = |kind: &Kind| format!("{kind:?}") == name;
        KINDS.into_iter().find(is_it).unwrap()
    }
}

/// One of the three, open.
enum Opened {
    Store(NvmeStore),
    Slab(BlockSlab),
    Log(Wal),
}

impl Opened {
    fn open(kind: Kind, folder: &Path) -> Result<Self, NvmeError> {
        match kind {
            Kind::Store => {
                let config = StorageConfig::default().with_segment_bytes(1 << 20);
                NvmeStore::new(folder, config).map(Self::Store)
            }
            Kind::Slab => {
                let config = SlabConfig::default()
                    .with_block_bytes(BLOCK_BYTES as u64)
                    .with_segment_bytes(1 << 20)
                    .with_capacity_bytes(4 << 20);
                BlockSlab::open(folder, config).map(Self::Slab)
            }
            Kind::Log => {
                let volume = RealVolume::create(folder, VolumeOptions::default())?;
                let config = WalConfig::new("LOG-").with_file_bytes(1 << 20);
                Wal::open(Arc::new(volume), config).map(Self::Log)
            }
        }
    }

    /// Stores something, durably.
    fn put(&self, number: u8) {
        match self {
            Self::Store(store) => store.write_aligned([number], &[number; 5000]).unwrap(),
            Self::Slab(slab) => {
                let mut payload = BufferMut::zeroed(BLOCK_BYTES, 4096).unwrap();
                payload.fill(number);
                let put = BlockPut {
                    key: BlockKey(u128::from(number)),
                    meta: BlockMeta::EMPTY,
                    payload,
                };
                slab.put(vec![put]).wait().unwrap().remove(0).unwrap();
            }
            Self::Log(log) => _ = log.append(&[number; 50]).unwrap(),
        }
    }

    /// How many of `count` things that were stored are there, as they were.
    fn found(&self, count: u8) -> u8 {
        let is_found = |number: u8| match self {
            Self::Store(store) => {
                let value = store.read_direct([number]).unwrap();
                value.is_some_and(|value| value[..] == [number; 5000])
            }
            Self::Slab(slab) => {
                let target = BufferMut::zeroed(BLOCK_BYTES, 4096).unwrap();
                let key = BlockKey(u128::from(number));
                let block = slab.get(vec![BlockGet { key, target }]).wait();
                let block = block.unwrap().remove(0);
                block.is_ok_and(|block| block.payload().iter().all(|&byte| byte == number))
            }
            Self::Log(log) => {
                let mut records = log.replay(Lsn::FIRST).unwrap();
                records.any(|record| record.unwrap().payload == [number; 50])
            }
        };
        (0..count).filter(|&number| is_found(number)).count() as u8
    }

    fn close(self) {
        match self {
            Self::Store(store) => store.close().unwrap(),
            Self::Slab(slab) => slab.close().unwrap(),
            Self::Log(log) => log.close().unwrap(),
        }
    }
}

fn folder_of(root: &Path, kind: Kind) -> PathBuf {
    root.join(format!("{kind:?}"))
}

/// The other process: the tests start it; alone it has nothing to do.
#[test]
#[ignore = "the other tests start it in a process of its own"]
fn child_process() {
    let (Some(kind), Some(folder)) = (env::var_os(KIND_VARIABLE), env::var_os(FOLDER_VARIABLE))
    else {
        return;
    };
    let tell = |what: &str| {
        // The test runner's own output may be in front.
        let mut pipe = std::io::stdout().lock();
        writeln!(pipe, "\n@{what}").unwrap();
        pipe.flush().unwrap();
    };
    match Opened::open(Kind::named(kind.to_str().unwrap()), Path::new(&folder)) {
        Ok(opened) => {
            (0..3).for_each(|number| opened.put(number));
            tell("open");
            // Until it is killed.
            thread::sleep(LIFE_MAX);
            opened.close();
        }
        Err(NvmeError::Locked { path, holder_pid }) => {
            tell(&format!("locked {path} {}", holder_pid.unwrap()));
        }
        Err(error) => tell(&format!("failed {error}")),
    }
}

/// The other process, and what it said.
struct Other {
    child: Child,
    said: String,
    _pipe: BufReader<ChildStdout>,
}

impl Other {
    fn start(kind: Kind, folder: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_process", "--ignored", "--nocapture"])
            .env(KIND_VARIABLE, format!("{kind:?}"))
            .env(FOLDER_VARIABLE, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.starts_with('@') {
            said.clear();
            assert!(
                pipe.read_line(&mut said).unwrap() > 0,
                "it ended without a word"
            );
        }
        let said = said.trim_end().trim_start_matches('@').to_owned();
        Self {
            child,
            said,
            _pipe: pipe,
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(SIGKILL));
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may be gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_second_process_is_refused_and_told_who_is_there_until_that_one_is_killed() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for kind in KINDS {
        let folder = folder_of(root.path(), kind);
        let other = Other::start(kind, &folder);
        assert_eq!(other.said, "open", "{kind:?}");
        for attempt in KINDS {
            // Whatever it takes the directory for.
            let Err(error) = Opened::open(attempt, &folder) else {
                panic!("{kind:?} as {attempt:?}: both have it open");
            };
            match &error {
                NvmeError::Locked { path, holder_pid } => {
                    assert_eq!(Path::new(path), folder, "{kind:?}");
                    assert_eq!(*holder_pid, Some(other.child.id()), "{kind:?}");
                    let text = error.to_string();
                    let names = [path.clone(), format!("process {}", other.child.id())];
                    assert!(names.iter().all(|name| text.contains(name)), "{text}");
                }
                NvmeError::NotAStore { .. } if attempt != kind => {}
                error => panic!("{kind:?} as {attempt:?}: {error:?}"),
            }
        }
        other.kill();
        let opened = Opened::open(kind, &folder).unwrap();
        assert_eq!(opened.found(3), 3, "{kind:?}");
        opened.put(3);
        assert_eq!(opened.found(4), 4, "{kind:?}");
        opened.close();
    }
}

#[test]
fn this_process_keeps_another_out_until_it_closes() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for kind in KINDS {
        let folder = folder_of(root.path(), kind);
        let opened = Opened::open(kind, &folder).unwrap();
        opened.put(0);
        let refused = Other::start(kind, &folder);
        let holder = std::process::id();
        assert_eq!(
            refused.said,
            format!("locked {} {holder}", folder.display()),
            "{kind:?}"
        );
        drop(refused);
        assert_eq!(opened.found(1), 1, "{kind:?}");
        opened.close();
        let other = Other::start(kind, &folder);
        assert_eq!(other.said, "open", "{kind:?}");
        other.kill();
        let opened = Opened::open(kind, &folder).unwrap();
        assert_eq!(opened.found(3), 3, "{kind:?}");
    }
}
