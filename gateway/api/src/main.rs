// SPDX-License-Identifier: AGPL-3.0-only
//! `holdfast-api`: the REST service in a process of its own, the same as `holdfast api`.

use std::process::ExitCode;

use clap::Parser;
use holdfast_api::PROGRAM;
use holdfast_service::process::{self, RunFlags, SettingsFlag};

const EXAMPLES: &str = "\
Examples:
  holdfast-api                            any bot's requests, with the defaults
  holdfast-api --config /etc/holdfast.toml
  HOLDFAST__API__LISTEN=0.0.0.0:7979 holdfast-api

Then point the library's REST base at http://localhost:7979/api instead of https://discord.com/api.

Exit codes: 0 ended as asked, 1 error, 2 wrong arguments or settings, 4 drain deadline passed.";

/// Takes a bot's REST requests, as if it were Discord, and sends them on within all limits.
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
