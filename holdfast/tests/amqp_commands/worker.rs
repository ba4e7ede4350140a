// SPDX-License-Identifier: AGPL-3.0-only
//! A worker: sends commands, reads replies. And the stage that it plays on: Discord, Holdfast, a prefix of its own at
//! RabbitMQ, which is cleared away at the end.

use std::time::{Duration, SystemTime};

use holdfast_broker::{
    Binding, Broker, BrokerSettings, Consumer, ConsumerOptions, Exchange, ExchangeKind, Message, Names,
    Publication, Queue, QueueKind, RequestError, Topology,
};
use holdfast_contract::{
    Body, CONTENT_TYPE,
    v1::{
        AllShards, Command, CommandReply, Done, Error, GetGuild, Guild, Outcome, ShardAddress, command,
        command_reply::Reply,
    },
};
use holdfast_service::Service;
use holdfast_simulator::Simulator;
use tokio_util::sync::CancellationToken;

use crate::support::{Holdfast, PATIENCE, Setup, until, within};

const RABBITMQ: &str = "amqp://guest:guest@127.0.0.1:5672";

/// See the module's documentation.
pub(crate) struct Stage {
    pub(crate) discord: Simulator,
    pub(crate) holdfast: Holdfast,
    pub(crate) worker: Worker,
    service: Service,
}

/// Sends commands. Clones are one worker.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) broker: Broker,
}

/// What came back to one command.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Results between `Accepted` and the last reply.
    pub(crate) results: Vec<Reply>,
    pub(crate) last: Reply,
    /// Whether `Accepted` was among the replies.
    pub(crate) accepted: bool,
    /// The shard that said it, and of how many.
    pub(crate) shard: (u32, u32),
}

impl Answered {
    /// The command was done.
    #[track_caller]
    pub(crate) fn done(&self) -> &Done {
        match &self.last {
            Reply::Done(done) if self.accepted => done,
            other => panic!("not done: {other:?}"),
        }
    }

    /// Everything that was asked for came.
    #[track_caller]
    pub(crate) fn complete(&self) -> &[Reply] {
        let done = self.done();
        assert_eq!(done.outcome(), Outcome::Complete, "{done:?}");
        assert_eq!(done.results as usize, self.results.len());
        &self.results
    }

    /// It was refused.
    #[track_caller]
    pub(crate) fn refused(&self) -> &Error {
        match &self.last {
            Reply::Rejected(rejected) => rejected.error.as_ref().expect("an error"),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The name of the code that it was refused with, if it was.
    pub(crate) fn last_code(&self) -> Option<&'static str> {
        matches!(self.last, Reply::Rejected(_)).then(|| self.code())
    }

    /// The name of the code that it was refused with.
    #[track_caller]
    pub(crate) fn code(&self) -> &'static str {
        self.refused().code().name()
    }
}

impl Stage {
    /// Holdfast before this Discord, with further lines for `[ws]`.
    pub(crate) async fn start(discord: Simulator, setup: Setup<'_>) -> Self {
        let service = Service::new(CancellationToken::new());
        let settings = BrokerSettings { prefix: prefix(), ..BrokerSettings::at(RABBITMQ) };
        let broker = Broker::connect(&settings, &service).await.expect("RabbitMQ lets us in");
        let ws = format!("{}\n[broker]\nurl = \"{RABBITMQ}\"\nprefix = \"{}\"\n", setup.ws, settings.prefix);
        let holdfast = Holdfast::start_with(&discord, &Setup { ws: &ws, ..setup }).await;
        holdfast.live().await;
        let stage = Self { discord, holdfast, worker: Worker { broker }, service };
        for (shard, count) in stage.shards().await {
            stage.owned(shard, count).await;
        }
        stage
    }

    /// The shards that are held, each with how many there are.
    async fn shards(&self) -> Vec<(u32, u32)> {
        let shards: Vec<serde_json::Value> =
            serde_json::from_str(&self.holdfast.page("/shards").await).expect("shards");
        let number =
            |value: &serde_json::Value| u32::try_from(value.as_u64().expect("a number")).expect("small");
        shards.iter().map(|shard| (number(&shard["shard"]), number(&shard["total"]))).collect()
    }

    /// Waits until the shard has its guilds and takes commands: until then the broker returns them.
    async fn owned(&self, shard: u32, count: u32) {
        for guild in self.discord.guilds(shard, count) {
            let page = format!("/guilds/{guild}");
            until("the guild", async || self.holdfast.answer(&page).await.0 == 200).await;
        }
        let probe = Command::default();
        within("the shard's queue", async {
            while let Err(error) = self.worker.try_send(Names::shard_key(shard, count), &probe).await {
                assert!(is_not_there_yet(&error), "{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        within("the queue of requests", async {
            while let Err(error) = self.worker.try_guild(0).await {
                assert!(is_not_there_yet(&error), "{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// The messages that Holdfast sets aside from now on.
    pub(crate) async fn dead_letters(&self) -> Consumer {
        let names = self.worker.broker.names();
        let queue = format!("{}.morgue", names.prefix());
        let topology = Topology {
            exchanges: vec![Exchange::new(names.dead(), ExchangeKind::Topic)],
            queues: vec![Queue { expires: Some(PATIENCE), ..Queue::new(&queue, QueueKind::Classic) }],
            bindings: vec![Binding::queue(names.dead(), &queue, "#")],
        };
        self.worker.broker.declare(&topology).await.expect("declared");
        self.worker.broker.consume(ConsumerOptions::new(queue))
    }

    /// A guild of a shard.
    pub(crate) fn guild(&self, shard: u32, count: u32) -> u64 {
        self.discord.guilds(shard, count)[0]
    }

    /// Ends Holdfast and takes away what it declared.
    pub(crate) async fn end(mut self) {
        let status = self.holdfast.terminate().await;
        assert_eq!(status.code(), Some(0), "{}", self.holdfast.output());
        let names = self.worker.broker.names().clone();
        let exchange = |name: String| Exchange::new(name, ExchangeKind::Direct);
        let exchanges = [names.events(), names.commands(), names.requests(), names.dead()];
        let queues = [names.guild_commands(), names.state_requests()];
        let topology = Topology {
            exchanges: exchanges.map(exchange).into(),
            queues: queues.map(|queue| Queue::new(queue, QueueKind::Classic)).into(),
            bindings: Vec::new(),
        };
        self.worker.broker.delete(&topology).await;
        self.service.tasks.finish(PATIENCE).await.expect("the worker ends");
    }
}

impl Worker {
    /// Sends a command about a guild, and waits for its last reply.
    pub(crate) async fn to_guild(&self, guild: u64, payload: command::Payload) -> Answered {
        let target = Some(command::Target::GuildId(guild));
        self.send("guild", Command { target, payload: Some(payload), ..Command::default() }).await
    }

    /// The same for a shard, straight to it.
    pub(crate) async fn to_shard(&self, [shard, count]: [u32; 2], payload: command::Payload) -> Answered {
        let command =
            Command { target: Some(shard_of(shard, count)), payload: Some(payload), ..Command::default() };
        self.send(&Names::shard_key(shard, count), command).await
    }

    /// The same for all shards; what each says, by its number.
    pub(crate) async fn to_all(&self, count: u32, payload: command::Payload) -> Vec<Answered> {
        let target = Some(command::Target::All(AllShards {}));
        let command = Command { target, payload: Some(payload), ..Command::default() };
        let mut series = self.series(Names::ALL_KEY, message(&command), count).await.expect("replies");
        series.sort_by_key(|answered| answered.shard);
        series
    }

    /// Sends a command with a key, and waits for its last reply.
    pub(crate) async fn send(&self, key: &str, command: Command) -> Answered {
        self.try_send(key.to_owned(), &command).await.expect("a reply")
    }

    /// The same, where there may be nobody.
    pub(crate) async fn try_send(&self, key: String, command: &Command) -> Result<Answered, RequestError> {
        self.raw(&key, message(command)).await
    }

    /// Sends any message as if it were a command.
    pub(crate) async fn raw(&self, key: &str, message: Message) -> Result<Answered, RequestError> {
        Ok(self.series(key, message, 1).await?.remove(0))
    }

    async fn series(&self, key: &str, message: Message, count: u32) -> Result<Vec<Answered>, RequestError> {
        let exchange = self.broker.names().commands();
        let publication = Publication::new(exchange, key.to_owned(), message);
        let mut ended = 0;
        let is_last = move |message: &Message| {
            ended += u32::from(matches!(reply(message).reply, Some(Reply::Done(_) | Reply::Rejected(_))));
            ended == count
        };
        let mut answers = self.broker.requester(1).request_many(publication, PATIENCE, is_last).await?;
        let mut replies: Vec<CommandReply> = Vec::new();
        while let Some(message) = answers.next().await {
            replies.push(reply(&message?));
        }
        let mut shards: Vec<(u32, u32)> =
            replies.iter().map(|reply| (reply.shard, reply.shard_count)).collect();
        shards.sort_unstable();
        shards.dedup();
        Ok(shards.into_iter().map(|shard| answered(shard, &replies)).collect())
    }

    /// Reads a guild.
    pub(crate) async fn try_guild(&self, guild_id: u64) -> Result<Guild, RequestError> {
        let asked = GetGuild { guild_id, ..GetGuild::default() };
        let exchange = self.broker.names().requests();
        let request = Publication::new(exchange, Names::STATE_KEY, message(&asked));
        let answer = self.broker.requester(1).request(request, PATIENCE).await?;
        assert_eq!(answer.properties.kind.as_deref(), Some(Guild::TYPE));
        Ok(decode(&answer))
    }
}

/// Neither the queue nor perhaps its exchange is declared yet.
fn is_not_there_yet(error: &RequestError) -> bool {
    matches!(error, RequestError::NoConsumer)
        || matches!(error, RequestError::Disconnected(why) if why.starts_with("NOT_FOUND"))
}

/// One shard's series, which must be numbered without holes, in order.
fn answered(shard: (u32, u32), replies: &[CommandReply]) -> Answered {
    let own = replies.iter().filter(|reply| (reply.shard, reply.shard_count) == shard);
    let mut said = Vec::new();
    for (number, reply) in (0..).zip(own) {
        assert_eq!((reply.number, reply.schema), (number, 1), "{replies:?}");
        said.push(reply.reply.clone().expect("a known reply"));
    }
    let last = said.pop().expect("a last reply");
    let accepted = matches!(said.first(), Some(Reply::Accepted(_)));
    let results = said.split_off(usize::from(accepted));
    let is_result =
        |reply: &Reply| !matches!(reply, Reply::Accepted(_) | Reply::Done(_) | Reply::Rejected(_));
    assert!(results.iter().all(is_result), "{replies:?}");
    Answered { results, last, accepted, shard }
}

fn reply(message: &Message) -> CommandReply {
    assert_eq!(message.properties.kind.as_deref(), Some(CommandReply::TYPE));
    assert_eq!(message.properties.content_type.as_deref(), Some(CONTENT_TYPE));
    decode(message)
}

fn decode<T: Body + Default>(message: &Message) -> T {
    T::decode(message.body.clone()).expect("the body is what its type says")
}

/// A body as a message.
pub(crate) fn message<T: Body>(body: &T) -> Message {
    let mut message = Message::new(T::TYPE, body.encode_to_vec());
    message.properties.content_type = Some(CONTENT_TYPE.into());
    message
}

pub(crate) fn shard_of(shard: u32, shard_count: u32) -> command::Target {
    command::Target::Shard(ShardAddress { shard, shard_count })
}

/// Milliseconds since 1970, so much from now.
pub(crate) fn in_ms(milliseconds: u64) -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("small") + milliseconds
}

fn prefix() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    format!("test-commands-{:x}-{:x}", std::process::id(), since.as_nanos())
}
