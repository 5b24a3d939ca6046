//! Text that belongs in no tracked file.

use super::finding::Finding;
use super::source::{Source, line_of, occurrences};

/// Files that others write.
const EXEMPT: [&str; 4] = [
    "Cargo.lock",
    "benches/peers/Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
];

/// Marks of unfinished work. Put together here so that this file does not hold them.
const UNFINISHED: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// Hosts of package registries: which one is used is the builder's configuration.
const REGISTRY_HOSTS: [&str; 6] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("proxy.golang", ".org"),
];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

/// Finds such text anywhere in the file, comments and literals included.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    if EXEMPT.iter().any(|name| source.path().as_os_str() == *name) {
        return Vec::new();
    }
    let text = source.text();
    let at = |offset: usize, message: String| {
        Finding::new(source.path(), line_of(text, offset), message)
    };
    let unfinished = UNFINISHED.iter().flat_map(|word| {
        occurrences(text, word)
            .map(move |offset| at(offset, format!("`{word}` marks unfinished work; finish it")))
    });
    let hosts = REGISTRY_HOSTS.iter().flat_map(|host| {
        text.match_indices(host).map(move |(offset, _)| {
            at(
                offset,
                format!("`{host}` is a package registry's host; leave it out"),
            )
        })
    });
    let paths = MACHINE_PATHS.iter().flat_map(|path| {
        text.match_indices(path)
            .filter(|&(offset, _)| begins_path(text, offset))
            .map(move |(offset, _)| {
                at(
                    offset,
                    format!("`{path}…` is a path of one machine; use a relative one"),
                )
            })
    });
    unfinished.chain(hosts).chain(paths).collect()
}

/// Whether the slash at `offset` begins an absolute path rather than continuing another.
fn begins_path(text: &str, offset: usize) -> bool {
    text[..offset]
        .chars()
        .next_back()
        .is_none_or(|before| !before.is_alphanumeric() && !"._-~*})>".contains(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn findings(path: &str, text: &str) -> usize {
        check(&Source::new(PathBuf::from(path), text.to_owned())).len()
    }

    #[test]
    fn each_kind_of_text_is_found() {
        for word in UNFINISHED {
            assert_eq!(findings("a.rs", &format!("// {word}: later")), 1, "{word}");
            assert_eq!(findings("a.rs", &format!("let a{word}b = 1;")), 0, "{word}");
        }
        for host in REGISTRY_HOSTS {
            assert_eq!(
                findings("docs/a.md", &format!("see https://{host}/a")),
                1,
                "{host}"
            );
        }
        for path in MACHINE_PATHS {
            assert_eq!(
                findings("a.toml", &format!("path = \"{path}a\"")),
                1,
                "{path}"
            );
            assert_eq!(
                findings("a.toml", &format!("path = \"target{path}a\"")),
                0,
                "{path}"
            );
        }
    }

    #[test]
    fn files_of_others_are_exempt() {
        assert_eq!(findings("Cargo.lock", REGISTRY_HOSTS[0]), 0);
        assert_eq!(findings("docs/Cargo.lock", REGISTRY_HOSTS[0]), 1);
    }
}
