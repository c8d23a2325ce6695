use super::server::{Config, Input, Output};
use super::*;
use crate::accounting::certs::tests::{cert, fake_sign, trust};
use crate::bench::assert_each_clause_fires;
use crate::content::Policy;
use crate::ids::{ConnId, PublicKey, VersionId};
use crate::limits::{NOTICES_UNACKED_MAX, NOTICES_WAITING_MAX};
use crate::machine::{Cx, Machine, Time};
use crate::seeded::Seeded;
use crate::wire::control::ToClient;
use crate::wire::notice::Terms;
use std::vec;
use std::vec::Vec;

const NOW: u64 = 5_000;
const EDGE: PublicKey = PublicKey([3; 32]);
const CONN: ConnId = ConnId(1);

fn version(n: u32) -> VersionId {
    VersionId::numbered(n)
}

fn known(n: u32, serial: u64) -> Known {
    Known { subject: Subject::version(version(n)), serial }
}

/// Returns a notice with the upload rate as its only content, signed by `key` with a certificate for `role`.
fn signed_as(role: ServerRole, key: PublicKey, n: u32, serial: u64) -> SignedNotice {
    let policy = Policy { upload_rate_max: serial, ..Policy::default() };
    let notice = Notice::about_version(version(n), serial, &Terms::Policy(policy));
    sign(&notice, cert(role, key), |bytes| fake_sign(&key, SigningContext::Notice, bytes))
}

fn signed(n: u32, serial: u64) -> SignedNotice {
    signed_as(ServerRole::Edge, EDGE, n, serial)
}

#[test]
fn a_notice_counts_only_with_a_certified_edges_signature() {
    let good = signed(1, 7);
    assert_eq!(check(&trust(), NOW, &good).map(|n| n.serial), Ok(7));
    assert_eq!(check(&trust(), 999, &good), Err(NoticeError::NotVouchedFor), "the certificate is not valid yet");
    let cn = signed_as(ServerRole::Cn, EDGE, 1, 7);
    assert_eq!(check(&trust(), NOW, &cn), Err(NoticeError::NotVouchedFor), "a CN signs no policy");
    let forged = SignedNotice { notice: signed(1, 8).notice, ..good.clone() };
    assert_eq!(check(&trust(), NOW, &forged), Err(NoticeError::NotVouchedFor), "another serial number");
    let foreign = SignedNotice { cert: cert(ServerRole::Edge, PublicKey::numbered(9)), ..good.clone() };
    assert_eq!(check(&trust(), NOW, &foreign), Err(NoticeError::NotVouchedFor), "another edge's signature");
    let other = sign(&Notice::about_version(version(1), 7, &Terms::Withdrawn), good.cert.clone(), |bytes| {
        fake_sign(&EDGE, SigningContext::Grant, bytes)
    });
    assert_eq!(check(&trust(), NOW, &other), Err(NoticeError::NotVouchedFor), "a signature for another purpose");
}

#[test]
fn a_notice_that_cannot_be_understood_is_refused_and_breaks_nothing() {
    let resign = |notice: Notice| {
        sign(&notice, cert(ServerRole::Edge, EDGE), |bytes| fake_sign(&EDGE, SigningContext::Notice, bytes))
    };
    let good = Notice::about_version(version(1), 7, &Terms::Withdrawn);
    let later_kind = Notice { subject: Subject { kind: 200, ..good.subject }, ..good.clone() };
    let no_terms = Notice { body: Blob::new(vec![9]).expect("short"), ..good.clone() };
    let no_serial = Notice { serial: 0, ..good.clone() };
    for bad in [later_kind, no_terms, no_serial] {
        assert_eq!(check(&trust(), NOW, &resign(bad)), Err(NoticeError::Unknown));
    }
    let noise = SignedNotice { notice: Blob::new(vec![1, 2, 3]).expect("short"), ..resign(good) };
    assert_eq!(check(&trust(), NOW, &noise), Err(NoticeError::Unknown));
}

#[test]
fn a_holder_takes_newer_notices_only_and_acknowledges_durable_ones_only() {
    let mut holder = Holder::default();
    let receive = |holder: &mut Holder, n, serial| holder.receive(&trust(), NOW, &signed(n, serial));
    assert_eq!(receive(&mut holder, 1, 5), Received::Refused(NoticeError::NotHeld));
    assert!(holder.hold(known(1, 4)));
    assert_eq!(receive(&mut holder, 1, 4), Received::Durable(known(1, 4)));
    assert!(matches!(receive(&mut holder, 1, 6), Received::Newer(n) if n.serial == 6));
    for serial in [5, 6] {
        let again = receive(&mut holder, 1, serial);
        assert!(matches!(again, Received::NotDurable(n) if n.serial == 6), "its write may have failed");
    }
    assert_eq!((holder.serial(known(1, 0).subject), holder.durable()), (Some(6), vec![known(1, 4)]));
    assert_eq!(holder.outdated(&[known(1, 6), known(2, 9)]), [known(1, 4)]);
    assert_eq!(holder.saved(known(1, 6)), Some(known(1, 6)));
    assert_eq!(receive(&mut holder, 1, 5), Received::Durable(known(1, 6)));
    assert_eq!(holder.outdated(&[known(1, 6)]), []);
    assert!(!holder.hold(known(1, 2)), "held already");
    assert_eq!(holder.durable(), [known(1, 6)], "a lower serial number takes nothing back");
    holder.check();
    holder.release(known(1, 0).subject);
    assert_eq!(holder.saved(known(1, 6)), None);
}

/// A server of notices with its clock.
struct Bench {
    server: Server,
    now: Time,
}

impl Bench {
    fn new() -> Self {
        Self { server: Server::default(), now: Time::ZERO }
    }

    fn run(&mut self, f: impl FnOnce(&mut Server, &mut Cx<'_, Server>)) -> Vec<Output> {
        let mut out = Vec::new();
        let mut rng = Seeded::new(1);
        f(&mut self.server, &mut Cx { now: self.now, cfg: &Config::new(trust()), rng: &mut rng, out: &mut out });
        self.server.check();
        out
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.run(|server, cx| server.handle_input(cx, input))
    }

    fn publish(&mut self, notices: Vec<SignedNotice>) -> Vec<Output> {
        self.input(Input::Published { now_ms: NOW, notices })
    }

    fn held(&mut self, held: Vec<Known>) -> Vec<u64> {
        serials(&self.input(Input::Held { conn: CONN, held }))
    }

    fn wait(&mut self) -> Vec<u64> {
        let Some(at) = self.server.poll_timeout() else { return Vec::new() };
        self.now = at;
        let out = self.run(Server::handle_timeout);
        serials(&out)
    }
}

/// Returns the serial numbers of the notices that were sent.
fn serials(out: &[Output]) -> Vec<u64> {
    let serial = |o: &Output| match o {
        Output::Send { msg: ToClient::Notice(n), .. } => check(&trust(), NOW, n).map(|n| n.serial).ok(),
        _ => None,
    };
    out.iter().filter_map(serial).collect()
}

fn changed(out: &[Output]) -> Vec<Known> {
    let list = |o: &Output| match o {
        Output::Send { msg: ToClient::NoticesChanged(list), .. } => list.notices.to_vec(),
        _ => Vec::new(),
    };
    out.iter().flat_map(list).collect()
}

#[test]
fn a_new_notice_is_told_to_all_and_sent_to_holders_until_durable() {
    let mut b = Bench::new();
    b.input(Input::Opened(CONN));
    assert_eq!(b.held(vec![known(1, 0)]), [] as [u64; 0], "there is no notice yet");
    assert_eq!(changed(&b.publish(vec![signed(1, 5), signed(2, 6)])), [known(1, 5), known(2, 6)]);
    assert_eq!(b.publish(vec![signed(1, 5), signed(1, 4)]), [], "nothing newer");
    assert_eq!(b.held(vec![known(1, 0)]), [5]);
    assert_eq!(b.held(vec![known(1, 0)]), [] as [u64; 0], "it is on its way");
    assert_eq!(b.wait(), [5]);
    b.publish(vec![signed(1, 9)]);
    assert_eq!(b.wait(), [9], "the newest is sent again, not the one before");
    assert_eq!(b.held(vec![known(1, 5)]), [] as [u64; 0], "an acknowledgement of an older one ends nothing");
    assert_eq!(b.wait(), [9]);
    assert_eq!(b.held(vec![known(1, 9)]), [] as [u64; 0]);
    assert_eq!((b.wait(), b.server.poll_timeout()), (Vec::new(), None));
}

#[test]
fn each_newer_notice_is_sent_at_once_and_as_often_as_the_first() {
    let tries = usize::from(Config::new(trust()).tries);
    let mut b = Bench::new();
    b.publish(vec![signed(1, 5)]);
    b.input(Input::Opened(CONN));
    assert_eq!(b.held(vec![known(1, 0)]), [5]);
    for _ in 1..tries {
        assert_eq!(b.wait(), [5], "the client's disk refuses it");
    }
    b.publish(vec![signed(1, 9)]);
    assert_eq!(b.held(vec![known(1, 0)]), [9], "the client reports that its own is older");
    assert_eq!(b.held(vec![known(1, 0)]), [] as [u64; 0], "it is on its way");
    b.wait();
    // announced, but no report has come yet
    b.publish(vec![signed(1, 12)]);
    for _ in 0..tries {
        assert_eq!(b.wait(), [12]);
    }
    assert_eq!((b.wait(), b.server.poll_timeout()), (Vec::new(), None));
}

#[test]
fn a_notice_is_sent_a_few_times_in_a_session_and_again_in_the_next() {
    let mut b = Bench::new();
    b.publish(vec![signed(1, 5)]);
    b.input(Input::Opened(CONN));
    let mut sent = b.held(vec![known(1, 0)]).len();
    while b.server.poll_timeout().is_some() {
        sent += b.wait().len();
    }
    assert_eq!(sent, usize::from(Config::new(trust()).tries));
    b.input(Input::Closed(CONN));
    b.input(Input::Opened(CONN));
    assert_eq!(b.held(vec![known(1, 0)]), [5]);
}

#[test]
fn a_forged_notice_reaches_nobody() {
    let mut b = Bench::new();
    b.input(Input::Opened(CONN));
    let forged = SignedNotice { notice: signed(1, 8).notice, ..signed(1, 7) };
    assert_eq!(b.publish(vec![forged]), [Output::Refused(NoticeError::NotVouchedFor)]);
    assert_eq!(b.held(vec![known(1, 0)]), [] as [u64; 0]);
}

#[test]
fn what_one_session_can_make_wait_is_bounded_and_comes_in_small_numbers() {
    let mut b = Bench::new();
    let all = 0..u32::try_from(NOTICES_WAITING_MAX).expect("few") + 9;
    b.publish(all.clone().map(|n| signed(n, 5)).collect());
    b.input(Input::Opened(CONN));
    assert_eq!(b.held(all.clone().map(|n| known(n, 0)).collect()).len(), NOTICES_UNACKED_MAX);
    let mut sent = NOTICES_UNACKED_MAX;
    for n in all {
        sent += b.held(vec![known(n, 5)]).len();
    }
    assert_eq!((sent, b.server.poll_timeout()), (NOTICES_WAITING_MAX, None));
}

#[test]
fn the_oldest_notice_goes_when_there_are_too_many() {
    let mut b = Bench::new();
    let max = u32::try_from(crate::limits::NOTICES_MAX).expect("few");
    b.publish((0..=max).map(|n| signed(n, u64::from(n) + 1)).collect());
    assert_eq!((b.server.terms(version(0)), b.server.serial(known(max, 0).subject)), (None, u64::from(max) + 1));
}

#[test]
fn each_clause_about_notices_fires() {
    let mut b = Bench::new();
    b.publish(vec![signed(1, 5)]);
    b.input(Input::Opened(CONN));
    b.held(vec![known(1, 0)]);
    assert_each_clause_fires(&b.server, Machine::check, &Server::CORRUPTIONS);
    let mut holder = Holder::default();
    holder.hold(known(1, 4));
    let clauses: [(&str, fn(&mut Holder)); 2] = [
        ("no newer notice is durable than counts", Holder::corrupt),
        ("a notice that counts is durable or at hand", Holder::forget_unsaved),
    ];
    assert_each_clause_fires(&holder, Holder::check, &clauses);
}
