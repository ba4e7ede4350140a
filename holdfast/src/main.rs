// SPDX-License-Identifier: AGPL-3.0-only
//! All of Holdfast in one binary: arguments come in, one command runs, an exit code goes out.

mod args;
mod config;
mod doctor;
mod pages;
mod reshard;
mod services;
mod simulate;
mod tail;
mod up;

use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser;
use holdfast_service::process;

use crate::services::{ALL, API, HTTP, WEBHOOK, WS};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let Args { settings, command } = &args;
    process::main(ALL.name, async {
        match command {
            Command::Up(options) => up::run(settings, options).await,
            Command::Ws(flags) => Ok(WS.start(settings, flags).await?),
            Command::Api(flags) => Ok(API.start(settings, flags).await?),
            Command::Http(flags) => Ok(HTTP.start(settings, flags).await?),
            Command::Webhook(flags) => Ok(WEBHOOK.start(settings, flags).await?),
            Command::Config => config::run(settings),
            Command::Doctor => doctor::run(settings).await,
            Command::Reshard(options) => reshard::run(settings, options).await,
            Command::Tail(options) => tail::run(settings, options).await,
            Command::Completions { shell } => pages::completions(*shell),
            Command::Man { folder } => pages::man(folder),
        }
    })
}
