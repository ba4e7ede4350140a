// SPDX-License-Identifier: AGPL-3.0-only
//! The directory that records live in. In: a path. Out: the lock that makes it this process's, and what had to be set
//! aside because another version left it. The file's owner is the store: closing it gives the directory up.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::file;

/// Content of the marker file. A new number means that an older version of Holdfast can't use the directory.
const MARKER: &str = "holdfast state 1\n";
/// What in the directory is ours, besides the lock.
const OURS: [&str; 3] = ["version", "permits", "shards"];

/// Something in the directory that couldn't be used and was renamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Where it stood.
    pub path: PathBuf,
    /// Where it stands now.
    pub to: PathBuf,
    /// Why.
    pub reason: String,
}

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works in it.
    #[error(
        "{} is in use by another process{}: give each process its own state_dir", path.display(), owner(*pid)
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process's number, as far as known.
        pid: Option<u32>,
    },
    /// The system refused.
    #[error("{} can't be used as state_dir", path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (number {pid})"))
}

/// Takes the directory for this process, as long as the file is open.
pub(crate) fn lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join("lock");
    let io = |source| OpenError::Io { path: path.clone(), source };
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = file.read_to_string(&mut pid);
            let pid = read.ok().and_then(|_| pid.trim().parse().ok());
            return Err(OpenError::InUse { path: root.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
    Ok(file)
}

/// Makes the directory this version's: what of ours is there under another marker is set aside.
/// Files that could not be ours are left alone, whatever directory the setting names.
pub(crate) fn claim(root: &Path) -> io::Result<Vec<SetAside>> {
    let marker = root.join("version");
    let reason = match std::fs::read(&marker) {
        Ok(found) if found == MARKER.as_bytes() => return Ok(Vec::new()),
        Ok(found) => match found.strip_prefix(b"holdfast state ").and_then(|rest| rest.strip_suffix(b"\n")) {
            Some(version) if !version.is_empty() && version.iter().all(u8::is_ascii_digit) => {
                format!("it has format version {}, this is 1", String::from_utf8_lossy(version))
            }
            _ => "the file `version` isn't one of Holdfast's".to_owned(),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => "there is no file `version`".to_owned(),
        Err(error) => return Err(error),
    };
    let mut set_aside = Vec::new();
    for name in OURS {
        let path = root.join(name);
        if path.try_exists()? {
            let to = file::set_aside(&path)?;
            set_aside.push(SetAside { path, to, reason: reason.clone() });
        }
    }
    let mut marker = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&marker)?;
    marker.write_all(MARKER.as_bytes())?;
    Ok(set_aside)
}
