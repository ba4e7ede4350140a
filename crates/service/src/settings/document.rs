// SPDX-License-Identifier: AGPL-3.0-only
//! A settings document: the file's text, the environment's variables and arguments come in, one tree goes out,
//! later sources before earlier ones. Nobody here knows what a key means.

use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use super::effective::Effective;
use super::report::{Problem, Problems, nearest};
use super::section::{Findings, Section};
use super::value::{Node, Origin, Table, Value, from_toml};

/// Environment variables that stand for settings begin with this; levels are separated by two underscores.
const PREFIX: &str = "HOLDFAST__";

/// Everything that the user wrote, wherever it was written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    root: Table,
}

/// What came of reading a document.
#[derive(Debug)]
pub struct Reading<T> {
    /// What was read, with defaults in place of what is wrong.
    pub value: T,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// Every key that was asked for.
    pub effective: Effective,
}

impl<T> Reading<T> {
    /// The value, if nothing is wrong.
    ///
    /// # Errors
    /// All problems at once.
    pub fn into_result(self) -> Result<T, Problems> {
        if self.problems.is_empty() { Ok(self.value) } else { Err(Problems(self.problems)) }
    }
}

impl Document {
    /// A document in which nothing is set.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Parses TOML; `name` is the file's name for messages.
    ///
    /// # Errors
    /// All syntax errors, each with its line.
    pub fn parse(text: &str, name: &str) -> Result<Self, Problems> {
        let name: Arc<str> = name.into();
        let origin = |at: usize| Origin::File { name: Arc::clone(&name), line: line_of(text, at) };
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self { root: from_toml(table.get_ref(), &origin) });
        }
        let problem = |error: &toml::de::Error| Problem {
            path: String::new(),
            what: format!("not TOML: {}", error.message()),
            origin: Some(origin(error.span().map_or(0, |span| span.start))),
        };
        Err(Problems(errors.iter().map(problem).collect()))
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// The file can't be read, or all its syntax errors.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what = format!("cannot read {name}: {error}");
            Problems(vec![Problem { path: String::new(), what, origin: None }])
        })?;
        Self::parse(&text, &name)
    }

    /// Lays environment variables over what is there: `HOLDFAST__WS__LISTEN` is `ws.listen`, `DISCORD_TOKEN` is
    /// `discord.token`. Empty variables count as not set. Lists and tables are written as in TOML or JSON.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let mut variables: Vec<_> = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        // Shorter names first, so that a table given whole doesn't undo one of its keys given apart.
        variables.sort();
        for (name, value) in variables {
            let path = match name.strip_prefix(PREFIX) {
                Some(rest) => rest.to_ascii_lowercase().replace("__", "."),
                None if name == "DISCORD_TOKEN" => "discord.token".to_owned(),
                None => continue,
            };
            let origin = Origin::Environment(name);
            self.set(&path, structured(&value, &origin).unwrap_or(Value::Text(value)), origin);
        }
    }

    /// Sets the value at a path such as `ws.log.memory`, over what was there.
    pub fn set(&mut self, path: &str, value: Value, origin: Origin) {
        let mut table = &mut self.root;
        let mut keys: Vec<&str> = path.split('.').collect();
        let last = keys.pop().unwrap_or_default();
        for key in keys {
            let empty = || Node { value: Value::Table(Table::new()), origin: origin.clone() };
            let node = table.entry(key.to_owned()).or_insert_with(empty);
            if !matches!(node.value, Value::Table(_)) {
                *node = empty();
            }
            let Value::Table(inner) = &mut node.value else { return };
            table = inner;
        }
        table.insert(last.to_owned(), Node { value, origin });
    }

    /// The value at a path, if it was written anywhere.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        let mut keys = path.split('.');
        let mut node = self.root.get(keys.next()?)?;
        for key in keys {
            let Value::Table(table) = &node.value else { return None };
            node = table.get(key)?;
        }
        Some(node)
    }

    /// Lets `read` ask for everything that the program knows; what it doesn't ask for is unknown.
    pub fn read<T>(&self, read: impl FnOnce(&Section<'_>) -> T) -> Reading<T> {
        let findings = Findings::default();
        let root = Section::root(&self.root, &findings);
        let value = read(&root);
        root.finish();
        let Findings { problems, unknown, entries, sections } = findings;
        let effective = Effective { entries: entries.into_inner() };
        let mut paths: Vec<String> = effective.paths().collect();
        paths.extend(sections.into_inner());
        let mut problems = problems.into_inner();
        problems.extend(unknown.into_inner().into_iter().map(|(section, key, origin)| Problem {
            what: match nearest_path(&section, &key, &paths) {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None => "unknown key".to_owned(),
            },
            path: if section.is_empty() { key } else { format!("{section}.{key}") },
            origin: Some(origin),
        }));
        Reading { value, problems, effective }
    }
}

/// A neighbour in the same section first, then a key anywhere that ends alike (a key in the wrong section).
fn nearest_path(section: &str, key: &str, paths: &[String]) -> Option<String> {
    let parent = |path: &str| path.rsplit_once('.').map_or("", |(parent, _)| parent).to_owned();
    let last = |path: &str| path.rsplit_once('.').map_or(path, |(_, last)| last).to_owned();
    let neighbours: Vec<String> =
        paths.iter().filter(|path| parent(path) == section).map(|path| last(path)).collect();
    if let Some(near) = nearest(key, neighbours.iter().map(String::as_str)) {
        return Some(near.to_owned());
    }
    if let Some(path) = paths.iter().find(|path| last(path) == key) {
        return Some(path.clone());
    }
    let whole = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
    nearest(&whole, paths.iter().map(String::as_str)).map(str::to_owned)
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// A list or table written in a variable, as TOML or as JSON.
fn structured(text: &str, origin: &Origin) -> Option<Value> {
    if !text.trim_start().starts_with(['[', '{']) {
        return None;
    }
    if let Ok(json) = serde_json::from_str(text) {
        return Value::from_json(&json, origin);
    }
    let line = format!("value = {text}");
    let table = DeTable::parse(&line).ok()?;
    let nodes = from_toml(table.get_ref(), &|_| origin.clone());
    let is_structured = |node: &Node| matches!(node.value, Value::List(_) | Value::Table(_));
    nodes.into_values().next().filter(is_structured).map(|node| node.value)
}

#[cfg(test)]
mod tests;
