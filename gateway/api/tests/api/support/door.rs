// SPDX-License-Identifier: AGPL-3.0-only
//! A way to the store or the broker that can be shut.

use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// See the module.
pub(crate) struct Door {
    pub(crate) address: String,
    state: Arc<Mutex<CancellationToken>>,
    /// Ends with it.
    _tasks: tokio::task::JoinSet<()>,
}

impl Door {
    pub(crate) async fn to(place: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let state = Arc::new(Mutex::new(CancellationToken::new()));
        let mut tasks = tokio::task::JoinSet::new();
        let current = Arc::clone(&state);
        tasks.spawn(async move {
            let mut ways = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let shut = current.lock().expect("unpoisoned").clone();
                ways.spawn(async move {
                    let way = async {
                        let mut far = TcpStream::connect(place).await.expect("it is there");
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    };
                    shut.run_until_cancelled(way).await;
                });
            }
        });
        Self { address, state, _tasks: tasks }
    }

    /// Connections end, and none lives any more.
    pub(crate) fn shut(&self) {
        self.state.lock().expect("unpoisoned").cancel();
    }

    pub(crate) fn open(&self) {
        *self.state.lock().expect("unpoisoned") = CancellationToken::new();
    }
}
