// SPDX-License-Identifier: AGPL-3.0-only
//! Says where everything is: to people on standard output, to programs in a file.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::Part;

/// What a process says once its listeners are bound.
#[derive(Debug, Clone, Default)]
pub struct Announcement {
    /// The file for programs: a JSON object of URLs by name, and `pid`.
    pub file: Option<PathBuf>,
    /// Lines for people before those of the parts.
    pub greeting: String,
    /// Addresses besides those of the parts, by name.
    pub more: Vec<(&'static str, String)>,
}

/// The file for programs could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the addresses to {file}: {reason}")]
pub struct AnnounceError {
    file: PathBuf,
    reason: io::Error,
}

impl Announcement {
    pub(super) fn say(&self, parts: &[Part], admin: Option<SocketAddr>) -> Result<(), AnnounceError> {
        if let Some(file) = &self.file {
            // Renamed into place, so that whoever waits for the file never reads half of it.
            let unfinished = file.with_extension("unfinished");
            std::fs::write(&unfinished, self.addresses(parts, admin).to_string())
                .and_then(|()| std::fs::rename(&unfinished, file))
                .map_err(|reason| AnnounceError { file: file.clone(), reason })?;
        }
        let mut lines = self.greeting.clone();
        parts.iter().for_each(|part| lines += &format!("  {}\n", part.greeting));
        if let Some(admin) = admin {
            let pages = parts.iter().flat_map(|part| part.pages);
            let pages: Vec<_> = ["/healthz", "/readyz", "/metrics"].iter().chain(pages).copied().collect();
            lines += &format!("  admin     http://{admin}   {}\n", pages.join(" "));
        }
        // Standard output may be closed: that is no reason to stop.
        let _ = io::stdout().write_all(lines.as_bytes());
        Ok(())
    }

    fn addresses(&self, parts: &[Part], admin: Option<SocketAddr>) -> Value {
        let urls = parts.iter().map(|part| (part.name, &part.url));
        let more = self.more.iter().map(|(name, url)| (*name, url));
        let mut all: Map<String, Value> =
            urls.chain(more).map(|(name, url)| (name.to_owned(), json!(url))).collect();
        all.insert("admin".to_owned(), json!(admin.map(|address| format!("http://{address}"))));
        all.insert("pid".to_owned(), json!(std::process::id()));
        all.into()
    }
}
