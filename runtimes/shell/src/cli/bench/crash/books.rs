//! What was delivered against what is billed, and the table of a whole run.

use super::Victim;
use crate::cli::Error;
use crate::rt::Start;
use crate::server::ledger::{Database, DownloadUsage, Filter, Reader};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use swarmedge_core::accounting::receipts::CreditRule;
use swarmedge_core::accounting::settlement::Claims;
use swarmedge_core::ids::{DownloadId, IntroId};
use swarmedge_core::limits::CREDIT_FIRST;

/// Reads the ledger's database.
pub(super) struct Books<R> {
    pub(super) database: Database,
    pub(super) runtime: PhantomData<R>,
}

/// A download of the run.
pub(super) struct Outcome {
    pub(super) number: u32,
    pub(super) killed: Vec<Victim>,
    pub(super) download: String,
    /// Uploaders whose introductions a kill has cut, by GUID.
    pub(super) cut: Vec<String>,
    pub(super) size: u64,
    /// As its client counts: verified, each byte once.
    pub(super) edge_bytes: u64,
    pub(super) peer_bytes: u64,
    /// The file is what was published.
    pub(super) matches: bool,
    pub(super) held: Held,
    /// Why the books are wrong.
    pub(super) wrong: Vec<String>,
}

/// What the ledger says of it, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) edge: u64,
    pub(super) peers: u64,
    /// Delivered by peers, and not agreed on.
    pub(super) gap: u64,
    /// Open credit of the introductions that were cut.
    pub(super) bound: u64,
}

impl<R: Start> Books<R> {
    /// Holds a download against the ledger as it is now.
    pub(super) fn hold(&self, outcome: &mut Outcome) -> Result<(), Error> {
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
            Some(usage) => outcome.judge(&usage, &claims),
            None => outcome.wrong.push("the ledger does not know it".into()),
        }
        Ok(())
    }
}

/// What an uploader may have sent over an introduction without a receipt: its credit, and one request beyond.
fn open_credit(claims: &Claims) -> u64 {
    CreditRule::PROTOCOL.credit(claims.receipted).saturating_add(CREDIT_FIRST)
}

impl Outcome {
    fn judge(&mut self, usage: &DownloadUsage, claims: &BTreeMap<IntroId, Claims>) {
        let downloader_cut = self.killed.contains(&Victim::Downloader);
        let mut held = Held { edge: usage.edge_unique, peers: usage.peers_billed, gap: 0, bound: 0 };
        let mut wrong = Vec::new();
        for (intro, c) in claims {
            let gap = c.received.saturating_sub(c.agreed);
            // an uploader that was killed before its first receipt is not even named
            let by_uploader = c.uploader.map_or(!self.cut.is_empty(), |guid| self.cut.contains(&guid.to_string()));
            let bound = if downloader_cut || by_uploader { open_credit(c) } else { 0 };
            if gap > bound {
                wrong.push(format!("{gap} bytes of introduction {intro} are not billed, {bound} may be"));
            }
            held.gap = held.gap.saturating_add(gap);
            held.bound = held.bound.saturating_add(bound.min(c.received));
        }
        let total = held.edge.saturating_add(held.peers);
        let mut must = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        must(self.matches, "the file is not what was published".into());
        must(usage.state == "completed", format!("it is complete, in the ledger {}", usage.state));
        let counted = self.edge_bytes.saturating_add(self.peer_bytes);
        must(counted == self.size, format!("its client counts {counted} of {} bytes", self.size));
        must(total <= self.size, format!("{total} bytes are billed where {} were delivered", self.size));
        must(held.peers <= self.peer_bytes, format!("{} peer bytes are billed, {} came", held.peers, self.peer_bytes));
        let least = self.size.saturating_sub(held.bound);
        must(total >= least, format!("{total} bytes are billed where {least} must be"));
        must(held.edge >= self.edge_bytes, format!("the edge has recorded {} of {} bytes", held.edge, self.edge_bytes));
        (self.held, self.wrong) = (held, wrong);
    }

    fn billed(&self) -> u64 {
        self.held.edge.saturating_add(self.held.peers)
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
            self.held.edge,
            self.edge_bytes,
            self.held.peers,
            self.peer_bytes,
            self.held.gap,
            self.held.bound,
        )?;
        self.wrong.iter().try_for_each(|w| write!(f, "; WRONG: {w}"))
    }
}

/// All rounds of a run.
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

    /// Late records count too.
    pub(super) fn read_again<R: Start>(&mut self, books: &Books<R>) -> Result<(), Error> {
        self.outcomes.iter_mut().try_for_each(|outcome| books.hold(outcome))
    }

    pub(super) fn wrong(&self) -> impl Iterator<Item = String> + '_ {
        self.outcomes.iter().flat_map(|o| o.wrong.iter().map(move |w| format!("round {}: {w}", o.number)))
    }

    /// Delivered, billed, gap, bound, by what was killed; the sum last.
    fn rows(&self) -> Vec<(String, [u64; 7])> {
        let mut rows: BTreeMap<String, [u64; 7]> = BTreeMap::new();
        let mut all = [0; 7];
        for o in &self.outcomes {
            let figures =
                [o.killed.len() as u64, 1, o.size, o.billed(), o.held.gap, o.held.bound, o.wrong.len() as u64];
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
