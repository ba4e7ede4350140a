// SPDX-License-Identifier: AGPL-3.0-only
//! In: Holdfast's .proto files, from `proto/` in this folder if that is there, else from where they are in Holdfast's own.
//! Out: `holdfast.v1.rs`, which `src/lib.rs` includes.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new("proto");
    let root = if here.is_dir() { here } else { Path::new("../../proto") };
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed={}", root.display());

    let folder = root.join("holdfast/v1");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>, std::io::Error>>()?;
    let files =
        paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "proto"));

    prost_build::Config::new()
        // The AMQP property `type` has them.
        .enable_type_names()
        // Messages hold tokens and what users wrote: without `{:?}`, none of it gets into a log by chance.
        .skip_debug([".holdfast.v1"])
        .compile_fds(protox::compile(files, [root])?)?;
    Ok(())
}
