// SPDX-License-Identifier: AGPL-3.0-only
//! Discord has its own troubles while replicas come and go.

use holdfast_simulator::{Fault, FaultKind, Traffic};

use crate::support::Fleet;

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_discord_ends_during_hand_overs_are_resumed() {
    let fleet = Fleet::new(8, 32).await;
    let first = fleet.replica().await;
    fleet.settled(&[&first]).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    let troubles = [
        Fault::everywhere(FaultKind::Op7),
        Fault::everywhere(FaultKind::Close).code(4000),
        Fault::everywhere(FaultKind::Op9).resumable(true),
        Fault::everywhere(FaultKind::Rst),
    ];
    let mut replicas = vec![first];
    for trouble in troubles {
        // In the midst of it: the next replica takes its part.
        let (next, ()) = tokio::join!(fleet.replica(), async {
            for _ in 0..3 {
                fleet.discord.fault(&trouble);
                fleet.worker.until_more(50).await;
            }
        });
        replicas.push(next);
        fleet.settled(&replicas.iter().collect::<Vec<_>>()).await;
        fleet.discord.fault(&trouble);
        let mut oldest = replicas.remove(0);
        assert_eq!(oldest.terminate().await.code(), Some(0), "{}", oldest.output());
        fleet.settled(&replicas.iter().collect::<Vec<_>>()).await;
    }
    fleet.assert_whole().await;
    assert_eq!(fleet.discord.records(2).len(), 8, "IDENTIFYs");
    assert_eq!(fleet.worker.account().gaps, 0);
    fleet.end().await;
}

/// The simulator refuses an IDENTIFY that comes too early.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_identify_one_after_the_other_as_discord_asks() {
    let fleet = Fleet::at(crate::support::REDIS, 4, 16, |limits| limits.max_concurrency = 2).await;
    let (first, second) = tokio::join!(fleet.replica(), fleet.replica());
    fleet.settled(&[&first, &second]).await;
    fleet.discord.fault(&Fault::everywhere(FaultKind::Op9).resumable(false));
    fleet.discord.wait_for_records(2, 8).await.expect("all identify again");
    fleet.settled(&[&first, &second]).await;
    fleet.discord.traffic(Traffic::messages(20.0));
    fleet.worker.until_more(100).await;
    fleet.assert_whole().await;
    let violations = fleet.discord.violations();
    assert!(violations.is_empty(), "{violations:?}");
    assert_eq!(fleet.discord.records(2).len(), 8);
    assert_eq!(fleet.worker.account().gaps, 4, "each shard's new session is told");
    fleet.end().await;
}
