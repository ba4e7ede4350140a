// SPDX-License-Identifier: AGPL-3.0-only
//! The base of a guild. In: the payload of GUILD_CREATE, or an older base with changes. Out: its blocks, ready to be
//! compressed: the guild's own fields, then its lists. Runs at GUILD_CREATE and in compactions only.

use crate::ReadError;
use crate::block::{self, ListWriter, Packed, Stored};
use crate::changes::{Changes, Slot};
use crate::json::{self, Error, Fields};
use crate::merge;
use crate::section::{BLOCKS, Block, Kept, Section};

/// The compressed blocks, by `Block`.
pub(crate) type Base = [Packed; BLOCKS];

/// What is taken out of GUILD_CREATE.
pub(crate) struct Split {
    pub(crate) base: Base,
    /// `member_count` and `large`, which are derived from now on; `None`: the payload didn't have them.
    pub(crate) member_count: Option<u64>,
    pub(crate) large: Option<bool>,
}

/// Takes a GUILD_CREATE apart. Lists that aren't kept become empty; the own member is always kept.
pub(crate) fn split(mut fields: Fields<'_>, kept: Kept, own_user: u64, level: i32) -> Result<Split, Error> {
    let mut lists = Vec::with_capacity(Section::ALL.len());
    for section in Section::ALL {
        lists.push((section, fields.remove(section.name())));
    }
    let member_count = fields.get("member_count").and_then(|count| count.parse().ok());
    if member_count.is_some() {
        fields.remove("member_count");
    }
    let large = fields.get("large").and_then(|large| large.parse().ok());
    if large.is_some() {
        fields.remove("large");
    }
    let mut bare = Vec::new();
    fields.write_bare(&mut bare);
    let mut blocks = [const { Vec::new() }; BLOCKS];
    block::write_bytes(&bare, &mut blocks[Block::Guild as usize]);
    for block in Block::ALL {
        let out = &mut blocks[block as usize];
        for &section in block.sections() {
            let raw = lists.iter().find(|(its, _)| *its == section).and_then(|(_, raw)| *raw);
            write_list(section, raw, kept, own_user, out)?;
        }
    }
    let base = blocks.map(|raw| Packed::new(&raw, level));
    Ok(Split { base, member_count, large })
}

fn write_list(
    section: Section,
    raw: Option<&str>,
    kept: Kept,
    own_user: u64,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut list = ListWriter::default();
    let is_kept = kept.has(section);
    match raw {
        None if is_kept => {
            block::write_absent(out);
            return Ok(());
        }
        Some("null") if is_kept => {
            block::write_null(out);
            return Ok(());
        }
        Some(array) if is_kept || section == Section::Members => {
            for entity in json::elements(array.as_bytes())? {
                let traits = json::traits(section, entity);
                if is_kept || traits.id == Some(own_user) {
                    list.push(entity.as_bytes(), traits);
                }
            }
        }
        _ => {}
    }
    list.write(out);
    Ok(())
}

/// A block's parts.
pub(crate) struct Parts<'a> {
    /// The guild's own fields, `"a":1,"b":2`; empty but in `Block::Guild`.
    pub(crate) fields: &'a [u8],
    pub(crate) lists: Vec<(Section, Stored<'a>)>,
}

/// Reads an unpacked block.
pub(crate) fn read(block: Block, mut raw: &[u8]) -> Result<Parts<'_>, ReadError> {
    let fields = if block == Block::Guild { block::read_bytes(&mut raw)? } else { &[] };
    let mut lists = Vec::with_capacity(block.sections().len());
    for &section in block.sections() {
        lists.push((section, block::read_stored(&mut raw)?));
    }
    Ok(Parts { fields, lists })
}

/// A block without entities: what a guild has of presences after a restart.
pub(crate) fn empty(block: Block) -> Packed {
    let mut raw = Vec::new();
    if block == Block::Guild {
        block::write_bytes(&[], &mut raw);
    }
    for _ in block.sections() {
        ListWriter::default().write(&mut raw);
    }
    Packed::new(&raw, 1)
}

/// The guild's own fields after GUILD_UPDATE.
pub(crate) fn guild_fields(bare: &[u8], changes: &Changes) -> Result<Vec<u8>, ReadError> {
    let Some(update) = changes.get(Slot::Guild, 0) else { return Ok(bare.to_vec()) };
    let object = [b"{", bare, b"}"].concat();
    let mut fields = Fields::parse(&object).map_err(|_| ReadError::Damaged)?;
    let update = Fields::parse(&update.data).map_err(|_| ReadError::Damaged)?;
    for (key, value) in update.iter() {
        fields.set(key.to_owned(), value);
    }
    let mut out = Vec::with_capacity(object.len());
    fields.write_bare(&mut out);
    Ok(out)
}

/// A block with its changes worked in, and the members among them that were counted though the base had them.
pub(crate) fn rebuild(
    block: Block,
    packed: &Packed,
    changes: &Changes,
    level: i32,
) -> Result<(Packed, Vec<u64>), ReadError> {
    let mut old = Vec::new();
    packed.unpack(&mut old)?;
    let parts = read(block, &old)?;
    let mut raw = Vec::with_capacity(old.len());
    if block == Block::Guild {
        block::write_bytes(&guild_fields(parts.fields, changes)?, &mut raw);
    }
    let mut counted_twice = Vec::new();
    for (section, stored) in &parts.lists {
        if merge::untouched(*section, changes) {
            block::write_stored(stored, &mut raw);
            continue;
        }
        let mut list = ListWriter::default();
        merge::resolve(*section, stored, changes, &mut |entity| {
            list.push(&entity.bytes, entity.traits(*section));
        })?;
        list.write(&mut raw);
        if *section == Section::Members {
            counted_twice = merge::counted_twice(stored, changes);
        }
    }
    Ok((Packed::new(&raw, level), counted_twice))
}
