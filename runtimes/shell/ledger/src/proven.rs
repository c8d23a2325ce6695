//! Signatures that were found good. A download is settled again with each record that comes, all of its receipts with
//! it: what was proven once is looked up, by a digest of all that the check depends on.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use swarmedge_core::ids::{PublicKey, Signature};
use swarmedge_core::wire::records::Context;
use swarmedge_ground::keys::verify;

/// How many of each generation: a few MiB in all.
const REMEMBERED_MAX: usize = 32_768;

static GOOD: Mutex<Remembered> = Mutex::new(Remembered { newer: BTreeSet::new(), older: BTreeSet::new() });

/// As [`verify`], without checking twice what was good.
pub(super) fn verify_once(key: &PublicKey, context: Context, message: &[u8], signature: &Signature) -> bool {
    let mut hash = Sha256::new();
    for part in [&key.0[..], context.text(), message, &signature.0] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let id = hash.finalize().into();
    // a panic elsewhere leaves the sets as good as they were
    let remembered = || GOOD.lock().unwrap_or_else(PoisonError::into_inner);
    if remembered().holds(&id) {
        return true;
    }
    let good = verify(key, context, message, signature);
    if good {
        remembered().add(id, REMEMBERED_MAX);
    }
    good
}

/// The last ones, in two generations: the older goes when the newer is full.
struct Remembered {
    newer: BTreeSet<[u8; 32]>,
    older: BTreeSet<[u8; 32]>,
}

impl Remembered {
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
    fn what_was_good_stays_good_and_nothing_else_becomes_so() {
        let (key, other) = (Key::from_seed([1; 32]), Key::from_seed([2; 32]));
        let signature = key.sign(Context::Receipt, b"40 bytes");
        for _ in 0..2 {
            assert!(verify_once(&key.public(), Context::Receipt, b"40 bytes", &signature));
            assert!(!verify_once(&key.public(), Context::Receipt, b"41 bytes", &signature));
            assert!(!verify_once(&key.public(), Context::Grant, b"40 bytes", &signature));
            assert!(!verify_once(&other.public(), Context::Receipt, b"40 bytes", &signature));
            let mut changed = signature;
            changed.0[63] ^= 1;
            assert!(!verify_once(&key.public(), Context::Receipt, b"40 bytes", &changed));
        }
    }

    #[test]
    fn the_last_are_remembered_and_no_more_than_twice_as_many() {
        let mut remembered = Remembered { newer: BTreeSet::new(), older: BTreeSet::new() };
        let id = |n: u8| [n; 32];
        for n in 0..100 {
            remembered.add(id(n), 10);
            assert!((n.saturating_sub(9)..=n).all(|n| remembered.holds(&id(n))), "{n}");
            assert!(remembered.newer.len() + remembered.older.len() <= 20);
        }
        assert!(!remembered.holds(&id(50)));
    }
}
