// SPDX-License-Identifier: AGPL-3.0-only
//! The part of Discord's REST API that a gateway client needs.
//!
//! In: HTTP requests under `/api/v10`. Out: answers in Discord's form; every request is recorded.
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::hub::{Hub, lock};
use crate::records::Request as Recorded;
use crate::world::BOT_USER;

/// The routes, with and without a version in the path as libraries differ.
pub(crate) fn routes(hub: Arc<Hub>) -> Router {
    let api = Router::new()
        .route("/gateway", get(gateway))
        .route("/gateway/bot", get(gateway_bot))
        .route("/users/@me", get(me))
        .route("/applications/@me", get(application))
        .route("/oauth2/applications/@me", get(application))
        .merge(crate::resources::routes())
        .fallback(not_found)
        .with_state(Arc::clone(&hub));
    let versions = Router::new().nest("/api/v10", api.clone()).nest("/api/v9", api.clone()).nest("/api", api);
    versions.layer(from_fn_with_state(hub, record))
}

async fn record(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let method = request.method().to_string();
    let path = request.uri().to_string();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    lock(&hub.records).requests.push(Recorded { at_ms: hub.at_ms(), method, path, status });
    hub.changed();
    response
}

/// Whether the request carries the bot's token.
pub(crate) fn authorised(hub: &Hub, headers: &HeaderMap) -> Result<(), Unauthorised> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if value.starts_with("Bot ") && hub.accepts(value) {
        return Ok(());
    }
    Err(Unauthorised)
}

/// No token or a wrong one.
pub(crate) struct Unauthorised;

impl IntoResponse for Unauthorised {
    fn into_response(self) -> Response {
        (StatusCode::UNAUTHORIZED, Json(json!({"message": "401: Unauthorized", "code": 0}))).into_response()
    }
}

async fn gateway(State(hub): State<Arc<Hub>>) -> Json<Value> {
    Json(json!({"url": hub.gateway_url}))
}

async fn gateway_bot(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Result<Json<Value>, Unauthorised> {
    authorised(&hub, &headers)?;
    let limits = hub.limits();
    Ok(Json(json!({"url": hub.gateway_url, "shards": limits.shards, "session_start_limit": {
        "total": limits.identifies_total, "remaining": limits.identifies_remaining, "reset_after": 86_400_000,
        "max_concurrency": limits.max_concurrency}})))
}

async fn me(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Result<Json<Value>, Unauthorised> {
    authorised(&hub, &headers)?;
    Ok(Json(own_user()))
}

async fn application(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Result<Json<Value>, Unauthorised> {
    authorised(&hub, &headers)?;
    let id = BOT_USER.to_string();
    Ok(Json(json!({"id": id, "name": "simulated", "icon": null, "description": "", "bot_public": true,
        "bot_require_code_grant": false, "verify_key": "0".repeat(64), "flags": 565_248, "team": null,
        "summary": "", "type": null, "hook": true, "guild_id": null, "rpc_origins": [], "bot": own_user(),
        "owner": {"id": "1000000000000000002", "username": "owner", "discriminator": "0", "avatar": null,
            "global_name": null, "flags": 0, "public_flags": 0},
        "approximate_guild_count": lock(&hub.world).len(), "redirect_uris": [], "interactions_endpoint_url": null,
        "role_connections_verification_url": null, "integration_types_config": {"0": {}}})))
}

async fn not_found() -> (StatusCode, Json<Value>) {
    (StatusCode::NOT_FOUND, Json(json!({"message": "404: Not Found", "code": 0})))
}

/// The bot's own user, as READY and `/users/@me` show it.
pub(crate) fn own_user() -> Value {
    json!({"id": BOT_USER.to_string(), "username": "simulated", "global_name": null, "discriminator": "0001",
        "avatar": null, "bot": true, "verified": true, "mfa_enabled": true, "email": null, "flags": 0,
        "public_flags": 0, "bio": "", "banner": null, "accent_color": null, "clan": null, "primary_guild": null,
        "locale": "en-US", "avatar_decoration_data": null})
}
