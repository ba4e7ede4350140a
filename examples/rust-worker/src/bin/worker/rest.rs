// SPDX-License-Identifier: AGPL-3.0-only
//! Sends a message to a channel by Discord's REST API: within ten seconds or not at all, and once, however often the same
//! is asked for.

use std::time::Duration;

use anyhow::Result;
use holdfast_rust_worker::rest::{Request, Rest, RestError};
use serde_json::json;

pub(crate) async fn run(url: &str, prefix: &str, token: &str, channel: &str, text: &str) -> Result<()> {
    let rest = Rest::open(url, token, prefix).await?;
    let sent = rest
        .request(Request {
            json: Some(json!({ "content": text })),
            // What it is about, not when it is asked for: as an order's number.
            key: &format!("{channel} {text}"),
            within: Duration::from_secs(10),
            ..Request::new("POST", &format!("/channels/{channel}/messages"))
        })
        .await;
    match sent {
        Ok(message) => println!("message {}", message["id"].as_str().unwrap_or_default()),
        // Discord's documentation has the codes, "JSON error codes": 50001 is a channel that the bot doesn't see.
        Err(RestError::Discord { code: Some(50001), .. }) => println!("the bot doesn't see the channel"),
        Err(error) => return Err(error.into()),
    }
    Ok(rest.close().await?)
}
