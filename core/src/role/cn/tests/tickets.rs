//! Tests of holder's tickets: which versions of a client's inventory reach the DNs, and what checking them costs.

use super::*;
use crate::accounting::tickets::tests::signed;
use crate::ids::Signature;
use crate::limits::{SHARES_PER_PEER_MAX, TICKETS_PAGE_MAX};
use crate::notice;
use crate::role::cn::{LEAD, Prices};
use crate::wire::control::TicketsRefused;
use crate::wire::notice::{Notice, Terms};
use crate::wire::records::{HolderTicket, SignedHolderTicket};
use core::sync::atomic::{AtomicU32, Ordering};

const V: VersionId = VersionId([1; 32]);

fn version(n: u32) -> VersionId {
    VersionId::numbered(n)
}

/// Returns the versions that the DN is told a client shares.
fn listed(out: &[Output]) -> Vec<VersionId> {
    let of = |m: &&ToDn| if let ToDn::Shares(s) = m { s.add.iter().map(|s| s.version).collect() } else { Vec::new() };
    to_dn(out).iter().flat_map(of).collect()
}

/// Returns the versions whose tickets client 1 is told are refused.
fn refused(out: &[Output]) -> Vec<VersionId> {
    let of = |m: &ToClient| if let ToClient::TicketsRefused(r) = m { r.versions.to_vec() } else { Vec::new() };
    to_client(out, 1).into_iter().flat_map(of).collect()
}

fn ignored(out: &[Output]) -> usize {
    out.iter().filter(|o| **o == Output::Count(Metric::HoldingIgnored)).count()
}

fn ticket() -> SignedHolderTicket {
    ticket_of(Guid::of(&key(1)), V, NOW_MS)
}

/// Shares [`V`] with a ticket in a new session of client 1, and returns the outputs.
fn show(b: &mut Bench<Cn>, held: Held) -> Vec<Output> {
    join(b, 1);
    let out = say(b, 1, inventory(1, true, &[held]));
    b.input(Input::ClientClosed { conn: ConnId(1) });
    out
}

#[test]
fn a_ticket_of_another_client_or_version_or_none_at_all_is_refused() {
    let (mut b, ..) = whole();
    assert_eq!(listed(&show(&mut b, Held::new(true, &ticket(), 0))), [V]);
    let other_guid = Held::new(true, &ticket_of(Guid::of(&key(2)), V, NOW_MS), 0);
    let other_version = Held { version: V, ..Held::new(true, &ticket_of(Guid::of(&key(1)), version(2), NOW_MS), 0) };
    let no_certificate = Held::new(true, &ticket(), 1);
    let mut longer = Held::new(true, &ticket(), 0);
    longer.ticket.until_ms = u64::MAX;
    let unissued = Held::new(true, &ticket_of(Guid::of(&key(1)), V, NOW_MS + 60_000), 0);
    for held in [other_guid, other_version, no_certificate, longer, unissued] {
        let out = show(&mut b, held.clone());
        assert_eq!((listed(&out), refused(&out), ignored(&out)), (vec![], vec![V], 1), "{held:?}");
    }
}

#[test]
fn a_ticket_by_no_edge_of_the_operator_is_refused() {
    let (mut b, ..) = whole();
    let mut self_made = cert(ServerRole::Edge, key(1));
    self_made.signature = fake_sign(&key(1), SigningContext::Cert, &self_made.body.to_bytes());
    for cert in [cert(ServerRole::Cn, TICKET_KEY), self_made] {
        let signature = fake_sign(&cert.body.key, SigningContext::HolderTicket, &ticket().ticket.to_bytes());
        let held = Held::new(true, &SignedHolderTicket { signature, ..ticket() }, 0);
        let (certs, add) = (List::truncated([cert]), List::truncated([held]));
        join(&mut b, 1);
        let page = Inventory { seq: 1, reset: true, last: true, certs, add, remove: List::default() };
        let out = say(&mut b, 1, ToCn::Inventory(page));
        assert_eq!((listed(&out), refused(&out)), (vec![], vec![V]));
        b.input(Input::ClientClosed { conn: ConnId(1) });
    }
}

#[test]
fn valid_tickets_are_listed_beside_refused_ones_and_long_after_grants() {
    let (mut b, ..) = whole();
    b.input(Input::WallClock { unix_ms: NOW_MS + 300 * 86_400_000 });
    join(&mut b, 1);
    let stolen = Held::new(true, &ticket_of(Guid::of(&key(2)), version(2), NOW_MS), 0);
    let out = say(&mut b, 1, inventory(1, true, &[held(1, version(1)), stolen, held(1, version(3))]));
    assert_eq!((listed(&out), refused(&out)), (vec![version(1), version(3)], vec![version(2)]));
}

#[test]
fn what_has_ended_or_may_not_be_shared_is_not_listed() {
    let (mut b, ..) = whole();
    let ends = |until_ms| Held::new(true, &signed(HolderTicket { until_ms, ..ticket().ticket }), 0);
    assert_eq!(listed(&show(&mut b, ends(NOW_MS + 1_000))), [V]);
    let out = show(&mut b, ends(NOW_MS));
    assert_eq!((listed(&out), refused(&out), ignored(&out)), (vec![], vec![], 1), "its client knows that it has ended");
    let publish = |b: &mut Bench<Cn>, serial, terms: &Terms| {
        let sign = |bytes: &[u8]| fake_sign(&EDGE_KEY, SigningContext::Notice, bytes);
        let notice = Notice::about_version(V, serial, terms);
        b.input(Input::Notices(vec![notice::sign(&notice, cert(ServerRole::Edge, EDGE_KEY), sign)]));
        listed(&show(b, ends(NOW_MS + 1_000)))
    };
    let policy = Policy::default();
    assert_eq!(publish(&mut b, 1, &Terms::Policy(Policy { uploads_max: 9, ..policy.clone() })), [V]);
    assert!(publish(&mut b, 2, &Terms::Policy(Policy { peer_upload: false, ..policy.clone() })).is_empty());
    assert!(publish(&mut b, 3, &Terms::Policy(Policy { expires_ms: NOW_MS, ..policy.clone() })).is_empty());
    assert_eq!(publish(&mut b, 4, &Terms::Policy(policy)), [V]);
    assert!(publish(&mut b, 5, &Terms::Withdrawn).is_empty());
}

/// Number of signatures that [`counted_verify`] has checked.
static CHECKED: AtomicU32 = AtomicU32::new(0);

fn counted_verify(key: &PublicKey, context: SigningContext, message: &[u8], signature: &Signature) -> bool {
    CHECKED.fetch_add(1, Ordering::Relaxed);
    fake_verify(key, context, message, signature)
}

#[test]
fn a_signature_is_checked_once_and_false_ones_only_as_they_are_paid() {
    let (mut b, dn, _) = whole();
    join(&mut b, 1);
    b.cfg.verify = counted_verify;
    let valid: Vec<Held> = (0..300).map(|n| held(1, version(n))).collect();
    for seq in 1..=20 {
        assert_eq!(listed(&say(&mut b, 1, inventory(seq, true, &valid))).len(), 300, "each RE-ADD lists all");
    }
    assert_eq!(CHECKED.swap(0, Ordering::Relaxed), 301, "one for each version, and one for the certificate");
    let stolen = |n| Held::new(true, &ticket_of(Guid::of(&key(2)), version(n), NOW_MS), 0);
    let page: Vec<Held> = (1_000..).map(stolen).take(TICKETS_PAGE_MAX).collect();
    let out: Vec<Output> = (21..=320).flat_map(|seq| say(&mut b, 1, inventory(seq, true, &page))).collect();
    assert!(listed(&out).is_empty() && refusal(&out, 1).is_none());
    let checked = CHECKED.load(Ordering::Relaxed);
    assert!((100..=120).contains(&checked), "{checked} of {} false tickets", 300 * TICKETS_PAGE_MAX);
    let queried = say(&mut b, 1, query());
    assert_eq!(failed(&queried, 1), None, "queries have a budget of their own");
    // the client is asked again once it may show tickets again, and what is valid is listed then
    for _ in 0..13 {
        b.input(Input::Directory { conn: dn, msg: FromDn::Pong });
        say(&mut b, 1, ToCn::Ping);
        let out = b.wait(secs(5));
        if to_client(&out, 1).iter().any(|m| matches!(m, ToClient::ReaddRequest(_))) {
            return assert_eq!(listed(&say(&mut b, 1, inventory(321, true, &valid))).len(), 300);
        }
    }
    panic!("nobody asks for the inventory");
}

#[test]
fn the_tickets_of_the_largest_inventory_are_paid_for_at_once() {
    let all = u32::try_from(SHARES_PER_PEER_MAX).expect("small");
    assert!(Prices::USUAL.ticket * all + Prices::USUAL.false_ticket <= LEAD);
}

#[test]
fn a_page_of_refused_tickets_makes_no_work_for_dns() {
    let (mut b, ..) = whole();
    join(&mut b, 1);
    say(&mut b, 1, inventory(1, true, &[]));
    let stolen = Held::new(true, &ticket_of(Guid::of(&key(2)), V, NOW_MS), 0);
    let out = say(&mut b, 1, inventory(2, false, &[stolen]));
    assert!(to_dn(&out).is_empty());
    let all = [V; TICKETS_PAGE_MAX];
    assert!(ToClient::TicketsRefused(TicketsRefused { versions: List::truncated(all) }).to_bytes().len() < 16_384);
}
