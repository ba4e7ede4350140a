// SPDX-License-Identifier: AGPL-3.0-only
//! What the doctor says of each condition; Discord's own answers are tested in `holdfast-rest`.

use holdfast_rest::SessionStartLimit;
use holdfast_service::settings::Document;

use super::*;

#[test]
fn a_privileged_intent_that_is_not_granted_is_broken() {
    let wanted = Intents::from_names(["GUILDS", "GUILD_MEMBERS"]).expect("known");
    assert!(matches!(intents(wanted, Intents::PRIVILEGED), Finding::Well(_)));
    let Finding::Broken { what, .. } = intents(wanted, Intents(0)) else { panic!("must be broken") };
    assert!(what.contains("GUILD_MEMBERS") && !what.contains("GUILDS"), "{what}");
}

#[test]
fn the_budget_must_hold_a_start_of_all_shards() {
    let settings = settings("[ws]\nshards = { total = 16 }");
    assert!(matches!(budget(&settings, &gateway(16, 15)), Finding::Broken { .. }));
    assert!(matches!(budget(&settings, &gateway(16, 20)), Finding::Warning { .. }));
    assert!(matches!(budget(&settings, &gateway(16, 1000)), Finding::Well(_)));
}

#[test]
fn fewer_shards_than_recommended_is_a_warning_and_none_is_broken() {
    assert!(matches!(
        shards(&settings("[ws]\nshards = { total = 8 }"), &gateway(16, 1)),
        Finding::Warning { .. }
    ));
    assert!(matches!(
        shards(&settings("[ws]\nshards = { start = 16 }"), &gateway(16, 1)),
        Finding::Broken { .. }
    ));
    let range = settings("[ws]\nshards = { start = 4, end = 8 }");
    assert_eq!(shards(&range, &gateway(16, 1)), Finding::Well("4 of 16 ours, 16 recommended".to_owned()));
}

#[test]
fn a_folder_is_tried_and_left_as_it_was() {
    let parent = tempfile::tempdir().expect("a folder");
    let state = parent.path().join("state");
    assert!(matches!(folder(&state), Finding::Well(_)));
    assert!(!state.exists());
    std::fs::write(&state, b"a file").expect("writes");
    assert!(matches!(folder(&state), Finding::Broken { .. }));
}

#[test]
fn a_gateway_has_a_host_and_a_port() {
    assert_eq!(host_and_port("wss://gateway.discord.gg"), Some(("gateway.discord.gg".to_owned(), 443)));
    assert_eq!(host_and_port("ws://127.0.0.1:80/?v=10"), Some(("127.0.0.1".to_owned(), 80)));
    assert_eq!(host_and_port("gateway"), None);
}

fn settings(toml: &str) -> Settings {
    ALL.read(&Document::parse(toml, "test").expect("TOML")).value
}

fn gateway(shards: u32, remaining: u32) -> GatewayBot {
    let session_start_limit = SessionStartLimit {
        total: 1000,
        remaining,
        reset_after: Duration::from_secs(3600),
        max_concurrency: 1,
    };
    GatewayBot { url: "wss://gateway.discord.gg".to_owned(), shards, session_start_limit }
}
