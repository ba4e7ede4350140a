// SPDX-License-Identifier: AGPL-3.0-only
//! What the contract says about metrics is what there is.

use super::stage::{Stage, say, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_has_a_row_in_the_contract() {
    let contract = include_str!("../../../../docs/contract.md");
    let stage = Stage::memory(|_| {}).await;
    let webhook = stage.start().await;
    // What has labels is shown once it has counted.
    stage.ask(say(7, "x")).await;
    // Counted behind the reply.
    let done = r#"holdfast_webhook_messages_total{operation="execute",outcome="DONE"}"#;
    until(|| webhook.metric(done) == 1.0).await;
    let text = webhook.service.metrics.encode();
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let registered: Vec<_> = described.filter(|name| name.starts_with("holdfast_webhook_")).collect();
    assert!(registered.len() >= 8, "{text}");
    for name in &registered {
        assert!(contract.contains(&format!("| `{name}` |")), "{name} has no row");
    }
}
