// SPDX-License-Identifier: AGPL-3.0-only
//! `holdfast-http`: the service for what Discord posts in a process of its own, the same as `holdfast http`.

use std::process::ExitCode;

use clap::Parser;
use holdfast_http::PROGRAM;
use holdfast_service::process::{self, RunFlags, SettingsFlag};

const EXAMPLES: &str = "\
Examples:
  HOLDFAST__HTTP__PUBLIC_KEY=… holdfast-http        the key is on the application's page at Discord
  holdfast-http --config /etc/holdfast.toml

Then give Discord https://your.host/interactions and https://your.host/events, with a proxy for TLS before this or
http.tls set.

Exit codes: 0 ended as asked, 1 error, 2 wrong arguments or settings, 4 drain deadline passed.";

/// Takes interactions and webhook events from Discord, has workers answer them, and answers in time.
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
