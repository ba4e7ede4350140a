// SPDX-License-Identifier: AGPL-3.0-only
//! The count of shards that the bot was resharded to, as it stands in `state_dir`: after a restart it still has them.

use std::path::Path;

use tracing::warn;

/// File in `state_dir` with the number.
const COUNT: &str = "shard-count";

/// Notes a count. What can't be written is warned about.
pub(crate) fn save(state_dir: &Path, total: u32) {
    // An empty path: nothing is kept.
    if state_dir.as_os_str().is_empty() {
        return;
    }
    let (file, unfinished) = (state_dir.join(COUNT), state_dir.join("shard-count.new"));
    let written = std::fs::write(&unfinished, format!("{total}\n"));
    if let Err(error) = written.and_then(|()| std::fs::rename(unfinished, file)) {
        warn!(%error, total, "the new count of shards can't be stored: set ws.shards.total before the next start");
    }
}

/// The count of shards to begin with: the one that is set, or the one that the bot was resharded to, or the one that
/// Discord recommends.
pub(crate) fn choose(set: Option<u32>, state_dir: &Path, recommended: u32) -> u32 {
    let stored = std::fs::read_to_string(state_dir.join(COUNT)).ok();
    let stored = stored.and_then(|text| text.trim().parse().ok()).filter(|total| *total > 0);
    match (set, stored) {
        (Some(set), Some(stored)) if set != stored => {
            warn!(
                set,
                stored,
                "ws.shards.total isn't the count that the bot was resharded to: its sessions are begun anew"
            );
            let _ = std::fs::remove_file(state_dir.join(COUNT));
            set
        }
        (Some(set), _) => set,
        (None, Some(stored)) => {
            if recommended > stored {
                warn!(
                    stored,
                    recommended,
                    "Discord recommends more shards: `holdfast reshard`, or ws.reshard.automatic"
                );
            }
            stored
        }
        (None, None) => recommended,
    }
    .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bot_that_was_resharded_keeps_its_count() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(choose(None, folder.path(), 4), 4);
        save(folder.path(), 8);
        assert_eq!(choose(None, folder.path(), 4), 8);
        assert_eq!(choose(Some(8), folder.path(), 4), 8);
        assert_eq!(choose(Some(2), folder.path(), 4), 2);
        assert_eq!(choose(None, folder.path(), 4), 4, "what was set since has taken its place");
    }
}
