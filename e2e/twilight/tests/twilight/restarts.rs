// SPDX-License-Identifier: AGPL-3.0-only
//! Bots that start again, with a session that they have kept or with nothing, and Holdfast that does.

use holdfast_simulator::Traffic;

use crate::stage::{BOTH, Stage, Target};

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_has_kept_its_session_resumes_in_its_next_life() {
    for target in BOTH {
        let stage = Stage::of(target, 1, 4).await;
        let mut bot = stage.connected_bot(0).await;
        stage.discord.traffic(Traffic::burst(1_000));
        let sent = stage.discord.finish_traffic().await.sent;
        // Some have been read, some haven't.
        bot.until_messages(100).await;
        let mut bot = stage.next_life_of(bot);
        bot.resumed().await;
        bot.until_last(&sent).await;
        bot.ledger.assert_each_once(&sent);
        assert_eq!(bot.count("READY"), 0, "{target:?}");
        stage.assert_well_behaved();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_starts_again_gets_what_came_meanwhile() {
    let stage = Stage::of(Target::Holdfast, 1, 4).await;
    let mut old = stage.connected_bot(0).await;
    stage.discord.traffic(Traffic::burst(100));
    old.until_last(&stage.discord.finish_traffic().await.sent).await;
    let earlier = std::mem::take(&mut old.ledger);
    drop(old);
    stage.client_is_gone().await;
    stage.discord.traffic(Traffic::burst(1_000));
    stage.discord.finish_traffic().await;
    let mut new = stage.bot(0);
    let (_, guilds) = new.connected().await;
    assert_eq!(guilds.len(), 4);
    stage.discord.traffic(Traffic::burst(100));
    let sent = stage.discord.finish_traffic().await.sent;
    new.until_last(&sent).await;
    new.ledger.assert_each_once_after(&earlier, &sent);
    assert_eq!(stage.discord.records(2).len(), 1, "Discord saw one IDENTIFY: Holdfast's");
    stage.assert_well_behaved();
}

#[tokio::test(flavor = "multi_thread")]
async fn holdfast_starts_again_and_the_bot_resumes() {
    let mut stage = Stage::of(Target::Holdfast, 1, 4).await;
    let mut bot = stage.connected_bot(0).await;
    stage.discord.traffic(Traffic::messages(200.0));
    for _ in 0..2 {
        bot.until_messages(bot.ledger.count() + 100).await;
        let resumed = bot.count("RESUMED") + 1;
        bot.meanwhile(stage.restart_holdfast()).await;
        if bot.count("RESUMED") < resumed {
            bot.resumed().await;
        }
    }
    bot.until_messages(bot.ledger.count() + 100).await;
    let sent = stage.discord.stop_traffic().await.sent;
    bot.until_last(&sent).await;
    bot.ledger.assert_each_once(&sent);
    assert_eq!(bot.count("READY"), 1, "it kept its session");
    assert_eq!(stage.discord.records(2).len(), 1, "and so did Holdfast");
    stage.assert_well_behaved();
}
