//! Rules of the [world of an edge's records](super).

use super::{Cfg, Delivery, EDGE, LEDGER, PART, SIZE, client, version};
use crate::rule::{Rule, settles};
use crate::sim::keys;
use crate::world::World;
use std::collections::BTreeSet;
use swarmedge_core::accounting::logs::unsigned;
use swarmedge_core::accounting::settlement::{Bill, Book};
use swarmedge_core::ids::{Guid, IntroId, PublicKey, RecordId};
use swarmedge_core::wire::records::{
    Grant, GrantRecord, LedgerRecord, PeerBytes, Receipt, ReceiptProof, Side, SigningContext, UsageRecord, UsageState,
};
use swarmedge_core::wire::{List, Wire as _};

type W = World<Delivery>;

fn all_up(w: &W) -> bool {
    w.node(EDGE).is_some() && w.node(LEDGER).is_some()
}

/// Returns whether the edge's spool is empty and the ledger has every record that was ever durable in it.
fn all_is_delivered(w: &W) -> bool {
    w.is_quiet() && w.env.spool.records.is_empty() && w.env.spooled.iter().all(|id| w.env.database.contains_key(id))
}

/// Key of an accomplice of the client: an uploader that claims to have sent it the whole object.
const UPLOADER: PublicKey = PublicKey([0xee; 32]);

/// Returns a usage record of the download's downloader or uploader, which claims these bytes from edges and from the
/// peer.
fn told(grant: &Grant, side: Side, edge_bytes: u64, peers: u64) -> LedgerRecord {
    let intro = IntroId::numbered(1);
    let (download, version) = (grant.download, version());
    let receipt = Receipt { intro, download, version, uploader_key: UPLOADER, seq: 1, bytes: peers };
    let signature = keys::sign(&grant.download_key, SigningContext::Receipt, &receipt.to_bytes());
    let proof = ReceiptProof { uploader_key: UPLOADER, seq: 1, bytes: peers, signature };
    let (n, reporter, receipt) = match side {
        Side::Downloader => (1, Guid::of(&client()), None),
        Side::Uploader => (2, Guid::numbered(0xee), Some(proof)),
    };
    LedgerRecord::Usage(unsigned(UsageRecord {
        id: RecordId::numbered(n),
        reporter,
        side,
        download,
        version,
        seq: 1,
        state: UsageState::Completed,
        edge_bytes,
        peers: List::truncated([PeerBytes { intro, key: UPLOADER, bytes: peers, receipt }]),
        elapsed_ms: 1,
        cause: None,
    }))
}

/// Returns the ledger's bill of a download. The downloader claims `edge_bytes` from edges, and together with its
/// accomplice `peers` bytes from peers.
fn bill(w: &W, grant: &Grant, edge_bytes: u64, peers: u64) -> Bill {
    let of_it = w.env.database.values().filter(|r| r.download() == Some(grant.download)).cloned();
    let mut book: Book = of_it.collect();
    if !grant.is_edge_only() && peers > 0 {
        book.add(LedgerRecord::Granted(GrantRecord::of(grant)), 0);
    }
    [Side::Downloader, Side::Uploader].into_iter().for_each(|side| book.add(told(grant, side, edge_bytes, peers), 0));
    book.bill(keys::verify, 0)
}

/// Returns the client's downloads, each by its first grant in time.
fn downloads(w: &W) -> impl Iterator<Item = &Grant> {
    let all = &w.env.granted;
    let is_first = |(n, grant): &(usize, &Grant)| !all[..*n].iter().any(|g| g.download == grant.download);
    all.iter().enumerate().filter(is_first).map(|(_, grant)| grant)
}

/// Returns the bytes that the edge sent under a download; if `counted`, only those that it counts.
fn sent(w: &W, grant: &Grant, counted: bool) -> u64 {
    let of_it = |n: usize| w.env.granted.get(n).is_some_and(|g| g.download == grant.download);
    PART * w.env.sent.values().filter(|(n, c)| of_it(*n) && (*c || !counted)).count() as u64
}

/// Returns whether the ledger bills exactly the bytes that the edge sent and counted.
fn bills_what_was_sent(w: &W) -> bool {
    downloads(w).all(|grant| bill(w, grant, sent(w, grant, true), 0).edge_unique == sent(w, grant, true))
}

/// Returns whether the billed edge bytes are the same whether the downloader claims none, all, or impossibly many.
fn nobody_asks_the_downloader(w: &W) -> bool {
    let same = |grant: &Grant, claim| bill(w, grant, claim, 0).edge_unique == sent(w, grant, true);
    downloads(w).all(|grant| [0, SIZE, u64::MAX].into_iter().all(|claim| same(grant, claim)))
}

/// Returns whether no peer is paid for bytes that the edge has sent, whatever downloader and uploader claim.
fn nobody_is_paid_twice(w: &W) -> bool {
    downloads(w).all(|grant| {
        let peers = bill(w, grant, 0, SIZE).peers_billed;
        peers + sent(w, grant, false) <= SIZE && (peers == 0 || !grant.is_edge_only())
    })
}

/// Rules of the models of an edge's records, checked in their reachable states.
pub const RULES: &[Rule<Delivery>] = &[
    Rule::always("bytes are counted only under a grant that spool or ledger has a record of", |_, w| !w.env.unrecorded),
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
    Rule::always("bytes are given away only under grants without peers", |_, w| !w.env.gave_beside_peers),
    Rule::always("left alone, no peer is paid for what an edge that has not crashed sent", |cfg: &Cfg, w| {
        let asked = w.env.edge_crashed || !all_up(w);
        asked || settles(cfg, w, 300, |w| all_is_delivered(w) && nobody_is_paid_twice(w))
    }),
    Rule::sometimes("where the spool refuses, bytes are given away", |cfg: &Cfg, w| {
        cfg.budget.drops == 0 || w.env.sent.values().any(|(_, counted)| !counted)
    }),
    Rule::sometimes("and counted again when it writes", |cfg: &Cfg, w| {
        cfg.budget.drops == 0 || w.env.sent.get(&0).is_some_and(|p| !p.1) && w.env.sent.get(&1).is_some_and(|p| p.1)
    }),
    Rule::sometimes("all is delivered after crashes", |cfg: &Cfg, w| {
        cfg.budget.crashes > 0 && w.budget.crashes == 0 && w.env.sent.len() == 2 && all_is_delivered(w)
    }),
    Rule::sometimes("a crash leaves something unsure", |_, w| {
        w.env.database.values().any(|r| matches!(r, LedgerRecord::Served(r) if r.unsure_bytes > 0))
    }),
];
