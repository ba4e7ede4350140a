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
    if options.run.health {
        return Ok(ALL.health(&written).await);
    }
    let mut announcement = options.run.announcement();
    if !options.simulate {
        return Ok(ALL.run(&written, &announcement).await?);
    }
    let simulation = Simulation::start(options).await?;
    // What is set below would look like a wish for `ws` alone.
    let both = ["ws", "api"].iter().all(|section| written.document.get(section).is_none());
    simulation.settle(&mut written);
    if both {
        simulation.want_api(&mut written);
    }
    announcement.greeting = simulation.greeting();
    let has_api = written.document.get("api").is_some();
    let name = if has_api { "discord" } else { "api" };
    announcement.more.push((name, simulation.api_url().to_owned()));
    let exit = ALL.run(&written, &announcement).await;
    simulation.stop().await;
    Ok(exit?)
}
