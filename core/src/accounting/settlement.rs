//! Settlement: computes from a download's records the bytes that its provider is shown and billed for.
//!
//! An uploader's claim is the receipt with the most bytes that it reports, a downloader's claim its own report; of
//! each introduction the smaller claim is billed. So neither side alone can raise a bill. Both together cannot raise
//! it above the version's size or the first grant's `max_peer_bytes`, and in a ledger's books ([`Book::strict`]) only
//! over introductions that a CN has recorded.
//!
//! For a client in quarantine, only its records from before the quarantine count ([`Quarantines`]): bytes that it
//! reports later, as either side, are not billed; nor are introductions made during the quarantine, whenever it reports
//! them.
//!
//! A download closes [`LATE_MS`] after its downloader's final report (complete, cancelled or failed), or [`EXPIRES_MS`]
//! after its first record if there is no final report. Later records of clients change nothing. Edges' records count
//! until the download expires, since no client's report may make an edge's bytes free.

use super::quarantine::Quarantines;
use super::{Spans, receipts};
use crate::ids::{Guid, IntroId, PublicKey};
use crate::wire::records::{
    EdgeRecord, GrantRecord, LedgerRecord, LogEvent, PeerBytes, Receipt, ReceiptProof, ServedRecord, Side, UsageRecord,
    UsageState, Verify,
};
use alloc::collections::BTreeMap;

/// Time after a downloader's final report in which records still count, in milliseconds: an uploader that was switched
/// off in the meantime reports at its next start.
pub const LATE_MS: u64 = 24 * 3600 * 1000;
/// Time from the first record to the closing of a download without a final report, in milliseconds.
pub const EXPIRES_MS: u64 = 30 * 24 * 3600 * 1000;

/// State of a download's settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Settlement {
    /// New records of the download still count.
    Open,
    /// The downloader made its final report and the time for late records is over: the bill is final.
    Closed,
    /// No final report came in time. The downloader is billed for the receipts that it signed; the bill is final.
    Expired,
}

/// The records of one download from which its bill is computed, the newest of each reporter, added in the order in
/// which the ledger received them. Before the download closes, order and repetition of records make no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Book {
    /// Time at which the first record was received, Unix milliseconds.
    first_ms: Option<u64>,
    /// Time at which the ledger received the final report of each client that claims to be the downloader, Unix
    /// milliseconds; a later report that the download goes on removes the entry.
    final_report_ms: BTreeMap<Guid, u64>,
    /// Number of records that came too late to count.
    late: u32,
    granted: Option<GrantRecord>,
    /// Newest reports of all clients that claim to be the downloader; the grant names the true one.
    claimed_downloaders: BTreeMap<Guid, UsageRecord>,
    uploaders: BTreeMap<Guid, UsageRecord>,
    edges: BTreeMap<PublicKey, EdgeRecord>,
    /// Newest record by edge and by the time at which that edge's count of the download began (`life`).
    served: BTreeMap<(PublicKey, u64), ServedRecord>,
    /// The uploader's key by introduction, as CNs recorded it, with the time at which that record came, Unix
    /// milliseconds. `None` if no CN's record is required.
    introduced: Option<BTreeMap<IntroId, (PublicKey, u64)>>,
    quarantines: Quarantines,
    /// The newest records from before the start of each reporter's quarantines, by reporter, start, and whether the
    /// reporter is the downloader.
    before_quarantine: BTreeMap<(Guid, u64, bool), UsageRecord>,
}

/// Figures of a download after settlement, in bytes where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bill {
    /// Size of the version; 0 while the first grant's record is missing.
    pub size: u64,
    /// Maximum of billed bytes from peers, from the first grant; 0 while the grant's record is missing.
    pub max_peer_bytes: u64,
    /// Bytes of the version that edges sent, each byte counted once even if several edges sent it.
    pub edge_unique: u64,
    /// Bytes sent by edges, repetitions included.
    pub edge_total: u64,
    /// Bytes received from edges, according to the downloader's record.
    pub edge_claimed: u64,
    /// Bytes received from peers, according to the downloader's record.
    pub peers_received: u64,
    /// Bytes sent to the downloader, according to the uploaders' records.
    pub peers_sent: u64,
    /// Bytes from peers that the downloader signed for: the sum of the highest receipt of each introduction.
    pub peers_receipted: u64,
    /// Bytes from peers on which downloader and uploaders agree: of each introduction the smaller of receipt and
    /// downloader's claim.
    pub peers_agreed: u64,
    /// Billed bytes from peers: the agreed ones, at most the version's size less the edges' bytes, and at most
    /// `max_peer_bytes`.
    pub peers_billed: u64,
    /// Each uploader's part of `peers_billed`; the parts add up to it.
    pub shares: BTreeMap<Guid, u64>,
    /// Bytes that downloader or uploader claimed but that are not billed: the other side claims none or fewer, or the
    /// limits allow fewer. They are shown to the provider.
    pub flagged: u64,
    /// State in the downloader's newest report; `None` without a report.
    pub state: Option<UsageState>,
    /// Duration of the download according to the downloader, in milliseconds.
    pub elapsed_ms: u64,
}

/// Bytes claimed for one introduction. Of a client's reports from before and after the start of its quarantine, the
/// one with more bytes is its claim; the earlier one counts for the bill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claims {
    /// Bytes claimed by the downloader.
    pub received: u64,
    /// Bytes of `received` that count.
    received_billable: u64,
    /// The uploader's key according to the downloader.
    uploader_key: Option<PublicKey>,
    /// Bytes claimed by uploaders, with or without receipts.
    pub sent: u64,
    /// Bytes of the largest valid receipt that an uploader reported.
    pub receipted: u64,
    /// Bytes of the largest receipt that counts for the bill, at most `receipted`.
    receipted_billable: u64,
    /// Bytes on which both sides agree: the smaller of receipt and downloader's claim.
    pub agreed: u64,
    /// The uploader with the largest receipt; without receipts, the first one to claim bytes.
    pub uploader: Option<Guid>,
}

impl Claims {
    /// Asserts that no more bytes count than were claimed, and that no more are agreed on than count.
    fn check(&self) {
        assert!(self.received_billable <= self.received, "no more received bytes count than are claimed");
        assert!(self.receipted_billable <= self.receipted, "no more receipted bytes count than have receipts");
        assert!(self.agreed <= self.receipted_billable, "no more bytes are agreed on than have receipts that count");
        assert!(self.agreed == 0 || self.uploader.is_some(), "agreed bytes have an uploader");
    }
}

impl Bill {
    /// Asserts that no more bytes are billed than the limits allow, and that each billed byte has one uploader.
    fn check(&self) {
        assert!(self.peers_billed <= self.peers_agreed, "no more bytes are billed than are agreed on");
        assert!(self.peers_agreed <= self.peers_receipted, "no more bytes are agreed on than have receipts");
        assert!(self.peers_billed <= self.max_peer_bytes, "no more bytes of peers are billed than the grant allows");
        let all = self.peers_billed.saturating_add(self.edge_unique);
        assert!(self.peers_billed == 0 || all <= self.size, "no more bytes are billed than the version has");
        let shared = self.shares.values().fold(0_u64, |sum, share| sum.saturating_add(*share));
        assert!(shared == self.peers_billed, "the uploaders' shares add up to the bill");
    }
}

fn newer<T>(old: Option<&T>, new: &T, seq: impl Fn(&T) -> u32) -> bool {
    old.is_none_or(|old| seq(old) < seq(new))
}

impl Book {
    /// Creates a settlement without records, in which bytes of an introduction count only if a CN has recorded it.
    #[must_use]
    pub fn strict() -> Self {
        Self { introduced: Some(BTreeMap::new()), ..Self::default() }
    }

    /// Sets the quarantines of the reporters; to be called before any record is added.
    #[must_use]
    pub fn with_quarantines(self, quarantines: Quarantines) -> Self {
        Self { quarantines, ..self }
    }

    /// Asserts that each record is listed under its reporter, and that the final reports are those of the newest
    /// records.
    pub fn check(&self) {
        let of_side = |records: &BTreeMap<Guid, UsageRecord>, side: Side| {
            records.iter().all(|(guid, r)| r.reporter == *guid && r.side == side)
        };
        assert!(of_side(&self.claimed_downloaders, Side::Downloader), "a downloader's record is listed under its GUID");
        assert!(of_side(&self.uploaders, Side::Uploader), "an uploader's record is listed under its GUID");
        assert!(self.edges.iter().all(|(edge, r)| r.edge == *edge), "an edge's record is listed under its key");
        let of_life = |(at, r): (&(PublicKey, u64), &ServedRecord)| (r.edge, r.life) == *at;
        assert!(self.served.iter().all(of_life), "an edge's record is listed under its life");
        let ended =
            self.claimed_downloaders.iter().filter(|(_, r)| r.state != UsageState::Running).map(|(guid, _)| guid);
        assert!(ended.eq(self.final_report_ms.keys()), "a download has ended by its downloader's newest report");
        let since_first = |at: &u64| self.first_ms.is_some_and(|first| first <= *at);
        assert!(self.final_report_ms.values().all(since_first), "no report comes before the first record");
        let cut = |((guid, begin, _), r): (&(Guid, u64, bool), &UsageRecord)| {
            r.reporter == *guid && self.quarantines.begins(*guid).any(|b| b == *begin)
        };
        assert!(self.before_quarantine.iter().all(cut), "a record from before a quarantine is its client's");
    }

    /// Returns whether a CN recorded this introduction with this uploader's key, or no CN's record is required.
    fn is_introduced(&self, intro: IntroId, uploader_key: &PublicKey) -> bool {
        self.introduced.as_ref().is_none_or(|all| all.get(&intro).is_some_and(|(key, _)| key == uploader_key))
    }

    /// Returns the part of a reporter's claim that counts: all of it, or its state before the reporter's quarantine.
    fn billable_part<'a>(&'a self, r: &UsageRecord, p: &'a PeerBytes) -> Option<&'a PeerBytes> {
        let Some(cut) = self.quarantines.cut(r.reporter, self.introduced_ms(p.intro)) else { return Some(p) };
        self.before_quarantine
            .get(&(r.reporter, cut, r.side == Side::Downloader))?
            .peers
            .iter()
            .find(|q| q.intro == p.intro)
    }

    /// Returns whether a quarantine limits how much of the downloader's claim for an introduction counts.
    fn is_cut(&self, intro: IntroId) -> bool {
        let guid = self.granted.as_ref().map(|g| g.guid);
        guid.is_some_and(|guid| self.quarantines.cut(guid, self.introduced_ms(intro)).is_some())
    }

    /// Returns when the ledger received the CN's record of an introduction, Unix milliseconds; 0 if it received none.
    fn introduced_ms(&self, intro: IntroId) -> u64 {
        self.introduced.as_ref().and_then(|all| all.get(&intro)).map_or(0, |(_, made)| *made)
    }

    /// Adds a record of this download, received at `now_ms`. Of one reporter's records the one with the highest `seq`
    /// counts.
    pub fn add(&mut self, record: LedgerRecord, now_ms: u64) {
        self.first_ms = Some(self.first_ms.map_or(now_ms, |first| first.min(now_ms)));
        let of_edge = matches!(record, LedgerRecord::Edge(_) | LedgerRecord::Served(_));
        let is_late = match self.settlement(now_ms) {
            Settlement::Open => false,
            Settlement::Closed => !of_edge || self.expires_ms().is_none_or(|at| now_ms >= at),
            Settlement::Expired => true,
        };
        if is_late {
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
            LedgerRecord::Usage(r) => self.add_usage(r.record, now_ms),
            // possession records are evidence for people: no bill depends on them
            LedgerRecord::Possession(_) => {}
        }
    }

    fn add_usage(&mut self, r: UsageRecord, now_ms: u64) {
        for begin in self.quarantines.begins(r.reporter).filter(|begin| now_ms < *begin) {
            let at = (r.reporter, begin, r.side == Side::Downloader);
            if newer(self.before_quarantine.get(&at), &r, |r| r.seq) {
                self.before_quarantine.insert(at, r.clone());
            }
        }
        match r.side {
            Side::Downloader => {
                if newer(self.claimed_downloaders.get(&r.reporter), &r, |r| r.seq) {
                    if r.state == UsageState::Running {
                        self.final_report_ms.remove(&r.reporter);
                    } else {
                        let ended = self.final_report_ms.entry(r.reporter).or_insert(now_ms);
                        *ended = now_ms.min(*ended);
                    }
                    self.claimed_downloaders.insert(r.reporter, r);
                }
            }
            Side::Uploader => {
                if newer(self.uploaders.get(&r.reporter), &r, |r| r.seq) {
                    self.uploaders.insert(r.reporter, r);
                }
            }
        }
    }

    /// Returns the time from which clients' new records do not count, Unix milliseconds; `None` before the first
    /// record.
    #[must_use]
    pub fn closes_ms(&self) -> Option<u64> {
        let expires = self.expires_ms()?;
        Some(self.final_report_ms().map_or(expires, |ended| expires.min(ended.saturating_add(LATE_MS))))
    }

    fn expires_ms(&self) -> Option<u64> {
        self.first_ms.map(|first| first.saturating_add(EXPIRES_MS))
    }

    /// Returns when the downloader's final report was received, Unix milliseconds; `None` while there is none or the
    /// grant, which names the downloader, is missing.
    fn final_report_ms(&self) -> Option<u64> {
        self.final_report_ms.get(&self.granted.as_ref()?.guid).copied()
    }

    /// Returns the state of the settlement at `now_ms`.
    #[must_use]
    pub fn settlement(&self, now_ms: u64) -> Settlement {
        match (self.closes_ms(), self.final_report_ms()) {
            (Some(at), Some(_)) if now_ms >= at => Settlement::Closed,
            (Some(at), None) if now_ms >= at => Settlement::Expired,
            _ => Settlement::Open,
        }
    }

    /// Returns the number of records that came too late to count.
    #[must_use]
    pub const fn late(&self) -> u32 {
        self.late
    }

    /// Returns the newest report of the client that the grant names; before the grant is known, the report with the
    /// highest `seq`.
    fn downloader(&self) -> Option<&UsageRecord> {
        match &self.granted {
            Some(granted) => self.claimed_downloaders.get(&granted.guid),
            None => self.claimed_downloaders.values().max_by_key(|r| r.seq),
        }
    }

    /// Returns the receipt in an uploader's record if the download's key signed it for this introduction and version.
    fn valid_receipt(&self, verify: Verify, record: &UsageRecord, p: &PeerBytes) -> Option<ReceiptProof> {
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

    /// Returns the claims for each introduction at `now_ms`, Unix milliseconds. `verify` checks the receipts'
    /// signatures.
    #[must_use]
    pub fn claims(&self, verify: Verify, now_ms: u64) -> BTreeMap<IntroId, Claims> {
        let mut claims: BTreeMap<IntroId, Claims> = BTreeMap::new();
        for (r, p) in self.downloader().into_iter().flat_map(|r| r.peers.iter().map(move |p| (r, p))) {
            let c = claims.entry(p.intro).or_default();
            c.received = c.received.saturating_add(p.bytes);
            // bytes claimed before a quarantine count once, however often a newer record names the introduction
            let others = if self.is_cut(p.intro) { 0 } else { c.received_billable };
            c.received_billable = others.saturating_add(self.billable_part(r, p).map_or(0, |p| p.bytes));
            c.uploader_key = Some(p.key);
        }
        let expired = self.settlement(now_ms) == Settlement::Expired;
        for (r, p) in self.uploaders.values().flat_map(|r| r.peers.iter().map(move |p| (r, p))) {
            let c = claims.entry(p.intro).or_default();
            c.sent = c.sent.saturating_add(p.bytes);
            let receipted_by = |p| {
                let of_it = |proof: &ReceiptProof| c.uploader_key.is_none_or(|k| k == proof.uploader_key);
                self.valid_receipt(verify, r, p).filter(of_it).map_or(0, |proof| proof.bytes)
            };
            // of one receipt filed by many uploaders, or many receipts of one introduction, the highest counts, once
            let newest = receipted_by(p);
            // where the whole claim counts, its receipt is not checked twice
            let counted =
                self.billable_part(r, p).map_or(0, |counted| if counted == p { newest } else { receipted_by(counted) });
            let receipted = newest.max(counted);
            if receipted > c.receipted || c.uploader.is_none() {
                c.uploader = Some(r.reporter);
            }
            c.receipted = c.receipted.max(receipted);
            c.receipted_billable = c.receipted_billable.max(counted);
        }
        for (intro, c) in &mut claims {
            c.received = c.received.max(c.received_billable);
            // a downloader that fell silent is billed for the receipts that it signed, unless a quarantine limits its
            // claims
            let held = expired && !self.is_cut(*intro);
            c.agreed = if held { c.receipted_billable } else { c.receipted_billable.min(c.received_billable) };
            if cfg!(debug_assertions) {
                c.check();
            }
        }
        claims
    }

    /// Returns the number of distinct bytes that edges sent: the union of their ranges. Where an edge crashed and
    /// cannot say whether it sent more, the downloader's claim counts, up to the bytes that this edge had reserved.
    fn edge_unique(&self, size: u64, claimed: u64) -> u64 {
        let most = if self.granted.is_some() { size } else { u64::MAX };
        let mut sent = Spans::default();
        self.served.values().for_each(|r| sent.unite(&Spans::from_blob(&r.sent, most)));
        // records without ranges are summed up
        let plain = self.edges.values().map(|r| r.unique_bytes).fold(0, u64::saturating_add);
        let sure = sent.bytes().saturating_add(plain);
        let unsure = self.served.values().map(|r| r.unsure_bytes).fold(0, u64::saturating_add);
        sure.max(claimed.min(sure.saturating_add(unsure))).min(most)
    }

    fn edge_total(&self) -> u64 {
        let of_edges = self.edges.values().map(|r| r.total_bytes);
        of_edges.chain(self.served.values().map(|r| r.total_bytes)).fold(0, u64::saturating_add)
    }

    /// Returns the download's bill at `now_ms`, Unix milliseconds. `verify` checks the receipts' signatures.
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
        let bill = Bill {
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
        };
        if cfg!(debug_assertions) {
            self.check();
            bill.check();
        }
        bill
    }
}

/// Divides the bytes `billed` among the uploaders: each introduction's agreed bytes are assigned, in the order of
/// their ids, until none are left.
fn shares(claims: &BTreeMap<IntroId, Claims>, billed: u64) -> BTreeMap<Guid, u64> {
    let mut shares: BTreeMap<Guid, u64> = BTreeMap::new();
    let mut left = billed;
    for c in claims.values() {
        let bytes = c.agreed.min(left);
        if let Some(uploader) = c.uploader.filter(|_| bytes > 0) {
            left = left.saturating_sub(bytes);
            let share = shares.entry(uploader).or_default();
            *share = share.saturating_add(bytes);
        }
    }
    shares
}

/// Collects records that were all received at time 0.
impl FromIterator<LedgerRecord> for Book {
    fn from_iter<I: IntoIterator<Item = LedgerRecord>>(records: I) -> Self {
        let mut book = Self::default();
        records.into_iter().for_each(|r| book.add(r, 0));
        book
    }
}

#[cfg(test)]
mod tests;
