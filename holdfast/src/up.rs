// SPDX-License-Identifier: AGPL-3.0-only
//! The command `up`: all services that the settings name, before Discord or a simulated one.

use holdfast_service::Exit;
use holdfast_service::process::SettingsFlag;

use crate::args::Up;
use crate::services::ALL;
use crate::simulate::Simulation;

/// See the module.
pub(crate) async fn run(settings: &SettingsFlag, options: &Up) -> anyhow::Result<Exit> {
    let mut written = match ALL.find(settings) {
        Ok(written) => written,
        Err(problems) => return Ok(ALL.refuse(&problems)),
    };
    let mut announcement = options.run.announcement();
    if !options.simulate {
        return Ok(ALL.run(&written, &announcement).await?);
    }
    let simulation = Simulation::start(options).await?;
    simulation.settle(&mut written);
    announcement.greeting = simulation.greeting();
    announcement.more.push(("api", simulation.api_url().to_owned()));
    let exit = ALL.run(&written, &announcement).await;
    simulation.stop().await;
    Ok(exit?)
}
