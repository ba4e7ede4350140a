// SPDX-License-Identifier: AGPL-3.0-only
//! The flags that all our programs have.

use std::path::PathBuf;

use super::Announcement;

/// Where the settings are.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SettingsFlag {
    /// Settings file; without it holdfast.toml, /holdfast.toml, config.json or /config.json, if there is one
    #[arg(long = "config", short, global = true, value_name = "FILE", env = "HOLDFAST_CONFIG")]
    pub file: Option<PathBuf>,
}

/// Flags of whatever starts services.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RunFlags {
    /// Write the addresses in use to this file as JSON once they are bound (for ports given as 0)
    #[arg(long, value_name = "FILE")]
    pub addresses: Option<PathBuf>,
    /// Ask the one that runs with the same settings whether it is well: code 0 or 1. For health checks of containers
    #[arg(long)]
    pub health: bool,
}

impl RunFlags {
    /// What is said about the addresses, without a greeting of the program's own.
    #[must_use]
    pub fn announcement(&self) -> Announcement {
        Announcement { file: self.addresses.clone(), ..Announcement::default() }
    }
}
