//! Records that the nodes of a [`Swarm`](super::Swarm) send to the ledger, false variants of these records, and how
//! the production ledger's [`Book`] settles them. The ledger's seeded defects are here.

use super::names::{bytes, conn, download_key, intro_id, introduction, uploader};
use super::{DOWNLOADER, Facts, Mutant, SIZE};
use crate::sim::keys;
use std::collections::BTreeMap;
use swarmedge_core::accounting::Spans;
use swarmedge_core::accounting::logs::unsigned;
use swarmedge_core::accounting::quarantine::Quarantines;
use swarmedge_core::accounting::settlement::{Bill, Book, Claims, EXPIRES_MS, LATE_MS};
use swarmedge_core::ids::{DownloadId, Guid, IntroId, ProviderId, PublicKey, RecordId, Signature, VersionId};
use swarmedge_core::wire::records::{
    GrantRecord, LedgerRecord, LogEvent, LogRecord, Offered, OfferedPeer, PeerBytes, Receipt, ReceiptProof,
    ServedRecord, Side, SigningContext, UsageRecord, UsageState, Verify,
};
use swarmedge_core::wire::{List, Text, Wire as _};

/// Number of an introduction that some client claims although no CN has made it.
pub(super) const INVENTED: u32 = 0x99;

/// Usage records of one download that the downloader and its uploaders send to the ledger (a filing).
#[derive(Clone, Debug)]
pub(super) struct Filing {
    /// Bytes that the downloader claims, per introduction; `None` if it sends no record.
    down: Option<Vec<PeerBytes>>,
    /// Usage records of the uploaders, one for each, in the order of their node indices.
    up: Vec<UsageRecord>,
    download: DownloadId,
    version: VersionId,
}

/// Totals in bytes that the ledger computes from a [`Filing`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Bytes that the ledger accepts as receipted, per introduction.
    pub(super) receipted: BTreeMap<IntroId, u64>,
    /// Bytes that count towards the bill, per introduction.
    pub(super) agreed: BTreeMap<IntroId, u64>,
    /// Peer bytes billed for the download.
    pub(super) billed: u64,
    /// Bytes sent by edges, each byte counted once.
    pub(super) edge: u64,
}

/// Returns a usage record about the model's one download.
fn usage(reporter: u32, seq: u32, side: Side, peers: Vec<PeerBytes>) -> UsageRecord {
    UsageRecord {
        id: RecordId::numbered(reporter << 8 | seq),
        reporter: Guid::numbered(reporter),
        side,
        download: DownloadId::numbered(1),
        version: VersionId::numbered(1),
        seq,
        state: UsageState::Running,
        edge_bytes: 0,
        peers: List::truncated(peers),
        elapsed_ms: 0,
        cause: None,
    }
}

/// Returns receipt number `seq` of an introduction, by which the downloader signs for `bytes` bytes.
fn proof(intro: IntroId, seq: u32, bytes: u64) -> ReceiptProof {
    let (download, version) = (DownloadId::numbered(1), VersionId::numbered(1));
    let uploader_key = introduction(intro).uploader_key;
    let receipt = Receipt { intro, download, version, uploader_key, seq, bytes };
    let signature = keys::sign(&download_key(), SigningContext::Receipt, &receipt.to_bytes());
    ReceiptProof { uploader_key, seq, bytes, signature }
}

fn receipted(intro: IntroId, proof: ReceiptProof) -> PeerBytes {
    PeerBytes { intro, key: download_key(), bytes: proof.bytes, receipt: Some(proof) }
}

fn claimed(intro: IntroId, bytes: u64) -> PeerBytes {
    PeerBytes { intro, key: introduction(intro).uploader_key, bytes, receipt: None }
}

/// Returns the downloader's true claims: the bytes of the pieces on its disk, per introduction.
fn received(facts: &Facts) -> Vec<PeerBytes> {
    let mut claims: BTreeMap<IntroId, u64> = BTreeMap::new();
    for (piece, from) in &facts.journal {
        if let Some(intro) = from {
            *claims.entry(*intro).or_default() += bytes(*piece);
        }
    }
    claims.into_iter().map(|(intro, bytes)| claimed(intro, bytes)).collect()
}

/// Returns the downloader's true usage record, of the pieces on its disk.
pub(super) fn downloader(facts: &Facts) -> UsageRecord {
    usage(u32::from(DOWNLOADER), 1, Side::Downloader, received(facts))
}

impl Filing {
    /// Returns the records that downloader and uploaders send if all are honest.
    pub(super) fn honest(facts: &Facts) -> Self {
        let record = |(intro, proof): (&IntroId, &ReceiptProof)| {
            usage(u32::from(uploader(conn(*intro))), 1, Side::Uploader, std::vec![receipted(*intro, proof.clone())])
        };
        // an uploader with two introductions files one record
        let mut up: Vec<UsageRecord> = Vec::new();
        for record in facts.got.iter().map(record) {
            match up.iter_mut().find(|r| r.reporter == record.reporter) {
                Some(of_it) => of_it.peers = List::truncated(of_it.peers.iter().chain(&record.peers).cloned()),
                None => up.push(record),
            }
        }
        let (download, version) = (DownloadId::numbered(1), VersionId::numbered(1));
        Self { down: Some(received(facts)), up, download, version }
    }

    /// Removes the downloader's record, as if it had never sent one.
    pub(super) fn silent(self) -> Self {
        Self { down: None, ..self }
    }

    fn with_up(&self, lie: impl Fn(&mut PeerBytes)) -> Self {
        let mut told = self.clone();
        for record in &mut told.up {
            let mut peers = std::mem::take(&mut record.peers).into_vec();
            peers.iter_mut().for_each(&lie);
            record.peers = List::truncated(peers);
        }
        told
    }

    /// Returns sets of usage records in which one uploader's claims are false, while the other clients are honest.
    pub(super) fn lies_of_uploaders(&self, facts: &Facts) -> Vec<Self> {
        let more = self.with_up(|p| p.bytes += SIZE);
        let forged = self.with_up(|p| p.receipt.iter_mut().for_each(|r| r.bytes += SIZE));
        // each receipt filed under each other introduction, with its own uploader or with the other one
        let mut moved = self.clone();
        let mut renamed = self.clone();
        for (intro, proof) in &facts.got {
            for other in 1..=2 {
                let to = intro_id(other, 1);
                if to != *intro {
                    let key = introduction(to).uploader_key;
                    let as_it_is = receipted(to, proof.clone());
                    let as_the_others = receipted(to, ReceiptProof { uploader_key: key, ..proof.clone() });
                    moved.up.push(usage(u32::from(other) << 4, 1, Side::Uploader, std::vec![as_it_is]));
                    renamed.up.push(usage(u32::from(other) << 4, 1, Side::Uploader, std::vec![as_the_others]));
                }
            }
        }
        // every receipt ever signed, each filed by another reporter
        let mut hoard = self.clone();
        for (n, (intro, seq, bytes)) in (0x40..).zip(&facts.signed) {
            let peers = std::vec![receipted(*intro, proof(*intro, *seq, *bytes))];
            hoard.up.push(usage(n, 1, Side::Uploader, peers));
        }
        std::vec![more, forged, moved, renamed, hoard]
    }

    /// Returns sets of usage records in which the downloader's claims are false, while the uploaders are honest.
    pub(super) fn lies_of_the_downloader(&self) -> Vec<Self> {
        let with = |lie: fn(&mut PeerBytes)| {
            let mut down = self.down.clone().unwrap_or_default();
            down.iter_mut().for_each(lie);
            down
        };
        let mut greedy = with(|p| p.bytes += SIZE);
        greedy.push(claimed(IntroId::numbered(INVENTED), SIZE));
        greedy.extend((1..=2).map(|up| claimed(intro_id(up, 1), SIZE)));
        let deny = with(|p| p.bytes = 0);
        [greedy, deny].into_iter().map(|down| Self { down: Some(down), ..self.clone() }).collect()
    }

    /// Returns usage records in which the downloader and one uploader both claim and sign that all bytes came over
    /// `intro`.
    pub(super) fn collusion(&self, intro: IntroId) -> Self {
        let up = std::vec![usage(0x30, 1, Side::Uploader, std::vec![receipted(intro, proof(intro, 9, SIZE))])];
        Self { down: Some(std::vec![claimed(intro, SIZE)]), up, ..self.clone() }
    }

    /// Returns the uploaders' records of this filing under another download, and under another version, of the same
    /// client with the same key K_d.
    pub(super) fn elsewhere(&self) -> [Self; 2] {
        let of = |download, version| {
            let mut up = self.up.clone();
            up.iter_mut().for_each(|r| (r.download, r.version) = (download, version));
            Self { down: None, up, download, version }
        };
        [of(DownloadId::numbered(2), VersionId::numbered(1)), of(DownloadId::numbered(1), VersionId::numbered(2))]
    }

    /// Returns all records of the download that the ledger receives: grant, edge's count, introductions, and this
    /// filing.
    pub(super) fn records(&self, facts: &Facts) -> Vec<LedgerRecord> {
        let granted = LedgerRecord::Granted(GrantRecord {
            id: RecordId::numbered(1),
            download: self.download,
            guid: Guid::numbered(u32::from(DOWNLOADER)),
            download_key: download_key(),
            version: self.version,
            size: SIZE,
            provider: ProviderId(1),
            path: Text::default(),
            issued_ms: 0,
            max_peer_bytes: SIZE,
            challenged: false,
            proof: None,
        });
        let sent = facts.edge.iter().map(|p| layout_range(p.0));
        let served = LedgerRecord::Served(ServedRecord {
            id: RecordId::numbered(2),
            edge: PublicKey::numbered(1),
            download: self.download,
            guid: Guid::numbered(u32::from(DOWNLOADER)),
            version: self.version,
            provider: ProviderId(1),
            life: 0,
            seq: 1,
            sent: Spans::of(sent).to_blob(),
            total_bytes: 0,
            unsure_bytes: 0,
        });
        let mut all = std::vec![granted, served, self.offered(facts)];
        all.extend(self.down.clone().map(|peers| {
            let record = usage(u32::from(DOWNLOADER), 1, Side::Downloader, peers);
            LedgerRecord::Usage(unsigned(UsageRecord { download: self.download, version: self.version, ..record }))
        }));
        all.extend(self.up.iter().cloned().map(|r| LedgerRecord::Usage(unsigned(r))));
        all
    }

    /// Returns older records of the same clients: each introduction's last but one receipt, and a claim of the
    /// downloader for no bytes.
    pub(super) fn older(&self, facts: &Facts) -> Vec<LedgerRecord> {
        let of = |p: &PeerBytes| {
            let last = p.receipt.as_ref().map_or(0, |r| r.seq);
            let before = facts.signed.iter().filter(|(intro, seq, _)| *intro == p.intro && *seq < last).max();
            before.map(|(intro, seq, bytes)| receipted(*intro, proof(*intro, *seq, *bytes)))
        };
        let up = self.up.iter().map(|r| {
            let peers = r.peers.iter().filter_map(of);
            UsageRecord { seq: 0, peers: List::truncated(peers), ..r.clone() }
        });
        let down = usage(u32::from(DOWNLOADER), 0, Side::Downloader, Vec::new());
        up.chain([down]).map(|r| LedgerRecord::Usage(unsigned(r))).collect()
    }

    /// Returns the CN's record of every introduction that it made.
    fn offered(&self, facts: &Facts) -> LedgerRecord {
        let visits = (1..).zip(&facts.visits).flat_map(|(up, visits)| (1..=*visits).map(move |v| intro_id(up, v)));
        let peer = |intro| OfferedPeer { intro, upload_key: introduction(intro).uploader_key };
        let peers = List::truncated(visits.map(peer));
        let offered = Offered { download: self.download, version: self.version, peers };
        let guid = Guid::numbered(u32::from(DOWNLOADER));
        LedgerRecord::Log(LogRecord { id: RecordId::numbered(3), at_ms: 0, guid, event: LogEvent::Offered(offered) })
    }

    /// Returns what the ledger computes from this filing: at once, or when the download has expired if the downloader
    /// sends no record.
    pub(super) fn settle(&self, mutant: Option<Mutant>, facts: &Facts) -> Settled {
        let at_ms = if self.down.is_none() { EXPIRES_MS } else { 0 };
        settle(mutant, &self.records(facts), at_ms)
    }
}

fn layout_range(piece: u32) -> std::ops::Range<u64> {
    let start = u64::from(piece) * super::PIECE;
    start..start + bytes(swarmedge_core::ids::PieceIndex(piece))
}

/// Returns the ledger's book of a download with these records, all received at time 0, and the seeded defect if any.
fn book(mutant: Option<Mutant>, records: impl IntoIterator<Item = LedgerRecord>, at_ms: u64) -> Book {
    let mut book = if mutant == Some(Mutant::LedgerIsLenient) { Book::default() } else { Book::strict() };
    records.into_iter().for_each(|r| book.add(r, at_ms));
    book
}

/// Returns what the ledger computes at the time `at_ms`, in milliseconds, from these records.
pub(super) fn settle(mutant: Option<Mutant>, records: &[LedgerRecord], at_ms: u64) -> Settled {
    let whole = book(mutant, records.iter().cloned(), 0);
    settled(mutant, &whole, records, at_ms)
}

/// Returns what the ledger computes from records that arrive twice, the second time in reverse order, and older ones
/// that arrive last.
pub(super) fn settle_repeated(mutant: Option<Mutant>, records: &[LedgerRecord], older: &[LedgerRecord]) -> Settled {
    let mut again: Vec<_> = records.iter().chain(records.iter().rev()).chain(older).cloned().collect();
    if mutant == Some(Mutant::LastCounts) {
        renumber(&mut again);
    }
    settled(mutant, &book(mutant, again, 0), records, 0)
}

/// Seeded defect: numbers the records by their arrival, so that the one that arrives last counts as the newest.
fn renumber(records: &mut [LedgerRecord]) {
    for (n, record) in (1..).zip(records) {
        if let LedgerRecord::Usage(r) = record {
            r.record.seq = n;
        }
    }
}

/// Returns the peer bytes billed before and after the records in `late` arrive, when the download is closed.
pub(super) fn settle_late(mutant: Option<Mutant>, records: &[LedgerRecord], late: &[LedgerRecord]) -> [u64; 2] {
    let ended = records.iter().cloned().map(|mut record| {
        if let LedgerRecord::Usage(r) = &mut record
            && r.record.side == Side::Downloader
        {
            r.record.state = UsageState::Completed;
        }
        record
    });
    let mut whole = book(mutant, ended, 0);
    let before = whole.bill(verify(mutant), LATE_MS).peers_billed;
    let received_ms = if mutant == Some(Mutant::NeverCloses) { 0 } else { LATE_MS };
    for record in late {
        let mut record = record.clone();
        if let LedgerRecord::Usage(r) = &mut record {
            r.record.seq += 1;
        }
        whole.add(record, received_ms);
    }
    [before, whole.bill(verify(mutant), LATE_MS).peers_billed]
}

/// Returns what the ledger computes with one client in quarantine from `from_ms` on. The records in `before` arrive
/// earlier than that, those in `later` afterwards.
pub(super) fn settle_quarantined(
    mutant: Option<Mutant>,
    (guid, from_ms): (Guid, u64),
    before: &[LedgerRecord],
    later: &[LedgerRecord],
) -> Settled {
    let mut quarantines = Quarantines::default();
    match mutant {
        Some(Mutant::QuarantineIsIgnored) => {}
        Some(Mutant::QuarantineTakesBack) => quarantines.add(guid, 0, u64::MAX),
        _ => quarantines.add(guid, from_ms, u64::MAX),
    }
    let hides = mutant == Some(Mutant::QuarantineHidesEdges);
    let mut book = Book::strict().with_quarantines(quarantines);
    for record in before {
        if !(hides && matches!(record, LedgerRecord::Served(_))) {
            book.add(record.clone(), 0);
        }
    }
    for record in later {
        let mut record = record.clone();
        if let LedgerRecord::Usage(r) = &mut record {
            r.record.seq += 1;
        }
        book.add(record, from_ms + 1);
    }
    settled(mutant, &book, before, from_ms + 1)
}

fn settled(mutant: Option<Mutant>, whole: &Book, records: &[LedgerRecord], at_ms: u64) -> Settled {
    let verify = verify(mutant);
    let (bill, claims) = (whole.bill(verify, at_ms), whole.claims(verify, at_ms));
    let counts = |c: &Claims| match mutant {
        Some(Mutant::LargerClaim) => c.received.max(c.receipted),
        // `received` is 0 for a silent downloader, so signed receipts would not be billed
        Some(Mutant::SilenceDenies) => c.received.min(c.receipted),
        _ => c.agreed,
    };
    let mut agreed: BTreeMap<_, _> = claims.iter().map(|(intro, c)| (*intro, counts(c))).collect();
    if mutant == Some(Mutant::SumsReceipts) {
        agreed = summed(records, at_ms);
    }
    let receipted = claims.iter().map(|(intro, c)| (*intro, c.receipted)).collect();
    let billed = billed(mutant, &bill, agreed.values().sum());
    Settled { receipted, agreed, billed, edge: bill.edge_unique }
}

/// Returns the bytes that a ledger bills, with the seeded defect if one is asked for.
fn billed(mutant: Option<Mutant>, bill: &Bill, agreed: u64) -> u64 {
    match mutant {
        // without the limit of the version's size less the edges' bytes
        Some(Mutant::NoClamp) => bill.peers_agreed,
        Some(Mutant::LargerClaim | Mutant::SumsReceipts | Mutant::SilenceDenies) => {
            agreed.min(bill.size.saturating_sub(bill.edge_unique))
        }
        _ => bill.peers_billed,
    }
}

/// Seeded defect: settles each uploader's record separately and adds up the agreed bytes. The sum is too high, since a
/// later receipt of an introduction contains the earlier ones.
fn summed(records: &[LedgerRecord], at_ms: u64) -> BTreeMap<IntroId, u64> {
    let of_uploader = |r: &&LedgerRecord| r.usage().is_some_and(|u| u.side == Side::Uploader);
    let mut sums: BTreeMap<IntroId, u64> = BTreeMap::new();
    for one in records.iter().filter(of_uploader) {
        let others = records.iter().filter(|r| !of_uploader(r));
        let book = book(None, others.chain([one]).cloned(), 0);
        for (intro, c) in book.claims(verify(None), at_ms) {
            *sums.entry(intro).or_default() += c.agreed;
        }
    }
    sums
}

/// Returns the function by which the ledger verifies signatures, with its seeded defect if any.
pub(super) fn verify(mutant: Option<Mutant>) -> Verify {
    match mutant {
        Some(Mutant::LedgerTrusts) => |_, _, _, _| true,
        Some(Mutant::CoversNoUploader) => |key, context, message, signature| {
            covers(key, context, message, signature, |r, n| {
                let intro = intro_id(n, 1);
                Receipt { intro, uploader_key: introduction(intro).uploader_key, ..r }
            })
        },
        Some(Mutant::CoversNoVersion) => |key, context, message, signature| {
            covers(key, context, message, signature, |r, n| Receipt { version: VersionId::numbered(n.into()), ..r })
        },
        Some(Mutant::CoversNoDownload) => |key, context, message, signature| {
            covers(key, context, message, signature, |r, n| Receipt { download: DownloadId::numbered(n.into()), ..r })
        },
        _ => keys::verify,
    }
}

/// Seeded defect: returns whether the signature verifies for the receipt changed by `change(receipt, 1)` or
/// `change(receipt, 2)`, so that one field is not covered by it.
fn covers(
    key: &PublicKey,
    context: SigningContext,
    message: &[u8],
    signature: &Signature,
    change: fn(Receipt, u8) -> Receipt,
) -> bool {
    let Ok(receipt) = Receipt::from_bytes(message) else { return keys::verify(key, context, message, signature) };
    (1..=2).any(|n| keys::verify(key, context, &change(receipt.clone(), n).to_bytes(), signature))
}
