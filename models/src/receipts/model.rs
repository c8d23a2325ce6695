//! Models of receipts: a downloader, its uploaders and the ledger's billing rules together.

use crate::check::{Spec, Tooth};
use crate::receipts::{Cfg, Facts, Mutant, RULES, Swarm, world};
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    /// Cached answers to questions about bills. A bill depends on few facts of a world, so each question is answered
    /// once per thread and check.
    static ANSWERS: RefCell<HashMap<Question, bool>> = RefCell::default();
}

/// Key of the cache: rule, defect and facts (for [`Answer`](swarmedge_core::testing::receipts_world::Answer)).
type Question = (&'static str, Option<Mutant>, Facts);

fn answer(rule: &'static str, mutant: Option<Mutant>, facts: &Facts, ask: &dyn Fn() -> bool) -> bool {
    let question = (rule, mutant, facts.clone());
    let known = ANSWERS.with_borrow(|all| all.get(&question).copied());
    known.unwrap_or_else(|| {
        let answer = ask();
        ANSWERS.with_borrow_mut(|all| all.insert(question, answer));
        answer
    })
}

fn repeating(mutant: Option<Mutant>) -> Cfg {
    Cfg { answer, ..Cfg::repeating(mutant) }
}

fn crashing(mutant: Option<Mutant>) -> Cfg {
    Cfg { answer, ..Cfg::crashing(mutant) }
}

/// Returns the model in which connections break, pieces arrive twice and timers fire.
pub fn repeats() -> Spec<Swarm> {
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: repeating(Some(mutant)) };
    Spec {
        name: "receipts",
        about: "1 downloader of 2 pieces, 2 uploaders, an edge, the ledger and every lie of one side; 1 broken \
                connection, 1 piece from the edge too, 1 timer",
        cfg: repeating(None),
        start: world,
        rules: RULES,
        teeth: vec![
            tooth("the ledger takes receipts unchecked", 0, Mutant::LedgerTrusts),
            tooth("each receipt is billed, not the highest", 0, Mutant::SumsReceipts),
            tooth("the larger claim is billed", 0, Mutant::LargerClaim),
            tooth("bytes that edges sent are billed again as bytes from peers", 1, Mutant::NoClamp),
            tooth("introductions are billed that no CN has recorded", 2, Mutant::LedgerIsLenient),
            tooth("a receipt's signature does not cover its uploader", 3, Mutant::CoversNoUploader),
            tooth("a receipt's signature does not cover its version", 3, Mutant::CoversNoVersion),
            tooth("a receipt's signature does not cover its download", 3, Mutant::CoversNoDownload),
            tooth("what comes after the close counts", 4, Mutant::NeverCloses),
            tooth("the last record counts, not the newest", 4, Mutant::LastCounts),
            tooth("what comes twice is receipted twice", 5, Mutant::DuplicatesCount),
            tooth("a piece is receipted when it is asked for", 5, Mutant::UnverifiedCounts),
            tooth("connections end without the last receipt", 9, Mutant::PartsAtOnce),
            tooth("what one uploader sent is receipted to the other", 9, Mutant::WrongUploader),
            tooth("a downloader that falls silent owes nothing", 10, Mutant::SilenceDenies),
            tooth("who is in quarantine is billed as before", 11, Mutant::QuarantineIsIgnored),
            tooth("quarantine takes back what was said before", 11, Mutant::QuarantineTakesBack),
            tooth("what edges send in quarantine is not counted", 11, Mutant::QuarantineHidesEdges),
        ],
    }
}

/// Returns the model with a crash between any two writes.
pub fn crashes() -> Spec<Swarm> {
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: crashing(Some(mutant)) };
    Spec {
        name: "receipts-crash",
        about: "the same with 1 crash between any two writes and a new introduction after it",
        cfg: crashing(None),
        start: world,
        rules: RULES,
        teeth: vec![
            tooth("credit grows before the receipt is durable", 6, Mutant::CreditBeforeDisk),
            tooth("receipts are not kept, and cost more than the credit", 7, Mutant::ReceiptsAreLost),
            tooth("after a crash a downloader shows its old introduction", 8, Mutant::OldIntroduction),
            tooth("after a crash a downloader goes on in its old log", 8, Mutant::OldLog),
            tooth("receipts are not kept", 9, Mutant::ReceiptsAreLost),
        ],
    }
}
