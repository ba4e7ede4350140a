// SPDX-License-Identifier: AGPL-3.0-only
//! Answers commands, a button, autocomplete and a modal. Replace `answer` by what your bot does, and `KEYS` by what that is.

use std::time::Duration;

use anyhow::Result;
use holdfast_rust_worker::BoxError;
use holdfast_rust_worker::interactions::{Asked, serve};
use serde_json::{Value, json};
use tokio::time::sleep;

const KEYS: &[&str] = &[
    "command.ping",
    "command.think",
    "command.ponder",
    "command.feedback",
    "component.vote",
    "autocomplete.find",
    "modal.feedback",
];

// Types of responses ("Interaction Callback Type" in Discord's documentation).
const MESSAGE: u8 = 4;
const MESSAGE_FOLLOWS: u8 = 5;
const UPDATE: u8 = 7;
const CHOICES: u8 = 8;
const MODAL: u8 = 9;

/// The flag of a message that only the user sees.
const EPHEMERAL: u32 = 64;

const WORDS: [&str; 3] = ["chess", "cheese", "cherry"];

pub(crate) async fn run(url: &str, prefix: &str) -> Result<()> {
    serve(url, &format!("{prefix}.interactions.worker"), prefix, KEYS, answer).await
}

async fn answer(asked: &mut Asked) -> Result<Option<Value>, BoxError> {
    let response = match asked.key.as_str() {
        "command.ping" => message("pong"),
        "command.think" => {
            // Longer than Discord waits: Holdfast tells it to, and this becomes the message then.
            sleep(Duration::from_secs(4)).await;
            message("42")
        }
        "command.ponder" => {
            // It is known that this takes long: so the user is told at once, and alone sees what comes of it.
            asked.reply(&json!({ "type": MESSAGE_FOLLOWS, "data": { "flags": EPHEMERAL } })).await?;
            sleep(Duration::from_secs(1)).await;
            message("43")
        }
        "command.feedback" => feedback(),
        "component.vote" => {
            // `vote:yes`: what stands behind the colon is ours.
            let id = asked.data["data"]["custom_id"].as_str().unwrap_or_default();
            let choice = id.split_once(':').map_or("", |(_, choice)| choice);
            json!({ "type": UPDATE, "data": { "content": format!("You voted {choice}."), "components": [] } })
        }
        "autocomplete.find" => find(&asked.data),
        "modal.feedback" => message("Thanks!"),
        other => return Err(format!("nobody answers {other}").into()),
    };
    Ok(Some(response))
}

fn message(content: &str) -> Value {
    json!({ "type": MESSAGE, "data": { "content": content } })
}

fn feedback() -> Value {
    let word = json!({ "type": 4, "custom_id": "word", "label": "In a word?", "style": 1 });
    let row = json!({ "type": 1, "components": [word] });
    json!({ "type": MODAL, "data": { "custom_id": "feedback", "title": "Feedback", "components": [row] } })
}

fn find(data: &Value) -> Value {
    let options = data["data"]["options"].as_array();
    let focused = options.into_iter().flatten().find(|option| option["focused"] == true);
    let typed = focused.and_then(|option| option["value"].as_str()).unwrap_or_default();
    let found = WORDS.iter().filter(|word| word.contains(typed));
    let choices: Vec<Value> = found.map(|word| json!({ "name": word, "value": word })).collect();
    json!({ "type": CHOICES, "data": { "choices": choices } })
}
