// SPDX-License-Identifier: AGPL-3.0-only
//! A change of the count of shards, in the store. In: what this replica has done. Out: how far all of them are. Each
//! step is one script on the bot's slot; the fleet's count is in another one, so that the beginning and the end are
//! steps of their own, which whoever comes next completes.

use std::time::Duration;

use redis::{Cmd, Value};

use super::leases::millis;
use super::reply::{Reply, bytes, strange, text};
use super::{Valkey, script};
use crate::{Reshard, ReshardBegun, ReshardPhase, Seen, ShardId, Unavailable};

/// How long keys are kept after they were last asked for or written to.
const KEPT: Duration = Duration::from_secs(3600);
/// Of the record, as [`course`] reads them.
const FIELDS: [&str; 7] = ["from", "to", "phase", "begun", "warm", "cut", "open"];

impl Valkey {
    pub(crate) async fn begin_reshard(&self, from: u32, to: u32) -> Result<ReshardBegun, Unavailable> {
        if let Some(reshard) = self.reshard().await? {
            return Ok(ReshardBegun::UnderWay(reshard));
        }
        let fleet = self.fleet_total().await?;
        if fleet != Some(from) || to == from || to == 0 {
            return Ok(ReshardBegun::Count(fleet.unwrap_or(0)));
        }
        let mut call = script::RESHARD_BEGIN.on([&self.inner.keys.reshard()]);
        call.arg(from).arg(to).arg(self.inner.keys.changes()).arg(millis(KEPT));
        let mut reply = Reply::list(self.small(call).await?)?;
        let begun = reply.text()? == "begun";
        let reshard = course(reply.value()?)?.ok_or_else(strange)?;
        if !begun {
            return Ok(ReshardBegun::UnderWay(reshard));
        }
        // Another's change may have come to its end since the count was looked at: it changes the count first, and
        // removes its record then.
        let fleet = self.fleet_total().await?;
        if fleet != Some(from) {
            self.end(ReshardPhase::Warming, Some(reshard.begun_unix_ms)).await?;
            return Ok(ReshardBegun::Count(fleet.unwrap_or(0)));
        }
        Ok(ReshardBegun::Begun(reshard))
    }

    pub(crate) async fn reshard(&self) -> Result<Option<Reshard>, Unavailable> {
        let key = self.inner.keys.reshard();
        let (mut look, mut keep) = (redis::cmd("HMGET"), redis::cmd("PEXPIRE"));
        look.arg(&key).arg(&FIELDS);
        keep.arg(&key).arg(millis(KEPT));
        let replies = self.control(|live| async move { live.calls(vec![look, keep]).await }).await?;
        let reshard = course(replies.into_iter().next().ok_or_else(strange)?)?;
        match reshard {
            Some(done) if done.is_done() && self.finish(&done).await? => Ok(None),
            reshard => Ok(reshard),
        }
    }

    /// The fleet's count first, the record then: whoever is interrupted between the two leaves a record that says
    /// what is to be done. `false`: there is no fleet whose count could be changed. It is back with its next
    /// heartbeat, perhaps with the old count, and must find the record.
    async fn finish(&self, done: &Reshard) -> Result<bool, Unavailable> {
        if self.replaced_total(done.from, done.to).await?.is_none() {
            return Ok(false);
        }
        self.end(ReshardPhase::Cutting, Some(done.begun_unix_ms)).await?;
        Ok(true)
    }

    pub(crate) async fn abandon_reshard(&self) -> Result<bool, Unavailable> {
        self.end(ReshardPhase::Warming, None).await
    }

    async fn end(&self, phase: ReshardPhase, begun: Option<u64>) -> Result<bool, Unavailable> {
        let mut call = script::RESHARD_END.on([&self.inner.keys.reshard()]);
        call.arg(word(phase)).arg(begun.map_or(String::new(), |begun| begun.to_string()));
        call.arg(self.inner.keys.changes());
        Ok(self.small(call).await? == Value::Int(1))
    }

    pub(crate) async fn warmed(&self, shards: &[ShardId]) -> Result<(), Unavailable> {
        self.mark("warm", ReshardPhase::Warming, true, shards).await.map(drop)
    }

    pub(crate) async fn cooled(&self, shards: &[ShardId]) -> Result<(), Unavailable> {
        self.mark("warm", ReshardPhase::Warming, false, shards).await.map(drop)
    }

    pub(crate) async fn opened(&self, shards: &[ShardId]) -> Result<(), Unavailable> {
        if self.mark("open", ReshardPhase::Cutting, true, shards).await? {
            self.reshard().await?;
        }
        Ok(())
    }

    /// Whether all new shards are so by now.
    async fn mark(
        &self,
        what: &str,
        phase: ReshardPhase,
        so: bool,
        shards: &[ShardId],
    ) -> Result<bool, Unavailable> {
        let mut call = script::RESHARD_MARK.on([&self.inner.keys.reshard()]);
        call.arg(what).arg(word(phase)).arg(u8::from(so));
        call.arg(self.inner.keys.changes()).arg(millis(KEPT));
        for shard in shards {
            call.arg(shard.shard).arg(shard.total);
        }
        Ok(text(self.small(call).await?)? == "1")
    }

    pub(crate) async fn cut(&self, shard: ShardId, seen: &[(u32, Vec<Seen>)]) -> Result<(), Unavailable> {
        let mut call = script::RESHARD_CUT.on([&self.inner.keys.reshard()]);
        call.arg(shard.shard).arg(shard.total).arg(self.inner.keys.changes()).arg(millis(KEPT));
        for (new, seen) in seen.iter().filter(|(_, seen)| !seen.is_empty()) {
            let records: Vec<u8> = seen.iter().flat_map(|seen| seen.to_bytes()).collect();
            call.arg(*new).arg(records);
        }
        self.bulk(|live| async move { live.call(call).await }).await.map(drop)
    }

    pub(crate) async fn seen(&self, shard: ShardId) -> Result<Option<Vec<Seen>>, Unavailable> {
        let keys = &self.inner.keys;
        let mut call = script::RESHARD_SEEN.on([&keys.reshard(), &keys.seen(shard.shard)]);
        call.arg(shard.total).arg(millis(KEPT));
        match self.bulk(|live| async move { live.call(call).await }).await? {
            Value::Nil => Ok(None),
            list => Seen::all_from(&bytes(list)?).map(Some).ok_or_else(strange),
        }
    }

    async fn small(&self, call: Cmd) -> Result<Value, Unavailable> {
        self.control(|live| async move { live.call(call).await }).await
    }
}

/// The record, if there is one.
fn course(fields: Value) -> Result<Option<Reshard>, Unavailable> {
    let mut fields = Reply::list(fields)?;
    let Some(from) = fields.optional()? else { return Ok(None) };
    let to = fields.parsed()?;
    let phase = match fields.text()?.as_str() {
        "warming" => ReshardPhase::Warming,
        "cutting" => ReshardPhase::Cutting,
        _ => return Err(strange()),
    };
    let (begun_unix_ms, warm) = (fields.parsed()?, fields.parsed()?);
    Ok(Some(Reshard {
        from,
        to,
        phase,
        begun_unix_ms,
        warm,
        cut: fields.parsed()?,
        opened: fields.parsed()?,
    }))
}

/// As the record has it.
fn word(phase: ReshardPhase) -> &'static str {
    match phase {
        ReshardPhase::Warming => "warming",
        ReshardPhase::Cutting => "cutting",
    }
}
