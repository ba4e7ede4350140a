// SPDX-License-Identifier: AGPL-3.0-only
//! The simulator's own routes, for tests in other languages.
//!
//! In: JSON over HTTP under `/control`. Out: the same as the methods of `Simulator`, which each route calls.
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::Control;
use crate::faults::Fault;
use crate::interactions::{Followed, Press};
use crate::posting::Signing;
use crate::rest_faults::RestFault;
use crate::rest_limits::RestLimits;
use crate::traffic::{Emit, Sent, Traffic};
use crate::webhooks::WebhookMessage;
use crate::world::WorldSpec;

/// All routes.
pub(crate) fn routes(control: Control) -> Router {
    Router::new()
        .route("/control/state", get(|State(control): State<Control>| async move { Json(control.state()) }))
        .route("/control/world", post(world))
        .route("/control/guild/{id}", get(guild))
        .route("/control/traffic", post(start_traffic).delete(stop_traffic).get(traffic))
        .route("/control/emit", post(emit))
        .route("/control/fault", post(fault).delete(clear_faults))
        .route(
            "/control/limits",
            post(limits).get(|State(c): State<Control>| async move { Json((*c.limits()).clone()) }),
        )
        .route("/control/records", get(records).delete(clear_records))
        .route("/control/rest", get(|State(c): State<Control>| async move { Json(c.requests()) }))
        .route(
            "/control/rest_limits",
            post(rest_limits).get(|State(c): State<Control>| async move { Json(c.rest_limits()) }),
        )
        .route("/control/rest_fault", post(rest_fault))
        .route("/control/webhook_messages", get(webhook_messages))
        .route("/control/press", post(press))
        .route("/control/post_event", post(post_event))
        .route("/control/followed/{token}", get(followed))
        .route("/control/public_key", get(|State(c): State<Control>| async move { c.public_key() }))
        .route("/control/violations", get(|State(c): State<Control>| async move { Json(c.violations()) }))
        .with_state(control)
}

/// A wish that can't be understood: 400 and why.
struct Bad(String);

impl IntoResponse for Bad {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, Json(json!({"error": self.0}))).into_response()
    }
}

fn read<T: serde::de::DeserializeOwned>(body: Value) -> Result<T, Bad> {
    serde_json::from_value(body).map_err(|error| Bad(error.to_string()))
}

async fn world(State(control): State<Control>, Json(body): Json<Value>) -> Result<Json<Value>, Bad> {
    control.world(read::<WorldSpec>(body)?);
    Ok(Json(json!({"ok": true})))
}

async fn rest_fault(State(control): State<Control>, Json(body): Json<Value>) -> Result<Json<Value>, Bad> {
    control.rest_fault(read::<RestFault>(body)?);
    Ok(Json(json!({"ok": true})))
}

/// What webhooks have sent; ids are strings, as in Discord's JSON.
async fn webhook_messages(State(control): State<Control>) -> Json<Value> {
    let shown = |it: WebhookMessage| {
        let files: Vec<_> = it.files.iter().map(|(name, _)| name).collect();
        json!({"webhook": it.webhook.to_string(), "id": it.id.to_string(), "body": it.body, "files": files,
            "deleted": it.deleted})
    };
    Json(control.webhook_messages().into_iter().map(shown).collect())
}

/// A press, and where Discord posts it.
#[derive(Deserialize)]
struct PressAt {
    url: String,
    #[serde(flatten)]
    press: Press,
}

async fn press(State(control): State<Control>, Json(body): Json<Value>) -> Result<Json<Value>, Bad> {
    let PressAt { url, press } = read(body)?;
    serde_json::to_value(control.press(&url, &press).await).map(Json).map_err(|error| Bad(error.to_string()))
}

#[derive(Deserialize)]
struct EventAt {
    url: String,
    name: String,
    data: Value,
    #[serde(default)]
    signing: Signing,
}

async fn post_event(State(control): State<Control>, Json(body): Json<Value>) -> Result<Json<Value>, Bad> {
    let EventAt { url, name, data, signing } = read(body)?;
    let posted = control.post_event(&url, &name, &data, &signing).await;
    Ok(Json(json!({"status": posted.status})))
}

async fn followed(State(control): State<Control>, Path(token): Path<String>) -> Json<Followed> {
    Json(control.followed(&token))
}

#[derive(Deserialize)]
struct Viewed {
    intents: Option<u64>,
    large_threshold: Option<u64>,
}

async fn guild(
    State(control): State<Control>,
    Path(id): Path<u64>,
    Query(viewed): Query<Viewed>,
) -> Result<Json<Value>, StatusCode> {
    let found = match viewed.intents {
        Some(intents) => control.guild_as_seen(id, intents, viewed.large_threshold.unwrap_or(50)),
        None => control.guild(id),
    };
    found.map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn start_traffic(State(control): State<Control>, Json(body): Json<Value>) -> Result<Json<Value>, Bad> {
    let mut body = body;
    if let Some(map) = body.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    let id = control.traffic(read::<Traffic>(body)?);
    Ok(Json(json!({"id": id})))
}

async fn stop_traffic(State(control): State<Control>) -> Json<Sent> {
    Json(control.stop_traffic().await)
}

async fn traffic(State(control): State<Control>) -> Json<Sent> {
    Json(control.sent())
}

async fn emit(State(control): State<Control>, Json(body): Json<Value>) -> Result<Json<Value>, Bad> {
    control.emit(&read::<Emit>(body)?);
    Ok(Json(json!({"ok": true})))
}

async fn fault(State(control): State<Control>, Json(body): Json<Value>) -> Result<Json<Value>, Bad> {
    let told = control.fault(&read::<Fault>(body)?);
    Ok(Json(json!({"connections": told})))
}

async fn clear_faults(State(control): State<Control>) -> Json<Value> {
    control.clear_faults();
    Json(json!({"ok": true}))
}

async fn limits(State(control): State<Control>, Json(body): Json<Value>) -> Result<Json<Value>, Bad> {
    let changed = control.limits().changed(&body).map_err(|error| Bad(error.to_string()))?;
    control.set_limits(changed.clone());
    serde_json::to_value(changed).map(Json).map_err(|error| Bad(error.to_string()))
}

async fn rest_limits(State(control): State<Control>, Json(body): Json<Value>) -> Result<Json<Value>, Bad> {
    control.set_rest_limits(read::<RestLimits>(body)?);
    Ok(Json(json!({"ok": true})))
}

#[derive(Deserialize)]
struct Filter {
    op: Option<u64>,
    shard: Option<u32>,
}

async fn records(State(control): State<Control>, Query(filter): Query<Filter>) -> Json<Value> {
    Json(json!(control.records_of(filter.op, filter.shard)))
}

async fn clear_records(State(control): State<Control>) -> Json<Value> {
    control.clear_records();
    Json(json!({"ok": true}))
}
