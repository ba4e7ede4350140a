// SPDX-License-Identifier: AGPL-3.0-only
//! deflate (RFC 1951) for a stream of small JSON messages, as fast as it can be had: one look at one candidate per
//! place, the fixed Huffman codes, each message flushed. In: messages. Out: blocks that any inflater reads.
//! A general library spends most of its time on what such a stream can't use (lazy matching, codes made per block).

/// How far back a match may lie (RFC 1951, section 2).
const WINDOW: usize = 32 * 1024;
/// What is kept: the window, and at most as much again behind it. Places in it fit 16 bits.
const HISTORY: usize = 2 * WINDOW;
/// Shorter matches aren't looked for: keys and values that repeat are longer, and one costs about as much as three letters.
const SHORTEST: usize = 4;
/// The longest match that deflate has.
const LONGEST: usize = 258;
/// 2^14 places of 2 bytes: 32 KiB a stream.
const HASH_BITS: u32 = 14;
/// The last bytes of a message aren't looked up, so that eight can be read anywhere before them.
const TAIL: usize = 8;

/// A code as it goes into the stream, lowest bit first, and how many bits it has.
type Code = (u16, u8);

/// The fixed codes of letters, and of lengths with their extra bits (RFC 1951, section 3.2.6).
const LITERALS: [Code; 256] = literals();
const LENGTHS: [Code; LONGEST + 1] = lengths();
/// The end of a block: seven zeros.
const END_BITS: u32 = 7;

/// The state of one stream.
pub(super) struct FastDeflate {
    history: Vec<u8>,
    /// By the hash of four bytes, where in the history they stood last.
    places: Box<[u16; 1 << HASH_BITS]>,
    started: bool,
}

impl FastDeflate {
    pub(super) fn new() -> Self {
        let places = Box::new([0; 1 << HASH_BITS]);
        FastDeflate { history: Vec::new(), places, started: false }
    }

    /// Appends a message, up to and with the marker of a flush.
    pub(super) fn message(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if !self.started {
            self.started = true;
            // deflate with a window of 32 KiB, fastest (RFC 1950, section 2.2).
            out.extend_from_slice(&[0x78, 0x01]);
        }
        let mut bits = Bits::new(out, payload.len());
        for piece in payload.chunks(WINDOW) {
            let from = self.remember(piece);
            // Not the last block; fixed codes.
            bits.put(0b010, 3);
            self.block(from, &mut bits);
            bits.put(0, END_BITS);
        }
        bits.flush_block();
    }

    /// Puts a piece behind what is known; returns where it begins.
    fn remember(&mut self, piece: &[u8]) -> usize {
        if self.history.len() + piece.len() > HISTORY {
            let gone = self.history.len() - WINDOW;
            self.history.copy_within(gone.., 0);
            self.history.truncate(WINDOW);
            // What is no longer there seems to stand at the beginning, where other bytes are.
            let gone = u16::try_from(gone).unwrap_or(u16::MAX);
            self.places.iter_mut().for_each(|place| *place = place.saturating_sub(gone));
        }
        let from = self.history.len();
        self.history.extend_from_slice(piece);
        from
    }

    fn block(&mut self, from: usize, bits: &mut Bits<'_>) {
        let data = self.history.as_slice();
        let mut at = from;
        while at + TAIL <= data.len() {
            let four = load(data, at) as u32;
            let place = &mut self.places[hash(four)];
            let before = usize::from(*place);
            // A place in the history is below 64 Ki.
            *place = at as u16;
            let back = at.wrapping_sub(before);
            if back.wrapping_sub(1) < WINDOW && load(data, before) as u32 == four {
                let len = same(data, before, at);
                bits.copy(len, back);
                at += len;
            } else {
                bits.literal(data[at]);
                at += 1;
            }
        }
        data[at..].iter().for_each(|byte| bits.literal(*byte));
    }
}

fn load(data: &[u8], at: usize) -> u64 {
    data.get(at..at + 8).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Multiplicative hashing: the upper bits depend on all of the lower.
fn hash(four: u32) -> usize {
    (four.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize
}

/// How many bytes are the same from two places on, of which the first four are.
fn same(data: &[u8], before: usize, at: usize) -> usize {
    let most = LONGEST.min(data.len() - at);
    let mut len = SHORTEST;
    while len + 8 <= most {
        let differ = load(data, before + len) ^ load(data, at + len);
        if differ != 0 {
            return len + (differ.trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    while len < most && data[before + len] == data[at + len] {
        len += 1;
    }
    len
}

/// Writes codes, lowest bit first.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    /// Where in `out` the next whole bytes go; what lies behind is room.
    at: usize,
    waiting: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    /// Makes room for a message of `len` bytes: a letter has nine bits at most, a copy less than the letters it stands for.
    fn new(out: &'a mut Vec<u8>, len: usize) -> Self {
        let at = out.len();
        out.resize(at + len + len / 8 + 8 * (len / WINDOW + 1) + 16, 0);
        Bits { out, at, waiting: 0, count: 0 }
    }

    /// At most 32 bits.
    fn put(&mut self, bits: u32, count: u32) {
        self.waiting |= u64::from(bits) << self.count;
        self.count += count;
        if self.count >= 32 {
            self.out[self.at..self.at + 4].copy_from_slice(&(self.waiting as u32).to_le_bytes());
            self.at += 4;
            self.waiting >>= 32;
            self.count -= 32;
        }
    }

    fn literal(&mut self, byte: u8) {
        let (bits, count) = LITERALS[usize::from(byte)];
        self.put(u32::from(bits), u32::from(count));
    }

    fn copy(&mut self, len: usize, back: usize) {
        let (length, used) = LENGTHS[len];
        let (distance, more) = distance(back as u32);
        self.put(u32::from(length) | distance << used, u32::from(used) + more);
    }

    /// An empty stored block, which ends on a whole byte: what a sync flush leaves.
    fn flush_block(mut self) {
        self.put(0b000, 3);
        let whole = self.count.div_ceil(8) as usize;
        self.out[self.at..self.at + 8].copy_from_slice(&self.waiting.to_le_bytes());
        self.out.truncate(self.at + whole);
        self.out.extend_from_slice(&super::ZLIB_SUFFIX);
    }
}

/// The code of a distance with its extra bits, and how many bits that are: two codes for each power of two.
fn distance(back: u32) -> (u32, u32) {
    let less = back - 1;
    if less < 4 {
        return (five(less), 5);
    }
    let extra = less.ilog2() - 1;
    let code = 2 * (extra + 1) + (less >> extra & 1);
    let rest = less & ((1 << extra) - 1);
    (five(code) | rest << 5, 5 + extra)
}

/// Five bits in the order in which Huffman codes are written: highest first.
fn five(code: u32) -> u32 {
    code.reverse_bits() >> 27
}

const fn reversed(code: u16, count: u8) -> Code {
    (code.reverse_bits() >> (16 - count), count)
}

const fn literals() -> [Code; 256] {
    let mut codes = [(0, 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let code = byte as u16;
        codes[byte] = if byte < 144 { reversed(0x30 + code, 8) } else { reversed(0x190 + code - 144, 9) };
        byte += 1;
    }
    codes
}

/// Lengths have four codes for each power of two, from eight different ones on; the longest has one of its own.
const fn lengths() -> [Code; LONGEST + 1] {
    let mut codes = [(0, 0); LONGEST + 1];
    let mut len = 3;
    while len <= LONGEST {
        let less = (len - 3) as u16;
        let extra = if less < 8 { 0 } else { less.ilog2() - 2 };
        let (symbol, rest) = if len == LONGEST {
            (285, 0)
        } else {
            (257 + 4 * extra as u16 + (less >> extra), less & ((1 << extra) - 1))
        };
        let extra = if len == LONGEST { 0 } else { extra };
        let (code, count) =
            if symbol < 280 { reversed(symbol - 256, 7) } else { reversed(0xc0 + symbol - 280, 8) };
        codes[len] = (code | rest << count, count + extra as u8);
        len += 1;
    }
    codes
}
