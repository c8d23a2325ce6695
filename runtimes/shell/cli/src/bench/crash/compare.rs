//! Comparison of a completed download, as its client has counted it, with the ledger: right to the byte, but for what
//! kills and an edge's failing spool explain.

use crate::Error;
use std::collections::BTreeMap;
use swarmedge_core::accounting::receipts::CreditRule;
use swarmedge_core::accounting::settlement::Claims;
use swarmedge_core::ids::{DownloadId, IntroId};
use swarmedge_core::limits::CREDIT_FIRST;
use swarmedge_ground::rt::Start;
use swarmedge_ledger::{Database, DownloadUsage, Filter, Reader};

/// A completed download as its client has counted it, and what may be missing in the ledger.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    /// Id of the download in hexadecimal.
    pub download: String,
    /// Size of the object in bytes.
    pub size: u64,
    /// Verified bytes from edges, each byte counted once.
    pub edge_bytes: u64,
    /// Verified bytes from peers, each byte counted once.
    pub peer_bytes: u64,
    /// Whether the downloaded file equals the published one.
    pub matches: bool,
    /// Whether the downloader was killed, so that uploaders may lack its last receipts.
    pub downloader_cut: bool,
    /// GUIDs of uploaders that were killed during the download, so that their last receipts may be missing.
    pub cut_uploaders: Vec<String>,
    /// Most bytes that the edge may have given away, uncounted, while it could not write its spool.
    pub given_away: u64,
}

/// Figures of the ledger for one download, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct LedgerFigures {
    /// Bytes that edges have sent, each byte counted once.
    pub edge: u64,
    /// Bytes from peers that are billed.
    pub peers: u64,
    /// Bytes from peers in the downloader's report that no receipt in the ledger covers, so that they are not billed.
    pub gap: u64,
    /// Largest permitted gap: what uploaders may send without a receipt, over introductions that a kill cut off.
    pub bound: u64,
}

impl LedgerFigures {
    /// Returns the bytes that are billed.
    #[must_use]
    pub const fn billed(&self) -> u64 {
        self.edge.saturating_add(self.peers)
    }
}

/// Returns the most bytes that an uploader may send over an introduction without a receipt: the credit and one request.
fn open_credit(claims: &Claims) -> u64 {
    CreditRule::PROTOCOL.credit(claims.receipted).saturating_add(CREDIT_FIRST)
}

impl Delivered {
    /// Compares the download with the present state of the ledger. Returns the ledger's figures, and a sentence for
    /// each contradiction.
    pub fn compare<R: Start>(&self, database: &Database) -> Result<(LedgerFigures, Vec<String>), Error> {
        let Ok(id) = self.download.parse::<DownloadId>() else {
            return Ok((LedgerFigures::default(), vec!["it has no download id".into()]));
        };
        let database = database.clone();
        let (usage, claims) = R::block_on(move |_| async move {
            let mut reader = Reader::open(&database).await?;
            let filter = Filter { download: Some(id), ..Filter::default() };
            let usage = reader.downloads(&filter).await?.into_iter().next();
            Ok::<_, Error>((usage, reader.claims(id).await?))
        })?;
        Ok(match usage {
            Some(usage) => self.compare_with(&usage, &claims),
            // all of it was given away: then the edge may have no record of its grant either
            None if self.given_away > 0
                && self.given_away >= self.edge_bytes
                && self.peer_bytes <= self.before_exchange(0) =>
            {
                (LedgerFigures::default(), Vec::new())
            }
            None => (LedgerFigures::default(), vec!["the ledger does not know it".into()]),
        })
    }

    /// Returns the bytes of peers that may be unbilled since the client exchanged its download for one without peers,
    /// because the edge could not count: at most what an uploader sends before its first receipt.
    fn before_exchange(&self, billed_peers: u64) -> u64 {
        if self.given_away > 0 && billed_peers == 0 { self.peer_bytes.min(CREDIT_FIRST) } else { 0 }
    }

    fn compare_with(&self, usage: &DownloadUsage, claims: &BTreeMap<IntroId, Claims>) -> (LedgerFigures, Vec<String>) {
        let mut in_ledger = LedgerFigures { edge: usage.edge_unique, peers: usage.peers_billed, gap: 0, bound: 0 };
        let mut wrong = Vec::new();
        for (intro, c) in claims {
            let gap = c.received.saturating_sub(c.agreed);
            // the ledger does not know an uploader that was killed before its first receipt
            let by_uploader = c
                .uploader
                .map_or(!self.cut_uploaders.is_empty(), |guid| self.cut_uploaders.contains(&guid.to_string()));
            let bound = if self.downloader_cut || by_uploader { open_credit(c) } else { 0 };
            if gap > bound {
                wrong.push(format!("{gap} bytes of introduction {intro} are not billed, {bound} may be"));
            }
            in_ledger.gap = in_ledger.gap.saturating_add(gap);
            in_ledger.bound = in_ledger.bound.saturating_add(bound.min(c.received));
        }
        let total = in_ledger.billed();
        let mut expect = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        expect(self.matches, "the file is not what was published".into());
        expect(usage.state == "completed", format!("it is complete, in the ledger {}", usage.state));
        let counted = self.edge_bytes.saturating_add(self.peer_bytes);
        // what came before the exchange may also count for the download before
        let is_exchanged =
            self.given_away > 0 && self.peer_bytes == 0 && self.size.saturating_sub(counted) <= CREDIT_FIRST;
        expect(
            counted == self.size || counted < self.size && is_exchanged,
            format!("its client counts {counted} of {} bytes", self.size),
        );
        expect(total <= self.size, format!("{total} bytes are billed where {} were delivered", self.size));
        expect(
            in_ledger.peers <= self.peer_bytes,
            format!("{} peer bytes are billed, {} came", in_ledger.peers, self.peer_bytes),
        );
        let missing = self.given_away.saturating_add(self.before_exchange(in_ledger.peers));
        let least = counted.min(self.size).saturating_sub(in_ledger.bound.saturating_add(missing));
        expect(total >= least, format!("{total} bytes are billed where {least} must be"));
        expect(
            in_ledger.edge.saturating_add(self.given_away) >= self.edge_bytes,
            format!("the edge has recorded {} of {} bytes", in_ledger.edge, self.edge_bytes),
        );
        (in_ledger, wrong)
    }
}
