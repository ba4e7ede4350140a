// SPDX-License-Identifier: AGPL-3.0-only
//! The broker's address, taken apart and made whole: what `lapin` reads differently from what people mean is put
//! right here. Its errors never hold the password.

use holdfast_service::Secret;
use lapin::uri::AMQPUri;

/// A parsed address.
pub(crate) struct Address {
    pub(crate) uri: AMQPUri,
}

impl Address {
    /// Parses an address.
    ///
    /// # Errors
    /// What is wrong with it, in words, without the address itself.
    pub(crate) fn parse(url: &Secret) -> Result<Self, String> {
        let text = url.expose();
        if !text.starts_with("amqp://") && !text.starts_with("amqps://") {
            return Err("expected an address that begins with amqp:// or amqps://".to_owned());
        }
        // The parser's own words name a place at most ("invalid port number"), never the text.
        let mut uri: AMQPUri = text.parse().map_err(|error| format!("not an AMQP address: {error}"))?;
        let host = host(text);
        if host.is_empty() {
            return Err("not an AMQP address: no host".to_owned());
        }
        // An IPv6 address is no domain, and would become "localhost".
        if let Some(bare) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            uri.authority.host = bare.to_owned();
        }
        // A trailing slash is meant as "the default vhost", not as the vhost with the empty name.
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        Ok(Self { uri })
    }

    /// Where it is, for logs and reasons: host and port.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }
}

/// The host as it is written, between credentials and port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    match place.find(']') {
        Some(end) => &place[..=end],
        None => place.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, String) {
        let address = Address::parse(&Secret::new(url)).expect(url);
        (address.place(), address.uri.vhost)
    }

    #[test]
    fn host_port_and_vhost_are_what_people_mean() {
        for (url, place, vhost) in [
            ("amqp://localhost", "localhost:5672", "/"),
            ("amqp://localhost/", "localhost:5672", "/"),
            ("amqps://me:secret@broker.example", "broker.example:5671", "/"),
            ("amqp://me:secret@10.0.0.1:1234/bots", "10.0.0.1:1234", "bots"),
            ("amqp://[::1]:5673/%2fbots", "::1:5673", "/bots"),
        ] {
            assert_eq!(parsed(url), (place.to_owned(), vhost.to_owned()), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for url in
            ["", "localhost", "http://me:hunter2@host", "amqp://me:hunter2@host:99999", "amqp://me:hunter2@"]
        {
            let error = Address::parse(&Secret::new(url)).err().expect(url);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
