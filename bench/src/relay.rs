// SPDX-License-Identifier: AGPL-3.0-only
//! The bare relay: what a process between client and gateway costs when it does nothing but read and write.
//! In: TCP connections. Out: for each one its own connection upstream, bytes copied both ways.
//! One current-thread runtime per core; every task belongs to its thread's runtime.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    runtime,
    sync::mpsc::{Receiver, channel, error::TrySendError},
};

/// Accepted connections that wait for their thread; more at once are closed.
const WAITING: usize = 1024;
/// Bytes read at once and direction: a burst of some fifty events of 1.2 KB.
const BUFFER: usize = 64 << 10;

/// Where the relay stands.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to accept clients on.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Address to connect each of them to.
    #[arg(long)]
    pub(crate) upstream: SocketAddr,
    /// Threads, each with its own runtime; by default one per core.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

/// Relays until the process is killed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let listener = TcpListener::bind(args.listen).with_context(|| format!("binding {}", args.listen))?;
    let threads = args.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    serve(&listener, args.upstream, threads.max(1))
}

fn serve(listener: &TcpListener, upstream: SocketAddr, threads: usize) -> Result<()> {
    let mut workers = Vec::new();
    for _ in 0..threads {
        let (sender, receiver) = channel(WAITING);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("relay".into()).spawn(move || {
            runtime.block_on(adopt(receiver, upstream));
        })?;
        workers.push(sender);
    }
    for (number, connection) in listener.incoming().enumerate() {
        match workers[number % threads].try_send(connection?) {
            // Dropped, hence closed: the client sees that the relay is full.
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Closed(_)) => break,
        }
    }
    Ok(())
}

async fn adopt(mut accepted: Receiver<TcpStream>, upstream: SocketAddr) {
    while let Some(connection) = accepted.recv().await {
        tokio::spawn(async move {
            if let Err(error) = relay(connection, upstream).await {
                eprintln!("relay: {error:#}");
            }
        });
    }
}

async fn relay(connection: TcpStream, upstream: SocketAddr) -> Result<()> {
    connection.set_nonblocking(true)?;
    let client = tokio::net::TcpStream::from_std(connection)?;
    let gateway = tokio::net::TcpStream::connect(upstream).await.context("connecting upstream")?;
    client.set_nodelay(true)?;
    gateway.set_nodelay(true)?;
    let (client_read, client_write) = client.into_split();
    let (gateway_read, gateway_write) = gateway.into_split();
    // A task for each direction: one that waits does not have the other polled in vain.
    let up = tokio::spawn(copy(client_read, gateway_write));
    let down = copy(gateway_read, client_write).await;
    up.abort();
    down.context("copying down")
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn bytes_go_both_ways_and_the_end_is_passed_on() {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = upstream.local_addr().unwrap();
        thread::spawn(move || serve(&listener, target, 2));

        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        let (mut server, _) = upstream.accept().unwrap();
        let mut heard = [0; 5];
        server.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");

        let large = vec![7; 3 * BUFFER + 1];
        let expected = large.len();
        thread::spawn(move || server.write_all(&large).unwrap());
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), expected);
    }
}
