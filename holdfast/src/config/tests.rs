// SPDX-License-Identifier: AGPL-3.0-only
//! The settings file in the root, and what is said about settings that are wrong.

use holdfast_service::settings::{Document, Problem, Written};

use super::*;

const FILE: &str = include_str!("../../../holdfast.toml");

#[test]
fn the_settings_file_holds_the_defaults() {
    let file = ALL.read(&Document::parse(FILE, "holdfast.toml").expect("TOML"));
    let defaults = ALL.read(&Document::empty());
    assert_eq!(file.value, defaults.value);
    assert_eq!(paths(&file.problems), ["discord.token"], "only the token is missing");
}

#[test]
fn the_settings_file_names_every_key_with_its_default() {
    let file = Document::parse(FILE, "holdfast.toml").expect("TOML");
    let defaults = ALL.read(&Document::empty()).effective;
    for path in defaults.paths() {
        let last = path.rsplit('.').next().expect("a last part");
        let optional = FILE.contains(&format!("\n#{last} = "));
        let within_optional = FILE.lines().any(|line| {
            line.starts_with('#') && line.contains(&format!("{{ {last} = "))
                || line.contains(&format!(", {last} = "))
        });
        assert!(file.get(&path).is_some() || optional || within_optional, "{path} isn't in holdfast.toml");
    }
}

#[test]
fn the_settings_without_a_default_are_well_in_the_file() {
    let uncommented: String = FILE.lines().map(|line| uncommented(line) + "\n").collect();
    let reading = ALL.read(&Document::parse(&uncommented, "holdfast.toml").expect("TOML"));
    assert_eq!(paths(&reading.problems), ["api.tokens_file"], "only that file isn't there");
    assert!(reading.value.services.ws.presence.is_some() && reading.value.services.ws.tls.is_some());
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_the_nearest_key_and_its_place() {
    let text = "[discord]\ntoken = \"t\"\ncompression = \"zstd\"\n[ws]\nlisten = \"7878\"\nheartbeat_intervall = \"1s\"\n\
                memory = \"1 GiB\"\nshards = { total = 4, start = 4 }\n[ws.log]\nage = 30\n[voice]\n[wss]\n";
    let problems = ALL.read(&Document::parse(text, "my.toml").expect("TOML")).problems;
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    for expected in [
        "discord.compression: expected one of \"zstd-stream\", \"zlib-stream\", \"none\", got \"zstd\" (my.toml, line 3)",
        "ws.listen: expected an address and a port, such as \"127.0.0.1:7878\" or \"[::]:7878\", got \"7878\" (my.toml, line 5)",
        "ws.heartbeat_intervall: unknown key; did you mean `heartbeat_interval`? (my.toml, line 6)",
        "ws.memory: unknown key; did you mean `ws.log.memory`? (my.toml, line 7)",
        "ws.shards.start: shards are numbered from 0, and there are 4 (my.toml, line 8)",
        "ws.log.age: expected a duration from 1m to 7d, such as \"1d\", got 30 (my.toml, line 10)",
        "voice: this service is planned, and not part of this version: take the section out (my.toml, line 11)",
        "wss: unknown key; did you mean `ws`? (my.toml, line 12)",
    ] {
        assert!(said.iter().any(|line| line == expected), "{expected}\nnot in {said:#?}");
    }
    assert_eq!(said.len(), 8, "{said:#?}");
}

#[test]
fn the_environment_lies_over_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("holdfast.toml");
    std::fs::write(&path, "[ws]\nlisten = \"127.0.0.1:1\"\nmax_clients = 5\n").expect("writes");
    let variables = [
        ("DISCORD_TOKEN", "from.the.environment"),
        ("HOLDFAST__WS__LISTEN", "0.0.0.0:2"),
        ("HOLDFAST__WS__SHARDS__TOTAL", "8"),
        ("HOLDFAST__WS__CACHE__MEMBERS", "true"),
        ("HOLDFAST__WS__CATCH_UP", "MESSAGE_CREATE,MESSAGE_DELETE"),
        ("HOLDFAST__WS__PRESENCE", r#"{"status":"idle"}"#),
        ("HOLDFAST__LOG__LEVEL", ""),
        ("HOLDFAST_CONFIG", "not a setting"),
        ("HOME", "/root"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let written = Written::of(Some(path), variables, None).expect("parses");
    let settings = ALL.read(&written.document).into_result().expect("nothing is wrong");
    assert_eq!(settings.services.ws.listen.to_string(), "0.0.0.0:2");
    assert_eq!(settings.services.ws.max_clients, 5);
    assert_eq!(settings.services.ws.shards.total, Some(8));
    assert!(settings.services.ws.cache.members);
    assert_eq!(settings.services.ws.catch_up.len(), 2);
    assert_eq!(settings.services.ws.presence.expect("set")["status"], "idle");
    assert!(settings.services.ws.discord.token.matches("from.the.environment"));
    assert_eq!(settings.log.level, "info");
}

#[test]
fn a_wrong_variable_is_named() {
    let variables = [("HOLDFAST__WS__LISTN".to_owned(), "x".to_owned())];
    let problems = ALL.read(&Written::of(None, variables, None).expect("parses").document).problems;
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let expected =
        "ws.listn: unknown key; did you mean `listen`? (environment variable HOLDFAST__WS__LISTN)".to_owned();
    assert!(said.contains(&expected), "{said:#?}");
}

#[test]
fn what_is_printed_masks_the_token_and_reads_back_the_same() {
    let text =
        "[discord]\ntoken = \"very.secret.token\"\n[ws]\nheartbeat_interval = \"500ms\"\nmax_clients = 9\n";
    let reading = ALL.read(&Document::parse(text, "my.toml").expect("TOML"));
    let printed = show(&reading.effective, None);
    assert!(!printed.contains("secret.token"), "{printed}");
    assert!(printed.contains("max_clients = 9") && printed.contains("# my.toml, line 5"), "{printed}");
    let again = ALL.read(&Document::parse(&printed, "printed").expect("TOML"));
    assert_eq!(paths(&again.problems), ["discord.token"], "only the token is missing");
    let mut again = again.value;
    assert!(again.services.ws.discord.token.is_empty());
    again.services.ws.discord.token = reading.value.services.ws.discord.token.clone();
    again.services.api.token = reading.value.services.api.token.clone();
    // Every section is printed, so that every service is wanted.
    again.services.wanted = reading.value.services.wanted;
    assert_eq!(again, reading.value);
}

#[test]
fn a_token_file_is_read_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, "Bot file.token\n").expect("writes");
    let with = |path: &Path| format!("[discord]\ntoken_file = {:?}\n", path.display().to_string());
    let reading = ALL.read(&Document::parse(&with(&path), "my.toml").expect("TOML"));
    assert!(reading.value.services.ws.discord.token.matches("file.token"));
    let missing = Document::parse(&with(&folder.path().join("no")), "my.toml").expect("TOML");
    assert!(paths(&ALL.read(&missing).problems).contains(&"discord.token_file".to_owned()));
}

#[test]
fn text_that_is_no_toml_is_named_with_its_line() {
    let problems = Document::parse("[ws]\nlisten = \nport == 3\n", "my.toml").expect_err("no TOML");
    assert!(problems.to_string().contains("my.toml, line 2"), "{problems}");
}

fn paths(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| problem.path.clone()).collect()
}

/// The line with its setting switched on, if it holds one that is off.
fn uncommented(line: &str) -> String {
    match line.strip_prefix('#') {
        Some(rest)
            if rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '[')
                && !rest.starts_with("token_file") =>
        {
            rest.to_owned()
        }
        _ => line.to_owned(),
    }
}
