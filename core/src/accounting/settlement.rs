//! What the records of a download come to: what its provider is told and billed.
//!
//! An uploader's claim is the highest receipt it holds, a downloader's what it reports itself; of each introduction the
//! smaller claim is billed. So neither side alone can raise a bill, and both together not beyond the version's size nor
//! the first grant's ceiling; in a ledger's books ([`Book::strict`]) not without a CN either, which has recorded that
//! it introduced them.
//!
//! Of a client in quarantine counts what it said before ([`Quarantines`]): bytes that it reports later, as either side,
//! are not billed; nor are introductions that were made meanwhile, whenever it reports them.
//!
//! A download closes [`LATE_MS`] after the downloader's last word (that it is complete, cancelled or failed), or
//! [`EXPIRES_MS`] after its first record if that word never comes. What clients say later changes nothing. What edges
//! have sent counts until it expires, since no client's word may make an edge's bytes free.

use super::quarantine::Quarantines;
use super::{Spans, receipts};
use crate::ids::{Guid, IntroId, PublicKey};
use crate::wire::records::{
    EdgeRecord, GrantRecord, LedgerRecord, LogEvent, PeerBytes, Receipt, ReceiptProof, ServedRecord, Side, UsageRecord,
    UsageState, Verify,
};
use alloc::collections::BTreeMap;

/// Records that come so long after a downloader's last word still count, in milliseconds: an uploader that was switched
/// off in the meantime reports at its next start.
pub const LATE_MS: u64 = 24 * 3600 * 1000;
/// A download without a last word closes so long after its first record, in milliseconds.
pub const EXPIRES_MS: u64 = 30 * 24 * 3600 * 1000;

/// How far the settlement of a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Settlement {
    /// Records still count.
    Open,
    /// It had its last word, and the time for late records is over: the bill is final.
    Closed,
    /// It never had a last word. What it signed for is its word; the bill is final.
    Expired,
}

/// The records of one download, each reporter's newest, taken in in the order in which they were received. Within the
/// time before it closes, order and repetition of records make no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Book {
    /// When the first record was received, Unix milliseconds.
    first_ms: Option<u64>,
    /// When the last words of those who say that they are the downloader were received: of who has since said that it
    /// goes on there is none.
    ended_ms: BTreeMap<Guid, u64>,
    /// Records that came too late.
    late: u32,
    granted: Option<GrantRecord>,
    /// Of all who say that they are; who is, the grant says.
    downloaders: BTreeMap<Guid, UsageRecord>,
    uploaders: BTreeMap<Guid, UsageRecord>,
    edges: BTreeMap<PublicKey, EdgeRecord>,
    /// By edge and its life.
    served: BTreeMap<(PublicKey, u64), ServedRecord>,
    /// K_u by introduction, as CNs have recorded them, and when that came; `None`: they are not asked for.
    introduced: Option<BTreeMap<IntroId, (PublicKey, u64)>>,
    quarantines: Quarantines,
    /// The newest records that came before the quarantines of their reporters began, by who, when, and whether it is
    /// the downloader.
    before: BTreeMap<(Guid, u64, bool), UsageRecord>,
}

/// What a download came to, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bill {
    /// Size of the version; 0 while the first grant's record is missing.
    pub size: u64,
    /// The most that peers may be billed for, as the first grant says; 0 while its record is missing.
    pub max_peer_bytes: u64,
    /// Sent by edges, each byte counted once whichever edges sent it.
    pub edge_unique: u64,
    /// Sent by edges, repetitions included.
    pub edge_total: u64,
    /// From edges, as the downloader says.
    pub edge_claimed: u64,
    /// From peers, as the downloader says.
    pub peers_received: u64,
    /// To the downloader, as uploaders say.
    pub peers_sent: u64,
    /// From peers, as the downloader has signed for: the highest receipt of each introduction.
    pub peers_receipted: u64,
    /// From peers, as both say: of each introduction the smaller of receipt and downloader's claim.
    pub peers_agreed: u64,
    /// From peers, billed: what both say, at most what edges cannot have delivered, and at most the grant's ceiling.
    pub peers_billed: u64,
    /// Of these, whose bytes they were; they add up to it.
    pub shares: BTreeMap<Guid, u64>,
    /// Claimed by either side and not billed: no counterpart, more than the counterpart says, or more than there is
    /// room for. Shown, never billed.
    pub flagged: u64,
    /// How far the downloader says it is.
    pub state: Option<UsageState>,
    /// How long the downloader says it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// What is claimed of one introduction, in bytes. What counts is part of what is claimed: a client that says less after
/// its quarantine than before it has still claimed what it said before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claims {
    /// Claimed by the downloader.
    pub received: u64,
    /// The part of `received` that counts.
    said: u64,
    /// The uploader's key, as the downloader names it.
    uploader_key: Option<PublicKey>,
    /// Claimed by uploaders, receipted or not.
    pub sent: u64,
    /// The highest receipt that an uploader has filed.
    pub receipted: u64,
    /// The highest receipt that counts: at most `receipted`.
    proven: u64,
    /// The bytes that count: the smaller of receipt and downloader's claim.
    pub agreed: u64,
    /// The uploader with the highest receipt, or else the first to claim.
    pub uploader: Option<Guid>,
}

fn newer<T>(old: Option<&T>, new: &T, seq: impl Fn(&T) -> u32) -> bool {
    old.is_none_or(|old| seq(old) < seq(new))
}

impl Book {
    /// A book in which only introductions count that a CN has recorded.
    #[must_use]
    pub fn strict() -> Self {
        Self { introduced: Some(BTreeMap::new()), ..Self::default() }
    }

    /// In which clients were in quarantine; said before any record is added.
    #[must_use]
    pub fn with_quarantines(self, quarantines: Quarantines) -> Self {
        Self { quarantines, ..self }
    }

    /// Whether a receipt is of an introduction that a CN has made.
    fn is_introduced(&self, intro: IntroId, uploader_key: &PublicKey) -> bool {
        self.introduced.as_ref().is_none_or(|all| all.get(&intro).is_some_and(|(key, _)| key == uploader_key))
    }

    /// What counts of what a reporter says of an introduction: all of it, or what it had said before its quarantine.
    fn counted<'a>(&'a self, r: &UsageRecord, p: &'a PeerBytes) -> Option<&'a PeerBytes> {
        let Some(cut) = self.quarantines.cut(r.reporter, self.made_ms(p.intro)) else { return Some(p) };
        self.before.get(&(r.reporter, cut, r.side == Side::Downloader))?.peers.iter().find(|q| q.intro == p.intro)
    }

    /// Whether the downloader's word of an introduction does not count, or not to its end.
    fn is_cut(&self, intro: IntroId) -> bool {
        let guid = self.granted.as_ref().map(|g| g.guid);
        guid.is_some_and(|guid| self.quarantines.cut(guid, self.made_ms(intro)).is_some())
    }

    /// When a CN's record of an introduction came.
    fn made_ms(&self, intro: IntroId) -> u64 {
        self.introduced.as_ref().and_then(|all| all.get(&intro)).map_or(0, |(_, made)| *made)
    }

    /// Takes in a record of this download, received at `now_ms`. Of the records of one reporter the highest `seq`
    /// counts.
    pub fn add(&mut self, record: LedgerRecord, now_ms: u64) {
        self.first_ms = Some(self.first_ms.map_or(now_ms, |first| first.min(now_ms)));
        let of_edge = matches!(record, LedgerRecord::Edge(_) | LedgerRecord::Served(_));
        let late = match self.settlement(now_ms) {
            Settlement::Open => false,
            Settlement::Closed => !of_edge || self.expires_ms().is_none_or(|at| now_ms >= at),
            Settlement::Expired => true,
        };
        if late {
            self.late = self.late.saturating_add(1);
            return;
        }
        match record {
            LedgerRecord::Log(r) => {
                if let (LogEvent::Offered(o), Some(introduced)) = (r.event, &mut self.introduced) {
                    introduced.extend(o.peers.iter().map(|p| (p.intro, (p.upload_key, now_ms))));
                }
            }
            LedgerRecord::Granted(r) => {
                let first = self.granted.as_ref().is_none_or(|old| (r.issued_ms, r.id) < (old.issued_ms, old.id));
                if first {
                    self.granted = Some(r);
                }
            }
            LedgerRecord::Edge(r) => {
                if newer(self.edges.get(&r.edge), &r, |r| r.seq) {
                    self.edges.insert(r.edge, r);
                }
            }
            LedgerRecord::Served(r) => {
                if newer(self.served.get(&(r.edge, r.life)), &r, |r| r.seq) {
                    self.served.insert((r.edge, r.life), r);
                }
            }
            LedgerRecord::Usage(r) => self.add_usage(r, now_ms),
            // evidence for people: no bill depends on it
            LedgerRecord::Possession(_) => {}
        }
    }

    fn add_usage(&mut self, r: UsageRecord, now_ms: u64) {
        for begin in self.quarantines.begins(r.reporter).filter(|begin| now_ms < *begin) {
            let at = (r.reporter, begin, r.side == Side::Downloader);
            if newer(self.before.get(&at), &r, |r| r.seq) {
                self.before.insert(at, r.clone());
            }
        }
        match r.side {
            Side::Downloader => {
                if newer(self.downloaders.get(&r.reporter), &r, |r| r.seq) {
                    if r.state == UsageState::Running {
                        self.ended_ms.remove(&r.reporter);
                    } else {
                        let ended = self.ended_ms.entry(r.reporter).or_insert(now_ms);
                        *ended = now_ms.min(*ended);
                    }
                    self.downloaders.insert(r.reporter, r);
                }
            }
            Side::Uploader => {
                if newer(self.uploaders.get(&r.reporter), &r, |r| r.seq) {
                    self.uploaders.insert(r.reporter, r);
                }
            }
        }
    }

    /// When no more records count, Unix milliseconds; `None` before the first record.
    #[must_use]
    pub fn closes_ms(&self) -> Option<u64> {
        let expires = self.expires_ms()?;
        Some(self.ended_ms().map_or(expires, |ended| expires.min(ended.saturating_add(LATE_MS))))
    }

    fn expires_ms(&self) -> Option<u64> {
        self.first_ms.map(|first| first.saturating_add(EXPIRES_MS))
    }

    /// When the downloader's last word was received. Who that is only the grant says: until then anybody could end it.
    fn ended_ms(&self) -> Option<u64> {
        self.ended_ms.get(&self.granted.as_ref()?.guid).copied()
    }

    /// How far it is at `now_ms`.
    #[must_use]
    pub fn settlement(&self, now_ms: u64) -> Settlement {
        match (self.closes_ms(), self.ended_ms()) {
            (Some(at), Some(_)) if now_ms >= at => Settlement::Closed,
            (Some(at), None) if now_ms >= at => Settlement::Expired,
            _ => Settlement::Open,
        }
    }

    /// Records that came too late to count.
    #[must_use]
    pub const fn late(&self) -> u32 {
        self.late
    }

    /// Only who was granted the download may speak as its downloader.
    fn downloader(&self) -> Option<&UsageRecord> {
        match &self.granted {
            Some(granted) => self.downloaders.get(&granted.guid),
            None => self.downloaders.values().max_by_key(|r| r.seq),
        }
    }

    /// An uploader's receipt, if the download's key has signed it for this introduction and version.
    fn proven(&self, verify: Verify, record: &UsageRecord, p: &PeerBytes) -> Option<ReceiptProof> {
        let (granted, proof) = (self.granted.as_ref()?, p.receipt.as_ref()?);
        let of_it = (record.download, record.version) == (granted.download, granted.version);
        if !of_it || !self.is_introduced(p.intro, &proof.uploader_key) {
            return None;
        }
        let receipt = Receipt {
            intro: p.intro,
            download: record.download,
            version: record.version,
            uploader_key: proof.uploader_key,
            seq: proof.seq,
            bytes: proof.bytes,
        };
        let signed = receipts::is_signed(verify, &granted.download_key, &receipt, &proof.signature);
        signed.then(|| proof.clone())
    }

    /// What is claimed of each introduction at `now_ms`. `verify` checks the receipts.
    #[must_use]
    pub fn claims(&self, verify: Verify, now_ms: u64) -> BTreeMap<IntroId, Claims> {
        let mut claims: BTreeMap<IntroId, Claims> = BTreeMap::new();
        for (r, p) in self.downloader().into_iter().flat_map(|r| r.peers.iter().map(move |p| (r, p))) {
            let c = claims.entry(p.intro).or_default();
            c.received = c.received.saturating_add(p.bytes);
            // however often a newer record names it, what was said before a quarantine counts once
            let others = if self.is_cut(p.intro) { 0 } else { c.said };
            c.said = others.saturating_add(self.counted(r, p).map_or(0, |p| p.bytes));
            c.uploader_key = Some(p.key);
        }
        let silent = self.settlement(now_ms) == Settlement::Expired;
        for (r, p) in self.uploaders.values().flat_map(|r| r.peers.iter().map(move |p| (r, p))) {
            let c = claims.entry(p.intro).or_default();
            c.sent = c.sent.saturating_add(p.bytes);
            let proven = |p| {
                let of_it = |proof: &ReceiptProof| c.uploader_key.is_none_or(|k| k == proof.uploader_key);
                self.proven(verify, r, p).filter(of_it).map_or(0, |proof| proof.bytes)
            };
            // one receipt filed by many, or many receipts of one introduction: the highest counts, once
            let newest = proven(p);
            // where all of it counts no receipt is checked twice
            let counted = self.counted(r, p).map_or(0, |counted| if counted == p { newest } else { proven(counted) });
            let receipted = newest.max(counted);
            if receipted > c.receipted || c.uploader.is_none() {
                c.uploader = Some(r.reporter);
            }
            c.receipted = c.receipted.max(receipted);
            c.proven = c.proven.max(counted);
        }
        for (intro, c) in &mut claims {
            c.received = c.received.max(c.said);
            // a downloader that fell silent is held to what it signed, unless its word does not count
            let held = silent && !self.is_cut(*intro);
            c.agreed = if held { c.proven } else { c.proven.min(c.said) };
        }
        claims
    }

    /// The bytes that edges have sent: the union of what each has counted. Where an edge has crashed and cannot say
    /// whether it sent more, the downloader's word counts, as far as that edge's reserve went.
    fn edge_unique(&self, size: u64, claimed: u64) -> u64 {
        let most = if self.granted.is_some() { size } else { u64::MAX };
        let mut sent = Spans::default();
        self.served.values().for_each(|r| sent.unite(&Spans::from_blob(&r.sent, most)));
        // records without ranges add up
        let plain = self.edges.values().map(|r| r.unique_bytes).fold(0, u64::saturating_add);
        let sure = sent.bytes().saturating_add(plain);
        let unsure = self.served.values().map(|r| r.unsure_bytes).fold(0, u64::saturating_add);
        sure.max(claimed.min(sure.saturating_add(unsure))).min(most)
    }

    fn edge_total(&self) -> u64 {
        let of_edges = self.edges.values().map(|r| r.total_bytes);
        of_edges.chain(self.served.values().map(|r| r.total_bytes)).fold(0, u64::saturating_add)
    }

    /// What it comes to at `now_ms`. `verify` checks the receipts.
    #[must_use]
    pub fn bill(&self, verify: Verify, now_ms: u64) -> Bill {
        let downloader = self.downloader();
        let (size, max_peer_bytes) = self.granted.as_ref().map_or((0, 0), |g| (g.size, g.max_peer_bytes.min(g.size)));
        let claims = self.claims(verify, now_ms);
        let total = |of: fn(&Claims) -> u64| claims.values().map(of).fold(0_u64, u64::saturating_add);
        let agreed = total(|c| c.agreed);
        let claimed = total(|c| c.received.max(c.sent).max(c.receipted));
        let edge_claimed = downloader.map_or(0, |r| r.edge_bytes);
        let edge_unique = self.edge_unique(size, edge_claimed);
        let peers_billed = agreed.min(size.saturating_sub(edge_unique)).min(max_peer_bytes);
        Bill {
            size,
            max_peer_bytes,
            edge_unique,
            edge_total: self.edge_total(),
            edge_claimed,
            peers_received: total(|c| c.received),
            peers_sent: total(|c| c.sent),
            peers_receipted: total(|c| c.receipted),
            peers_agreed: agreed,
            peers_billed,
            shares: shares(&claims, peers_billed),
            flagged: claimed.saturating_sub(peers_billed),
            state: downloader.map(|r| r.state),
            elapsed_ms: downloader.map_or(0, |r| r.elapsed_ms),
        }
    }
}

/// What of `billed` was each uploader's: introductions count in the order of their ids until there is no room left.
fn shares(claims: &BTreeMap<IntroId, Claims>, billed: u64) -> BTreeMap<Guid, u64> {
    let mut shares: BTreeMap<Guid, u64> = BTreeMap::new();
    let mut left = billed;
    for c in claims.values() {
        let bytes = c.agreed.min(left);
        if let Some(uploader) = c.uploader.filter(|_| bytes > 0) {
            left -= bytes;
            let share = shares.entry(uploader).or_default();
            *share = share.saturating_add(bytes);
        }
    }
    shares
}

/// Records that were received at one time.
impl FromIterator<LedgerRecord> for Book {
    fn from_iter<I: IntoIterator<Item = LedgerRecord>>(records: I) -> Self {
        let mut book = Self::default();
        records.into_iter().for_each(|r| book.add(r, 0));
        book
    }
}

#[cfg(test)]
mod tests;
