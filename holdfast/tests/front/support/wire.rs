// SPDX-License-Identifier: AGPL-3.0-only
//! A connection byte by byte, for what no WebSocket library would send, and to see what really comes.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{ALL, TOKEN, within};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;

/// A TCP connection to the front.
pub(crate) struct Wire {
    pub(crate) tcp: TcpStream,
}

impl Wire {
    /// TCP alone.
    pub(crate) async fn tcp(url: &str) -> Self {
        let address = url.trim_start_matches("ws://");
        let tcp = within("a TCP connection", TcpStream::connect(address)).await.expect("it is accepted");
        Self { tcp }
    }

    /// TCP alone, from an address of our own choosing.
    pub(crate) async fn tcp_from(url: &str, from: [u8; 4]) -> Self {
        let address = url.trim_start_matches("ws://").parse().expect("an address");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("loopback has all of 127.0.0.0/8");
        let tcp = within("a TCP connection", socket.connect(address)).await.expect("it is accepted");
        Self { tcp }
    }

    /// Upgraded, HELLO not yet read.
    pub(crate) async fn upgraded(url: &str, query: &str) -> Self {
        let mut wire = Self::tcp(url).await;
        wire.upgrade(query).await;
        wire
    }

    /// Makes a WebSocket of it; HELLO is not yet read.
    pub(crate) async fn upgrade(&mut self, query: &str) {
        self.write(request(&format!("/?{query}")).as_bytes()).await;
        let head = self.head().await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    }

    /// With HELLO read, JSON without compression.
    pub(crate) async fn open(url: &str) -> Self {
        let mut wire = Self::upgraded(url, "v=10&encoding=json").await;
        let (opcode, hello) = wire.frame().await.expect("HELLO comes");
        assert_eq!(opcode, TEXT);
        let hello: Value = serde_json::from_slice(&hello).expect("HELLO is JSON");
        assert_eq!(hello["op"], 10);
        wire
    }

    /// Identified, READY read.
    pub(crate) async fn identified(url: &str) -> Self {
        let mut wire = Self::open(url).await;
        wire.say(&identify()).await;
        let (_, ready) = wire.frame().await.expect("READY comes");
        assert!(String::from_utf8_lossy(&ready).contains("READY"));
        wire
    }

    /// Writes bytes as they are; the other side may have gone.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = within("room to write", self.tcp.write_all(bytes)).await;
    }

    /// Writes a payload as a text frame.
    pub(crate) async fn say(&mut self, payload: &Value) {
        self.write(&frame(TEXT, payload.to_string().as_bytes())).await;
    }

    /// An HTTP response's head.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match within("a response", self.tcp.read_u8()).await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(head).expect("a head is text")
    }

    /// The next frame: opcode and payload; none when the connection is over.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        within("a frame", read_frame(&mut self.tcp)).await
    }

    /// Reads on to the close frame: code and reason. (0, "") when TCP ends without one.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        read_close(&mut self.tcp).await
    }

    /// Reads on to the end of TCP.
    pub(crate) async fn ended(&mut self) {
        let mut rest = Vec::new();
        let _ = within("the end of the connection", self.tcp.read_to_end(&mut rest)).await;
    }
}

/// A server's next frame, which is never fragmented or masked here.
pub(crate) async fn read_frame(read: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
    let first = read.read_u8().await.ok()?;
    assert_eq!(first & 0x70, 0, "reserved bits are not set");
    let length = match read.read_u8().await.ok()? {
        126 => usize::from(read.read_u16().await.ok()?),
        127 => usize::try_from(read.read_u64().await.ok()?).ok()?,
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    read.read_exact(&mut payload).await.ok()?;
    Some((first & 0x0f, payload))
}

/// See [`Wire::closed`].
pub(crate) async fn read_close(read: &mut (impl AsyncReadExt + Unpin)) -> (u16, String) {
    let close = async {
        while let Some((opcode, payload)) = read_frame(read).await {
            if opcode == CLOSE && payload.len() >= 2 {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                return (code, String::from_utf8(payload[2..].to_vec()).expect("a reason is text"));
            }
        }
        (0, String::new())
    };
    within("the close", close).await
}

/// A client's frame: final, masked.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [7, 11, 13, 17];
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | u8::try_from(length).expect("small")),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).expect("small").to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    frame
}

/// The request of an upgrade.
pub(crate) fn request(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: front\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// IDENTIFY for the only shard.
pub(crate) fn identify() -> Value {
    json!({ "op": 2, "d": { "token": TOKEN, "intents": ALL, "properties": {} } })
}
