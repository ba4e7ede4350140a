// SPDX-License-Identifier: AGPL-3.0-only
//! The connection to the broker is cut while messages wait.

use std::sync::{Arc, Mutex};

use holdfast_broker::BrokerSettings;
use holdfast_simulator::RestFault;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::stage::{Stage, limited, say, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_when_the_connection_was_cut_is_begun_when_it_comes_again() {
    let stage = Stage::rabbit(|limits| limited(limits, 1, 1.0)).await;
    let door = Door::new().await;
    let webhook = stage.start_as(|config| config.broker = Some(door.broker(&stage))).await;
    let texts: Vec<_> = (0..5).map(|number| number.to_string()).collect();
    for text in &texts {
        stage.tell(say(7, text)).await;
    }
    until(|| stage.said(7).len() == 1 && webhook.metric("holdfast_webhook_parked") >= 3.0).await;
    door.cut();
    // Behind whatever came twice.
    stage.ask(say(7, "last")).await;
    let mut said = stage.said(7);
    said.dedup();
    assert_eq!(said, ["0", "1", "2", "3", "4", "last"]);
    // Only the one that was under way is looked up as done; of those that waited, only what came again was begun.
    assert!(webhook.metric("holdfast_webhook_repeated_total") <= 1.0);
    webhook.stop().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_waits_comes_again_to_its_place_and_is_done_once() {
    let stage = Stage::rabbit(|limits| limited(limits, 1_000, 1.0)).await;
    let door = Door::new().await;
    let webhook = stage.start_as(|config| config.broker = Some(door.broker(&stage))).await;
    stage.discord.rest_fault(RestFault::Shared { seconds: 4.0 });
    // One that is held, and as many behind it as may wait (webhook.parked).
    let texts: Vec<_> = (0..129).map(|number| number.to_string()).collect();
    for text in &texts {
        stage.tell(say(7, text)).await;
    }
    until(|| webhook.metric("holdfast_webhook_parked") == 128.0).await;
    door.cut();
    until(|| stage.said(7).last() == texts.last()).await;
    assert_eq!(stage.said(7), texts);
    let full = r#"holdfast_webhook_messages_total{operation="execute",outcome="QUEUE_FULL"}"#;
    assert_eq!(webhook.metric(full), 0.0);
    // The one that was held went when it had come again, and not before, too.
    assert_eq!(webhook.metric("holdfast_webhook_repeated_total"), 0.0);
    webhook.stop().await;
    assert_eq!(stage.said(7), texts);
    stage.end().await;
}

/// A way to the broker.
struct Door {
    address: String,
    open: Arc<Mutex<CancellationToken>>,
    /// Ends with it.
    _tasks: tokio::task::JoinSet<()>,
}

impl Door {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let open = Arc::new(Mutex::new(CancellationToken::new()));
        let (current, mut tasks) = (Arc::clone(&open), tokio::task::JoinSet::new());
        tasks.spawn(async move {
            let mut ways = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let cut = current.lock().expect("unpoisoned").clone();
                ways.spawn(async move {
                    let way = async {
                        let mut far =
                            TcpStream::connect("127.0.0.1:5672").await.expect("RabbitMQ of this machine");
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    };
                    cut.run_until_cancelled(way).await;
                });
            }
        });
        Self { address, open, _tasks: tasks }
    }

    /// The stage's broker, by this way.
    fn broker(&self, stage: &Stage) -> BrokerSettings {
        let prefix = stage.broker.names().prefix().to_owned();
        BrokerSettings { prefix, ..BrokerSettings::at(format!("amqp://guest:guest@{}", self.address)) }
    }

    /// All connections end; new ones can be made.
    fn cut(&self) {
        let before = std::mem::replace(&mut *self.open.lock().expect("unpoisoned"), CancellationToken::new());
        before.cancel();
    }
}
