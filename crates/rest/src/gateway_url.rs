// SPDX-License-Identifier: AGPL-3.0-only
//! Whether two addresses name the same place, however they are written. Pure; no names are looked up.

use http::Uri;

/// Whether two gateway addresses have the same host and port. `localhost` and loopback addresses are one host, and a
/// port that isn't written is the scheme's own.
#[must_use]
pub fn same_place(one: &str, other: &str) -> bool {
    match (place(one), place(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

fn place(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(match uri.scheme_str()? {
        "wss" | "https" => 443,
        _ => 80,
    });
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    Some((if loopback { "localhost".to_owned() } else { host }, port))
}

#[cfg(test)]
mod tests {
    use super::same_place;

    #[test]
    fn one_place_written_in_several_ways() {
        assert!(same_place("ws://localhost:7878", "ws://127.0.0.1:7878/?v=10"));
        assert!(same_place("ws://[::1]:7878/", "ws://localhost:7878"));
        assert!(same_place("wss://Gateway.Example.org", "wss://gateway.example.org:443/"));
    }

    #[test]
    fn different_places() {
        assert!(!same_place("wss://gateway.discord.gg", "ws://localhost:7878"));
        assert!(!same_place("ws://localhost:7878", "ws://localhost:7879"));
        assert!(!same_place("not an address", "not an address"));
    }
}
