// SPDX-License-Identifier: AGPL-3.0-only
//! A Discord that answers at once, with a bucket that is never empty. In: requests. Out: a message, and headers.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming};

/// About what the answer to a sent message has.
const ANSWER: &[u8] = &[b'x'; 600];

/// Where it listens.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
}

/// Answers until the process is killed.
pub(crate) fn run(args: &Args) -> Result<()> {
    super::serve(args.listen, |request: Request<Incoming>| async move {
        // An unread body would end the connection.
        let _ = request.into_body().collect().await;
        let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
        for (name, value) in [
            ("content-type", "application/json"),
            ("via", "1.1 google"),
            ("x-ratelimit-limit", "1000000"),
            ("x-ratelimit-remaining", "999999"),
            ("x-ratelimit-reset", "1470173023.123"),
            ("x-ratelimit-reset-after", "1.000"),
            ("x-ratelimit-bucket", "80c17d2f203122d936070c88c8d10f33"),
        ] {
            response.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
        }
        Ok(response)
    })
}
