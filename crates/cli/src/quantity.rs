//! Quantities as people read them.

/// Bytes in binary units.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    match unit {
        "B" => format!("{count} B"),
        unit => format!("{value:.1} {unit}"),
    }
}

/// Reads a number of bytes, with a unit or without.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        unit => return Err(format!("{unit:?} is none of B, KiB, MiB, GiB, TiB")),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| "give a number of bytes such as 4096 or 64MiB".to_owned())?;
    count
        .checked_mul(1 << shift)
        .ok_or_else(|| "it is more than 16 EiB".to_owned())
}

/// Megabytes a second.
pub(crate) fn speed(bytes_per_s: f64) -> String {
    format!("{:.0} MB/s", bytes_per_s / 1e6)
}

/// Bytes a second.
pub(crate) fn rate(bytes: u64, elapsed_s: f64) -> f64 {
    bytes as f64 / elapsed_s.max(1e-9)
}

/// Bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_the_size() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(256 << 20), "256.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        assert_eq!(speed(rate(2_000_000, 2.0)), "1 MB/s");
    }

    #[test]
    fn numbers_of_bytes_are_read() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("2G"), Ok(2 << 30));
        for wrong in ["", "MiB", "1 MiB", "-1", "1.5M", "1MB", "16777216TiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
