// SPDX-License-Identifier: AGPL-3.0-only
//! GUILD_MEMBERS_CHUNKs from the guild state, as Discord would send them.
//!
//! In: a guild, what is asked for, by whose intents. Out: the `d` of each chunk; none where the state isn't complete
//! or Discord has to judge. Pure; costs up to some milliseconds.

use holdfast_state::{GuildSnapshot, Members};
use serde_json::Value;

/// "Guild Members Chunk": at most so many members each.
const CHUNK: usize = 1000;
/// A query returns at most so many, and so many ids may be asked for ("Request Guild Members").
pub(crate) const MAX_QUERY: usize = 100;
/// Larger guilds are asked for upstream: their members are built in one go, 5,000 × 400 bytes take milliseconds.
const MAX_MEMBERS: u64 = 5_000;

const GUILD_PRESENCES: u64 = 1 << 8;
const GUILD_MEMBERS: u64 = 1 << 1;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) ids: Option<&'a [u64]>,
    pub(crate) query: Option<&'a str>,
    pub(crate) limit: usize,
    pub(crate) presences: bool,
    /// Intents of who asks.
    pub(crate) intents: u64,
    pub(crate) nonce: Option<&'a str>,
}

impl<'a> Ask<'a> {
    /// Which members, if the state may answer for them.
    fn which(&self) -> Option<Members<'a>> {
        Some(match (self.ids, self.query) {
            (Some(ids), _) if ids.len() <= MAX_QUERY => Members::Ids(ids),
            (None, Some("")) if self.limit == 0 && self.intents & GUILD_MEMBERS != 0 => Members::All,
            (None, Some(prefix)) if (1..=MAX_QUERY).contains(&self.limit) => {
                Members::Prefix(prefix, self.limit)
            }
            _ => return None,
        })
    }
}

/// The chunks, at least one. None: Discord has to be asked.
pub(crate) fn from_state(guild: &GuildSnapshot, ask: &Ask<'_>) -> Option<Vec<Vec<u8>>> {
    let which = ask.which()?;
    let count = guild.member_count().ok().flatten().unwrap_or(u64::MAX);
    if count > MAX_MEMBERS || !guild.members_complete() {
        return None;
    }
    let found = guild.members(&which).ok()?;
    let members: Vec<(u64, &[u8])> = found.iter().collect();
    let count = members.len().div_ceil(CHUNK).max(1);
    (0..count)
        .map(|index| {
            let part = &members[index * CHUNK..members.len().min((index + 1) * CHUNK)];
            let missing = if index == 0 { not_found(ask, &members) } else { Vec::new() };
            chunk(guild, ask, (index, count), part, &missing)
        })
        .collect()
}

fn chunk(
    guild: &GuildSnapshot,
    ask: &Ask<'_>,
    (index, count): (usize, usize),
    part: &[(u64, &[u8])],
    not_found: &[u64],
) -> Option<Vec<u8>> {
    let mut data = Vec::with_capacity(part.iter().map(|(_, member)| member.len() + 1).sum::<usize>() + 256);
    let begin =
        format!(r#"{{"guild_id":"{}","chunk_index":{index},"chunk_count":{count},"members":"#, guild.id());
    data.extend_from_slice(begin.as_bytes());
    list(&mut data, part.iter().map(|(_, member)| *member));
    if !not_found.is_empty() {
        let not_found: Vec<String> = not_found.iter().map(|id| format!("\"{id}\"")).collect();
        data.extend_from_slice(format!(r#","not_found":[{}]"#, not_found.join(",")).as_bytes());
    }
    if ask.presences && ask.intents & GUILD_PRESENCES != 0 {
        let users: Vec<u64> = part.iter().map(|(id, _)| *id).collect();
        let presences = guild.presences(&users).ok()?;
        data.extend_from_slice(b",\"presences\":");
        list(&mut data, presences.iter().map(|(_, presence)| presence));
    }
    if let Some(nonce) = ask.nonce {
        data.extend_from_slice(format!(",\"nonce\":{}", Value::from(nonce)).as_bytes());
    }
    data.push(b'}');
    Some(data)
}

fn not_found(ask: &Ask<'_>, members: &[(u64, &[u8])]) -> Vec<u64> {
    let has = |id: &u64| members.iter().any(|(member, _)| member == id);
    ask.ids.into_iter().flatten().copied().filter(|id| !has(id)).collect()
}

fn list<'a>(out: &mut Vec<u8>, items: impl Iterator<Item = &'a [u8]>) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.push(b']');
}
