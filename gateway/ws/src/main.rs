// SPDX-License-Identifier: AGPL-3.0-only
//! `holdfast-ws`: the gateway service in a process of its own, the same as `holdfast ws`.

use std::process::ExitCode;

use clap::Parser;
use holdfast_service::process::{self, RunFlags, SettingsFlag};
use holdfast_ws::PROGRAM;

const EXAMPLES: &str = "\
Examples:
  DISCORD_TOKEN=… holdfast-ws             hold the bot's shards, with the defaults
  holdfast-ws --config /etc/holdfast.toml
  HOLDFAST__WS__LISTEN=0.0.0.0:7878 holdfast-ws
  holdfast-ws --config config.json        a file in gateway-proxy's form

Then point the bot's library at ws://localhost:7878 instead of Discord's gateway.

Exit codes: 0 ended as asked, 1 error, 2 wrong arguments or settings, 3 refused by Discord, 4 drain deadline passed.";

/// Holds a bot's connections to Discord's gateway, and hands its events to any library as if it were Discord.
#[derive(Debug, Parser)]
#[command(name = PROGRAM.name, version, after_help = EXAMPLES, max_term_width = 110)]
struct Args {
    #[command(flatten)]
    settings: SettingsFlag,
    #[command(flatten)]
    run: RunFlags,
}

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    process::main(PROGRAM.name, PROGRAM.start(&args.settings, &args.run))
}
