//! A cache of valid signatures. A download is settled again, with all its receipts, whenever a record arrives; a digest
//! over key, context, message and signature finds the checks that succeeded before.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use swarmedge_core::ids::{PublicKey, Signature};
use swarmedge_core::wire::records::SigningContext;
use swarmedge_ground::keys::verify;

/// Most digests per generation of the cache: a few MiB in all.
const CACHE_MAX: usize = 32_768;

static CACHE: Mutex<SignatureCache> = Mutex::new(SignatureCache { newer: BTreeSet::new(), older: BTreeSet::new() });

/// Verifies like [`verify`], but looks up signatures that were valid before.
pub(super) fn verify_cached(key: &PublicKey, context: SigningContext, message: &[u8], signature: &Signature) -> bool {
    let mut hash = Sha256::new();
    for part in [&key.0[..], context.text(), message, &signature.0] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let id = hash.finalize().into();
    // a panic while holding the lock leaves the sets consistent
    let remembered = || CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if remembered().holds(&id) {
        return true;
    }
    let good = verify(key, context, message, signature);
    if good {
        remembered().add(id, CACHE_MAX);
    }
    good
}

/// Recently added digests in two generations: when the newer one is full, the older one is dropped.
struct SignatureCache {
    newer: BTreeSet<[u8; 32]>,
    older: BTreeSet<[u8; 32]>,
}

impl SignatureCache {
    fn holds(&self, id: &[u8; 32]) -> bool {
        self.newer.contains(id) || self.older.contains(id)
    }

    fn add(&mut self, id: [u8; 32], most: usize) {
        if self.newer.len() >= most {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_ground::keys::Key;

    #[test]
    fn the_cache_changes_no_verdict() {
        let (key, other) = (Key::from_seed([1; 32]), Key::from_seed([2; 32]));
        let signature = key.sign(SigningContext::Receipt, b"40 bytes");
        for _ in 0..2 {
            assert!(verify_cached(&key.public(), SigningContext::Receipt, b"40 bytes", &signature));
            assert!(!verify_cached(&key.public(), SigningContext::Receipt, b"41 bytes", &signature));
            assert!(!verify_cached(&key.public(), SigningContext::Grant, b"40 bytes", &signature));
            assert!(!verify_cached(&other.public(), SigningContext::Receipt, b"40 bytes", &signature));
            let mut changed = signature;
            changed.0[63] ^= 1;
            assert!(!verify_cached(&key.public(), SigningContext::Receipt, b"40 bytes", &changed));
        }
    }

    #[test]
    fn the_cache_holds_the_last_entries_and_at_most_twice_as_many() {
        let mut remembered = SignatureCache { newer: BTreeSet::new(), older: BTreeSet::new() };
        let id = |n: u8| [n; 32];
        for n in 0..100 {
            remembered.add(id(n), 10);
            assert!((n.saturating_sub(9)..=n).all(|n| remembered.holds(&id(n))), "{n}");
            assert!(remembered.newer.len() + remembered.older.len() <= 20);
        }
        assert!(!remembered.holds(&id(50)));
    }
}
