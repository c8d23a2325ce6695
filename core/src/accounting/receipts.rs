//! Receipts: when a downloader signs a receipt, when an uploader accepts it, and how many bytes an uploader sends on
//! credit, that is without receipt. Both sides of an introduction follow the same rule, so neither waits for the
//! other.

use crate::ids::{PublicKey, Signature};
use crate::limits;
use crate::wire::Wire as _;
use crate::wire::records::{Introduction, Receipt, ReceiptProof, SignedReceipt, SigningContext, Verify};
use core::time::Duration;

/// Limits on bytes that an uploader sends on credit, that is without receipt. Invariant: without a receipt a
/// downloader gets at most the `credit` of the bytes it has receipted, plus one request. Credit grows with receipted
/// bytes, not with the number of receipts: small receipts buy small credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditRule {
    /// Credit before the first receipt, in bytes.
    pub first: u64,
    /// Largest credit, in bytes; each receipt that is given when due doubles the credit up to this.
    pub most: u64,
    /// Longest time between two receipts while new bytes arrive.
    pub every: Duration,
}

impl CreditRule {
    /// The rule that all clients follow. Clients with different rules still account correctly, but may wait for each
    /// other.
    pub const PROTOCOL: Self = Self {
        first: limits::CREDIT_FIRST,
        most: limits::CREDIT_MAX,
        every: Duration::from_secs(limits::RECEIPT_EVERY_S),
    };

    /// Returns the credit in bytes after `receipted` bytes with receipts.
    #[must_use]
    pub const fn credit(&self, receipted: u64) -> u64 {
        let grown = self.first.saturating_add(receipted.saturating_mul(2));
        if grown < self.most { grown } else { self.most }
    }

    /// Returns the number of verified bytes without receipt at which the next receipt is due.
    #[must_use]
    pub const fn due(&self, receipted: u64) -> u64 {
        let half = self.credit(receipted) / 2;
        if half == 0 { 1 } else { half }
    }
}

/// Reason for refusing a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiptError {
    /// The receipt is for another introduction, download, version or uploader.
    Foreign,
    /// The receipt's `seq` or bytes are not above those of the receipt before.
    Stale,
    /// The receipt is for more bytes than the uploader ever promised to send over the introduction.
    TooMuch,
    /// The signature is not one of the download's key, which the introduction names.
    Signature,
}

/// Returns whether a receipt's signature is one of the download's key.
#[must_use]
pub fn is_signed(verify: Verify, download_key: &PublicKey, receipt: &Receipt, signature: &Signature) -> bool {
    verify(download_key, SigningContext::Receipt, &receipt.to_bytes(), signature)
}

/// Checks a receipt on behalf of its uploader: against the introduction, the previous receipt (its `seq` and bytes;
/// zeros before the first) and `promised`, the bytes that the uploader ever promised to send over the introduction.
pub fn check(
    verify: Verify,
    intro: &Introduction,
    (seq, bytes): (u32, u64),
    promised: u64,
    signed: &SignedReceipt,
) -> Result<ReceiptProof, ReceiptError> {
    let r = &signed.receipt;
    if (r.intro, r.download, r.version, r.uploader_key) != (intro.id, intro.download, intro.version, intro.uploader_key)
    {
        return Err(ReceiptError::Foreign);
    }
    if r.seq <= seq || r.bytes <= bytes {
        return Err(ReceiptError::Stale);
    }
    if r.bytes > promised {
        return Err(ReceiptError::TooMuch);
    }
    if !is_signed(verify, &intro.downloader_key, r, &signed.signature) {
        return Err(ReceiptError::Signature);
    }
    let (uploader_key, seq, bytes) = (r.uploader_key, r.seq, r.bytes);
    Ok(ReceiptProof { uploader_key, seq, bytes, signature: signed.signature })
}

/// Bytes sent and receipted over one introduction, as its uploader counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Account {
    /// Bytes sent over the introduction, and those that requests in progress are still to send.
    pub spent: u64,
    /// Bytes ever promised, including those not sent in the end: no receipt can be for more.
    pub promised: u64,
    /// The newest accepted receipt's `seq` and bytes; zeros before the first.
    pub taken: (u32, u64),
    /// Bytes of the newest receipt that is on disk. Only these let the uploader send more, so that a crash of its
    /// host loses no more than the credit.
    pub kept: u64,
}

impl Account {
    /// Returns the number of bytes sent or promised that no durable receipt covers, less an eighth of the receipted
    /// bytes, which may have been wasted (sent twice near the end, or in flight when cancelled).
    #[must_use]
    pub const fn owed(&self) -> u64 {
        self.without(self.kept)
    }

    /// Returns the number of bytes that no accepted receipt covers, durable or not, less the same allowance for
    /// waste.
    #[must_use]
    pub const fn unreceipted(&self) -> u64 {
        self.without(self.taken.1)
    }

    const fn without(&self, receipted: u64) -> u64 {
        self.spent.saturating_sub(receipted).saturating_sub(receipted / 8)
    }

    /// Returns whether a request for `bytes` more may be served now, without another receipt.
    #[must_use]
    pub const fn covers(&self, rule: &CreditRule, bytes: u64) -> bool {
        let credit = rule.credit(self.kept);
        let owed = self.owed();
        // one request may exceed the credit a little, otherwise a large piece could never begin
        owed.saturating_add(bytes) <= credit || (owed < credit && bytes <= limits::CREDIT_FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::super::certs::tests::{fake_sign, fake_verify};
    use super::super::introductions::tests::intro;
    use super::*;
    use crate::ids::{DownloadId, IntroId, VersionId};

    const MIB: u64 = 1 << 20;
    const RULE: CreditRule = CreditRule::PROTOCOL;

    fn receipt(seq: u32, bytes: u64) -> Receipt {
        let i = intro(1);
        Receipt { intro: i.id, download: i.download, version: i.version, uploader_key: i.uploader_key, seq, bytes }
    }

    fn signed(receipt: Receipt) -> SignedReceipt {
        let signature = fake_sign(&intro(1).downloader_key, SigningContext::Receipt, &receipt.to_bytes());
        SignedReceipt { receipt, signature }
    }

    fn checked(before: (u32, u64), promised: u64, s: &SignedReceipt) -> Result<u64, ReceiptError> {
        check(fake_verify, &intro(1), before, promised, s).map(|p| p.bytes)
    }

    #[test]
    fn credit_doubles_from_1_to_32_mib_with_receipts_given_when_due() {
        let mut receipted = 0;
        let credits: [u64; 7] = core::array::from_fn(|_| {
            let credit = RULE.credit(receipted);
            assert_eq!(RULE.due(receipted), credit / 2);
            receipted += RULE.due(receipted);
            credit / MIB
        });
        assert_eq!(credits, [1, 2, 4, 8, 16, 32, 32]);
        assert_eq!(
            (RULE.credit(16_384), RULE.credit(u64::MAX)),
            (MIB + 32_768, 32 * MIB),
            "small receipts, small credit"
        );
    }

    #[test]
    fn a_receipt_above_the_last_one_is_accepted() {
        assert_eq!(checked((0, 0), 9, &signed(receipt(1, 9))), Ok(9));
        assert_eq!(checked((1, 5), 9, &signed(receipt(7, 6))), Ok(6), "those between may have been lost");
    }

    #[test]
    fn a_receipt_of_anything_else_is_refused() {
        use ReceiptError::{Foreign, Signature, Stale, TooMuch};
        let good = receipt(2, 9);
        let cases = [
            (Receipt { intro: IntroId::numbered(2), ..good.clone() }, Foreign),
            (Receipt { download: DownloadId::numbered(2), ..good.clone() }, Foreign),
            (Receipt { version: VersionId::numbered(2), ..good.clone() }, Foreign),
            (Receipt { uploader_key: PublicKey::numbered(2), ..good.clone() }, Foreign),
            (Receipt { seq: 1, ..good.clone() }, Stale),
            (Receipt { bytes: 5, ..good.clone() }, Stale),
            (Receipt { bytes: 11, ..good.clone() }, TooMuch),
        ];
        for (wrong, why) in cases {
            assert_eq!(checked((1, 5), 10, &signed(wrong.clone())), Err(why), "{wrong:?}");
        }
        let mut forged = signed(good.clone());
        forged.receipt.bytes = 10;
        assert_eq!(checked((1, 5), 10, &forged), Err(Signature));
        let other = fake_sign(&intro(1).downloader_key, SigningContext::EdgeRequest, &good.to_bytes());
        assert_eq!(checked((1, 5), 10, &SignedReceipt { receipt: good, signature: other }), Err(Signature));
    }

    #[test]
    fn without_receipts_a_downloader_gets_its_first_credit_and_one_request() {
        let mut account = Account::default();
        while account.covers(&RULE, MIB) {
            account.spent += MIB;
        }
        assert_eq!(account.spent, MIB, "what fits exactly uses the credit up");
        let mut account = Account { spent: MIB - 1, ..Account::default() };
        assert!(account.covers(&RULE, MIB) && !account.covers(&RULE, 16 * MIB));
        account.spent += MIB;
        assert!(!account.covers(&RULE, 1));
    }

    #[test]
    fn waste_up_to_an_eighth_of_receipted_bytes_is_allowed() {
        let account = Account { spent: 90 * MIB, promised: 99 * MIB, taken: (9, 80 * MIB), kept: 80 * MIB };
        assert_eq!(account.owed(), 0);
        let account = Account { spent: 122 * MIB, ..account };
        assert!(!account.covers(&RULE, 1));
        assert_eq!((account.owed(), account.unreceipted()), (32 * MIB, 32 * MIB));
        let taken = Account { taken: (10, 100 * MIB), ..account };
        assert_eq!(
            (taken.owed(), taken.unreceipted()),
            (32 * MIB, 9 * MIB + MIB / 2),
            "credit waits for the disk, blame does not"
        );
    }
}
