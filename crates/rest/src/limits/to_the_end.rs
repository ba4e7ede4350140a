// SPDX-License-Identifier: AGPL-3.0-only
//! A question whose answer may hold a place: it is heard to its end, even if whoever asked has left meanwhile. In: a
//! future. Out: the same; dropped early it goes on as a task, and what it brings is dropped there.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use holdfast_service::Tasks;

/// See the module.
pub(super) struct ToTheEnd<T: Send + 'static> {
    asking: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    tasks: Tasks,
}

impl<T: Send + 'static> ToTheEnd<T> {
    pub(super) fn new(asking: impl Future<Output = T> + Send + 'static, tasks: &Tasks) -> Self {
        Self { asking: Some(Box::pin(asking)), tasks: tasks.clone() }
    }
}

impl<T: Send + 'static> Future for ToTheEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let asking = self.asking.as_mut().expect("it is asked until there is an answer");
        let answer = ready!(asking.as_mut().poll(context));
        self.asking = None;
        Poll::Ready(answer)
    }
}

impl<T: Send + 'static> Drop for ToTheEnd<T> {
    fn drop(&mut self) {
        if let Some(asking) = self.asking.take() {
            self.tasks.spawn("limits", async move { drop(asking.await) });
        }
    }
}
