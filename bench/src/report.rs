// SPDX-License-Identifier: AGPL-3.0-only
//! Results: every run of every row, medians as a table, all of it as JSON.
//! In: samples. Out: text and a file. One per scenario, owned by it.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::procfs::machine;

/// The figures of one run, by name.
pub(crate) type Sample = BTreeMap<&'static str, f64>;

/// A column of the table: figure, heading, decimals.
pub(crate) type Column = (&'static str, &'static str, usize);

/// All runs of a scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    scenario: String,
    machine: String,
    /// Seconds since 1970.
    started: u64,
    rows: Vec<Row>,
}

/// All runs of one case on one path.
#[derive(Debug, Serialize)]
struct Row {
    case: String,
    path: String,
    median: Sample,
    runs: Vec<Sample>,
}

impl Results {
    /// Of a scenario that begins now.
    pub(crate) fn new(scenario: &str) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { scenario: scenario.to_owned(), machine: machine(), started, rows: Vec::new() }
    }

    /// Adds a run.
    pub(crate) fn add(&mut self, case: &str, path: &str, sample: Sample) {
        let known = self.rows.iter().position(|row| row.case == case && row.path == path);
        let index = known.unwrap_or_else(|| {
            let (case, path) = (case.to_owned(), path.to_owned());
            self.rows.push(Row { case, path, median: Sample::new(), runs: Vec::new() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[index];
        row.runs.push(sample);
        row.median = medians(&row.runs);
    }

    /// Adds to the latest run of each path of `case` (the direct one is only ever the measure) its ratio to the
    /// latest run of `base`: `figure` over the same figure, as `ratio`.
    pub(crate) fn ratio(&mut self, case: &str, base: &str, figure: &'static str, ratio: &'static str) {
        self.compare(case, base, figure, ratio, |over, under| (under > 0.0).then(|| over / under));
    }

    /// The same with the difference: `figure` less the same figure.
    pub(crate) fn difference(&mut self, case: &str, base: &str, figure: &'static str, name: &'static str) {
        self.compare(case, base, figure, name, |over, under| Some(over - under));
    }

    fn compare(
        &mut self,
        case: &str,
        base: &str,
        figure: &'static str,
        name: &'static str,
        of: impl Fn(f64, f64) -> Option<f64>,
    ) {
        let latest = |row: &Row| row.runs.last().and_then(|run| run.get(figure).copied());
        let base_row = self.rows.iter().find(|row| row.case == case && row.path == base);
        let Some(under) = base_row.and_then(latest) else { return };
        for row in
            self.rows.iter_mut().filter(|row| row.case == case && row.path != base && row.path != "direct")
        {
            let Some(compared) = latest(row).and_then(|over| of(over, under)) else { continue };
            if let Some(run) = row.runs.last_mut() {
                run.insert(name, compared);
            }
            row.median = medians(&row.runs);
        }
    }

    /// The medians as a Markdown table.
    pub(crate) fn table(&self, columns: &[Column]) -> String {
        let mut lines = vec![vec!["case".to_owned(), "path".to_owned()]];
        lines[0].extend(columns.iter().map(|(_, heading, _)| (*heading).to_owned()));
        for row in &self.rows {
            let mut line = vec![row.case.clone(), row.path.clone()];
            line.extend(columns.iter().map(|&(figure, _, decimals)| {
                row.median.get(figure).map_or_else(String::new, |value| format!("{value:.decimals$}"))
            }));
            lines.push(line);
        }
        align(&lines)
    }

    /// Writes everything as JSON, over what was written before.
    pub(crate) fn save(&self, out: &Path) -> Result<PathBuf> {
        fs::create_dir_all(out)?;
        let file = out.join(format!("{}-{}.json", self.scenario, self.started));
        fs::write(&file, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }

    /// Prints the table and says where everything stands.
    pub(crate) fn show(&self, columns: &[Column], out: &Path) -> Result<()> {
        let file = self.save(out)?;
        let runs = self.rows.iter().map(|row| row.runs.len()).max().unwrap_or_default();
        println!("\n{} on {}, medians of {runs}:\n", self.scenario, self.machine);
        println!("{}\nAll runs: {}", self.table(columns), file.display());
        Ok(())
    }
}

fn medians(runs: &[Sample]) -> Sample {
    let names = runs.iter().flat_map(BTreeMap::keys).copied();
    let of = |name| median(runs.iter().filter_map(|run| run.get(name).copied()).collect());
    names.filter_map(|name| Some((name, of(name)?))).collect()
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some((values[middle - 1] + upper) / 2.0) }
}

fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            // Writing into a string cannot fail.
            let _ = if column < 2 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let colon = if column < 2 { '-' } else { ':' };
                let _ = write!(text, "|{}{colon}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn ratios_are_taken_run_by_run() {
        let mut results = Results::new("test");
        for (direct, relay) in [(10.0, 20.0), (20.0, 20.0), (10.0, 30.0)] {
            results.add("a", "direct", Sample::from([("p50", direct)]));
            results.add("a", "relay", Sample::from([("p50", relay)]));
            results.ratio("a", "direct", "p50", "ratio");
        }
        assert_eq!(results.rows[1].median["ratio"], 2.0);
        assert!(!results.rows[0].median.contains_key("ratio"));
    }

    #[test]
    fn differences_are_taken_run_by_run_and_may_be_negative() {
        let mut results = Results::new("test");
        for (bare, ours) in [(10.0, 25.0), (20.0, 15.0), (10.0, 12.0)] {
            results.add("a", "bare", Sample::from([("p50", bare)]));
            results.add("a", "ours", Sample::from([("p50", ours)]));
            results.difference("a", "bare", "p50", "over");
        }
        assert_eq!(results.rows[1].median["over"], 2.0);
        assert_eq!(results.rows[1].runs[1]["over"], -5.0);
    }

    #[test]
    fn the_table_is_aligned_and_leaves_unknown_figures_blank() {
        let mut results = Results::new("test");
        results.add("800/s", "direct", Sample::from([("p50", 12.34)]));
        results.add("800/s", "relay", Sample::from([("cpu", 1.0)]));
        let table = results.table(&[("p50", "p50 µs", 1), ("cpu", "CPU", 0)]);
        let expected = "| case  | path   | p50 µs | CPU |\n|-------|--------|-------:|----:|\n\
                        | 800/s | direct |   12.3 |     |\n| 800/s | relay  |        |   1 |\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn what_is_saved_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut results = Results::new("test");
        results.add("a", "direct", Sample::from([("p50", 1.0)]));
        let file = results.save(dir.path()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        assert_eq!(json["rows"][0]["runs"][0]["p50"], 1.0);
    }
}
