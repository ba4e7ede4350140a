// SPDX-License-Identifier: AGPL-3.0-only
//! Discord's REST API: limits for every route, answers for those that a gateway client needs.
//!
//! In: HTTP requests under `/api/v10`. Out: answers in Discord's form; every request is recorded.
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::clock::unix;
use crate::hub::{Hub, lock};
use crate::records::Request as Recorded;
use crate::rest_faults::RestFault;
use crate::rest_limits::{self, Told, Verdict};
use crate::world::BOT_USER;

/// Larger bodies are taken as empty.
const MAX_BODY: usize = 26 << 20;

/// The routes, with and without a version in the path as libraries differ.
pub(crate) fn routes(hub: Arc<Hub>) -> Router {
    let api = Router::new()
        .route("/gateway", get(gateway))
        .route("/gateway/bot", get(gateway_bot))
        .route("/users/@me", get(me))
        .route("/applications/@me", get(application))
        .route("/oauth2/applications/@me", get(application))
        .merge(crate::resources::routes())
        .merge(crate::webhooks::routes())
        .fallback(other)
        .method_not_allowed_fallback(other)
        .with_state(Arc::clone(&hub));
    let versions = Router::new().nest("/api/v10", api.clone()).nest("/api/v9", api.clone()).nest("/api", api);
    // How long a body may be is judged before anybody reads it.
    versions.layer(DefaultBodyLimit::disable()).layer(from_fn_with_state(hub, limited))
}

/// Judges the request by the limits, answers it or passes it on, and records it.
async fn limited(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let (method, whole) = (request.method().to_string(), request.uri().to_string());
    let path =
        request.uri().path().trim_start_matches("/api").trim_start_matches("/v10").trim_start_matches("/v9");
    let found = rest_limits::route(&method, path);
    let route = found.as_ref().map(|(route, _)| (*route).to_owned());
    let [least, most] = lock(&hub.rest).limits.latency_ms;
    let half_way = || Duration::from_micros(fastrand::u64(least..=most.max(least)) * 500);
    let (parts, body) = request.into_parts();
    let trace = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let trace = trace.unwrap_or_default().to_owned();
    let body = axum::body::to_bytes(body, MAX_BODY).await.unwrap_or_default();
    travel(half_way()).await;
    let fault = lock(&hub.rest_faults).pop_front();
    let verdict = match (&fault, &found) {
        (None, Some((route, resource))) => {
            let token = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
            lock(&hub.rest).judge(token.unwrap_or_default(), route, resource, &json, Instant::now())
        }
        _ => Verdict::Pass(None),
    };
    let shared = matches!(&verdict, Verdict::Limited { scope: "shared", .. });
    let banned = matches!(&verdict, Verdict::Banned(_));
    let response = match (fault, verdict) {
        (Some(fault), _) => {
            if matches!(fault, RestFault::LoseAnswer) {
                next.run(Request::from_parts(parts, body.into())).await;
            }
            fault.response()
        }
        (None, Verdict::Pass(told)) => {
            told_by(next.run(Request::from_parts(parts, body.into())).await, told.as_ref())
        }
        (None, Verdict::Limited { retry_after, scope, told }) => too_many(retry_after, scope, told.as_ref()),
        (None, Verdict::Banned(seconds)) => ban_page(seconds),
    };
    let status = response.status().as_u16();
    if matches!(status, 401 | 403 | 429) && !shared && !banned {
        lock(&hub.rest).note_invalid(Instant::now());
    }
    let at_ms = hub.at_ms();
    lock(&hub.records).requests.push(Recorded { at_ms, method, path: whole, route, status, trace });
    hub.changed();
    travel(half_way()).await;
    response
}

/// Half of the way between the client and Discord.
async fn travel(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Adds the bucket's headers (topics/rate-limits, "Header Format").
fn told_by(mut response: Response, told: Option<&Told>) -> Response {
    let Some(told) = told else { return response };
    let reset = unix().as_secs_f64() + told.reset_after;
    for (name, value) in [
        ("x-ratelimit-limit", told.limit.to_string()),
        ("x-ratelimit-remaining", told.remaining.to_string()),
        ("x-ratelimit-reset", format!("{reset:.3}")),
        ("x-ratelimit-reset-after", format!("{:.3}", told.reset_after)),
        ("x-ratelimit-bucket", told.hash.clone()),
    ] {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(header::VIA, HeaderValue::from_static("1.1 google"));
    response
}

pub(crate) fn too_many(retry_after: f64, scope: &'static str, told: Option<&Told>) -> Response {
    let message =
        if scope == "shared" { "The resource is being rate limited." } else { "You are being rate limited." };
    let global = scope == "global";
    let body = Json(json!({"message": message, "retry_after": retry_after, "global": global}));
    let mut response = (StatusCode::TOO_MANY_REQUESTS, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::VIA, HeaderValue::from_static("1.1 google"));
    headers.insert("x-ratelimit-scope", HeaderValue::from_static(scope));
    if global {
        headers.insert("x-ratelimit-global", HeaderValue::from_static("true"));
    }
    if let Ok(seconds) = format!("{}", retry_after.ceil()).parse() {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    told_by(response, told)
}

/// What stands before Discord answers instead of it: HTML, no `Via`, no limits.
pub(crate) fn ban_page(seconds: f64) -> Response {
    let mut response = (StatusCode::TOO_MANY_REQUESTS, Html("error code: 1015")).into_response();
    if let Ok(seconds) = format!("{}", seconds.ceil()).parse() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
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
        "bot_require_code_grant": false, "verify_key": hub.poster.public_key(), "flags": 565_248, "team": null,
        "summary": "", "type": null, "hook": true, "guild_id": null, "rpc_origins": [], "bot": own_user(),
        "owner": {"id": "1000000000000000002", "username": "owner", "discriminator": "0", "avatar": null,
            "global_name": null, "flags": 0, "public_flags": 0},
        "approximate_guild_count": lock(&hub.world).len(), "redirect_uris": [], "interactions_endpoint_url": null,
        "role_connections_verification_url": null, "integration_types_config": {"0": {}}})))
}

/// Routes that Discord has and this simulator gives no meaning get an empty answer, others 404.
async fn other(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    let Some((route, _)) = rest_limits::route(request.method().as_str(), request.uri().path()) else {
        return (StatusCode::NOT_FOUND, Json(json!({"message": "404: Not Found", "code": 0})))
            .into_response();
    };
    let open = route.contains("{webhook_token}") || route.contains("{interaction_token}");
    if !open && authorised(&hub, request.headers()).is_err() {
        return Unauthorised.into_response();
    }
    match route.split(' ').next() {
        Some("DELETE" | "PUT") => StatusCode::NO_CONTENT.into_response(),
        _ => Json(json!({})).into_response(),
    }
}

/// The bot's own user, as READY and `/users/@me` show it.
pub(crate) fn own_user() -> Value {
    json!({"id": BOT_USER.to_string(), "username": "simulated", "global_name": null, "discriminator": "0001",
        "avatar": null, "bot": true, "verified": true, "mfa_enabled": true, "email": null, "flags": 0,
        "public_flags": 0, "bio": "", "banner": null, "accent_color": null, "clan": null, "primary_guild": null,
        "locale": "en-US", "avatar_decoration_data": null})
}
