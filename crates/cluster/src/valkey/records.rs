// SPDX-License-Identifier: AGPL-3.0-only
//! Records and checkpoints in the store. In: what a shard's owner saves, under its lease. Out: what a new owner needs.
//! Each write is one call that first looks at the generation; many go in one round trip, up to a bound on bytes.

use redis::{Cmd, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::reply::{Reply, bytes, strange, text};
use super::{Valkey, script};
use crate::guilds::PAGE;
use crate::unavailable::Cause;
use crate::{ClientRecord, Fenced, Lease, Progress, SessionRecord, ShardId, Unavailable, WriteError};

/// Bytes in one round trip: half a second at 1 MB/s, well within `cluster.timeout`.
const BATCH: usize = 512 << 10;
/// Records that are read in one round trip: READY of a shard of 2,500 guilds is about 130 KB.
const LOADED: usize = 16;
/// The form in which records are written. A change gets a new number; the one before stays readable.
const VERSION: u32 = 1;

/// Calls that fit into one round trip, with what each of them is for.
struct Batch<T> {
    calls: Vec<Cmd>,
    of: Vec<T>,
    bytes: usize,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { calls: Vec::new(), of: Vec::new(), bytes: 0 }
    }
}

impl Valkey {
    pub(crate) async fn save_sessions(
        &self,
        sessions: &[(Lease, &SessionRecord)],
    ) -> Result<Vec<Result<(), Fenced>>, Unavailable> {
        let write = |(lease, record): &(Lease, &SessionRecord)| {
            let mut call = self.write(lease, &self.inner.keys.session(lease.shard), "HSET");
            call.arg("v").arg(VERSION).arg("record").arg(json(record)?);
            call.arg("progress").arg(json(&record.progress())?);
            Ok((*lease, call))
        };
        self.write_all(sessions.iter().map(write)).await
    }

    pub(crate) async fn save_progress(
        &self,
        progress: &[(Lease, Progress)],
    ) -> Result<Vec<Result<(), Fenced>>, Unavailable> {
        let write = |(lease, progress): &(Lease, Progress)| {
            let mut call = self.write(lease, &self.inner.keys.session(lease.shard), "HSET");
            call.arg("progress").arg(json(progress)?);
            Ok((*lease, call))
        };
        self.write_all(progress.iter().map(write)).await
    }

    pub(crate) async fn load_sessions(
        &self,
        shards: &[ShardId],
    ) -> Result<Vec<Option<SessionRecord>>, Unavailable> {
        let mut records = Vec::with_capacity(shards.len());
        for shards in shards.chunks(LOADED) {
            let look = |shard: &ShardId| {
                let mut look = redis::cmd("HMGET");
                look.arg(self.inner.keys.session(*shard)).arg(&["v", "record", "progress"]);
                look
            };
            let calls = shards.iter().map(look).collect();
            let replies = self.bulk(|live| async move { live.calls(calls).await }).await?;
            for (reply, shard) in replies.into_iter().zip(shards) {
                let mut reply = Reply::list(reply)?;
                let version = reply.value()?;
                let mut record: Option<SessionRecord> =
                    stored(version.clone(), reply.value()?, *shard, "session")?;
                // Without a record, it is what was left of one that has been forgotten since.
                if let Some(record) = &mut record
                    && let Some(progress) = stored(version, reply.value()?, *shard, "progress")?
                {
                    record.advance(&progress);
                }
                records.push(record);
            }
        }
        Ok(records)
    }

    pub(crate) async fn forget_session(&self, lease: &Lease) -> Result<(), WriteError> {
        let call = self.write(lease, &self.inner.keys.session(lease.shard), "DEL");
        self.write_one(lease, call).await
    }

    pub(crate) async fn save_clients(
        &self,
        lease: &Lease,
        clients: &[ClientRecord],
    ) -> Result<(), WriteError> {
        let mut call = self.write(lease, &self.inner.keys.clients(lease.shard), "HSET");
        call.arg("v").arg(VERSION).arg("records").arg(json(clients)?);
        self.write_one(lease, call).await
    }

    pub(crate) async fn load_clients(&self, shard: ShardId) -> Result<Vec<ClientRecord>, Unavailable> {
        let mut look = redis::cmd("HMGET");
        look.arg(self.inner.keys.clients(shard)).arg(&["v", "records"]);
        let reply = self.bulk(|live| async move { live.call(look).await }).await?;
        let mut reply = Reply::list(reply)?;
        Ok(stored(reply.value()?, reply.value()?, shard, "clients")?.unwrap_or_default())
    }

    pub(crate) async fn save_guilds(
        &self,
        lease: &Lease,
        guilds: &[(u64, Vec<u8>)],
    ) -> Result<(), WriteError> {
        let mut rest = guilds;
        while !rest.is_empty() {
            let mut call = self.write(lease, &self.inner.keys.state(lease.shard), "HSET");
            let mut size = 0;
            let fits = |(_, checkpoint): &&(u64, Vec<u8>)| {
                size += checkpoint.len();
                size <= BATCH
            };
            // One that is larger than the bound goes alone.
            let some = rest.iter().take(PAGE).take_while(fits).count().max(1);
            let (now, later) = rest.split_at(some);
            for (guild, checkpoint) in now {
                call.arg(*guild).arg(checkpoint.as_slice());
            }
            self.write_one(lease, call).await?;
            rest = later;
        }
        Ok(())
    }

    pub(crate) async fn remove_guilds(&self, lease: &Lease, guilds: &[u64]) -> Result<(), WriteError> {
        for guilds in guilds.chunks(PAGE) {
            let mut call = self.write(lease, &self.inner.keys.state(lease.shard), "HDEL");
            call.arg(guilds);
            self.write_one(lease, call).await?;
        }
        Ok(())
    }

    /// Checkpoints from a cursor on, and the next cursor; 0 begins and ends.
    pub(crate) async fn guilds(
        &self,
        shard: ShardId,
        cursor: u64,
    ) -> Result<(u64, Vec<(u64, Vec<u8>)>), Unavailable> {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(self.inner.keys.state(shard)).arg(cursor).arg("COUNT").arg(PAGE);
        let reply = self.bulk(|live| async move { live.call(scan).await }).await?;
        let mut reply = Reply::list(reply)?;
        let next = reply.parsed()?;
        let read = |(guild, checkpoint): (Value, Value)| {
            let guild = text(guild)?.parse().map_err(|_| strange())?;
            Ok((guild, bytes(checkpoint)?))
        };
        let page: Result<_, Unavailable> = Reply::pairs(reply.value()?)?.into_iter().map(read).collect();
        Ok((next, page?))
    }

    /// A write under a lease; the command's arguments are added to it.
    fn write(&self, lease: &Lease, key: &str, command: &str) -> Cmd {
        let mut call = script::WRITE.on([&self.inner.keys.generation(lease.shard), key]);
        call.arg(lease.owner.to_string()).arg(lease.generation).arg(command);
        call
    }

    async fn write_one(&self, lease: &Lease, call: Cmd) -> Result<(), WriteError> {
        let reply = self.bulk(|live| async move { live.call(call).await }).await?;
        Ok(written(reply, lease)??)
    }

    /// Writes as many at once as the bound on bytes allows.
    async fn write_all(
        &self,
        writes: impl Iterator<Item = Result<(Lease, Cmd), Unavailable>>,
    ) -> Result<Vec<Result<(), Fenced>>, Unavailable> {
        let mut results = Vec::new();
        let mut batch = Batch::default();
        for write in writes {
            let (lease, call) = write?;
            batch.bytes += call.get_packed_command().len();
            batch.calls.push(call);
            batch.of.push(lease);
            if batch.bytes >= BATCH {
                self.write_batch(std::mem::take(&mut batch), &mut results).await?;
            }
        }
        self.write_batch(batch, &mut results).await?;
        Ok(results)
    }

    async fn write_batch(
        &self,
        batch: Batch<Lease>,
        results: &mut Vec<Result<(), Fenced>>,
    ) -> Result<(), Unavailable> {
        let Batch { calls, of, .. } = batch;
        let replies = self.bulk(|live| async move { live.calls(calls).await }).await?;
        for (reply, lease) in replies.into_iter().zip(of) {
            results.push(written(reply, &lease)?);
        }
        Ok(())
    }
}

fn written(reply: Value, lease: &Lease) -> Result<Result<(), Fenced>, Unavailable> {
    let mut reply = Reply::list(reply)?;
    match reply.text()?.as_str() {
        "written" => Ok(Ok(())),
        "fenced" => {
            let (shard, generation) = (lease.shard, lease.generation);
            Ok(Err(Fenced { shard, generation, latest: reply.parsed()? }))
        }
        _ => Err(strange()),
    }
}

fn json<T: Serialize + ?Sized>(record: &T) -> Result<Vec<u8>, Unavailable> {
    // Records are structs of plain fields: that can't fail, but it must not take a shard down either.
    serde_json::to_vec(record)
        .map_err(|_| Cause::Failed("a record can't be written as JSON".to_owned()).into())
}

/// A record, if there is one that this version can read.
fn stored<T: DeserializeOwned>(
    version: Value,
    record: Value,
    shard: ShardId,
    what: &'static str,
) -> Result<Option<T>, Unavailable> {
    if version == Value::Nil || record == Value::Nil {
        return Ok(None);
    }
    let version: u32 = text(version)?.parse().map_err(|_| strange())?;
    if version > VERSION {
        tracing::warn!(%shard, what, version, "a record of a later version of Holdfast's counts as absent");
        return Ok(None);
    }
    match serde_json::from_slice(&bytes(record)?) {
        Ok(record) => Ok(Some(record)),
        Err(error) => {
            // The error's text could quote a secret: its place is enough.
            tracing::warn!(%shard, what, column = error.column(), "a record that can't be read counts as absent");
            Ok(None)
        }
    }
}
