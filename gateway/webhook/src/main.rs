// SPDX-License-Identifier: AGPL-3.0-only
//! `holdfast-webhook`: the webhook service in a process of its own, the same as `holdfast webhook`.

use std::process::ExitCode;

use clap::Parser;
use holdfast_service::process::{self, RunFlags, SettingsFlag};
use holdfast_webhook::PROGRAM;

const EXAMPLES: &str = "\
Examples:
  HOLDFAST__BROKER__URL=amqp://guest:guest@localhost holdfast-webhook
  holdfast-webhook --config /etc/holdfast.toml

Then publish messages to the exchange holdfast.webhook.

Exit codes: 0 ended as asked, 1 error, 2 wrong arguments or settings, 4 drain deadline passed.";

/// Sends messages by webhooks, as they come from the broker: each webhook's in order, within all limits.
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
