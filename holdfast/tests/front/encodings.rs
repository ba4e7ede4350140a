// SPDX-License-Identifier: AGPL-3.0-only
//! Encodings and compressions, to clients and from Discord: what is asked is given, and says the same in each.

use std::io::Write as _;

use flate2::{Decompress, FlushDecompress};
use holdfast_simulator::Traffic;
use serde_json::{Value, json};

use crate::support::{ALL, BINARY, Client, Holdfast, Setup, TEXT, TOKEN, Wire, discord, etf, frame};

const MESSAGES: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn every_form_says_the_same() {
    // The clients have one shard, whether we have one or four.
    for (stored, shards) in [(true, 1), (false, 1), (true, 4)] {
        let discord = discord(shards, 6 * shards).await;
        let holdfast = Holdfast::start(&discord, &format!("stored_zlib = {stored}")).await;
        holdfast.live().await;
        let mut clients = Vec::new();
        for encoding in ["json", "etf"] {
            for transport in ["", "zlib-stream", "zstd-stream"] {
                for payloads in [false, true] {
                    clients.push(Reader::connect(&holdfast.url, encoding, transport, payloads).await);
                }
            }
        }
        // Each has its snapshot before the first event: what came before it would be in it.
        holdfast.clients(clients.len()).await;
        // One shard's: between several there is no order.
        discord.traffic(Traffic { burst: MESSAGES * 2, shards: Some(vec![0]), ..Traffic::mixed(0.0) });
        let sent = discord.finish_traffic().await.sent;
        let last: u64 = sent.values().sum();
        assert!(last > 0);
        // The plain client is the first; the last message of each guild ends the comparison.
        let mut expected: Option<Vec<Value>> = None;
        for mut client in clients {
            let said = client.until_messages(last).await;
            match &expected {
                None => expected = Some(said),
                Some(expected) => same(&client.form, &said, expected),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_every_form_is_understood() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    for encoding in ["json", "etf"] {
        for transport in ["", "zlib-stream", "zstd-stream"] {
            let mut client = Reader::connect(&holdfast.url, encoding, transport, false).await;
            while client.next().await["t"] != "READY" {}
            client.say(&json!({ "op": 1, "d": 1 })).await;
            while client.next().await["op"] != 11 {}
            let guild = discord.guilds(0, 1)[0].to_string();
            let wanted = json!({ "guild_id": guild, "query": "", "limit": 0, "nonce": "mine" });
            client.say(&json!({ "op": 8, "d": wanted })).await;
            let chunk = loop {
                let payload = client.next().await;
                if payload["t"] == "GUILD_MEMBERS_CHUNK" {
                    break payload;
                }
            };
            assert_eq!(chunk["d"]["nonce"], "mine", "{}", client.form);
            assert_eq!(chunk["d"]["members"].as_array().map(Vec::len), Some(40), "{}", client.form);
            // The answer to what can't be decoded comes in every form too.
            client.wire.write(&frame(if encoding == "etf" { BINARY } else { TEXT }, b"?")).await;
            assert_eq!(client.wire.closed().await.0, 4002, "{}", client.form);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_client_resumes() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    for (encoding, transport) in [("json", "zlib-stream"), ("etf", "zstd-stream"), ("etf", "")] {
        let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
        let before = discord.sent().sent.values().sum::<u64>();
        client.cut();
        discord.traffic(Traffic::burst(MESSAGES));
        discord.finish_traffic().await;
        let mut resumed = Reader::open(&holdfast.url, encoding, transport).await;
        let data = json!({ "token": TOKEN, "session_id": client.session, "seq": client.sequence });
        resumed.say(&json!({ "op": 6, "d": data })).await;
        // What had not reached Holdfast yet when the client resumed comes behind RESUMED.
        let sent = discord.sent().sent.values().sum::<u64>();
        let (mut messages, mut told) = (0, false);
        while !told || messages < sent - before {
            let payload = resumed.next().await;
            told |= payload["t"] == "RESUMED";
            messages += u64::from(payload["t"] == "MESSAGE_CREATE");
        }
        assert_eq!(messages, sent - before, "{}", resumed.form);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_compression_from_discord_delivers() {
    for compression in ["zstd-stream", "zlib-stream", "none"] {
        let discord = discord(1, 4).await;
        let lines = format!("compression = \"{compression}\"");
        let setup = Setup { discord: &lines, ..Setup::default() };
        let holdfast = Holdfast::start_with(&discord, &setup).await;
        let (mut client, opened) = Client::identified(&holdfast.url, [0, 1]).await;
        assert_eq!(opened.guilds.len(), 4, "{compression}");
        discord.traffic(Traffic::burst(500));
        let sent = discord.finish_traffic().await.sent;
        client.until_last(&sent).await;
        client.ledger.assert_each_once(&sent, &std::collections::BTreeMap::new());
        assert_eq!(holdfast.metric("holdfast_ws_malformed_total").await, 0.0);
    }
}

/// Two clients got the same, but for what each has of its own.
fn same(form: &str, got: &[Value], expected: &[Value]) {
    let own = |payload: &Value| {
        let mut payload = payload.clone();
        if payload["t"] == "READY" {
            payload["d"]["session_id"] = Value::Null;
        }
        payload
    };
    assert_eq!(got.len(), expected.len(), "{form}");
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(own(got), own(expected), "{form}");
    }
}

/// How payloads are unpacked.
enum Unpack {
    Plain,
    ZlibStream(Decompress),
    ZstdStream(zstd::stream::write::Decoder<'static, Vec<u8>>),
    /// Each payload for itself.
    Payloads,
}

/// A client that reads exactly one form, and fails when it gets another.
pub(crate) struct Reader {
    pub(crate) wire: Wire,
    pub(crate) form: String,
    etf: bool,
    unpack: Unpack,
}

impl Reader {
    /// Connects and reads HELLO.
    pub(crate) async fn open(url: &str, encoding: &str, transport: &str) -> Self {
        let compress = if transport.is_empty() { String::new() } else { format!("&compress={transport}") };
        let wire = Wire::upgraded(url, &format!("v=10&encoding={encoding}{compress}")).await;
        let unpack = match transport {
            "" => Unpack::Plain,
            "zlib-stream" => Unpack::ZlibStream(Decompress::new(true)),
            _ => Unpack::ZstdStream(zstd::stream::write::Decoder::new(Vec::new()).unwrap()),
        };
        let form = format!("{encoding} {transport}");
        let mut reader = Self { wire, form, etf: encoding == "etf", unpack };
        assert_eq!(reader.next().await["op"], 10, "{}", reader.form);
        reader
    }

    /// Connects and identifies.
    async fn connect(url: &str, encoding: &str, transport: &str, payloads: bool) -> Self {
        let mut reader = Self::open(url, encoding, transport).await;
        // Asked for both, libraries get the transport's; payload compression is documented for JSON alone.
        if payloads && transport.is_empty() && encoding == "json" {
            reader.unpack = Unpack::Payloads;
        }
        if payloads {
            reader.form += " compress";
        }
        let data = json!({ "token": TOKEN, "intents": ALL, "compress": payloads, "properties": {} });
        reader.say(&json!({ "op": 2, "d": data })).await;
        reader
    }

    pub(crate) async fn say(&mut self, payload: &Value) {
        let bytes = if self.etf {
            frame(BINARY, &etf::encode(payload))
        } else {
            frame(TEXT, payload.to_string().as_bytes())
        };
        self.wire.write(&bytes).await;
    }

    /// All payloads up to the `count`th message.
    async fn until_messages(&mut self, count: u64) -> Vec<Value> {
        let (mut said, mut messages) = (Vec::new(), 0);
        while messages < count {
            let payload = self.next().await;
            messages += u64::from(payload["t"] == "MESSAGE_CREATE");
            said.push(payload);
        }
        said
    }

    pub(crate) async fn next(&mut self) -> Value {
        let (opcode, bytes) = self.wire.frame().await.expect("a payload comes");
        let plain = matches!(self.unpack, Unpack::Plain) && !self.etf;
        assert_eq!(opcode, if plain { TEXT } else { BINARY }, "{}", self.form);
        let bytes = self.unpacked(&bytes);
        if self.etf {
            etf::decode(&bytes).unwrap_or_else(|error| panic!("{}: {error}", self.form))
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", self.form))
        }
    }

    fn unpacked(&mut self, bytes: &[u8]) -> Vec<u8> {
        match &mut self.unpack {
            Unpack::Plain => bytes.to_vec(),
            Unpack::ZlibStream(inflater) => {
                assert!(bytes.ends_with(&[0, 0, 0xff, 0xff]), "each message ends with a flush");
                inflate(inflater, bytes)
            }
            Unpack::ZstdStream(decoder) => {
                decoder.write_all(bytes).unwrap();
                decoder.flush().unwrap();
                std::mem::take(decoder.get_mut())
            }
            Unpack::Payloads => inflate(&mut Decompress::new(true), bytes),
        }
    }
}

/// Everything that these bytes inflate to.
fn inflate(inflater: &mut Decompress, mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let (before_in, before_out) = (inflater.total_in(), inflater.total_out());
        out.reserve(64 * 1024);
        inflater.decompress_vec(bytes, &mut out, FlushDecompress::Sync).expect("it inflates");
        let taken = usize::try_from(inflater.total_in() - before_in).unwrap();
        bytes = &bytes[taken..];
        if bytes.is_empty() && inflater.total_out() == before_out {
            return out;
        }
        assert!(taken > 0 || inflater.total_out() > before_out, "it goes on");
    }
}
