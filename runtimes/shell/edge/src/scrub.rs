//! Scrubbing: reads all stored content again, slowly and from the disk itself, to find damage before a client does.

use super::keeper::{Keeper, Refused};
use super::pace::Pacer;
use super::published::PublishedFiles;
use super::stored::By;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use swarmedge_core::ids::VersionId;
use swarmedge_ground::rt::Rt;

/// Bytes for whose reading time a round lasts at least, so that a few small objects are not read all the time.
const ROUND_BYTES_MIN: u64 = 1 << 30;
/// Interval between checks whether the rate has changed or content was published.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Scrubs at `rate` bytes a second, which may change, as long as the runtime runs; 0: not at all.
pub(super) async fn follow<R: Rt>(rt: R, keeper: Keeper<R>, published: PublishedFiles<R>, rate: Arc<AtomicU64>) {
    let mut scrub = Scrub { rt, keeper, published, pacer: Pacer::following(Arc::clone(&rate)), rate };
    // a process that is often started anew must not read the same first objects each time
    let mut from = VersionId([0; 32]);
    let _ = getrandom::fill(&mut from.0);
    loop {
        match scrub.round(from).await {
            0 => scrub.rt.sleep_until(scrub.rt.now() + LOOK_EVERY).await,
            read => scrub.wait(ROUND_BYTES_MIN.saturating_sub(read)).await,
        }
        from = VersionId([0; 32]);
    }
}

struct Scrub<R> {
    rt: R,
    keeper: Keeper<R>,
    published: PublishedFiles<R>,
    pacer: Pacer,
    rate: Arc<AtomicU64>,
}

impl<R: Rt> Scrub<R> {
    /// Reads every version whose id is at least `from`; returns the number of bytes read.
    async fn round(&mut self, from: VersionId) -> u64 {
        let mut read = 0_u64;
        let mut next = Some(from);
        while let Some(at) = next {
            let catalogue = self.published.catalogue().await;
            let mut rest = catalogue.versions.range(at..);
            let Some((id, version)) = rest.next() else { break };
            next = rest.next().map(|(id, _)| *id);
            let stored = match self.keeper.open(*id).await {
                Ok(stored) => stored,
                Err(Refused::Damaged(what)) => {
                    self.keeper.damage().note(*id, &version.key, what);
                    continue;
                }
                Err(Refused::Busy(_)) => continue,
            };
            let layout = stored.manifest.layout();
            for piece in layout.iter() {
                let bytes = u64::from(layout.piece_size(piece));
                self.wait(bytes).await;
                // the keeper reports damage itself
                let _ = self.keeper.check(&stored, piece, By::Scrub).await;
                metrics::counter!("swarmedge_edge_scrubbed_bytes_total").increment(bytes);
                read = read.saturating_add(bytes);
            }
        }
        read
    }

    /// Waits until the rate allows this many bytes to be read.
    async fn wait(&mut self, bytes: u64) {
        while self.rate.load(Ordering::Relaxed) == 0 {
            self.rt.sleep_until(self.rt.now() + LOOK_EVERY).await;
        }
        let at = self.pacer.reserve(self.rt.now(), bytes);
        // short sleeps, so that a changed rate takes effect soon
        while self.rt.now() < at && self.rate.load(Ordering::Relaxed) != 0 {
            self.rt.sleep_until(at.min(self.rt.now() + LOOK_EVERY)).await;
        }
    }
}
