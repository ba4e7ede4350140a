// SPDX-License-Identifier: AGPL-3.0-only
//! A section being read: a key, a default and a range come in, a checked value goes out. Whatever is wrong is noted
//! and the default stands in, so that one reading finds everything.

use std::cell::RefCell;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::convert::{integer_of, quoted, strings_of, text_of};
use super::effective::{Entry, Shown};
use super::quantity::{parse_bytes, parse_duration, show_bytes, show_duration};
use super::report::{Problem, nearest};
use super::value::{Node, Origin, Table, Value};
use crate::Secret;

/// What reading has found so far.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: RefCell<Vec<Problem>>,
    /// Section, key and origin of what nobody asked for.
    pub(super) unknown: RefCell<Vec<(String, String, Origin)>>,
    pub(super) entries: RefCell<Vec<Entry>>,
    /// Paths of all sections that were asked for.
    pub(super) sections: RefCell<Vec<String>>,
}

/// One table of settings being read.
pub struct Section<'d> {
    pub(super) path: String,
    pub(super) table: Option<&'d Table>,
    pub(super) findings: &'d Findings,
    pub(super) known: RefCell<Vec<&'static str>>,
    /// Keys that are others' affair.
    pub(super) passed: RefCell<Vec<String>>,
}

impl<'d> Section<'d> {
    pub(super) fn root(table: &'d Table, findings: &'d Findings) -> Self {
        Self {
            path: String::new(),
            table: Some(table),
            findings,
            known: RefCell::default(),
            passed: RefCell::default(),
        }
    }

    /// Whether the user wrote this section at all.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// Reports `key` as a problem if it is written at all.
    pub fn refuse(&self, key: &'static str, what: &str) {
        if let Some(node) = self.node(key) {
            self.note(key, what.to_owned(), Some(node.origin.clone()));
        }
    }

    /// The section under `key`, if there is one, is others' affair.
    pub fn pass_over(&self, key: &'static str) {
        self.passed.borrow_mut().push(key.to_owned());
    }

    /// Keys of this section that nobody asks for are others' affair.
    pub fn pass_over_others(&self) {
        let keys = self.table.into_iter().flatten().map(|(key, _)| key.clone());
        self.passed.borrow_mut().extend(keys);
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &'static str, default: bool) -> bool {
        let parse = |value: &Value| match value {
            Value::Flag(flag) => Some(*flag),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
        self.value(key, default, "true or false", parse, |flag| flag.to_string())
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let parse = |value: &Value| integer_of(value).filter(|number| range.contains(number));
        self.value(key, default, &expected, parse, |number| number.to_string())
    }

    /// A size in bytes within `range`, written as `"256 MiB"` or a number of bytes.
    pub fn bytes(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let expected = format!(
            "a size from {} to {}, such as \"{}\"",
            show_bytes(*range.start()),
            show_bytes(*range.end()),
            show_bytes(default)
        );
        let parse = |value: &Value| {
            let bytes = match value {
                Value::Text(text) => parse_bytes(text),
                other => integer_of(other),
            };
            bytes.filter(|bytes| range.contains(bytes))
        };
        self.value(key, default, &expected, parse, |bytes| quoted(show_bytes(*bytes)))
    }

    /// A duration within `range`, written as `"30s"`.
    pub fn duration(
        &self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let expected = format!(
            "a duration from {} to {}, such as \"{}\"",
            show_duration(*range.start()),
            show_duration(*range.end()),
            show_duration(default)
        );
        let parse = |value: &Value| match value {
            Value::Text(text) => parse_duration(text).filter(|duration| range.contains(duration)),
            _ => None,
        };
        self.value(key, default, &expected, parse, |duration| quoted(show_duration(*duration)))
    }

    /// One of several names.
    pub fn choice<T: Copy + PartialEq>(
        &self,
        key: &'static str,
        default: T,
        choices: &[(&'static str, T)],
    ) -> T {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let parse = |value: &Value| match value {
            Value::Text(text) => choices.iter().find(|(name, _)| name == text).map(|(_, choice)| *choice),
            _ => None,
        };
        let show = |choice: &T| {
            let name = choices.iter().find(|(_, one)| one == choice).map_or("", |(name, _)| *name);
            quoted(name)
        };
        self.value(key, default, &format!("one of {}", names.join(", ")), parse, show)
    }

    /// Any string.
    pub fn text(&self, key: &'static str, default: &str) -> String {
        self.value(key, default.to_owned(), "a string", text_of, |text| quoted(text))
    }

    /// Any string, or none.
    pub fn optional_text(&self, key: &'static str) -> Option<String> {
        self.optional(key, "a string", text_of, |text| quoted(text))
    }

    /// A path of a file or folder.
    pub fn path(&self, key: &'static str, default: &str) -> PathBuf {
        PathBuf::from(self.text(key, default))
    }

    /// A path of a file or folder, or none.
    pub fn optional_path(&self, key: &'static str) -> Option<PathBuf> {
        self.optional_text(key).map(PathBuf::from)
    }

    /// An address to listen on, `ADDRESS:PORT`; `localhost` means 127.0.0.1.
    pub fn address(&self, key: &'static str, default: SocketAddr) -> SocketAddr {
        let parse = |value: &Value| match value {
            Value::Text(text) => match text.strip_prefix("localhost:") {
                Some(port) => format!("127.0.0.1:{port}").parse().ok(),
                None => text.parse().ok(),
            },
            _ => None,
        };
        let expected = "an address and a port, such as \"127.0.0.1:7878\" or \"[::]:7878\"";
        self.value(key, default, expected, parse, |address: &SocketAddr| quoted(address.to_string()))
    }

    /// A URL with one of `schemes`, kept without a closing slash.
    pub fn url(&self, key: &'static str, default: &str, schemes: &[&str]) -> String {
        let starts: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
        let parse = |value: &Value| {
            let Value::Text(text) = value else { return None };
            let rest = starts.iter().find_map(|start| text.strip_prefix(start.as_str()))?;
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let plain = !text.contains(|c: char| c.is_whitespace() || c.is_control()) && !host.contains('@');
            (plain && !host.is_empty()).then(|| text.trim_end_matches('/').to_owned())
        };
        let expected = format!("a URL that begins with {}", starts.join(" or "));
        self.value(key, default.to_owned(), &expected, parse, |text| quoted(text))
    }

    /// A list of strings, each accepted by `check`. One string with commas is a list too.
    pub fn names(
        &self,
        key: &'static str,
        default: &[&str],
        expected: &str,
        check: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let default: Vec<String> = default.iter().map(|name| (*name).to_owned()).collect();
        let parse = |value: &Value| {
            let names = strings_of(value)?;
            names.iter().all(|name| check(name)).then_some(names)
        };
        let show = |names: &Vec<String>| {
            let items: Vec<_> = names.iter().map(quoted).collect();
            format!("[{}]", items.join(", "))
        };
        self.value(key, default, expected, parse, show)
    }

    /// A value of a kind that only the caller knows: `parse` judges it, `show` prints it as TOML.
    pub fn custom<T>(
        &self,
        key: &'static str,
        default: T,
        expected: &str,
        parse: impl Fn(&Value) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> T {
        self.value(key, default, expected, parse, show)
    }

    /// Like [`Section::custom`], without a default.
    pub fn optional_custom<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&Value) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        self.optional(key, expected, parse, show)
    }

    /// A secret: never printed, neither by the report nor among the effective settings.
    pub fn secret(&self, key: &'static str) -> Option<Secret> {
        let node = self.node(key);
        let secret = match node.map(|node| &node.value) {
            Some(Value::Text(text)) => Some(Secret::new(text.trim())),
            Some(other) => {
                let what = format!("expected a string, got {}", other.kind());
                self.note(key, what, node.map(|node| node.origin.clone()));
                None
            }
            None => None,
        };
        let shown = if secret.is_some() { Shown::Masked } else { Shown::Unset };
        self.record(key, shown, node);
        secret
    }

    /// A secret under `key`, or else the content of the file that `file_key` names.
    pub fn secret_or_file(&self, key: &'static str, file_key: &'static str) -> Option<Secret> {
        let secret = self.secret(key);
        let file = self.optional_path(file_key);
        if secret.is_some() {
            return secret;
        }
        match std::fs::read_to_string(file?) {
            Ok(text) if !text.trim().is_empty() => Some(Secret::new(text.trim())),
            Ok(_) => {
                self.problem(file_key, "the file is empty");
                None
            }
            Err(error) => {
                self.problem(file_key, format!("cannot read the file: {error}"));
                None
            }
        }
    }

    /// Where the value under `key` was written, if it was.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&'d Origin> {
        self.table.and_then(|table| table.get(key)).map(|node| &node.origin)
    }

    /// Notes that something about `key` is wrong, for checks over several keys.
    pub fn problem(&self, key: &str, what: impl Display) {
        self.note(key, what.to_string(), self.origin(key).cloned());
    }

    /// Reports what nobody asked for.
    pub(super) fn finish(&self) {
        let (known, passed) = (self.known.borrow(), self.passed.borrow());
        for (key, node) in self.table.into_iter().flatten() {
            if !known.contains(&key.as_str()) && !passed.contains(key) {
                let found = (self.path.clone(), key.clone(), node.origin.clone());
                self.findings.unknown.borrow_mut().push(found);
            }
        }
    }

    pub(super) fn node(&self, key: &'static str) -> Option<&'d Node> {
        self.known.borrow_mut().push(key);
        self.table.and_then(|table| table.get(key))
    }

    fn value<T>(
        &self,
        key: &'static str,
        default: T,
        expected: &str,
        parse: impl Fn(&Value) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> T {
        let node = self.node(key);
        let parsed = node.and_then(|node| parse(&node.value));
        if parsed.is_none() && node.is_some() {
            self.expected(key, expected, node);
        }
        let value = parsed.unwrap_or(default);
        self.record(key, Shown::Plain(show(&value)), node);
        value
    }

    fn optional<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&Value) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let node = self.node(key);
        let parsed = node.and_then(|node| parse(&node.value));
        if parsed.is_none() && node.is_some() {
            self.expected(key, expected, node);
        }
        self.record(key, parsed.as_ref().map_or(Shown::Unset, |value| Shown::Plain(show(value))), node);
        parsed
    }

    pub(super) fn expected(&self, key: &str, expected: &str, node: Option<&Node>) {
        let Some(node) = node else { return };
        let mut what = format!("expected {expected}, got {}", node.value);
        // A misspelt choice is the commonest wrong value, and the list of choices is in the sentence already.
        if let Value::Text(text) = &node.value
            && let Some(near) = nearest(text, expected.split('"').skip(1).step_by(2))
            && expected.starts_with("one of")
        {
            what.push_str(&format!("; did you mean \"{near}\"?"));
        }
        self.note(key, what, Some(node.origin.clone()));
    }

    fn note(&self, key: &str, what: String, origin: Option<Origin>) {
        let path = self.path_of(key);
        self.findings.problems.borrow_mut().push(Problem { path, what, origin });
    }

    fn record(&self, key: &str, shown: Shown, node: Option<&Node>) {
        self.findings.entries.borrow_mut().push(Entry {
            section: self.path.clone(),
            key: key.to_owned(),
            shown,
            origin: node.map(|node| node.origin.clone()),
        });
    }

    /// The whole path of a key of this section.
    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}
