//! Threads for long work that would delay the store's own thread.

use super::Shared;
use std::io;
use std::sync::Arc;

/// Runs `work` on a new thread. The store's own thread ends only after it.
pub(super) fn on_own_thread(
    shared: &Arc<Shared>,
    name: &str,
    work: impl FnOnce(&Arc<Shared>) + Send + 'static,
) -> io::Result<()> {
    shared.queue.count_thread(true);
    let on = Arc::clone(shared);
    let run = move || {
        work(&on);
        // when the last of them has ended nothing but the store's owner may keep the directory locked
        let queue = Arc::clone(&on.queue);
        drop(on);
        queue.count_thread(false);
    };
    let started = std::thread::Builder::new().name(name.into()).spawn(run);
    started.map(drop).inspect_err(|_| shared.queue.count_thread(false))
}
