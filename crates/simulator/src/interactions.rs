// SPDX-License-Identifier: AGPL-3.0-only
//! Interactions over HTTP ("Receiving and Responding to Interactions"): posts them signed, times and judges the answers,
//! and takes what follows by REST.
//!
//! In: wishes of tests, requests with an interaction's token. Out: answers with Discord's verdict on them. An interaction
//! that is not answered within 3 s is void, one that is lasts 15 minutes.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::control::Control;
use crate::hub::{Hub, lock};
use crate::posting::Signing;
use crate::webhooks::says_something;
use crate::world::BOT_USER;

/// What an initial answer may take.
const WITHIN: Duration = Duration::from_secs(3);
/// How long a token lasts.
const LASTS: Duration = Duration::from_secs(15 * 60);
/// Interactions that are remembered; then all are forgotten.
const REMEMBERED: usize = 100_000;

/// What a user does.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Press {
    /// Type of the interaction: 2 a command, 3 a component, 4 autocomplete, 5 a modal.
    pub kind: u64,
    /// The command's name, or the `custom_id`.
    pub name: String,
    /// Where; none for a direct message.
    #[serde(deserialize_with = "id")]
    pub guild: Option<u64>,
    /// A modal that a component opened. Components always belong to a message.
    pub message: bool,
    /// How it is signed.
    pub signing: Signing,
}

/// Ids are text in JSON: JavaScript's numbers aren't exact enough.
fn text<S: serde::Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// A text or a number.
fn id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_u64().or_else(|| value.as_str()?.parse().ok()))
}

impl Default for Press {
    fn default() -> Self {
        Self { kind: 2, name: "ping".to_owned(), guild: None, message: false, signing: Signing::Right }
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Pressed {
    /// The interaction.
    #[serde(serialize_with = "text")]
    pub id: u64,
    /// What it is answered by.
    pub token: String,
    /// Status of the answer; 0: there was none.
    pub status: u16,
    /// How long it took.
    pub took_ms: u64,
    /// Kind of the answer's body.
    pub content_type: String,
    /// The answer, where it is JSON; else null.
    pub answer: Value,
    /// Why Discord shows the user that the interaction failed; none: it doesn't.
    pub failure: Option<String>,
}

/// An interaction as Discord has it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Followed {
    /// Type of the initial answer.
    pub callback: Option<u64>,
    /// Its `data`, where that came by REST.
    pub data: Value,
    /// Whether that came by REST.
    pub by_rest: bool,
    /// Bodies of edits of the original answer.
    pub edits: Vec<Value>,
    /// Bodies of messages that follow.
    pub follow_ups: Vec<Value>,
    #[serde(skip)]
    kind: u64,
    #[serde(skip)]
    has_message: bool,
    #[serde(skip)]
    begun: Option<Instant>,
}

/// All interactions by their tokens.
pub(crate) type Interactions = HashMap<String, Followed>;

impl Control {
    /// A user does something; Discord posts it to `url`.
    pub async fn press(&self, url: &str, press: &Press) -> Pressed {
        let id = self.hub.snowflakes.next();
        let token = format!("interaction-token-{id}");
        let body = Bytes::from(body(&self.hub, press, id, &token).to_string());
        let has_message = press.kind == 3 || press.message;
        let followed =
            Followed { kind: press.kind, has_message, begun: Some(Instant::now()), ..Followed::default() };
        {
            let mut known = lock(&self.hub.interactions);
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(token.clone(), followed);
        }
        let posted = self.post(url, body, &press.signing).await;
        let answer: Value = serde_json::from_slice(&posted.body).unwrap_or(Value::Null);
        let mut pressed = Pressed {
            id,
            token,
            status: posted.status,
            took_ms: u64::try_from(posted.took.as_millis()).unwrap_or(u64::MAX),
            content_type: posted.content_type,
            answer,
            failure: None,
        };
        pressed.failure = self.judge(&pressed, posted.took).err();
        self.hub.changed();
        pressed
    }

    /// What has become of an interaction.
    #[must_use]
    pub fn followed(&self, token: &str) -> Followed {
        lock(&self.hub.interactions).get(token).cloned().unwrap_or_default()
    }

    fn judge(&self, pressed: &Pressed, took: Duration) -> Result<(), String> {
        let mut known = lock(&self.hub.interactions);
        let followed = known.get_mut(&pressed.token).ok_or("the interaction is forgotten")?;
        if took > WITHIN {
            return Err(format!("answered after {took:?}"));
        }
        match pressed.status {
            200 => {
                let multipart = pressed.content_type.starts_with("multipart/form-data");
                if !multipart && !pressed.content_type.starts_with("application/json") {
                    return Err(format!("a body of type {:?}", pressed.content_type));
                }
                let callback = pressed.answer["type"].as_u64();
                // What is in a form isn't looked into.
                let callback = callback.or(multipart.then_some(4)).ok_or("no response")?;
                answered(followed, callback, false)
            }
            // By REST, before or after.
            202 => Ok(()),
            status => Err(format!("status {status}")),
        }
    }
}

/// An initial answer. The kinds that each takes: notes below "Interaction Callback Type".
fn answered(followed: &mut Followed, callback: u64, by_rest: bool) -> Result<(), String> {
    let fits = match followed.kind {
        1 => callback == 1,
        4 => callback == 8,
        2 => [4, 5, 9, 10, 12].contains(&callback),
        3 => [4, 5, 6, 7, 9, 10, 12].contains(&callback),
        5 if followed.has_message => [4, 5, 6, 7, 10, 12].contains(&callback),
        5 => [4, 5, 10, 12].contains(&callback),
        _ => true,
    };
    if !fits {
        return Err(format!("a response of type {callback} to an interaction of type {}", followed.kind));
    }
    if followed.callback.is_some() {
        return Err("Interaction has already been acknowledged.".to_owned());
    }
    (followed.callback, followed.by_rest) = (Some(callback), by_rest);
    Ok(())
}

/// "Create Interaction Response". Of interactions that a test made up as events everything is taken.
pub(crate) fn callback(hub: &Hub, token: &str, response: &Value) -> Response {
    let mut known = lock(&hub.interactions);
    let Some(followed) = known.get_mut(token) else { return StatusCode::NO_CONTENT.into_response() };
    if followed.begun.is_none_or(|begun| begun.elapsed() > WITHIN) && followed.callback.is_none() {
        return refused(StatusCode::NOT_FOUND, 10_062, "Unknown interaction");
    }
    let callback = response["type"].as_u64().unwrap_or(0);
    match answered(followed, callback, true) {
        Ok(()) => {
            followed.data = response["data"].clone();
            StatusCode::NO_CONTENT.into_response()
        }
        Err(reason) if followed.callback.is_some() => refused(StatusCode::BAD_REQUEST, 40_060, &reason),
        Err(reason) => refused(StatusCode::BAD_REQUEST, 50_035, &reason),
    }
}

/// A message that follows ("Create Followup Message"). None: the token isn't an interaction's.
pub(crate) fn follow_up(hub: &Hub, token: &str, body: impl FnOnce() -> Value) -> Option<Response> {
    with(hub, token, body, |followed, message| followed.follow_ups.push(message))
}

/// An edit of the answer ("Edit Original Interaction Response"). None: the token isn't an interaction's.
pub(crate) fn edit(hub: &Hub, token: &str, body: impl FnOnce() -> Value) -> Option<Response> {
    with(hub, token, body, |followed, message| followed.edits.push(message))
}

fn with(
    hub: &Hub,
    token: &str,
    message: impl FnOnce() -> Value,
    what: impl FnOnce(&mut Followed, Value),
) -> Option<Response> {
    let mut known = lock(&hub.interactions);
    let followed = known.get_mut(token)?;
    let lasts = followed.begun.is_some_and(|begun| begun.elapsed() < LASTS);
    // Without an answer in time the token is void.
    if followed.callback.is_none() || !lasts {
        return Some(refused(StatusCode::NOT_FOUND, 10_015, "Unknown Webhook"));
    }
    let message = message();
    if !says_something(&message) {
        return Some(refused(StatusCode::BAD_REQUEST, 50_006, "Cannot send an empty message"));
    }
    what(followed, message);
    drop(known);
    hub.changed();
    let id = hub.snowflakes.next().to_string();
    Some(Json(json!({"id": id, "channel_id": "1", "content": "", "type": 0})).into_response())
}

fn refused(status: StatusCode, code: u32, message: &str) -> Response {
    (status, Json(json!({"message": message, "code": code}))).into_response()
}

/// The interaction as Discord sends it.
fn body(hub: &Hub, press: &Press, id: u64, token: &str) -> Value {
    let user = json!({"id": "1000000000000000003", "username": "presser", "discriminator": "0", "avatar": null,
        "global_name": "Presser", "public_flags": 0, "bot": false, "avatar_decoration_data": null,
        "primary_guild": null, "clan": null, "collectibles": null, "display_name_styles": null});
    let channel = press.guild.and_then(|guild| {
        let mut world = lock(&hub.world);
        let channels = world.tree(guild)?["channels"].as_array()?;
        channels.iter().find(|channel| channel["type"] == 0).cloned()
    });
    let channel =
        channel.unwrap_or_else(|| json!({"id": "1000000000000000004", "type": 1, "recipients": []}));
    let mut interaction = json!({"version": 1, "type": press.kind, "id": id.to_string(), "token": token,
        "application_id": BOT_USER.to_string(), "channel_id": channel["id"], "channel": channel,
        "locale": "en-US", "entitlements": [], "app_permissions": "2248473465835073",
        "attachment_size_limit": 10_485_760, "data": data(press)});
    match press.guild {
        Some(guild) => {
            let guild = guild.to_string();
            interaction["guild"] = json!({"id": guild, "locale": "en-US", "features": []});
            interaction["authorizing_integration_owners"] = json!({"0": guild});
            interaction["member"] = json!({"user": user, "roles": [], "permissions": "2248473465835073", "nick": null,
                "joined_at": "2026-01-01T00:00:00.000000+00:00", "deaf": false, "mute": false, "pending": false,
                "flags": 0, "avatar": null, "banner": null, "premium_since": null,
                "communication_disabled_until": null, "unusual_dm_activity_until": null});
            (interaction["guild_locale"], interaction["context"]) = (json!("en-US"), json!(0));
            interaction["guild_id"] = json!(guild);
        }
        None => {
            interaction["user"] = user.clone();
            interaction["authorizing_integration_owners"] = json!({"0": "0"});
            interaction["context"] = json!(1);
        }
    }
    if press.kind == 3 || press.message {
        interaction["message"] = json!({"id": hub.snowflakes.next().to_string(), "channel_id": channel["id"],
            "type": 0, "content": "press", "author": crate::rest::own_user(), "attachments": [], "embeds": [],
            "mentions": [], "mention_roles": [], "mention_everyone": false, "pinned": false, "tts": false,
            "flags": 0, "components": [], "timestamp": "2026-01-01T00:00:00.000000+00:00",
            "edited_timestamp": null});
    }
    interaction
}

fn data(press: &Press) -> Value {
    let (name, id) = (&press.name, "1000000000000000005");
    match press.kind {
        3 => json!({"custom_id": name, "component_type": 2, "id": 1}),
        4 => json!({"id": id, "name": name, "type": 1,
            "options": [{"name": "word", "type": 3, "value": "he", "focused": true}]}),
        5 => json!({"custom_id": name, "components": [{"type": 1, "id": 1,
            "components": [{"type": 4, "id": 2, "custom_id": "word", "value": "hello"}]}]}),
        _ => json!({"id": id, "name": name, "type": 1}),
    }
}
