// SPDX-License-Identifier: AGPL-3.0-only
//! What a shell and `man` need to know of the commands, made from their tree.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use holdfast_service::Exit;

use crate::args::Args;

/// The command `completions`.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "holdfast", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Exit::Ok)
}

/// The command `man`.
pub(crate) fn man(folder: &Path) -> anyhow::Result<Exit> {
    let writing = || format!("cannot write man pages to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(writing)?;
    clap_mangen::generate_to(Args::command(), folder).with_context(writing)?;
    Ok(Exit::Ok)
}
