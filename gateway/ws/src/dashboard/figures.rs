// SPDX-License-Identifier: AGPL-3.0-only
//! Figures of all services of the process, by the names of docs/contract.md. In: the text of `/metrics`. Out: the sums
//! over all labels of those that the dashboard shows; one is absent where its service is.

use std::collections::BTreeMap;

/// Samples that the dashboard shows.
const SHOWN: &[&str] = &[
    "holdfast_amqp_confirmed_total",
    "holdfast_amqp_connections_lost_total",
    "holdfast_amqp_published_total",
    "holdfast_api_answers_total",
    "holdfast_api_connections",
    "holdfast_api_errors_total",
    "holdfast_cluster_replicas",
    "holdfast_cluster_store_connected",
    "holdfast_http_deferred_total",
    "holdfast_http_failure_ratio",
    "holdfast_http_in_flight",
    "holdfast_http_interactions_total",
    "holdfast_http_refused_total",
    "holdfast_rest_in_flight",
    "holdfast_rest_invalid",
    "holdfast_rest_limited_total",
    "holdfast_rest_waiting",
    "holdfast_webhook_messages_total",
    "holdfast_webhook_parked",
    "holdfast_webhook_sending",
    "holdfast_ws_amqp_lag_events",
    "holdfast_ws_client_connections",
    "holdfast_ws_gaps_total",
    "holdfast_ws_log_disk_bytes",
    "holdfast_ws_log_memory_bytes",
    "holdfast_ws_log_unstored_events",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
];

/// Reads them.
pub(super) fn read(metrics: &str) -> BTreeMap<&'static str, f64> {
    let mut figures = BTreeMap::new();
    for line in metrics.lines() {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let Ok(known) = SHOWN.binary_search(&name) else { continue };
        // Labels' values may hold anything, a sample's is behind the last space.
        let value = line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
        if let Some(value) = value.filter(|value| value.is_finite()) {
            *figures.entry(SHOWN[known]).or_default() += value;
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_their_labels() {
        let figures = read(
            "# TYPE holdfast_rest_limited counter\nholdfast_rest_limited_total{scope=\"user\"} 2\n\
             holdfast_rest_limited_total{scope=\"a b\"} 3\nholdfast_rest_waiting 4\nholdfast_other 5\n# EOF\n",
        );
        assert_eq!(
            figures,
            BTreeMap::from([("holdfast_rest_limited_total", 5.0), ("holdfast_rest_waiting", 4.0)])
        );
    }

    #[test]
    fn each_is_one_of_the_contracts_and_is_found() {
        let contract = include_str!("../../../../docs/contract.md");
        assert!(SHOWN.is_sorted());
        for name in SHOWN {
            let base = name.strip_suffix("_total").unwrap_or(name);
            assert!(contract.contains(&format!("`{base}`")), "{name}");
        }
    }
}
