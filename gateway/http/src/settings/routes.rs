// SPDX-License-Identifier: AGPL-3.0-only
//! `[[http.routes]]`: which interactions go where, and what Discord is told if nobody answers.

use holdfast_discord::interaction::InteractionKind;
use holdfast_service::settings::Section;

use super::url;

const NO_WAY: &str = "what no route is for has no way to a worker: add a [broker], or ws to this process, or a last route \
    with kind = \"all\" and name = \"*\"";

/// One of `[[http.routes]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Which kind of interaction.
    pub kinds: Kinds,
    /// The command's name, or what the `custom_id` begins with up to its first `:`; at the end `*` stands for anything.
    pub name: String,
    /// Who is asked, one after the other until somebody takes it.
    pub ways: Vec<WayKind>,
    /// The worker's address.
    pub url: Option<String>,
    /// What Discord is told if nobody answers in time.
    pub defer: Defer,
}

/// Kinds of interaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// Any.
    All,
    /// This one.
    Only(InteractionKind),
}

/// A way to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayKind {
    /// The broker.
    Amqp,
    /// A URL.
    Http,
    /// A client of the WebSocket front.
    WebSocket,
}

/// What Discord is told if nobody answers in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defer {
    /// To wait; the message that follows is for everybody, as the interaction's kind has it.
    Public,
    /// To wait; the message that follows is for the user alone.
    Ephemeral,
    /// Nothing: the user sees that it failed.
    Never,
}

/// Which ways there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// RabbitMQ.
    pub(super) broker: bool,
    /// `ws` in the same process.
    pub(super) ws: bool,
    /// Webhook events have a URL: that may be all that is wanted.
    pub(super) events: bool,
}

impl RouteSettings {
    /// What everything takes that no route is written for.
    fn of_the_rest(reach: Reach) -> Self {
        let ways = vec![if reach.broker { WayKind::Amqp } else { WayKind::WebSocket }];
        Self { kinds: Kinds::All, name: "*".to_owned(), ways, url: None, defer: Defer::Public }
    }

    fn read(route: &Section<'_>, reach: Reach) -> Self {
        let rest = Self::of_the_rest(reach);
        let read = Self {
            kinds: route.choice(
                "kind",
                Kinds::All,
                &[
                    ("all", Kinds::All),
                    ("command", Kinds::Only(InteractionKind::Command)),
                    ("component", Kinds::Only(InteractionKind::Component)),
                    ("modal", Kinds::Only(InteractionKind::Modal)),
                    ("autocomplete", Kinds::Only(InteractionKind::Autocomplete)),
                ],
            ),
            name: route.text("name", "*"),
            ways: ways(route, &rest.ways),
            url: url(route, "url"),
            defer: route.choice(
                "defer",
                Defer::Public,
                &[("public", Defer::Public), ("ephemeral", Defer::Ephemeral), ("never", Defer::Never)],
            ),
        };
        if read.ways.contains(&WayKind::Http) != read.url.is_some() {
            route.problem("url", "belongs to to = [\"http\"], and that needs it");
        }
        let needs = |way: &WayKind, has: bool| read.ways.contains(way) && !has;
        if needs(&WayKind::Amqp, reach.broker) {
            route.problem("to", "\"amqp\" needs the section [broker]");
        }
        if needs(&WayKind::WebSocket, reach.broker || reach.ws) {
            route.problem("to", "\"websocket\" needs ws in the same process, or the section [broker]");
        }
        read
    }
}

/// All of them, and last the one for the rest.
pub(super) fn read(http: &Section<'_>, reach: Reach) -> Vec<RouteSettings> {
    let mut routes = http.tables("routes", |route| RouteSettings::read(route, reach));
    let takes_all = |route: &RouteSettings| route.kinds == Kinds::All && route.name == "*";
    if !routes.iter().any(takes_all) {
        if !(reach.broker || reach.ws || reach.events) {
            http.problem("routes", NO_WAY);
        }
        routes.push(RouteSettings::of_the_rest(reach));
    }
    routes
}

fn ways(route: &Section<'_>, default: &[WayKind]) -> Vec<WayKind> {
    let named = [("amqp", WayKind::Amqp), ("http", WayKind::Http), ("websocket", WayKind::WebSocket)];
    let name = |way: &WayKind| named.iter().find(|(_, one)| one == way).map_or("", |(name, _)| *name);
    let default: Vec<&str> = default.iter().map(name).collect();
    let expected = "a list of \"amqp\", \"http\", \"websocket\"";
    let names = route.names("to", &default, expected, |name| named.iter().any(|(one, _)| *one == name));
    if names.is_empty() {
        route.problem("to", format!("expected {expected}, at least one"));
    }
    let way = |name: &String| named.iter().find(|(one, _)| one == name).map(|(_, way)| *way);
    names.iter().filter_map(way).collect()
}
