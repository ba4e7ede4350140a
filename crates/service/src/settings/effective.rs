// SPDX-License-Identifier: AGPL-3.0-only
//! The effective settings: every key that was asked for, the value in force and where it came from, secrets masked.

use std::fmt;

use super::value::Origin;

/// What stands for a secret that is set.
const MASK: &str = "\"********\"";

/// One key that the program asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) shown: Shown,
    pub(super) origin: Option<Origin>,
}

/// How an entry's value is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// As TOML.
    Plain(String),
    /// A secret that is set.
    Masked,
    /// Neither set nor with a default.
    Unset,
}

/// Every key that was asked for with the value in force; its `Display` is a settings file with origins as comments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    pub(super) entries: Vec<Entry>,
}

impl Effective {
    /// The whole path of every key that the program knows, in the order of reading.
    pub fn paths(&self) -> impl Iterator<Item = String> + '_ {
        self.entries.iter().map(Entry::path)
    }

    /// The value in force at a path, as TOML; `None` if it is unset, secret or unknown.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<&str> {
        self.entries.iter().find(|entry| entry.path() == path).and_then(|entry| match &entry.shown {
            Shown::Plain(text) => Some(text.as_str()),
            Shown::Masked | Shown::Unset => None,
        })
    }
}

impl Entry {
    pub(super) fn path(&self) -> String {
        if self.section.is_empty() { self.key.clone() } else { format!("{}.{}", self.section, self.key) }
    }

    fn line(&self) -> String {
        match &self.shown {
            Shown::Plain(text) => format!("{} = {text}", self.key),
            Shown::Masked => format!("#{} = {MASK}", self.key),
            Shown::Unset => format!("#{} =", self.key),
        }
    }

    fn comment(&self) -> String {
        match (&self.origin, &self.shown) {
            (Some(origin), _) => origin.to_string(),
            (None, Shown::Plain(_)) => "default".to_owned(),
            (None, _) => "not set".to_owned(),
        }
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sections: Vec<&str> = Vec::new();
        for entry in &self.entries {
            if !sections.contains(&entry.section.as_str()) {
                sections.push(&entry.section);
            }
        }
        for (index, section) in sections.iter().enumerate() {
            let between = if index == 0 { "" } else { "\n" };
            let entries = || self.entries.iter().filter(|entry| entry.section == *section);
            // The head of an optional section would switch it on.
            let off = if entries().all(|entry| entry.shown == Shown::Unset) { "#" } else { "" };
            // One of a list of tables: `ws.amqp.queues[0]`.
            match section.strip_suffix(']').and_then(|section| section.rsplit_once('[')) {
                Some((list, _)) => writeln!(f, "{between}[[{list}]]")?,
                None => writeln!(f, "{between}{off}[{section}]")?,
            }
            for entry in entries() {
                writeln!(f, "{:<56} # {}", entry.line(), entry.comment())?;
            }
        }
        Ok(())
    }
}
