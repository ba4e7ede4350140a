// SPDX-License-Identifier: AGPL-3.0-only
//! What stands around the REST proxy in a measurement: a Discord that answers at once, a bare forwarder in the proxy's
//! place, and callers. In: arguments. Out: processes of this program, and what callers saw.

pub(crate) mod forwarder;
pub(crate) mod load;
pub(crate) mod upstream;

use std::{convert::Infallible, net::SocketAddr};

use anyhow::{Context, Result};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves HTTP/1.1 until the process is killed: a task per connection, on as many threads as the system has cores.
fn serve<B, F>(
    listen: SocketAddr,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> Result<()>
where
    B: hyper::body::Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("binding {listen}"))?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service_fn(answer.clone());
            tokio::spawn(async move {
                // A caller that goes away is no matter.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}
