// SPDX-License-Identifier: AGPL-3.0-only
//! The bare forwarder: what a process between caller and API costs that does nothing but pass requests on, by the same
//! libraries as Holdfast. In: requests. Out: the same ones upstream, over kept connections, and the answers.

use std::{convert::Infallible, net::SocketAddr};

use anyhow::Result;
use hyper::{Request, Response, Uri, body::Incoming, header::HOST};
use hyper_util::{client::legacy::Client, client::legacy::connect::HttpConnector, rt::TokioExecutor};

/// Where the forwarder stands.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Address to pass requests on to.
    #[arg(long)]
    pub(crate) upstream: SocketAddr,
}

/// Forwards until the process is killed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    let upstream = args.upstream;
    super::serve(args.listen, move |request| forward(client.clone(), upstream, request))
}

async fn forward(
    client: Client<HttpConnector, Incoming>,
    upstream: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, Infallible> {
    let uri: Option<Uri> = format!("http://{upstream}{}", request.uri()).parse().ok();
    *request.uri_mut() = uri.unwrap_or_default();
    request.headers_mut().remove(HOST);
    match client.request(request).await {
        Ok(response) => Ok(response),
        Err(error) => {
            eprintln!("forwarder: {error}");
            std::process::exit(1);
        }
    }
}
