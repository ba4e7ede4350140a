// SPDX-License-Identifier: AGPL-3.0-only
//! Who owns tasks: futures come in with a name, and end when their owner does. A task that panics ends its owner and
//! the owner's owners, so that nothing runs on in half.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A task panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task} panicked: {message}")]
pub struct TaskPanic {
    /// The task's name.
    pub task: &'static str,
    /// What it said.
    pub message: String,
}

/// Tasks that had not ended by the deadline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("still running at the deadline: {}", .tasks.join(", "))]
pub struct Unfinished {
    /// Their names, each once, with how many of them.
    pub tasks: Vec<String>,
}

/// Owns tasks. Clones share the ownership.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    shared: Arc<Shared>,
    parent: Option<Arc<Tasks>>,
}

#[derive(Debug, Default)]
struct Shared {
    failure: OnceLock<TaskPanic>,
    running: Mutex<BTreeMap<&'static str, usize>>,
}

impl Tasks {
    /// An owner whose tasks are asked to end by `token`.
    #[must_use]
    pub fn new(token: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), token, shared: Arc::default(), parent: None }
    }

    /// An owner within this one: ends with it, can be ended alone, and ends it when one of its tasks panics.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            token: self.token.child_token(),
            shared: Arc::default(),
            parent: Some(Arc::new(self.clone())),
        }
    }

    /// What asks the tasks to end.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Runs a task on the current runtime. The task itself watches [`Tasks::token`].
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_on(&Handle::current(), name, task)
    }

    /// Runs a task on a given runtime.
    pub fn spawn_on<F>(&self, runtime: &Handle, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = Running::begin(self, name);
        // No async block: it would hold the task twice, as what it captured and as what it awaits.
        let owned = AssertUnwindSafe(task).catch_unwind().map(|outcome| running.end(outcome));
        self.tracker.spawn_on(owned.in_current_span(), runtime)
    }

    /// Runs a closure that blocks, on the runtime's threads for that.
    pub fn spawn_blocking(&self, name: &'static str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        let running = Running::begin(self, name);
        let span = tracing::Span::current();
        self.tracker.spawn_blocking(move || {
            let outcome = span.in_scope(|| std::panic::catch_unwind(AssertUnwindSafe(work)));
            running.end(outcome);
        })
    }

    /// The first panic among the tasks of this owner and of the owners within it.
    #[must_use]
    pub fn failure(&self) -> Option<&TaskPanic> {
        self.shared.failure.get()
    }

    /// Asks all tasks to end and waits for them until the deadline.
    ///
    /// # Errors
    /// The names of those that had not ended.
    pub async fn finish(&self, deadline: Duration) -> Result<(), Unfinished> {
        self.token.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = running.iter().map(|(name, count)| match count {
            1 => (*name).to_owned(),
            _ => format!("{name} ({count})"),
        });
        Err(Unfinished { tasks: tasks.collect() })
    }

    fn failed(&self, panic: &TaskPanic) {
        // Only the first one counts: those after it are mostly its consequences.
        let _ = self.shared.failure.set(panic.clone());
        self.token.cancel();
        if let Some(parent) = &self.parent {
            parent.failed(panic);
        }
    }
}

/// Counts a task as running until it ends, in whatever way (a runtime may drop it).
struct Running {
    owner: Tasks,
    name: &'static str,
}

impl Running {
    fn begin(owner: &Tasks, name: &'static str) -> Self {
        let mut running = owner.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running.entry(name).or_default() += 1;
        drop(running);
        Self { owner: owner.clone(), name }
    }

    fn end(self, outcome: Result<(), Box<dyn Any + Send>>) {
        if let Err(payload) = outcome {
            let panic = TaskPanic { task: self.name, message: message_of(payload.as_ref()) };
            self.owner.failed(&panic);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.owner.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_end_when_their_owner_does() {
        let tasks = Tasks::new(CancellationToken::new());
        let token = tasks.token().clone();
        tasks.spawn("waits", async move { token.cancelled().await });
        tasks.finish(Duration::from_secs(5)).await.expect("the task ends");
    }

    #[tokio::test]
    async fn a_panicking_task_ends_its_owner_and_that_ones_owner() {
        let parent = Tasks::new(CancellationToken::new());
        let child = parent.child();
        child.spawn("breaks", async { panic!("on purpose") });
        parent.token().cancelled().await;
        assert!(child.token().is_cancelled());
        let expected = TaskPanic { task: "breaks", message: "on purpose".to_owned() };
        assert_eq!(parent.failure(), Some(&expected));
    }

    #[tokio::test]
    async fn ending_a_child_leaves_its_owner_running() {
        let parent = Tasks::new(CancellationToken::new());
        parent.child().finish(Duration::from_secs(5)).await.expect("nothing runs");
        assert!(!parent.token().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_named() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("stuck", std::future::pending());
        tasks.spawn("stuck", std::future::pending());
        tasks.spawn("ends", async {});
        let unfinished = tasks.finish(Duration::from_secs(1)).await.expect_err("two are stuck");
        assert_eq!(unfinished.tasks, ["stuck (2)"]);
    }
}
