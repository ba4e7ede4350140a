// SPDX-License-Identifier: AGPL-3.0-only
//! Reading a guild: by request over the broker, and on the admin listener.

use holdfast_contract::v1::{Guild, guild::Found};
use serde_json::Value;

use crate::{
    support::{Holdfast, Setup, discord, until},
    worker::Stage,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_guild_is_read_as_discord_would_send_it() {
    let stage = Stage::start(discord(2, 4).await, Setup::default()).await;
    for shard in [0, 1] {
        let guild = stage.guild(shard, 2);
        let expected = stage.discord.guild(guild).expect("a guild");
        let found = stage.worker.try_guild(guild).await.expect("an answer");
        assert_eq!((found.guild_id, found.shard, found.shard_count), (guild, shard, 2));
        assert!(found.stream.len() == 16 && found.position > 1, "{found:?}");
        let Some(Found::Data(data)) = &found.found else { panic!("{found:?}") };
        let data: Value = serde_json::from_slice(data).expect("JSON");
        assert_eq!((&data["id"], &data["name"]), (&expected["id"], &expected["name"]));
        for list in ["channels", "roles", "emojis", "members"] {
            let count = |tree: &Value| tree[list].as_array().map(Vec::len);
            assert_eq!(count(&data), count(&expected), "{list}");
        }
        let (status, page) = stage.holdfast.answer(&format!("/guilds/{guild}")).await;
        assert_eq!((status, serde_json::from_str::<Value>(&page).expect("JSON")), (200, data));
    }
    assert_eq!(code(&stage.worker.try_guild(5 << 22).await.expect("an answer")), "UNKNOWN_GUILD");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guild_that_cannot_be_read_says_why() {
    let setup = Setup { ws: "shards = { total = 2, start = 0, end = 1 }", ..Setup::default() };
    let stage = Stage::start(discord(2, 4).await, setup).await;
    let guild = stage.guild(0, 2);
    stage.discord.outage(guild);
    until("the outage is known", async || {
        code(&stage.worker.try_guild(guild).await.expect("an answer")) == "GUILD_UNAVAILABLE"
    })
    .await;
    let elsewhere = stage.guild(1, 2);
    assert_eq!(code(&stage.worker.try_guild(elsewhere).await.expect("an answer")), "NO_OWNER");
    for (path, status, says) in [
        (format!("/guilds/{guild}"), 503, "unavailable"),
        (format!("/guilds/{}", 4_000_u64 << 22), 404, "is not in guild"),
        (format!("/guilds/{elsewhere}"), 404, "shard 1 of 2"),
        ("/guilds/nonsense".to_owned(), 400, "number"),
        ("/guilds/".to_owned(), 404, "no such page"),
    ] {
        let (found, page) = stage.holdfast.answer(&path).await;
        assert_eq!((found, page.contains(says)), (status, true), "{path}: {page}");
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_guild_needs_no_broker() {
    let discord = discord(1, 2).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let guild = discord.guilds(0, 1)[0];
    until("the guild is there", async || holdfast.answer(&format!("/guilds/{guild}")).await.0 == 200).await;
}

fn code(guild: &Guild) -> &'static str {
    match &guild.found {
        Some(Found::Error(error)) => error.code().name(),
        _ => "FOUND",
    }
}
