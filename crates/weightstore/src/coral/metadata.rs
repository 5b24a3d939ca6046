//! The JSON that Python writes.

use serde_json::Value;

/// Words for numbers that JSON has not, the longer before what it contains.
const WORDS: [(&str, &str); 3] = [
    ("-Infinity", "\"-Infinity\""),
    ("Infinity", "\"Infinity\""),
    ("NaN", "\"NaN\""),
];

/// Parses JSON that may have `NaN`, `Infinity` and `-Infinity` as numbers, as Python writes and reads them;
/// `None` if it is none. They become texts, which [`number`] understands.
pub(crate) fn parse(text: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    serde_json::from_str(&quoted(text)).ok()
}

/// A number, or one of the words that stand for one.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => value.as_f64(),
    }
}

/// The text with the words in quotes, where they are not inside of a text.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let (mut inside, mut escaped) = (false, false);
    while let Some(character) = rest.chars().next() {
        if !inside
            && let Some((word, replacement)) = WORDS.iter().find(|row| rest.starts_with(row.0))
        {
            quoted.push_str(replacement);
            rest = rest.strip_prefix(word).unwrap_or_default();
            continue;
        }
        if character == '"' && !escaped {
            inside = !inside;
        }
        escaped = inside && character == '\\' && !escaped;
        quoted.push(character);
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_numbers_are_understood() {
        let value = parse(r#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" NaN", "d": 1}"#);
        let value = value.unwrap();
        assert!(number(&value["a"]).unwrap().is_nan());
        assert_eq!(number(&value["b"][0]), Some(f64::NEG_INFINITY));
        assert_eq!(number(&value["b"][1]), Some(f64::INFINITY));
        assert_eq!(value["c"], "NaN \" NaN");
        assert_eq!(number(&value["d"]), Some(1.0));
        assert_eq!(number(&value["c"]), None);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "{", "nan", "{\"a\": Nan}", "NaNNaN"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
