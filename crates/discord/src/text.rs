// SPDX-License-Identifier: AGPL-3.0-only
//! JSON's scalars as they stand in a payload: strings with their quotes, digits, spaces around them.
//! In: bytes between the scanner's marks. Out: numbers, names, keys without their quotes.
//! Owned by nobody: functions over borrowed bytes.

use std::ops::Range;

use crate::EventKind;

pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

pub(crate) fn trim_range(payload: &[u8], range: Range<usize>) -> Range<usize> {
    let (mut start, mut end) = (range.start, range.end);
    while start < end && is_space(payload[start]) {
        start += 1;
    }
    while start < end && is_space(payload[end - 1]) {
        end -= 1;
    }
    start..end
}

pub(crate) fn trim(text: &[u8]) -> &[u8] {
    &text[trim_range(text, 0..text.len())]
}

pub(crate) fn trim_end(text: &[u8]) -> &[u8] {
    let spaces = text.iter().rev().take_while(|byte| is_space(**byte)).count();
    &text[..text.len() - spaces]
}

/// The inside of a string, if `text` begins and ends with a quote.
pub(crate) fn string(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'"', inside @ .., b'"'] => Some(inside),
        _ => None,
    }
}

/// The slow path for a string with escapes; `None` if it isn't valid.
pub(crate) fn unescape(inside: &[u8]) -> Option<String> {
    let quoted = [b"\"", inside, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

/// The number that plain digits make; JSON has no leading zeros, signs don't occur in what is read here.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if text.len() > 1 && text[0] == b'0' {
        return None;
    }
    decimal(text)
}

/// The number that digits make, leading zeros or not.
fn decimal(text: &[u8]) -> Option<u64> {
    let (number, rest) = leading_decimal(text)?;
    rest.is_empty().then_some(number)
}

/// The number that the digits at the start of `text` make (one at least), and what follows them.
fn leading_decimal(text: &[u8]) -> Option<(u64, &[u8])> {
    let (mut number, mut rest) = (0_u64, text);
    // Ids have 17 to 20 digits: two times eight can't overflow.
    for _ in 0..2 {
        let Some((eight, after)) = rest.split_first_chunk::<8>() else { break };
        let Some(value) = eight_digits(*eight) else { break };
        number = number * 100_000_000 + value;
        rest = after;
    }
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        rest = after;
    }
    (rest.len() < text.len()).then_some((number, rest))
}

/// Eight digits at once, in one word: tens in each pair of bytes, hundreds in each pair of pairs, and so on.
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = u64::from_le_bytes(text) & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

/// The snowflake with which `text` begins, as a string or as a number.
pub(crate) fn snowflake(text: &[u8]) -> Option<u64> {
    let spaces = text.iter().take_while(|byte| is_space(**byte)).count();
    let Some(inside) = text[spaces..].strip_prefix(b"\"") else {
        let length = text[spaces..]
            .iter()
            .take_while(|byte| !matches!(byte, b',' | b'}') && !is_space(**byte))
            .count();
        return digits(&text[spaces..spaces + length]);
    };
    if let Some((number, [b'"', ..])) = leading_decimal(inside) {
        return Some(number);
    }
    // Spelt with escapes, or no number: escapes of digits have no quotes in them.
    let length = inside.iter().position(|byte| *byte == b'"')?;
    let inside = &inside[..length];
    if inside.contains(&b'\\') { decimal(unescape(inside)?.as_bytes()) } else { None }
}

pub(crate) fn event(value: &[u8]) -> Option<(&str, EventKind)> {
    let name = str::from_utf8(string(value)?).ok()?;
    let kind = EventKind::from_name(name);
    if kind != EventKind::Unknown {
        return Some((name, kind));
    }
    if !name.contains(['\\', '"']) {
        return Some((name, EventKind::Unknown));
    }
    match EventKind::from_name(&unescape(name.as_bytes())?) {
        EventKind::Unknown => Some((name, EventKind::Unknown)),
        kind => Some((kind.name(), kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::{decimal, digits, snowflake};
    use proptest::prelude::*;

    #[test]
    fn numbers_of_any_length_are_read_or_refused() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), None);
        assert_eq!(decimal(b"00000000000000000000000000000000007"), Some(7));
        for text in [&b""[..], b"1x", b"x1", b"12345678:", b"1234567/12345678", b"+1", b"-1", b"1 "] {
            assert_eq!(decimal(text), None, "{text:?}");
        }
        assert_eq!((digits(b"0"), digits(b"07")), (Some(0), None));
    }

    #[test]
    fn a_snowflake_ends_where_its_value_does() {
        assert_eq!(snowflake(br#" "12","x":1"#), Some(12));
        assert_eq!(snowflake(b"12}}"), Some(12));
        assert_eq!(snowflake(br#""1\u0032"}"#), Some(12));
        for text in [&br#""12x""#[..], br#""12"#, b"12.5,", b"null,", b"[12]", b"", b" "] {
            assert_eq!(snowflake(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_number_is_read(number in prop_oneof![any::<u64>(), 0_u64..100_000_000_000]) {
            prop_assert_eq!(decimal(number.to_string().as_bytes()), Some(number));
        }

        #[test]
        fn what_isnt_all_digits_is_refused(text in "[0-9/:]{1,24}") {
            let expected = if text.contains(['/', ':']) { None } else { text.parse().ok() };
            prop_assert_eq!(decimal(text.as_bytes()), expected);
        }
    }
}
