// SPDX-License-Identifier: AGPL-3.0-only
//! Where your bot begins: what to do with events and interactions, and how to ask. In: a subcommand and variables of the
//! environment. Out: see each file.

mod commands;
mod events;
mod interactions;
mod rest;
mod webhooks;

use std::env;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
worker events                     prints each message
worker interactions               answers commands, buttons, autocomplete and modals
worker commands GUILD             sets the bot's presence, asks for the guild's members
worker rest CHANNEL TEXT          sends a message to a channel, with the token in DISCORD_TOKEN
worker webhooks ID TOKEN TEXT     sends a message by a webhook
AMQP_URL, PREFIX and QUEUE name another RabbitMQ, broker.prefix or queue of events.";

#[tokio::main]
async fn main() -> Result<()> {
    let url = setting("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f");
    let prefix = setting("PREFIX", "holdfast");
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["events"] => events::run(&url, &setting("QUEUE", &format!("{prefix}.messages"))).await,
        ["interactions"] => interactions::run(&url, &prefix).await,
        ["commands", guild] => {
            commands::run(&url, &prefix, guild.parse().context("GUILD is a number")?).await
        }
        ["rest", channel, text] => {
            let token = env::var("DISCORD_TOKEN").context("DISCORD_TOKEN")?;
            rest::run(&url, &prefix, &token, channel, text).await
        }
        ["webhooks", id, token, text] => {
            webhooks::run(&url, &prefix, id.parse().context("ID is a number")?, token, text).await
        }
        _ => bail!("usage:\n{USAGE}"),
    }
}

fn setting(name: &str, otherwise: &str) -> String {
    env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}
