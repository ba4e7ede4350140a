// SPDX-License-Identifier: AGPL-3.0-only
//! Which route a path is, and what its requests count for. In: method and path below the version. Out: the route, its
//! top-level resource, what is special about it. The table is `routes.txt`; what it doesn't know gets a route of its
//! own that is treated with caution.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

const TABLE: &str = include_str!("routes.txt");

/// Milliseconds between 1970 and the epoch of Discord's ids (reference, "Snowflakes").
const DISCORD_EPOCH_MS: u64 = 1_420_070_400_000;

/// Routes that the table doesn't have are told apart by their form; so many at most, beyond that two may count as one.
const UNKNOWN: u16 = 1_024;

/// The number of a route, below [`RouteId::COUNT`]; the same in every process of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u16);

/// What is known about a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// `METHOD /template`; `unknown` for all that aren't in the table.
    pub name: &'static str,
    /// Routes of one kin answer the same bucket name; its number is that of its first route.
    pub kin: u16,
    /// The kin is known to count together.
    pub together: bool,
    /// The age of the message decides which limit counts.
    pub by_age: bool,
    /// A change of `name` or `topic` has another limit beside.
    pub name_topic: bool,
    /// One request at a time, whatever headers say.
    pub untold: bool,
    /// Each interaction is a bucket of its own, of which nothing has to be learnt.
    pub each: bool,
    /// Not bound to the bot's global limit.
    pub exempt: bool,
    /// Goes before others.
    pub urgent: bool,
    /// Not in the table.
    pub unknown: bool,
}

/// The age of a message that is to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Less than ten seconds.
    New,
    /// In between.
    Settled,
    /// More than fourteen days.
    Old,
}

/// A path's route and what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'p> {
    /// The route.
    pub id: RouteId,
    /// The top-level resource: id of channel, guild or webhook, the latter with its token where there is one; of an
    /// interaction its id and token. Empty without one. May hold a secret.
    pub major: &'p str,
    /// The message that a route by age is about.
    pub message: Option<u64>,
}

impl RouteId {
    /// One more than the highest number.
    #[must_use]
    pub fn count() -> usize {
        ROUTES.list.len() + usize::from(UNKNOWN)
    }

    /// What is known about it.
    #[must_use]
    pub fn route(self) -> &'static Route {
        ROUTES.list.get(usize::from(self.0)).unwrap_or(&ROUTES.unknown)
    }
}

impl Found<'_> {
    /// Which of a route's limits counts, when the time since 1970 is `unix`.
    #[must_use]
    pub fn age(&self, unix: Duration) -> Age {
        let Some(message) = self.message else { return Age::Settled };
        let sent = Duration::from_millis((message >> 22) + DISCORD_EPOCH_MS);
        match unix.saturating_sub(sent).as_secs() {
            0..10 => Age::New,
            10..=1_209_600 => Age::Settled,
            _ => Age::Old,
        }
    }
}

/// All routes of the table, in the order of their numbers.
#[must_use]
pub fn routes() -> &'static [Route] {
    &ROUTES.list
}

/// Finds the route of a path below the API's version, such as `/channels/1/messages`, without query.
#[must_use]
pub fn find<'p>(method: &str, path: &'p str) -> Found<'p> {
    let trimmed = path.trim_end_matches('/');
    let parts = || trimmed.split('/').skip(1);
    let id = ROUTES.trie.find(method, parts()).unwrap_or_else(|| unknown(method, parts()));
    let route = id.route();
    let message = || parts().last().and_then(|last| last.parse().ok());
    Found { id, major: major(trimmed), message: if route.by_age { message() } else { None } }
}

/// The top-level resource as a piece of the path.
fn major(path: &str) -> &str {
    let mut parts = path.split('/').skip(1);
    let wanted = match parts.next() {
        Some("channels" | "guilds") => 1,
        Some("webhooks" | "interactions") => 2,
        _ => return "",
    };
    let start = path.match_indices('/').nth(1).map_or(path.len(), |(at, _)| at + 1);
    let rest = &path[start..];
    let end = rest.match_indices('/').nth(wanted - 1).map_or(rest.len(), |(at, _)| at);
    &rest[..end]
}

/// A route that isn't known: paths of the same form, with other ids in it, are the same.
fn unknown<'p>(method: &str, parts: impl Iterator<Item = &'p str>) -> RouteId {
    let step = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = |state: u64, text: &str| text.bytes().chain([b'/']).fold(state, step);
    let is_id = |part: &&str| part.len() >= 5 && part.bytes().all(|byte| byte.is_ascii_digit());
    // Long pieces are tokens and the like; they don't make a route of their own either.
    let shown = parts.map(|part| if is_id(&part) || part.len() > 32 { "*" } else { part });
    let form = shown.fold(hash(0xcbf2_9ce4_8422_2325, method), hash);
    let number = u16::try_from(form % u64::from(UNKNOWN)).unwrap_or(0);
    RouteId(u16::try_from(ROUTES.list.len()).unwrap_or(u16::MAX).saturating_add(number))
}

static ROUTES: LazyLock<Routes> = LazyLock::new(|| Routes::read(TABLE));

struct Routes {
    list: Vec<Route>,
    trie: Trie,
    unknown: Route,
}

impl Routes {
    fn read(table: &'static str) -> Self {
        let mut routes = Self {
            list: Vec::new(),
            trie: Trie::default(),
            unknown: Route { name: "unknown", unknown: true, ..Route::default() },
        };
        let mut kins: HashMap<&str, u16> = HashMap::new();
        for line in table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let mut words = line.split(' ');
            let (method, template) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let number = u16::try_from(routes.list.len()).unwrap_or(u16::MAX);
            let name = &line[..method.len() + 1 + template.len()];
            let mut route = Route { name, kin: number, ..Route::default() };
            for word in words {
                route.note(word, &mut kins);
            }
            routes.trie.insert(method, template.split('/').skip(1), RouteId(number));
            routes.list.push(route);
        }
        routes
    }
}

impl Route {
    fn note(&mut self, word: &'static str, kins: &mut HashMap<&'static str, u16>) {
        let (word, kin) = word.split_once('=').unwrap_or((word, ""));
        match word {
            "kin" | "together" => {
                self.kin = *kins.entry(kin).or_insert(self.kin);
                self.together = word == "together";
            }
            "by-age" => self.by_age = true,
            "name-topic" => self.name_topic = true,
            "untold" => self.untold = true,
            "each" => self.each = true,
            "exempt" => self.exempt = true,
            "urgent" => self.urgent = true,
            _ => debug_assert!(false, "routes.txt: {word} means nothing"),
        }
    }
}

/// Routes by the pieces of their paths: a piece as it is goes before any piece.
#[derive(Default)]
struct Trie {
    exact: HashMap<&'static str, Trie>,
    any: Option<Box<Trie>>,
    methods: Vec<(&'static str, RouteId)>,
}

impl Trie {
    fn insert(&mut self, method: &'static str, mut parts: impl Iterator<Item = &'static str>, id: RouteId) {
        match parts.next() {
            None => self.methods.push((method, id)),
            Some(part) if part.starts_with('{') => self.any.get_or_insert_default().insert(method, parts, id),
            Some(part) => self.exact.entry(part).or_default().insert(method, parts, id),
        }
    }

    fn find<'p>(&self, method: &str, mut parts: impl Iterator<Item = &'p str> + Clone) -> Option<RouteId> {
        let Some(part) = parts.next() else {
            return self.methods.iter().find(|(name, _)| *name == method).map(|(_, id)| *id);
        };
        let exact = self.exact.get(part).and_then(|trie| trie.find(method, parts.clone()));
        exact.or_else(|| self.any.as_ref().filter(|_| !part.is_empty())?.find(method, parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_route_and_their_resource() {
        for (method, path, name, major) in [
            ("POST", "/channels/7/messages", "POST /channels/{channel_id}/messages", "7"),
            ("GET", "/users/@me", "GET /users/@me", ""),
            ("GET", "/users/5", "GET /users/{user_id}", ""),
            ("GET", "/guilds/5/", "GET /guilds/{guild_id}", "5"),
            ("GET", "/guilds/templates/x", "GET /guilds/templates/{code}", "templates"),
            ("PATCH", "/guilds/5/members/@me", "PATCH /guilds/{guild_id}/members/@me", "5"),
            ("PUT", "/guilds/5/members/@me", "PUT /guilds/{guild_id}/members/{user_id}", "5"),
            ("POST", "/webhooks/1/t", "POST /webhooks/{webhook_id}/{webhook_token}", "1/t"),
            ("GET", "/webhooks/1", "GET /webhooks/{webhook_id}", "1"),
            (
                "PATCH",
                "/webhooks/1/t/messages/@original",
                "PATCH /webhooks/{webhook_id}/{webhook_token}/messages/@original",
                "1/t",
            ),
            (
                "POST",
                "/interactions/1/t/callback",
                "POST /interactions/{interaction_id}/{interaction_token}/callback",
                "1/t",
            ),
        ] {
            let found = find(method, path);
            assert_eq!((found.id.route().name, found.major), (name, major), "{method} {path}");
        }
    }

    #[test]
    fn unknown_routes_are_one_by_their_form() {
        let one = find("GET", "/novelties/81384788765712384/things");
        assert!(one.id.route().unknown && usize::from(one.id.0) < RouteId::count());
        assert_eq!(one.id, find("GET", "/novelties/91384788765712384/things").id);
        assert_ne!(one.id, find("PUT", "/novelties/91384788765712384/things").id);
        assert_ne!(one.id, find("GET", "/novelties/91384788765712384/others").id);
        assert_eq!(find("GET", "/channels/5/novelties").major, "5");
        for odd in ["", "/", "//", "/channels", "/channels//messages", "/webhooks/"] {
            assert!(find("GET", odd).id.route().unknown, "{odd}");
        }
    }

    #[test]
    fn what_is_special_is_known() {
        let route = |method, path| find(method, path).id.route();
        let (put, delete) = (
            route("PUT", "/channels/1/messages/2/reactions/x/@me"),
            route("DELETE", "/channels/1/messages/2/reactions/x/@me"),
        );
        assert!(put.together && put.kin == delete.kin);
        let (send, edit) = (route("POST", "/channels/1/messages"), route("PATCH", "/channels/1/messages/2"));
        assert!(send.kin == edit.kin && !send.together);
        assert!(route("POST", "/interactions/1/t/callback").each);
        assert!(route("POST", "/webhooks/1/t").exempt && !send.exempt);
        assert!(route("PATCH", "/channels/1").name_topic && route("GET", "/guilds/1/emojis").untold);
    }

    #[test]
    fn a_messages_age_is_in_its_id() {
        let at = |ms: u64| Duration::from_millis(DISCORD_EPOCH_MS + ms);
        let path = format!("/channels/1/messages/{}", 1_000_000_u64 << 22);
        let found = find("DELETE", &path);
        assert_eq!(found.age(at(1_009_999)), Age::New);
        assert_eq!(found.age(at(1_010_000)), Age::Settled);
        assert_eq!(found.age(at(1_000_000 + 1_209_601_000)), Age::Old);
        assert_eq!(find("GET", &path).age(at(u64::MAX / 4)), Age::Settled);
    }
}
