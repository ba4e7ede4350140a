// SPDX-License-Identifier: AGPL-3.0-only
//! A connection before it has a session: HELLO out, then IDENTIFY or RESUME in, within a time.
//!
//! In: a link. Out: what the client wants, checked; or the close that it gets.

use std::{sync::Arc, time::Duration};

use holdfast_service::Secret;
use serde_json::{Value, json};
use tokio::{runtime::Handle, time::timeout};

use super::{
    Front,
    identify::{Identify, Resume},
    link::{Ended, Link, Payload},
    merge::{self, Loan, Part, Prepared},
    moved,
    query::Refused,
    splice::{self, Splice},
};
use crate::shard::Hub;

/// What of us serves a client.
pub(crate) enum Serving {
    /// The shard of its number: our counts are equal.
    One(Arc<Hub>),
    /// All our shards that hold its guilds.
    Several(Part, Prepared),
    /// One of them, for another replica.
    Lent(Loan),
    /// Another replica.
    Other(Box<Splice>),
}

impl Serving {
    /// The runtime of the client's task.
    pub(crate) fn runtime(&self) -> Option<&Handle> {
        match self {
            Self::One(hub) => Some(&hub.runtime),
            Self::Several(part, _) => part.runtime(),
            Self::Lent(loan) => Some(loan.runtime()),
            Self::Other(_) => None,
        }
    }
}

/// What a client has opened with.
pub(crate) enum Opening {
    Identify(Identify),
    Resume(Resume),
}

/// A client whose session was declared invalid gets its next one after a pause of up to this, so that a
/// client in a loop doesn't spin.
const PACE: Duration = Duration::from_secs(1);

/// HELLO, as its own write: some libraries lose what comes in one segment with the upgrade's response. A client that
/// another replica brings has had it there.
pub(crate) async fn hello(front: &Front, link: &mut Link) -> std::io::Result<()> {
    let interval = front.settings.heartbeat_interval.as_millis();
    let interval = u64::try_from(interval).unwrap_or(u64::MAX);
    link.writing.flush().await?;
    if link.about.spliced {
        return Ok(());
    }
    let hello =
        json!({ "t": null, "s": null, "op": 10, "d": { "heartbeat_interval": interval, "_trace": [] } });
    link.writing.send(hello.to_string().as_bytes()).await
}

/// Reads until the client identifies or resumes, and finds what serves it.
pub(crate) async fn open(front: &Arc<Front>, link: &mut Link) -> Result<(Serving, Option<Opening>), Ended> {
    let within = front.settings.identify_timeout;
    if link.about.leg.is_some() {
        open_total(front).await.map_err(Ended::Refused)?;
        let loan = timeout(within, merge::asked(front, link)).await.unwrap_or(Err(Ended::Gone(None)));
        return Ok((Serving::Lent(loan?), None));
    }
    let (opening, data) = timeout(within, read(link)).await.unwrap_or_else(|_| {
        let reason = format!("no IDENTIFY or RESUME within {} s", within.as_secs());
        Err(Ended::Refused(Refused::new(4009, reason)))
    })?;
    let token = match &opening {
        Opening::Identify(identify) => &identify.token,
        Opening::Resume(resume) => &resume.token,
    };
    if !front.accepts(token) {
        front.metrics.rejected.inc();
        return Err(Ended::Refused(Refused::new(4004, "the token is not this bot's")));
    }
    if link.about.invalidated {
        link.about.invalidated = false;
        tokio::time::sleep(PACE.mul_f64(fastrand::f64() / 2.0 + 0.5)).await;
    }
    open_total(front).await.map_err(Ended::Refused)?;
    if let Some(splice) = other(front, link, &opening, &data).await.map_err(Ended::Refused)? {
        return Ok((Serving::Other(Box::new(splice)), Some(opening)));
    }
    let serving = match &opening {
        Opening::Identify(identify) => front.serving(&link.about, identify).await.map_err(Ended::Refused)?,
        Opening::Resume(resume) => {
            let serving = front.serving_session(&link.about, resume).await.map_err(Ended::Refused)?;
            serving.ok_or(Ended::Gone(None))?
        }
    };
    Ok((serving, Some(opening)))
}

/// Number of all shards of the bot. Waits while that changes.
pub(super) async fn open_total(front: &Front) -> Result<u32, Refused> {
    let open = timeout(front.settings.identify_timeout, front.hubs.open_total()).await;
    open.map_err(|_| Refused::new(4000, "the bot is being resharded: come again"))
}

/// The way to the replica that runs the client's shard, if we don't.
async fn other(
    front: &Front,
    link: &Link,
    opening: &Opening,
    data: &Value,
) -> Result<Option<Splice>, Refused> {
    let Some(replicas) = &front.replicas else { return Ok(None) };
    while let Some(shard) = front.elsewhere(opening) {
        if !link.about.spliced {
            match splice::reach(front, replicas, shard, &link.about, (opening, data)).await? {
                // Where it needs others now.
                None if front.hubs.total() != shard.total => continue,
                found => return Ok(found),
            }
        }
        // It has left since the ticket was taken. The client comes again, and is brought to where it is then.
        return Err(moved(shard.shard));
    }
    Ok(None)
}

/// What the client opens with, and the same as it came.
async fn read(link: &mut Link) -> Result<(Opening, Value), Ended> {
    loop {
        let Payload { op, data } = link.reading.next().await?;
        match op {
            1 => {
                let ack = link.writing.send(br#"{"t":null,"s":null,"op":11,"d":null}"#).await;
                ack.map_err(|_| Ended::Gone(None))?;
            }
            2 => {
                let identify = Identify::parse(&data).map_err(Ended::Refused)?;
                return Ok((Opening::Identify(identify), data));
            }
            6 => {
                let resume = Resume::parse(&data).map_err(Ended::Refused)?;
                return Ok((Opening::Resume(resume), data));
            }
            op => return Err(Ended::Refused(before_identify(op))),
        }
    }
}

fn before_identify(op: u64) -> Refused {
    match op {
        3 | 4 | 8 | 31 | 43 => Refused::new(4003, "identify first"),
        op => Refused::new(4001, format!("opcode {op} is none that a client opens with")),
    }
}

/// Who a client is, for resuming and for taking over its dead session: its credential, hashed.
pub(crate) fn identity(token: &Secret) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(token.expose().as_bytes());
    let credential = digest.iter().take(8).fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    format!("{credential:016x}")
}
