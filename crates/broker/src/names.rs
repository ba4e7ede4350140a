// SPDX-License-Identifier: AGPL-3.0-only
//! The names of every exchange, queue, routing key and header that docs/contract.md promises, in one place.

use std::fmt::Display;

/// Property `app_id` of everything that Holdfast publishes.
pub const APP_ID: &str = "holdfast";
/// Header: decimal number of the shard.
pub const HEADER_SHARD: &str = "shard";
/// Header: decimal id of the guild; without a guild the shard's number. Partitions are chosen by it.
pub const HEADER_GUILD: &str = "guild";
/// Header: generation of the shard's owner.
pub const HEADER_GENERATION: &str = "generation";
/// Header: decimal id of the webhook. Its queue is chosen by it.
pub const HEADER_WEBHOOK: &str = "webhook";
/// Header: why a message was rejected.
pub const HEADER_REASON: &str = "holdfast-reason";
/// Header: W3C trace context.
pub const HEADER_TRACE: &str = "traceparent";

/// Names below one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names that begin with `prefix` and a dot.
    #[must_use]
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The prefix itself.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn name(&self, rest: impl Display) -> String {
        format!("{}.{rest}", self.prefix)
    }

    /// Topic exchange of events; keys are [`Names::event_key`].
    #[must_use]
    pub fn events(&self) -> String {
        self.name("events")
    }

    /// Routing key of an event, `EVENT.shard.guild`; the guild is `0` without one.
    #[must_use]
    pub fn event_key(event: &str, shard: u32, guild: Option<u64>) -> String {
        format!("{event}.{shard}.{}", guild.unwrap_or(0))
    }

    /// Consistent-hash exchange of events by the header [`HEADER_GUILD`].
    #[must_use]
    pub fn partitions(&self) -> String {
        self.name("partitions")
    }

    /// Queue of one partition.
    #[must_use]
    pub fn partition(&self, number: u32) -> String {
        self.name(format_args!("partition.{number}"))
    }

    /// Fanout exchange of events that no queue is bound for.
    #[must_use]
    pub fn unrouted(&self) -> String {
        self.name("unrouted")
    }

    /// Direct exchange of commands; keys are [`Names::shard_key`], [`Names::GUILD_KEY`] and [`Names::ALL_KEY`].
    #[must_use]
    pub fn commands(&self) -> String {
        self.name("commands")
    }

    /// Routing key of commands to the owner of a shard.
    #[must_use]
    pub fn shard_key(shard: u32, count: u32) -> String {
        format!("shard.{shard}.{count}")
    }

    /// Routing key of commands that any replica forwards to the owner of the guild.
    pub const GUILD_KEY: &'static str = "guild";
    /// Routing key of commands to all shards.
    pub const ALL_KEY: &'static str = "all";

    /// Queue of the owner of a shard, who has this generation: the next owner's stands beside it for a moment.
    #[must_use]
    pub fn shard_commands(&self, shard: u32, count: u32, generation: u64) -> String {
        self.name(format_args!("commands.{}.{generation}", Self::shard_key(shard, count)))
    }

    /// Queue of commands that any replica forwards.
    #[must_use]
    pub fn guild_commands(&self) -> String {
        self.name("commands.guild")
    }

    /// Direct exchange of requests; keys are [`Names::REST_KEY`] and [`Names::STATE_KEY`].
    #[must_use]
    pub fn requests(&self) -> String {
        self.name("requests")
    }

    /// Routing key of requests to Discord's REST API.
    pub const REST_KEY: &'static str = "rest";
    /// Routing key of requests for a guild's state.
    pub const STATE_KEY: &'static str = "state";

    /// Queue of requests to Discord's REST API.
    #[must_use]
    pub fn rest_requests(&self) -> String {
        self.name("requests.rest")
    }

    /// Queue of requests for a guild's state.
    #[must_use]
    pub fn state_requests(&self) -> String {
        self.name("requests.state")
    }

    /// Topic exchange of interactions; keys are `KIND.name`.
    #[must_use]
    pub fn interactions(&self) -> String {
        self.name("interactions")
    }

    /// Queue of replies to interactions that came after the deferral.
    #[must_use]
    pub fn late_interactions(&self) -> String {
        self.name("interactions.late")
    }

    /// Consistent-hash exchange of webhook messages by the header [`HEADER_WEBHOOK`].
    #[must_use]
    pub fn webhook(&self) -> String {
        self.name("webhook")
    }

    /// Queue of some of the webhooks.
    #[must_use]
    pub fn webhook_queue(&self, number: u32) -> String {
        self.name(format_args!("webhook.{number}"))
    }

    /// Topic exchange of webhook events; the key is the event's type.
    #[must_use]
    pub fn webhook_events(&self) -> String {
        self.name("webhook-events")
    }

    /// Topic exchange of voice commands and events.
    #[must_use]
    pub fn voice(&self) -> String {
        self.name("voice")
    }

    /// Topic exchange of what was rejected; the key is the queue that it came from.
    #[must_use]
    pub fn dead(&self) -> String {
        self.name("dead")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let contract = include_str!("../../../docs/contract.md");
        let names = Names::new("holdfast");
        let exchanges = [
            names.events(),
            names.partitions(),
            names.unrouted(),
            names.commands(),
            names.requests(),
            names.interactions(),
            names.webhook(),
            names.webhook_events(),
            names.voice(),
            names.dead(),
        ];
        let queues = [
            names.guild_commands(),
            names.rest_requests(),
            names.state_requests(),
            names.late_interactions(),
            names.partition(7).replace('7', "N"),
            names.webhook_queue(7).replace('7', "N"),
        ];
        for name in exchanges.iter().chain(&queues) {
            assert!(contract.contains(&format!("`{name}`")), "{name} isn't in docs/contract.md");
        }
        for header in
            [HEADER_SHARD, HEADER_GUILD, HEADER_GENERATION, HEADER_WEBHOOK, HEADER_REASON, HEADER_TRACE]
        {
            assert!(contract.contains(&format!("| `{header}` |")), "{header} isn't in docs/contract.md");
        }
    }

    #[test]
    fn keys_put_the_shard_before_the_guild() {
        assert_eq!(
            Names::event_key("MESSAGE_CREATE", 17, Some(81_384_788_765_712_384)),
            "MESSAGE_CREATE.17.81384788765712384"
        );
        assert_eq!(Names::event_key("RESUMED", 0, None), "RESUMED.0.0");
        assert_eq!(Names::new("bot").shard_commands(3, 16, 7), "bot.commands.shard.3.16.7");
    }
}
