// SPDX-License-Identifier: AGPL-3.0-only
//! What a story plays on: a simulated Discord, and Holdfast before it where the story asks for it, all in
//! this process and on ports of their own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use holdfast_discord::Intents;
use holdfast_service::{Secret, Service};
use holdfast_simulator::{Limits, Options, Simulator, WorldSpec};
use holdfast_ws::{Config, WsError};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use twilight_gateway::ShardId;

use crate::bot::Bot;

/// The bot's token, which the simulated Discord knows.
pub(crate) const TOKEN: &str = "sim-token";

/// Longer than anything takes on a machine that is busy building.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the bot is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The simulated Discord.
    Direct,
    /// Holdfast, and that to the simulated Discord.
    Holdfast,
}

/// What passes directly must pass through Holdfast.
pub(crate) const BOTH: [Target; 2] = [Target::Direct, Target::Holdfast];

/// Discord, and Holdfast if it takes part.
pub(crate) struct Stage {
    pub(crate) discord: Simulator,
    pub(crate) shards: u32,
    holdfast: Option<Holdfast>,
}

impl Stage {
    /// A Discord of `shards` shards and `guilds` guilds, and what is to stand before it.
    pub(crate) async fn of(target: Target, shards: u32, guilds: u32) -> Self {
        // All at once, and again at once: what is tried here isn't the budget of IDENTIFYs.
        let limits = Limits { shards, max_concurrency: shards, identify_window_ms: 0, ..Limits::default() };
        let world = WorldSpec { guilds, ..WorldSpec::default() };
        let discord = Simulator::start(Options { world, limits, ..Options::default() }).await;
        let discord = discord.expect("the simulator starts");
        let holdfast = match target {
            Target::Direct => None,
            Target::Holdfast => Some(Holdfast::start(discord.api_url()).await),
        };
        Self { discord, shards, holdfast }
    }

    /// A bot for a shard.
    pub(crate) fn bot(&self, shard: u32) -> Bot {
        self.bot_with(TOKEN, ShardId::new(shard, self.shards))
    }

    /// A bot with another token or shard.
    pub(crate) fn bot_with(&self, token: &str, id: ShardId) -> Bot {
        Bot::new(self.url(), token, id)
    }

    /// The next life of a bot that had written down its session.
    pub(crate) fn next_life_of(&self, bot: Bot) -> Bot {
        Bot::with_the_session_of(bot, self.url(), TOKEN)
    }

    fn url(&self) -> &str {
        self.holdfast.as_ref().map_or(self.discord.gateway_url(), |holdfast| &holdfast.config.public_url)
    }

    /// A bot for a shard, with all guilds there.
    pub(crate) async fn connected_bot(&self, shard: u32) -> Bot {
        let mut bot = self.bot(shard);
        bot.connected().await;
        bot
    }

    /// Ends Holdfast in order and starts it again, on the same port and with the same state.
    pub(crate) async fn restart_holdfast(&mut self) {
        self.holdfast.as_mut().expect("Holdfast takes part").restart().await;
    }

    /// Waits until Holdfast has seen that shard 0's client is gone.
    pub(crate) async fn client_is_gone(&self) {
        let holdfast = self.holdfast.as_ref().expect("Holdfast takes part");
        let service = &holdfast.running.as_ref().expect("it runs").service;
        within("the end of the client's connection", async {
            loop {
                let page = service.pages.get("/shards").expect("there is such a page").body;
                let shards: Value = serde_json::from_str(&page).expect("it is JSON");
                if shards[0]["clients"] == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Nobody did what Discord punishes.
    pub(crate) fn assert_well_behaved(&self) {
        let violations = self.discord.violations();
        assert!(violations.is_empty(), "{violations:?}");
    }
}

/// The service that is tried, as the binary starts it.
struct Holdfast {
    address: SocketAddr,
    config: Config,
    /// None only between two lives.
    running: Option<Running>,
    _state: TempDir,
}

/// One life of it.
struct Running {
    service: Service,
    shutdown: CancellationToken,
    ended: JoinHandle<Result<(), WsError>>,
}

impl Holdfast {
    async fn start(api_url: &str) -> Self {
        let state = tempfile::tempdir().expect("a temporary folder");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut config = Config {
            listen: address,
            public_url: format!("ws://{address}"),
            state_dir: state.path().to_owned(),
            ..Config::default()
        };
        config.discord.token = Secret::new(TOKEN);
        config.discord.api_url = api_url.to_owned();
        config.discord.intents = Intents::ALL;
        (config.cache.members, config.cache.presences) = (true, true);
        let running = Some(Running::start(&config, listener).await);
        Self { address, config, running, _state: state }
    }

    async fn restart(&mut self) {
        self.running.take().expect("it runs").end().await;
        let listener = TcpListener::bind(self.address).await.expect("the port is free again");
        self.running = Some(Running::start(&self.config, listener).await);
    }
}

impl Running {
    async fn start(config: &Config, listener: TcpListener) -> Self {
        let service = Service::new(CancellationToken::new());
        let shutdown = CancellationToken::new();
        let started = holdfast_ws::start(config.clone(), listener, &service, shutdown.clone());
        let mut ws = within("the start of Holdfast", started).await.expect("Holdfast starts");
        let ended = tokio::spawn(async move { ws.wait().await });
        Self { service, shutdown, ended }
    }

    async fn end(self) {
        self.shutdown.cancel();
        let ended = within("the end of Holdfast", self.ended).await.expect("it doesn't panic");
        ended.expect("Discord has nothing against it");
        self.service.tasks.finish(PATIENCE).await.expect("its tasks end");
    }
}

/// Waits for something, and says what for when it doesn't come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}
