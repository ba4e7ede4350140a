// SPDX-License-Identifier: AGPL-3.0-only
//! Binding listeners: an address and the setting that names it come in, a listener or an error that says what to do
//! goes out.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted: a bot's shards and scrapers arriving at once after a restart; the kernel
/// takes the lower of this and `net.core.somaxconn` (4,096 by default).
const BACKLOG: u32 = 4096;

/// A port could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (setting {setting}): {reason}{advice}")]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// The key of the setting that names it.
    pub setting: String,
    /// What the system said.
    pub reason: io::Error,
    advice: &'static str,
}

/// Listens on `address`; `setting` is the key that names it, for the error.
///
/// # Errors
/// The address is taken, not ours, or needs more rights.
pub fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, BindError> {
    listen(address).map_err(|reason| {
        let advice = match reason.kind() {
            io::ErrorKind::AddrInUse => "; another process has this port: end it or choose another port",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need more rights: choose a higher one",
            io::ErrorKind::AddrNotAvailable => {
                "; this machine has no such address: 0.0.0.0 means all of them"
            }
            _ => "",
        };
        BindError { address, setting: setting.to_owned(), reason, advice }
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Without this a restart fails while connections of the process before are still winding down.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_the_setting() {
        let first = bind("127.0.0.1:0".parse().expect("an address"), "ws.listen").expect("a free port");
        let taken = first.local_addr().expect("bound");
        let error = bind(taken, "admin.listen").expect_err("taken").to_string();
        assert!(error.contains("admin.listen") && error.contains("another process"), "{error}");
    }
}
