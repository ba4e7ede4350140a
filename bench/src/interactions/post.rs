// SPDX-License-Identifier: AGPL-3.0-only
//! Interactions as Discord posts them: each with an id and a signature of its own. In: a number. Out: a request.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// No key of anybody's.
const SEED: [u8; 32] = *b"a key of this program and no one";

/// Whoever signs.
#[derive(Debug)]
pub(crate) struct Signer(Ed25519KeyPair);

impl Signer {
    /// With a key that is always the same.
    pub(crate) fn new() -> Result<Self> {
        Ed25519KeyPair::from_seed_unchecked(&SEED).map(Self).ok().context("32 bytes are a seed")
    }

    /// The key, as it stands in the settings.
    pub(crate) fn public_key(&self) -> String {
        hex(self.0.public_key().as_ref())
    }

    /// A request with a command: about 1.3 KB, as one in a guild has.
    pub(crate) fn request(&self, number: usize) -> Vec<u8> {
        let id = 1_174_391_836_796_846_152 + number;
        let member = r#"{"user":{"id":"80351110224678912","username":"nelly","global_name":"Nelly","discriminator":"0","avatar":"8342729096ea3675442027381ff50dfe","public_flags":4194304,"clan":null,"primary_guild":null,"avatar_decoration_data":null,"collectibles":null,"display_name_styles":null},"roles":["613425648685547541","613426354628722689"],"permissions":"2248473465835073","nick":null,"joined_at":"2019-08-20T17:22:41.503000+00:00","deaf":false,"mute":false,"pending":false,"flags":0,"avatar":null,"banner":null,"premium_since":null,"communication_disabled_until":null,"unusual_dm_activity_until":null}"#;
        let body = format!(
            r#"{{"version":1,"type":2,"token":"aW50ZXJhY3Rpb246MTE3NDM5MTgzNjc5Njg0NjE1Mjo{id}","member":{member},"locale":"en-US","id":"{id}","guild_locale":"en-US","guild_id":"41771983423143937","guild":{{"locale":"en-US","id":"41771983423143937","features":[]}},"entitlements":[],"data":{{"type":1,"name":"ping","id":"771825006014889984"}},"context":0,"channel_id":"645027906669510667","attachment_size_limit":10485760,"application_id":"775799577604522054","app_permissions":"2248473465835073"}}"#
        );
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = since.as_secs().to_string();
        let signature = hex(self.0.sign(format!("{time}{body}").as_bytes()).as_ref());
        format!(
            "POST /interactions HTTP/1.1\r\nhost: here\r\nuser-agent: bench\r\ncontent-type: application/json\r\n\
             x-signature-ed25519: {signature}\r\nx-signature-timestamp: {time}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
