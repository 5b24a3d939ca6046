//! Blanking out the parts of Rust source that rules about code must not see.

/// A copy with comments, strings and character literals replaced by spaces; line breaks stay.
pub(super) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut masked = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        match end {
            Some(end) => {
                clear(&mut masked, at, end);
                at = end;
            }
            None => at = after_word_or_byte(bytes, at),
        }
    }
    String::from_utf8_lossy(&masked).into_owned()
}

/// A copy of masked code with the items under `#[cfg(test)]` replaced by spaces.
pub(super) fn without_tests(code: &str) -> String {
    let bytes = code.as_bytes();
    let mut masked = bytes.to_vec();
    for (start, _) in code.match_indices("#[cfg(") {
        let attribute_end = code[start..]
            .find(']')
            .map_or(code.len(), |length| start + length);
        if super::occurrences(&code[start..attribute_end], "test")
            .next()
            .is_none()
        {
            continue;
        }
        clear(&mut masked, start, item_end(bytes, attribute_end + 1));
    }
    String::from_utf8_lossy(&masked).into_owned()
}

/// Where the item that begins after `start` ends: at its closing brace or semicolon.
fn item_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b';' if depth == 0 => return offset + 1,
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return offset + 1;
                }
            }
            _ => {}
        }
    }
    bytes.len()
}

fn clear(masked: &mut [u8], start: usize, end: usize) {
    let end = end.min(masked.len());
    for byte in &mut masked[start.min(end)..end] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// Skips a whole identifier, so that the `r` of `for"` is not taken for a raw string's.
fn after_word_or_byte(bytes: &[u8], at: usize) -> usize {
    let word = bytes[at..]
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_' || **byte >= 0x80)
        .count();
    at + word.max(1)
}

/// Where the comment or literal that begins at `at` ends, if one does.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Some(
            at + rest
                .iter()
                .position(|&byte| byte == b'\n')
                .unwrap_or(rest.len()),
        );
    }
    if rest.starts_with(b"/*") {
        return Some(block_comment_end(bytes, at));
    }
    let prefix = [&b"br"[..], b"cr", b"b", b"c", b"r", b""]
        .into_iter()
        .find(|prefix| rest.starts_with(prefix) && is_quote(rest, prefix))?;
    let quote_at = at + prefix.len();
    if prefix.ends_with(b"r") {
        return Some(raw_string_end(bytes, quote_at));
    }
    match bytes[quote_at] {
        b'"' => Some(quoted_end(bytes, quote_at, b'"')),
        _ => character_end(bytes, quote_at),
    }
}

/// Whether a literal's quote follows the prefix.
fn is_quote(rest: &[u8], prefix: &[u8]) -> bool {
    let after = &rest[prefix.len()..];
    if prefix.ends_with(b"r") {
        let hashes = after.iter().take_while(|&&byte| byte == b'#').count();
        return after.get(hashes) == Some(&b'"');
    }
    match after.first() {
        Some(b'"') => true,
        Some(b'\'') => prefix.is_empty() || prefix == b"b",
        _ => false,
    }
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], start: usize) -> usize {
    let hashes = bytes[start..]
        .iter()
        .take_while(|&&byte| byte == b'#')
        .count();
    let mut at = start + hashes + 1;
    while at < bytes.len() {
        let closing = &bytes[at + 1..];
        if bytes[at] == b'"'
            && closing.len() >= hashes
            && closing[..hashes].iter().all(|&byte| byte == b'#')
        {
            return at + 1 + hashes;
        }
        at += 1;
    }
    bytes.len()
}

fn quoted_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a character literal; nothing for a lifetime.
fn character_end(bytes: &[u8], start: usize) -> Option<usize> {
    let first = *bytes.get(start + 1)?;
    if first == b'\\' {
        return Some(quoted_end(bytes, start, b'\''));
    }
    let width = match first {
        0x00..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (bytes.get(start + 1 + width) == Some(&b'\'')).then_some(start + 2 + width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_vanish_and_code_stays() {
        for (text, hidden, kept) in [
            ("a(); // secret\nb();", "secret", "b();"),
            ("/* x /* secret */ y */ b();", "secret", "b();"),
            ("let s = \"secret \\\" secret\"; b();", "secret", "b();"),
            ("let s = r#\"secret \" secret\"#; b();", "secret", "b();"),
            ("let s = br\"secret\\\"; b();", "secret", "b();"),
            ("let c = '\"'; b(); // secret", "secret", "b();"),
            ("let c = '\\''; b(); // secret", "secret", "b();"),
            ("let c = 'ß'; b(); // secret", "secret", "b();"),
            (
                "fn f<'a>(x: &'a str) {} b(); // secret",
                "secret",
                "fn f<'a>(x: &'a str) {} b();",
            ),
            (
                "let r#type = 1; b(); // secret",
                "secret",
                "let r#type = 1; b();",
            ),
        ] {
            let masked = blank(text);
            assert!(!masked.contains(hidden), "{masked}");
            assert!(masked.contains(kept), "{masked}");
            assert_eq!(masked.lines().count(), text.lines().count());
        }
    }

    #[test]
    fn unfinished_literals_reach_the_end() {
        for text in ["\"abc", "r#\"abc", "/* abc", "'", "\"abc\\"] {
            assert_eq!(blank(text).len(), text.len(), "{text}");
        }
    }

    #[test]
    fn test_items_vanish() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { {} }\n}\nfn c() {}\n";
        let shipped = without_tests(code);
        assert!(shipped.contains("fn a") && shipped.contains("fn c") && !shipped.contains("fn b"));
        let code = "#[cfg(all(test, unix))]\nmod tests;\nfn c() {}\n";
        assert_eq!(without_tests(code).trim(), "fn c() {}");
        let code = "#[cfg(feature = x)]\nfn contest() {}\n";
        assert_eq!(without_tests(code), code);
    }
}
