// SPDX-License-Identifier: AGPL-3.0-only
//! A file in gateway-proxy's form, key by key.

use holdfast_service::process::Settings;
use holdfast_service::settings::Reading;

use super::*;
use crate::settings::Shards;
use crate::{Config, PROGRAM};

const EVERYTHING: &str = r#"{
    "log_level": "debug", "token": "their.token", "intents": 513, "port": 8000,
    "shards": 8, "shard_start": 2, "shard_end": 6,
    "activity": {"type": 0, "name": "on shard {{shard}}"}, "status": "idle",
    "backpressure": 100, "validate_token": false,
    "externally_accessible_url": "ws://proxy.internal:8000", "twilight_http_proxy": "10.0.0.2:3000",
    "cache": {"channels": false, "presences": true, "emojis": true, "current_member": false, "members": true,
        "roles": false, "scheduled_events": true, "stage_instances": true, "stickers": true, "users": true,
        "voice_states": true}
}"#;

#[test]
fn every_key_is_mapped_or_warned_about() {
    let (reading, warnings) = read(EVERYTHING, &[]);
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    let Settings { services: ws, admin, log } = reading.value;
    assert_eq!((log.level.as_str(), admin.enabled), ("debug", false));
    assert!(ws.discord.token.matches("their.token"));
    assert_eq!(ws.discord.intents.0, 513);
    assert_eq!(ws.discord.api_url, "http://10.0.0.2:3000/api/v10");
    assert_eq!(ws.listen.to_string(), "0.0.0.0:8000");
    assert_eq!(ws.public_url, "ws://proxy.internal:8000");
    assert_eq!(ws.shards, Shards { total: Some(8), start: 2, end: Some(6) });
    assert!(!ws.validate_token);
    assert_eq!(ws.pages, PAGES);
    let presence = ws.presence.expect("set");
    assert_eq!(
        (&presence["status"], &presence["activities"][0]["name"]),
        (&"idle".into(), &"on shard {{shard}}".into())
    );
    assert!(!ws.cache.channels && !ws.cache.threads && !ws.cache.roles);
    assert!(ws.cache.members && ws.cache.presences && ws.cache.stickers && ws.cache.voice_states);
    let about: Vec<_> = ["backpressure", "cache.current_member", "cache.users"].to_vec();
    assert_eq!(warnings.len(), about.len(), "{warnings:?}");
    for key in about {
        assert!(warnings.iter().any(|warning| warning.contains(key)), "{key} in {warnings:?}");
    }
}

#[test]
fn the_smallest_file_takes_their_defaults_and_the_token_of_the_environment() {
    let (reading, warnings) = read(
        r#"{"intents": 32511, "token": "", "externally_accessible_url": "ws://localhost:7878"}"#,
        &[("TOKEN", "from.the.environment")],
    );
    let settings = reading.into_result().expect("nothing is wrong");
    assert!(warnings.is_empty());
    assert!(settings.services.discord.token.matches("from.the.environment"));
    assert_eq!(settings.services.listen.to_string(), "0.0.0.0:7878");
    assert!(
        settings.services.cache.channels && settings.services.cache.roles && !settings.services.cache.emojis
    );
    assert_eq!(settings.services.presence, None);
    assert_eq!(settings.services.shards, Shards { total: None, start: 0, end: None });
}

#[test]
fn a_wrong_value_is_reported_under_their_key_and_an_unknown_key_is_only_warned_about() {
    let (reading, warnings) = read(r#"{"token": "t", "port": 99999, "shards": "many", "prot": 1}"#, &[]);
    let said: Vec<_> = reading.problems.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|line| line.contains("key port")), "{said:?}");
    assert!(said.iter().any(|line| line.contains("config.json, key shards")), "{said:?}");
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("prot"));
}

#[test]
fn null_is_the_same_as_absent() {
    let (reading, _) = read(r#"{"token": "t", "shards": null, "activity": null, "cache": null}"#, &[]);
    assert_eq!(reading.problems, []);
}

fn read(json: &str, environment: &[(&str, &str)]) -> (Reading<Settings<Config>>, Vec<String>) {
    let Json::Object(keys) = serde_json::from_str(json).expect("JSON") else { panic!("an object") };
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let translated = translate(&keys, "config.json", &environment);
    (PROGRAM.read(&translated.document), translated.warnings)
}
