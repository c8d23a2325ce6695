//! One simulated download: the peers offered, the bytes that each delivered, the claims of each client, and the
//! ledger's bill.

use super::people::{Habit, Lie};
use super::{Defect, Logged, Month};
use crate::sim::keys::{sign, verify};
use std::collections::BTreeSet;
use swarmedge_core::Rng as _;
use swarmedge_core::accounting::detect::{Demand, Near};
use swarmedge_core::accounting::logs::unsigned;
use swarmedge_core::accounting::settlement::{Bill, Book};
use swarmedge_core::ids::{DownloadId, Guid, IntroId, ProviderId, PublicKey, RecordId, VersionId};
use swarmedge_core::wire::records::{
    EdgeRecord, GrantRecord, LedgerRecord, LogEvent, LogRecord, Offered, OfferedPeer, PeerBytes, Receipt, ReceiptProof,
    Side, SigningContext, UsageRecord, UsageState,
};
use swarmedge_core::wire::{List, Text, Wire as _};

/// Maximum number of peers that a DN offers for one query. `LOOKED_AT` is the number of clients with the object that
/// it examines for that.
const OFFERED: usize = 14;
const LOOKED_AT: u32 = 48;
/// Maximum number of queries that a member of a clique sends until other members are offered to it.
const ASKS_MAX: u32 = 6;
/// Maximum number of clients that a DN lists for one object.
const HOLDERS_MAX: usize = 3_000;

/// Bytes that one uploader delivered in one download, and the clients' claims about them.
struct Part {
    uploader: u32,
    intro: IntroId,
    key: PublicKey,
    delivered: u64,
    /// Bytes that the downloader claims to have received from this uploader.
    received: u64,
    /// Whether a CN made and recorded the introduction.
    introduced: bool,
}

impl Month {
    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    /// Returns a random object for a download: half of the downloads are of one hundredth of the objects.
    fn wish(&mut self) -> u32 {
        let all = self.cfg.objects;
        let most = match self.rng.below(4) {
            0 | 1 => (all / 100).max(1),
            2 => (all / 10).max(1),
            _ => all,
        };
        self.rng.below(most)
    }

    /// Plays a download of an honest client or a liar.
    pub(super) fn download(&mut self, day: u32) {
        let (who, object) = (self.rng.below(self.cfg.clients), self.wish());
        // a few clients fetch again what they have: a wiped disk, a second try
        let times = if self.rng.chance(1) { 3 } else { 1 };
        for _ in 0..times {
            self.once(who, object, day);
        }
        if self.people.uploads(who) {
            self.hold(object, who);
        }
    }

    fn once(&mut self, who: u32, object: u32, day: u32) {
        let offered = self.offer(object, who);
        let size = self.sizes[object as usize];
        // one download in twenty ends early; an inflating liar ends early to make room for its claim
        let inflates = self.people.habit(who) == Habit::Liar(Lie::Inflates);
        let wanted = if self.rng.chance(50) || inflates { size / 3 } else { size };
        let edge_share = match self.people.habit(who) {
            Habit::EdgeLast | Habit::Lan => 10 + self.rng.below(20),
            Habit::Plain | Habit::Fast | Habit::Liar(_) | Habit::Member => 150 + self.rng.below(300),
        };
        let used: Vec<u32> =
            offered.iter().copied().filter(|u| self.rng.chance(self.people.use_permille(who, *u))).collect();
        let from_peers = if used.is_empty() { 0 } else { wanted / 1_000 * u64::from(1_000 - edge_share) };
        let shares = self.shares(from_peers, who, &used);
        let mut parts = Vec::new();
        for (uploader, delivered) in used.iter().copied().zip(shares) {
            parts.push(self.part(uploader, delivered, delivered));
        }
        let by_peer: u64 = parts.iter().map(|p| p.delivered).sum();
        let lies = self.habits(who, &parts);
        let (download, edge, whole) = (self.id(), wanted - by_peer, wanted == size);
        self.settle(day, &Statement { download, who, object, size, edge, whole }, &parts, lies);
        self.log(who, &offered, &used, from_peers);
    }

    /// Plays a faked download of a clique's member, which queries until friends are offered, fetches nothing, and signs
    /// for the whole object.
    pub(super) fn fake(&mut self, who: u32, day: u32) {
        let friends = who / 5 * 5..who / 5 * 5 + 5;
        // an object with few holders makes friends likely to be offered
        let object = self.cfg.objects - 1 - self.rng.below(self.cfg.objects / 2);
        for friend in friends.clone() {
            if !self.holders[object as usize].contains(&friend) {
                self.hold(object, friend);
            }
        }
        let (mut offered, mut used) = (Vec::new(), Vec::new());
        for _ in 0..ASKS_MAX {
            let more: Vec<u32> = self.offer(object, who).into_iter().filter(|u| !offered.contains(u)).collect();
            used.extend(more.iter().copied().filter(|u| friends.contains(u)));
            offered.extend(more);
            if used.len() >= 2 {
                break;
            }
        }
        // the friends sign for the whole object, though an edge has sent the beginning
        let size = self.sizes[object as usize];
        let from_peers = if used.is_empty() { 0 } else { size };
        let shares = self.shares(from_peers, who, &used);
        let mut parts = Vec::new();
        for (uploader, claimed) in used.iter().copied().zip(shares) {
            parts.push(self.part(uploader, 0, claimed));
        }
        if let Some(friend) = friends.clone().find(|f| *f != who).filter(|_| used.is_empty()) {
            // friends that were never offered invent an introduction
            let part = self.part(friend, 0, size);
            parts.push(Part { introduced: false, ..part });
        }
        let (download, edge) = (self.id(), size / 50);
        self.settle(day, &Statement { download, who, object, size, edge, whole: true }, &parts, [None; 2]);
        self.log(who, &offered, &used, from_peers);
    }

    /// Returns the peers that a DN would offer, the nearest first: clients of the same office, and random others that
    /// have the object.
    fn offer(&mut self, object: u32, who: u32) -> Vec<u32> {
        let holders = &self.holders[object as usize];
        let mut seen = BTreeSet::new();
        let mates = self.people.colleagues(who).filter(|m| holders.contains(m));
        seen.extend(mates.map(|m| (Near::Address, m)));
        let few = u32::try_from(holders.len()).unwrap_or(u32::MAX);
        if few <= LOOKED_AT {
            seen.extend(holders.iter().map(|h| (self.people.near(who, *h), *h)));
        } else {
            for _ in 0..LOOKED_AT {
                let holder = holders[self.rng.below(few) as usize];
                seen.insert((self.people.near(who, holder), holder));
            }
        }
        seen.into_iter().map(|(_, h)| h).filter(|h| *h != who).take(OFFERED).collect()
    }

    fn hold(&mut self, object: u32, who: u32) {
        let holders = &mut self.holders[object as usize];
        if holders.len() < HOLDERS_MAX {
            holders.push(who);
        } else {
            let at = self.rng.below(u32::try_from(HOLDERS_MAX).unwrap_or(1)) as usize;
            holders[at] = who;
        }
    }

    /// Divides `bytes` among the uploaders in `used`, of which those at the downloader's address or in its network
    /// deliver most.
    fn shares(&mut self, bytes: u64, who: u32, used: &[u32]) -> Vec<u64> {
        let weight = |u: &u32| match self.people.near(who, *u) {
            Near::Address => 200,
            Near::Network => 6,
            Near::Country | Near::World => 2,
        };
        let mut weights: Vec<u64> = used.iter().map(weight).collect();
        weights.iter_mut().for_each(|w| *w += u64::from(self.rng.below(4)));
        let all: u64 = weights.iter().sum::<u64>().max(1);
        weights.into_iter().map(|w| bytes / all * w).collect()
    }

    fn part(&mut self, uploader: u32, delivered: u64, received: u64) -> Part {
        let n = self.id();
        let (intro, key) = (IntroId::numbered(n), PublicKey::numbered(uploader));
        Part { uploader, intro, key, delivered, received, introduced: true }
    }

    /// Returns how the downloader lies in this download, and how one of the uploaders does; `None` for each that is
    /// honest.
    fn habits(&self, who: u32, parts: &[Part]) -> [Option<Lie>; 2] {
        let lie = |n: u32| if let Habit::Liar(lie) = self.people.habit(n) { Some(lie) } else { None };
        [lie(who), parts.iter().find_map(|p| lie(p.uploader))]
    }

    fn log(&mut self, downloader: u32, offered: &[u32], used: &[u32], from_peers: u64) {
        let each = from_peers / (used.len() as u64).max(1);
        for &uploader in offered {
            let units = u32::try_from(each >> 16).unwrap_or(u32::MAX).max(1);
            let units = if used.contains(&uploader) { units } else { 0 };
            let near = self.people.near(downloader, uploader);
            self.offers.push(Logged { downloader, uploader, units, near });
        }
    }

    /// Settles the records of the downloader, the uploaders and the CN, and compares the bill with the bytes that
    /// were delivered.
    fn settle(&mut self, day: u32, at: &Statement, parts: &[Part], lies: [Option<Lie>; 2]) {
        let Statement { who, object, size, edge, whole, .. } = *at;
        let book = at.book(self, parts, lies);
        let bill = bill(self.cfg.defect, &book);
        let delivered: u64 = parts.iter().map(|p| p.delivered).sum();
        let fake = delivered == 0 && matches!(self.people.habit(who), Habit::Member) && lies == [None; 2];
        let out = &mut self.outcome;
        out.downloads += 1;
        out.lied += u64::from(lies != [None; 2]);
        out.edge_bytes += bill.edge_unique;
        out.delivered += delivered;
        out.billed += bill.peers_billed;
        out.flagged_bytes += bill.flagged;
        let uninvited: u64 = parts.iter().filter(|p| !p.introduced).map(|p| p.received).sum();
        out.uninvited += uninvited;
        if uninvited > 0 {
            out.uninvited_billed += bill.peers_billed;
        } else if fake {
            out.faked += bill.peers_billed;
            out.faked_above_ceiling += bill.peers_billed.saturating_sub(size - edge);
        } else {
            out.over_billed += bill.peers_billed.saturating_sub(delivered);
            if lies == [None; 2] {
                out.under_billed += delivered.saturating_sub(bill.peers_billed);
            }
        }
        if whole {
            self.demands.push(Demand { who, version: object, day });
        }
    }
}

/// Returns the ledger's bill, changed by the seeded defect.
fn bill(defect: Option<Defect>, book: &Book) -> Bill {
    let bill = book.bill(verify, 0);
    let peers_billed = match defect {
        // without the limit of the version's size less the edges' bytes
        Some(Defect::NoClamp) => bill.peers_agreed,
        Some(Defect::LargerClaim) => {
            let larger: u64 = book.claims(verify, 0).values().map(|c| c.received.max(c.receipted)).sum();
            larger.min(bill.size.saturating_sub(bill.edge_unique))
        }
        _ => bill.peers_billed,
    };
    Bill { peers_billed, ..bill }
}

/// Facts on which all records of a download are based.
struct Statement {
    download: u32,
    who: u32,
    object: u32,
    size: u64,
    edge: u64,
    whole: bool,
}

impl Statement {
    fn book(&self, month: &mut Month, parts: &[Part], [down, up]: [Option<Lie>; 2]) -> Book {
        let defect = month.cfg.defect;
        let mut book = if defect == Some(Defect::Lenient) { Book::default() } else { Book::strict() };
        book.add(LedgerRecord::Granted(self.grant(month.id())), 0);
        book.add(LedgerRecord::Edge(self.edge(month.id())), 0);
        book.add(LedgerRecord::Log(self.offered(month.id(), parts)), 0);
        for p in parts.iter().filter(|_| defect != Some(Defect::BillsNothing)) {
            let lie = up.filter(|_| matches!(month.people.habit(p.uploader), Habit::Liar(_)));
            let record = self.uploader(month.id(), p, lie);
            if lie == Some(Lie::Repeats) {
                let again = UsageRecord { id: RecordId::numbered(month.id()), seq: 2, ..record.clone() };
                book.add(LedgerRecord::Usage(unsigned(again)), 0);
            }
            book.add(LedgerRecord::Usage(unsigned(record)), 0);
        }
        let claim = |p: &Part| match down {
            Some(Lie::Inflates) => p.received * 2,
            Some(Lie::Deflates) => p.received / 2,
            Some(Lie::ForgesReceipts | Lie::Replays | Lie::Repeats) | None => p.received,
        };
        let bytes = |p: &Part| PeerBytes { intro: p.intro, key: p.key, bytes: claim(p), receipt: None };
        let mut peers: Vec<PeerBytes> = parts.iter().map(bytes).collect();
        if down == Some(Lie::Inflates) {
            let (intro, key) = (IntroId::numbered(month.id()), PublicKey::numbered(0));
            peers.push(PeerBytes { intro, key, bytes: self.size, receipt: None });
        }
        let state = if self.whole { UsageState::Completed } else { UsageState::Cancelled };
        let record = self.usage(month.id(), self.who, Side::Downloader, peers);
        book.add(LedgerRecord::Usage(unsigned(UsageRecord { edge_bytes: self.edge, state, ..record })), 0);
        book
    }

    fn key(&self) -> PublicKey {
        PublicKey::numbered(self.download | 1 << 31)
    }

    /// Returns the record of the download's grant.
    fn grant(&self, id: u32) -> GrantRecord {
        GrantRecord {
            id: RecordId::numbered(id),
            download: DownloadId::numbered(self.download),
            guid: Guid::numbered(self.who),
            download_key: self.key(),
            version: VersionId::numbered(self.object),
            size: self.size,
            provider: ProviderId(1),
            path: Text::default(),
            issued_ms: 0,
            max_peer_bytes: self.size,
            challenged: false,
            proof: None,
        }
    }

    /// Returns the CN's record of the introductions that it made for the download.
    fn offered(&self, id: u32, parts: &[Part]) -> LogRecord {
        let peers = parts.iter().filter(|p| p.introduced).map(|p| OfferedPeer { intro: p.intro, upload_key: p.key });
        let (download, version) = (DownloadId::numbered(self.download), VersionId::numbered(self.object));
        let event = LogEvent::Offered(Offered { download, version, peers: List::truncated(peers) });
        LogRecord { id: RecordId::numbered(id), at_ms: 0, guid: Guid::numbered(self.who), event }
    }

    /// Returns the edge's record of the bytes that it sent.
    fn edge(&self, id: u32) -> EdgeRecord {
        EdgeRecord {
            id: RecordId::numbered(id),
            edge: PublicKey::numbered(1),
            download: Some(DownloadId::numbered(self.download)),
            guid: Some(Guid::numbered(self.who)),
            version: VersionId::numbered(self.object),
            provider: ProviderId(1),
            seq: 1,
            unique_bytes: self.edge,
            total_bytes: self.edge,
        }
    }

    /// Returns a usage record of the downloader or of an uploader.
    fn usage(&self, id: u32, reporter: u32, side: Side, peers: Vec<PeerBytes>) -> UsageRecord {
        UsageRecord {
            id: RecordId::numbered(id),
            reporter: Guid::numbered(reporter),
            side,
            download: DownloadId::numbered(self.download),
            version: VersionId::numbered(self.object),
            seq: 1,
            state: UsageState::Running,
            edge_bytes: 0,
            peers: List::truncated(peers),
            elapsed_ms: 1,
            cause: None,
        }
    }

    /// Returns an uploader's usage record with the downloader's receipt, changed by the uploader's lie if any.
    fn uploader(&self, id: u32, p: &Part, lie: Option<Lie>) -> UsageRecord {
        let signed_for = if p.delivered > 0 { p.delivered } else { p.received };
        let download = DownloadId::numbered(if lie == Some(Lie::Replays) { self.download - 1 } else { self.download });
        let version = VersionId::numbered(self.object);
        let receipt = Receipt { intro: p.intro, download, version, uploader_key: p.key, seq: 1, bytes: signed_for };
        let signature = sign(&self.key(), SigningContext::Receipt, &receipt.to_bytes());
        let bytes = if lie == Some(Lie::ForgesReceipts) { signed_for * 2 } else { signed_for };
        let proof = ReceiptProof { uploader_key: p.key, seq: 1, bytes, signature };
        let peers = [PeerBytes { intro: p.intro, key: p.key, bytes, receipt: Some(proof) }];
        self.usage(id, p.uploader, Side::Uploader, peers.into())
    }
}
