// SPDX-License-Identifier: AGPL-3.0-only
//! Plays the worker of examples/rust-worker. In: what to play, and settings as JSON in `E2E_BOT`. Out: reports, each a line
//! of JSON. Ends when nobody asks any more: when standard input does.

mod commands;
mod interactions;
mod rest;
mod worker;

use std::io::BufRead;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "all bots get their settings so")]
    let settings = std::env::var("E2E_BOT").context("E2E_BOT")?;
    let settings: Value = serde_json::from_str(&settings)?;
    match std::env::args().nth(1).as_deref() {
        Some("worker") => {
            watch_input(watch::Sender::new(false));
            worker::run(&settings).await
        }
        Some("interactions") => interactions::run(&settings).await,
        Some("commands") => commands::run(&settings).await,
        Some("rest") => rest::run(&settings).await,
        _ => bail!("holdfast-e2e-rust worker|interactions|commands|rest"),
    }
}

/// Says it when a line comes, and ends the process at the end.
fn watch_input(told: watch::Sender<bool>) {
    std::thread::spawn(move || {
        for _ in std::io::stdin().lock().lines() {
            told.send_replace(true);
        }
        std::process::exit(0);
    });
}

/// One line, written before anything else happens: what was handled before kill -9 is counted.
fn report(e: &str, mut details: Value) {
    details["e"] = e.into();
    println!("{details}");
}

/// A text of the settings; empty if there is none.
fn text<'a>(settings: &'a Value, name: &str) -> &'a str {
    settings[name].as_str().unwrap_or_default()
}
