//! Telling ThreadSanitizer what the uninstrumented standard library guarantees.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Echo, Invocation, Shell};
use crate::error::Error;

/// The source of the wrappers.
const WRAPPERS: &str = include_str!("edges.c");

/// The functions that `edges.c` wraps: the name there, and how the mangled symbol ends.
const WRAPPED: [(&str, &str); 7] = [
    ("MUTEX_LOCK", "5mutex5futexNtB2_5Mutex14lock_contended"),
    ("RWLOCK_READ", "6rwlock5futexNtB2_6RwLock14read_contended"),
    ("RWLOCK_WRITE", "6rwlock5futexNtB2_6RwLock15write_contended"),
    ("CONDVAR_WAIT", "7condvar5futexNtB2_7Condvar4wait"),
    (
        "CONDVAR_WAIT_TIMEOUT",
        "7condvar5futexNtB2_7Condvar12wait_timeout",
    ),
    ("ONCE_CALL", "4sync4once5futexNtB5_4Once4call"),
    (
        "SCOPED_THREAD_END",
        "6scopedNtB2_9ScopeData29decrement_num_running_threads",
    ),
];

/// The functions of the sanitizer itself that `edges.c` wraps, by the names they have there.
const WRAPPED_OF_SANITIZER: [&str; 2] = ["__tsan_atomic64_fetch_sub", "__tsan_atomic_thread_fence"];

/// Compiles the wrappers and returns the compiler flags that link them in.
///
/// # Errors
///
/// When the library or one of its functions is not found: a newer one may be built differently,
/// and without the wrappers the sanitizer would report races that are none.
pub(super) fn edges(shell: &Shell) -> Result<String, Error> {
    let library = library()?;
    let bytes = std::fs::read(&library).map_err(Error::file("read", &library))?;
    let symbols = symbols(&bytes);
    let directory = shell.root.join("target/sanitizers");
    std::fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    // Cargo links again only when the flags change, so the name says which wrappers these are.
    let mut hasher = DefaultHasher::new();
    WRAPPERS.hash(&mut hasher);
    let object = directory.join(format!("edges-{:016x}.o", hasher.finish()));
    let mut compile = Invocation::new("cc")
        .args(["-O1", "-fPIC", "-c", "-o"])
        .args([&object, &shell.root.join("xtask/src/ci/sanitizers/edges.c")])
        .echo(Echo::Nothing);
    let mut flags = format!("-Clink-arg={}", object.display());
    for (name, ending) in WRAPPED {
        let symbol = symbols
            .iter()
            .find(|symbol| symbol.ends_with(ending))
            .ok_or_else(|| Error::Absent {
                what: format!("a symbol that ends with {ending} in {}", library.display()),
                hint: "the standard library has changed; correct the list in \
                       xtask/src/ci/sanitizers/standard_library.rs"
                    .to_owned(),
            })?;
        compile = compile.args([format!("-D{name}={symbol}")]);
        flags.push_str(&format!(" -Clink-arg=-Wl,--wrap={symbol}"));
    }
    for symbol in WRAPPED_OF_SANITIZER {
        flags.push_str(&format!(" -Clink-arg=-Wl,--wrap={symbol}"));
    }
    let command = compile.display();
    let finished = compile.run(shell)?;
    if finished.success {
        Ok(flags)
    } else {
        Err(Error::CommandFailed {
            command,
            detail: finished.lines.join("\n"),
        })
    }
}

/// Where the nightly toolchain keeps the library for the host.
fn library() -> Result<PathBuf, Error> {
    let command = "rustup run nightly rustc --print target-libdir".to_owned();
    let output = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "target-libdir"])
        .output()
        .map_err(|source| Error::Command { command, source })?;
    let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let entries = std::fs::read_dir(&directory).map_err(Error::file("read", &directory))?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| is_library(path))
        .ok_or_else(|| Error::Absent {
            what: format!("the standard library in {}", directory.display()),
            hint: "install the nightly toolchain again".to_owned(),
        })
}

fn is_library(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("libstd-") && name.ends_with(".rlib"))
}

/// The mangled names among the strings of an archive, found in its symbol tables without a parser
/// for them: each stands between two zero bytes.
fn symbols(archive: &[u8]) -> Vec<&str> {
    archive
        .split(|&byte| byte == 0)
        .filter(|name| name.starts_with(b"_RN"))
        .filter_map(|name| std::str::from_utf8(name).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_whole_strings() {
        let archive = b"\0_RNvOne\0x_RNvTwo\0\xff\0_RNvThree4wait\0";
        assert_eq!(symbols(archive), ["_RNvOne", "_RNvThree4wait"]);
    }

    #[test]
    fn each_wrapped_name_is_used_by_the_wrappers() {
        for (name, _) in WRAPPED {
            assert!(WRAPPERS.contains(&format!("({name})")), "{name}");
        }
        for name in WRAPPED_OF_SANITIZER {
            assert!(WRAPPERS.contains(&format!("__wrap_{name}(")), "{name}");
        }
    }
}
