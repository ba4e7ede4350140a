// SPDX-License-Identifier: AGPL-3.0-only
//! The guilds that the simulated bot is in.
//!
//! In: a specification, later changes. Out: guilds as GUILD_CREATE shows them at this moment. A guild costs memory
//! only once it has changed; until then it is rendered from a template.
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::template::Template;
use crate::view::View;

/// User and application id of the simulated bot.
pub const BOT_USER: u64 = 1_000_000_000_000_000_001;

/// Divisible by all counts up to 16, so that guild `k` is on shard `k % count` for those.
const FIRST_GUILD: u64 = 720_720 * 331_000;

/// The id of the world's guild number `index`: shard `index % count` for every count up to 16.
#[must_use]
pub fn guild_id(index: u32) -> u64 {
    (FIRST_GUILD + u64::from(index)) << 22
}

/// What an entity's id says it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Channel = 1,
    Role = 2,
    User = 3,
    Emoji = 4,
    Sticker = 5,
    Thread = 6,
    Stage = 7,
    Event = 8,
    Sound = 9,
    Message = 10,
}

/// The id of guild `index`'s `n`th entity of a kind; 19 digits, as `template::id` writes them.
pub(crate) fn entity(kind: Kind, index: u32, n: u32) -> u64 {
    1_000_000_000_000_000_000
        + u64::from(kind as u8) * 10_000_000_000_000_000
        + u64::from(index) * 100_000_000
        + u64::from(n)
}

/// How many guilds, and how many of each entity a guild has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorldSpec {
    /// Guilds, at most 99,999,999.
    pub guilds: u32,
    /// Channels: text, voice, category, stage, forum, announcement, then text.
    pub channels: u32,
    /// Roles, `@everyone` included.
    pub roles: u32,
    /// Members, the bot included.
    pub members: u32,
    /// Custom emojis.
    pub emojis: u32,
    /// Stickers.
    pub stickers: u32,
    /// Members that aren't offline.
    pub presences: u32,
    /// Members in the voice channel.
    pub voice_states: u32,
    /// Active threads.
    pub threads: u32,
    /// Open stages.
    pub stage_instances: u32,
    /// Scheduled events.
    pub scheduled_events: u32,
    /// Soundboard sounds.
    pub soundboard_sounds: u32,
    /// Size of the guild's description, to make guilds as large as one likes.
    pub description_bytes: usize,
}

impl Default for WorldSpec {
    fn default() -> Self {
        Self {
            guilds: 16,
            channels: 12,
            roles: 8,
            members: 40,
            emojis: 6,
            stickers: 2,
            presences: 15,
            voice_states: 3,
            threads: 3,
            stage_instances: 1,
            scheduled_events: 2,
            soundboard_sounds: 2,
            description_bytes: 0,
        }
    }
}

/// All guilds and what traffic has done to them.
pub(crate) struct World {
    tree: Value,
    /// Members of each guild at the beginning.
    pub(crate) members: u32,
    /// Status and start time of voice channels, which GUILD_CREATE doesn't show.
    pub(crate) voice_info: HashMap<String, Value>,
    templates: HashMap<View, Arc<Template>>,
    /// Guilds that differ from the template, by id.
    changed: BTreeMap<u64, Value>,
    listed: BTreeSet<u64>,
    unavailable: BTreeSet<u64>,
    /// The latest message in the first text channel of guilds that otherwise didn't change.
    last_messages: HashMap<u64, u64>,
    /// The last number given to a message of traffic, per guild.
    pub(crate) sent: BTreeMap<u64, u64>,
}

impl World {
    pub(crate) fn new(spec: WorldSpec) -> Self {
        Self {
            tree: crate::guild::template(&spec),
            members: spec.members,
            templates: HashMap::new(),
            changed: BTreeMap::new(),
            listed: (0..spec.guilds).map(guild_id).collect(),
            unavailable: BTreeSet::new(),
            last_messages: HashMap::new(),
            sent: BTreeMap::new(),
            voice_info: HashMap::new(),
        }
    }

    /// How many guilds the bot is in.
    pub(crate) fn len(&self) -> usize {
        self.listed.len()
    }

    /// The guilds of a shard, in rising order.
    pub(crate) fn guilds(&self, [id, count]: [u32; 2]) -> VecDeque<u64> {
        let count = u64::from(count.max(1));
        self.listed.iter().copied().filter(|guild| (guild >> 22) % count == u64::from(id)).collect()
    }

    /// Whether the bot is in the guild and there is no outage.
    pub(crate) fn available(&self, guild: u64) -> bool {
        self.listed.contains(&guild) && !self.unavailable.contains(&guild)
    }

    /// The `d` of GUILD_CREATE for a session with this view; `None` if there is none to send.
    pub(crate) fn guild_create(&mut self, guild: u64, view: View) -> Option<Bytes> {
        if !self.available(guild) {
            return None;
        }
        let own_user = BOT_USER.to_string();
        if let Some(changed) = self.changed.get(&guild) {
            let mut shown = changed.clone();
            view.apply(&mut shown, &own_user);
            return serde_json::to_vec(&shown).ok().map(Bytes::from);
        }
        let tree = &self.tree;
        let template = self.templates.entry(view).or_insert_with(|| {
            let mut shown = tree.clone();
            view.apply(&mut shown, &own_user);
            Arc::new(Template::parse(shown.to_string()))
        });
        let index = index_of(guild);
        Some(Bytes::from(template.render(index, guild, last_message(&self.last_messages, guild))))
    }

    /// The guild in full, to be read or changed; from now on it is kept as a tree.
    pub(crate) fn tree(&mut self, guild: u64) -> Option<&mut Value> {
        if self.listed.contains(&guild) && !self.changed.contains_key(&guild) {
            let whole = Arc::new(Template::parse(self.tree.to_string()));
            let template = self.templates.entry(View::default()).or_insert(whole);
            let text = template.render(index_of(guild), guild, last_message(&self.last_messages, guild));
            self.changed.insert(guild, serde_json::from_slice(&text).ok()?);
        }
        self.changed.get_mut(&guild)
    }

    /// The guild that a channel or thread is in.
    pub(crate) fn guild_of_channel(&self, channel: u64) -> Option<u64> {
        let id = channel.to_string();
        let has = |tree: &Value| {
            let lists = [&tree["channels"], &tree["threads"]];
            lists.into_iter().filter_map(Value::as_array).flatten().any(|item| item["id"] == id.as_str())
        };
        let template = guild_id(u32::try_from(channel / 100_000_000 % 100_000_000).unwrap_or(u32::MAX));
        let changed = self.changed.iter().find(|(_, tree)| has(tree)).map(|(guild, _)| *guild);
        changed.or_else(|| self.listed.contains(&template).then_some(template))
    }

    /// The bot joined the guild, or it is available again, or it is replaced as a whole.
    pub(crate) fn put(&mut self, guild: u64, tree: Value) {
        self.unavailable.remove(&guild);
        self.listed.insert(guild);
        self.changed.insert(guild, tree);
    }

    /// An outage, or the bot left.
    pub(crate) fn take_away(&mut self, guild: u64, outage: bool) {
        if outage {
            self.unavailable.insert(guild);
        } else {
            self.listed.remove(&guild);
            self.changed.remove(&guild);
        }
    }

    /// A message arrived in the guild's first text channel.
    pub(crate) fn message(&mut self, guild: u64, channel: u64, message: u64) {
        let Some(tree) = self.changed.get_mut(&guild) else {
            self.last_messages.insert(guild, message);
            return;
        };
        crate::model::last_message(tree, &channel.to_string(), message);
    }

    /// The next number of a message of traffic in `guild`, from 1.
    pub(crate) fn number(&mut self, guild: u64) -> u64 {
        let number = self.sent.entry(guild).or_default();
        *number += 1;
        *number
    }
}

/// The number of a guild of the world; see [`guild_id`].
pub(crate) fn index_of(guild: u64) -> u32 {
    u32::try_from((guild >> 22).saturating_sub(FIRST_GUILD)).unwrap_or_default()
}

fn last_message(known: &HashMap<u64, u64>, guild: u64) -> u64 {
    known.get(&guild).copied().unwrap_or_else(|| entity(Kind::Message, index_of(guild), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guilds_spread_evenly_over_shards() {
        let world = World::new(WorldSpec { guilds: 64, ..WorldSpec::default() });
        for count in [1, 2, 4, 16] {
            for id in 0..count {
                assert_eq!(world.guilds([id, count]).len(), 64 / count as usize);
            }
        }
        assert_eq!(index_of(guild_id(17)), 17);
    }

    #[test]
    fn a_rendered_guild_is_valid_and_equal_to_its_tree() {
        let mut world = World::new(WorldSpec::default());
        let (guild, view) = (guild_id(3), View::default());
        let rendered = world.guild_create(guild, view).unwrap();
        let parsed: Value = serde_json::from_slice(&rendered).unwrap();
        assert_eq!(parsed["id"], guild.to_string());
        assert_eq!(parsed["members"].as_array().unwrap().len(), 40);
        assert_eq!(parsed["channels"][0]["id"], entity(Kind::Channel, 3, 0).to_string());
        assert_eq!(&parsed, world.tree(guild).unwrap());
        assert_eq!(world.guild_create(guild, view).unwrap(), rendered, "kept as a tree it reads the same");
    }

    #[test]
    fn the_latest_message_is_shown_with_and_without_a_tree() {
        let mut world = World::new(WorldSpec::default());
        let (guild, channel) = (guild_id(0), entity(Kind::Channel, 0, 0));
        for message in [1_500_000_000_000_000_001, 1_500_000_000_000_000_002] {
            world.message(guild, channel, message);
            let text = world.guild_create(guild, View::default()).unwrap();
            let parsed: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(parsed["channels"][0]["last_message_id"], message.to_string());
            world.tree(guild).unwrap();
        }
    }
}
