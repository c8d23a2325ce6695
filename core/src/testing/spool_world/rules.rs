//! What must hold of the [world of an edge's records](super).

use super::{Cfg, Delivery, EDGE, LEDGER, PART, SIZE, client, version};
use crate::accounting::settlement::{Bill, Book};
use crate::ids::{DownloadId, Guid, RecordId};
use crate::testing::rule::{Rule, settles};
use crate::testing::sim::keys;
use crate::testing::world::World;
use crate::wire::List;
use crate::wire::records::{LedgerRecord, Side, UsageRecord, UsageState};
use alloc::collections::BTreeSet;

type W = World<Delivery>;

fn all_up(w: &W) -> bool {
    w.node(EDGE).is_some() && w.node(LEDGER).is_some()
}

/// Nothing waits in the spool, and nothing that the edge has counted is unknown to the ledger.
fn all_is_delivered(w: &W) -> bool {
    w.is_quiet() && w.env.spool.records.is_empty() && w.env.spooled.iter().all(|id| w.env.database.contains_key(id))
}

/// What the ledger bills, if the downloader says that it got so many bytes of edges.
fn bill(w: &W, download: DownloadId, edge_bytes: u64) -> Bill {
    let told = UsageRecord {
        id: RecordId::numbered(1),
        reporter: Guid::of(&client()),
        side: Side::Downloader,
        download,
        version: version(),
        seq: 1,
        state: UsageState::Completed,
        edge_bytes,
        peers: List::default(),
        elapsed_ms: 1,
        cause: None,
    };
    let book: Book = w.env.database.values().cloned().chain([LedgerRecord::Usage(told)]).collect();
    book.bill(keys::verify, 0)
}

/// What the ledger bills of the edge is what it sent, by the downloader's word where a crash has lost count.
fn bills_what_was_sent(w: &W) -> bool {
    let Some(granted) = w.env.granted else { return true };
    let sent = PART * w.env.sent.len() as u64;
    bill(w, granted.download, sent).edge_unique == sent
}

/// Whether the bill is the same whether the downloader says that it got nothing or everything.
fn nobody_asks_the_downloader(w: &W) -> bool {
    let Some(granted) = w.env.granted else { return true };
    [0, SIZE, u64::MAX]
        .into_iter()
        .all(|claim| bill(w, granted.download, claim).edge_unique == PART * w.env.sent.len() as u64)
}

/// What must hold of it.
pub const RULES: &[Rule<Delivery>] = &[
    Rule::always("a grant is handed out only if spool or ledger has its record", |_, w| !w.env.granted_unrecorded),
    Rule::always("what the spool has taken it keeps until the ledger has it", |_, w| {
        let env = &w.env;
        env.spooled.iter().all(|id| env.spool.records.contains_key(id) || env.database.contains_key(id))
    }),
    Rule::always("the ledger has no record twice", |_, w| {
        let mut seen = BTreeSet::new();
        let mut is_first = |r: &LedgerRecord| {
            if let LedgerRecord::Served(r) = r { seen.insert((r.life, r.seq)) } else { true }
        };
        w.env.database.values().all(&mut is_first)
    }),
    Rule::always("left alone, all records come to the ledger and leave the spool", |cfg, w| {
        !all_up(w) || settles(cfg, w, 300, all_is_delivered)
    }),
    Rule::always("left alone, the ledger bills what was sent, whatever crashed", |cfg: &Cfg, w| {
        !all_up(w) || settles(cfg, w, 300, |w| all_is_delivered(w) && bills_what_was_sent(w))
    }),
    Rule::always("left alone, no word of the downloader moves the bill of an edge that has not crashed", |cfg, w| {
        let asked = w.env.edge_crashed || !all_up(w);
        asked || settles(cfg, w, 300, |w| all_is_delivered(w) && nobody_asks_the_downloader(w))
    }),
    Rule::sometimes("all is delivered after crashes", |cfg: &Cfg, w| {
        cfg.budget.crashes > 0 && w.budget.crashes == 0 && w.env.sent.len() == 2 && all_is_delivered(w)
    }),
    Rule::sometimes("a crash leaves something unsure", |_, w| {
        w.env.database.values().any(|r| matches!(r, LedgerRecord::Served(r) if r.unsure_bytes > 0))
    }),
];
