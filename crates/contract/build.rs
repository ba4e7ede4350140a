// SPDX-License-Identifier: AGPL-3.0-only
//! In: every file of `proto/holdfast/v1`. Out: `holdfast.v1.rs`. Compiled by protox, so that nobody needs protoc.

use std::{error::Error, fs, path::PathBuf};

const ROOT: &str = "../../proto";

/// Messages that hold secrets or users' content: what `{:?}` shows of them is written by hand, in `src/debug.rs`.
const CONFIDENTIAL: &[&str] = &[
    "Event",
    "Guild",
    "Raw",
    "VoiceConnection",
    "MembersChunk",
    "SoundboardSounds",
    "ChannelInfo",
    "DeliverInteraction",
    "Interaction",
    "InteractionReply",
    "WebhookEvent",
    "RestRequest",
    "RestHeader",
    "RestResponse",
    "WebhookMessage",
    "ExecuteWebhook",
    "EditWebhookMessage",
    "WebhookFile",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let entries = fs::read_dir(format!("{ROOT}/holdfast/v1"))?;
    let mut files: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    // The order of a folder's entries differs from machine to machine.
    files.sort();
    let descriptors = protox::compile(files, [ROOT])?;
    prost_build::Config::new()
        .bytes(["."])
        .enable_type_names()
        .skip_debug(CONFIDENTIAL.iter().map(|name| format!(".holdfast.v1.{name}")))
        .compile_fds(descriptors)?;
    Ok(())
}
