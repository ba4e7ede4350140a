// SPDX-License-Identifier: AGPL-3.0-only
//! Reads what routing needs from a raw payload without parsing it: one pass over its structure.
//! In: one payload as Discord or a client sent it. Out: its header, as numbers and byte ranges.
//! Keys may come in any order and spelling; only the top level and what is read of it are checked.

use std::ops::Range;

use crate::EventKind;
use crate::structure::{BLOCK, Blocks, Structure, opening, positions};
use crate::text::{digits, event, is_space, snowflake, string, trim, trim_end, trim_range, unescape};

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
    /// Of the members of `d`, the place just after the colon.
    guild: Option<usize>,
    id: Option<usize>,
    channel: Option<usize>,
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
    /// Where the last string of the blocks before opens.
    last_opening: usize,
    top: Member,
    /// Whether the bracket open at depth two is `d`, and `d` an object.
    in_data: bool,
    fields: Fields,
}

impl<'a> Walk<'a> {
    fn new(payload: &'a [u8]) -> Self {
        Walk {
            payload,
            blocks: Blocks::default(),
            depth: 0,
            last_escape: 0,
            last_opening: 0,
            top: Member::at(0),
            in_data: false,
            fields: Fields::default(),
        }
    }

    /// Takes the block that starts at `start`; true once the object is closed.
    fn block(&mut self, block: &[u8; BLOCK], start: usize) -> Result<bool, ScanError> {
        let found = self.blocks.next(block);
        self.last_escape = highest(found.escape, start).unwrap_or(self.last_escape);
        if self.is_far_below(found.bracket, block) {
            self.last_opening = highest(found.opening, start).unwrap_or(self.last_opening);
            return Ok(false);
        }
        let colon = positions(block, b':') & found.outside;
        let keys = self.keys(colon, &found, block, start);
        let mut comma = None;
        let mut ahead = u64::MAX;
        loop {
            // Of the members of `d` only keys matter, and deeper down only brackets.
            let wanted = match self.depth {
                0 | 1 => colon | *comma.get_or_insert_with(|| positions(block, b',') & found.outside),
                2 if self.in_data => keys,
                _ => 0,
            };
            let pending = ahead & (found.bracket | wanted);
            if pending == 0 {
                self.last_opening = highest(found.opening, start).unwrap_or(self.last_opening);
                return Ok(false);
            }
            ahead = !(pending ^ (pending - 1));
            let bit = pending.trailing_zeros() as usize;
            let at = start + bit;
            match block[bit % BLOCK] {
                b':' if self.depth == 2 => {
                    let opened = found.opening & ((1 << bit) - 1);
                    self.inner_colon(at, highest(opened, start).unwrap_or(self.last_opening));
                }
                b':' => self.top_colon(at)?,
                b'{' | b'[' => self.open(at)?,
                b',' => self.comma(at)?,
                _ => {
                    if self.close(at)? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Of the colons, those that may follow a wanted key: each of these ends in `d"`, unless an escape or a space
    /// is near. Branches are what a block costs most, and most keys are not wanted.
    fn keys(&self, colon: u64, found: &Structure, block: &[u8; BLOCK], start: usize) -> u64 {
        if self.last_escape + BLOCK >= start {
            return colon;
        }
        let d = positions(block, b'd');
        // What stands before the first two bytes isn't seen from here.
        colon & !(found.closing << 1 & !(d << 2) & !0b11)
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
                self.in_data = false;
                self.top.closed = Some(at + 1);
            }
            _ => {}
        }
        self.depth -= 1;
        Ok(false)
    }

    /// Takes a comma at depth one or less.
    fn comma(&mut self, at: usize) -> Result<(), ScanError> {
        if self.depth == 0 {
            return Err(ScanError::Malformed(at));
        }
        self.end_top(at, false)?;
        self.top = Member::at(at + 1);
        Ok(())
    }

    fn top_colon(&mut self, at: usize) -> Result<(), ScanError> {
        if self.depth == 0 || self.top.key.is_some() {
            return Err(ScanError::Malformed(at));
        }
        let text = string(trim(&self.payload[self.top.from..at])).ok_or(ScanError::Malformed(at))?;
        let key = spelt(text, top_key);
        if key == Key::Data {
            (self.fields.guild, self.fields.id, self.fields.channel) = (None, None, None);
        }
        self.top.key = Some((key, at + 1));
        Ok(())
    }

    /// Takes the colon after a key of `d`, whose string opened at `opened`.
    fn inner_colon(&mut self, at: usize, opened: usize) {
        let Some(text) = self.payload.get(opened..at).and_then(|key| string(trim_end(key))) else { return };
        let key = if self.last_escape > opened { spelt(text, data_key) } else { data_key(text) };
        match key {
            Key::Guild => self.fields.guild = Some(at + 1),
            Key::Id => self.fields.id = Some(at + 1),
            Key::Channel => self.fields.channel = Some(at + 1),
            _ => {}
        }
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
        let snowflake = |from: Option<usize>| from.and_then(|from| snowflake(&payload[from..]));
        let id = snowflake(self.id);
        let guild = match kind {
            EventKind::GuildCreate | EventKind::GuildUpdate | EventKind::GuildDelete => id,
            _ => snowflake(self.guild),
        };
        let channel = snowflake(self.channel);
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

/// The key that a string spells, with escapes or without.
fn spelt(text: &[u8], known: fn(&[u8]) -> Key) -> Key {
    if text.contains(&b'\\') {
        return unescape(text).map_or(Key::Other, |text| known(text.as_bytes()));
    }
    known(text)
}

/// The place of the highest bit, in the block that starts at `start`.
fn highest(mask: u64, start: usize) -> Option<usize> {
    mask.checked_ilog2().map(|bit| start + bit as usize)
}
