// SPDX-License-Identifier: AGPL-3.0-only
//! The project's own chores, started as `cargo xtask …`.
//! In: a chore's name and flags. Out: what the tools print, one line per step, an exit code.
//! Owns nothing that outlives it: every tool it starts has ended when it ends.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod check;
mod setup;
mod step;
mod tally;
mod test;
mod tool;
mod workspace;

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Installs what a fresh Debian lacks for building and testing.
    Setup,
    /// Sets up, then checks and tests everything that CI does.
    Test {
        /// Adds the long tests: soaks, long faults, every client.
        #[arg(long)]
        full: bool,
    },
    /// Only what needs no build: format, direction of dependencies, sizes, headers, links.
    Check,
    /// Builds in release and runs the scenarios of `bench/`.
    #[command(disable_help_flag = true)]
    Bench {
        /// Passed on to the benchmark's own command line.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().chore {
        Chore::Setup => exit_code(setup::run()),
        Chore::Test { full } => test::run(full),
        Chore::Check => test::check_only(),
        Chore::Bench { arguments } => exit_code(bench::run(&arguments)),
    }
}

fn exit_code(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
