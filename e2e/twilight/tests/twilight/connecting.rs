// SPDX-License-Identifier: AGPL-3.0-only
//! Bots that connect: READY, and every guild as the world has it, in twilight's own types.

use holdfast_simulator::{Simulator, Traffic};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
};
use twilight_gateway::{Intents, ShardId};
use twilight_model::guild::Guild;

use crate::{
    bot::Bot,
    stage::{BOTH, Stage, TOKEN, within},
};

#[tokio::test]
async fn twilight_asks_for_the_compression_that_it_is_compiled_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("it is bound"));
    let mut bot = Bot::new(&url, TOKEN, ShardId::ONE);
    let mut request = String::new();
    let asked = bot.meanwhile(async {
        let (tcp, _) = listener.accept().await.expect("it dials");
        BufReader::new(tcp).read_line(&mut request).await.expect("it asks");
    });
    within("the request", asked).await;
    let asks_for = |compression: &str| request.contains(&format!("&compress={compression}-stream"));
    let zlib = cfg!(feature = "zlib") && !cfg!(feature = "zstd");
    assert_eq!((asks_for("zstd"), asks_for("zlib")), (cfg!(feature = "zstd"), zlib), "{request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_shard_gets_its_guilds_as_the_world_has_them() {
    for target in BOTH {
        let stage = Stage::of(target, 2, 12).await;
        for shard in 0..2 {
            let (ready, guilds) = stage.bot(shard).connected().await;
            assert_eq!(ready.user.id.get(), stage.discord.bot_user(), "{target:?}");
            assert_eq!(ready.version, 10);
            let expected = stage.discord.guilds(shard, 2);
            assert_eq!(sorted(guilds.iter().map(|guild| guild.id.get()).collect()), expected, "{target:?}");
            for guild in guilds {
                let expected = in_order(in_the_world(&stage.discord, guild.id.get()));
                assert_eq!(in_order(guild), expected, "{target:?}");
            }
        }
        stage.assert_well_behaved();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bots_at_once_get_the_same() {
    for target in BOTH {
        let stage = Stage::of(target, 1, 4).await;
        let (mut first, mut second) = (stage.bot(0), stage.bot(0));
        let ((_, ours), (_, theirs)) = tokio::join!(first.connected(), second.connected());
        assert_eq!((ours.len(), theirs.len()), (4, 4), "{target:?}");
        stage.discord.traffic(Traffic::burst(400));
        let sent = stage.discord.finish_traffic().await.sent;
        tokio::join!(first.until_last(&sent), second.until_last(&sent));
        for bot in [&first, &second] {
            bot.ledger.assert_each_once(&sent);
            assert!(bot.closes.is_empty(), "{target:?}: {:?}", bot.closes);
        }
        stage.assert_well_behaved();
    }
}

fn in_the_world(discord: &Simulator, guild: u64) -> Guild {
    let guild = discord.guild_as_seen(guild, Intents::all().bits(), 50).expect("a guild of the world");
    serde_json::from_value(guild).expect("twilight knows such a guild")
}

/// A guild with its lists sorted: their order means nothing.
fn in_order(mut guild: Guild) -> Guild {
    guild.channels.sort_by_key(|channel| channel.id);
    guild.emojis.sort_by_key(|emoji| emoji.id);
    guild.guild_scheduled_events.sort_by_key(|event| event.id);
    guild.members.sort_by_key(|member| member.user.id);
    guild.presences.sort_by_key(|presence| presence.user.id());
    guild.roles.sort_by_key(|role| role.id);
    guild.stage_instances.sort_by_key(|stage| stage.id);
    guild.stickers.sort_by_key(|sticker| sticker.id);
    guild.threads.sort_by_key(|thread| thread.id);
    guild.voice_states.sort_by_key(|state| state.user_id);
    guild
}

fn sorted(mut ids: Vec<u64>) -> Vec<u64> {
    ids.sort_unstable();
    ids
}
