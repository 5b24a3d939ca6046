//! A lint is expected with a reason, never allowed.

use super::finding::Finding;
use super::source::{Source, line_of, occurrences};

/// Finds `allow` attributes, the conditional ones too.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let code = source.code();
    occurrences(code, "allow")
        .filter(|&offset| is_in_attribute(code, offset))
        .map(|offset| {
            let message = "a lint is allowed; write `#[expect(LINT, reason = \"…\")]` instead";
            Finding::new(source.path(), line_of(code, offset), message)
        })
        .collect()
}

/// Whether the word at `offset` is an attribute's name, or stands inside a conditional one.
fn is_in_attribute(code: &str, offset: usize) -> bool {
    let before = &code[..offset];
    let Some(start) = before.rfind('#') else {
        return false;
    };
    let opening = before[start + 1..].trim_start_matches('!').trim_start();
    let Some(inside) = opening.strip_prefix('[') else {
        return false;
    };
    inside.trim().is_empty()
        || (inside.trim_start().starts_with("cfg_attr") && !inside.contains(']'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn findings(text: &str) -> usize {
        check(&Source::new(PathBuf::from("a.rs"), text.to_owned())).len()
    }

    #[test]
    fn each_form_of_allow_is_found() {
        for text in [
            "#[allow(dead_code)]\nfn a() {}",
            "#![allow(dead_code)]",
            "#[ allow (dead_code)]",
            "#[cfg_attr(test, allow(dead_code))]",
            "#[allow(dead_code, reason = \"x\")]",
        ] {
            assert_eq!(findings(text), 1, "{text}");
        }
    }

    #[test]
    fn other_uses_of_the_word_are_free() {
        for text in [
            "#[expect(dead_code, reason = \"allow\")]",
            "// #[allow(dead_code)]",
            "#[test]\nfn allow() {}",
            "let s = \"#[allow(x)]\";",
        ] {
            assert_eq!(findings(text), 0, "{text}");
        }
    }
}
