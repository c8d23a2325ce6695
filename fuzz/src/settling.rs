//! Fuzz bodies for accounting: the ledger's book of one download with arbitrary records, and the machines that bring
//! records to the ledger.

use crate::play::{drive, step, value};
use arbitrary::{Result, Unstructured};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use swarmedge_core::accounting::Spans;
use swarmedge_core::accounting::evidence::Evidence;
use swarmedge_core::accounting::logs::unsigned;
use swarmedge_core::accounting::quarantine::Quarantines;
use swarmedge_core::accounting::settlement::{Bill, Book, Settlement};
use swarmedge_core::content::{Access, Policy};
use swarmedge_core::ids::{
    ConnId, DownloadId, Guid, IntroId, ProviderId, PublicKey, RecordId, ReqId, Signature, VersionId,
};
use swarmedge_core::machine::{Machine as _, Time};
use swarmedge_core::role::edge::io::{Batch, GrantAsked, ObjectFacts, ServedGrant};
use swarmedge_core::role::edge::{self, Edge};
use swarmedge_core::role::ledger::{self, Ledger};
use swarmedge_core::wire::ledger::{FromLedger, LedgerAck, ToLedger};
use swarmedge_core::wire::records::{
    EdgeRecord, Grant, GrantRecord, LedgerRecord, LogEvent, LogRecord, Offered, OfferedPeer, PeerBytes, Receipt,
    ReceiptProof, ServedRecord, ServerRole, Side, SignedReceipt, SigningContext, UsageRecord, UsageState,
};
use swarmedge_core::wire::{Blob, List, Text, Wire as _};
use swarmedge_models::rng::Seeded;
use swarmedge_models::scenario::{Name, Role};
use swarmedge_models::sim::keys;
use swarmedge_models::sim::store::Spool;

const DOWNLOAD_KEY: PublicKey = PublicKey([0xd; 32]);

fn download() -> DownloadId {
    DownloadId::numbered(1)
}

/// Checks the ledger's book of a download with arbitrary records: bill and claims must stay within their bounds, a
/// closed download must stay closed, and the records kept as evidence must give the same bill.
pub(crate) fn receipts(bytes: &[u8]) {
    value::<SignedReceipt>(bytes);
    let _ = play_book(&mut Unstructured::new(bytes));
}

/// Largest number of bytes that the downloader has signed for, per introduction.
type Signed = BTreeMap<IntroId, u64>;

fn play_book(u: &mut Unstructured<'_>) -> Result<()> {
    let mut quarantines = Quarantines::default();
    if u.ratio(1, 3)? {
        let until = if u.arbitrary()? { u64::MAX } else { 1 << 40 };
        quarantines.add(Guid::numbered(u.int_in_range(0..=3)?), u.int_in_range(0..=1 << 20)?, until);
    }
    let mut evidence = Evidence::new(quarantines.clone());
    let mut book = Book::strict().with_quarantines(quarantines);
    let (mut now_ms, mut told, mut signed, mut offered) = (0_u64, Vec::new(), Signed::new(), BTreeSet::new());
    while !u.is_empty() && told.len() < 48 {
        now_ms += 1 << u.int_in_range(0..=32_u32)?;
        let record = anything(u, &mut signed)?;
        let settlement = book.settlement(now_ms);
        let open = settlement == Settlement::Open;
        if let (true, LedgerRecord::Log(LogRecord { event: LogEvent::Offered(o), .. })) = (open, &record) {
            offered.extend(o.peers.iter().map(|p| p.intro));
        }
        let before = book.bill(keys::verify, now_ms);
        book.add(record.clone(), now_ms);
        evidence.add(now_ms, record.clone());
        book.check();
        evidence.check();
        let bill = book.bill(keys::verify, now_ms);
        let of_edge = matches!(record, LedgerRecord::Edge(_) | LedgerRecord::Served(_));
        let stands = match settlement {
            Settlement::Open => true,
            // clients' claims are final; the bill changes only as edges' bytes leave more or less room
            Settlement::Closed if of_edge => {
                let more = bill.edge_unique.cmp(&before.edge_unique);
                let less = before.peers_billed.cmp(&bill.peers_billed);
                bill.peers_agreed == before.peers_agreed && (less.is_eq() || less == more)
            }
            Settlement::Closed | Settlement::Expired => before == bill,
        };
        assert!(stands, "a closed download was billed anew");
        let held = evidence.book();
        assert_eq!((held.bill(keys::verify, now_ms), held.closes_ms()), (bill.clone(), book.closes_ms()));
        told.push(record);
        check_bill(&book, &bill, now_ms);
        check_claims(&book, now_ms, &signed, &offered);
    }
    // duplicate records change nothing
    let once: Book = told.iter().cloned().collect();
    let twice: Book = told.iter().chain(&told).cloned().collect();
    assert_eq!(once.bill(keys::verify, 0), twice.bill(keys::verify, 0));
    Ok(())
}

fn check_bill(book: &Book, b: &Bill, now_ms: u64) {
    assert!(b.peers_billed <= b.peers_agreed && b.peers_billed <= b.max_peer_bytes, "{b:?}");
    assert!(b.peers_agreed <= b.peers_receipted, "more than was signed for: {b:?}");
    assert!(b.size == 0 || b.edge_unique + b.peers_billed <= b.size, "more than there is: {b:?}");
    assert!(b.size > 0 || b.peers_billed == 0, "billed without a grant: {b:?}");
    assert_eq!(b.shares.values().sum::<u64>(), b.peers_billed, "{b:?}");
    assert!(book.closes_ms().is_some() || book.settlement(now_ms) == Settlement::Open);
}

fn check_claims(book: &Book, now_ms: u64, signed: &Signed, offered: &BTreeSet<IntroId>) {
    let silent = book.settlement(now_ms) == Settlement::Expired;
    for (intro, c) in book.claims(keys::verify, now_ms) {
        assert!(c.agreed <= c.receipted && (silent || c.agreed <= c.received), "{c:?}");
        assert!(c.receipted <= signed.get(&intro).copied().unwrap_or(0), "a forged receipt: {c:?}");
        assert!(c.agreed == 0 || offered.contains(&intro), "an introduction that nobody made");
    }
}

/// Returns a random record; ids, introductions and keys come from small ranges, so that records interact.
fn anything(u: &mut Unstructured<'_>, signed: &mut Signed) -> Result<LedgerRecord> {
    let (id, version) = (RecordId::numbered(u.arbitrary()?), VersionId::numbered(u.int_in_range(0..=1)?));
    let guid = Guid::numbered(u.int_in_range(0..=3)?);
    Ok(match u.int_in_range(0..=8_u8)? {
        0 => LedgerRecord::Granted(GrantRecord {
            id,
            download: download(),
            guid,
            download_key: DOWNLOAD_KEY,
            version,
            size: u.arbitrary::<u32>()?.into(),
            provider: ProviderId(1),
            path: Text::default(),
            issued_ms: u.int_in_range(0..=3)?,
            max_peer_bytes: u.arbitrary::<u32>()?.into(),
            challenged: false,
            proof: None,
        }),
        1 => LedgerRecord::Served(ServedRecord {
            id,
            edge: PublicKey::numbered(u.int_in_range(0..=1)?),
            download: download(),
            guid,
            version,
            provider: ProviderId(1),
            life: u.int_in_range(0..=1)?,
            seq: u.int_in_range(0..=7)?,
            sent: spans(u)?,
            total_bytes: u.arbitrary()?,
            unsure_bytes: u.arbitrary()?,
        }),
        2 => LedgerRecord::Edge(EdgeRecord {
            id,
            edge: PublicKey::numbered(u.int_in_range(0..=1)?),
            download: Some(download()),
            guid: Some(guid),
            version,
            provider: ProviderId(1),
            seq: u.int_in_range(0..=7)?,
            unique_bytes: u.arbitrary()?,
            total_bytes: u.arbitrary()?,
        }),
        3 => {
            let upload_key = PublicKey::numbered(u.int_in_range(0..=2)?);
            let peers = List::truncated([OfferedPeer { intro: intro(u)?, upload_key }]);
            let event = LogEvent::Offered(Offered { download: download(), version, peers });
            LedgerRecord::Log(LogRecord { id, at_ms: 0, guid, event })
        }
        _ => LedgerRecord::Usage(unsigned(usage(u, (id, version, guid), signed)?)),
    })
}

/// Returns encoded ranges of sent bytes, or random bytes.
fn spans<const MAX: usize>(u: &mut Unstructured<'_>) -> Result<Blob<MAX>> {
    let bytes = if u.arbitrary()? {
        let start = u64::from(u.arbitrary::<u32>()?);
        let range = start..start + u64::from(u.arbitrary::<u16>()?);
        Spans::of(std::iter::once(range)).to_blob().to_vec()
    } else {
        u.arbitrary::<[u8; 12]>()?.to_vec()
    };
    Blob::new(bytes).map_err(|_| arbitrary::Error::IncorrectFormat)
}

fn intro(u: &mut Unstructured<'_>) -> Result<IntroId> {
    Ok(IntroId::numbered(u.int_in_range(1..=3)?))
}

/// Draws a usage record, and signs some of its receipts.
fn usage(
    u: &mut Unstructured<'_>,
    (id, version, reporter): (RecordId, VersionId, Guid),
    signed: &mut Signed,
) -> Result<UsageRecord> {
    let peers = (0..u.int_in_range(0..=3_u8)?).map(|_| peer(u, version, signed)).collect::<Result<Vec<_>>>()?;
    Ok(UsageRecord {
        id,
        reporter,
        side: if u.arbitrary()? { Side::Downloader } else { Side::Uploader },
        download: download(),
        version,
        seq: u.int_in_range(0..=7)?,
        state: if u.ratio(1, 8)? { UsageState::Completed } else { UsageState::Running },
        edge_bytes: u.arbitrary()?,
        peers: List::truncated(peers),
        elapsed_ms: 0,
        cause: None,
    })
}

/// Returns a client's claim about a peer, with a valid receipt, an invalid one, or none.
fn peer(u: &mut Unstructured<'_>, version: VersionId, signed: &mut Signed) -> Result<PeerBytes> {
    let (intro, uploader_key) = (intro(u)?, PublicKey::numbered(u.int_in_range(0..=2)?));
    let (seq, bytes) = (u.int_in_range(0..=7)?, u.arbitrary::<u32>()?.into());
    let receipt = Receipt { intro, download: download(), version, uploader_key, seq, bytes };
    let signature = match u.int_in_range(0..=3_u8)? {
        0 => Signature([0; 64]),
        1 => keys::sign(&uploader_key, SigningContext::Receipt, &receipt.to_bytes()),
        _ => {
            let most = signed.entry(intro).or_default();
            *most = (*most).max(bytes);
            keys::sign(&DOWNLOAD_KEY, SigningContext::Receipt, &receipt.to_bytes())
        }
    };
    let receipt = u.ratio(3, 4)?.then_some(ReceiptProof { uploader_key, seq, bytes, signature });
    Ok(PeerBytes { intro, key: uploader_key, bytes: u.arbitrary::<u32>()?.into(), receipt })
}

/// Checks the ledger with servers that send arbitrary messages and a database that refuses writes: it must
/// acknowledge only stored records, each on the connection that the record arrived on.
pub(crate) fn ledger_inputs(bytes: &[u8]) {
    let _ = play_ledger(&mut Unstructured::new(bytes));
}

fn play_ledger(u: &mut Unstructured<'_>) -> Result<()> {
    let cfg = ledger::Config { pending_max: 8, batch_max: 3, ..ledger::Config::new(keys::root(), keys::verify) };
    let (mut m, mut now, mut rng) = (Ledger::default(), Time::ZERO, Seeded::new(1));
    let (mut stores, mut came) = (BTreeMap::<ReqId, Vec<RecordId>>::new(), BTreeSet::new());
    let mut durable = BTreeSet::new();
    drive(&mut m, &cfg, now, &mut rng, Some(ledger::Input::WallClock { unix_ms: keys::WALL_MS }));
    while !u.is_empty() {
        step(u, &mut now)?;
        let conn = ConnId(u.int_in_range(0..=2)?);
        let name = *u.choose(&[Name(Role::Cn, 0), Name(Role::Edge, 0), Name(Role::Dn, 0)])?;
        let role = match name.0 {
            Role::Cn => ServerRole::Cn,
            Role::Edge => ServerRole::Edge,
            Role::Dn | Role::Ledger | Role::Client => ServerRole::Dn,
        };
        let input = match u.int_in_range(0..=9_u8)? {
            0 | 1 => Some(ledger::Input::Accepted { conn, key: keys::key(name) }),
            2 | 3 => Some(ledger::Input::Server { conn, msg: ToLedger::Hello(keys::cert(name, role)) }),
            n @ 4..=6 => {
                let msg = if n == 4 { u.arbitrary()? } else { ToLedger::Submit(anything(u, &mut Signed::new())?) };
                if let ToLedger::Submit(record) = &msg {
                    came.insert((conn, record.id()));
                }
                Some(ledger::Input::Server { conn, msg })
            }
            7 => Some(ledger::Input::Closed { conn }),
            8 => stores.pop_first().map(|(req, ids)| {
                let ok = u.ratio(2, 3).unwrap_or(true);
                durable.extend(ids.into_iter().filter(|_| ok));
                ledger::Input::Stored { req, ok }
            }),
            _ => None,
        };
        for output in drive(&mut m, &cfg, now, &mut rng, input) {
            match output {
                ledger::Output::Store { req, records } => {
                    assert!(stores.is_empty() && records.len() <= 3, "one batch at a time");
                    stores.insert(req, records.iter().map(LedgerRecord::id).collect());
                }
                ledger::Output::Send { conn, msg: FromLedger::Ack(ack) } => {
                    let right = |id: &RecordId| durable.contains(id) && came.contains(&(conn, *id));
                    assert!(ack.ids.iter().all(right), "acknowledged, and not durable");
                }
                ledger::Output::Send { .. }
                | ledger::Output::Close { .. }
                | ledger::Output::Count(_)
                | ledger::Output::Stopped => {}
            }
        }
        assert!(m.waiting() <= 8 + 3, "more than there is room for");
    }
    Ok(())
}

/// Checks an edge with arbitrary requests, a spool that refuses writes, an arbitrary ledger, and crashes: bytes that
/// count may leave only under a durable grant record, and no record may leave the spool unacknowledged.
pub(crate) fn edge_inputs(bytes: &[u8]) {
    let _ = play_edge(&mut Unstructured::new(bytes));
}

/// Simulated environment of the edge: its spool, its clients and its ledger.
#[derive(Default)]
struct Around {
    spool: Spool,
    saves: Vec<(ReqId, Batch)>,
    granted: Vec<Grant>,
    /// Grants under which bytes were requested, by request number.
    serving: BTreeMap<ReqId, Grant>,
    /// Downloads of which bytes were sent and counted; only these occur in later reports of sent bytes.
    counted: Vec<ServedGrant>,
    asked: u64,
    acked: BTreeSet<RecordId>,
    dialled: Option<ConnId>,
}

impl Around {
    /// Completes a write to the edge's spool, or fails it if not `ok`; returns the resulting input of the edge.
    fn saved(&mut self, req: ReqId, batch: Batch, ok: bool) -> edge::Input {
        if ok {
            assert!(batch.acked.iter().all(|id| self.acked.contains(id)), "a record is given up unacknowledged");
            self.spool.apply(batch);
        }
        edge::Input::Saved { req, ok }
    }

    /// Performs an output of the edge.
    fn did(&mut self, output: edge::Output) {
        match output {
            edge::Output::Save { req, batch } => self.saves.push((req, batch)),
            edge::Output::IssueGrant { grant, .. } => {
                self.granted.push(*grant);
            }
            edge::Output::Serve { req, counted } => {
                let Some(grant) = self.serving.remove(&req) else { panic!("an answer to nothing") };
                let id = GrantRecord::id_of(grant.download);
                let recorded = self.spool.records.contains_key(&id) || self.acked.contains(&id);
                assert!(
                    if counted { recorded } else { grant.is_edge_only() },
                    "bytes leave that peers may be paid for: counted {counted}, recorded {recorded}, {grant:?}"
                );
                self.counted.extend(counted.then(|| ServedGrant::of(&grant)));
            }
            edge::Output::Withhold { req } => {
                let withheld = self.serving.remove(&req);
                assert!(withheld.is_some_and(|grant| !grant.is_edge_only()), "withheld without need");
            }
            edge::Output::LedgerDial { conn } => self.dialled = Some(conn),
            edge::Output::LedgerSend { .. }
            | edge::Output::LedgerClose { .. }
            | edge::Output::DenyGrant { .. }
            | edge::Output::AnswerCompleted { .. }
            | edge::Output::AnswerProof { .. }
            | edge::Output::Prove { .. }
            | edge::Output::Counting(_)
            | edge::Output::Count(_)
            | edge::Output::GaveAway { .. }
            | edge::Output::Stopped => {}
        }
    }
}

fn play_edge(u: &mut Unstructured<'_>) -> Result<()> {
    let cert = keys::cert(Name(Role::Edge, 0), ServerRole::Edge);
    let cfg = edge::Config { counts_max: 3, ranges_max: 2, ..edge::Config::new(keys::root(), keys::verify, cert) };
    let (mut m, mut now, mut rng, mut around) = (Edge::default(), Time::ZERO, Seeded::new(1), Around::default());
    let mut counts_most = 3;
    let clock = |now: Time| edge::Input::WallClock { unix_ms: keys::WALL_MS + now.0 / 1000 };
    drive(&mut m, &cfg, now, &mut rng, Some(clock(now)));
    while !u.is_empty() {
        step(u, &mut now)?;
        if u.ratio(1, 32)? {
            m = Edge::default();
            let records = around.spool.records.values().cloned().collect();
            let counts = around.spool.counts.clone();
            (around.saves, around.dialled) = (Vec::new(), None);
            around.serving.clear();
            around.counted.clear();
            for input in [clock(now), edge::Input::Restored { records, counts }] {
                let out = drive(&mut m, &cfg, now, &mut rng, Some(input));
                out.into_iter().for_each(|o| around.did(o));
            }
            // restored counts are kept even beyond the limit
            counts_most = m.counting().max(3);
            continue;
        }
        let input = edge_input(u, &mut around)?;
        let out = drive(&mut m, &cfg, now, &mut rng, input);
        out.into_iter().for_each(|o| around.did(o));
        assert!(m.counting() <= counts_most, "more counts than there is room for");
        assert!(around.spool.records.is_empty() || m.records_waiting() > 0 || m.poll_timeout().is_some());
    }
    Ok(())
}

fn edge_input(u: &mut Unstructured<'_>, around: &mut Around) -> Result<Option<edge::Input>> {
    let conn = around.dialled.unwrap_or(ConnId(0));
    let (version, provider) = (VersionId::numbered(u.int_in_range(0..=1)?), ProviderId(1));
    let shown =
        if around.granted.is_empty() || u.ratio(1, 4)? { stranger(u)? } else { u.choose(&around.granted)?.clone() };
    let grant = ServedGrant::of(&shown);
    Ok(Some(match u.int_in_range(0..=11_u8)? {
        0 => edge::Input::GrantAsked(Box::new(asked(u, version)?)),
        1..=3 if !around.saves.is_empty() => {
            let (req, batch) = around.saves.remove(0);
            around.saved(req, batch, u.ratio(3, 4)?)
        }
        4 => edge::Input::LedgerOpened { conn },
        5 => edge::Input::LedgerClosed { conn },
        6 => {
            let ids: Vec<_> = around.spool.records.keys().copied().filter(|id| id.0[15] % 2 == 0).collect();
            around.acked.extend(ids.iter().copied());
            edge::Input::Ledger { conn, msg: FromLedger::Ack(LedgerAck { ids: List::truncated(ids) }) }
        }
        7 => {
            let msg: FromLedger = u.arbitrary()?;
            if let FromLedger::Ack(ack) = &msg {
                around.acked.extend(ack.ids.iter().copied());
            }
            edge::Input::Ledger { conn, msg }
        }
        8 => {
            let bytes = u.arbitrary::<u32>()?.into();
            around.asked += 1;
            around.serving.insert(ReqId(around.asked), shown.clone());
            edge::Input::SendRequested { req: ReqId(around.asked), grant: Box::new(shown), bytes }
        }
        9 => {
            let start = u64::from(u.arbitrary::<u32>()?);
            let range = start..start + u64::from(u.arbitrary::<u32>()?);
            let grant = Some(grant).filter(|grant| around.counted.contains(grant));
            edge::Input::BytesSent { grant, version, provider, range }
        }
        10 if around.counted.contains(&grant) => edge::Input::BytesNotSent { grant, bytes: u.arbitrary()? },
        _ => return Ok(None),
    }))
}

/// Returns a grant that another edge issued.
fn stranger(u: &mut Unstructured<'_>) -> Result<Grant> {
    let download = u.int_in_range(0..=5)?;
    Ok(Grant {
        download: DownloadId::numbered(download),
        guid: Guid::numbered(1),
        download_key: PublicKey::numbered(9),
        version: VersionId::numbered(download % 2),
        size: 1000,
        provider: ProviderId(1),
        path: Text::default(),
        policy: Policy::default(),
        max_peer_bytes: if download < 3 { 1000 } else { 0 },
        order_seed: 0,
        began_ms: 0,
        issued_ms: 0,
        expires_ms: 0,
        challenged: false,
    })
}

fn asked(u: &mut Unstructured<'_>, version: VersionId) -> Result<GrantAsked> {
    let key = PublicKey::numbered(u.int_in_range(0..=2)?);
    let object = ObjectFacts {
        provider: ProviderId(1),
        path: Text::default(),
        version,
        size: u.arbitrary::<u32>()?.into(),
        access: Access::Public,
        policy: Policy { peer_download: u.arbitrary()?, ..Policy::default() },
    };
    let (req, guid) = (ReqId(u.arbitrary()?), Guid::of(&key));
    Ok(GrantAsked {
        req,
        guid,
        key,
        download_key: PublicKey::numbered(9),
        object,
        token: None,
        version: None,
        renew: None,
        from: IpAddr::V4(Ipv4Addr::LOCALHOST),
        time_ms: keys::WALL_MS,
        nonce: u.arbitrary()?,
    })
}
