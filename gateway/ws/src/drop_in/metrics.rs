// SPDX-License-Identifier: AGPL-3.0-only
//! Our metrics as text come in, the same text goes out with lines added under the names that gateway-proxy uses, so
//! that dashboards made for it go on. docs/migration.md lists them.

use std::fmt::Write as _;

/// Ends OpenMetrics text.
const END: &str = "# EOF\n";

/// Their name and our sample of the same kind; labels are passed on.
const RENAMED: [(&str, &str); 6] = [
    ("gateway_shard_events", "holdfast_ws_events_total"),
    ("gateway_shard_status", "holdfast_ws_shard_status"),
    ("gateway_shard_latency", "holdfast_ws_shard_latency_seconds"),
    ("gateway_shard_latency_histogram_bucket", "holdfast_ws_heartbeat_latency_seconds_bucket"),
    ("gateway_shard_latency_histogram_sum", "holdfast_ws_heartbeat_latency_seconds_sum"),
    ("gateway_shard_latency_histogram_count", "holdfast_ws_heartbeat_latency_seconds_count"),
];

/// Our gauge of entities by kind, which is one gauge per kind there.
const ENTITIES: &str = "holdfast_ws_state_entities";

/// The text with their names beside ours.
pub(crate) fn with_their_names(ours: &str) -> String {
    let mut text = ours.strip_suffix(END).unwrap_or(ours).to_owned();
    for line in ours.lines().filter(|line| !line.starts_with('#')) {
        let Some(end) = line.find(['{', ' ']) else { continue };
        let (name, rest) = line.split_at(end);
        // Writing to a string can't fail.
        if let Some((theirs, _)) = RENAMED.iter().find(|(_, sample)| *sample == name) {
            let rest = rest.replacen("event=\"", "event_type=\"", 1);
            let _ = writeln!(text, "{theirs}{rest}");
        } else if name == ENTITIES
            && let Some((kind, labels, value)) = entity(rest)
        {
            let _ = writeln!(text, "gateway_cache_{kind}{{{labels}}}{value}");
        }
    }
    text + END
}

/// Splits `{shard="0",entity="roles"} 12` into the kind, the other labels and what follows the bracket.
fn entity(rest: &str) -> Option<(&str, String, &str)> {
    let (labels, value) = rest.strip_prefix('{')?.split_once('}')?;
    let (kinds, others): (Vec<&str>, Vec<&str>) =
        labels.split(',').partition(|label| label.starts_with("entity="));
    let kind = kinds.first()?.strip_prefix("entity=\"")?.strip_suffix('"')?;
    Some((kind, others.join(","), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn their_names_stand_beside_ours() {
        let ours = "# TYPE holdfast_ws_events counter\n\
                    holdfast_ws_events_total{shard=\"0\",event=\"MESSAGE_CREATE\"} 3\n\
                    holdfast_ws_state_entities{shard=\"1\",entity=\"roles\"} 12\n\
                    holdfast_ws_shard_latency_seconds{shard=\"0\"} 0.031\n\
                    holdfast_ws_heartbeat_latency_seconds_count 7\n\
                    process_open_fds 9\n# EOF\n";
        let text = with_their_names(ours);
        assert!(text.starts_with(ours.strip_suffix(END).expect("ends so")));
        for line in [
            "gateway_shard_events{shard=\"0\",event_type=\"MESSAGE_CREATE\"} 3\n",
            "gateway_cache_roles{shard=\"1\"} 12\n",
            "gateway_shard_latency_histogram_count 7\n",
            "gateway_shard_latency{shard=\"0\"} 0.031\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.ends_with(END) && text.matches("EOF").count() == 1);
    }
}
