// SPDX-License-Identifier: AGPL-3.0-only
//! Asks Discord's REST API and sends messages by webhooks. In: a channel and webhooks. Out: reports of what came of each.

use std::time::Duration;

use anyhow::{Result, bail};
use holdfast_rust_worker::asking::AskError;
use holdfast_rust_worker::rest::{Request, Rest, RestError};
use holdfast_rust_worker::webhooks::{Webhook, Webhooks};
use serde_json::{Value, json};

use crate::{report, text};

const WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn run(settings: &Value) -> Result<()> {
    requests(settings).await?;
    messages(settings).await?;
    report("over", json!({}));
    Ok(())
}

async fn requests(settings: &Value) -> Result<()> {
    let (url, prefix, who) = (text(settings, "url"), text(settings, "prefix"), text(settings, "who"));
    let rest = Rest::open(url, text(settings, "token"), prefix).await?;
    let me = rest.request(Request::new("GET", "/users/@me")).await?;
    report("me", json!({ "id": me["id"] }));

    let path = format!("/channels/{}/messages", text(settings, "channel"));
    let mut sent = Vec::new();
    for name in ["a", "b", "a"] {
        let (key, json) = (format!("{who}-{name}"), Some(json!({ "content": format!("{who} {name}") })));
        let message = rest.request(Request { json, key: &key, ..Request::new("POST", &path) }).await?;
        sent.push(json!([message["id"], message["content"]]));
    }
    report("messages", json!({ "sent": sent }));

    let json = Some(json!({ "content": "x" }));
    let unknown = rest.request(Request { json, ..Request::new("POST", "/channels/1/messages") }).await;
    report("unknown", failure(unknown)?);
    report("invalid", failure(rest.request(Request::new("CONNECT", "/users/@me")).await)?);
    Ok(rest.close().await?)
}

async fn messages(settings: &Value) -> Result<()> {
    let who = text(settings, "who");
    let ids: Vec<u64> = serde_json::from_value::<Vec<String>>(settings["webhooks"].clone())?
        .iter()
        .map(|id| id.parse())
        .collect::<Result<_, _>>()?;
    let each = settings["each"].as_u64().unwrap_or_default();
    let webhooks = Webhooks::open(text(settings, "url"), text(settings, "prefix")).await?;
    let webhook = |id| Webhook { id, token: "webhook-token".to_owned() };
    let message = |id, n| (json!({ "content": format!("{who} {n}") }), format!("{who}-{id}-{n}"));
    for n in 0..each {
        for &id in &ids {
            let (body, key) = message(id, n);
            webhooks.send(&webhook(id), &body, &key).await?;
        }
    }
    // What was sent before comes first; the last one twice.
    let (first, mut twice) = (ids[0], Vec::new());
    for _ in 0..2 {
        let (body, key) = message(first, each);
        let sent = webhooks.sent(&webhook(first), &body, &key, WITHIN).await?;
        twice.push(json!([sent["id"], sent["content"]]));
    }
    report("webhooks", json!({ "sent": twice }));

    let (body, key) = (json!({ "content": "" }), format!("{who}-nothing"));
    let nothing = webhooks.sent(&webhook(first), &body, &key, WITHIN).await;
    report("nothing", failure(nothing.map_err(RestError::from))?);
    Ok(webhooks.close().await?)
}

fn failure(asked: Result<Value, RestError>) -> Result<Value> {
    match asked {
        Err(RestError::Discord { status, code, .. }) => Ok(json!({ "status": status, "code": code })),
        Err(RestError::Ask(AskError::Refused(refused))) => Ok(json!({ "refused": refused.code })),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("it was done"),
    }
}
