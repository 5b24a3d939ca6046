//! `cargo xtask bench` and `cargo xtask peers`: measurements.

use std::path::{Path, PathBuf};

use crate::command::{Echo, Invocation, Shell};
use crate::error::Error;
use crate::workspace::{TargetKind, Workspace};

/// The package of the benches.
const BENCHES: &str = "stepwell-benches";

/// The workspace of the peers, kept apart so that their weight touches no one.
const PEERS: &str = "benches/peers";

/// What tells the build of the peers where RocksDB's library is.
const ROCKSDB_VARIABLE: &str = "ROCKSDB_LIB_DIR";

/// Where systems install RocksDB.
const ROCKSDB_HEADER: &str = "/usr/include/rocksdb/c.h";
const LIBRARY_DIRECTORIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];

/// Runs all benches, or the one of this name; `rest` goes to the bench itself.
pub(crate) fn bench(
    workspace: &Workspace,
    name: Option<&str>,
    rest: &[String],
) -> Result<bool, Error> {
    let package = workspace.package(BENCHES).ok_or_else(|| Error::Absent {
        what: format!("the package {BENCHES}"),
        hint: "run this from a checkout that has it".to_owned(),
    })?;
    if !package.has_target(TargetKind::Bench, name) {
        let known: Vec<&str> = package
            .targets
            .iter()
            .filter(|target| target.kind == TargetKind::Bench)
            .map(|target| target.name.as_str())
            .collect();
        return Err(Error::Absent {
            what: name.map_or("any bench".to_owned(), |name| format!("the bench `{name}`")),
            hint: if known.is_empty() {
                "none has been written yet".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            },
        });
    }
    let selected = match name {
        Some(name) => vec!["--bench", name],
        None => vec!["--benches"],
    };
    let shell = Shell::new(&workspace.root, "bench", true)?;
    let finished = Invocation::cargo()
        .args(["bench", "-p", BENCHES])
        .args(selected)
        .arguments_after_dashes(rest)
        .run(&shell)?;
    Ok(finished.success)
}

/// Runs ours beside the peers, if the workspace of the peers exists.
pub(crate) fn peers(workspace: &Workspace, rest: &[String]) -> Result<bool, Error> {
    let Some(manifest) = peers_manifest(&workspace.root) else {
        return Err(Error::Absent {
            what: PEERS.to_owned(),
            hint: "the comparison with peers has not been written yet".to_owned(),
        });
    };
    let shell = Shell::new(&workspace.root, "peers", true)?;
    let mut invocation = Invocation::cargo()
        .args(["bench", "--manifest-path"])
        .args([manifest]);
    match rocksdb_library() {
        Some(directory) => {
            invocation = invocation
                .args(["--features", "rocksdb"])
                .env_default(ROCKSDB_VARIABLE, directory);
        }
        None => println!(
            "RocksDB is left out: its library and headers are not installed; install them, or name the \
             directory of the library in {ROCKSDB_VARIABLE}"
        ),
    }
    let finished = invocation
        .arguments_after_dashes(rest)
        .echo(Echo::Everything)
        .run(&shell)?;
    Ok(finished.success)
}

/// Where RocksDB's library is, if it can be built against.
fn rocksdb_library() -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os(ROCKSDB_VARIABLE) {
        return Some(directory.into());
    }
    let has_headers = Path::new(ROCKSDB_HEADER).is_file();
    let mut directories = LIBRARY_DIRECTORIES.iter().map(PathBuf::from);
    directories.find(|directory| has_headers && directory.join("librocksdb.so").exists())
}

fn peers_manifest(root: &Path) -> Option<PathBuf> {
    Some(root.join(PEERS).join("Cargo.toml")).filter(|manifest| manifest.is_file())
}
