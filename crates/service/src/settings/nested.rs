// SPDX-License-Identifier: AGPL-3.0-only
//! Sections within sections: tables that are always read, that may be absent, that there is a list of.

use std::cell::RefCell;

use super::effective::Shown;
use super::section::Section;
use super::value::Value;

impl Section<'_> {
    /// Reads the section under `key`, with everything at its default if it isn't there.
    pub fn section<T>(&self, key: &'static str, read: impl FnOnce(&Section<'_>) -> T) -> T {
        let node = self.node(key);
        let table = match node.map(|node| &node.value) {
            Some(Value::Table(table)) => Some(table),
            Some(_) => {
                self.expected(key, "a table", node);
                None
            }
            None => None,
        };
        let path = self.path_of(key);
        self.findings.sections.borrow_mut().push(path.clone());
        let (known, passed) = (RefCell::default(), RefCell::default());
        let inner = Section { path, table, findings: self.findings, known, passed };
        let value = read(&inner);
        inner.finish();
        value
    }

    /// Like [`Section::section`], but `None` if the section isn't there; its keys are known all the same.
    pub fn optional_section<T>(&self, key: &'static str, read: impl FnOnce(&Section<'_>) -> T) -> Option<T> {
        self.section(key, |section| {
            let before = self.findings.problems.borrow().len();
            let entries = self.findings.entries.borrow().len();
            let value = read(section);
            if !section.is_written() {
                self.findings.problems.borrow_mut().truncate(before);
                // Its defaults aren't in force.
                for entry in &mut self.findings.entries.borrow_mut()[entries..] {
                    entry.shown = Shown::Unset;
                }
            }
            section.is_written().then_some(value)
        })
    }

    /// A list of tables (`[[key]]`), each read as a section of its own.
    pub fn tables<T>(&self, key: &'static str, read: impl Fn(&Section<'_>) -> T) -> Vec<T> {
        let node = self.node(key);
        let nodes = match node.map(|node| &node.value) {
            Some(Value::List(nodes)) => nodes.as_slice(),
            Some(_) => {
                self.expected(key, "a list of tables", node);
                &[]
            }
            None => &[],
        };
        let mut values = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let Value::Table(table) = &node.value else {
                self.expected(key, "a list of tables", Some(node));
                continue;
            };
            let path = format!("{}[{index}]", self.path_of(key));
            let (known, passed) = (RefCell::default(), RefCell::default());
            let inner = Section { path, table: Some(table), findings: self.findings, known, passed };
            values.push(read(&inner));
            inner.finish();
        }
        values
    }
}
