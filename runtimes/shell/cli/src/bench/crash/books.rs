//! Comparison of delivered and billed bytes for each download, and the result table of a whole run.

use super::Victim;
use super::compare::{Delivered, LedgerFigures};
use crate::Error;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use swarmedge_ground::rt::Start;
use swarmedge_ledger::Database;

/// Reader of the ledger's database.
pub(super) struct Books<R> {
    pub(super) database: Database,
    pub(super) runtime: PhantomData<R>,
}

/// Result of one round: what the client counted, and what the ledger holds.
pub(super) struct Outcome {
    pub(super) number: u32,
    pub(super) killed: Vec<Victim>,
    pub(super) delivered: Delivered,
    pub(super) in_ledger: LedgerFigures,
    /// Sentences about contradictions in the ledger; empty if it is right.
    pub(super) wrong: Vec<String>,
}

impl<R: Start> Books<R> {
    /// Compares a download with the present state of the ledger, and fills in `in_ledger` and `wrong`.
    pub(super) fn compare(&self, outcome: &mut Outcome) -> Result<(), Error> {
        (outcome.in_ledger, outcome.wrong) = outcome.delivered.compare::<R>(&self.database)?;
        Ok(())
    }
}

impl Outcome {
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
            self.delivered.edge_bytes,
            self.in_ledger.peers,
            self.delivered.peer_bytes,
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
                o.delivered.size,
                o.in_ledger.billed(),
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
