// SPDX-License-Identifier: AGPL-3.0-only
//! Finds JSON's structure in raw bytes, 64 at a time, without looking into strings.
//! In: a block of payload. Out: bit masks of its brackets, of what is outside strings, and of any byte.
//! Owned by the scanner, one `Blocks` per payload.

use wide::u8x16;

/// Bytes per block: one bit each in a mask.
pub(crate) const BLOCK: usize = 64;

/// Where structure stands in one block; bit `i` belongs to byte `i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Structure {
    /// `{`, `[`, `}` and `]`
    pub(crate) bracket: u64,
    /// Backslashes
    pub(crate) escape: u64,
    /// Everything outside of strings
    pub(crate) outside: u64,
    /// The quotes that open strings
    pub(crate) opening: u64,
    /// The quotes that close them
    pub(crate) closing: u64,
}

/// What is carried from block to block.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// All ones while inside a string.
    in_string: u64,
    /// The last byte was a backslash that escapes the next one.
    escaping: bool,
}

impl Blocks {
    /// The structure of the next block. A shorter last one is padded with spaces.
    #[inline]
    pub(crate) fn next(&mut self, block: &[u8; BLOCK]) -> Structure {
        let found = find(block);
        let mut quotes = found.quote;
        if found.backslash != 0 || self.escaping {
            quotes &= !self.escaped(found.backslash);
        }
        // Each quote flips whether we are in a string: a prefix sum modulo 2.
        let mut string = quotes;
        for shift in [1, 2, 4, 8, 16, 32] {
            string ^= string << shift;
        }
        string ^= self.in_string;
        self.in_string = if string >> 63 == 1 { u64::MAX } else { 0 };
        Structure {
            bracket: found.bracket & !string,
            escape: found.backslash,
            outside: !string,
            opening: quotes & string,
            closing: quotes & !string,
        }
    }

    /// The bytes that a backslash escapes.
    fn escaped(&mut self, backslash: u64) -> u64 {
        let mut escaped = u64::from(self.escaping);
        self.escaping = false;
        let mut rest = backslash & !escaped;
        while rest != 0 {
            let at = rest.trailing_zeros();
            if at == 63 {
                self.escaping = true;
                break;
            }
            escaped |= 2 << at;
            rest &= !(3 << at);
        }
        escaped
    }
}

/// All bytes of interest in a block, strings or not.
#[derive(Default)]
struct Found {
    quote: u64,
    backslash: u64,
    bracket: u64,
}

#[inline]
fn find(block: &[u8; BLOCK]) -> Found {
    let lanes = lanes(block);
    let equal = |byte: u8| lanes.map(|bytes| bytes.simd_eq(u8x16::splat(byte)));
    // `[` and `{`, like `]` and `}`, differ in this bit only.
    let folded = lanes.map(|bytes| bytes | u8x16::splat(0x20));
    let backslash = equal(b'\\');
    let any = backslash[0] | backslash[1] | backslash[2] | backslash[3];
    Found {
        quote: mask(equal(b'"')),
        // Most blocks have none.
        backslash: if any.to_bitmask() == 0 { 0 } else { mask(backslash) },
        bracket: mask(
            folded.map(|bytes| bytes.simd_eq(u8x16::splat(b'{')) | bytes.simd_eq(u8x16::splat(b'}'))),
        ),
    }
}

/// Where `byte` stands, in strings too.
#[inline]
pub(crate) fn positions(block: &[u8; BLOCK], byte: u8) -> u64 {
    mask(lanes(block).map(|bytes| bytes.simd_eq(u8x16::splat(byte))))
}

/// Where `{` and `[` stand, in strings too.
pub(crate) fn opening(block: &[u8; BLOCK]) -> u64 {
    mask(lanes(block).map(|bytes| (bytes | u8x16::splat(0x20)).simd_eq(u8x16::splat(b'{'))))
}

#[inline]
fn lanes(block: &[u8; BLOCK]) -> [u8x16; 4] {
    let (lanes, _) = block.as_chunks::<16>();
    [u8x16::new(lanes[0]), u8x16::new(lanes[1]), u8x16::new(lanes[2]), u8x16::new(lanes[3])]
}

#[inline]
fn mask(equal: [u8x16; 4]) -> u64 {
    let [a, b, c, d] = equal.map(|lane| u64::from(lane.to_bitmask()));
    (a | b << 16) | (c | d << 16) << 32
}

/// The same as [`find`], written plainly.
#[cfg(test)]
fn find_bytewise(block: &[u8; BLOCK]) -> Found {
    let mut found = Found::default();
    for (at, byte) in block.iter().enumerate() {
        let bit = |equal: bool| u64::from(equal) << at;
        found.quote |= bit(*byte == b'"');
        found.backslash |= bit(*byte == b'\\');
        found.bracket |= bit(matches!(byte, b'{' | b'[' | b'}' | b']'));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Blocks, Structure, find, find_bytewise};
    use proptest::prelude::*;

    #[test]
    fn brackets_in_strings_are_no_structure() {
        let found = structure(br#"{"a{":["],",1]}"#);
        assert_eq!(found[0].bracket, 1 | 1 << 6 | 3 << 13);
        assert_eq!(found[0].outside & 0x7fff, 0b111_1100_0111_0001);
        assert_eq!(found[0].opening, 1 << 1 | 1 << 7);
    }

    #[test]
    fn strings_and_escapes_carry_over_the_edge_of_a_block() {
        let mut text = vec![b'"'; 1];
        text.resize(BLOCK - 1, b'a');
        text.extend_from_slice(b"\\\"{\"{");
        let found = structure(&text);
        assert_eq!((found[0].bracket, found[0].escape, found[0].outside), (0, 1 << 63, 0));
        assert_eq!(found[1].bracket, 1 << 3);
    }

    proptest! {
        #[test]
        fn the_vector_form_finds_what_the_plain_form_finds(block in any::<[u8; 32]>(), json in "[\\[\\]{}:,\"\\\\a]{32}") {
            let mut bytes = [0; BLOCK];
            bytes[..32].copy_from_slice(&block);
            bytes[32..].copy_from_slice(json.as_bytes());
            let (fast, plain) = (find(&bytes), find_bytewise(&bytes));
            prop_assert_eq!(
                (fast.quote, fast.backslash, fast.bracket),
                (plain.quote, plain.backslash, plain.bracket)
            );
        }

        #[test]
        fn masks_equal_a_walk_byte_by_byte(text in "[\\[\\]{}:,\"\\\\a ]{0,300}") {
            let mut blocks = structure(text.as_bytes());
            let (mut in_string, mut escaped) = (false, false);
            for (at, byte) in text.bytes().enumerate() {
                let quote = byte == b'"' && !escaped;
                // An opening quote counts to the string, a closing one doesn't.
                let structural = in_string == quote;
                let bit = |mask: u64| mask >> (at % BLOCK) & 1 == 1;
                let found = &mut blocks[at / BLOCK];
                prop_assert_eq!(bit(found.bracket), structural && matches!(byte, b'{' | b'[' | b'}' | b']'));
                prop_assert_eq!(bit(found.outside), structural);
                if byte == b'"' && !escaped {
                    in_string = !in_string;
                }
                escaped = byte == b'\\' && !escaped;
            }
        }
    }

    fn structure(text: &[u8]) -> Vec<Structure> {
        let mut blocks = Blocks::default();
        text.chunks(BLOCK)
            .map(|chunk| {
                let mut block = [b' '; BLOCK];
                block[..chunk.len()].copy_from_slice(chunk);
                blocks.next(&block)
            })
            .collect()
    }
}
