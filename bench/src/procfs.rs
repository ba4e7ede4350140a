// SPDX-License-Identifier: AGPL-3.0-only
//! What the kernel says about a process: CPU time and memory, read from `/proc`.
//! In: a process id. Out: numbers in nanoseconds and bytes. Owned by whoever measures.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

/// A clock tick of `/proc/PID/stat`: USER_HZ, 100 on every Linux that Rust's standard targets run on.
const TICK: Duration = Duration::from_millis(10);

/// A reading of a process's CPU time; subtract two with [`Cpu::since`].
#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    /// User and system time of the whole process, threads that ended among them; steps of 10 ms.
    process: Duration,
    /// Time on a CPU by living thread, in steps of a nanosecond.
    threads: BTreeMap<u32, Duration>,
}

impl Cpu {
    /// Reads the CPU time that process `pid` has used so far.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
        let process = ticks(&stat).context("/proc/PID/stat in an unknown form")? * TICK.as_millis() as u32;
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let Some(nanos) = text.split(' ').next().and_then(|word| word.parse().ok()) else { continue };
            threads.insert(id, Duration::from_nanos(nanos));
        }
        Ok(Self { process: Duration::from_millis(u64::from(process)), threads })
    }

    /// CPU time used between `before` and this reading.
    ///
    /// The threads' own counters are the finer ones, but forget threads that have ended; where the
    /// process's counter says clearly more (three ticks), it is the one to believe.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let process = self.process.saturating_sub(before.process);
        let threads: Duration = self
            .threads
            .iter()
            .map(|(id, now)| now.saturating_sub(before.threads.get(id).copied().unwrap_or_default()))
            .sum();
        if process > threads + 3 * TICK { process } else { threads }
    }
}

/// User plus system time in ticks: fields 14 and 15, counted after the name's closing parenthesis.
fn ticks(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident set.
    pub(crate) resident: u64,
    /// Of which neither file nor shared memory stands behind it.
    pub(crate) anonymous: u64,
    /// Highest resident set since the start, or since [`reset_peak`].
    pub(crate) peak: u64,
}

impl Memory {
    /// Reads the memory of process `pid` now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
        let field =
            |name: &str| kibibytes(&status, name).with_context(|| format!("/proc/PID/status without {name}"));
        Ok(Self { resident: field("VmRSS")?, anonymous: field("RssAnon")?, peak: field("VmHWM")? })
    }
}

/// Lets `peak` start again from the present resident set.
pub(crate) fn reset_peak(pid: u32) -> Result<()> {
    fs::write(PathBuf::from(format!("/proc/{pid}/clear_refs")), "5")
        .context("resetting the peak of the resident set")
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The processor's name and the kernel's release, for the record of a run.
pub(crate) fn machine() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} × {}, Linux {}", model.map_or("unknown", |(_, name)| name), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194304 100 0 0 0 31 11 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(42));
    }

    #[test]
    fn work_done_here_is_seen_as_cpu_time_and_rest_is_not() {
        let me = std::process::id();
        let before = Cpu::of(me).unwrap();
        let started = std::time::Instant::now();
        let mut sum = 0u64;
        while started.elapsed() < Duration::from_millis(60) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let used = Cpu::of(me).unwrap().since(&before);
        assert!(used >= Duration::from_millis(10), "{used:?}");
    }

    #[test]
    fn a_thread_that_ended_is_counted_by_the_process() {
        let before = Cpu { process: Duration::ZERO, threads: BTreeMap::from([(1, Duration::ZERO)]) };
        let after = Cpu {
            process: Duration::from_millis(500),
            threads: BTreeMap::from([(1, Duration::from_millis(20))]),
        };
        assert_eq!(after.since(&before), Duration::from_millis(500));
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t   20 kB\nVmRSS:\t   12 kB\nRssAnon:\t    4 kB\n";
        assert_eq!(kibibytes(status, "VmRSS"), Some(12 * 1024));
        assert_eq!(kibibytes(status, "VmSwap"), None);
        assert!(Memory::of(std::process::id()).unwrap().resident > 0);
    }
}
