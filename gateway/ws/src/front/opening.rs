// SPDX-License-Identifier: AGPL-3.0-only
//! A connection before it has a session: HELLO out, then IDENTIFY or RESUME in, within a time.
//!
//! In: a link. Out: what the client wants, checked; or the close that it gets.

use std::{sync::Arc, time::Duration};

use holdfast_service::Secret;
use serde_json::json;
use tokio::time::timeout;

use super::{
    Front,
    identify::{Identify, Resume},
    link::{Ended, Link, Payload},
    query::Refused,
};
use crate::shard::Hub;

/// What a client has opened with.
pub(crate) enum Opening {
    Identify(Identify),
    Resume(Resume),
}

/// A client whose session was declared invalid gets its next one after a pause of up to this, so that a
/// client in a loop doesn't spin.
const PACE: Duration = Duration::from_secs(1);

/// HELLO, as its own write: some libraries lose what comes in one segment with the upgrade's response.
pub(crate) async fn hello(front: &Front, link: &mut Link) -> std::io::Result<()> {
    let interval = front.settings.heartbeat_interval.as_millis();
    let interval = u64::try_from(interval).unwrap_or(u64::MAX);
    link.writing.flush().await?;
    let hello =
        json!({ "t": null, "s": null, "op": 10, "d": { "heartbeat_interval": interval, "_trace": [] } });
    link.writing.send(hello.to_string().as_bytes()).await
}

/// Reads until the client identifies or resumes, and finds its shard.
pub(crate) async fn open(front: &Front, link: &mut Link) -> Result<(Arc<Hub>, Opening), Ended> {
    let within = front.settings.identify_timeout;
    let opening = timeout(within, read(link)).await.unwrap_or_else(|_| {
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
    let hub = match &opening {
        Opening::Identify(identify) => front.hub_of(identify.shard).map_err(Ended::Refused)?,
        Opening::Resume(resume) => match front.hub_of_session(&resume.session_id) {
            Some(hub) => hub,
            // Any shard can tell that it doesn't know the session.
            None => front.any_hub().ok_or(Ended::Gone(None))?,
        },
    };
    Ok((hub, opening))
}

async fn read(link: &mut Link) -> Result<Opening, Ended> {
    loop {
        let Payload { op, data } = link.reading.next().await?;
        match op {
            1 => {
                let ack = link.writing.send(br#"{"t":null,"s":null,"op":11,"d":null}"#).await;
                ack.map_err(|_| Ended::Gone(None))?;
            }
            2 => return Identify::parse(&data).map(Opening::Identify).map_err(Ended::Refused),
            6 => return Resume::parse(&data).map(Opening::Resume).map_err(Ended::Refused),
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
