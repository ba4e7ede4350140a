// SPDX-License-Identifier: AGPL-3.0-only
//! Reads what the broker says no with: whether trying again may help, and if not, what would.

use lapin::{Error, ErrorKind};

use crate::error::Refusal;

/// Where the broker said no: the same code means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum During {
    Connect,
    Declare,
}

/// AMQP reply codes (amqp0-9-1.extended.xml), of which each has its own meaning here.
const ACCESS_REFUSED: u16 = 403;
const PRECONDITION_FAILED: u16 = 406;
const COMMAND_INVALID: u16 = 503;
const NOT_ALLOWED: u16 = 530;

/// The refusal in an error, if it is one; anything else may heal by itself.
pub(super) fn refusal(error: &Error, during: During) -> Option<Refusal> {
    match error.kind() {
        ErrorKind::ProtocolError(said) => by_code(said.get_id(), said.get_message().as_str(), during),
        // rustls wraps its own error, and says in it what is wrong with the certificate.
        ErrorKind::IOError(io) => {
            let text = io.to_string();
            text.contains("certificate").then_some(Refusal::Certificate(text))
        }
        _ => None,
    }
}

fn by_code(code: u16, text: &str, during: During) -> Option<Refusal> {
    let said = text.to_owned();
    match (code, during) {
        // A type that no plugin brings: 503 up to 3.x, 406 since.
        (COMMAND_INVALID | PRECONDITION_FAILED, _) if names_hash_type(text) => Some(Refusal::PluginMissing),
        (ACCESS_REFUSED, During::Connect) => Some(Refusal::Credentials(said)),
        (NOT_ALLOWED, During::Connect) => Some(Refusal::VirtualHost(said)),
        (ACCESS_REFUSED, During::Declare) => Some(Refusal::Permission(said)),
        // 530 while declaring: an exchange with a reserved name was to be changed.
        (PRECONDITION_FAILED | NOT_ALLOWED, During::Declare) => Some(Refusal::Mismatch(said)),
        _ => None,
    }
}

/// True of "unknown exchange type 'x-consistent-hash'" and its like, not of an exchange that has the type already.
fn names_hash_type(text: &str) -> bool {
    text.contains("x-consistent-hash") && text.contains("exchange type") && !text.contains("inequivalent")
}

/// An error in words for a reason of [`State`](crate::State): the broker's own, without the library's wrapping.
pub(super) fn words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(said) => said.get_message().to_string(),
        ErrorKind::IOError(io) => io.to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The texts are those of RabbitMQ 3.10, and for the plugin also of 4.x.
    #[test]
    fn each_refusal_is_told_by_code_and_text() {
        let mismatch = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'bot.events' in vhost '/': \
                        received 'topic' but current is 'direct'";
        let hashed = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'bot.partitions' in vhost '/': \
                      received 'x-consistent-hash' but current is 'topic'";
        let login = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the \
                     broker logfile.";
        let vhost = "NOT_ALLOWED - vhost nowhere not found";
        let old = "COMMAND_INVALID - unknown exchange type 'x-consistent-hash'";
        let new = "PRECONDITION_FAILED - invalid exchange type 'x-consistent-hash'";
        let permission =
            "ACCESS_REFUSED - configure access to exchange 'a' in vhost '/' refused for user 'me'";
        for (code, text, during, expected) in [
            (403, login, During::Connect, Some(Refusal::Credentials(login.to_owned()))),
            (530, vhost, During::Connect, Some(Refusal::VirtualHost(vhost.to_owned()))),
            (503, old, During::Declare, Some(Refusal::PluginMissing)),
            (406, new, During::Declare, Some(Refusal::PluginMissing)),
            (406, mismatch, During::Declare, Some(Refusal::Mismatch(mismatch.to_owned()))),
            (406, hashed, During::Declare, Some(Refusal::Mismatch(hashed.to_owned()))),
            (403, permission, During::Declare, Some(Refusal::Permission(permission.to_owned()))),
            (405, "RESOURCE_LOCKED - cannot obtain exclusive access", During::Declare, None),
            (320, "CONNECTION_FORCED - broker forced connection closure", During::Connect, None),
            (541, "INTERNAL_ERROR", During::Connect, None),
        ] {
            assert_eq!(by_code(code, text, during), expected, "{code} {text}");
        }
    }

    #[test]
    fn a_missing_plugin_is_named_with_the_command_that_enables_it() {
        let said = Refusal::PluginMissing.to_string();
        assert!(said.contains("rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"), "{said}");
    }
}
