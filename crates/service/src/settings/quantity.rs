// SPDX-License-Identifier: AGPL-3.0-only
//! Sizes and durations as people write them: `"256 MiB"`, `"41.25s"`. Pure.

use std::time::Duration;

const BYTE_UNITS: [(&str, u64); 9] = [
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("b", 1),
];

/// Nanoseconds per unit.
const TIME_UNITS: [(&str, f64); 8] = [
    ("ms", 1e6),
    ("us", 1e3),
    ("min", 60e9),
    ("sec", 1e9),
    ("d", 86_400e9),
    ("h", 3_600e9),
    ("m", 60e9),
    ("s", 1e9),
];

/// Parses `"256 MiB"`, `"1.5 GB"` or `"4096"` (bytes). Units are not case-sensitive. `None` when it is no size.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (number, unit) = BYTE_UNITS
        .iter()
        .find_map(|(unit, size)| text.strip_suffix(unit).map(|number| (number, *size)))
        .unwrap_or((&text, 1));
    let number = number.trim();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    let bytes = positive(number)? * unit as f64;
    (bytes.fract() == 0.0 && bytes < 2f64.powi(63)).then_some(bytes as u64)
}

/// Parses `"250ms"`, `"41.25s"`, `"5m"`, `"1h"` or `"2d"`. A number without a unit is no duration, except `"0"`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim().to_ascii_lowercase();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (number, unit) =
        TIME_UNITS.iter().find_map(|(unit, nanos)| text.strip_suffix(unit).map(|number| (number, *nanos)))?;
    let nanos = positive(number.trim())? * unit;
    (nanos < 2f64.powi(63)).then(|| Duration::from_nanos(nanos.round() as u64))
}

fn positive(digits: &str) -> Option<f64> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    digits.parse::<f64>().ok().filter(|number| plain && number.is_finite())
}

/// A size in its largest whole binary unit, as [`parse_bytes`] reads it.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{} {unit}", bytes / size),
        None => format!("{bytes} B"),
    }
}

/// A duration in its largest whole unit, as [`parse_duration`] reads it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() == 0 {
        return match seconds {
            0 => "0s".to_owned(),
            _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
            _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
            _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
            _ => format!("{seconds}s"),
        };
    }
    if duration.as_secs() == 0 && duration.subsec_nanos().is_multiple_of(1_000_000) {
        return format!("{}ms", duration.subsec_millis());
    }
    format!("{}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        assert_eq!(parse_bytes("256 MiB"), Some(256 << 20));
        assert_eq!(parse_bytes("1.5gib"), Some(3 << 29));
        assert_eq!(parse_bytes("10 MB"), Some(10_000_000));
        assert_eq!(parse_bytes("4096"), Some(4096));
        assert_eq!(parse_bytes("12 B"), Some(12));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "MiB", "-1 MiB", "1e3 KiB", "inf", "NaN", "0.3 B", "99999999 TiB", "1 2"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("41.25s"), Some(Duration::from_millis(41_250)));
        assert_eq!(parse_duration("5 min"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("2d"), Some(Duration::from_secs(172_800)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for text in ["", "30", "s", "-3s", "1e2s", "five minutes", "9999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        for bytes in [0, 1, 1023, 1024, 1 << 20, 5 << 30, 123_456_789] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes));
        }
        for millis in [0, 1, 250, 1000, 41_250, 60_000, 3_600_000, 86_400_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
    }
}
