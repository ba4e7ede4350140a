// SPDX-License-Identifier: AGPL-3.0-only
//! Dashboards, alerts and autoscalers ask for metrics that there are, and each alert is explained.
//! In: the tables of docs/contract.md (which a test compares with the registry), deploy/, the guides. Out: names that
//! stand in no table or in another form, and alerts that `docs/guides/operate.md` has no heading for.

use std::collections::HashMap;

use super::{Finding, Source};

const CONTRACT: &str = "docs/contract.md";
const ALERTS: &str = "deploy/prometheus/alerts.yml";
const EXPLAINED: &str = "docs/guides/operate.md";

/// How our metrics begin, by service or by what they are about.
const OURS: &[&str] = &["ws", "amqp", "cluster", "api", "rest", "http", "webhook", "voice"];

/// See the module.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    let Some(contract) = sources.iter().find(|source| source.path == CONTRACT) else { return Vec::new() };
    let table = Table::read(&contract.text);
    let asking = sources.iter().filter(|source| asks(&source.path));
    let mut findings: Vec<_> = asking.flat_map(|source| unknown(source, &table)).collect();
    findings.extend(unexplained(sources));
    findings
}

/// Whether metrics are asked for there, by the names that Prometheus has.
fn asks(path: &str) -> bool {
    path.starts_with("deploy/") && [".json", ".yml", ".yaml"].iter().any(|end| path.ends_with(end))
}

/// What the contract says: each metric's type, and how planned ones begin.
#[derive(Debug, Default)]
struct Table<'a> {
    types: HashMap<&'a str, &'a str>,
    planned: Vec<&'a str>,
}

impl<'a> Table<'a> {
    fn read(contract: &'a str) -> Self {
        let metrics = contract.split_once("\n## Metrics\n").map_or("", |(_, metrics)| metrics);
        let mut table = Self::default();
        for line in metrics.lines() {
            if let Some(planned) = line.strip_prefix("Names begin with ") {
                table.planned.extend(planned.split('`').filter(|name| name.starts_with("holdfast_")));
            }
            let mut cells = line.split('|').map(str::trim).skip(1);
            if let (Some(names), Some(kind)) = (cells.next(), cells.next()) {
                let names = names.split(", ").filter_map(|name| name.strip_prefix('`')?.strip_suffix('`'));
                table.types.extend(names.map(|name| (name, kind)));
            }
        }
        table
    }

    /// What is wrong with a name in a query, if anything is.
    fn judge(&self, name: &str) -> Option<String> {
        if self.planned.iter().any(|planned| name.starts_with(planned)) {
            return None;
        }
        let stem = |ends: &[&str]| ends.iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned);
        let forms = [
            ("gauge", Some(name.to_owned())),
            ("counter", stem(&["_total"])),
            ("histogram", stem(&["_bucket", "_sum", "_count"])),
        ];
        let there = |kind: &str, stem: &str| self.types.get(stem).is_some_and(|known| *known == kind);
        if forms.iter().any(|(kind, stem)| stem.as_ref().is_some_and(|stem| there(kind, stem))) {
            return None;
        }
        Some(match self.types.get(name) {
            Some(kind) => format!("`{name}` is a {kind}, and asked for under another name"),
            None => format!("`{name}` stands in no table of {CONTRACT}"),
        })
    }
}

fn unknown(source: &Source, table: &Table<'_>) -> Vec<Finding> {
    let lines = source.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'));
    let named = lines.flat_map(|(index, line)| names(line).map(move |name| (index + 1, name)));
    named.filter_map(|(line, name)| Some(Finding::new(source, line, table.judge(name)?))).collect()
}

/// Whole words of a line that are names of metrics.
fn names(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| {
        let ours = word.strip_prefix("holdfast_").and_then(|rest| rest.split_once('_'));
        ours.is_some_and(|(about, _)| OURS.contains(&about)) || word.starts_with("process_")
    })
}

fn unexplained(sources: &[Source]) -> Vec<Finding> {
    let find = |path: &str| sources.iter().find(|source| source.path == path);
    let Some(alerts) = find(ALERTS) else { return Vec::new() };
    let explained = find(EXPLAINED).map_or("", |source| source.text.as_str());
    let has_heading = |name: &str| explained.lines().any(|line| line.trim_start_matches('#').trim() == name);
    let lines = alerts.text.lines().enumerate();
    let named = lines.filter_map(|(index, line)| Some((index + 1, line.trim().strip_prefix("- alert: ")?)));
    named
        .filter(|(_, name)| !has_heading(name))
        .map(|(line, name)| Finding::new(alerts, line, format!("{EXPLAINED} has no heading `{name}`")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::source;

    const TABLES: &str = "# C\n\n## Metrics\n\n| Name | Type |\n|---|---|\n| `process_open_fds`, `process_max_fds` | gauge |\n\
        | `holdfast_ws_events` | counter | shard | events |\n| `holdfast_rest_queue_seconds` | histogram | | |\n\n\
        Names begin with `holdfast_voice_`.\n";

    #[test]
    fn names_in_the_form_of_their_type_pass() {
        let query = "rate(holdfast_ws_events_total[5m]) / process_open_fds + holdfast_rest_queue_seconds_bucket{le=\"1\"}";
        assert_eq!(found(query), 0);
    }

    #[test]
    fn a_metric_that_is_not_there_is_found() {
        assert_eq!(found("sum(holdfast_ws_evnts_total)"), 1);
        assert_eq!(found("process_files"), 1);
    }

    #[test]
    fn a_metric_under_another_form_is_found() {
        assert_eq!(found("holdfast_ws_events"), 1);
        assert_eq!(found("holdfast_rest_queue_seconds"), 1);
        assert_eq!(found("process_open_fds_total"), 1);
    }

    #[test]
    fn what_is_planned_passes_as_long_as_the_contract_says_so() {
        assert_eq!(found("holdfast_voice_calls"), 0);
    }

    #[test]
    fn comments_ask_for_nothing() {
        assert_eq!(found("  # not holdfast_ws_events, which is a counter"), 0);
    }

    #[test]
    fn other_words_are_not_names() {
        assert_eq!(found("holdfast_inside holdfast-ws HOLDFAST__WS__LISTEN unprocess_ed"), 0);
    }

    #[test]
    fn an_alert_needs_its_heading() {
        let alerts = source(ALERTS, "groups:\n  - rules:\n      - alert: HoldfastDown\n");
        assert_eq!(unexplained(&[alerts]).len(), 1);
        let alerts = source(ALERTS, "      - alert: HoldfastDown\n");
        assert_eq!(unexplained(&[alerts, source(EXPLAINED, "# Operate\n\n### HoldfastDown\n")]), []);
    }

    fn found(query: &str) -> usize {
        check(&[source(CONTRACT, TABLES), source("deploy/grafana/dashboards/a.json", query)]).len()
    }
}
