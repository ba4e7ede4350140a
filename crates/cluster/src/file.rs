// SPDX-License-Identifier: AGPL-3.0-only
//! One record in one file: a header with length and checksum, then the record's bytes; written beside and renamed,
//! so that a reader sees the old or the new, never a part. Files are 0600 and directories 0700: they hold
//! session ids. No fsync: `kill -9` takes nothing that `write` has taken, and a power cut shows in the checksum.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC: &[u8; 4] = b"HFrc";
/// The form that is written. A change gets a new number; the one before stays readable.
const VERSION: u32 = 1;
const HEADER: usize = 20;

/// Suffix of a file that is being written.
pub(crate) const TEMPORARY: &str = "tmp";

/// Why a file isn't a record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is damaged or no record of Holdfast's")]
    Damaged,
    #[error("it has format version {0}, which this version of Holdfast can't read")]
    Version(u32),
}

/// Puts a record in the place of the one before.
pub(crate) fn write(path: &Path, body: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(TEMPORARY);
    let mut file = match create(&temporary) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(dir) = path.parent() {
                private_dir(dir)?;
            }
            create(&temporary)?
        }
        other => other?,
    };
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(MAGIC);
    header[4..8].copy_from_slice(&VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
    header[16..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    file.write_all(&header)?;
    file.write_all(body)?;
    std::fs::rename(&temporary, path)
}

fn create(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)
}

/// A directory that only its owner can look into; those above it too, where they are absent.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Reads a record; `None` where there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Unreadable> {
    let mut bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some((header, body)) = bytes.split_at_checked(HEADER).filter(|(header, _)| &header[..4] == MAGIC)
    else {
        return Err(Unreadable::Damaged);
    };
    let version = number(&header[4..8]);
    if version != u64::from(VERSION) {
        return Err(Unreadable::Version(u32::try_from(version).unwrap_or(u32::MAX)));
    }
    let whole = number(&header[8..16]) == body.len() as u64;
    if !whole || number(&header[16..]) != u64::from(crc32fast::hash(body)) {
        return Err(Unreadable::Damaged);
    }
    bytes.drain(..HEADER);
    Ok(Some(bytes))
}

/// Little-endian, up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Renames what can't be used, so that nothing is lost that somebody may want to look at.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for attempt in 0..u32::MAX {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".set-aside-{now}"));
        if attempt > 0 {
            aside.push(format!("-{attempt}"));
        }
        let aside = PathBuf::from(aside);
        if !aside.try_exists()? {
            std::fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_record_is_read_back_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/session");
        write(&path, b"first").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"second");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert!(!path.with_extension(TEMPORARY).exists());
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session");
        write(&path, b"{\"session_id\":1}").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert!(read(&path).is_err(), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(read(&path).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn no_file_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&dir.path().join("session")).unwrap().is_none());
    }

    #[test]
    fn what_is_set_aside_twice_in_a_second_is_kept_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session");
        let mut asides = Vec::new();
        for text in ["one", "two"] {
            std::fs::write(&path, text).unwrap();
            asides.push(set_aside(&path).unwrap());
        }
        assert_ne!(asides[0], asides[1]);
        assert!(!path.exists());
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }
}
