// SPDX-License-Identifier: AGPL-3.0-only
//! What the commands start: all services that there are, or one.

use holdfast_service::process::{self, Program};

/// The sections of all services.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Services {
    pub(crate) ws: holdfast_ws::Config,
}

/// Everything that the settings say.
pub(crate) type Settings = process::Settings<Services>;

/// All services.
pub(crate) const ALL: Program<Services> = Program {
    name: "holdfast",
    admin_port: WS.admin_port,
    drop_in: WS.drop_in,
    read: |root| Services { ws: holdfast_ws::Config::read(root) },
    parts: |services| Ok(vec![holdfast_ws::part(services.ws)?]),
};

/// The gateway service alone, as in `holdfast-ws`.
pub(crate) const WS: Program<holdfast_ws::Config> = Program { name: "holdfast", ..holdfast_ws::PROGRAM };
