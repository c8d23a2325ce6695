//! Tests of the uploading side; the name of each test states a rule.

use super::{Config, Input, Output, Uploads};
use crate::accounting::certs::tests::{cert, fake_sign, trust};
use crate::accounting::conduct::End;
use crate::accounting::introductions;
use crate::accounting::receipts::CreditRule;
use crate::bench::assert_each_clause_fires;
use crate::content::{Bitfield, Layout, Policy};
use crate::ids::{ConnId, DownloadId, IntroId, PieceIndex, PublicKey, VersionId, XferId};
use crate::limits::HAVE_PAGE_MAX;
use crate::seeded::Seeded;
use crate::session::Wall;
use crate::swarm::outcome::CloseReason;
use crate::wire::peer::{PeerHello, PeerMsg, PieceRequest, RefuseCode};
use crate::wire::records::{Introduction, Receipt, ServerRole, SignedIntroduction, SignedReceipt, SigningContext};
use crate::wire::{PROTOCOL, Wire as _};
use crate::{Cx, Machine, Time};
use alloc::vec::Vec;
use core::time::Duration;

const CN_KEY: PublicKey = PublicKey([0xc; 32]);
const OWN: PublicKey = PublicKey([0xa; 32]);
const NOW_MS: u64 = 50_000;
const PIECE: u64 = 65_536;

struct Lab {
    up: Uploads,
    cfg: Config,
    now: Time,
    out: Vec<Output>,
}

fn downloader() -> PublicKey {
    PublicKey::numbered(1)
}

fn intro() -> Introduction {
    Introduction {
        id: IntroId::numbered(1),
        download: DownloadId::numbered(1),
        version: VersionId::numbered(1),
        downloader_key: downloader(),
        uploader_key: OWN,
        connect_before_ms: NOW_MS + 10_000,
        serve_until_ms: NOW_MS + 60_000,
        cap_bytes: 10 * PIECE,
    }
}

fn signed(intro: Introduction) -> SignedIntroduction {
    let intros = alloc::vec![intro];
    let signature = fake_sign(&CN_KEY, SigningContext::Introductions, &introductions::root(&intros).0);
    introductions::sign(intros, signature, &cert(ServerRole::Cn, CN_KEY)).remove(0)
}

fn hello(intro: SignedIntroduction) -> PeerMsg {
    PeerMsg::Hello(PeerHello { protocol: PROTOCOL, intro })
}

impl Lab {
    /// Shares a version of 16 pieces, of which the first 12 are durable.
    fn new() -> Self {
        Self::under(Policy::default())
    }

    fn under(policy: Policy) -> Self {
        let cfg = Config { requests_max: 3, ..Config::new(trust(), OWN) };
        let mut lab = Self { up: Uploads::new(true), cfg, now: Time(1), out: Vec::new() };
        lab.input(Input::Wall(Wall::showing(NOW_MS, lab.now)));
        let layout = Layout::new(16 * PIECE, 65_536).expect("a layout");
        let have = Bitfield::from_bytes(16, &[0xff, 0xf0]).expect("16 bits");
        lab.input(Input::Share { version: VersionId::numbered(1), layout, have, policy, spent: 0 });
        lab
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let cx = &mut Cx { now: self.now, cfg: &self.cfg, rng: &mut Seeded::new(1), out: &mut out };
        self.up.handle_input(cx, input);
        self.up.check();
        self.out.extend(out.clone());
        out
    }

    /// Advances the clock by `seconds`.
    fn wait(&mut self, seconds: u64) -> Vec<Output> {
        self.now = self.now.after(Duration::from_secs(seconds));
        let mut out = Vec::new();
        let mut rng = Seeded::new(1);
        self.up.handle_timeout(&mut Cx { now: self.now, cfg: &self.cfg, rng: &mut rng, out: &mut out });
        out
    }

    /// Connects a downloader with `key`, which presents `intro`.
    fn connect(&mut self, n: u64, key: PublicKey, intro: SignedIntroduction) -> Vec<Output> {
        self.input(Input::Accepted { conn: ConnId(n), key });
        self.input(Input::Message { conn: ConnId(n), msg: hello(intro) })
    }

    fn served(&mut self) -> Self {
        let mut lab = Self { up: self.up.clone(), cfg: self.cfg, now: self.now, out: Vec::new() };
        lab.connect(1, downloader(), signed(intro()));
        lab
    }

    fn ask(&mut self, xfer: u64, piece: u32, first_block: u16, blocks: u16) -> Option<RefuseCode> {
        let request = PieceRequest { piece: PieceIndex(piece), first_block, blocks, want_leaves: true };
        let out = self.input(Input::Request { conn: ConnId(1), xfer: XferId(xfer), request });
        match &out[..] {
            [.., Output::Serve { .. }] => None,
            [Output::Refuse { why, .. }, ..] => Some(*why),
            other => panic!("neither served nor refused: {other:?}"),
        }
    }
}

fn closed(out: &[Output], n: u64) -> Option<CloseReason> {
    let close = |o: &Output| if let Output::Close { conn, why } = o { Some((*conn, *why)) } else { None };
    out.iter().filter_map(close).find(|(conn, _)| *conn == ConnId(n)).map(|(_, why)| why)
}

#[test]
fn an_introduced_peer_is_welcomed_with_the_have_map() {
    let mut lab = Lab::new();
    let out = lab.connect(1, downloader(), signed(intro()));
    assert!(matches!(&out[0], Output::Send { msg: PeerMsg::Welcome(w), .. } if w.requests_max == 3));
    assert!(matches!(&out[1], Output::Send { msg: PeerMsg::HaveMap(m), .. } if m.bits[..] == [0xff, 0xf0] && m.last));
    assert_eq!(out.len(), 2);
}

#[test]
fn an_invalid_introduction_is_refused() {
    let wrong: [(&str, PublicKey, SignedIntroduction); 6] = [
        ("another's key", PublicKey::numbered(2), signed(intro())),
        ("another uploader", downloader(), signed(Introduction { uploader_key: PublicKey::numbered(9), ..intro() })),
        ("too late", downloader(), signed(Introduction { connect_before_ms: NOW_MS, ..intro() })),
        ("served no more", downloader(), signed(Introduction { serve_until_ms: NOW_MS, ..intro() })),
        ("a higher cap than signed", downloader(), {
            let mut s = signed(intro());
            s.intro.cap_bytes += 1;
            s
        }),
        ("an edge's signature", downloader(), {
            let mut s = signed(intro());
            s.cert = cert(ServerRole::Edge, CN_KEY);
            s
        }),
    ];
    for (what, key, intro) in wrong {
        let mut lab = Lab::new();
        let out = lab.connect(1, key, intro);
        assert_eq!(closed(&out, 1), Some(CloseReason::NotIntroduced), "{what}");
        assert_eq!(out.len(), 1, "{what}");
        assert_eq!(lab.up.connections(), 0);
    }
}

#[test]
fn without_a_known_time_no_introduction_is_accepted() {
    let mut lab = Lab::new();
    lab.up.wall = None;
    let out = lab.connect(1, downloader(), signed(intro()));
    assert_eq!(closed(&out, 1), Some(CloseReason::NotIntroduced));
}

#[test]
fn a_peer_without_introduction_is_closed_after_five_seconds() {
    let mut lab = Lab::new();
    lab.input(Input::Accepted { conn: ConnId(1), key: downloader() });
    lab.now = lab.up.poll_timeout().expect("a deadline");
    assert_eq!(lab.now, Time(1).after(Duration::from_secs(5)));
    let mut out = Vec::new();
    let mut rng = Seeded::new(1);
    lab.up.handle_timeout(&mut Cx { now: lab.now, cfg: &lab.cfg, rng: &mut rng, out: &mut out });
    assert_eq!(closed(&out, 1), Some(CloseReason::NotIntroduced));
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let mut lab = Lab::new();
    lab.cfg.connections_max = 2;
    (1..=2).for_each(|n| assert_eq!(lab.input(Input::Accepted { conn: ConnId(n), key: downloader() }), []));
    let out = lab.input(Input::Accepted { conn: ConnId(3), key: downloader() });
    assert_eq!(closed(&out, 3), Some(CloseReason::Full));
}

#[test]
fn only_blocks_of_durable_pieces_are_served() {
    let mut lab = Lab::new().served();
    assert_eq!(lab.ask(1, 0, 0, 4), None);
    assert_eq!(lab.ask(2, 12, 0, 4), Some(RefuseCode::NotHere));
    assert_eq!(lab.ask(3, 16, 0, 1), Some(RefuseCode::NotHere));
    assert_eq!(lab.ask(4, 1, 3, 2), Some(RefuseCode::NotHere));
    assert_eq!(lab.ask(5, 1, 0, 0), Some(RefuseCode::NotHere));
    assert_eq!(lab.ask(6, 1, u16::MAX, u16::MAX), Some(RefuseCode::NotHere));
    lab.input(Input::Have { version: VersionId::numbered(1), piece: PieceIndex(12) });
    assert_eq!(lab.ask(7, 12, 0, 4), None);
}

#[test]
fn requests_of_one_connection_are_limited() {
    let mut lab = Lab::new().served();
    (1..=3).for_each(|x| assert_eq!(lab.ask(x, 0, 0, 1), None));
    assert_eq!(lab.ask(4, 0, 0, 1), Some(RefuseCode::TooMany));
    lab.input(Input::Served { xfer: XferId(1), bytes: 16_384 });
    assert_eq!(lab.ask(5, 0, 0, 1), None);
}

#[test]
fn an_introductions_byte_cap_spans_all_its_connections() {
    let mut lab = Lab::new().served();
    for x in 0..10 {
        assert_eq!(lab.ask(x, u32::try_from(x).expect("small"), 0, 4), None);
        // bytes that were not sent are not counted
        assert_eq!(
            lab.input(Input::Served { xfer: XferId(x), bytes: if x == 9 { 0 } else { PIECE } }).len(),
            usize::from(x != 9)
        );
    }
    assert_eq!(lab.ask(10, 10, 0, 4), None);
    lab.input(Input::Served { xfer: XferId(10), bytes: PIECE });
    assert_eq!(lab.ask(11, 11, 0, 4), Some(RefuseCode::NotAllowed));
    lab.input(Input::Closed { conn: ConnId(1) });
    lab.connect(1, downloader(), signed(intro()));
    assert_eq!(lab.ask(12, 11, 0, 4), Some(RefuseCode::NotAllowed), "coming again does not help");
}

#[test]
fn an_expired_introduction_is_not_served() {
    let mut lab = Lab::new().served();
    lab.now = lab.now.after(Duration::from_secs(60));
    assert_eq!(lab.ask(1, 0, 0, 4), Some(RefuseCode::NotAllowed));
}

#[test]
fn an_object_is_uploaded_as_often_as_its_provider_allows() {
    let mut lab = Lab::under(Policy { uploads_max: 1, upload_rate_max: 5, ..Policy::default() }).served();
    for x in 0..16 {
        assert_eq!(lab.ask(x, 0, 0, 4), if x < 10 { None } else { Some(RefuseCode::NotAllowed) });
        lab.input(Input::Served { xfer: XferId(x), bytes: PIECE });
        if x == 9 {
            let other = Introduction { id: IntroId::numbered(2), ..intro() };
            lab.input(Input::Closed { conn: ConnId(1) });
            lab.connect(1, downloader(), signed(Introduction { cap_bytes: 6 * PIECE, ..other }));
            (20..26).for_each(|x| {
                assert_eq!(lab.ask(x, 0, 0, 4), None);
                lab.input(Input::Served { xfer: XferId(x), bytes: PIECE });
            });
        }
    }
    assert!(lab.out.iter().any(|o| matches!(o, Output::Serve { rate_max: 5, .. })));
}

#[test]
fn turning_uploads_off_closes_connections_and_counts_sent_bytes() {
    let mut lab = Lab::new().served();
    lab.ask(1, 0, 0, 4);
    let out = lab.input(Input::Allow(false));
    assert!(matches!(out[0], Output::Refuse { xfer: XferId(1), why: RefuseCode::NotAllowed }));
    assert_eq!(closed(&out, 1), Some(CloseReason::UploadsOff));
    assert_eq!((lab.up.connections(), lab.up.serving().count()), (0, 0));
    let out = lab.input(Input::Served { xfer: XferId(1), bytes: 16_384 });
    let [Output::Sent { bytes: 16_384, last: true, .. }, Output::Ended { intro: of, end }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((&**of, *end), (&signed(intro()), End { owed: 16_384, receipted: 0 }));
    let out = lab.input(Input::Accepted { conn: ConnId(2), key: downloader() });
    assert_eq!(closed(&out, 2), Some(CloseReason::UploadsOff));
}

#[test]
fn an_unexpected_message_closes_the_connection() {
    let mut lab = Lab::new().served();
    let out = lab.input(Input::Message { conn: ConnId(1), msg: hello(signed(intro())) });
    assert_eq!(closed(&out, 1), Some(CloseReason::Violation));
    lab.input(Input::Accepted { conn: ConnId(1), key: downloader() });
    assert_eq!(lab.ask(1, 0, 0, 1), Some(RefuseCode::NotAllowed));
    assert_eq!(lab.up.connections(), 0, "a request before any introduction");
}

#[test]
fn a_newer_connection_of_an_introduction_replaces_the_older() {
    let mut lab = Lab::new().served();
    let out = lab.connect(2, downloader(), signed(intro()));
    assert_eq!(closed(&out, 1), Some(CloseReason::Done));
    assert!(lab.up.knows(ConnId(2)) && lab.up.connections() == 1);
}

#[test]
fn a_version_that_is_no_longer_shared_is_no_longer_served() {
    let mut lab = Lab::new().served();
    lab.ask(1, 0, 0, 4);
    let out = lab.input(Input::Unshare { version: VersionId::numbered(1) });
    assert_eq!(closed(&out, 1), Some(CloseReason::Done));
    assert_eq!(lab.up.serving().count(), 0);
}

fn receipt(seq: u32, bytes: u64) -> PeerMsg {
    let i = intro();
    let (intro, uploader_key) = (i.id, i.uploader_key);
    let receipt = Receipt { intro, download: i.download, version: i.version, uploader_key, seq, bytes };
    let signature = fake_sign(&downloader(), SigningContext::Receipt, &receipt.to_bytes());
    PeerMsg::Receipt(SignedReceipt { receipt, signature })
}

#[test]
fn a_missing_receipt_ends_the_introduction_and_is_reported() {
    let mut lab = Lab::new();
    lab.cfg = Config {
        credit: CreditRule { first: PIECE, ..CreditRule::PROTOCOL },
        receipt_within: Duration::from_secs(4),
        ..lab.cfg
    };
    let mut lab = lab.served();
    assert_eq!(lab.ask(1, 0, 0, 4), None);
    lab.input(Input::Served { xfer: XferId(1), bytes: PIECE });
    let request = |n: u32| {
        let request = PieceRequest { piece: PieceIndex(n), first_block: 0, blocks: 4, want_leaves: true };
        Input::Request { conn: ConnId(1), xfer: XferId(2 + u64::from(n)), request }
    };
    assert_eq!(lab.input(request(1)), [], "it waits");
    lab.now = lab.now.after(Duration::from_secs(3));
    lab.input(Input::Message { conn: ConnId(1), msg: receipt(1, 1) });
    let out = lab.input(Input::ReceiptKept { intro: IntroId::numbered(1), bytes: 1 });
    assert!(matches!(out[..], [Output::Serve { .. }]), "one request may go beyond the credit: {out:?}");
    lab.input(Input::Served { xfer: XferId(3), bytes: PIECE });
    assert_eq!(lab.input(request(2)), [], "it waits again");
    assert_eq!(lab.up.poll_timeout(), Some(lab.now.after(Duration::from_secs(4))));
    let out = lab.wait(4);
    assert_eq!(closed(&out, 1), Some(CloseReason::Stalled));
    let end = End { owed: 2 * PIECE - 1, receipted: 1 };
    assert!(out.iter().any(|o| matches!(o, Output::Ended { end: told, .. } if *told == end)), "{out:?}");
    // the downloader connects again and gives the missing receipt: the uploader withdraws its report
    lab.connect(1, downloader(), signed(intro()));
    lab.input(Input::Message { conn: ConnId(1), msg: receipt(2, 2 * PIECE) });
    let out = lab.input(Input::Closed { conn: ConnId(1) });
    assert!(out.iter().any(|o| matches!(o, Output::Ended { end: End { owed: 0, .. }, .. })), "{out:?}");
}

#[test]
fn a_fully_receipted_introduction_is_not_reported() {
    let mut lab = Lab::new().served();
    lab.ask(1, 0, 0, 4);
    lab.input(Input::Served { xfer: XferId(1), bytes: PIECE });
    lab.input(Input::Message { conn: ConnId(1), msg: receipt(1, PIECE) });
    let out = lab.input(Input::Closed { conn: ConnId(1) });
    assert!(matches!(out[..], [Output::Sent { .. }]), "{out:?}");
}

#[test]
fn a_large_have_map_goes_in_pages() {
    let pieces = u32::try_from(HAVE_PAGE_MAX * 8 + 9).expect("small");
    let pages = super::have_map(&Bitfield::full(pieces));
    assert_eq!(
        pages.iter().map(|p| (p.first.0, p.bits.len(), p.last)).collect::<Vec<_>>(),
        [(0, HAVE_PAGE_MAX, false), (pieces - 9, 2, true),]
    );
    assert_eq!(super::have_map(&Bitfield::empty(0)).len(), 1);
}

#[test]
fn each_clause_about_uploads_fires() {
    const SERVING: ConnId = ConnId(1);
    const WAITING: ConnId = ConnId(2);
    fn account(up: &mut Uploads) -> &mut crate::accounting::receipts::Account {
        &mut up.accounts.get_mut(&IntroId::numbered(1)).expect("an account").account
    }
    let mut lab = Lab::new().served();
    assert_eq!(lab.ask(1, 0, 0, 4), None);
    lab.input(Input::Accepted { conn: WAITING, key: downloader() });
    assert_each_clause_fires(
        &lab.up,
        Uploads::check,
        &[
            ("a connection that has ended has no deadline", |up| _ = up.conns.remove(&WAITING)),
            ("there is no connection while uploads are off", |up| up.allowed = false),
            ("a new connection must show an introduction in time", |up| up.hello_due.clear(WAITING)),
            ("a receipt is awaited if a request waits for it", |up| up.receipt_due.set(SERVING, Some(Time(9)))),
            ("only shared versions are served", |up| up.shares.clear()),
            ("the bytes of each connection are accounted for", |up| up.accounts.clear()),
            ("the requests of a connection that are served are counted", |up| up.active.clear()),
            ("an introduction has one connection", |up| {
                let twin = super::Conn::Serving { intro: intro(), active: 0, held: Default::default() };
                up.conns.insert(ConnId(3), twin);
            }),
            ("no more is sent than an introduction allows", |up| account(up).spent = u64::MAX),
            ("no more is sent than was promised", |up| account(up).promised = 0),
            ("no receipt is taken for more than was promised", |up| account(up).taken.1 = PIECE + 1),
        ],
    );
}
