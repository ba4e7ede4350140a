// SPDX-License-Identifier: AGPL-3.0-only
//! Opens connections to the gateway. In: an address from `/gateway/bot` or READY. Out: a [`Connection`].

use std::{pin::Pin, sync::Arc, time::Duration};

use http::Uri;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_websockets::ClientBuilder;

use super::{Connection, handshake::Handshake};
use crate::settings::Compression;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the gateway's address {0:?} is not a ws:// or wss:// address")]
    Address(String),
    #[error("no connection to {host}:{port}: {source}")]
    Tcp { host: String, port: u16, source: std::io::Error },
    #[error("no TLS with {host}: {source}")]
    Tls { host: String, source: std::io::Error },
    #[error("no WebSocket with {host}: {source}")]
    WebSocket { host: String, source: tokio_websockets::Error },
    #[error("no connection to {host} within {} s", CONNECT_WITHIN.as_secs())]
    Timeout { host: String },
}

/// TCP, TLS and upgrade together. Discord answers in well under a second; a dead route shows itself here.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// Opens connections with one TLS configuration for all shards.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: TlsConnector,
    compression: Compression,
    max_payload: usize,
}

impl Connector {
    /// `max_payload`: bytes of one payload, compressed and inflated; a larger one ends the connection.
    pub(crate) fn new(compression: Compression, max_payload: usize) -> Self {
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { tls: TlsConnector::from(Arc::new(config)), compression, max_payload }
    }

    /// Connects to `url` as the documentation's section "Connecting" tells.
    pub(crate) async fn connect(&self, url: &str) -> Result<Connection, ConnectError> {
        let uri = self.uri(url)?;
        let host = uri.host().unwrap_or_default().to_owned();
        timeout(CONNECT_WITHIN, self.open(uri, host.clone()))
            .await
            .unwrap_or(Err(ConnectError::Timeout { host }))
    }

    async fn open(&self, uri: Uri, host: String) -> Result<Connection, ConnectError> {
        let secure = uri.scheme_str() == Some("wss");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp_error = |source| ConnectError::Tcp { host: host.clone(), port, source };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((bare, port)).await.map_err(tcp_error)?;
        tcp.set_nodelay(true).map_err(tcp_error)?;
        let transport = if secure {
            let tls_error = |source| ConnectError::Tls { host: host.clone(), source };
            let name = ServerName::try_from(bare.to_owned())
                .map_err(|error| tls_error(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)))?;
            Transport::Tls(Box::new(self.tls.connect(name, tcp).await.map_err(tls_error)?))
        } else {
            Transport::Plain(tcp)
        };
        let (socket, _response) = ClientBuilder::from_uri(uri)
            .connect_on(Handshake::new(transport))
            .await
            .map_err(|source| ConnectError::WebSocket { host: host.clone(), source })?;
        let (transport, first) = socket.into_inner().into_parts();
        Ok(Connection::new(transport, first, self.compression, self.max_payload))
    }

    fn uri(&self, url: &str) -> Result<Uri, ConnectError> {
        let address = || ConnectError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| address())?;
        let scheme = uri.scheme_str().filter(|s| matches!(*s, "ws" | "wss")).ok_or_else(address)?;
        let authority = uri.authority().ok_or_else(address)?;
        let path = match uri.path() {
            "" => "/",
            path => path,
        };
        let compress = match self.compression {
            Compression::None => "",
            Compression::ZlibStream => "&compress=zlib-stream",
            Compression::ZstdStream => "&compress=zstd-stream",
        };
        format!("{scheme}://{authority}{path}?v=10&encoding=json{compress}").parse().map_err(|_| address())
    }
}

/// The bytes below the WebSocket.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_gets_version_encoding_and_compression() {
        let uri = |compression, url| Connector::new(compression, 1).uri(url).map(|uri| uri.to_string());
        let provider = rustls::crypto::ring::default_provider();
        let _ = provider.install_default();
        assert_eq!(
            uri(Compression::ZstdStream, "wss://gateway.example").unwrap(),
            "wss://gateway.example/?v=10&encoding=json&compress=zstd-stream"
        );
        assert_eq!(
            uri(Compression::None, "ws://127.0.0.1:1/?x=1").unwrap(),
            "ws://127.0.0.1:1/?v=10&encoding=json"
        );
        assert!(uri(Compression::None, "https://example").is_err());
    }
}
