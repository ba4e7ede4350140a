// SPDX-License-Identifier: AGPL-3.0-only
//! Reads what routing needs from a raw payload without parsing it: one pass over its structure.
//! In: one payload as Discord or a client sent it. Out: its header, as numbers and byte ranges.
//! Keys may come in any order and spelling; only the top level and what is read of it are checked.

use std::ops::Range;

use crate::EventKind;
use crate::structure::{BLOCK, Blocks, opening};

/// What a payload says about itself. When a key stands twice, the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// `op`
    pub op: u8,
    /// `t` as it stands between its quotes: the name of an event that isn't known and is spelt with escapes
    /// (no name of Discord's is) keeps them.
    pub name: Option<&'a str>,
    /// The event that `t` names; [`EventKind::Unknown`] without one.
    pub kind: EventKind,
    /// `s`
    pub sequence: Option<u64>,
    /// Where the digits of `s` stand; `None` if it is absent or null.
    pub sequence_range: Option<Range<usize>>,
    /// Where the value of `d` stands (`null` too); `None` if it is absent. Its inside is not validated.
    pub data: Option<Range<usize>>,
    /// The guild: `d.id` of GUILD_CREATE, GUILD_UPDATE and GUILD_DELETE, `d.guild_id` of everything else.
    pub guild: Option<u64>,
    /// `d.id`, where it is a snowflake (as a string, or as a number).
    pub id: Option<u64>,
    /// `d.channel_id`, the same.
    pub channel: Option<u64>,
}

/// Why a payload has no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The payload isn't a JSON object.
    #[error("the payload is not a JSON object")]
    NotAnObject,
    /// The payload ends inside the object.
    #[error("the payload is cut off")]
    CutOff,
    /// The object's top level is malformed, or something follows it.
    #[error("the payload is malformed near byte {0}")]
    Malformed(usize),
    /// `op` is missing or no number from 0 to 255.
    #[error("the payload's opcode is missing or invalid")]
    Opcode,
    /// `s` is neither a whole number nor null.
    #[error("the payload's sequence is invalid")]
    Sequence,
    /// `t` is neither a string nor null, or not UTF-8.
    #[error("the payload's event name is invalid")]
    Name,
}

/// Reads the header of one payload.
///
/// # Errors
/// See [`ScanError`]; the inside of values other than `op`, `s` and `t` is not looked at.
pub fn scan(payload: &[u8]) -> Result<Header<'_>, ScanError> {
    if payload.iter().find(|byte| !is_space(**byte)) != Some(&b'{') {
        return Err(ScanError::NotAnObject);
    }
    let mut walk = Walk::new(payload);
    let (blocks, tail) = payload.as_chunks::<BLOCK>();
    let mut start = 0;
    for block in blocks {
        if walk.block(block, start)? {
            return walk.fields.header(payload);
        }
        start += BLOCK;
    }
    let mut block = [b' '; BLOCK];
    block[..tail.len()].copy_from_slice(tail);
    if walk.block(&block, start)? { walk.fields.header(payload) } else { Err(ScanError::CutOff) }
}

/// The keys that matter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Op,
    Sequence,
    Name,
    Data,
    Guild,
    Id,
    Channel,
    Other,
}

/// Where the values of those keys stand.
#[derive(Default)]
struct Fields {
    op: Option<Range<usize>>,
    sequence: Option<Range<usize>>,
    name: Option<Range<usize>>,
    data: Option<Range<usize>>,
    guild: Option<Range<usize>>,
    id: Option<Range<usize>>,
    channel: Option<Range<usize>>,
}

/// The member of the top-level object that is being read.
struct Member {
    /// Just after the bracket or comma before it.
    from: usize,
    /// Its key, and the place just after the colon, once that was met.
    key: Option<(Key, usize)>,
    /// End of a bracketed value, once that was met.
    closed: Option<usize>,
}

struct Walk<'a> {
    payload: &'a [u8],
    blocks: Blocks,
    depth: u32,
    /// Where the last backslash so far stands; 0 before the first.
    last_escape: usize,
    top: Member,
    /// Whether the bracket open at depth two is `d`, and `d` an object.
    in_data: bool,
    /// Just after the bracket or comma before the member of `d` that is being read.
    inner_from: usize,
    /// That member's key if it is wanted, and the place just after its colon.
    wanted: Option<(Key, usize)>,
    fields: Fields,
}

impl<'a> Walk<'a> {
    fn new(payload: &'a [u8]) -> Self {
        Walk {
            payload,
            blocks: Blocks::default(),
            depth: 0,
            last_escape: 0,
            top: Member::at(0),
            in_data: false,
            inner_from: 0,
            wanted: None,
            fields: Fields::default(),
        }
    }

    /// Takes the block that starts at `start`; true once the object is closed.
    fn block(&mut self, block: &[u8; BLOCK], start: usize) -> Result<bool, ScanError> {
        let found = self.blocks.next(block);
        if found.escape != 0 {
            self.last_escape = start + (BLOCK - 1) - found.escape.leading_zeros() as usize;
        }
        if self.is_far_below(found.bracket, block) {
            return Ok(false);
        }
        let all = found.bracket | found.separator;
        let mut ahead = u64::MAX;
        loop {
            // Deeper than two levels only brackets matter.
            let pending = ahead & if self.depth <= 2 { all } else { found.bracket };
            if pending == 0 {
                return Ok(false);
            }
            ahead = !(pending ^ (pending - 1));
            let bit = pending.trailing_zeros() as usize;
            let at = start + bit;
            match block[bit % BLOCK] {
                b':' => self.colon(at)?,
                b',' => self.comma(at)?,
                b'{' | b'[' => self.open(at)?,
                _ => {
                    if self.close(at)? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Whether nothing in a block can come up to the levels where keys matter; if so, its brackets are counted.
    fn is_far_below(&mut self, bracket: u64, block: &[u8; BLOCK]) -> bool {
        let below = self.depth.saturating_sub(if self.in_data { 2 } else { 1 });
        if below == 0 || (bracket != 0 && below <= bracket.count_ones()) {
            return false;
        }
        if bracket != 0 {
            let opened = (bracket & opening(block)).count_ones();
            self.depth = self.depth + 2 * opened - bracket.count_ones();
        }
        true
    }

    fn open(&mut self, at: usize) -> Result<(), ScanError> {
        self.depth += 1;
        match self.depth {
            1 => self.top = Member::at(at + 1),
            2 => {
                let Some((key, from)) = self.top.key else { return Err(ScanError::Malformed(at)) };
                if self.top.closed.is_some() || !self.payload[from..at].iter().all(|byte| is_space(*byte)) {
                    return Err(ScanError::Malformed(at));
                }
                self.in_data = key == Key::Data && self.payload[at] == b'{';
                self.inner_from = at + 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes a closing bracket; true if it is the object's own.
    fn close(&mut self, at: usize) -> Result<bool, ScanError> {
        match self.depth {
            0 => return Err(ScanError::Malformed(at)),
            1 => {
                if self.payload[at] != b'}' {
                    return Err(ScanError::Malformed(at));
                }
                self.end_top(at, true)?;
                let after = &self.payload[at + 1..];
                return match after.iter().position(|byte| !is_space(*byte)) {
                    Some(more) => Err(ScanError::Malformed(at + 1 + more)),
                    None => Ok(true),
                };
            }
            2 => {
                if self.in_data {
                    self.end_inner(at);
                    self.in_data = false;
                }
                self.top.closed = Some(at + 1);
            }
            _ => {}
        }
        self.depth -= 1;
        Ok(false)
    }

    /// Takes a colon at depth two or less.
    fn colon(&mut self, at: usize) -> Result<(), ScanError> {
        match self.depth {
            2 => {
                if self.in_data {
                    self.inner_colon(at);
                }
                Ok(())
            }
            1 => self.top_colon(at),
            _ => Err(ScanError::Malformed(at)),
        }
    }

    /// Takes a comma at depth two or less.
    fn comma(&mut self, at: usize) -> Result<(), ScanError> {
        match self.depth {
            2 => {
                self.end_inner(at);
                self.inner_from = at + 1;
            }
            1 => {
                self.end_top(at, false)?;
                self.top = Member::at(at + 1);
            }
            _ => return Err(ScanError::Malformed(at)),
        }
        Ok(())
    }

    fn top_colon(&mut self, at: usize) -> Result<(), ScanError> {
        if self.top.key.is_some() {
            return Err(ScanError::Malformed(at));
        }
        let key = self.key(self.top.from, at, top_key).ok_or(ScanError::Malformed(at))?;
        if key == Key::Data {
            (self.fields.guild, self.fields.id, self.fields.channel) = (None, None, None);
        }
        self.top.key = Some((key, at + 1));
        Ok(())
    }

    fn inner_colon(&mut self, at: usize) {
        // Most members end here: every wanted key ends in `d"`, unless it is spelt with escapes or spaces.
        let plain = self.last_escape < self.inner_from;
        if plain && matches!(self.payload[..at], [.., last, b'"'] if last != b'd') {
            return;
        }
        match self.key(self.inner_from, at, data_key) {
            None | Some(Key::Other) => {}
            Some(key) => self.wanted = Some((key, at + 1)),
        }
    }

    /// The key between `from` and `to`, spelt with escapes or without; `None` if it isn't a string.
    fn key(&self, from: usize, to: usize, known: fn(&[u8]) -> Key) -> Option<Key> {
        let text = string(trim(&self.payload[from..to]))?;
        if self.last_escape > from && text.contains(&b'\\') {
            return Some(unescape(text).map_or(Key::Other, |text| known(text.as_bytes())));
        }
        Some(known(text))
    }

    /// Ends a member of the top-level object; only an empty object (`last`) may have none.
    fn end_top(&mut self, at: usize, last: bool) -> Result<(), ScanError> {
        let Some((key, from)) = self.top.key else {
            let empty = last && self.payload[self.top.from..at].iter().all(|byte| is_space(*byte));
            return if empty && self.fields.op.is_none() { Ok(()) } else { Err(ScanError::Malformed(at)) };
        };
        let value = trim_range(self.payload, from..at);
        if value.is_empty() || self.top.closed.is_some_and(|end| end != value.end) {
            return Err(ScanError::Malformed(at));
        }
        match key {
            Key::Op => self.fields.op = Some(value),
            Key::Sequence => self.fields.sequence = Some(value),
            Key::Name => self.fields.name = Some(value),
            Key::Data => self.fields.data = Some(value),
            _ => {}
        }
        Ok(())
    }

    fn end_inner(&mut self, at: usize) {
        match self.wanted.take() {
            Some((Key::Guild, from)) => self.fields.guild = Some(from..at),
            Some((Key::Id, from)) => self.fields.id = Some(from..at),
            Some((Key::Channel, from)) => self.fields.channel = Some(from..at),
            _ => {}
        }
    }
}

impl Member {
    fn at(from: usize) -> Self {
        Member { from, key: None, closed: None }
    }
}

impl Fields {
    fn header<'a>(&self, payload: &'a [u8]) -> Result<Header<'a>, ScanError> {
        let value = |range: &Option<Range<usize>>| range.clone().map(|range| &payload[range]);
        let op =
            value(&self.op).and_then(digits).and_then(|op| u8::try_from(op).ok()).ok_or(ScanError::Opcode)?;
        let (sequence, sequence_range) = match value(&self.sequence) {
            None | Some(b"null") => (None, None),
            Some(text) => (Some(digits(text).ok_or(ScanError::Sequence)?), self.sequence.clone()),
        };
        let (name, kind) = match value(&self.name) {
            None | Some(b"null") => (None, EventKind::Unknown),
            Some(text) => event(text).ok_or(ScanError::Name).map(|(name, kind)| (Some(name), kind))?,
        };
        let id = value(&self.id).and_then(snowflake);
        let guild = match kind {
            EventKind::GuildCreate | EventKind::GuildUpdate | EventKind::GuildDelete => id,
            _ => value(&self.guild).and_then(snowflake),
        };
        let channel = value(&self.channel).and_then(snowflake);
        Ok(Header { op, name, kind, sequence, sequence_range, data: self.data.clone(), guild, id, channel })
    }
}

fn top_key(text: &[u8]) -> Key {
    match text {
        b"t" => Key::Name,
        b"s" => Key::Sequence,
        b"op" => Key::Op,
        b"d" => Key::Data,
        _ => Key::Other,
    }
}

fn data_key(text: &[u8]) -> Key {
    match text {
        b"guild_id" => Key::Guild,
        b"id" => Key::Id,
        b"channel_id" => Key::Channel,
        _ => Key::Other,
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

fn trim_range(payload: &[u8], range: Range<usize>) -> Range<usize> {
    let (mut start, mut end) = (range.start, range.end);
    while start < end && is_space(payload[start]) {
        start += 1;
    }
    while start < end && is_space(payload[end - 1]) {
        end -= 1;
    }
    start..end
}

fn trim(text: &[u8]) -> &[u8] {
    &text[trim_range(text, 0..text.len())]
}

/// The inside of a string, if `text` begins and ends with a quote.
fn string(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'"', inside @ .., b'"'] => Some(inside),
        _ => None,
    }
}

/// The slow path for a string with escapes; `None` if it isn't valid.
fn unescape(inside: &[u8]) -> Option<String> {
    let quoted = [b"\"", inside, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

/// The number that plain digits make; JSON has no leading zeros, signs don't occur in what is read here.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || (text.len() > 1 && text[0] == b'0') {
        return None;
    }
    decimal(text)
}

/// The number that digits make, leading zeros or not.
fn decimal(text: &[u8]) -> Option<u64> {
    let (first, eights) = text.as_rchunks::<8>();
    if text.is_empty() || text.len() > 20 {
        // More digits can only be zeros in front: not worth a path of their own, and no id has them.
        return if text.is_empty() { None } else { long_decimal(text) };
    }
    let mut number = 0_u64;
    for byte in first {
        number = number * 10 + u64::from(digit(*byte)?);
    }
    for eight in eights {
        number = number.checked_mul(100_000_000)?.checked_add(eight_digits(*eight)?)?;
    }
    Some(number)
}

fn long_decimal(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |number, byte| number.checked_mul(10)?.checked_add(u64::from(digit(*byte)?)))
}

fn digit(byte: u8) -> Option<u8> {
    byte.is_ascii_digit().then(|| byte - b'0')
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

fn snowflake(value: &[u8]) -> Option<u64> {
    let value = trim(value);
    let Some(inside) = string(value) else { return digits(value) };
    match decimal(inside) {
        None if inside.contains(&b'\\') => decimal(unescape(inside)?.as_bytes()),
        number => number,
    }
}

fn event(value: &[u8]) -> Option<(&str, EventKind)> {
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
