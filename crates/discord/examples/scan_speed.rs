// SPDX-License-Identifier: AGPL-3.0-only
//! Measures the header scanner: nanoseconds per payload, for events as Discord sends them.
//! In: nothing. Out: a line per payload, median and best of some runs.
//! `cargo run --release -p holdfast-discord --example scan_speed`

use std::hint::black_box;
use std::time::Instant;

use holdfast_discord::scan;

/// Many short runs: on a busy machine the best of them are the undisturbed ones.
const RUNS: usize = 1_001;
const SCANS: u32 = 500;

fn main() {
    let message = message_create();
    measure("MESSAGE_CREATE", &message, SCANS);
    measure("the same, spaced", spaced(&message).as_bytes(), SCANS);
    measure("TYPING_START", br#"{"t":"TYPING_START","s":7,"op":0,"d":{"user_id":"80351110224678912","timestamp":1700000000,"member":{"user":{"id":"80351110224678912","username":"nelly"},"roles":[]},"channel_id":"41771983423143937","guild_id":"41771983423143938"}}"#, SCANS);
    let guild = guild_create(&message);
    measure("GUILD_CREATE", &guild, SCANS / 100);
}

fn measure(name: &str, payload: &[u8], scans: u32) {
    let mut nanoseconds: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..scans {
                black_box(scan(black_box(payload)).is_ok());
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(scans)
        })
        .collect();
    nanoseconds.sort_by(f64::total_cmp);
    println!(
        "{name}: {} bytes, median {:.0} ns, best {:.0} ns, {:.2} GB/s",
        payload.len(),
        nanoseconds[RUNS / 2],
        nanoseconds[0],
        payload.len() as f64 / nanoseconds[RUNS / 2],
    );
}

/// About 1.2 KB, keys in the order in which Discord sends them, the guild last.
fn message_create() -> Vec<u8> {
    br#"{"t":"MESSAGE_CREATE","s":1052,"op":0,"d":{"type":0,"tts":false,"timestamp":"2026-11-21T17:02:11.184000+00:00","pinned":false,"nonce":"1174391836180480000","mentions":[],"mention_roles":[],"mention_everyone":false,"member":{"roles":["613425648685547541","613426354628722689","1052356234236231680"],"premium_since":null,"pending":false,"nick":"Nelly, the \"loud\" one","mute":false,"joined_at":"2019-08-20T17:22:41.503000+00:00","flags":0,"deaf":false,"communication_disabled_until":null,"banner":null,"avatar":null},"id":"1174391836796846152","flags":0,"embeds":[],"edited_timestamp":null,"content":"Has anybody tried the new build on the test server yet? I keep getting {\"code\": 50013} whenever I try to pin something :(\nIt worked yesterday.","components":[],"channel_type":0,"channel_id":"613425648685547545","author":{"username":"nelly","public_flags":4194304,"primary_guild":null,"id":"80351110224678912","global_name":"Nelly","display_name_styles":null,"discriminator":"0","collectibles":null,"clan":null,"avatar_decoration_data":null,"avatar":"8342729096ea3675442027381ff50dfe"},"attachments":[],"guild_id":"613425648685547541"}}"#
        .to_vec()
}

/// A guild of many members, made of the message's own objects; its id stands at the end.
fn guild_create(message: &[u8]) -> Vec<u8> {
    let mut guild = br#"{"t":"GUILD_CREATE","s":3,"op":0,"d":{"members":["#.to_vec();
    for _ in 0..140 {
        guild.extend_from_slice(message);
        guild.push(b',');
    }
    guild.extend_from_slice(br#"null],"id":"613425648685547541"}}"#);
    guild
}

fn spaced(payload: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(payload).expect("the example is JSON");
    serde_json::to_string_pretty(&value).expect("a value is written")
}
