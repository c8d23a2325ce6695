//! Clients that lie. Each lie is told to the production machines and rules: an uploader's [`Uploads`], and settlement.
//! The bill never exceeds the smaller claim or the ceiling, and a liar's unpaid bytes stay within the credit rule (run
//! with `--nocapture` for the figures).

use std::time::Duration;
use swarmedge_core::accounting::conduct::{APART, Conduct, End};
use swarmedge_core::accounting::introductions;
use swarmedge_core::accounting::logs::unsigned;
use swarmedge_core::accounting::possession::Prover;
use swarmedge_core::accounting::receipts::CreditRule;
use swarmedge_core::accounting::settlement::{Bill, Book};
use swarmedge_core::accounting::{Spans, Trust};
use swarmedge_core::content::{Bitfield, Layout, Policy};
use swarmedge_core::ids::{
    ConnId, DownloadId, Guid, IntroId, PieceIndex, ProviderId, PublicKey, RecordId, ReqId, VersionId, XferId,
};
use swarmedge_core::limits::PART_LEN;
use swarmedge_core::role::client::io::CloseReason;
use swarmedge_core::role::cn;
use swarmedge_core::role::edge::io::{Completed, ServedGrant};
use swarmedge_core::role::edge::{self, Edge};
use swarmedge_core::session::Wall;
use swarmedge_core::swarm::Uploads;
use swarmedge_core::swarm::upload::{Config, Input, Output};
use swarmedge_core::wire::peer::{PeerHello, PeerMsg, PieceRequest};
use swarmedge_core::wire::records::{
    EdgeRecord, GrantRecord, Introduction, LedgerRecord, LogEvent, LogRecord, Offered, OfferedPeer, PeerBytes, Receipt,
    ReceiptProof, ServedRecord, ServerRole, Side, SignedReceipt, SigningContext, UsageRecord, UsageState,
};
use swarmedge_core::wire::{List, PROTOCOL, Text, Wire as _, frame};
use swarmedge_core::{Rng as _, Time};
use swarmedge_models::bench::Bench;
use swarmedge_models::rng::Seeded;
use swarmedge_models::scenario::{Name, Role};
use swarmedge_models::sim::keys;

const MIB: u64 = 1 << 20;
/// Size of the object, 256 MiB: the least over which the cost of receipts is judged.
const SIZE: u64 = 256 * MIB;
const CONN: ConnId = ConnId(1);
const KEY_D: PublicKey = PublicKey([0xd; 32]);
const KEY_U: PublicKey = PublicKey([0xa; 32]);
const VERSION: VersionId = VersionId([2; 32]);
const DOWNLOAD: DownloadId = DownloadId([1; 16]);
const NOW_MS: u64 = keys::WALL_MS;

fn intro(n: u32) -> Introduction {
    Introduction {
        id: IntroId::numbered(n),
        download: DOWNLOAD,
        version: VERSION,
        downloader_key: KEY_D,
        uploader_key: KEY_U,
        connect_before_ms: NOW_MS + 10_000,
        serve_until_ms: NOW_MS + 3_600_000,
        cap_bytes: SIZE,
    }
}

fn receipt(intro: &Introduction, seq: u32, bytes: u64) -> Receipt {
    let (download, version, uploader_key) = (intro.download, intro.version, intro.uploader_key);
    Receipt { intro: intro.id, download, version, uploader_key, seq, bytes }
}

fn signed(receipt: Receipt) -> SignedReceipt {
    let signature = keys::sign(&KEY_D, SigningContext::Receipt, &receipt.to_bytes());
    SignedReceipt { receipt, signature }
}

/// Honest uploader, and the bytes that a liar got from it.
struct Victim {
    up: Bench<Uploads>,
    got: u64,
    requests: u64,
    closed: Option<CloseReason>,
}

impl Victim {
    fn new(n: u32) -> Self {
        let trust = Trust { root: keys::root(), verify: keys::verify };
        let mut up = Bench::new(Uploads::new(true), Config::new(trust, KEY_U));
        up.input(Input::Wall(Wall::showing(NOW_MS, up.now)));
        let layout = Layout::new(SIZE, 1 << 20).expect("a layout");
        let have = Bitfield::full(layout.pieces());
        up.input(Input::Share { version: VERSION, layout, have, policy: Policy::default(), spent: 0 });
        let intros = vec![intro(n)];
        let cn = keys::cert(Name(Role::Cn, 0), ServerRole::Cn);
        let signature = keys::sign(&cn.body.key, SigningContext::Introductions, &introductions::root(&intros).0);
        let shown = introductions::sign(intros, signature, &cn).remove(0);
        up.input(Input::Accepted { conn: CONN, key: KEY_D });
        let hello = PeerMsg::Hello(PeerHello { protocol: PROTOCOL, intro: shown });
        up.input(Input::Message { conn: CONN, msg: hello });
        Self { up, got: 0, requests: 0, closed: None }
    }

    /// Passes an input to the uploader. Outgoing bytes are sent and receipts are durable at once.
    fn tell(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.up.input(input) {
                match output {
                    Output::Serve { xfer, blocks, .. } => {
                        let bytes = u64::from(blocks.end - blocks.start) * 16_384;
                        self.got += bytes;
                        inputs.push(Input::Served { xfer, bytes });
                    }
                    Output::Receipted { intro, proof, .. } => {
                        inputs.push(Input::ReceiptKept { intro, bytes: proof.bytes });
                    }
                    Output::Close { why, .. } => self.closed = Some(why),
                    Output::Send { .. } | Output::Refuse { .. } | Output::Sent { .. } | Output::Ended { .. } => {}
                    Output::Spent { .. } | Output::UsedUp { .. } => {}
                }
            }
        }
    }

    /// Requests the next MiB from the uploader.
    fn ask(&mut self) {
        let piece = PieceIndex(u32::try_from(self.requests).expect("few"));
        let request = PieceRequest { piece, first_block: 0, blocks: 64, want_leaves: false };
        self.requests += 1;
        self.tell(Input::Request { conn: CONN, xfer: XferId(self.requests), request });
    }

    /// Requests as much as the uploader serves.
    fn take_all(&mut self) {
        for _ in 0..64 {
            self.ask();
        }
    }

    /// Waits until the uploader closes the introduction; returns how it ended.
    fn wait_for_disconnect(&mut self) -> Option<End> {
        let out = self.up.wait(Duration::from_secs(15));
        let ended = |o| if let Output::Ended { end, .. } = o { Some(end) } else { None };
        out.into_iter().find_map(ended)
    }

    fn show(&mut self, receipt: SignedReceipt) {
        self.tell(Input::Message { conn: CONN, msg: PeerMsg::Receipt(receipt) });
    }
}

#[test]
fn without_receipts_an_introduction_gives_one_mib() {
    let rule = CreditRule::PROTOCOL;
    let (mut conduct, mut now, mut all, mut victims) = (Conduct::default(), Time::ZERO, 0, 0);
    while !conduct.is_edge_only(&rule) {
        victims += 1;
        let mut victim = Victim::new(victims);
        victim.take_all();
        assert_eq!(victim.got, MIB);
        // the liar waits for bytes beyond its credit; the uploader closes and reports it
        let end = victim.wait_for_disconnect().expect("the uploader reports it");
        assert_eq!(end, End { owed: MIB, receipted: 0 });
        now = now.after(APART);
        conduct.ended(&rule, now, IntroId::numbered(victims), end);
        all += victim.got;
    }
    assert_eq!((victims, all), (3, 3 * MIB));
    println!("griefing without receipts, one uploader after another: {all} bytes a download, then the edge alone");
    let (mut conduct, mut all) = (Conduct::default(), 0);
    for n in 0.. {
        if conduct.is_edge_only(&rule) {
            break;
        }
        conduct.ended(&rule, now, IntroId::numbered(n), End { owed: MIB, receipted: 0 });
        all += MIB;
    }
    assert!(all <= 3 * rule.most);
    println!(
        "griefing without receipts, all at once: {all} bytes a download, beyond introductions that are still open"
    );
    // uploaders close after 15 seconds: until the DN hears of the first, a session gets the credit of all peers that
    // its affordable queries name
    let cn = cn::Config::new(keys::root(), keys::verify, keys::cert(Name(Role::Cn, 0), ServerRole::Cn));
    let paid = cn::LEAD + Duration::from_secs(15);
    let queries = u64::try_from(paid.as_millis() / cn.prices.query.as_millis()).expect("few");
    let open = queries * u64::from(cn.peers_max) * rule.credit(0);
    assert!(open <= 480 * MIB, "{open}");
    println!(
        "griefing without receipts, from everybody before anybody speaks: {open} bytes a session, then the edge alone"
    );
}

#[test]
fn bytes_without_receipt_stay_within_the_earned_credit() {
    let mut victim = Victim::new(1);
    for seq in 1..=6 {
        victim.ask();
        victim.show(signed(receipt(&intro(1), seq, u64::from(seq) * 16_384)));
    }
    let receipted = 6 * 16_384;
    victim.take_all();
    let free = victim.got - receipted;
    assert!(free <= CreditRule::PROTOCOL.credit(receipted) + receipted / 8 + MIB, "{free}");
    println!("griefing with receipts that are too small: {free} bytes an introduction");
    // worst case: receipts in full until the credit is at its maximum, then none
    let mut victim = Victim::new(1);
    let (mut seq, mut receipted) = (0, 0);
    while CreditRule::PROTOCOL.credit(receipted) < CreditRule::PROTOCOL.most {
        victim.ask();
        (seq, receipted) = (seq + 1, victim.got);
        victim.show(signed(receipt(&intro(1), seq, receipted)));
    }
    victim.take_all();
    let free = victim.got - receipted;
    assert!(free <= CreditRule::PROTOCOL.most + receipted / 8 + MIB && free <= 3 * receipted, "{free}");
    println!("griefing after honest receipts for {receipted} bytes: {free} bytes an introduction");
}

#[test]
fn an_honest_downloader_never_waits_and_receipts_cost_little() {
    let mut victim = Victim::new(1);
    let rule = CreditRule::PROTOCOL;
    let (mut seq, mut receipted, mut cost) = (0, 0, 0);
    while victim.got < SIZE {
        let before = victim.got;
        victim.ask();
        assert_eq!(victim.got, before + MIB, "served at once");
        if victim.got - receipted >= rule.due(receipted) {
            (seq, receipted) = (seq + 1, victim.got);
            let r = signed(receipt(&intro(1), seq, receipted));
            cost += frame(&PeerMsg::Receipt(r.clone())).len() as u64;
            victim.show(r);
        }
    }
    assert_eq!(victim.closed, None);
    assert!(cost * 10_000 <= SIZE * 2, "more than 0.02 %");
    println!("receipts: {seq}, {cost} bytes for {SIZE} bytes from a peer, {} parts a million", cost * 1_000_000 / SIZE);
}

#[test]
fn replayed_forged_swapped_or_oversized_receipts_end_the_connection() {
    let good = receipt(&intro(1), 2, 32_768);
    let lies = [
        ("of another introduction", signed(Receipt { intro: IntroId::numbered(2), ..good.clone() })),
        ("of another version", signed(Receipt { version: VersionId([3; 32]), ..good.clone() })),
        ("of another download", signed(Receipt { download: DownloadId([3; 16]), ..good.clone() })),
        ("of another uploader", signed(Receipt { uploader_key: PublicKey([3; 32]), ..good.clone() })),
        ("the same again", signed(Receipt { seq: 1, bytes: 16_384, ..good.clone() })),
        ("fewer bytes than before", signed(Receipt { bytes: 1, ..good.clone() })),
        ("more than was sent", signed(Receipt { bytes: 2 * MIB, ..good.clone() })),
        ("signed by another key", {
            let signature = keys::sign(&KEY_U, SigningContext::Receipt, &good.to_bytes());
            SignedReceipt { receipt: good.clone(), signature }
        }),
    ];
    for (what, lie) in lies {
        let mut victim = Victim::new(1);
        victim.ask();
        victim.show(signed(receipt(&intro(1), 1, 16_384)));
        assert_eq!(victim.closed, None, "an honest receipt");
        victim.show(lie);
        assert_eq!(victim.closed, Some(CloseReason::Violation), "{what}");
    }
}

/// Records of one download, as the ledger gets them.
struct Case {
    edge: u64,
    /// Bytes that the downloader claims, per introduction.
    got: Vec<u64>,
    /// Bytes that the downloader has signed for, per introduction.
    signed: Vec<u64>,
    /// Claims of uploaders: reporter, introduction, bytes, receipt.
    filed: Vec<(u32, u32, u64, Option<ReceiptProof>)>,
    /// Number of introductions that CNs have made, numbered from 0.
    introduced: u32,
    /// Most peer bytes that may be billed by the download's first grant.
    ceiling: u64,
}

fn proof(n: u32, bytes: u64) -> ReceiptProof {
    let s = signed(receipt(&intro(n), 1, bytes));
    ReceiptProof { uploader_key: KEY_U, seq: 1, bytes, signature: s.signature }
}

fn usage(id: u32, reporter: u32, side: Side, peers: Vec<PeerBytes>) -> LedgerRecord {
    LedgerRecord::Usage(unsigned(UsageRecord {
        id: RecordId::numbered(id),
        reporter: Guid::numbered(reporter),
        side,
        download: DOWNLOAD,
        version: VERSION,
        seq: id,
        state: UsageState::Completed,
        edge_bytes: 0,
        peers: List::truncated(peers),
        elapsed_ms: 0,
        cause: None,
    }))
}

impl Case {
    /// Returns a case in which the introductions delivered these bytes and both sides say so.
    fn honest(edge: u64, delivered: &[u64]) -> Self {
        let filed = (0..).zip(delivered).map(|(n, &bytes)| (100 + n, n, bytes, Some(proof(n, bytes)))).collect();
        let introduced = u32::try_from(delivered.len()).expect("few");
        Self { edge, got: delivered.to_vec(), signed: delivered.to_vec(), filed, introduced, ceiling: SIZE }
    }

    fn bill(&self) -> Bill {
        self.book().bill(keys::verify, 1)
    }

    fn book(&self) -> Book {
        let mut book = Book::strict();
        let peer = |n| OfferedPeer { intro: IntroId::numbered(n), upload_key: KEY_U };
        let peers = List::truncated((0..self.introduced).map(peer));
        let event = LogEvent::Offered(Offered { download: DOWNLOAD, version: VERSION, peers });
        book.add(
            LedgerRecord::Log(LogRecord { id: RecordId::numbered(9), at_ms: 1, guid: Guid::numbered(1), event }),
            1,
        );
        let granted = GrantRecord {
            id: RecordId::numbered(1),
            download: DOWNLOAD,
            guid: Guid::numbered(1),
            download_key: KEY_D,
            version: VERSION,
            size: SIZE,
            provider: ProviderId(1),
            path: Text::default(),
            issued_ms: 1,
            max_peer_bytes: self.ceiling,
            challenged: false,
            proof: None,
        };
        book.add(LedgerRecord::Granted(granted), 1);
        let edge = EdgeRecord {
            id: RecordId::numbered(2),
            edge: PublicKey::numbered(1),
            download: Some(DOWNLOAD),
            guid: Some(Guid::numbered(1)),
            version: VERSION,
            provider: ProviderId(1),
            seq: 1,
            unique_bytes: self.edge,
            total_bytes: self.edge,
        };
        book.add(LedgerRecord::Edge(edge), 1);
        let got =
            |(n, &bytes): (u32, &u64)| PeerBytes { intro: IntroId::numbered(n), key: KEY_U, bytes, receipt: None };
        book.add(usage(3, 1, Side::Downloader, (0..).zip(&self.got).map(got).collect()), 1);
        for (id, (who, n, bytes, receipt)) in (10..).zip(&self.filed) {
            let (intro, receipt) = (IntroId::numbered(*n), receipt.clone());
            let peer = PeerBytes { intro, key: KEY_D, bytes: *bytes, receipt };
            book.add(usage(id, *who, Side::Uploader, vec![peer]), 1);
        }
        book
    }

    /// Returns the most that may be billed: per introduction the smaller of signed and claimed bytes, in all at most
    /// the bytes that edges did not send, and the granted ceiling.
    fn bound(&self) -> u64 {
        let introduced = usize::try_from(self.introduced).expect("few");
        let smaller: u64 = self.signed.iter().zip(&self.got).take(introduced).map(|(s, g)| s.min(g)).sum();
        smaller.min(SIZE - self.edge.min(SIZE)).min(self.ceiling)
    }
}

#[test]
fn no_lie_raises_a_bill_beyond_the_smaller_claim_or_the_ceiling() {
    let mut dice = Seeded::new(7);
    let (mut single, mut lies, mut capped) = (0, [0_u32; 8], 0);
    for _ in 0..2_000 {
        let mut below = |n: u64| u64::from(dice.below(u32::try_from(n).expect("small")));
        let delivered: Vec<u64> = (0..1 + below(4)).map(|_| below(40) * MIB).collect();
        let mut honest = Case::honest(below(100) * MIB, &delivered);
        let mut case = Case::honest(honest.edge, &delivered);
        if below(3) == 0 {
            honest.ceiling = below(100) * MIB;
            case.ceiling = honest.ceiling;
            capped += u32::from(honest.ceiling < delivered.iter().sum());
        }
        let at = usize::try_from(below(delivered.len() as u64)).expect("small");
        let (n, more) = (u32::try_from(at).expect("small"), (1 + below(300)) * MIB);
        let lie = usize::try_from(below(8)).expect("small");
        lies[lie] += 1;
        match lie {
            // an uploader claims more, with its true receipt
            0 => case.filed[at].2 += more,
            // an uploader changes its receipt
            1 => case.filed[at].3.as_mut().expect("a proof").bytes += more,
            // others file the receipt too, or for another introduction
            2 => case.filed.extend((0..9).map(|who| (200 + who, n, more, honest.filed[at].3.clone()))),
            3 => case.filed.push((300, n + 1, more, honest.filed[at].3.clone())),
            // the downloader claims more, or less, than its receipts say
            4 => case.got[at] += more,
            5 => case.got[at] /= 2,
            // both agree on bytes of an introduction that no CN made
            6 => {
                let made_up = u32::try_from(delivered.len()).expect("few");
                case.got.push(more);
                case.signed.push(more);
                case.filed.push((400, made_up, more, Some(proof(made_up, more))));
            }
            // both agree on more bytes of a true introduction
            _ => {
                (case.got[at], case.signed[at]) = (delivered[at] + more, delivered[at] + more);
                case.filed[at].2 += more;
                case.filed[at].3 = Some(proof(n, delivered[at] + more));
            }
        }
        let (was, is) = (honest.bill().peers_billed, case.bill());
        assert_eq!(was, honest.bound(), "honest books are billed in full");
        assert!(is.peers_billed <= case.bound(), "lie {lie}: {is:?}");
        single += u32::from(lie < 7 && is.peers_billed > was);
        assert!(is.peers_billed >= was || lie == 5 || lie == 1, "lie {lie} took from others: {is:?}");
    }
    assert!(lies.iter().all(|&n| n > 100), "every lie was tried");
    assert!(capped > 100, "also where more is delivered than was granted");
    assert_eq!(single, 0, "one side alone has raised a bill");
    println!("2,000 books with a lie each; raised by one side alone: {single}");
}

#[test]
fn new_bytes_are_receipted_within_five_seconds() {
    assert_eq!(CreditRule::PROTOCOL.every, Duration::from_secs(5));
}

/// Returns an edge's record of the ranges it sent, in one life of its count.
fn sent_by(edge: u32, life: u64, ranges: &[std::ops::Range<u64>]) -> LedgerRecord {
    let spans = Spans::of(ranges.iter().cloned());
    LedgerRecord::Served(ServedRecord {
        id: RecordId::numbered(1_000 + edge),
        edge: PublicKey::numbered(edge),
        download: DOWNLOAD,
        guid: Guid::numbered(1),
        version: VERSION,
        provider: ProviderId(1),
        life,
        seq: 1,
        sent: spans.to_blob(),
        total_bytes: spans.bytes(),
        unsure_bytes: 0,
    })
}

#[test]
fn failover_and_resumption_never_raise_a_bill_above_one_size() {
    let mut dice = Seeded::new(11);
    for _ in 0..500 {
        let mut below = |n: u64| u64::from(dice.below(u32::try_from(n).expect("small")));
        let delivered = below(200) * MIB;
        let mut book = Case::honest(0, &[delivered]).book();
        // edges send bytes that other edges or peers have delivered, in separate lives
        for n in 0..1 + below(4) {
            let start = below(256) * MIB;
            let range = start..(start + (1 + below(256)) * MIB).min(SIZE);
            book.add(sent_by(u32::try_from(n % 2).expect("small"), n, &[range]), 1);
        }
        let b = book.bill(keys::verify, 1);
        assert!(b.edge_unique + b.peers_billed <= SIZE, "{b:?}");
        assert_eq!(b.peers_billed, delivered.min(SIZE - b.edge_unique), "and what was delivered is billed");
    }
}

#[test]
fn records_of_a_stranger_do_not_change_a_bill() {
    let honest = Case::honest(0, &[40 * MIB]);
    let mut book = honest.book();
    // another reporter claims fewer and more bytes, with the highest number
    for (id, bytes) in [(70, 0), (71, 250 * MIB)] {
        let peer = PeerBytes { intro: IntroId::numbered(0), key: KEY_U, bytes, receipt: None };
        book.add(usage(id, 666, Side::Downloader, vec![peer]), 1);
    }
    assert_eq!(book.bill(keys::verify, 1).peers_billed, 40 * MIB);
}

/// Returns how many of 400 clients that hold `held` of a hundred parts pass an edge's challenge.
fn passed_with_parts(held: u64) -> u32 {
    let cert = keys::cert(Name(Role::Edge, 0), ServerRole::Edge);
    let mut edge = Bench::new(Edge::default(), edge::Config::new(keys::root(), keys::verify, cert));
    edge.input(edge::Input::WallClock { unix_ms: NOW_MS });
    let (size, mut passed, mut dice) = (100 * PART_LEN, 0, Seeded::new(held + 1));
    for n in 0..400 {
        let grant = ServedGrant { download: DownloadId::numbered(n), guid: Guid::numbered(n) };
        let done = Completed { req: ReqId(1), grant, version: VERSION, size, challenged: true, recheck: false };
        let out = edge.input(edge::Input::Completed(Box::new(done)));
        let posed = |o| if let edge::Output::AnswerCompleted { challenge, .. } = o { challenge } else { None };
        let challenge = out.into_iter().find_map(posed).expect("it was drawn");
        // missing parts are made up
        let proof = |has: &mut dyn FnMut() -> bool| {
            let mut prover = Prover::new(&challenge);
            challenge.parts.iter().for_each(|part| prover.add(&[if has() { 1 } else { 0 }, part.to_be_bytes()[7]]));
            prover.finish()
        };
        let shown = proof(&mut || u64::from(dice.below(100)) < held);
        let out = edge.input(edge::Input::Proof { req: ReqId(2), grant, proof: shown });
        let work = out.into_iter().find_map(|o| if let edge::Output::Prove { req, .. } = o { Some(req) } else { None });
        let own = Some(proof(&mut || true));
        let out = edge.input(edge::Input::Proven { req: work.expect("it is checked"), own });
        passed += u32::from(out.contains(&edge::Output::Count(edge::Metric::ChallengePassed)));
    }
    passed
}

#[test]
fn a_client_without_the_bytes_fails_the_challenge() {
    assert_eq!((passed_with_parts(100), passed_with_parts(0)), (400, 0));
    // with half of the parts, 0.4 % are expected to pass
    let (half, most) = (passed_with_parts(50), passed_with_parts(90));
    assert!(half <= 10, "{half}");
    assert!((120..230).contains(&most), "{most}, where 43 % are expected");
    println!("possession: of 400 that lack half {half} pass, of those that lack a tenth {most}");
}
