// SPDX-License-Identifier: AGPL-3.0-only
//! Random events against the naive model, with compactions, checkpoints, crashes and snapshots in between.
//! In: seeds. Out: nothing, or the first event after which the two differ.

#![cfg(test)]

mod naive;
mod world;

use std::collections::BTreeMap;

use holdfast_discord::EventKind as E;
use holdfast_state::{Applied, Compacted, GuildSnapshot, Guilds, Options, View};
use naive::{LISTS, Model, id_of, number};
use proptest::prelude::*;
use serde_json::{Value, json};
use world::{ID, World};

const OWN: u64 = ID + 3;
const GUILDS: [u64; 3] = [ID + 10, ID + 11, ID + 12];

const KINDS: [E; 46] = [
    E::GuildCreate,
    E::GuildDelete,
    E::GuildUpdate,
    E::GuildUpdate,
    E::GuildEmojisUpdate,
    E::GuildStickersUpdate,
    E::GuildRoleCreate,
    E::GuildRoleUpdate,
    E::GuildRoleDelete,
    E::GuildSoundboardSoundCreate,
    E::GuildSoundboardSoundUpdate,
    E::GuildSoundboardSoundDelete,
    E::GuildSoundboardSoundsUpdate,
    E::SoundboardSounds,
    E::StageInstanceCreate,
    E::StageInstanceUpdate,
    E::StageInstanceDelete,
    E::GuildScheduledEventCreate,
    E::GuildScheduledEventUpdate,
    E::GuildScheduledEventDelete,
    E::GuildScheduledEventUserAdd,
    E::GuildScheduledEventUserRemove,
    E::ChannelCreate,
    E::ChannelUpdate,
    E::ChannelDelete,
    E::ChannelPinsUpdate,
    E::VoiceChannelStatusUpdate,
    E::VoiceChannelStartTimeUpdate,
    E::ThreadCreate,
    E::ThreadUpdate,
    E::ThreadDelete,
    E::ThreadListSync,
    E::ThreadMemberUpdate,
    E::ThreadMembersUpdate,
    E::MessageCreate,
    E::MessageCreate,
    E::MessageDelete,
    E::MessageDeleteBulk,
    E::GuildMemberAdd,
    E::GuildMemberUpdate,
    E::GuildMemberRemove,
    E::GuildMembersChunk,
    E::PresenceUpdate,
    E::VoiceStateUpdate,
    E::VoiceStateUpdate,
    E::UserUpdate,
];

proptest! {
    // proptest's 256 by default: about 17,000 events, each followed by a comparison. PROPTEST_CASES sets another number.
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_events_gives_what_the_model_gives(
        seed in any::<u64>(),
        kept in any::<u16>(),
        steps in prop::collection::vec(0u8..=255, 1..160),
    ) {
        let mut run = Run::new(seed, if seed % 3 == 0 { u16::MAX } else { kept | kept.rotate_left(5) });
        for step in steps {
            run.step(step)?;
        }
        run.compare("at the end")?;
        for (kept, expected) in std::mem::take(&mut run.snapshots) {
            prop_assert_eq!(seen(&kept), expected, "a snapshot changed after it was taken");
        }
    }
}

enum Logged {
    Ready(Vec<u64>),
    Event(E, Option<u64>, Vec<u8>),
}

struct Run {
    world: World,
    model: Model,
    guilds: Guilds,
    options: Options,
    position: u64,
    log: Vec<(u64, Logged)>,
    store: BTreeMap<u64, Vec<u8>>,
    compacted: Vec<Compacted>,
    snapshots: Vec<(GuildSnapshot, Value)>,
}

impl Run {
    fn new(seed: u64, kept: u16) -> Run {
        let mut world = World::new(seed);
        let on = |bit: usize| kept >> bit & 1 == 1;
        let options = Options {
            roles: on(0),
            emojis: on(1),
            stickers: on(2),
            channels: on(3),
            threads: on(4),
            stage_instances: on(5),
            scheduled_events: on(6),
            soundboard_sounds: on(7),
            voice_states: on(8),
            members: on(9),
            presences: on(10),
            compact_min_bytes: world.rng.u32(0..600),
            compact_percent: 0,
            level: 1,
        };
        let kept = LISTS.iter().enumerate().map(|(at, (name, _))| (*name, on(at))).collect();
        let model = Model { own_user: OWN, kept, guilds: BTreeMap::new() };
        let mut run = Run {
            world,
            model,
            guilds: Guilds::new(options.clone()),
            options,
            position: 0,
            log: Vec::new(),
            store: BTreeMap::new(),
            compacted: Vec::new(),
            snapshots: Vec::new(),
        };
        run.ready(&GUILDS);
        for guild in GUILDS {
            let d = run.world.guild(guild, OWN);
            run.apply(E::GuildCreate, Some(guild), &d);
        }
        run
    }

    fn step(&mut self, step: u8) -> Result<(), TestCaseError> {
        match step {
            0..=11 => self.begin_compaction(),
            12..=20 => {
                if let Some(compacted) = self.compacted.pop() {
                    self.guilds.finish(compacted);
                }
                self.compare("after a compaction")?;
            }
            21..=26 => self.save(),
            27..=29 => self.crash()?,
            30..=31 => {
                let listed: Vec<u64> = GUILDS.into_iter().filter(|_| self.world.rng.u8(0..4) > 0).collect();
                self.ready(&listed);
                self.compare("after READY")?;
            }
            32..=36 => {
                let guild = GUILDS[self.world.rng.usize(0..3)];
                if let Some(snapshot) = self.guilds.get(guild) {
                    let expected = seen(&snapshot);
                    self.snapshots.push((snapshot, expected));
                }
            }
            37..=39 => self.old_event()?,
            40..=43 => self.compare_views()?,
            _ => self.event()?,
        }
        Ok(())
    }

    fn event(&mut self) -> Result<(), TestCaseError> {
        let guild = GUILDS[self.world.rng.usize(0..3)];
        let missing = !matches!(self.model.guilds.get(&guild), Some(Some(_)));
        let mut kind = KINDS[self.world.rng.usize(0..KINDS.len())];
        if missing || matches!(kind, E::GuildDelete | E::GuildCreate) && self.world.rng.u8(0..4) > 0 {
            kind = if missing { E::GuildCreate } else { E::PresenceUpdate };
        }
        let Some(event) = self.world.event(&self.model, guild, kind) else { return Ok(()) };
        self.apply(event.kind, event.guild, &event.d);
        match self.guilds.get(guild) {
            Some(snapshot) if event.guild.is_some() && self.model.guilds.contains_key(&guild) => {
                self.compare_guild(&snapshot, event.kind.name())
            }
            _ => self.compare(event.kind.name()),
        }
    }

    fn apply(&mut self, kind: E, guild: Option<u64>, d: &Value) {
        self.position += 1 + self.world.rng.u64(0..3);
        let bytes = self.world.bytes(d);
        let applied = if kind == E::MessageCreate && self.world.rng.bool() {
            self.guilds.message(guild.unwrap(), number(&d["channel_id"]), number(&d["id"]), self.position)
        } else {
            self.guilds.apply(kind, guild, &bytes, self.position)
        };
        assert!(!matches!(applied, Applied::Malformed | Applied::Skipped), "{} was {applied:?}", kind.name());
        self.model.apply(kind, guild, d);
        self.log.push((self.position, Logged::Event(kind, guild, bytes)));
    }

    fn ready(&mut self, listed: &[u64]) {
        self.position += 1;
        self.guilds.ready_at(OWN, listed, self.position);
        self.model.ready(listed);
        self.log.push((self.position, Logged::Ready(listed.to_vec())));
    }

    /// Runs on what the guild is now; finished later, after other events.
    fn begin_compaction(&mut self) {
        if let Some(compaction) = self.guilds.compactable() {
            self.compacted.push(compaction.run());
        }
    }

    fn save(&mut self) {
        let max = self.world.rng.usize(1..4);
        for (guild, snapshot) in self.guilds.dirty(u64::MAX, max) {
            self.store.insert(guild, snapshot.checkpoint());
            self.guilds.saved(guild, snapshot.position());
        }
        let removed: Vec<_> = self.guilds.removed().collect();
        for (guild, position) in removed {
            self.store.remove(&guild);
            self.guilds.saved(guild, position);
        }
    }

    /// All that is left: the stored checkpoints, and the log from the oldest event that they lack.
    fn crash(&mut self) -> Result<(), TestCaseError> {
        let from = self.guilds.oldest_unsaved().unwrap_or(u64::MAX);
        let mut guilds = Guilds::new(self.options.clone());
        guilds.set_user(OWN);
        for (guild, checkpoint) in &self.store {
            guilds.restore(*guild, checkpoint).unwrap();
        }
        for (position, logged) in self.log.iter().filter(|(position, _)| *position >= from) {
            match logged {
                Logged::Ready(listed) => drop(guilds.ready_at(OWN, listed, *position)),
                Logged::Event(kind, guild, d) => drop(guilds.apply(*kind, *guild, d, *position)),
            }
        }
        self.guilds = guilds;
        self.compacted.clear();
        // Presences are lost, but for those that the log still had. Guilds that READY listed and that never came
        // are not in a checkpoint: the session's READY brings them again.
        let unavailable: Vec<u64> =
            self.model.guilds.iter().filter(|(_, state)| state.is_none()).map(|(id, _)| *id).collect();
        for id in unavailable {
            if self.guilds.get(id).is_none() {
                self.model.guilds.remove(&id);
            }
        }
        for (id, state) in &mut self.model.guilds {
            let (Some(state), Some(guild)) = (state.as_mut(), self.guilds.get(*id)) else { continue };
            let left = seen(&guild)["presences"].clone();
            for presence in left.as_object().into_iter().flat_map(|it| it.values()) {
                let known = naive::list(state, "presences");
                prop_assert!(known.iter().any(|it| it["user"]["id"] == presence["user"]["id"]));
            }
            state["presences"] =
                left.as_object().map(|it| it.values().cloned().collect()).unwrap_or_default();
        }
        self.compare("after a crash")
    }

    fn old_event(&mut self) -> Result<(), TestCaseError> {
        let guild = GUILDS[self.world.rng.usize(0..3)];
        let Some(snapshot) = self.guilds.get(guild) else { return Ok(()) };
        let position = self.world.rng.u64(0..=snapshot.position());
        let kind = KINDS[self.world.rng.usize(0..KINDS.len())];
        if kind == E::UserUpdate {
            return Ok(());
        }
        if let Some(event) = self.world.event(&self.model, guild, kind) {
            let bytes = self.world.bytes(&event.d);
            let applied = self.guilds.apply(event.kind, event.guild, &bytes, position);
            prop_assert!(matches!(applied, Applied::Skipped | Applied::Unchanged), "{:?}", applied);
        }
        self.compare("after an old event")
    }

    fn compare(&self, when: &str) -> Result<(), TestCaseError> {
        let snapshot = self.guilds.snapshot();
        let ids: Vec<u64> = snapshot.guilds().iter().map(GuildSnapshot::id).collect();
        prop_assert_eq!(&ids, &self.model.guilds.keys().copied().collect::<Vec<_>>(), "{}", when);
        for guild in snapshot.guilds() {
            self.compare_guild(guild, when)?;
        }
        Ok(())
    }

    fn compare_guild(&self, guild: &GuildSnapshot, when: &str) -> Result<(), TestCaseError> {
        let expected = match &self.model.guilds[&guild.id()] {
            Some(state) => normal(state),
            None => normal(&json!({"id": guild.id().to_string(), "unavailable": true})),
        };
        let found = seen(guild);
        let difference = difference("", &found, &expected);
        prop_assert!(difference.is_none(), "{}: {}", when, difference.unwrap());
        Ok(())
    }

    fn compare_views(&mut self) -> Result<(), TestCaseError> {
        let view = View {
            presences: self.world.rng.bool(),
            members: self.world.rng.bool(),
            voice_states: self.world.rng.bool(),
            scheduled_events: self.world.rng.bool(),
            large_threshold: self.world.rng.u32(50..=250),
            own_user: OWN,
        };
        for guild in self.guilds.snapshot().guilds() {
            let Some(state) = &self.model.guilds[&guild.id()] else { continue };
            let mut out = Vec::new();
            guild.guild_create(&view, &mut out).unwrap();
            let found = normal(&serde_json::from_slice(&out).unwrap());
            let difference = difference("", &found, &normal(&cut(state, &view)));
            prop_assert!(difference.is_none(), "{:?}: {}", view, difference.unwrap());
        }
        Ok(())
    }
}

/// The first place where two trees differ.
fn difference(path: &str, found: &Value, expected: &Value) -> Option<String> {
    match (found, expected) {
        _ if found == expected => None,
        (Value::Object(found), Value::Object(expected)) => {
            let absent = Value::from("(absent)");
            let mut keys = found.keys().chain(expected.keys());
            keys.find_map(|key| {
                let (found, expected) = (found.get(key), expected.get(key));
                difference(&format!("{path}.{key}"), found.unwrap_or(&absent), expected.unwrap_or(&absent))
            })
        }
        _ => Some(format!("{path} is {found}, not {expected}")),
    }
}

/// "Request Guild Members", "Guild Create".
fn cut(state: &Value, view: &View) -> Value {
    let mut state = state.clone();
    let large = state["member_count"].as_u64().unwrap() > u64::from(view.large_threshold);
    state["large"] = json!(large);
    let ids = |name: &str| naive::list(&state, name).iter().map(|it| id_of(name, it)).collect::<Vec<_>>();
    let in_voice = ids("voice_states");
    let presences = naive::list(&state, "presences").iter();
    let online: Vec<Value> = presences.filter(|it| it["status"] != json!("offline")).cloned().collect();
    let is_online = |id| online.iter().any(|it| id_of("presences", it) == id);
    let members = naive::list(&state, "members").iter().filter(|it| {
        let id = id_of("members", it);
        let near = id == OWN || in_voice.contains(&id);
        if !view.presences {
            near
        } else if large {
            let known =
                !it["nick"].is_null() || it["roles"].as_array().is_some_and(|roles| !roles.is_empty());
            near || known || is_online(id)
        } else {
            true
        }
    });
    let members = members.cloned().collect();
    if !view.presences {
        state["presences"] = json!([]);
    } else if large {
        state["presences"] = online.into();
    }
    state["members"] = members;
    if !view.voice_states {
        state["voice_states"] = json!([]);
    }
    if !view.scheduled_events {
        state["guild_scheduled_events"] = json!([]);
    }
    state
}

fn seen(guild: &GuildSnapshot) -> Value {
    let mut out = Vec::new();
    guild.guild_create(&View::everything(OWN), &mut out).unwrap();
    normal(
        &serde_json::from_slice(&out)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out))),
    )
}

/// The order of a list has no meaning: lists become objects by id. Empty ones, null and absent ones are told apart
/// by tests of their own.
fn normal(guild: &Value) -> Value {
    let mut guild = guild.clone();
    for (name, _) in LISTS {
        let entities = naive::list(&guild, name);
        let by_id: serde_json::Map<String, Value> =
            entities.iter().map(|it| (id_of(name, it).to_string(), it.clone())).collect();
        assert_eq!(by_id.len(), entities.len(), "{name} has an entity twice");
        if by_id.is_empty() {
            guild.as_object_mut().unwrap().remove(name);
        } else {
            guild[name] = Value::Object(by_id);
        }
    }
    guild
}
