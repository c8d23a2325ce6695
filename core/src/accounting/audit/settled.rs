//! Checks a download's statement against the usage and server records from which it was computed, on behalf of the
//! provider.

use super::{DownloadStatement, Outcome};
use crate::accounting::evidence::{book_of, digest_of};
use crate::accounting::quarantine::Quarantines;
use crate::accounting::receipts;
use crate::ids::{DownloadId, IntroId};
use crate::wire::records::{GrantRecord, LedgerRecord, PeerBytes, Receipt, Side, UsageRecord, UsageState, Verify};
use alloc::vec::Vec;

/// The records of a download that count for its bill, as its provider receives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Id of the download.
    pub download: DownloadId,
    /// The records in the order in which the ledger received them, each with its time of arrival, Unix milliseconds.
    pub records: Vec<(u64, LedgerRecord)>,
    /// Quarantines of the clients that made the records: bytes reported in quarantine are not billed.
    pub quarantines: Quarantines,
}

/// Figures that the records of a download prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Proven {
    /// Number of receipts with a valid signature of the download's key.
    pub receipts: u64,
    /// Number of receipts with wrong signatures in uploaders' records; no bill depends on them.
    pub worthless: u64,
    /// Bytes from peers that are billed.
    pub peer_bytes: u64,
}

/// Reason why the records do not prove a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// The records do not match the statement's digest: one was changed, dropped or added.
    Records,
    /// The records do not match the digest, and the download's key did not sign a receipt for this introduction.
    Receipt(IntroId),
    /// The records contain no grant of this provider, object and version.
    Ungranted,
    /// The statement bills more bytes from peers than the records prove.
    Beyond {
        /// Bytes that the statement bills.
        billed: u64,
        /// Bytes that the records prove.
        proven: u64,
    },
    /// Settlement of the records yields other figures than the statement.
    Figures,
}

impl Settled {
    /// Checks the statement `of` this download against these records. `closed_ms`: when its day was closed, Unix
    /// milliseconds.
    pub fn check(&self, verify: Verify, of: &DownloadStatement, closed_ms: u64) -> Result<Proven, Doubt> {
        let records = || self.records.iter().map(|(came_ms, record)| (*came_ms, record));
        let granted = self.granted();
        let of_receipts = granted.map(|granted| self.receipts(verify, granted));
        let (proven, bad) = of_receipts.unwrap_or_default();
        if digest_of(records()) != of.evidence {
            return Err(bad.map_or(Doubt::Records, Doubt::Receipt));
        }
        let is_of = |r: &LedgerRecord| r.download() == Some(self.download);
        let granted = granted.filter(|g| (g.provider, &g.path, g.version) == (of.provider, &of.path, of.version));
        if granted.is_none() || self.download != of.download || !records().all(|(_, r)| is_of(r)) {
            return Err(Doubt::Ungranted);
        }
        let bill = book_of(&self.quarantines, records()).bill(verify, closed_ms);
        if of.peer_bytes > bill.peers_billed {
            return Err(Doubt::Beyond { billed: of.peer_bytes, proven: bill.peers_billed });
        }
        let said = (of.size, of.outcome, of.edge_bytes, of.peer_bytes, of.flagged_bytes, of.max_peer_bytes);
        let found =
            (bill.size, outcome(bill.state), bill.edge_unique, bill.peers_billed, bill.flagged, bill.max_peer_bytes);
        if said == found { Ok(Proven { peer_bytes: bill.peers_billed, ..proven }) } else { Err(Doubt::Figures) }
    }

    /// Returns the grant that was issued first; `None` if the records contain no grant.
    fn granted(&self) -> Option<&GrantRecord> {
        let grants =
            self.records.iter().filter_map(|(_, r)| if let LedgerRecord::Granted(g) = r { Some(g) } else { None });
        grants.min_by_key(|g| (g.issued_ms, g.id))
    }

    /// Counts the receipts with right and wrong signatures, and returns the first introduction with a wrong one.
    fn receipts(&self, verify: Verify, granted: &GrantRecord) -> (Proven, Option<IntroId>) {
        let (mut proven, mut bad) = (Proven::default(), None);
        let usage = self.records.iter().filter_map(|(_, r)| r.usage());
        for (r, p) in usage.filter(|r| r.side == Side::Uploader).flat_map(|r| r.peers.iter().map(move |p| (r, p))) {
            match is_signed(verify, granted, r, p) {
                Some(true) => proven.receipts += 1,
                Some(false) => {
                    proven.worthless += 1;
                    bad = bad.or(Some(p.intro));
                }
                None => {}
            }
        }
        (proven, bad)
    }
}

/// Returns whether the download's key signed an uploader's receipt; `None` if there is no receipt.
fn is_signed(verify: Verify, granted: &GrantRecord, r: &UsageRecord, p: &PeerBytes) -> Option<bool> {
    let proof = p.receipt.as_ref()?;
    let receipt = Receipt {
        intro: p.intro,
        download: r.download,
        version: r.version,
        uploader_key: proof.uploader_key,
        seq: proof.seq,
        bytes: proof.bytes,
    };
    Some(receipts::is_signed(verify, &granted.download_key, &receipt, &proof.signature))
}

/// Returns the outcome for the state in a downloader's last report; `None` stands for no report.
#[must_use]
pub const fn outcome(state: Option<UsageState>) -> Outcome {
    match state {
        None => Outcome::Unreported,
        Some(UsageState::Running) => Outcome::Unfinished,
        Some(UsageState::Completed) => Outcome::Completed,
        Some(UsageState::Cancelled) => Outcome::Cancelled,
        Some(UsageState::Failed) => Outcome::Failed,
    }
}
