// SPDX-License-Identifier: AGPL-3.0-only
//! What the contract says about metrics is what there is.

use super::support::stage;

#[tokio::test]
async fn every_metric_has_a_row_in_the_contract() {
    let contract = include_str!("../../../../docs/contract.md");
    let stage = stage(|_| {}).await;
    let ours = |name: &str| name.starts_with("holdfast_api_") || name.starts_with("holdfast_rest_");
    // What has labels is shown once it has counted.
    stage.ask("GET", "/api/v10/../x").await;
    let text = stage.api.service.metrics.encode();
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let registered: Vec<_> = described.filter(|name| ours(name)).collect();
    assert!(registered.len() > 8, "{text}");
    for name in &registered {
        assert!(contract.contains(&format!("| `{name}` |")), "{name} has no row");
    }
}
