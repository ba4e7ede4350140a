// SPDX-License-Identifier: AGPL-3.0-only
//! Events that flow, and Discord's connection that ends under them. Directly twilight resumes; behind
//! Holdfast it notices nothing.

use holdfast_simulator::{Fault, FaultKind, Traffic};

use crate::stage::{BOTH, Stage, Target};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_come_once_and_in_order() {
    for target in BOTH {
        let stage = Stage::of(target, 1, 4).await;
        let mut bot = stage.connected_bot(0).await;
        stage.discord.traffic(Traffic::burst(1_000));
        let sent = stage.discord.finish_traffic().await.sent;
        assert_eq!(sent.values().sum::<u64>(), 1_000);
        bot.until_last(&sent).await;
        bot.ledger.assert_each_once(&sent);
        stage.assert_well_behaved();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twilight_can_read_every_kind_of_event() {
    for target in BOTH {
        let stage = Stage::of(target, 1, 4).await;
        let mut bot = stage.connected_bot(0).await;
        stage.discord.traffic(Traffic { burst: 2_000, ..Traffic::mixed(0.0) });
        let sent = bot.meanwhile(stage.discord.finish_traffic()).await.sent;
        bot.until_last(&sent).await;
        bot.ledger.assert_each_once(&sent);
        assert!(bot.seen.len() > 20, "{target:?}: {:?}", bot.seen);
        assert!(bot.closes.is_empty(), "{target:?}: {:?}", bot.closes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_is_resumed() {
    let cuts = [
        Fault::new(0, FaultKind::Fin),
        Fault::new(0, FaultKind::Rst),
        Fault::new(0, FaultKind::FinRst),
        Fault::new(0, FaultKind::Close).code(4000),
        Fault::new(0, FaultKind::Truncate),
    ];
    for target in BOTH {
        end_the_connection(target, &cuts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_to_end_is_resumed() {
    let requests = [Fault::new(0, FaultKind::Op7), Fault::new(0, FaultKind::Op9).resumable(true)];
    for target in BOTH {
        end_the_connection(target, &requests).await;
    }
}

/// Ends Discord's connection in these ways while messages flow.
async fn end_the_connection(target: Target, faults: &[Fault]) {
    let stage = Stage::of(target, 1, 4).await;
    let mut bot = stage.connected_bot(0).await;
    stage.discord.traffic(Traffic::messages(200.0));
    for fault in faults {
        bot.until_messages(bot.ledger.count() + 50).await;
        assert_eq!(stage.discord.fault(fault), 1, "{target:?}: {fault:?} hits the connection");
        if target == Target::Direct {
            bot.resumed().await;
        } else {
            let resumed = bot.meanwhile(stage.discord.wait_for_resume(0)).await;
            resumed.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        }
    }
    bot.until_messages(bot.ledger.count() + 50).await;
    let sent = stage.discord.stop_traffic().await.sent;
    bot.until_last(&sent).await;
    bot.ledger.assert_each_once(&sent);
    assert_eq!(bot.count("READY"), 1, "{target:?}");
    if target == Target::Holdfast {
        assert_eq!((bot.count("RESUMED"), bot.closes.len()), (0, 0), "it noticed: {:?}", bot.closes);
    }
    stage.assert_well_behaved();
}
