//! Comparison of delivered and billed bytes for each download, and the result table of a whole run.

use super::Victim;
use crate::Error;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use swarmedge_core::accounting::receipts::CreditRule;
use swarmedge_core::accounting::settlement::Claims;
use swarmedge_core::ids::{DownloadId, IntroId};
use swarmedge_core::limits::CREDIT_FIRST;
use swarmedge_ground::rt::Start;
use swarmedge_ledger::{Database, DownloadUsage, Filter, Reader};

/// Reader of the ledger's database.
pub(super) struct Books<R> {
    pub(super) database: Database,
    pub(super) runtime: PhantomData<R>,
}

/// Result of one round: what the client counted, and what the ledger holds.
pub(super) struct Outcome {
    pub(super) number: u32,
    pub(super) killed: Vec<Victim>,
    pub(super) download: String,
    /// GUIDs of uploaders that were killed during the download, so that their last receipts may be missing.
    pub(super) killed_uploaders: Vec<String>,
    pub(super) size: u64,
    /// Verified bytes from edges as the downloader counts, each byte once; `peer_bytes` is the same for bytes from
    /// peers.
    pub(super) edge_bytes: u64,
    pub(super) peer_bytes: u64,
    /// Whether the downloaded file equals the published one.
    pub(super) matches: bool,
    pub(super) in_ledger: LedgerFigures,
    /// Sentences about contradictions in the ledger; empty if it is right.
    pub(super) wrong: Vec<String>,
}

/// Figures of the ledger for one download, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LedgerFigures {
    pub(super) edge: u64,
    pub(super) peers: u64,
    /// Bytes from peers in the downloader's report that no receipt in the ledger covers, so that they are not billed.
    pub(super) gap: u64,
    /// Largest permitted gap: what uploaders may send without a receipt, over introductions that a kill cut off.
    pub(super) bound: u64,
}

impl<R: Start> Books<R> {
    /// Compares a download with the present state of the ledger, and fills in `in_ledger` and `wrong`.
    pub(super) fn compare(&self, outcome: &mut Outcome) -> Result<(), Error> {
        outcome.wrong.clear();
        let Ok(id) = outcome.download.parse::<DownloadId>() else {
            outcome.wrong.push("it has no download id".into());
            return Ok(());
        };
        let database = self.database.clone();
        let (usage, claims) = R::block_on(move |_| async move {
            let mut reader = Reader::open(&database).await?;
            let filter = Filter { download: Some(id), ..Filter::default() };
            let usage = reader.downloads(&filter).await?.into_iter().next();
            Ok::<_, Error>((usage, reader.claims(id).await?))
        })?;
        match usage {
            Some(usage) => outcome.compare_with(&usage, &claims),
            None => outcome.wrong.push("the ledger does not know it".into()),
        }
        Ok(())
    }
}

/// Returns the most bytes that an uploader may send over an introduction without a receipt: the credit and one request.
fn open_credit(claims: &Claims) -> u64 {
    CreditRule::PROTOCOL.credit(claims.receipted).saturating_add(CREDIT_FIRST)
}

impl Outcome {
    fn compare_with(&mut self, usage: &DownloadUsage, claims: &BTreeMap<IntroId, Claims>) {
        let downloader_cut = self.killed.contains(&Victim::Downloader);
        let mut in_ledger = LedgerFigures { edge: usage.edge_unique, peers: usage.peers_billed, gap: 0, bound: 0 };
        let mut wrong = Vec::new();
        for (intro, c) in claims {
            let gap = c.received.saturating_sub(c.agreed);
            // the ledger does not know an uploader that was killed before its first receipt
            let by_uploader = c
                .uploader
                .map_or(!self.killed_uploaders.is_empty(), |guid| self.killed_uploaders.contains(&guid.to_string()));
            let bound = if downloader_cut || by_uploader { open_credit(c) } else { 0 };
            if gap > bound {
                wrong.push(format!("{gap} bytes of introduction {intro} are not billed, {bound} may be"));
            }
            in_ledger.gap = in_ledger.gap.saturating_add(gap);
            in_ledger.bound = in_ledger.bound.saturating_add(bound.min(c.received));
        }
        let total = in_ledger.edge.saturating_add(in_ledger.peers);
        let mut expect = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        expect(self.matches, "the file is not what was published".into());
        expect(usage.state == "completed", format!("it is complete, in the ledger {}", usage.state));
        let counted = self.edge_bytes.saturating_add(self.peer_bytes);
        expect(counted == self.size, format!("its client counts {counted} of {} bytes", self.size));
        expect(total <= self.size, format!("{total} bytes are billed where {} were delivered", self.size));
        expect(
            in_ledger.peers <= self.peer_bytes,
            format!("{} peer bytes are billed, {} came", in_ledger.peers, self.peer_bytes),
        );
        let least = self.size.saturating_sub(in_ledger.bound);
        expect(total >= least, format!("{total} bytes are billed where {least} must be"));
        expect(
            in_ledger.edge >= self.edge_bytes,
            format!("the edge has recorded {} of {} bytes", in_ledger.edge, self.edge_bytes),
        );
        (self.in_ledger, self.wrong) = (in_ledger, wrong);
    }

    fn billed(&self) -> u64 {
        self.in_ledger.edge.saturating_add(self.in_ledger.peers)
    }

    fn row(&self) -> String {
        let mut kinds: Vec<String> = self.killed.iter().map(ToString::to_string).collect();
        kinds.dedup();
        if let [only] = &kinds[..] { only.clone() } else { "several".into() }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let killed: Vec<String> = self.killed.iter().map(ToString::to_string).collect();
        write!(
            f,
            "round {}: killed {}; edge {}/{}, peers {}/{}, gap {} of {}",
            self.number,
            killed.join(", "),
            self.in_ledger.edge,
            self.edge_bytes,
            self.in_ledger.peers,
            self.peer_bytes,
            self.in_ledger.gap,
            self.in_ledger.bound,
        )?;
        self.wrong.iter().try_for_each(|w| write!(f, "; WRONG: {w}"))
    }
}

/// Results of all rounds of a run.
#[derive(Default)]
pub(super) struct Tally {
    kills: BTreeMap<String, u64>,
    outcomes: Vec<Outcome>,
}

impl Tally {
    pub(super) fn killed(&mut self, victim: Victim) {
        *self.kills.entry(victim.to_string()).or_default() += 1;
    }

    pub(super) fn kills(&self) -> u64 {
        self.kills.values().sum()
    }

    pub(super) fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    /// Compares all downloads with the ledger again, to include late records.
    pub(super) fn read_again<R: Start>(&mut self, books: &Books<R>) -> Result<(), Error> {
        self.outcomes.iter_mut().try_for_each(|outcome| books.compare(outcome))
    }

    pub(super) fn wrong(&self) -> impl Iterator<Item = String> + '_ {
        self.outcomes.iter().flat_map(|o| o.wrong.iter().map(move |w| format!("round {}: {w}", o.number)))
    }

    /// Returns the rows of the result table by kind of victim, with the sum last.
    fn rows(&self) -> Vec<(String, [u64; 7])> {
        let mut rows: BTreeMap<String, [u64; 7]> = BTreeMap::new();
        let mut all = [0; 7];
        for o in &self.outcomes {
            let figures = [
                o.killed.len() as u64,
                1,
                o.size,
                o.billed(),
                o.in_ledger.gap,
                o.in_ledger.bound,
                o.wrong.len() as u64,
            ];
            let row = rows.entry(o.row()).or_default();
            for (i, n) in figures.into_iter().enumerate() {
                row[i] += n;
                all[i] += n;
            }
        }
        rows.into_iter().chain([("all".to_owned(), all)]).collect()
    }

    pub(super) fn table(&self) -> String {
        let head = "killed       kills  downloads     delivered        billed          gap        bound  wrong\n";
        let mut text = head.to_owned();
        for (name, [kills, downloads, delivered, billed, gap, bound, wrong]) in self.rows() {
            text += &format!(
                "{name:11} {kills:>6} {downloads:>10} {delivered:>13} {billed:>13} {gap:>12} {bound:>12} {wrong:>6}\n"
            );
        }
        text
    }

    /// Returns the results by killed role as JSON.
    pub(super) fn to_json(&self, runtime: &str, seed: u64, unclean: &[String]) -> serde_json::Value {
        let row = |(name, [kills, downloads, delivered, billed, gap, bound, wrong]): (String, [u64; 7])| {
            serde_json::json!({
                "killed": name, "kills": kills, "downloads": downloads, "delivered_bytes": delivered,
                "billed_bytes": billed, "gap_bytes": gap, "bound_bytes": bound, "wrong": wrong,
            })
        };
        let wrong: Vec<String> = self.wrong().chain(unclean.iter().cloned()).collect();
        serde_json::json!({
            "ok": wrong.is_empty(), "runtime": runtime, "seed": seed, "kills": self.kills, "wrong": wrong,
            "rows": self.rows().into_iter().map(row).collect::<Vec<_>>(),
        })
    }
}
