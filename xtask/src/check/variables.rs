// SPDX-License-Identifier: AGPL-3.0-only
//! Variables that stand for settings, in deploy/ and in documents, name settings that there are.
//! In: holdfast.toml, which is complete (a test keeps it so), and texts. Out: names of settings that it doesn't have.

use std::collections::HashSet;

use super::{Finding, Source};

const SETTINGS: &str = "holdfast.toml";
const PREFIX: &str = "HOLDFAST__";

/// See the module.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    let Some(settings) = sources.iter().find(|source| source.path == SETTINGS) else { return Vec::new() };
    let known = keys(&settings.text);
    let texts =
        sources.iter().filter(|source| source.path.starts_with("deploy/") || source.extension() == "md");
    texts.flat_map(|source| unknown(source, &known)).collect()
}

/// Every key of the file with its section, those in comments too, as `ws.log.memory`.
fn keys(settings: &str) -> HashSet<String> {
    let mut known = HashSet::new();
    let mut section = String::new();
    for line in settings.lines() {
        // A setting without a default, or a planned one.
        let line = line.trim_start_matches("#~ ").trim_start_matches('#');
        if let Some(name) = line.strip_prefix('[').and_then(|name| name.split(']').next()) {
            section = name.trim_start_matches('[').to_owned();
            known.insert(section.clone());
        } else if let Some((key, value)) = line.split_once('=') {
            let key = format!("{section}.{}", key.trim());
            let within = value.trim().strip_prefix('{').into_iter().flat_map(|table| table.split(','));
            known.extend(within.filter_map(|pair| Some(format!("{key}.{}", pair.split_once('=')?.0.trim()))));
            known.insert(key);
        }
    }
    known
}

fn unknown(source: &Source, known: &HashSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for (at, _) in line.match_indices(PREFIX) {
            let rest = &line[at + PREFIX.len()..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let name = &rest[..end];
            // In part only, as where its form is explained or a template completes it.
            if !name.is_empty() && !name.starts_with('_') && !is_known(name, known) && !is_example(name) {
                let message = format!("{PREFIX}{name}: {SETTINGS} has no such setting");
                findings.push(Finding::new(source, index + 1, message));
            }
        }
    }
    findings
}

fn is_known(name: &str, known: &HashSet<String>) -> bool {
    known.contains(&name.to_lowercase().replace("__", "."))
}

/// As documentation writes it: `HOLDFAST__SECTION__KEY`.
fn is_example(name: &str) -> bool {
    name == "SECTION__KEY"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::source;

    const TEXT: &str = "[ws]\nlisten = \"127.0.0.1:7878\"\nshards = { total = \"auto\", start = 0 }\n[ws.log]\nmemory = 1\n\
        #[broker]\n#url = \"amqp://\"\n#~ [voice]\n#~ password = \"…\"\n";

    #[test]
    fn settings_that_there_are_pass() {
        assert_eq!(found("HOLDFAST__WS__LISTEN: 0.0.0.0:7878"), 0);
        assert_eq!(found("`HOLDFAST__WS__LOG__MEMORY`, HOLDFAST__WS__SHARDS__TOTAL=4"), 0);
        assert_eq!(found("HOLDFAST__BROKER__URL, HOLDFAST__VOICE__PASSWORD"), 0);
    }

    #[test]
    fn others_are_found() {
        assert_eq!(found("HOLDFAST__WS__LISTN=1 HOLDFAST__LOG__MEMORY=2"), 2);
    }

    #[test]
    fn the_form_of_the_names_is_no_name() {
        assert_eq!(found("HOLDFAST__… HOLDFAST__SECTION__KEY HOLDFAST__{{ .component }}__LISTEN"), 0);
    }

    fn found(text: &str) -> usize {
        check(&[source(SETTINGS, TEXT), source("deploy/a.yaml", text)]).len()
    }
}
