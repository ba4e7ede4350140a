// SPDX-License-Identifier: AGPL-3.0-only
//! A simulated Discord, the service that it posts to, and RabbitMQ under names of this test's own.

mod worker;

use std::net::SocketAddr;
use std::time::Duration;

use holdfast_broker::{Broker, BrokerSettings};
use holdfast_discord::signature::PublicKey;
use holdfast_http::Config;
use holdfast_http::settings::{Application, Defer, Kinds, RouteSettings, WayKind};
use holdfast_service::Service;
use holdfast_simulator::{Followed, Options, Press, Pressed, Simulator};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use worker::{Ask, Worker, hello, reply};

const RABBITMQ: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";
/// How long anything may take that has no time of its own.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Stage {
    pub(crate) discord: Simulator,
    pub(crate) http: Running,
    pub(crate) broker: Broker,
    prefix: String,
    /// Whoever isn't the service.
    others: Service,
    /// Queues of this test.
    queues: std::sync::Mutex<Vec<String>>,
}

/// The service in this process.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) service: Service,
    pub(crate) shutdown: CancellationToken,
}

/// Discord and the service, which asks by AMQP.
pub(crate) async fn stage(configure: impl FnOnce(&mut Config)) -> Stage {
    unready(configure).await.ready().await
}

/// The same, where the broker may be away.
pub(crate) async fn unready(configure: impl FnOnce(&mut Config)) -> Stage {
    let discord = Simulator::start(Options::default()).await.expect("starts");
    let prefix = format!("http-{:016x}", fastrand::u64(..));
    let others = Service::new(CancellationToken::new());
    let broker = Broker::connect(&settings(&prefix), &others).await.expect("RabbitMQ lets us in");
    let http = running(&discord, &prefix, configure).await;
    Stage { discord, http, broker, prefix, others, queues: std::sync::Mutex::default() }
}

fn settings(prefix: &str) -> BrokerSettings {
    BrokerSettings { prefix: prefix.to_owned(), ..BrokerSettings::at(RABBITMQ) }
}

async fn running(discord: &Simulator, prefix: &str, configure: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config {
        applications: vec![application(discord, "/interactions", "/events")],
        routes: vec![route(Kinds::All, "*", &[WayKind::Amqp], Defer::Public)],
        api_url: discord.api_url().to_owned(),
        broker: Some(settings(prefix)),
        ..Config::default()
    };
    configure(&mut config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (service, shutdown) = (Service::new(CancellationToken::new()), CancellationToken::new());
    let http = holdfast_http::start(config, listener, &service, shutdown.clone()).await.expect("starts");
    service.tasks.spawn("http", async move { http.wait().await.expect("the broker lets it") });
    Running { address, service, shutdown }
}

impl Stage {
    /// Waits until the service has at the broker what it needs.
    async fn ready(self) -> Self {
        until(|| self.http.service.readiness.unmet().is_empty()).await;
        self
    }
}

/// The bot's application at these paths.
pub(crate) fn application(discord: &Simulator, interactions: &str, events: &str) -> Application {
    let key = PublicKey::parse(&discord.public_key()).expect("a key");
    Application { key, interactions: interactions.to_owned(), events: events.to_owned() }
}

/// A route of the settings.
pub(crate) fn route(kinds: Kinds, name: &str, ways: &[WayKind], defer: Defer) -> RouteSettings {
    RouteSettings { kinds, name: name.to_owned(), ways: ways.to_vec(), url: None, defer }
}

/// A command.
pub(crate) fn command(name: &str) -> Press {
    Press { name: name.to_owned(), ..Press::default() }
}

/// Something else that a user does.
pub(crate) fn press(kind: u64, name: &str) -> Press {
    Press { kind, ..command(name) }
}

impl Stage {
    /// Where Discord posts.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http.address)
    }

    /// A user does this.
    pub(crate) async fn press(&self, press: Press) -> Pressed {
        self.discord.press(&self.url("/interactions"), &press).await
    }

    /// A worker that gets everything with these keys.
    pub(crate) async fn worker(&self, keys: &[&str]) -> Worker {
        let queue = self.queue();
        let exchange = self.broker.names().interactions();
        Worker::start(&self.broker, &exchange, queue, keys).await
    }

    /// The name of a queue for this test.
    pub(crate) fn queue(&self) -> String {
        let queue = format!("{}.worker.{:08x}", self.prefix, fastrand::u32(..));
        self.queues.lock().expect("not poisoned").push(queue.clone());
        queue
    }

    /// Another replica of the service.
    pub(crate) async fn replica(&self, configure: impl FnOnce(&mut Config)) -> Running {
        running(&self.discord, &self.prefix, configure).await
    }

    /// Another process of the service in place of this one.
    pub(crate) async fn restart(&mut self, configure: impl FnOnce(&mut Config)) {
        self.http.end().await;
        self.http = running(&self.discord, &self.prefix, configure).await;
        until(|| self.http.service.readiness.unmet().is_empty()).await;
    }

    /// Waits until that has become of an interaction.
    pub(crate) async fn followed(&self, pressed: &Pressed, is: impl Fn(&Followed) -> bool) -> Followed {
        let what = "what follows the interaction";
        self.discord.wait_until(what, |it| is(&it.followed(&pressed.token))).await.expect(what);
        self.discord.followed(&pressed.token)
    }

    /// Waits until a counter stands there.
    pub(crate) async fn counted(&self, line: &str, number: f64) {
        until(|| (self.http.metric(line) - number).abs() < f64::EPSILON).await;
    }

    /// Takes down what this test has at the broker.
    pub(crate) async fn end(self) {
        self.http.end().await;
        let names = self.broker.names();
        let mut queues = self.queues.lock().expect("not poisoned").clone();
        queues.push(names.late_interactions());
        let exchanges = [names.interactions(), names.webhook_events(), names.commands(), names.dead()];
        worker::delete(&self.broker, &exchanges, &queues).await;
        self.others.tasks.finish(SOON).await.expect("it ends");
        self.discord.shut_down().await;
    }
}

impl Running {
    /// Asks it to end, and waits for that.
    pub(crate) async fn end(&self) {
        self.shutdown.cancel();
        self.service.tasks.finish(SOON).await.expect("it ends");
    }

    /// What `/metrics` says; 0 for what hasn't been counted.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.service.metrics.encode();
        let found = text.lines().find_map(|other| other.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |number| number.parse().expect("a number"))
    }
}

/// Waits until something holds that nothing tells of.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it holds soon");
}
