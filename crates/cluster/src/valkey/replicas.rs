// SPDX-License-Identifier: AGPL-3.0-only
//! Replicas in the store, and the guard of the prefix. In: this replica's standing. Out: who lives, and what is known
//! of the store's own absences.

use std::time::Duration;

use super::leases::millis;
use super::reply::{Reply, strange, text};
use super::{Live, Valkey, script};
use crate::ownership::REMEMBERED;
use crate::{FleetConflict, HeartbeatError, Replica, ShardId, Standing, Unavailable};

/// How long the entry of a replica that is gone is kept, so that one that was frozen can tell "I was late" from "the
/// store has lost me".
const KEEP: Duration = Duration::from_secs(3600);
/// Keys that are removed in one round trip.
const FORGOTTEN: usize = 1000;

/// What the store's clock says, and since when the store has not been away.
pub(super) struct Contact {
    pub(super) now: u64,
    pub(super) since: u64,
    replicas: Vec<Replica>,
}

impl Valkey {
    pub(crate) async fn heartbeat(&self, standing: &Standing) -> Result<Vec<Replica>, HeartbeatError> {
        let entry =
            serde_json::to_string(&Replica::new(&self.inner.identity, standing)).map_err(|_| strange())?;
        let (conflict, replicas) = self
            .control(|live| async move {
                if let Some(conflict) = self.guard(&live, standing.total).await? {
                    return Ok((Some(conflict), Vec::new()));
                }
                let contact = self.contact(&live, Some((entry.as_str(), standing.total))).await?;
                self.set_registered(Some(standing.total));
                Ok((None, contact.replicas))
            })
            .await?;
        match conflict {
            Some(conflict) => Err(conflict.into()),
            None => Ok(replicas),
        }
    }

    /// Tells the store that we are there; with an entry and the count with which the guard has let us in: for one
    /// expiry more.
    pub(super) async fn contact(
        &self,
        live: &Live,
        entry: Option<(&str, u32)>,
    ) -> Result<Contact, Unavailable> {
        let Valkey { inner } = self;
        let (keys, times) = (&inner.keys, &inner.settings.times);
        let (entry, total) = entry.unwrap_or_default();
        let mut call = script::CONTACT.on([&keys.replicas(), &keys.contact(), &keys.reshard()]);
        call.arg(inner.identity.id.to_string()).arg(entry);
        call.arg(millis(times.expiry)).arg(millis(times.gap())).arg(u8::from(self.registered().is_some()));
        call.arg(&live.server.run).arg(live.server.began_ms.map_or(String::new(), |began| began.to_string()));
        call.arg(keys.changes()).arg(millis(KEEP)).arg(total);
        let mut reply = Reply::list(live.call(call).await?)?;
        let (now, since) = (reply.parsed()?, reply.parsed()?);
        let mut replicas = Vec::new();
        for (_, entry) in Reply::pairs(reply.value()?)? {
            let entry = text(entry)?;
            let (until, entry) = entry.split_once(' ').ok_or_else(strange)?;
            if until.parse().is_ok_and(|until: u64| until > now) {
                replicas.push(serde_json::from_str(entry).map_err(|_| strange())?);
            }
        }
        replicas.sort_unstable_by_key(|replica: &Replica| replica.id);
        Ok(Contact { now, since, replicas })
    }

    async fn guard(&self, live: &Live, total: u32) -> Result<Option<FleetConflict>, Unavailable> {
        let Valkey { inner } = self;
        let (ours, times) = (inner.identity.application, &inner.settings.times);
        let mut call = script::FLEET.on([&inner.keys.fleet()]);
        call.arg(ours).arg(total).arg(inner.identity.id.to_string());
        call.arg(millis(times.expiry)).arg(millis(times.gap()));
        let mut reply = Reply::list(live.call(call).await?)?;
        if reply.text()? == "ours" {
            return Ok(None);
        }
        let (application, theirs) = (reply.parsed()?, reply.parsed()?);
        let lapses_in = reply.optional()?.map(Duration::from_millis);
        let prefix = inner.keys.prefix().to_owned();
        Ok(Some(match application == ours {
            true => FleetConflict::Count { prefix, ours: total, theirs, lapses_in },
            false => FleetConflict::Application { prefix, ours, theirs: application, lapses_in },
        }))
    }

    pub(crate) async fn leave(&self) -> Result<(), Unavailable> {
        let Valkey { inner } = self;
        let id = inner.identity.id.to_string();
        let keys = &inner.keys;
        let mut leave = script::LEAVE.on([&keys.replicas(), &keys.contact(), &keys.reshard()]);
        leave.arg(&id).arg(keys.changes());
        let mut last = script::FLEET_LEAVE.on([&keys.fleet()]);
        last.arg(inner.identity.application).arg(&id);
        let Some(total) = self.registered() else { return Ok(()) };
        self.control(|live| async move {
            // The fleet's record is ours from here on: if it still is when we turn out to be the last, it goes.
            let conflict = self.guard(&live, total).await?;
            let alive = live.call(leave).await?;
            self.set_registered(None);
            if conflict.is_none() && alive == redis::Value::Int(0) {
                live.call(last).await?;
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn replace_total(&self, from: u32, to: u32) -> Result<bool, Unavailable> {
        Ok(self.replaced_total(from, to).await? == Some(to))
    }

    /// Changes the fleet's count, if it is the one that it is thought to be. Gives the count.
    pub(super) async fn replaced_total(&self, from: u32, to: u32) -> Result<Option<u32>, Unavailable> {
        let mut call = script::FLEET_REPLACE.on([&self.inner.keys.fleet()]);
        call.arg(self.inner.identity.application).arg(from).arg(to);
        total(self.control(|live| async move { live.call(call).await }).await?)
    }

    pub(crate) async fn fleet_total(&self) -> Result<Option<u32>, Unavailable> {
        let mut call = script::FLEET_TOTAL.on([&self.inner.keys.fleet()]);
        call.arg(self.inner.identity.application).arg(millis(REMEMBERED));
        total(self.control(|live| async move { live.call(call).await }).await?)
    }

    pub(crate) async fn forget(&self, total: u32) -> Result<(), Unavailable> {
        let keys: Vec<String> = ShardId::all(total).flat_map(|shard| self.inner.keys.all(shard)).collect();
        for keys in keys.chunks(FORGOTTEN) {
            let unlink = |key: &String| {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(key);
                unlink
            };
            let calls = keys.iter().map(unlink).collect();
            self.control(|live| async move { live.calls(calls).await }).await?;
        }
        Ok(())
    }
}

/// A count; '' where there is none.
fn total(reply: redis::Value) -> Result<Option<u32>, Unavailable> {
    let total = text(reply)?;
    if total.is_empty() {
        return Ok(None);
    }
    total.parse().map(Some).map_err(|_| strange())
}
