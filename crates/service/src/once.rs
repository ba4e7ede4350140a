// SPDX-License-Identifier: AGPL-3.0-only
//! What a process has one of, however many of its services need it: a broker, the account of REST's limits. In: how to
//! make it. Out: the one that is there. By type; made by whoever asks first, while the others wait.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

/// See the module. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Once {
    cells: Arc<Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>,
}

impl Once {
    /// The `T` of this process. A failure to make it leaves it to be made by the next who asks.
    pub(crate) async fn get<T, E>(&self, make: impl Future<Output = Result<T, E>>) -> Result<T, E>
    where
        T: Clone + Send + Sync + 'static,
    {
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            let cell = cells.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(OnceCell::<T>::new()));
            Arc::clone(cell)
        };
        let cell = cell.downcast::<OnceCell<T>>().expect("a cell is kept under the type that it holds");
        cell.get_or_try_init(|| make).await.cloned()
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_is_not_made_again_and_what_failed_is() {
        let once = Once::default();
        assert_eq!(once.get(async { Err::<u8, _>("no") }).await, Err("no"));
        assert_eq!(once.get(async { Ok::<u8, &str>(1) }).await, Ok(1));
        assert_eq!(once.clone().get(async { Ok::<u8, &str>(2) }).await, Ok(1));
        assert_eq!(once.get(async { Ok::<u16, &str>(3) }).await, Ok(3));
    }
}
