// SPDX-License-Identifier: AGPL-3.0-only
//! Requests for guild members (op 8) under way upstream, each under a nonce of ours.
//!
//! In: clients' requests, chunks from Discord. Out: what to send upstream, and whom a chunk is for. Equal
//! requests share one upstream. Pure; owned by the shard's core; bounded by count and age.

use std::{collections::HashMap, time::Duration};

use memchr::memmem;
use serde_json::{Map, Value, json};

/// Marks a nonce as ours.
const MARK: &[u8] = b"\"hf-";
/// A chunk for which nobody asked (any more): no client gets it.
pub(crate) const NOBODY: u64 = u64::MAX;
/// Discord answers within seconds; a request this old won't be answered any more.
const FORGET_AFTER: Duration = Duration::from_secs(120);
/// 120 sends a minute over two minutes can't exceed this.
const MAX_PENDING: usize = 256;

struct Pending {
    request: String,
    answered: bool,
    since_ms: u64,
}

/// What to do with a client's request.
pub(crate) struct Asked {
    /// Our number of the request: chunks carry it as their audience.
    pub(crate) number: u64,
    /// What to send upstream; nothing if an equal request is under way.
    pub(crate) forward: Option<Vec<u8>>,
}

/// The requests of one shard.
pub(crate) struct MemberRequests {
    next: u64,
    pending: HashMap<u64, Pending>,
}

impl MemberRequests {
    /// Numbers rise from one process to the next: a replay may bring an older one's chunks, and clients drop
    /// their lowest numbers first.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { next: (now_ms << 16) | 1, pending: HashMap::new() }
    }

    /// A client asks with the `d` of its op 8.
    pub(crate) fn ask(&mut self, request: &Map<String, Value>, now_ms: u64) -> Asked {
        self.forget(now_ms);
        let mut request = request.clone();
        request.remove("nonce");
        let key = Value::Object(request.clone()).to_string();
        let same = |(_, pending): &(&u64, &Pending)| !pending.answered && pending.request == key;
        if let Some((number, _)) = self.pending.iter().find(same) {
            return Asked { number: *number, forward: None };
        }
        let (number, nonce) = self.own();
        request.insert("nonce".into(), Value::String(nonce));
        self.pending.insert(number, Pending { request: key, answered: false, since_ms: now_ms });
        Asked { number, forward: Some(json!({ "op": 8, "d": request }).to_string().into_bytes()) }
    }

    /// The number of a request that shares its answer with nobody, and the nonce that it goes upstream under.
    pub(crate) fn own(&mut self) -> (u64, String) {
        let number = self.next;
        self.next += 1;
        (number, nonce(number))
    }

    /// Whom a GUILD_MEMBERS_CHUNK or RATE_LIMITED is for: the number of its request, or [`NOBODY`].
    pub(crate) fn audience(&mut self, payload: &[u8]) -> u64 {
        let Some((number, _)) = our_nonce(payload) else { return NOBODY };
        if let Some(pending) = self.pending.get_mut(&number) {
            pending.answered = true;
        }
        number
    }

    fn forget(&mut self, now_ms: u64) {
        let age = u64::try_from(FORGET_AFTER.as_millis()).unwrap_or(u64::MAX);
        self.pending.retain(|_, pending| now_ms.saturating_sub(pending.since_ms) < age);
        if self.pending.len() >= MAX_PENDING
            && let Some(oldest) = self.pending.iter().min_by_key(|(_, p)| p.since_ms).map(|(n, _)| *n)
        {
            self.pending.remove(&oldest);
        }
    }
}

/// Gives the client its own nonce back (or none, if it gave none) in a payload that carries ours.
pub(crate) fn restore_nonce(payload: &[u8], nonce: Option<&str>) -> Vec<u8> {
    let Some((_, value)) = our_nonce(payload) else { return payload.to_vec() };
    let mut out = Vec::with_capacity(payload.len() + 32);
    if let Some(nonce) = nonce {
        out.extend_from_slice(&payload[..value.start]);
        out.extend_from_slice(Value::from(nonce).to_string().as_bytes());
        out.extend_from_slice(&payload[value.end..]);
        return out;
    }
    let member = memmem::rfind(&payload[..value.start], b"\"nonce\"").unwrap_or(value.start);
    let before = payload[..member].trim_ascii_end();
    let after = payload[value.end..].trim_ascii_start();
    // One comma goes with the member: the one before it, or else the one behind it.
    match before.strip_suffix(b",") {
        Some(before) => out.extend_from_slice(before),
        None => out.extend_from_slice(before),
    }
    match after.strip_prefix(b",") {
        Some(after) if !before.ends_with(b",") => out.extend_from_slice(after.trim_ascii_start()),
        _ => out.extend_from_slice(after),
    }
    out
}

fn nonce(number: u64) -> String {
    format!("hf-{number:x}")
}

/// The number of our nonce in a payload and where its value stands, quotes included.
fn our_nonce(payload: &[u8]) -> Option<(u64, std::ops::Range<usize>)> {
    memmem::find_iter(payload, MARK).find_map(|start| {
        let digits = &payload[start + MARK.len()..];
        let end = digits.iter().position(|byte| *byte == b'"')?;
        let number = u64::from_str_radix(std::str::from_utf8(&digits[..end]).ok()?, 16).ok()?;
        let key = payload[..start].trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
        key.ends_with(b"\"nonce\"").then_some((number, start..start + MARK.len() + end + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_upstream_under_our_nonce() {
        let mut requests = MemberRequests::new(0);
        let asked = requests.ask(&request("mine"), 0);
        let sent: Value = serde_json::from_slice(&asked.forward.unwrap()).unwrap();
        assert_eq!(sent["op"], 8);
        assert_eq!(sent["d"]["guild_id"], "1");
        assert_eq!(sent["d"]["nonce"], format!("hf-{:x}", asked.number));
    }

    #[test]
    fn equal_requests_share_one_until_it_is_answered() {
        let mut requests = MemberRequests::new(0);
        let first = requests.ask(&request("a"), 0);
        let second = requests.ask(&request("b"), 0);
        assert_eq!(first.number, second.number);
        assert!(second.forward.is_none());
        assert_eq!(requests.audience(&chunk(first.number)), first.number);
        assert!(requests.ask(&request("c"), 0).forward.is_some());
    }

    #[test]
    fn a_chunk_that_nobody_asked_for_has_no_audience() {
        let mut requests = MemberRequests::new(0);
        assert_eq!(requests.audience(br#"{"d":{"nonce":"theirs","x":"hf-1"}}"#), NOBODY);
    }

    #[test]
    fn the_clients_nonce_is_given_back() {
        assert_eq!(text(restore_nonce(&chunk(255), Some("a\"b"))), r#"{"d":{"a":1,"nonce":"a\"b"}}"#);
        assert_eq!(text(restore_nonce(&chunk(255), None)), r#"{"d":{"a":1}}"#);
        let first = br#"{"d":{ "nonce" : "hf-ff" , "a":1}}"#;
        assert_eq!(text(restore_nonce(first, None)), r#"{"d":{"a":1}}"#);
        assert_eq!(text(restore_nonce(br#"{"d":{"nonce":"hf-1"}}"#, None)), r#"{"d":{}}"#);
    }

    #[test]
    fn pending_requests_are_bounded() {
        let mut requests = MemberRequests::new(0);
        for query in 0..2 * MAX_PENDING {
            let request = json!({ "guild_id": "1", "query": query.to_string() });
            requests.ask(request.as_object().unwrap(), query as u64);
        }
        assert!(requests.pending.len() <= MAX_PENDING);
    }

    fn request(nonce: &str) -> Map<String, Value> {
        json!({ "guild_id": "1", "query": "", "limit": 0, "nonce": nonce }).as_object().unwrap().clone()
    }

    fn chunk(number: u64) -> Vec<u8> {
        format!(r#"{{"d":{{"a":1,"nonce":"hf-{number:x}"}}}}"#).into_bytes()
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }
}
