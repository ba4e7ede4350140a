// SPDX-License-Identifier: AGPL-3.0-only
//! Where an interaction goes: the first route that fits its kind and name. Pure.

use std::sync::Arc;

use holdfast_discord::interaction::InteractionKind;

use crate::settings::{Defer, Kinds, RouteSettings, WayKind};

/// What a routing key may have at most of a name, in bytes: AMQP's bound is 255 for all of it.
const MAX_NAME: usize = 200;

/// All routes.
pub(crate) struct Routes(Vec<(Kinds, String, Arc<Rule>)>);

/// What is done with an interaction.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Who is asked, one after the other.
    pub(crate) ways: Vec<WayKind>,
    pub(crate) url: Option<http::Uri>,
    pub(crate) defer: Defer,
}

impl Routes {
    pub(crate) fn new(settings: &[RouteSettings]) -> Self {
        let rule = |route: &RouteSettings| {
            let url = route.url.as_ref().and_then(|url| url.parse().ok());
            let rule = Rule { ways: route.ways.clone(), url, defer: route.defer };
            (route.kinds, route.name.clone(), Arc::new(rule))
        };
        Self(settings.iter().map(rule).collect())
    }

    /// The route of an interaction. The last one takes everything.
    pub(crate) fn find(&self, kind: InteractionKind, name: &str) -> Arc<Rule> {
        let fits = |(kinds, pattern, _): &&(Kinds, String, Arc<Rule>)| {
            let is_kind = matches!(kinds, Kinds::All) || *kinds == Kinds::Only(kind);
            is_kind && is_named(pattern, name)
        };
        let found = self.0.iter().find(fits).or(self.0.last());
        found.map_or_else(
            || Arc::new(Rule { ways: Vec::new(), url: None, defer: Defer::Public }),
            |(_, _, rule)| Arc::clone(rule),
        )
    }
}

fn is_named(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => short(name) == pattern,
    }
}

/// What stands before the first `:`; what follows in a `custom_id` is the bot's own affair.
fn short(name: &str) -> &str {
    name.split_once(':').map_or(name, |(before, _)| before)
}

/// Routing key of an interaction: `KIND.name`.
pub(crate) fn key(kind: InteractionKind, name: &str) -> String {
    let name = short(name);
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}.{}", kind.name(), &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_route_that_fits_counts() {
        let route = |kinds, name: &str, defer| RouteSettings {
            kinds,
            name: name.to_owned(),
            ways: vec![WayKind::Amqp],
            url: None,
            defer,
        };
        let routes = Routes::new(&[
            route(Kinds::Only(InteractionKind::Command), "ban", Defer::Ephemeral),
            route(Kinds::All, "vote*", Defer::Never),
            route(Kinds::All, "*", Defer::Public),
        ]);
        let defer = |kind, name| routes.find(kind, name).defer;
        assert_eq!(defer(InteractionKind::Command, "ban"), Defer::Ephemeral);
        assert_eq!(defer(InteractionKind::Component, "ban"), Defer::Public);
        assert_eq!(defer(InteractionKind::Command, "banish"), Defer::Public);
        assert_eq!(defer(InteractionKind::Component, "vote:7:yes"), Defer::Never);
        assert_eq!(defer(InteractionKind::Other(9), ""), Defer::Public);
    }

    #[test]
    fn a_key_is_the_kind_and_the_name_up_to_a_colon_within_bounds() {
        assert_eq!(key(InteractionKind::Command, "ping"), "command.ping");
        assert_eq!(key(InteractionKind::Component, "vote:7:yes"), "component.vote");
        assert_eq!(key(InteractionKind::Modal, ""), "modal.");
        assert!(key(InteractionKind::Component, &"ä".repeat(150)).len() <= 255);
    }
}
