// SPDX-License-Identifier: AGPL-3.0-only
//! Asks a process that runs whether it is well, as the health check of a container does. In: its admin settings. Out: yes,
//! or what it says instead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::AdminSettings;

/// Containers' checks have a few seconds themselves.
const WITHIN: Duration = Duration::from_secs(3);
/// The page has a word.
const MAX_ANSWER: u64 = 64 << 10;

/// Err: what is in the way.
pub(super) async fn ask(admin: &AdminSettings) -> Result<(), String> {
    if !admin.enabled {
        return Err("admin.enabled is false: there is nobody to ask".to_owned());
    }
    let address = reachable(admin.listen);
    let answer = timeout(WITHIN, get(address)).await.map_err(|_| format!("{address} doesn't answer"))?;
    let answer = answer.map_err(|error| format!("{address} can't be asked: {error}"))?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(answer.lines().next().unwrap_or("no answer").to_owned()),
    }
}

async fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Where a listener can be reached from the same machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
