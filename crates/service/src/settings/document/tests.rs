// SPDX-License-Identifier: AGPL-3.0-only
//! Documents read as a service would read them.

use std::time::Duration;

use super::*;
use crate::settings::{KIB, MIB};

#[test]
fn an_empty_document_gives_the_defaults() {
    let reading = Document::empty().read(Example::read);
    assert_eq!(reading.problems, []);
    assert_eq!(
        reading.value,
        Example { size: MIB, wait: Duration::from_secs(5), mode: Mode::Fast, inner: None }
    );
}

#[test]
fn later_sources_lie_over_earlier_ones_key_by_key() {
    let mut document = Document::parse("[a]\nsize = \"2 KiB\"\nwait = \"1s\"\n", "f.toml").expect("TOML");
    document.environment(variables(&[("HOLDFAST__A__WAIT", "2s"), ("HOLDFAST__A__SIZE", "")]));
    document.set("a.mode", Value::Text("slow".to_owned()), Origin::Argument("--slow".to_owned()));
    let reading = document.read(Example::read);
    assert_eq!(reading.problems, []);
    let expected = Example { size: 2 * KIB, wait: Duration::from_secs(2), mode: Mode::Slow, inner: None };
    assert_eq!(reading.value, expected);
}

#[test]
fn a_table_given_whole_by_a_variable_keeps_keys_that_are_given_apart() {
    for whole in ["{ one = 1, two = 2 }", r#"{"one": 1, "two": 2}"#] {
        let mut document = Document::empty();
        document.environment(variables(&[("HOLDFAST__A__INNER__TWO", "3"), ("HOLDFAST__A__INNER", whole)]));
        assert_eq!(document.read(Example::read).value.inner, Some((1, 3)), "{whole}");
    }
}

#[test]
fn numbers_below_and_beyond_the_range_are_refused_and_the_default_stands_in() {
    for wrong in ["\"1 KiB\"", "\"2 GiB\"", "-1", "1.5", "true", "\"much\"", "[]"] {
        let text = format!("[a]\nsize = {wrong}\n");
        let reading = Document::parse(&text, "f.toml").expect("TOML").read(Example::read);
        assert_eq!(reading.value.size, MIB, "{wrong}");
        let said: Vec<_> = reading.problems.iter().map(ToString::to_string).collect();
        let begins = "a.size: expected a size from 2 KiB to 1 GiB, such as \"1 MiB\", got ";
        assert!(
            said.len() == 1 && said[0].starts_with(begins) && said[0].ends_with("(f.toml, line 2)"),
            "{said:?}"
        );
    }
}

#[test]
fn a_misspelt_choice_is_told_its_neighbour() {
    let reading = Document::parse("a.mode = \"fats\"", "f.toml").expect("TOML").read(Example::read);
    let said = reading.problems[0].to_string();
    assert!(said.contains("one of \"fast\", \"slow\"") && said.contains("did you mean \"fast\"?"), "{said}");
}

#[test]
fn a_key_is_offered_from_its_own_section_first_and_else_from_anywhere() {
    for (written, offered) in [
        ("[a]\nsice = 1", "did you mean `size`?"),
        ("wait = \"1s\"", "did you mean `a.wait`?"),
        ("[a]\none = 1", "did you mean `a.inner.one`?"),
        ("[a.iner]\none = 1", "did you mean `inner`?"),
        ("[a]\nxyzzy = 1", "unknown key ("),
    ] {
        let reading = Document::parse(written, "f.toml").expect("TOML").read(Example::read);
        let said = reading.problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(said.len() == 1 && said[0].contains(offered), "{written}: {said:?}");
    }
}

#[test]
fn a_value_where_a_table_belongs_is_refused() {
    let reading = Document::parse("a = 3", "f.toml").expect("TOML").read(Example::read);
    assert_eq!(reading.problems[0].to_string(), "a: expected a table, got 3 (f.toml, line 1)");
}

#[test]
fn an_unknown_key_is_named_without_its_value() {
    let reading = Document::parse("tokn = \"very.secret\"", "f.toml").expect("TOML").read(Example::read);
    assert!(!reading.problems[0].to_string().contains("secret"));
}

#[test]
fn all_errors_of_syntax_are_named_with_their_lines() {
    let problems = Document::parse("[a\nsize = 1\n[b]\nx = = 2\n", "f.toml").expect_err("no TOML");
    let said = problems.to_string();
    assert!(said.contains("f.toml, line 1") && said.contains("f.toml, line 4"), "{said}");
}

#[derive(Debug, PartialEq, Eq)]
struct Example {
    size: u64,
    wait: Duration,
    mode: Mode,
    inner: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Fast,
    Slow,
}

impl Example {
    fn read(root: &Section<'_>) -> Self {
        root.section("a", |a| Self {
            size: a.bytes("size", MIB, 2 * KIB..=1024 * MIB),
            wait: a.duration("wait", Duration::from_secs(5), Duration::ZERO..=Duration::from_secs(60)),
            mode: a.choice("mode", Mode::Fast, &[("fast", Mode::Fast), ("slow", Mode::Slow)]),
            inner: a.optional_section("inner", |inner| {
                (inner.integer("one", 0, 0..=9), inner.integer("two", 0, 0..=9))
            }),
        })
    }
}

fn variables(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
