// SPDX-License-Identifier: AGPL-3.0-only
//! Where records live: in memory, or in files below one directory. In: records to save, which never waits; loads,
//! which block and are for start-up. Out: records, and what had to be set aside.
//! The last clone of a [`Store`] or [`ShardStore`] owns the lock on the directory and the writing thread.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::PermitsState;
use crate::directory::{OpenError, SetAside, claim, lock};
use crate::file::{self, Unreadable};
use crate::record::{ClientRecord, CursorRecord, Progress, SessionRecord};
use crate::write_behind::{Change, Failures, WriteBehind, WriteFailed};

/// Checkpoints that wait to be written: 32 MiB are about 1,000 guilds of 23 KB. Others are refused meanwhile.
const CHECKPOINT_BYTES: usize = 32 << 20;

/// A handle on the stored records of one bot.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    failures: Failures,
}

/// A handle on one shard's records.
#[derive(Clone, Debug)]
pub struct ShardStore {
    inner: Arc<Inner>,
    dir: PathBuf,
    failures: Failures,
}

/// What became of a guild's checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Saved {
    /// It will be written.
    Queued,
    /// Too much waits already: it was not taken; try again after a flush.
    Busy,
}

#[derive(Debug)]
enum Inner {
    Memory(Mutex<HashMap<PathBuf, Vec<u8>>>),
    Files { root: PathBuf, writes: WriteBehind, _lock: File },
}

impl Store {
    /// Opens a directory, creating it where it is absent; `None`: records live in memory, as long as the store.
    ///
    /// What is there but isn't this version's is set aside, and the store begins empty. Blocks.
    ///
    /// # Errors
    /// When another process uses the directory, or the system refuses.
    pub fn open(dir: Option<&Path>) -> Result<(Store, Vec<SetAside>), OpenError> {
        let failures = Failures::default();
        let Some(root) = dir else {
            return Ok((Store { inner: Arc::new(Inner::Memory(Mutex::default())), failures }, Vec::new()));
        };
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        file::private_dir(root).map_err(at(root))?;
        let lock = lock(root)?;
        let set_aside = claim(root).map_err(at(root))?;
        let writes = WriteBehind::start().map_err(at(root))?;
        let inner = Inner::Files { root: root.to_owned(), writes, _lock: lock };
        Ok((Store { inner: Arc::new(inner), failures }, set_aside))
    }

    /// The records of a shard; records of the same shard in another total are others.
    #[must_use]
    pub fn shard(&self, shard: u32, total: u32) -> ShardStore {
        let dir = PathBuf::from(format!("shards/{shard}-of-{total}"));
        ShardStore { inner: Arc::clone(&self.inner), dir, failures: Failures::default() }
    }

    /// Whether records outlive the process.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        matches!(*self.inner, Inner::Files { .. })
    }

    /// Removes what is stored of shards in another total than this, logs included. Blocks.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn forget_other_totals(&self, total: u32) -> io::Result<u32> {
        self.forget_totals(|of| of != total)
    }

    /// Removes what is stored of shards in this total, logs included. Blocks.
    pub(crate) fn forget_total(&self, total: u32) -> io::Result<()> {
        self.forget_totals(|of| of == total).map(drop)
    }

    fn forget_totals(&self, forgotten: impl Fn(u32) -> bool) -> io::Result<u32> {
        let total_of = |name: &str| {
            let (shard, of) = name.split_once("-of-")?;
            shard.parse::<u32>().ok()?;
            of.parse::<u32>().ok().filter(|of| forgotten(*of))
        };
        let root = match &*self.inner {
            Inner::Files { root, .. } => root,
            Inner::Memory(records) => {
                let shard = |path: &Path| path.components().nth(1)?.as_os_str().to_str().and_then(total_of);
                let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
                records.retain(|path, _| shard(path).is_none());
                return Ok(0);
            }
        };
        let shards = match std::fs::read_dir(root.join("shards")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            shards => shards?,
        };
        let mut removed = 0;
        for entry in shards {
            let entry = entry?;
            if entry.file_name().to_str().and_then(total_of).is_some() {
                std::fs::remove_dir_all(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Waits until everything saved so far is written.
    ///
    /// # Errors
    /// When a permit's record saved since the last call could not be written; shards' records count in
    /// [`ShardStore::flush`].
    pub async fn flush(&self) -> Result<(), WriteFailed> {
        flush(&self.inner, &self.failures).await
    }

    pub(crate) fn load_permits(&self) -> Option<PermitsState> {
        self.inner.load(Path::new("permits"))
    }

    pub(crate) fn save_permits(&self, state: &PermitsState) {
        self.inner.save(PathBuf::from("permits"), state, &self.failures);
    }
}

impl ShardStore {
    /// The shard's directory; its log lives there too. `None` in memory.
    #[must_use]
    pub fn dir(&self) -> Option<PathBuf> {
        match &*self.inner {
            Inner::Memory(_) => None,
            Inner::Files { root, .. } => Some(root.join(&self.dir)),
        }
    }

    /// The session's record. One that can't be read is set aside, with a warning. Blocks.
    #[must_use]
    pub fn load(&self) -> Option<SessionRecord> {
        self.inner.load(&self.dir.join("session"))
    }

    /// Saves the session's record. Never waits.
    pub fn save(&self, record: &SessionRecord) {
        self.inner.save(self.dir.join("session"), record, &self.failures);
    }

    /// Saves the session's record before anything else happens. For start-up, when nothing waits to be written. Blocks.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save_at_once(&self, record: &SessionRecord) -> io::Result<()> {
        match &*self.inner {
            Inner::Memory(_) => {
                self.save(record);
                Ok(())
            }
            Inner::Files { root, .. } => {
                file::write(&root.join(self.dir.join("session")), &serde_json::to_vec(record)?)
            }
        }
    }

    /// Forgets the session's record: there is nothing to resume. Never waits.
    pub fn forget(&self) {
        self.inner.remove(self.dir.join("session"), &self.failures);
    }

    /// What [`ShardStore::save_progress`] saved last. Blocks.
    pub(crate) fn load_progress(&self) -> Option<Progress> {
        self.inner.load(&self.dir.join("progress"))
    }

    /// Saves what changes of the session's record. Never waits.
    pub(crate) fn save_progress(&self, progress: &Progress) {
        self.inner.save(self.dir.join("progress"), progress, &self.failures);
    }

    /// The fencing number that was given last. Blocks.
    pub(crate) fn load_generation(&self) -> Option<u64> {
        self.inner.load(&self.dir.join("generation"))
    }

    /// Saves the fencing number. Never waits.
    pub(crate) fn save_generation(&self, generation: u64) {
        self.inner.save(self.dir.join("generation"), &generation, &self.failures);
    }

    /// Clients' sessions; those that can't be read are set aside, with a warning. Blocks.
    #[must_use]
    pub fn load_clients(&self) -> Vec<ClientRecord> {
        self.inner.load(&self.dir.join("clients")).unwrap_or_default()
    }

    /// Saves all clients' sessions, in the place of those saved before. Never waits.
    pub fn save_clients(&self, clients: &[ClientRecord]) {
        self.inner.save(self.dir.join("clients"), clients, &self.failures);
    }

    /// Where a durable reader of the log, such as the AMQP front, goes on. Blocks.
    #[must_use]
    pub fn load_cursor(&self, reader: &str) -> Option<CursorRecord> {
        self.inner.load(&self.dir.join(format!("cursor-{reader}")))
    }

    /// Saves how far a durable reader is. Never waits.
    pub fn save_cursor(&self, reader: &str, cursor: &CursorRecord) {
        self.inner.save(self.dir.join(format!("cursor-{reader}")), cursor, &self.failures);
    }

    /// Saves a guild's checkpoint. Never waits. In memory nothing is kept: the state itself lives there.
    pub fn save_guild(&self, guild: u64, checkpoint: &[u8]) -> Saved {
        let Inner::Files { root, writes, .. } = &*self.inner else { return Saved::Queued };
        let path = root.join(self.guild(guild));
        match writes.put(path, Change::Write(checkpoint.to_vec()), &self.failures, CHECKPOINT_BYTES) {
            true => Saved::Queued,
            false => Saved::Busy,
        }
    }

    /// Removes a guild's checkpoint. Never waits.
    pub fn remove_guild(&self, guild: u64) {
        self.inner.remove(self.guild(guild), &self.failures);
    }

    /// All guilds' checkpoints, each read when it is asked for; one that can't be read is set aside, with a
    /// warning, and comes as `None`. Blocks.
    pub fn load_guilds(&self) -> impl Iterator<Item = (u64, Option<Vec<u8>>)> + use<> {
        let dir = self.dir().map(|dir| dir.join("guilds"));
        let files = dir.and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten();
        files.filter_map(|entry| {
            let path = entry.ok()?.path();
            let guild = path.file_name()?.to_str()?.parse().ok()?;
            Some((guild, read_or_set_aside(&path)))
        })
    }

    /// Waits until everything saved so far is written.
    ///
    /// # Errors
    /// When something of this shard's could not be written since the last call.
    pub async fn flush(&self) -> Result<(), WriteFailed> {
        flush(&self.inner, &self.failures).await
    }

    fn guild(&self, guild: u64) -> PathBuf {
        self.dir.join(format!("guilds/{guild}"))
    }
}

async fn flush(inner: &Inner, failures: &Failures) -> Result<(), WriteFailed> {
    if let Inner::Files { writes, .. } = inner {
        writes.flush().await;
    }
    match failures.swap(0, Ordering::Relaxed) {
        0 => Ok(()),
        failed => Err(WriteFailed(failed)),
    }
}

impl Inner {
    fn load<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        let (body, path) = match self {
            Inner::Memory(records) => {
                let records = records.lock().unwrap_or_else(PoisonError::into_inner);
                (records.get(path).cloned()?, path.to_owned())
            }
            Inner::Files { root, .. } => {
                let path = root.join(path);
                (read_or_set_aside(&path)?, path)
            }
        };
        match serde_json::from_slice(&body) {
            Ok(record) => Some(record),
            Err(error) => {
                // The error's text could quote a secret: its place is enough.
                set_aside_warning(&path, &format!("its content can't be read (column {})", error.column()));
                None
            }
        }
    }

    fn save<T: Serialize + ?Sized>(&self, path: PathBuf, record: &T, failures: &Failures) {
        let Ok(body) = serde_json::to_vec(record) else {
            // Records are structs of plain fields: that can't fail, but it must not take a shard down either.
            failures.fetch_add(1, Ordering::Relaxed);
            return;
        };
        match self {
            Inner::Memory(records) => {
                records.lock().unwrap_or_else(PoisonError::into_inner).insert(path, body);
            }
            Inner::Files { root, writes, .. } => {
                writes.put(root.join(path), Change::Write(body), failures, usize::MAX);
            }
        }
    }

    fn remove(&self, path: PathBuf, failures: &Failures) {
        match self {
            Inner::Memory(records) => {
                records.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
            }
            Inner::Files { root, writes, .. } => {
                writes.put(root.join(path), Change::Remove, failures, usize::MAX);
            }
        }
    }
}

fn read_or_set_aside(path: &Path) -> Option<Vec<u8>> {
    match file::read(path) {
        Ok(body) => body,
        Err(Unreadable::Io(error)) => {
            tracing::warn!(path = %path.display(), %error, "a stored record can't be read");
            None
        }
        Err(why) => {
            set_aside_warning(path, &why.to_string());
            None
        }
    }
}

fn set_aside_warning(path: &Path, reason: &str) {
    match file::set_aside(path) {
        Ok(to) => {
            tracing::warn!(path = %path.display(), to = %to.display(), reason, "a stored record was set aside");
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, reason, "a stored record is left as it is");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::StreamId;

    #[tokio::test]
    async fn records_survive_the_process_and_a_shard_of_another_total_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        {
            let (store, set_aside) = open(dir.path());
            assert_eq!(set_aside, []);
            let shard = store.shard(3, 16);
            assert!(shard.load().is_none());
            shard.save(&session("secret"));
            shard.save_clients(&[client("one"), client("two")]);
            assert_eq!(shard.save_guild(81_384_788_765_712_384, b"checkpoint"), Saved::Queued);
            assert_eq!(shard.save_guild(2, b"gone"), Saved::Queued);
            shard.remove_guild(2);
            shard.flush().await.unwrap();
        }
        let (store, set_aside) = open(dir.path());
        assert_eq!(set_aside, []);
        let shard = store.shard(3, 16);
        let record = shard.load().unwrap();
        assert_eq!((record.session_id.as_str(), record.position), ("secret", 77));
        assert_eq!(record.ready.get(), r#"{"v":10, "unknown":[1]}"#);
        assert_eq!(shard.load_clients(), [client("one"), client("two")]);
        let guilds: Vec<_> = shard.load_guilds().collect();
        assert_eq!(guilds, [(81_384_788_765_712_384, Some(b"checkpoint".to_vec()))]);
        assert!(store.shard(3, 32).load().is_none());
        assert!(store.shard(4, 16).load_clients().is_empty());
    }

    #[tokio::test]
    async fn the_memory_store_gives_back_what_was_saved_and_touches_no_disk() {
        let (store, set_aside) = Store::open(None).unwrap();
        assert_eq!(set_aside, []);
        assert!(!store.is_persistent());
        let shard = store.shard(0, 1);
        shard.save(&session("secret"));
        shard.save_clients(&[client("one")]);
        shard.flush().await.unwrap();
        assert_eq!(store.shard(0, 1).load().unwrap().session_id, "secret");
        assert_eq!(store.shard(0, 1).load_clients().len(), 1);
        assert_eq!(shard.dir(), None);
        shard.forget();
        assert!(shard.load().is_none());
    }

    #[test]
    fn dropping_the_store_writes_what_is_queued_the_latest_of_each() {
        let dir = tempfile::tempdir().unwrap();
        {
            let (store, _) = open(dir.path());
            let shard = store.shard(0, 1);
            for number in 0..1000 {
                shard.save(&session(&number.to_string()));
                let _ = shard.save_guild(number % 7, number.to_string().as_bytes());
            }
        }
        let (store, _) = open(dir.path());
        let shard = store.shard(0, 1);
        assert_eq!(shard.load().unwrap().session_id, "999");
        let mut guilds: Vec<_> = shard.load_guilds().collect();
        guilds.sort();
        let latest = (993..1000_u64).map(|number| (number % 7, Some(number.to_string().into_bytes())));
        let mut latest: Vec<_> = latest.collect();
        latest.sort();
        assert_eq!(guilds, latest);
    }

    #[test]
    fn a_second_process_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, _) = open(dir.path());
        let error = Store::open(Some(dir.path())).unwrap_err();
        assert!(
            matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
    }

    #[test]
    fn what_another_version_left_is_set_aside_whole_and_other_files_are_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("shards/0-of-1")).unwrap();
        std::fs::write(dir.path().join("shards/0-of-1/session"), "x").unwrap();
        std::fs::write(dir.path().join("version"), "holdfast state 9\n").unwrap();
        std::fs::write(dir.path().join("holdfast.toml"), "mine").unwrap();
        let (store, set_aside) = open(dir.path());
        assert_eq!(set_aside.len(), 2);
        assert!(set_aside[0].reason.contains("version 9"), "{set_aside:?}");
        let shards = set_aside.iter().find(|aside| aside.path.ends_with("shards")).unwrap();
        assert!(shards.to.join("0-of-1/session").exists());
        assert!(dir.path().join("holdfast.toml").exists());
        assert!(store.shard(0, 1).load().is_none());
        drop(store);
        assert_eq!(open(dir.path()).1, []);
    }

    #[test]
    fn a_damaged_or_missing_marker_means_a_fresh_start_too() {
        for marker in [None, Some("nonsense"), Some("holdfast state 12")] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("shards")).unwrap();
            if let Some(marker) = marker {
                std::fs::write(dir.path().join("version"), marker).unwrap();
            }
            let (_, set_aside) = open(dir.path());
            assert!(set_aside.iter().any(|aside| aside.path.ends_with("shards")), "{marker:?}");
        }
    }

    #[tokio::test]
    async fn a_damaged_record_is_set_aside_and_counts_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        let shard = store.shard(0, 1);
        shard.save(&session("secret"));
        let _ = shard.save_guild(5, b"five");
        let _ = shard.save_guild(6, b"six");
        shard.flush().await.unwrap();
        let files = shard.dir().unwrap();
        std::fs::write(files.join("session"), b"HFrc?").unwrap();
        std::fs::write(files.join("guilds/5"), b"").unwrap();
        assert!(shard.load().is_none());
        let mut guilds: Vec<_> = shard.load_guilds().collect();
        guilds.sort();
        assert_eq!(guilds, [(5, None), (6, Some(b"six".to_vec()))]);
        assert!(!files.join("session").exists());
        let asides = std::fs::read_dir(&files).unwrap();
        assert!(asides.flatten().any(|e| e.file_name().to_string_lossy().starts_with("session.set-aside-")));
    }

    #[tokio::test]
    async fn a_write_that_fails_is_told_to_the_shard_whose_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        let (broken, whole) = (store.shard(0, 2), store.shard(1, 2));
        std::fs::create_dir_all(dir.path().join("shards")).unwrap();
        std::fs::write(dir.path().join("shards/0-of-2"), "a file where a directory should be").unwrap();
        let _ = broken.save_guild(1, b"one");
        let _ = whole.save_guild(1, b"one");
        assert_eq!(broken.flush().await, Err(WriteFailed(1)));
        assert_eq!(whole.flush().await, Ok(()));
        assert_eq!(broken.flush().await, Ok(()), "told once");
    }

    #[tokio::test]
    async fn checkpoints_beyond_the_bound_are_refused_until_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        let shard = store.shard(0, 1);
        let large = vec![7; CHECKPOINT_BYTES / 4];
        let busy = (0..200).find(|guild| shard.save_guild(*guild, &large) == Saved::Busy);
        shard.flush().await.unwrap();
        if let Some(guild) = busy {
            assert!(guild >= 4);
            assert_eq!(shard.save_guild(guild, &large), Saved::Queued);
        }
    }

    #[tokio::test]
    async fn other_totals_can_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        for total in [1, 2] {
            store.shard(0, total).save(&session("secret"));
            store.shard(0, total).flush().await.unwrap();
        }
        assert_eq!(store.forget_other_totals(2).unwrap(), 1);
        assert!(store.shard(0, 1).load().is_none());
        assert!(store.shard(0, 2).load().is_some());
    }

    #[test]
    fn no_secret_shows_in_debug_output() {
        let shown = format!("{:?} {:?}", session("hush-hush"), client("hush-hush"));
        assert!(!shown.contains("hush"), "{shown}");
    }

    fn open(dir: &Path) -> (Store, Vec<SetAside>) {
        Store::open(Some(dir)).unwrap()
    }

    fn session(id: &str) -> SessionRecord {
        SessionRecord {
            session_id: id.to_owned(),
            resume_url: "wss://gateway.example".to_owned(),
            stream: StreamId::from_number(9),
            sequence_base: 1,
            sequence: Some(76),
            position: 77,
            state_from: 70,
            checkpoints: true,
            shard: 3,
            total: 16,
            ready: RawValue::from_string(r#"{"v":10, "unknown":[1]}"#.to_owned()).unwrap(),
            settings: String::new(),
            wishes: None,
            published: None,
            written_unix_ms: 0,
        }
    }

    fn client(id: &str) -> ClientRecord {
        ClientRecord {
            session_id: id.to_owned(),
            identity: format!("hash of {id}"),
            name: None,
            intents: 513,
            written: 70,
            confirmed: 60,
            snapshot: 12,
            disconnected_unix_ms: Some(1),
            base: 10,
            stream: Some(StreamId::from_number(9)),
            requests: vec![(4, Some("nonce".to_owned())), (5, None)],
            spread: None,
        }
    }
}
