//! Requests that were seen before.

use super::api::TIME_WINDOW_MS;
use std::collections::{BTreeMap, BTreeSet};

/// Requests remembered at a time.
const SEEN_MAX: usize = 500_000;

/// Remembers nonces for as long as their request's time would be accepted.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    until: BTreeMap<u64, Vec<[u8; 16]>>,
    seen: BTreeSet<[u8; 16]>,
}

/// Why a signed request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Its time is too far from ours.
    Time,
    /// Its nonce was used before.
    Seen,
    /// Too many to remember.
    Full,
}

impl Replay {
    /// Admits a request once. To be called after its signature is checked, so that only its signer can spend a nonce.
    pub fn admit(&mut self, now_ms: u64, time_ms: u64, nonce: [u8; 16]) -> Result<(), Stale> {
        let current = self.until.split_off(&now_ms);
        for nonce in std::mem::replace(&mut self.until, current).into_values().flatten() {
            self.seen.remove(&nonce);
        }
        if now_ms.abs_diff(time_ms) > TIME_WINDOW_MS {
            return Err(Stale::Time);
        }
        if self.seen.contains(&nonce) {
            return Err(Stale::Seen);
        }
        if self.seen.len() >= SEEN_MAX {
            return Err(Stale::Full);
        }
        self.seen.insert(nonce);
        self.until.entry(time_ms.saturating_add(TIME_WINDOW_MS + 1)).or_default().push(nonce);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_admitted_once_and_only_near_its_time() {
        let mut replay = Replay::default();
        let now = 10 * TIME_WINDOW_MS;
        assert_eq!(replay.admit(now, now, [1; 16]), Ok(()));
        assert_eq!(replay.admit(now, now, [1; 16]), Err(Stale::Seen));
        assert_eq!(replay.admit(now, now - TIME_WINDOW_MS, [2; 16]), Ok(()));
        assert_eq!(replay.admit(now, now - TIME_WINDOW_MS - 1, [3; 16]), Err(Stale::Time));
        assert_eq!(replay.admit(now, now + TIME_WINDOW_MS + 1, [3; 16]), Err(Stale::Time));
    }

    #[test]
    fn a_nonce_is_remembered_as_long_as_its_time_counts() {
        let mut replay = Replay::default();
        let now = 10 * TIME_WINDOW_MS;
        let ahead = now + TIME_WINDOW_MS;
        assert_eq!(replay.admit(now, ahead, [1; 16]), Ok(()));
        assert_eq!(replay.admit(ahead + TIME_WINDOW_MS, ahead, [1; 16]), Err(Stale::Seen));
        assert_eq!(replay.admit(ahead + TIME_WINDOW_MS + 1, ahead, [1; 16]), Err(Stale::Time));
        // and forgotten afterwards
        assert_eq!(replay.admit(ahead + TIME_WINDOW_MS + 2, ahead + TIME_WINDOW_MS, [1; 16]), Ok(()));
        assert_eq!((replay.seen.len(), replay.until.len()), (1, 1));
    }
}
