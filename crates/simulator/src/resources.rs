// SPDX-License-Identifier: AGPL-3.0-only
//! REST routes about guilds, channels and commands: those that bots call as soon as they have a gateway.
//!
//! In: authorised requests. Out: what the world holds; a message that was sent is a MESSAGE_CREATE too. Rate limits
//! aren't simulated here.
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::clock::{iso8601, unix};
use crate::hub::{Hub, lock};
use crate::interactions;
use crate::model::guild_object;
use crate::rest::{Unauthorised, authorised, own_user};
use crate::webhooks::json_of;

/// The routes, to be merged with the others under `/api/v10`.
pub(crate) fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/users/@me/guilds", get(guilds))
        .route("/guilds/{guild}", get(guild))
        .route("/guilds/{guild}/channels", get(channels))
        .route("/guilds/{guild}/roles", get(roles))
        .route("/guilds/{guild}/members/{user}", get(member))
        .route("/channels/{channel}", get(channel))
        .route("/channels/{channel}/messages", post(message))
        .route("/applications/{application}/commands", get(no_commands).put(commands))
        .route("/applications/{application}/guilds/{guild}/commands", get(no_commands).put(guild_commands))
        .route("/interactions/{id}/{token}/callback", post(callback))
}

/// What may go wrong.
enum Failure {
    Unauthorised,
    /// Discord's code and text for the kind of thing that doesn't exist.
    Unknown(u32, &'static str),
}

impl From<Unauthorised> for Failure {
    fn from(_: Unauthorised) -> Self {
        Self::Unauthorised
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Unauthorised => Unauthorised.into_response(),
            Self::Unknown(code, message) => {
                (StatusCode::NOT_FOUND, Json(json!({"message": message, "code": code}))).into_response()
            }
        }
    }
}

type Answer = Result<Json<Value>, Failure>;

/// Codes from topics/opcodes-and-status-codes, "JSON Error Codes".
const NO_GUILD: Failure = Failure::Unknown(10_004, "Unknown Guild");
const NO_CHANNEL: Failure = Failure::Unknown(10_003, "Unknown Channel");
const NO_MEMBER: Failure = Failure::Unknown(10_007, "Unknown Member");

async fn guilds(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Answer {
    authorised(&hub, &headers)?;
    let mut world = lock(&hub.world);
    let ids: Vec<u64> = world.guilds([0, 1]).into_iter().take(200).collect();
    let partial = |tree: &Value| {
        json!({"id": tree["id"], "name": tree["name"], "icon": tree["icon"], "banner": tree["banner"],
            "owner": false, "permissions": "2248473465835073", "features": tree["features"]})
    };
    let list: Vec<Value> =
        ids.into_iter().filter_map(|id| world.tree(id).map(|tree| partial(tree))).collect();
    Ok(Json(Value::Array(list)))
}

fn read(hub: &Hub, headers: &HeaderMap, id: u64, pick: impl FnOnce(&Value) -> Option<Value>) -> Answer {
    authorised(hub, headers)?;
    let mut world = lock(&hub.world);
    let tree = world.tree(id).ok_or(NO_GUILD)?;
    pick(tree).map(Json).ok_or(NO_GUILD)
}

async fn guild(State(hub): State<Arc<Hub>>, headers: HeaderMap, Path(id): Path<u64>) -> Answer {
    read(&hub, &headers, id, |tree| Some(Value::Object(guild_object(tree))))
}

async fn channels(State(hub): State<Arc<Hub>>, headers: HeaderMap, Path(id): Path<u64>) -> Answer {
    read(&hub, &headers, id, |tree| Some(tree["channels"].clone()))
}

async fn roles(State(hub): State<Arc<Hub>>, headers: HeaderMap, Path(id): Path<u64>) -> Answer {
    read(&hub, &headers, id, |tree| Some(tree["roles"].clone()))
}

async fn member(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    Path((id, user)): Path<(u64, String)>,
) -> Answer {
    let found = |tree: &Value| {
        let mut members = tree["members"].as_array()?.iter();
        members.find(|member| member["user"]["id"] == user.as_str()).cloned()
    };
    read(&hub, &headers, id, found).map_err(|failure| match failure {
        Failure::Unknown(..) => NO_MEMBER,
        other @ Failure::Unauthorised => other,
    })
}

/// A channel and its guild.
fn find_channel(hub: &Hub, channel: u64) -> Option<(u64, Value)> {
    let mut world = lock(&hub.world);
    let guild = world.guild_of_channel(channel)?;
    let tree = world.tree(guild)?;
    let id = channel.to_string();
    let lists = [&tree["channels"], &tree["threads"]];
    let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
    all.find(|item| item["id"] == id.as_str()).cloned().map(|found| (guild, found))
}

async fn channel(State(hub): State<Arc<Hub>>, headers: HeaderMap, Path(id): Path<u64>) -> Answer {
    authorised(&hub, &headers)?;
    let (guild, mut found) = find_channel(&hub, id).ok_or(NO_CHANNEL)?;
    found["guild_id"] = json!(guild.to_string());
    Ok(Json(found))
}

/// Sends a message: the answer is the message, and everybody hears of it.
async fn message(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    Path(id): Path<u64>,
    body: Bytes,
) -> Answer {
    authorised(&hub, &headers)?;
    let (guild, channel) = find_channel(&hub, id).ok_or(NO_CHANNEL)?;
    let sent: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let or =
        |key: &str, other: Value| sent.get(key).filter(|value| !value.is_null()).cloned().unwrap_or(other);
    let message = json!({"id": hub.snowflakes.next().to_string(), "channel_id": channel["id"], "author": own_user(),
        "content": or("content", json!("")), "embeds": or("embeds", json!([])), "nonce": or("nonce", Value::Null),
        "components": or("components", json!([])), "attachments": [], "mentions": [], "mention_roles": [],
        "mention_everyone": false, "pinned": false, "tts": false, "type": 0, "flags": 0,
        "timestamp": iso8601(unix()), "edited_timestamp": null});
    let mut event = message.clone();
    (event["guild_id"], event["channel_type"]) = (json!(guild.to_string()), channel["type"].clone());
    let limits = hub.limits();
    hub.emit(&mut lock(&hub.world), &limits, "MESSAGE_CREATE", &event, Some(guild), None);
    Ok(Json(message))
}

async fn no_commands(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Answer {
    authorised(&hub, &headers)?;
    Ok(Json(json!([])))
}

async fn commands(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    Path(application): Path<String>,
    body: Bytes,
) -> Answer {
    registered(&hub, &headers, &application, &body)
}

async fn guild_commands(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    Path((application, _)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    registered(&hub, &headers, &application, &body)
}

/// Commands come back with ids.
fn registered(hub: &Hub, headers: &HeaderMap, application: &str, body: &[u8]) -> Answer {
    authorised(hub, headers)?;
    let mut commands: Value = serde_json::from_slice(body).unwrap_or_else(|_| json!([]));
    for command in commands.as_array_mut().into_iter().flatten() {
        let id = hub.snowflakes.next().to_string();
        (command["id"], command["version"]) = (json!(id), json!(id));
        command["application_id"] = json!(application);
    }
    Ok(Json(commands))
}

/// The token in the path is the credential ("Create Interaction Response").
async fn callback(
    State(hub): State<Arc<Hub>>,
    Path((_, token)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    interactions::callback(&hub, &token, &json_of(&headers, &body))
}
