// SPDX-License-Identifier: AGPL-3.0-only
//! Reports what arrives and what is handled. In: events. Out: `arrived` with the inbox's verdict, and `handled`.

use anyhow::Result;
use holdfast_rust_worker::BoxError;
use holdfast_rust_worker::consumer::{Received, consume};
use holdfast_rust_worker::inbox::{Inbox, Memory, Verdict};
use serde_json::{Value, json};

use crate::{report, text};

pub(crate) async fn run(settings: &Value) -> Result<()> {
    let fails = async |received: &Received| {
        let of = described(received);
        let asked = &settings["failOn"];
        if !asked.is_null() && (&of["g"], &of["n"]) == (&asked["g"], &asked["n"]) {
            return Err("as asked".into());
        }
        report("handled", of);
        Ok::<(), BoxError>(())
    };
    let (url, queue) = (text(settings, "url"), text(settings, "queue"));
    Err(consume(url, queue, &mut Reported::default(), fails).await.into())
}

#[derive(Default)]
struct Reported(Inbox);

impl Memory for Reported {
    fn judge(&mut self, message: &Received, id: &str, redelivered: bool) -> Verdict {
        let verdict = self.0.judge(message, id, redelivered);
        let mut arrived = described(message);
        arrived["id"] = id.into();
        arrived["redelivered"] = redelivered.into();
        arrived["verdict"] = match verdict {
            Verdict::New => "new",
            Verdict::Repeated => "repeated",
            Verdict::Outdated => "outdated",
        }
        .into();
        report("arrived", arrived);
        verdict
    }

    fn finish(&mut self, id: &str) {
        self.0.finish(id);
    }
}

fn described(received: &Received) -> Value {
    match received {
        Received::Gap(gap) => json!({
            "name": gap.name, "shard": gap.shard, "stream": gap.stream, "generation": gap.generation,
            "from": gap.from, "to": gap.to, "reason": gap.reason,
        }),
        Received::Event(event) => {
            let mut of = json!({
                "name": event.name, "shard": event.shard, "stream": event.stream, "generation": event.generation,
                "position": event.position,
            });
            if let Some((guild, number)) = number(&event.data) {
                of["g"] = guild.into();
                of["n"] = number.into();
            }
            of
        }
    }
}

/// The guild and number of one of the simulator's messages, `sim 81384788765712384 17`.
fn number(data: &[u8]) -> Option<(String, u64)> {
    let data: Value = serde_json::from_slice(data).ok()?;
    let (guild, number) = data["content"].as_str()?.strip_prefix("sim ")?.split_once(' ')?;
    let number = number.split(' ').next()?.parse().ok()?;
    Some((guild.to_owned(), number))
}
