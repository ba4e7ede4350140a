// SPDX-License-Identifier: AGPL-3.0-only
//! The scripts. In: keys and arguments. Out: a call by the script's digest, so that its text is sent once for each
//! connection. Pure.

use std::sync::LazyLock;

use redis::Cmd;

/// A script, known to the store by its digest.
pub(super) struct Script {
    text: &'static str,
    digest: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident = $file:literal $(after $before:literal)?),+ $(,)?) => {
        $(pub(super) static $name: Script = Script {
            text: concat!(
                include_str!("lua/prelude.lua"),
                $(include_str!(concat!("lua/", $before)),)?
                include_str!(concat!("lua/", $file)),
            ),
            digest: LazyLock::new(|| $name.compute()),
        };)+

        /// All of them: each connection loads them before its first call.
        pub(super) static ALL: &[&Script] = &[$(&$name),+];
    };
}

scripts! {
    ACQUIRE = "acquire.lua",
    RENEW = "renew.lua",
    RELEASE = "release.lua",
    WRITE = "write.lua",
    CONTACT = "contact.lua",
    LEAVE = "leave.lua",
    FLEET = "fleet.lua",
    FLEET_LEAVE = "fleet_leave.lua",
    FLEET_REPLACE = "fleet_replace.lua",
    FLEET_TOTAL = "fleet_total.lua",
    IDENTIFY = "identify.lua",
    LEARN = "learn.lua",
    REFUSED = "refused.lua",
    RESHARD_BEGIN = "reshard_begin.lua",
    RESHARD_CUT = "reshard_cut.lua",
    RESHARD_END = "reshard_end.lua",
    RESHARD_MARK = "reshard_mark.lua",
    RESHARD_SEEN = "reshard_seen.lua",
    REST_ANSWER = "rest_answer.lua" after "rest_bucket.lua",
    REST_INVALID = "rest_invalid.lua",
    REST_REPLICAS = "rest_replicas.lua",
    REST_TAKE = "rest_take.lua" after "rest_bucket.lua",
    UNUSED = "unused.lua",
}

impl Script {
    fn compute(&self) -> String {
        redis::Script::new(self.text).get_hash().to_owned()
    }

    /// A call on these keys; arguments are added to it.
    pub(super) fn on<const N: usize>(&self, keys: [&str; N]) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(self.digest.as_str()).arg(N).arg(&keys);
        call
    }

    /// Makes the script known to the server.
    pub(super) fn load(&self) -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.text);
        load
    }
}
