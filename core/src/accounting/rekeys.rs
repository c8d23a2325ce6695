//! A new key for an installation. Two copies of one installation have the same key and GUID until each creates a new
//! key. The change is signed with the old key, whose GUID is no longer used, and with the new key, so that a client
//! can change neither another's GUID nor to another's key.

use crate::ids::{Guid, RecordId};
use crate::wire::Wire as _;
use crate::wire::records::{SignedRekey, SigningContext, Verify};
use sha2::Digest as _;

/// Returns whether the old and the new key have both signed the change of key, and differ.
#[must_use]
pub fn check(verify: Verify, signed: &SignedRekey) -> bool {
    let SignedRekey { rekey, by_old, by_new } = signed;
    let message = rekey.to_bytes();
    rekey.old != rekey.new
        && verify(&rekey.old, SigningContext::Rekey, &message, by_old)
        && verify(&rekey.new, SigningContext::Rekey, &message, by_new)
}

/// Returns the record id of a change of key. It depends on the keys alone, so the ledger stores the change once even
/// if it arrives repeatedly.
#[must_use]
pub fn record_id(signed: &SignedRekey) -> RecordId {
    let hash = sha2::Sha256::digest(signed.rekey.to_bytes());
    let mut id = [0; RecordId::LEN];
    id.copy_from_slice(&hash[..RecordId::LEN]);
    RecordId(id)
}

/// Returns the index, below `homes`, of the DN to which all CNs report the sessions of a GUID; all CNs list the DNs
/// in the same order. `None` if `homes` is 0.
#[must_use]
pub fn home(guid: &Guid, homes: u32) -> Option<u32> {
    let [a, b, c, d, ..] = guid.0;
    u32::from_be_bytes([a, b, c, d]).checked_rem(homes)
}

#[cfg(test)]
mod tests {
    use super::super::certs::tests::{fake_sign, fake_verify};
    use super::*;
    use crate::ids::{PublicKey, SecondaryGuid};
    use crate::wire::records::Rekey;

    fn signed(old: u32, new: u32) -> SignedRekey {
        let (old, new) = (PublicKey::numbered(old), PublicKey::numbered(new));
        let rekey = Rekey { old, new, start: SecondaryGuid::numbered(1) };
        let by = |key| fake_sign(key, SigningContext::Rekey, &rekey.to_bytes());
        SignedRekey { by_old: by(&old), by_new: by(&new), rekey }
    }

    #[test]
    fn a_key_is_changed_by_both_keys_or_not_at_all() {
        let good = signed(1, 2);
        assert!(check(fake_verify, &good));
        assert!(!check(fake_verify, &signed(1, 1)), "the same key");
        assert!(!check(fake_verify, &SignedRekey { by_new: good.by_old, ..good.clone() }), "another's new key");
        assert!(!check(fake_verify, &SignedRekey { by_old: good.by_new, ..good.clone() }), "another's old key");
        let mut moved = good.clone();
        moved.rekey.start = SecondaryGuid::numbered(2);
        assert!(!check(fake_verify, &moved));
        assert_ne!(record_id(&moved), record_id(&good));
    }

    #[test]
    fn every_guid_has_one_home_and_homes_share_them_evenly() {
        assert_eq!(home(&Guid::numbered(1), 0), None);
        let mut counts = [0; 3];
        for n in 0..300 {
            let home = home(&Guid::of(&PublicKey::numbered(n)), 3).expect("there are three");
            counts[home as usize] += 1;
        }
        assert!(counts.iter().all(|n| (70..130).contains(n)), "{counts:?}");
    }
}
