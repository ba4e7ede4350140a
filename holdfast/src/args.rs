// SPDX-License-Identifier: AGPL-3.0-only
//! The tree of commands and their flags.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use holdfast_service::process::{RunFlags, SettingsFlag};

const EXAMPLES: &str = "\
Examples:
  holdfast up --simulate                  everything against a simulated Discord: no account needed
  DISCORD_TOKEN=… holdfast up             hold the bot's shards, with the defaults
  holdfast up --config /etc/holdfast.toml
  HOLDFAST__WS__LISTEN=0.0.0.0:7878 holdfast up
  holdfast up --config config.json        a file in gateway-proxy's form
  holdfast doctor                         what is wrong, and how to mend it
  holdfast config                         what is in effect, and where it comes from
  holdfast tail --event MESSAGE_CREATE    messages as they pass
  holdfast api                            any bot's REST requests, within all limits
  holdfast http                           interactions and webhook events that Discord posts
  holdfast reshard --shards 8             eight shards from now on, while the bot runs

Then point the bot's library at ws://localhost:7878 instead of Discord's gateway, and its REST base at
http://localhost:7979/api.

Exit codes: 0 ended as asked, 1 error, 2 wrong arguments or settings, 3 refused by Discord, 4 drain deadline passed.";

/// Everything long-lived that a Discord bot needs, taken out of the bot.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) settings: SettingsFlag,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start all services that the settings name
    Up(Up),
    /// Start the gateway service alone: shards, log and WebSocket front
    Ws(RunFlags),
    /// Start the REST service alone: Discord's API within all limits
    Api(RunFlags),
    /// Start the service for what Discord posts alone: interactions and webhook events
    Http(RunFlags),
    /// Start the webhook service alone: messages from the broker, each webhook's in order
    Webhook(RunFlags),
    /// Print the effective settings with their origin, secrets masked
    Config,
    /// Check token, clock, gateway, intents, identify budget, broker, store, ports, folders and limits, and say how to mend
    /// each
    Doctor,
    /// Give the running bot another number of shards, without a lost event
    Reshard(Reshard),
    /// Show events as they pass, from the broker or the WebSocket front, one line each
    Tail(Tail),
    /// Print what a shell needs to complete commands and flags: `holdfast completions bash`
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write man pages, one for each command: `holdfast man /usr/local/share/man/man1`
    Man {
        /// Where to
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) run: RunFlags,
    /// Simulate Discord in this process: a small world with some traffic, no account needed
    #[arg(long)]
    pub(crate) simulate: bool,
    /// Guilds of the simulated world
    #[arg(long, value_name = "NUMBER", default_value_t = 16, requires = "simulate")]
    pub(crate) guilds: u32,
    /// Shards that the simulated Discord recommends
    #[arg(long, value_name = "NUMBER", default_value_t = 2, requires = "simulate")]
    pub(crate) shards: u32,
    /// Messages a second in the simulated world, over all its guilds
    #[arg(long, value_name = "NUMBER", default_value_t = 5, requires = "simulate")]
    pub(crate) messages: u32,
}

/// What `reshard` asks the running service for.
#[derive(Debug, clap::Args)]
pub(crate) struct Reshard {
    /// Shards that the bot is to have
    #[arg(long, value_name = "NUMBER", required_unless_present = "abandon", conflicts_with = "abandon")]
    pub(crate) shards: Option<u32>,
    /// Keep the shards as they are, while the new ones still gather
    #[arg(long)]
    pub(crate) abandon: bool,
    /// Address of the service's admin listener; without it admin.listen
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<std::net::SocketAddr>,
}

/// What `tail` shows: of a flag given several times, or with commas, any value; of different flags, all.
#[derive(Debug, clap::Args)]
pub(crate) struct Tail {
    /// Only events of this name, such as MESSAGE_CREATE
    #[arg(long = "event", value_name = "NAME", value_delimiter = ',')]
    pub(crate) events: Vec<String>,
    /// Only events of this guild
    #[arg(long = "guild", value_name = "ID", value_delimiter = ',')]
    pub(crate) guilds: Vec<u64>,
    /// Only events of this shard
    #[arg(long = "shard", value_name = "NUMBER", value_delimiter = ',')]
    pub(crate) shards: Vec<u32>,
    /// Where to watch; without it at the broker, if the settings have one
    #[arg(long, value_enum)]
    pub(crate) source: Option<Source>,
    /// Address of the WebSocket front; without it ws.public_url
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Whole events as JSON, one a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Show tokens too
    #[arg(long, requires = "json")]
    pub(crate) secrets: bool,
}

/// Where events are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Source {
    /// A queue at RabbitMQ, which goes with the command
    Broker,
    /// A client of the WebSocket front
    Front,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_settings_file_may_stand_before_or_after_the_command() {
        for line in [["holdfast", "--config", "a.toml", "up"], ["holdfast", "up", "--config", "a.toml"]] {
            assert_eq!(Args::parse_from(line).settings.file, Some(PathBuf::from("a.toml")));
        }
    }

    #[test]
    fn flags_of_the_simulation_need_the_simulation() {
        assert!(Args::try_parse_from(["holdfast", "up", "--guilds", "4"]).is_err());
        assert!(Args::try_parse_from(["holdfast", "up", "--simulate", "--guilds", "4"]).is_ok());
    }
}
