// SPDX-License-Identifier: AGPL-3.0-only
//! The processes that a run starts, and their end.
//! In: a program and its arguments. Out: a handle whose drop kills the process.
//! The [`Nursery`] knows all of them, so that a signal leaves none behind.

use std::{
    fs::File,
    io::Read,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::procfs::{Cpu, Memory};

/// Longest wait for a process to serve, or for a world to be built.
pub(crate) const STARTING: Duration = Duration::from_secs(180);
/// How often a starting process is looked at: what times to ready may be off by.
const LOOK: Duration = Duration::from_millis(2);

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

    /// Waits until `done`, as long as the process lives.
    pub(crate) fn wait_until(&self, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + STARTING;
        while !done()? {
            self.alive()?;
            if Instant::now() > deadline {
                bail!("not ready after {STARTING:?}. {}", self.last_words());
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Asks the process to end: SIGTERM.
    pub(crate) fn terminate(&self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, Signal::TERM).with_context(|| format!("ending {}", self.name))
    }

    /// Ends the process as `kill -9` does.
    pub(crate) fn kill(&self) {
        end(&self.child);
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

/// A loopback address that nobody listens on.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
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
    fn a_process_that_is_asked_to_end_ends_by_that_signal() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(&Nursery::default(), &dir);
        process.terminate().unwrap();
        let status = lock(&process.child).wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
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
