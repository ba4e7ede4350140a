// SPDX-License-Identifier: AGPL-3.0-only
//! The processes that a run starts, and their end.
//! In: a program and its arguments. Out: a handle whose drop kills the process.
//! The [`Nursery`] knows all of them, so that a signal leaves none behind.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use anyhow::{Context, Result, bail};

use crate::procfs::{Cpu, Memory};

/// Every living process of this run.
#[derive(Clone, Default)]
pub(crate) struct Nursery(Arc<Mutex<Vec<Weak<Mutex<Child>>>>>);

impl Nursery {
    /// Starts `program`; what it prints to standard error (and to standard output, unless `talk`) goes to
    /// `log`. With `talk` its standard input and output are pipes, see [`Process::pipes`].
    pub(crate) fn start(&self, program: &Path, args: &[String], log: PathBuf, talk: bool) -> Result<Process> {
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let (input, output) = if talk {
            (Stdio::piped(), Stdio::piped())
        } else {
            (Stdio::null(), Stdio::from(file.try_clone()?))
        };
        let mut children = lock(&self.0);
        let child = Command::new(program)
            .args(args)
            // An error's chain says enough, and its last words are short.
            .env("RUST_BACKTRACE", "0")
            .stdin(input)
            .stdout(output)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {} (build it first, or name it)", program.display()))?;
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&child));
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Process { name, pid, child, log })
    }

    /// Kills everything that still runs. Nothing can be started afterwards: the lock is never given back.
    pub(crate) fn kill(&self) {
        let mut children = lock(&self.0);
        for child in children.drain(..).filter_map(|child| child.upgrade()) {
            end(&child);
        }
        std::mem::forget(children);
    }
}

/// A process of this run, killed when this is dropped.
pub(crate) struct Process {
    name: String,
    pid: u32,
    child: Arc<Mutex<Child>>,
    log: PathBuf,
}

impl Process {
    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        Cpu::of(self.pid).with_context(|| self.last_words())
    }

    /// Memory now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(self.pid).with_context(|| self.last_words())
    }

    /// The pipes of a process that was started to be talked to; the first call gets them.
    pub(crate) fn pipes(&self) -> Result<(ChildStdin, ChildStdout)> {
        let mut child = lock(&self.child);
        child.stdin.take().zip(child.stdout.take()).context("the process has no pipes")
    }

    /// An error with the end of its log if the process has ended.
    pub(crate) fn alive(&self) -> Result<()> {
        match lock(&self.child).try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}: {}", self.name, self.last_words()),
        }
    }

    /// The end of what the process printed.
    pub(crate) fn last_words(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            // A log that cannot be read has nothing to add to the error it would explain.
            let _ = file.read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        format!("{} said: {}", self.name, lines[lines.len().saturating_sub(15)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&self.child);
    }
}

fn end(child: &Mutex<Child>) {
    let mut child = lock(child);
    // Both fail only for a process that has already ended.
    let _ = child.kill();
    let _ = child.wait();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(nursery: &Nursery, dir: &tempfile::TempDir) -> Process {
        nursery.start(Path::new("/bin/sleep"), &["60".into()], dir.path().join("log"), false).unwrap()
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(&Nursery::default(), &dir);
        let pid = process.pid();
        assert!(process.alive().is_ok());
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn the_nursery_kills_all_and_the_handle_tells() {
        let dir = tempfile::tempdir().unwrap();
        let nursery = Nursery::default();
        let process = sleeper(&nursery, &dir);
        nursery.kill();
        assert!(process.alive().unwrap_err().to_string().contains("sleep ended"));
    }

    #[test]
    fn an_early_end_is_explained_by_what_was_printed() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c".into(), "echo no such key >&2; exit 2".into()];
        let process =
            Nursery::default().start(Path::new("/bin/sh"), &args, dir.path().join("log"), false).unwrap();
        lock(&process.child).wait().unwrap();
        assert!(process.alive().unwrap_err().to_string().contains("no such key"));
    }
}
