//! Rules of the [world of receipts](super): the ledger bills neither too much nor too little.

use super::books::{self, Filing, INVENTED, Settled};
use super::names::{bytes, conn, download_key, intro_id, uploader};
use super::{Cfg, DOWNLOADER, Facts, Mutant, PIECE, PIECES, SIZE, Swarm};
use crate::rule::Rule;
use crate::sim::keys;
use crate::world::{NodeIx, World};
use std::collections::BTreeMap;
use swarmedge_core::accounting::logs;
use swarmedge_core::ids::{Guid, IntroId};
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::records::{Head, SignedHead, SigningContext};

type W = World<Swarm>;

fn of(bytes: &BTreeMap<IntroId, u64>, intro: &IntroId) -> u64 {
    bytes.get(intro).copied().unwrap_or(0)
}

impl Facts {
    /// Returns the most bytes that the downloader has signed for an introduction.
    fn signed_for(&self, intro: &IntroId) -> u64 {
        self.signed.iter().filter(|(i, _, _)| i == intro).map(|(_, _, bytes)| *bytes).max().unwrap_or(0)
    }

    /// Returns the bytes on the downloader's disk that came over an introduction.
    fn journalled(&self, intro: &IntroId) -> u64 {
        self.journal.iter().filter(|(_, from)| from.as_ref() == Some(intro)).map(|(piece, _)| bytes(*piece)).sum()
    }

    /// Returns every set of records in which at most one side lies, with the downloader's record and without it.
    fn lies(&self) -> Vec<Filing> {
        let honest = Filing::honest(self);
        let mut told = honest.lies_of_uploaders(self);
        told.push(honest.clone());
        let silent: Vec<_> = told.iter().cloned().map(Filing::silent).collect();
        told.into_iter().chain(silent).chain(honest.lies_of_the_downloader()).collect()
    }
}

fn never_more_than_delivered(mutant: Option<Mutant>, facts: &Facts) -> bool {
    facts.lies().iter().all(|filing| {
        let settled = filing.settle(mutant, facts);
        settled.agreed.iter().all(|(intro, bytes)| *bytes <= of(&facts.delivered, intro))
    })
}

fn never_more_than_the_size(mutant: Option<Mutant>, facts: &Facts) -> bool {
    let honest = Filing::honest(facts);
    let both = honest.collusion(intro_id(1, 1));
    [both, honest].iter().map(|f| f.settle(mutant, facts)).all(|s| s.billed + s.edge <= SIZE)
}

fn nothing_without_introduction(mutant: Option<Mutant>, facts: &Facts) -> bool {
    Filing::honest(facts).collusion(IntroId::numbered(INVENTED)).settle(mutant, facts).billed == 0
}

fn only_what_was_signed_for_it(mutant: Option<Mutant>, facts: &Facts) -> bool {
    let honest = Filing::honest(facts);
    let fits = |s: &Settled| s.receipted.iter().all(|(intro, bytes)| *bytes <= facts.signed_for(intro));
    let mut told = honest.lies_of_uploaders(facts);
    told.push(honest.clone());
    told.iter().all(|f| fits(&f.settle(mutant, facts)))
        && honest.elsewhere().iter().all(|f| f.settle(mutant, facts).receipted.values().all(|b| *b == 0))
}

fn order_changes_nothing(mutant: Option<Mutant>, facts: &Facts) -> bool {
    let honest = Filing::honest(facts);
    let records = honest.records(facts);
    if books::settle_repeated(mutant, &records, &honest.older(facts)) != books::settle(mutant, &records, 0) {
        return false;
    }
    // records after the close, on which both sides agree
    let late = honest.collusion(intro_id(1, 1)).records(facts);
    let [before, after] = books::settle_late(mutant, &records, &late);
    before == after
}

/// Returns whether the ledger counts every receipt that an uploader has, even if the downloader sends no record.
fn silence_denies_nothing(mutant: Option<Mutant>, facts: &Facts) -> bool {
    let settled = Filing::honest(facts).silent().settle(mutant, facts);
    facts.got.iter().all(|(intro, proof)| of(&settled.agreed, intro) == proof.bytes)
}

/// Returns whether quarantine of a client voids exactly its later claims, so that its earlier claims and all bytes
/// that edges sent to it still count.
fn quarantine_is_unbilled(mutant: Option<Mutant>, facts: &Facts) -> bool {
    let honest = Filing::honest(facts);
    let (records, later) = (honest.records(facts), honest.collusion(intro_id(1, 1)).records(facts));
    let without = books::settle(mutant, &records, 0);
    (0..=2).all(|who| {
        let guid = Guid::numbered(who);
        let concerns = |intro: &IntroId| {
            who == u32::from(DOWNLOADER) || uploader(conn(*intro)) == NodeIx::try_from(who).unwrap_or(0)
        };
        let always = books::settle_quarantined(mutant, (guid, 0), &records, &[]);
        let nothing = always.agreed.iter().all(|(intro, bytes)| !concerns(intro) || *bytes == 0);
        let before = books::settle_quarantined(mutant, (guid, 1), &records, &[]);
        let lied = books::settle_quarantined(mutant, (guid, 1), &records, &later);
        // a downloader in quarantine now claims more, and its accomplice has the receipt
        let no_more = |(intro, bytes): (&IntroId, &u64)| *bytes <= of(&facts.delivered, intro);
        let no_more = who != u32::from(DOWNLOADER) || lied.agreed.iter().all(no_more);
        nothing && before == without && always.edge == without.edge && no_more
    })
}

fn credit_is_kept(cfg: &Cfg, w: &W) -> bool {
    w.env.sent.iter().all(|(intro, sent)| {
        let kept = w.env.kept.get(intro).map_or(0, |p| p.bytes);
        sent.saturating_sub(kept + kept / 8) < cfg.credit.credit(kept) + PIECE
    })
}

/// Returns whether the bytes on the downloader's disk that are not billed are at most the credit of each
/// introduction.
fn a_cut_costs_no_more_than_the_credit(cfg: &Cfg, facts: &Facts) -> bool {
    let agreed = Filing::honest(facts).settle(cfg.mutant, facts).agreed;
    facts.delivered.keys().all(|intro| {
        let lost = facts.journalled(intro).saturating_sub(of(&agreed, intro));
        lost < cfg.credit.credit(of(&agreed, intro)) + PIECE
    })
}

fn nothing_is_signed_twice(w: &W) -> bool {
    let receipts = &w.env.facts.signed;
    let twice = receipts.iter().zip(receipts.iter().skip(1)).any(|(a, b)| (a.0, a.1) == (b.0, b.1));
    let key = download_key();
    let signed = |head: &Head| {
        let signature = keys::sign(&key, SigningContext::LogHead, &head.to_bytes());
        SignedHead { head: head.clone(), key, signature }
    };
    !twice && logs::forks(keys::verify, w.env.heads.iter().map(signed)).is_empty()
}

/// Returns whether the bytes of every introduction whose connection ended in an orderly way are billed, except those
/// that an edge has sent too. True while anything is pending.
fn orderly_ends_leave_nothing_unbilled(cfg: &Cfg, w: &W) -> bool {
    let facts = &w.env.facts;
    let ended = |intro: &IntroId| !w.env.cut.contains(intro) && !w.env.connected.values().any(|i| i == intro);
    let mut over = facts.delivered.iter().filter(|(intro, _)| ended(intro)).peekable();
    if over.peek().is_none() || !w.is_quiet() {
        return true;
    }
    let settled = Filing::honest(facts).settle(cfg.mutant, facts);
    let all: u64 = settled.agreed.values().sum();
    over.all(|(intro, bytes)| of(&settled.agreed, intro) == *bytes) && settled.billed == all.min(SIZE - settled.edge)
}

fn all_is_billed(cfg: &Cfg, w: &W) -> bool {
    let facts = &w.env.facts;
    facts.journal.len() == PIECES as usize && w.is_quiet() && {
        let s = Filing::honest(facts).settle(cfg.mutant, facts);
        s.billed + s.edge == SIZE && s.agreed.values().filter(|b| **b > 0).count() == 2
    }
}

/// Answers a question about bills by `check` or from the cache; true while there is nothing to bill or to lie about.
fn ask(cfg: &Cfg, w: &W, rule: &'static str, check: impl Fn(&Facts) -> bool) -> bool {
    let facts = &w.env.facts;
    (facts.got.is_empty() && facts.journal.is_empty()) || (cfg.answer)(rule, cfg.mutant, facts, &|| check(facts))
}

/// Rules of the models of receipts, checked in their reachable states.
pub const RULES: &[Rule<Swarm>] = &[
    Rule::always("whatever one side files, no introduction counts for more than came first over it", |c, w| {
        ask(c, w, "delivered", |f| never_more_than_delivered(c.mutant, f))
    }),
    Rule::always("bill and edges' bytes together are never more than the size, whatever is filed", |c, w| {
        ask(c, w, "size", |f| never_more_than_the_size(c.mutant, f))
    }),
    Rule::always("an introduction that no CN has recorded is never billed, whoever signs", |c, w| {
        ask(c, w, "introduced", |f| nothing_without_introduction(c.mutant, f))
    }),
    Rule::always("a receipt counts for the introduction, download, version and key it was signed for", |c, w| {
        ask(c, w, "signed", |f| only_what_was_signed_for_it(c.mutant, f))
    }),
    Rule::always("records that come twice, in another order or after the close change no bill", |c, w| {
        ask(c, w, "order", |f| order_changes_nothing(c.mutant, f))
    }),
    Rule::always("a downloader signs only for what it has verified, once", |_, w| {
        let facts = &w.env.facts;
        facts.signed.iter().all(|(intro, _, bytes)| *bytes <= of(&facts.delivered, intro))
    }),
    Rule::always("what is sent without a durable receipt stays within the credit and one request", credit_is_kept),
    Rule::always("what a cut costs an uploader stays within the credit and one request", |c, w| {
        ask(c, w, "cut", |f| a_cut_costs_no_more_than_the_credit(c, f))
    }),
    Rule::always("no crash makes anybody sign twice under one number", |_, w| nothing_is_signed_twice(w)),
    Rule::always(
        "what came over an introduction that ended in order is billed, whatever else crashed",
        orderly_ends_leave_nothing_unbilled,
    ),
    Rule::always("a downloader that falls silent owes what it has signed", |c, w| {
        ask(c, w, "silence", |f| silence_denies_nothing(c.mutant, f))
    }),
    Rule::always(
        "in quarantine nothing is billed of a client's word, and all that edges send it is counted",
        |c, w| ask(c, w, "quarantine", |f| quarantine_is_unbilled(c.mutant, f)),
    ),
    Rule::sometimes("two uploaders share the bill of all after the faults", |c: &Cfg, w: &W| {
        w.budget.crashes == 0 && w.budget.drops == 0 && all_is_billed(c, w)
    }),
];
