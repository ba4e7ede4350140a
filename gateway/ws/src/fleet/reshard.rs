// SPDX-License-Identifier: AGPL-3.0-only
//! Changing the bot's count of shards while it runs. In: who asks for it, by the admin listener or because Discord
//! recommends more. Out: [`Ask`]s for whoever runs the shards, how far it is, and the steps that one process and
//! replicas share: shards of the next count gather beside the current ones, unseen ([`Phase::Warming`]); when both have
//! had the same events for a while, the current ones are cut, say what they have given lately, and the next ones go on
//! with what is left ([`Phase::Cutting`]).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_cluster::{Seen, Unavailable};
use holdfast_discord::shard_of;
use holdfast_rest::RestError;
use holdfast_service::{Page, Pages, Posted, Secret};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::Hubs;
use crate::log::Position;
use crate::shard::{Command, Gateway, Hub, Wishes, unix_ms};

/// More shards than any bot has; as for `ws.shards.total`.
const MAX_SHARDS: u32 = 1_000_000;
/// What Discord recommends is asked for at the start and this often, where the bot is to follow it.
pub(super) const RECOMMENDED_EVERY: Duration = Duration::from_secs(3600);
/// Old shards tell of what they have given for so long: the gate of a new one follows at two overlaps, a minute at most,
/// and stands from when the first old one is cut; the last may be another replica's that has died.
const TOLD: Duration = Duration::from_secs(150);

/// What whoever runs the shards is asked.
pub(crate) enum Ask {
    /// To change the count.
    Begin { to: u32, reply: Reply },
    /// To let it be.
    Abandon { reply: Reply },
}

pub(crate) type Reply = oneshot::Sender<Result<(), Refused>>;

/// Why the count is not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the bot has {0} shards already")]
    Same(u32),
    #[error("the bot is being resharded to {0} shards: wait for it, or abandon it")]
    UnderWay(u32),
    #[error("the bot is not being resharded")]
    NotUnderWay,
    #[error("the old shards are being cut: it is too late to abandon it, and takes seconds only")]
    TooLate,
    #[error(
        "this process has only a part of the bot's shards (ws.shards.start and end): they can't be resharded"
    )]
    Part,
    #[error("expected a number of shards from 1 to {MAX_SHARDS}: POST /reshard?shards=NUMBER")]
    Number,
    #[error(
        "{needed} shards need as many IDENTIFYs, and {remaining} of today's may still be used \
         (beside cluster.identify_reserve): wait until Discord renews them"
    )]
    Budget { needed: u32, remaining: u32 },
    #[error("Discord can't be asked for the budget of IDENTIFYs: {0}")]
    Discord(#[from] RestError),
    #[error("Discord doesn't answer in time: ask again")]
    Silent,
    #[error(transparent)]
    Store(#[from] Unavailable),
    #[error("the process is ending")]
    Ending,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// Shards of the bot.
    pub(crate) shards: u32,
    /// None: it isn't being resharded.
    pub(crate) phase: Option<Phase>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<Progress>,
    /// How the last one ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<String>,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Warming,
    Cutting,
}

/// How many shards are how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    /// Shards that the bot is to have.
    pub(crate) to: u32,
    /// New shards that have gathered enough.
    pub(crate) warm: u32,
    /// Old shards that are cut.
    pub(crate) cut: u32,
    /// New shards that have gone on.
    pub(crate) opened: u32,
}

/// The driver's end of what others ask and see.
pub(crate) struct Desk {
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) status: watch::Sender<Status>,
}

impl Desk {
    /// With its pages: `GET /reshard`, and `POST /reshard?shards=NUMBER` or `?abandon` for whoever has the bot's token.
    pub(crate) fn open(pages: &Pages, total: u32, token: &Secret) -> Self {
        let (asking, asks) = mpsc::channel(4);
        let (status, seen) = watch::channel(Status { shards: total, ..Status::default() });
        let shown = seen.clone();
        pages.add("/reshard", move || Page::json(json(&shown.borrow())));
        let token = token.clone();
        pages.on_post("/reshard", move |posted| {
            let (asking, seen, token) = (asking.clone(), seen.clone(), token.clone());
            async move { answer(&posted, &asking, &seen, &token).await }
        });
        Self { asks, status }
    }

    /// Shows how it stands.
    pub(super) fn show(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    /// Shows how it ended.
    pub(super) fn ended(&self, shards: u32, how: String) {
        self.status.send_replace(Status { shards, last: Some(how), ..Status::default() });
    }
}

async fn answer(
    posted: &Posted,
    asking: &mpsc::Sender<Ask>,
    seen: &watch::Receiver<Status>,
    token: &Secret,
) -> Page {
    let presented = posted.authorization.expose();
    if !token.matches(presented.strip_prefix("Bot ").unwrap_or(presented)) {
        return Page::status(401, "resharding needs the bot's token: Authorization: Bot TOKEN\n");
    }
    let outcome = match (posted.parameter("shards").map(str::parse), posted.query.as_str()) {
        (None, "abandon") => ask(asking, |reply| Ask::Abandon { reply }).await,
        (Some(Ok(to)), _) if (1..=MAX_SHARDS).contains(&to) => {
            ask(asking, |reply| Ask::Begin { to, reply }).await
        }
        _ => Err(Refused::Number),
    };
    match outcome {
        Ok(()) => Page { status: 202, ..Page::json(json(&seen.borrow())) },
        Err(refused) => {
            let status = match &refused {
                Refused::Number => 400,
                Refused::Discord(_) | Refused::Silent | Refused::Store(_) | Refused::Ending => 503,
                _ => 409,
            };
            Page::status(status, format!("{refused}\n"))
        }
    }
}

async fn ask(asking: &mpsc::Sender<Ask>, ask: impl FnOnce(Reply) -> Ask) -> Result<(), Refused> {
    let (reply, answer) = oneshot::channel();
    asking.send(ask(reply)).await.map_err(|_| Refused::Ending)?;
    answer.await.unwrap_or(Err(Refused::Ending))
}

fn json(status: &Status) -> String {
    serde_json::to_string(status).unwrap_or_default()
}

/// Whether a count may be had, by what Discord says now.
pub(super) async fn admit(gateway: &Gateway, hubs: &Hubs, to: u32) -> Result<(), Refused> {
    let total = hubs.total();
    if to == total {
        return Err(Refused::Same(total));
    }
    gateway.recommended().await?;
    match gateway.identifies_remaining() {
        remaining if remaining < to => Err(Refused::Budget { needed: to, remaining }),
        _ => Ok(()),
    }
}

/// The count that Discord recommends, if it is more than we have.
pub(super) async fn recommended(gateway: &Gateway, hubs: &Hubs) -> Option<u32> {
    match gateway.recommended().await {
        Ok(shards) => Some(shards).filter(|shards| *shards > hubs.total()),
        Err(error) => {
            debug!(%error, "Discord can't be asked for the number of shards that it recommends");
            None
        }
    }
}

/// Whether a shard of the next count has gathered enough.
pub(super) fn is_warm(hub: &Hub) -> bool {
    hub.is_live() && hub.core().is_warm(unix_ms())
}

/// Lets a new shard tell Discord what clients had set on the old ones.
pub(super) fn carry_over(wishes: &[Wishes], hub: &Hub) {
    let payloads: Vec<_> = {
        let mut core = hub.core();
        wishes.iter().flat_map(|wishes| core.carry_over(wishes)).collect()
    };
    for (priority, payload) in payloads {
        hub.command(Command::new(0, priority, payload));
    }
}

/// Where the logs of new shards begin: above all that the old ones have by now, and will have until they are cut. So
/// positions rise also where the bot comes back to a count that it had.
pub(super) fn above(positions: impl Iterator<Item = Position>) -> Position {
    /// More than a shard gets in a few minutes; numbers stay below 2³¹ for a thousand times of resharding.
    const ROOM: Position = 1_000_000;
    positions.max().unwrap_or(0) + ROOM
}

/// Whether an old shard can be cut soon: nothing is to come over it that is older than what new ones hold.
pub(super) fn may_be_cut(hub: &Hub) -> bool {
    hub.is_live() && hub.core().is_published(unix_ms())
}

/// What an old shard has given lately, by the new shards whose guilds it is about.
pub(super) async fn seen_by(hub: Arc<Hub>, to: u32) -> Vec<(u32, Vec<Seen>)> {
    let (shard, total) = (hub.shard, hub.total);
    let reading = move || {
        let core = hub.core();
        core.seen_since(unix_ms().saturating_sub(u64::try_from(TOLD.as_millis()).unwrap_or(u64::MAX)))
    };
    let seen = match tokio::task::spawn_blocking(reading).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => {
            warn!(%error, shard, "an old shard's log can't be read: the new ones repeat what it gave lately");
            return Vec::new();
        }
        Err(_) => return Vec::new(),
    };
    let mut by_shard: BTreeMap<u32, Vec<Seen>> = BTreeMap::new();
    for seen in seen {
        match seen.guild {
            // Of what has no guild each shard gets its own.
            0 => (shard..to)
                .step_by(total as usize)
                .for_each(|new| by_shard.entry(new).or_default().push(seen)),
            guild => by_shard.entry(shard_of(guild, to)).or_default().push(seen),
        }
    }
    by_shard.into_iter().collect()
}

/// Lets a new shard's readers begin. True: it is open.
pub(super) async fn open(hub: &Arc<Hub>, seen: Vec<Seen>, publishes: bool) -> bool {
    let opening = Arc::clone(hub);
    let opened = tokio::task::spawn_blocking(move || opening.core().open(&seen, publishes)).await;
    match opened {
        Ok(Ok(())) => {
            if let Some(opened) = hub.core().opened.clone() {
                let (repeated, unmatched) = (opened.repeated(), opened.unmatched);
                info!(shard = hub.shard, repeated, unmatched, "a new shard goes on");
            }
            hub.readers.wake();
            true
        }
        Ok(Err(error)) => {
            warn!(%error, shard = hub.shard, "a new shard's log can't be read yet");
            false
        }
        Err(_) => false,
    }
}

/// Removes folders, with a warning where that fails.
pub(super) async fn remove(dirs: Vec<std::path::PathBuf>) {
    let removing = move || {
        for dir in dirs {
            match std::fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    warn!(%error, dir = %dir.display(), "what is stored of an old shard can't be removed");
                }
                _ => {}
            }
        }
    };
    let _ = tokio::task::spawn_blocking(removing).await;
}
