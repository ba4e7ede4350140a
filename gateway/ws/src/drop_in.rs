// SPDX-License-Identifier: AGPL-3.0-only
//! A `config.json` in the form of gateway-proxy comes in, our own settings go out, with a warning for each key that
//! has no meaning here. docs/migration.md has the same mapping as a table.

pub(crate) mod metrics;

use std::path::Path;
use std::sync::Arc;

use holdfast_service::settings::{Document, Origin, Problem, Problems, Translated, Value};
use serde_json::{Map, Value as Json};

/// Port when the file names none.
const PORT: u64 = 7878;

/// Pages that are asked for on the front's own port.
const PAGES: [&str; 4] = ["/metrics", "/shard-count", "/healthz", "/readyz"];

/// Keys that are ours under another name, with the same meaning.
const RENAMED: [(&str, &str); 7] = [
    ("log_level", "log.level"),
    ("token", "discord.token"),
    ("intents", "discord.intents"),
    ("shards", "ws.shards.total"),
    ("shard_start", "ws.shards.start"),
    ("shard_end", "ws.shards.end"),
    ("validate_token", "ws.validate_token"),
];

/// Keys that are translated one by one below.
const TRANSLATED: [&str; 6] =
    ["port", "activity", "status", "externally_accessible_url", "twilight_http_proxy", "cache"];

/// Flags of `cache`: theirs, ours, and what it is when the file has no `cache`.
const CACHE: [(&str, &[&str], bool); 9] = [
    ("channels", &["channels", "threads"], true),
    ("presences", &["presences"], false),
    ("emojis", &["emojis"], false),
    ("members", &["members"], false),
    ("roles", &["roles"], true),
    ("scheduled_events", &["scheduled_events"], false),
    ("stage_instances", &["stage_instances"], false),
    ("stickers", &["stickers"], false),
    ("voice_states", &["voice_states"], false),
];

/// Loads and translates a file; the environment may hold the token as `TOKEN`.
pub(crate) fn load(path: &Path, environment: &[(String, String)]) -> Result<Translated, Problems> {
    let name = path.display().to_string();
    let problem = |what: String| Problems(vec![Problem { path: String::new(), what, origin: None }]);
    let text =
        std::fs::read_to_string(path).map_err(|error| problem(format!("cannot read {name}: {error}")))?;
    let json: Json =
        serde_json::from_str(&text).map_err(|error| problem(format!("{name} is not JSON: {error}")))?;
    match json {
        Json::Object(keys) => Ok(translate(&keys, &name, environment)),
        _ => Err(problem(format!("{name} holds no JSON object"))),
    }
}

/// A translation under way.
struct Translation {
    document: Document,
    warnings: Vec<String>,
    name: Arc<str>,
}

fn translate(keys: &Map<String, Json>, name: &str, environment: &[(String, String)]) -> Translated {
    let mut to = Translation { document: Document::empty(), warnings: Vec::new(), name: name.into() };
    for (key, value) in keys.iter().filter(|(_, value)| !value.is_null()) {
        if let Some((_, path)) = RENAMED.iter().find(|(theirs, _)| theirs == key) {
            to.set(path, value, key);
        } else if !TRANSLATED.contains(&key.as_str()) {
            to.warn_of(key);
        }
    }
    to.token(keys, environment);
    to.listener(keys);
    to.presence(keys);
    to.cache(keys.get("cache"));
    if let Some(proxy) = keys.get("twilight_http_proxy").and_then(Json::as_str) {
        let url = format!("http://{}/api/v10", proxy.trim_start_matches("http://").trim_end_matches('/'));
        to.set("discord.api_url", &url.into(), "twilight_http_proxy");
    }
    Translated { document: to.document, warnings: to.warnings }
}

impl Translation {
    fn set(&mut self, path: &str, value: &Json, key: &str) {
        let origin = Origin::Key { name: Arc::clone(&self.name), key: key.to_owned() };
        if let Some(value) = Value::from_json(value, &origin) {
            self.document.set(path, value, origin);
        }
    }

    fn warn(&mut self, key: &str, why: &str) {
        self.warnings.push(format!("{}: {key} has no meaning here: {why}", self.name));
    }

    fn warn_of(&mut self, key: &str) {
        match key {
            "backpressure" => self.warn(
                key,
                "clients read from a log, bounded by ws.log, and one that falls behind is told so",
            ),
            _ => self.warn(key, "the key is known neither to us nor to the program whose form this is"),
        }
    }

    /// An empty token counts as none, as in the example file; then the variable holds it.
    fn token(&mut self, keys: &Map<String, Json>, environment: &[(String, String)]) {
        let written = keys.get("token").and_then(Json::as_str).is_some_and(|token| !token.is_empty());
        let variable = environment.iter().find(|(name, value)| name == "TOKEN" && !value.is_empty());
        match variable {
            Some((name, token)) if !written => {
                let origin = Origin::Environment(name.clone());
                self.document.set("discord.token", Value::Text(token.clone()), origin);
            }
            _ => {}
        }
    }

    /// One port for everything, on all addresses, without an admin listener beside it.
    fn listener(&mut self, keys: &Map<String, Json>) {
        let port = keys.get("port").cloned().unwrap_or_else(|| PORT.into());
        self.set("ws.listen", &format!("0.0.0.0:{port}").into(), "port");
        self.set("ws.pages", &PAGES.to_vec().into(), "port");
        self.set("admin.enabled", &false.into(), "port");
        match keys.get("externally_accessible_url") {
            Some(url) => self.set("ws.public_url", url, "externally_accessible_url"),
            None => self.set("ws.public_url", &format!("ws://localhost:{port}").into(), "port"),
        }
    }

    fn presence(&mut self, keys: &Map<String, Json>) {
        let status = keys.get("status").filter(|status| !status.is_null());
        let activity = keys.get("activity").filter(|activity| !activity.is_null());
        let key = if status.is_some() { "status" } else { "activity" };
        if status.is_none() && activity.is_none() {
            return;
        }
        let mut presence = Map::new();
        presence.insert("status".to_owned(), status.cloned().unwrap_or_else(|| "online".into()));
        if let Some(activity) = activity {
            presence.insert("activities".to_owned(), vec![activity.clone()].into());
        }
        self.set("ws.presence", &presence.into(), key);
    }

    fn cache(&mut self, cache: Option<&Json>) {
        let written = cache.and_then(Json::as_object);
        for (theirs, ours, default) in CACHE {
            let value =
                written.and_then(|cache| cache.get(theirs)).cloned().unwrap_or_else(|| default.into());
            for flag in ours {
                self.set(&format!("ws.cache.{flag}"), &value, &format!("cache.{theirs}"));
            }
        }
        for (key, value) in written.into_iter().flatten() {
            match key.as_str() {
                "current_member" if value == &Json::Bool(false) => {
                    self.warn("cache.current_member", "the bot's own member is always kept");
                }
                "users" if value == &Json::Bool(true) => {
                    self.warn(
                        "cache.users",
                        "users are kept with the members that they belong to (ws.cache.members)",
                    );
                }
                "current_member" | "users" => {}
                _ if CACHE.iter().any(|(theirs, ..)| theirs == key) => {}
                _ => self.warn_of(&format!("cache.{key}")),
            }
        }
    }
}

#[cfg(test)]
mod tests;
