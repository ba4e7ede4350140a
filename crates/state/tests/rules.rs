// SPDX-License-Identifier: AGPL-3.0-only
//! Single rules that random sequences don't show, or show badly: positions, malformed data, purges, empty lists, the
//! cap of old threads, answers to requests, damaged checkpoints.

#![cfg(test)]

use holdfast_discord::EventKind as E;
use holdfast_state::{Applied, Guilds, Members, Options, RestoreError, View};
use serde_json::{Value, json};

const OWN: u64 = 900;
const GUILD: u64 = 100;

#[test]
fn an_event_at_or_below_the_position_is_skipped() {
    let mut guilds = with_guild(Options::default());
    assert_eq!(rename(&mut guilds, "second", 11), Applied::Changed);
    assert_eq!(rename(&mut guilds, "again", 11), Applied::Skipped);
    assert_eq!(rename(&mut guilds, "older", 3), Applied::Skipped);
    assert_eq!(guilds.apply(E::GuildCreate, Some(GUILD), b"{}", 11), Applied::Skipped);
    assert_eq!(guilds.message(GUILD, 1, 2, 11), Applied::Skipped);
    assert_eq!(seen(&guilds)["name"], "second");
    assert_eq!(guilds.memory().skipped, 4);
}

#[test]
fn malformed_data_is_counted_and_changes_nothing() {
    let mut guilds = with_guild(Options::default());
    let before = seen(&guilds);
    let mut position = 50;
    let bad: [&[u8]; 12] = [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b"\xff\xfe",
        b"{\"id\":}",
        b"{\"id\":\"x\",\"user\":{\"id\":-1}}",
        b"{\"role\":5,\"user\":[],\"user_id\":{},\"channel_id\":1.5,\"members\":{}}",
        b"{\"id\":\"99999999999999999999999\"}",
        b"{\"user\":{\"id\":\"\"}}",
        &[b'['; 5000],
    ];
    for (kind, d) in E::ALL.iter().flat_map(|kind| bad.map(|d| (*kind, d))) {
        // Any object is a partial guild.
        let is_object = serde_json::from_slice::<Value>(d).is_ok_and(|value| value.is_object());
        if !(kind == E::GuildUpdate && is_object) {
            position += 1;
            guilds.apply(kind, Some(GUILD), d, position);
        }
    }
    assert!(guilds.memory().malformed > 100);
    assert_eq!(seen(&guilds), before);
}

#[test]
fn guilds_that_ready_does_not_list_are_purged_and_new_ones_are_unavailable() {
    let mut guilds = with_guild(Options::default());
    assert_eq!(guilds.ready(OWN, &[7, GUILD]), Vec::<u64>::new());
    assert!(guilds.get(7).unwrap().unavailable());
    assert!(!guilds.get(GUILD).unwrap().unavailable());
    assert_eq!(guilds.ready(OWN, &[7]), [GUILD]);
    assert!(guilds.get(GUILD).is_none());
    assert_eq!(guilds.removed().collect::<Vec<_>>(), [(GUILD, 10)]);
    assert_eq!(rename(&mut guilds, "late", 20), Applied::NoGuild);
    let mut out = Vec::new();
    guilds.get(7).unwrap().guild_create(&View::everything(OWN), &mut out).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), json!({"id": "7", "unavailable": true}));
}

#[test]
fn a_ready_of_the_past_does_not_purge_what_came_later() {
    let mut guilds = with_guild(Options::default());
    assert_eq!(guilds.ready_at(OWN, &[], 9), Vec::<u64>::new());
    assert_eq!(guilds.ready_at(OWN, &[], 11), [GUILD]);
}

#[test]
fn what_is_not_kept_is_an_empty_list_but_for_the_own_member() {
    let options = Options {
        roles: false,
        channels: false,
        members: false,
        presences: false,
        voice_states: false,
        ..Options::default()
    };
    let mut guilds = with_guild(options);
    apply(&mut guilds, E::GuildMemberAdd, json!({"user": {"id": "55"}, "roles": []}), 20);
    apply(&mut guilds, E::GuildMemberAdd, json!({"user": {"id": "56"}, "roles": []}), 21);
    apply(&mut guilds, E::GuildMemberRemove, json!({"user": {"id": "55"}}), 22);
    apply(
        &mut guilds,
        E::GuildMemberUpdate,
        json!({"user": {"id": "900", "username": "me"}, "nick": "bot"}),
        23,
    );
    let voice =
        |id: &str| json!({"user_id": id, "channel_id": "5", "member": {"user": {"id": id}, "roles": ["6"]}});
    apply(&mut guilds, E::VoiceStateUpdate, voice("900"), 24);
    let applied = guilds.apply(E::VoiceStateUpdate, Some(GUILD), voice("1").to_string().as_bytes(), 25);
    assert_eq!(applied, Applied::Unchanged);
    for (kind, d) in
        [(E::ChannelCreate, json!({"id": "77"})), (E::GuildRoleCreate, json!({"role": {"id": "78"}}))]
    {
        let applied = guilds.apply(kind, Some(GUILD), d.to_string().as_bytes(), 25);
        assert_eq!(applied, Applied::Unchanged);
    }
    let found = seen(&guilds);
    for name in ["roles", "channels", "presences", "voice_states"] {
        assert_eq!(found[name], json!([]), "{name}");
    }
    assert_eq!(found["member_count"], 4);
    assert_eq!(found["members"].as_array().unwrap().len(), 1);
    assert_eq!(found["members"][0]["nick"], "bot");
    assert_eq!(found["members"][0]["roles"], json!(["6"]));
    assert!(!guilds.get(GUILD).unwrap().members_complete());
}

#[test]
fn nulls_and_absent_lists_stay_what_they_were() {
    let mut guilds = Guilds::new(Options::default());
    let d = json!({"id": "100", "name": null, "emojis": null, "roles": [], "odd": {"a": [null]}});
    guilds.apply(E::GuildCreate, Some(GUILD), d.to_string().as_bytes(), 1);
    assert_eq!(seen(&guilds), d);
    apply(&mut guilds, E::GuildUpdate, json!({"odd": null, "icon": null}), 2);
    let expected = json!({"id": "100", "name": null, "emojis": null, "roles": [], "odd": null, "icon": null});
    assert_eq!(seen(&guilds), expected);
}

#[test]
fn bytes_that_nothing_changed_are_the_bytes_that_came() {
    let mut guilds = Guilds::new(Options::default());
    let d = r#"{"id":"100","n":1.50,"roles":[{ "id":"1", "p":1e3 },{"id":"2","s":"\u00e9\/"}]}"#;
    guilds.apply(E::GuildCreate, Some(GUILD), d.as_bytes(), 1);
    let mut out = Vec::new();
    guilds.get(GUILD).unwrap().guild_create(&View::everything(OWN), &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), d);
}

#[test]
fn old_threads_stop_counting_at_fifty() {
    let mut guilds = Guilds::new(Options::default());
    let thread = |id: &str| json!({"id": id, "type": 11, "message_count": 49, "total_message_sent": 49});
    let (old, new) = ("900000000000000000", "1100000000000000000");
    let d = json!({"id": "100", "threads": [thread(old), thread(new)]});
    guilds.apply(E::GuildCreate, Some(GUILD), d.to_string().as_bytes(), 1);
    for position in 2..6 {
        for id in [old, new] {
            guilds.message(GUILD, id.parse().unwrap(), 5, position * 2 + u64::from(id == new));
        }
    }
    let found = seen(&guilds);
    assert_eq!(found["threads"][0]["message_count"], 50);
    assert_eq!(found["threads"][1]["message_count"], 53);
    assert_eq!(found["threads"][1]["last_message_id"], "5");
}

#[test]
fn members_are_found_by_id_by_prefix_and_all() {
    let mut guilds = with_guild(Options::default());
    let guild = guilds.get(GUILD).unwrap();
    assert!(guild.members_complete());
    let ids =
        |which: Members<'_>| guild.members(&which).unwrap().iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(Members::All), [1, 2, OWN]);
    assert_eq!(ids(Members::Ids(&[2, 3])), [2]);
    assert_eq!(ids(Members::Prefix("AN", 10)), [1, 2]);
    assert_eq!(ids(Members::Prefix("an", 1)), [1]);
    assert_eq!(ids(Members::Prefix("queen", 10)), [2]);
    let found = guild.members(&Members::Ids(&[2])).unwrap();
    let (_, bytes) = found.iter().next().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(bytes).unwrap()["nick"], "Queen");
    assert_eq!(guild.presences(&[1, 2]).unwrap().len(), 1);
    apply(&mut guilds, E::GuildMemberAdd, json!({"user": {"id": "55"}, "roles": []}), 20);
    assert!(guilds.get(GUILD).unwrap().members_complete());
    apply(&mut guilds, E::GuildMemberRemove, json!({"user": {"id": "4711"}}), 21);
    assert!(guilds.get(GUILD).unwrap().members_complete());
    apply(&mut guilds, E::GuildUpdate, json!({"member_count": 9}), 22);
    assert!(!guilds.get(GUILD).unwrap().members_complete());
}

#[test]
fn sounds_are_an_array_and_unknown_where_they_are_not_kept() {
    let mut guilds = with_guild(Options::default());
    apply(&mut guilds, E::GuildSoundboardSoundCreate, json!({"sound_id": "5", "volume": 0.5}), 20);
    let mut out = Vec::new();
    assert!(guilds.get(GUILD).unwrap().soundboard_sounds(&mut out).unwrap());
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap()[0]["sound_id"], "5");
    let guilds = with_guild(Options { soundboard_sounds: false, ..Options::default() });
    assert!(!guilds.get(GUILD).unwrap().soundboard_sounds(&mut out).unwrap());
}

#[test]
fn a_member_added_twice_counts_once_whether_compacted_or_not() {
    let options = Options { compact_min_bytes: 0, compact_percent: 0, ..Options::default() };
    let mut guilds = with_guild(options);
    apply(&mut guilds, E::GuildMemberAdd, json!({"user": {"id": "1"}, "roles": []}), 20);
    assert_eq!(seen(&guilds)["member_count"], 3);
    let compaction = guilds.compactable().unwrap();
    apply(&mut guilds, E::GuildMemberAdd, json!({"user": {"id": "1"}, "roles": ["6"]}), 21);
    apply(&mut guilds, E::GuildMemberAdd, json!({"user": {"id": "8"}, "roles": ["6"]}), 22);
    guilds.finish(compaction.run());
    assert_eq!(seen(&guilds)["member_count"], 4);
    while let Some(compaction) = guilds.compactable() {
        guilds.finish(compaction.run());
    }
    assert_eq!(seen(&guilds)["member_count"], 4);
    assert_eq!(guilds.memory().changes, 0);
}

#[test]
fn what_a_user_update_leaves_out_stays_as_an_earlier_one_had_it() {
    let mut guilds = Guilds::new(Options::default());
    guilds.ready(OWN, &[GUILD]);
    let user = json!({"id": "900", "username": "a", "avatar": null, "global_name": null});
    let d = json!({"id": "100", "members": [{"user": user, "roles": []}]});
    guilds.apply(E::GuildCreate, Some(GUILD), d.to_string().as_bytes(), 1);
    let updates =
        [json!({"id": "900", "username": "b", "avatar": "x"}), json!({"id": "900", "username": "c"})];
    for (position, d) in (2..).zip(updates) {
        assert_eq!(guilds.apply(E::UserUpdate, None, d.to_string().as_bytes(), position), Applied::Changed);
    }
    let expected = json!({"id": "900", "username": "c", "avatar": "x", "global_name": null});
    assert_eq!(seen(&guilds)["members"][0]["user"], expected);
}

#[test]
fn what_came_while_a_compaction_ran_adds_to_what_it_folded_in() {
    let options = Options { compact_min_bytes: 0, compact_percent: 0, ..Options::default() };
    let mut guilds = Guilds::new(options);
    let thread =
        json!({"id": "1100000000000000000", "type": 11, "message_count": 7, "total_message_sent": 7});
    let event = json!({"id": "1100000000000000001", "user_count": 7});
    let d = json!({"id": "100", "threads": [], "guild_scheduled_events": [event]});
    guilds.apply(E::GuildCreate, Some(GUILD), d.to_string().as_bytes(), 1);
    let count = json!({"guild_scheduled_event_id": "1100000000000000001"});
    apply(&mut guilds, E::ThreadCreate, thread.clone(), 2);
    guilds.message(GUILD, 1_100_000_000_000_000_000, 5, 3);
    let pins = json!({"channel_id": "1100000000000000000", "last_pin_timestamp": "now"});
    apply(&mut guilds, E::ChannelPinsUpdate, pins, 4);
    apply(&mut guilds, E::GuildScheduledEventUserAdd, count.clone(), 5);
    let compacted = guilds.compactable().unwrap().run();
    apply(&mut guilds, E::ThreadUpdate, json!({"id": "1100000000000000000", "type": 11}), 6);
    apply(&mut guilds, E::GuildScheduledEventUserRemove, count, 7);
    let before = seen(&guilds);
    guilds.finish(compacted);
    let found = seen(&guilds);
    assert_eq!(found, before);
    assert_eq!(found["threads"][0]["message_count"], 8);
    assert_eq!(found["threads"][0]["last_message_id"], "5");
    assert_eq!(found["threads"][0]["last_pin_timestamp"], "now");
    assert_eq!(found["guild_scheduled_events"][0]["user_count"], 7);
}

#[test]
fn an_entity_that_goes_again_while_a_compaction_runs_stays_gone() {
    let options = Options { compact_min_bytes: 0, compact_percent: 0, ..Options::default() };
    let mut guilds = with_guild(options);
    apply(&mut guilds, E::GuildRoleDelete, json!({"role_id": "100"}), 20);
    let compacted = guilds.compactable().unwrap().run();
    apply(&mut guilds, E::GuildUpdate, json!({"roles": [{"id": "100"}, {"id": "101"}]}), 21);
    apply(&mut guilds, E::GuildRoleDelete, json!({"role_id": "100"}), 22);
    guilds.finish(compacted);
    assert_eq!(seen(&guilds)["roles"], json!([{"id": "101"}]));
}

#[test]
fn a_compaction_of_a_guild_that_came_anew_is_dropped() {
    let options = Options { compact_min_bytes: 0, compact_percent: 0, ..Options::default() };
    let mut guilds = with_guild(options);
    rename(&mut guilds, "old", 20);
    let compacted = guilds.compactable().unwrap().run();
    guilds.apply(E::GuildCreate, Some(GUILD), guild().to_string().as_bytes(), 21);
    guilds.finish(compacted);
    assert_eq!(seen(&guilds)["name"], "guild");
    rename(&mut guilds, "new", 22);
    assert!(guilds.compactable().is_some());
}

#[test]
fn a_checkpoint_holds_all_but_presences_and_only_unsaved_guilds_hold_the_log() {
    let mut guilds = with_guild(Options::default());
    rename(&mut guilds, "renamed", 20);
    assert_eq!(guilds.oldest_unsaved(), Some(10));
    let (id, snapshot) = guilds.dirty(u64::MAX, 5).pop().unwrap();
    let checkpoint = snapshot.checkpoint();
    guilds.message(GUILD, 5, 6, 30);
    guilds.saved(id, snapshot.position());
    assert_eq!(guilds.oldest_unsaved(), Some(21));
    guilds.saved(id, 30);
    assert_eq!(guilds.oldest_unsaved(), None);
    apply(&mut guilds, E::PresenceUpdate, json!({"user": {"id": "2"}, "status": "idle"}), 31);
    assert_eq!(guilds.oldest_unsaved(), None, "presences are never saved");

    let mut restored = Guilds::new(Options::default());
    restored.restore(GUILD, &checkpoint).unwrap();
    let mut expected = guild();
    (expected["name"], expected["presences"]) = (json!("renamed"), json!([]));
    assert_eq!(seen(&restored), expected);
    assert_eq!(restored.get(GUILD).unwrap().position(), 20);
}

#[test]
fn a_checkpoint_that_is_damaged_foreign_or_lacks_something_is_refused() {
    let guilds = with_guild(Options { members: false, ..Options::default() });
    let checkpoint = guilds.get(GUILD).unwrap().checkpoint();
    let mut restored = Guilds::new(Options::default());
    assert_eq!(restored.restore(GUILD, &checkpoint), Err(RestoreError::Lacking));
    let mut restored = Guilds::new(Options { members: false, roles: false, ..Options::default() });
    assert_eq!(restored.restore(GUILD + 1, &checkpoint), Err(RestoreError::OtherGuild));
    assert_eq!(restored.restore(GUILD, b""), Err(RestoreError::Damaged));
    let mut later = checkpoint.clone();
    later[4] = 9;
    assert_eq!(restored.restore(GUILD, &later), Err(RestoreError::Format(9)));
    for at in 0..checkpoint.len() {
        let mut damaged = checkpoint.clone();
        damaged[at] ^= 0x10;
        assert!(restored.restore(GUILD, &damaged).is_err(), "byte {at}");
        assert!(restored.restore(GUILD, &checkpoint[..at]).is_err(), "cut at {at}");
    }
    assert!(restored.is_empty());
    restored.restore(GUILD, &checkpoint).unwrap();
    assert_eq!(restored.len(), 1);
}

fn guild() -> Value {
    json!({
        "id": "100", "name": "guild", "member_count": 3, "large": false, "unavailable": false,
        "roles": [{"id": "100", "name": "@everyone"}],
        "channels": [{"id": "5", "type": 0, "last_message_id": null}],
        "members": [
            {"user": {"id": "1", "username": "anna"}, "roles": [], "nick": null},
            {"user": {"id": "2", "username": "Andreas"}, "roles": [], "nick": "Queen"},
            {"user": {"id": "900", "username": "bot"}, "roles": [], "nick": null},
        ],
        "presences": [{"user": {"id": "1"}, "status": "online"}],
        "voice_states": [{"user_id": "1", "channel_id": "5"}],
    })
}

fn with_guild(options: Options) -> Guilds {
    let mut guilds = Guilds::new(options);
    guilds.ready(OWN, &[GUILD]);
    assert_eq!(
        guilds.apply(E::GuildCreate, Some(GUILD), guild().to_string().as_bytes(), 10),
        Applied::Changed
    );
    guilds
}

fn apply(guilds: &mut Guilds, kind: E, d: Value, position: u64) {
    assert_eq!(guilds.apply(kind, Some(GUILD), d.to_string().as_bytes(), position), Applied::Changed);
}

fn rename(guilds: &mut Guilds, name: &str, position: u64) -> Applied {
    guilds.apply(E::GuildUpdate, Some(GUILD), json!({"name": name}).to_string().as_bytes(), position)
}

fn seen(guilds: &Guilds) -> Value {
    let mut out = Vec::new();
    guilds.get(GUILD).unwrap().guild_create(&View::everything(OWN), &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}
