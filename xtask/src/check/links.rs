// SPDX-License-Identifier: AGPL-3.0-only
//! Relative links in Markdown lead somewhere: the file is there, and so is the heading behind a `#`; and each document
//! in docs/ is in the book. In: sources. Out: links that lead nowhere, documents that none leads to. Links with a scheme
//! are not followed.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use super::{Finding, Source};
use crate::workspace;

/// See the module.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    let root = workspace::root();
    judge(sources, |path| root.join(path).exists())
}

fn judge(sources: &[Source], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.extension() == "md") {
        for (line, target) in links(&source.text) {
            if let Some(message) = broken(sources, source, target, &exists) {
                findings.push(Finding::new(source, line, message));
            }
        }
    }
    findings.extend(outside_the_book(sources));
    findings
}

/// Where the book's table of contents is.
const CONTENTS: &str = "docs/SUMMARY.md";

fn outside_the_book(sources: &[Source]) -> Vec<Finding> {
    let Some(contents) = sources.iter().find(|source| source.path == CONTENTS) else { return Vec::new() };
    let targets = links(&contents.text).into_iter().filter_map(|(_, target)| resolve(CONTENTS, target));
    let inside: HashSet<String> = targets.chain([CONTENTS.to_owned()]).collect();
    let documents =
        sources.iter().filter(|source| source.path.starts_with("docs/") && source.extension() == "md");
    let outside = documents.filter(|source| !inside.contains(&source.path));
    outside.map(|source| Finding::new(source, 0, format!("isn't in {CONTENTS}"))).collect()
}

fn broken(
    sources: &[Source],
    source: &Source,
    target: &str,
    exists: impl Fn(&str) -> bool,
) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { source.path.clone() } else { resolve(&source.path, file)? };
    if !exists(&path) {
        return Some(format!("links to {target}, which isn't there"));
    }
    let document = sources.iter().find(|other| other.path == path)?;
    let known =
        heading.is_empty() || document.extension() != "md" || headings(&document.text).contains(heading);
    (!known).then(|| format!("links to {target}: {path} has no such heading"))
}

/// The path from the root, with `.` and `..` taken out. Nothing if it leads out of the project.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut path = Path::new(from).parent().map(PathBuf::from).unwrap_or_default();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir if !path.pop() => return None,
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    Some(path.to_string_lossy().replace('\\', "/"))
}

/// Lines of prose with their numbers: code between fences is left out.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((index + 1, line))
    })
}

/// Targets of `[text](target)`, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let targets = |line: &'_ str| -> Vec<(usize, usize)> {
        let starts = line.match_indices("](").map(|(at, _)| at + 2);
        starts.filter_map(|start| Some((start, start + line[start..].find(')')?))).collect()
    };
    prose(text)
        .flat_map(|(number, line)| targets(line).into_iter().map(move |(from, to)| (number, &line[from..to])))
        .filter(|(_, target)| !target.is_empty() && !target.contains(' '))
        .collect()
}

/// The anchors that a document's headings get: lower case, spaces as hyphens, most punctuation dropped.
fn headings(text: &str) -> HashSet<String> {
    let titles = prose(text).map(|(_, line)| line).filter(|line| line.starts_with('#'));
    titles
        .map(|line| {
            let title = line.trim_start_matches('#').trim();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::source;

    #[test]
    fn links_to_files_and_headings_pass() {
        let texts = [
            source(
                "docs/a.md",
                "[b](../b.md#the-second-part), [web](https://example.com/x), [own](#here)\n# Here\n",
            ),
            source("b.md", "## The second part!\n"),
        ];
        assert_eq!(judged(&texts), []);
    }

    #[test]
    fn a_missing_file_is_found_with_its_line() {
        assert_eq!(
            judged(&[source("docs/a.md", "\n[b](b.md)\n")]).first().map(|finding| finding.line),
            Some(2)
        );
    }

    #[test]
    fn a_missing_heading_is_found() {
        assert_eq!(judged(&[source("a.md", "[b](b.md#other)"), source("b.md", "# One\n")]).len(), 1);
    }

    #[test]
    fn code_is_not_read_for_links() {
        assert_eq!(judged(&[source("a.md", "```\n[b](b.md)\n```\n")]), []);
    }

    #[test]
    fn a_document_that_the_book_leaves_out_is_found() {
        let book = source(CONTENTS, "- [A](guides/a.md)\n");
        let texts = [book, source("docs/guides/a.md", ""), source("docs/b.md", ""), source("README.md", "")];
        assert_eq!(
            judged(&texts).iter().map(|finding| finding.path.as_str()).collect::<Vec<_>>(),
            ["docs/b.md"]
        );
    }

    fn judged(sources: &[Source]) -> Vec<Finding> {
        judge(sources, |path| sources.iter().any(|source| source.path == path))
    }
}
