// SPDX-License-Identifier: AGPL-3.0-only
//! `holdfast up` with all services in one process: they share one broker, one account of limits, one set of metrics; a
//! file goes from a worker by `api` and `webhook` to Discord.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use holdfast_broker::{
    Broker, BrokerSettings, Exchange, ExchangeKind, HEADER_WEBHOOK, Message, Names, Publication, Queue,
    QueueKind, Requester, Topology,
};
use holdfast_contract::v1::rest_reply::Result as Outcome;
use holdfast_contract::v1::{
    ErrorCode, ExecuteWebhook, RestHeader, RestReply, RestRequest, WebhookFile, WebhookMessage, WebhookReply,
    webhook_file, webhook_message::Operation,
};
use holdfast_service::Service;
use holdfast_simulator::{Options, Simulator};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

const RABBITMQ: &str = "amqp://guest:guest@127.0.0.1:5672";
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn all_services_in_one_process_share_what_there_is_one_of() {
    let discord = Simulator::start(Options::default()).await.expect("starts");
    let mut up = Up::start(&discord).await;
    let broker = Broker::connect(&up.broker, &Service::new(Default::default())).await.expect("lets us in");
    let worker = broker.requester(16);
    while up.page("/readyz").await != "ready\n" {}

    // A file of 5 MiB: more than goes well into a message.
    let file = Bytes::from(vec![7; 5 << 20]);
    let said =
        up.api(Request::post("/holdfast/uploads").body(Full::from(file.clone())).expect("a request")).await;
    let said: Value = serde_json::from_slice(&said).expect("JSON");
    let upload = said["url"].as_str().expect("an address").to_owned();
    let reply = execute(&broker, &worker, &upload).await;
    assert_eq!((reply.error, reply.response.map(|it| it.status)), (None, Some(204)));
    let sent = discord.webhook_messages().remove(0);
    assert_eq!((sent.files.len(), &sent.files[0].0), (1, &"report.bin".to_owned()));
    assert!(sent.files[0].1 == file, "the file as it was");
    let (before, _) = upload.rsplit_once('/').expect("a path");
    let gone = execute(&broker, &worker, &format!("{before}/{}", "0".repeat(32))).await;
    assert_eq!(gone.error.map(|it| it.code()), Some(ErrorCode::UnknownUpload));

    let asked = RestRequest {
        method: "GET".to_owned(),
        path: "/users/@me".to_owned(),
        headers: vec![RestHeader { name: "authorization".to_owned(), value: "Bot sim-token".into() }],
        ..RestRequest::default()
    };
    let publication = Publication::new(broker.names().requests(), Names::REST_KEY, Message::of(&asked));
    let reply = worker.request(publication, SOON).await.expect("a reply");
    let reply: RestReply = reply.decode(usize::MAX).expect("a RestReply");
    assert!(matches!(reply.result, Some(Outcome::Response(response)) if response.status == 200));

    let metrics = up.page("/metrics").await;
    for name in [
        "holdfast_amqp_published",
        "holdfast_rest_in_flight",
        "holdfast_webhook_sending",
        "holdfast_ws_guilds",
    ] {
        let described = metrics.lines().filter(|line| line.starts_with(&format!("# TYPE {name} "))).count();
        assert_eq!(described, 1, "{name}");
    }
    assert_eq!(up.terminate().await, Some(0));
    end(&broker).await;
}

async fn execute(broker: &Broker, worker: &Requester, upload: &str) -> WebhookReply {
    let content = Some(webhook_file::Content::Upload(upload.to_owned()));
    let file = WebhookFile { name: "report.bin".to_owned(), content, ..WebhookFile::default() };
    let execute = ExecuteWebhook { body: "{}".into(), files: vec![file], ..ExecuteWebhook::default() };
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let message = WebhookMessage {
        webhook_id: 7,
        token: "to-ken".to_owned(),
        deadline_ms: unix_ms + 10_000,
        operation: Some(Operation::Execute(execute)),
        ..WebhookMessage::default()
    };
    let message = Message::of(&message).header(HEADER_WEBHOOK, "7");
    let publication = Publication::new(broker.names().webhook(), "", message);
    let reply = worker.request(publication, SOON).await.expect("a reply");
    reply.decode(usize::MAX).expect("a WebhookReply")
}

/// Takes away what the process has made at the broker.
async fn end(broker: &Broker) {
    let names = broker.names();
    let exchanges = [names.events(), names.dead(), names.commands(), names.requests(), names.webhook()];
    let queues = [names.guild_commands(), names.state_requests(), names.rest_requests()];
    let queues = queues.into_iter().chain((0..4).map(|number| names.webhook_queue(number)));
    let topology = Topology {
        exchanges: exchanges.map(|name| Exchange::new(name, ExchangeKind::Topic)).into(),
        queues: queues.map(|name| Queue::new(name, QueueKind::Quorum)).collect(),
        ..Topology::default()
    };
    broker.delete(&topology).await;
}

/// A process with all services, killed when it is dropped.
struct Up {
    child: Child,
    addresses: Value,
    broker: BrokerSettings,
    _folder: tempfile::TempDir,
}

impl Up {
    async fn start(discord: &Simulator) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let prefix = format!("holdfast-test-{now}");
        let folder = tempfile::tempdir().expect("a folder");
        let settings = format!(
            "[discord]\ntoken = \"sim-token\"\napi_url = \"{}\"\n[ws]\nlisten = \"127.0.0.1:0\"\n\
             [api]\nlisten = \"127.0.0.1:0\"\n[webhook]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [broker]\nurl = \"{RABBITMQ}\"\nprefix = \"{prefix}\"\n",
            discord.api_url()
        );
        std::fs::write(folder.path().join("holdfast.toml"), settings).expect("written");
        let child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["up", "--addresses", "addresses.json"])
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary is there");
        let file = folder.path().join("addresses.json");
        let written = async {
            loop {
                match std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                    Some(addresses) => return addresses,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        let addresses = tokio::time::timeout(SOON, written).await.expect("it starts");
        let broker = BrokerSettings { prefix, ..BrokerSettings::at(RABBITMQ) };
        Self { child, addresses, broker, _folder: folder }
    }

    /// Where a service is.
    fn place(&self, name: &str) -> String {
        let url = self.addresses[name].as_str().expect("an address");
        url.split('/').nth(2).expect("a host").to_owned()
    }

    /// What a page of the admin listener says.
    async fn page(&self, path: &str) -> String {
        let body =
            ask(&self.place("admin"), Request::get(path).body(Full::default()).expect("a request")).await;
        String::from_utf8(body.to_vec()).expect("text")
    }

    /// What `api` answers.
    async fn api(&self, request: Request<Full<Bytes>>) -> Bytes {
        ask(&self.place("api"), request).await
    }

    /// Asks it to end; its exit code.
    async fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        let ended = async {
            loop {
                match self.child.try_wait().expect("the process is ours") {
                    Some(status) => return status.code(),
                    None => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(SOON, ended).await.expect("it ends")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn ask(place: &str, mut request: Request<Full<Bytes>>) -> Bytes {
    *request.uri_mut() = format!("http://{place}{}", request.uri()).parse().expect("an address");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.expect("an answer");
    answer.into_body().collect().await.expect("a body").to_bytes()
}
