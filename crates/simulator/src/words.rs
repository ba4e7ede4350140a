// SPDX-License-Identifier: AGPL-3.0-only
//! Text that looks like chat to a compressor: words that return, in an order that doesn't.
//!
//! In: a source of randomness, a length. Out: words, exactly that long.
use std::sync::LazyLock;

use fastrand::Rng;

/// How many words there are; a power of two.
const COUNT: usize = 1 << 13;

/// A word's letters and how many of them count.
type Word = ([u8; 12], u8);

static WORDS: LazyLock<Vec<Word>> = LazyLock::new(|| {
    let mut random = Rng::with_seed(1);
    (0..COUNT).map(|_| word(&mut random)).collect()
});

/// What words are made of; vowels more often.
const LETTERS: &[u8; 64] = b"eeeeeaaaaooooiiiuuunnnttsssrrllddhhmmccffggbbppwwyykkvzjxq019ETA";

fn word(random: &mut Rng) -> Word {
    let mut letters = [b' '; 12];
    let length = random.usize(2..6) + random.usize(0..6);
    letters[..length].fill_with(|| LETTERS[random.usize(..LETTERS.len())]);
    (letters, u8::try_from(length).unwrap_or(2))
}

/// Appends words with a space after each, cut off at `length` bytes.
pub(crate) fn write(random: &mut Rng, mut length: usize, out: &mut Vec<u8>) {
    let known: &[Word] = &WORDS;
    while length > 0 {
        let (letters, size) = &known[random.usize(..COUNT)];
        let end = (usize::from(*size) + 1).min(length);
        // A copy of fixed size and a cut are cheaper than a copy of each word's own size.
        out.extend_from_slice(letters);
        out.truncate(out.len() - letters.len() + end);
        length -= end;
    }
}

/// Appends `length` letters without a space.
pub(crate) fn write_name(random: &mut Rng, length: usize, out: &mut Vec<u8>) {
    for _ in 0..length {
        out.push(LETTERS[random.usize(..LETTERS.len())]);
    }
}

/// Appends `length` hexadecimal digits, at most sixteen at a time.
pub(crate) fn write_hex(random: &mut Rng, length: usize, out: &mut Vec<u8>) {
    let mut bits = 0;
    for at in 0..length {
        if at % 16 == 0 {
            bits = random.u64(..);
        }
        out.push(b"0123456789abcdef"[usize::from(bits as u8 & 15)]);
        bits >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_as_long_as_asked_and_differ() {
        let mut random = Rng::with_seed(7);
        let mut texts = std::collections::HashSet::new();
        for length in 1..200 {
            let mut out = Vec::new();
            write(&mut random, length, &mut out);
            assert_eq!(out.len(), length);
            assert!(out.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b' '));
            texts.insert(out);
        }
        assert!(texts.len() > 190, "{} different texts", texts.len());
    }
}
