// SPDX-License-Identifier: AGPL-3.0-only
//! All of Holdfast in one binary: arguments come in, one command runs, an exit code goes out.

mod args;
mod doctor;
mod drop_in;
mod settings;
mod simulate;
mod up;

use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser;
use holdfast_service::Exit;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    holdfast_service::raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()).into(),
    };
    let outcome = runtime.block_on(async {
        match &args.command {
            Command::Up(options) => up::up(&args, options).await,
            Command::Ws(options) => up::ws(&args, options).await,
            Command::Config => settings::print(&args),
            Command::Doctor => doctor::run(&args).await,
        }
    });
    // Threads that block (a name being looked up) must not hold up the end.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| fail(&error)).into()
}

fn fail(error: &anyhow::Error) -> Exit {
    // Standard error may be closed; there is nobody left to tell then.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("holdfast: {error:#}\n"));
    Exit::Error
}
