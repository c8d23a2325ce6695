//! Tests of prices: each kind of message is sent in masses, with full directories, and the resulting outputs are
//! counted.

use super::*;
use crate::limits::{SHARES_PER_PEER_MAX, TICKETS_PAGE_MAX};
use crate::role::cn::{LEAD, Prices};
use crate::wire::control::{Introduce, ReaddRequest, Unreceipted};

/// Returns a CN as [`super::whole`] does, which takes every signature for right and checks tickets for nothing.
fn whole() -> (Bench<Cn>, ConnId, ConnId) {
    let (mut b, dn, ledger) = super::whole();
    b.cfg.tickets_max = 0;
    b.cfg.verify = |_, _, _, _| true;
    (b.cfg.prices.ticket, b.cfg.prices.false_ticket) = (Duration::ZERO, Duration::ZERO);
    (b, dn, ledger)
}

/// Number of pages of the largest possible inventory.
const PAGES: u64 = SHARES_PER_PEER_MAX.div_ceil(TICKETS_PAGE_MAX) as u64;

/// Returns page `n` of a large inventory.
fn page(seq: u64, reset: bool, n: u64) -> ToCn {
    let from = usize::try_from(n).expect("small") * TICKETS_PAGE_MAX;
    let versions = (from..from + TICKETS_PAGE_MAX).map(|n| VersionId::numbered(u32::try_from(n).expect("small")));
    let one = held(1, VersionId::numbered(0));
    inventory(seq, reset, &versions.map(|version| Held { version, ..one.clone() }).collect::<Vec<_>>())
}

fn update(uploads: bool, udp: bool, epoch: u32) -> ToCn {
    ToCn::Update(Update { uploads, nat: NatDescriptor { epoch, udp, ..NatDescriptor::default() } })
}

/// Returns a CN whose client 1 has registered the largest possible inventory.
fn full() -> (Bench<Cn>, ConnId) {
    let (mut b, dn, _) = whole();
    join(&mut b, 1);
    for seq in 1..=PAGES {
        let out = say(&mut b, 1, page(seq, seq == 1, seq));
        assert_eq!(to_dn(&out).len(), 1, "the largest inventory is paid for");
    }
    (b, dn)
}

fn peers_sent(out: &[Output]) -> Vec<(bool, bool)> {
    let peer = |m: &&ToDn| if let ToDn::Peer(e) = m { Some((e.uploads, e.nat.udp)) } else { None };
    to_dn(out).iter().filter_map(peer).collect()
}

/// Advances the time, while a DN and a client keep their connections alive.
fn pass(b: &mut Bench<Cn>, dn: ConnId, by: Duration) -> Vec<Output> {
    let mut out = Vec::new();
    let end = b.now.after(by);
    while b.now < end {
        out.extend(b.wait(end.since(b.now).min(secs(5))));
        b.input(Input::Directory { conn: dn, msg: FromDn::Pong });
        say(b, 1, ToCn::Ping);
    }
    out
}

/// Sends a message `times` times at once and returns the outputs.
fn flood(b: &mut Bench<Cn>, msg: &ToCn, times: u32) -> Vec<Output> {
    (0..times).flat_map(|_| say(b, 1, msg.clone())).collect()
}

/// Counts the outputs that make work for other servers, and the messages to clients other than refusals.
fn work(out: &[Output]) -> usize {
    let is_work = |o: &&Output| match o {
        Output::ClientSend { msg, .. } => !matches!(msg, ToClient::QueryFailed(_)),
        Output::DirectorySend { .. } | Output::LedgerSend { .. } | Output::OpenGrant { .. } | Output::Sign { .. } => {
            true
        }
        _ => false,
    };
    out.iter().filter(is_work).count()
}

#[test]
fn an_update_that_changes_nothing_ends_at_the_cn() {
    let (mut b, _) = full();
    let first = say(&mut b, 1, update(false, true, 1));
    assert_eq!(peers_sent(&first), [(false, true)]);
    let out = flood(&mut b, &update(false, true, 1), 10_000);
    assert!(out.is_empty(), "{:?}", out.first());
    // an update with an older epoch changes nothing either
    assert!(say(&mut b, 1, update(false, false, 0)).is_empty());
}

#[test]
fn alternating_updates_reach_dns_only_as_often_as_they_are_paid() {
    let (mut b, dn) = full();
    pass(&mut b, dn, secs(30));
    let mut sent = Vec::new();
    for n in 0..1_200 {
        // twenty updates a second for a minute
        let out = say(&mut b, 1, update(n % 2 == 0, true, 1));
        sent.extend(peers_sent(&out));
        sent.extend(peers_sent(&pass(&mut b, dn, Duration::from_millis(50))));
    }
    assert!(sent.len() <= 130, "{}", sent.len());
    sent.dedup();
    assert!((1..=5).contains(&sent.len()), "{}: each moves all that it shares", sent.len());
}

#[test]
fn the_newest_state_reaches_the_dns_in_the_end() {
    let (mut b, dn) = full();
    for n in 0..20 {
        say(&mut b, 1, update(n % 2 == 0, true, 1));
    }
    let out = say(&mut b, 1, update(true, true, 2));
    assert!(peers_sent(&out).is_empty() && refusal(&out, 1).is_none());
    let sent = peers_sent(&pass(&mut b, dn, secs(76)));
    assert_eq!(sent.last(), Some(&(true, true)));
    assert_eq!(sent.len(), 1, "once, whatever was between");
}

#[test]
fn a_client_without_uploads_is_not_introduced_even_if_its_update_waits() {
    let (mut b, dn) = full();
    for n in 0..20 {
        say(&mut b, 1, update(n % 2 == 0, true, 1));
    }
    assert!(peers_sent(&say(&mut b, 1, update(false, true, 1))).is_empty());
    let introduce = Introduce {
        intro: introductions::tests::answer(vec![introductions::tests::intro(1)]).remove(0),
        nat: NatDescriptor::default(),
        ticket: None,
    };
    let deliver = Deliver { session: SessionId(0), from: Route { link: 1, session: SessionId(7) }, introduce };
    let out = b.input(Input::Directory { conn: dn, msg: FromDn::Deliver(deliver) });
    assert!(to_client(&out, 1).is_empty(), "{out:?}");
}

#[test]
fn updates_within_a_class_reach_the_dns_at_once() {
    let (mut b, _) = full();
    for n in 0..30 {
        let nat = NatDescriptor { epoch: 1, hairpin: n % 2 == 0, ..NatDescriptor::default() };
        let out = say(&mut b, 1, ToCn::Update(Update { uploads: true, nat }));
        assert_eq!(peers_sent(&out).len(), 1, "{n}");
    }
}

#[test]
fn a_flood_of_requests_does_not_hold_up_accounting() {
    let (mut b, ..) = whole();
    join(&mut b, 1);
    for n in 0..1_000 {
        say(&mut b, 1, query());
        say(&mut b, 1, update(n % 2 == 0, true, 1));
        say(&mut b, 1, ToCn::Opened(Opened { intro: IntroId::numbered(n) }));
    }
    assert_eq!(submitted(&say(&mut b, 1, logged(1, 1))), [RecordId::numbered(1)]);
    assert_eq!(to_client(&say(&mut b, 1, ToCn::Ping), 1), [&ToClient::Pong]);
}

#[test]
fn each_kind_of_message_makes_no_more_work_than_it_pays_for() {
    let intro = introductions::tests::answer(vec![introductions::tests::intro(1)]).remove(0);
    let attempt = Attempt { failure: None, rung: Rung::Reflexive, probes: 1, took_ms: 1 };
    let prices = Prices::USUAL;
    let removal = |seq| Inventory {
        seq,
        reset: false,
        last: true,
        certs: List::default(),
        add: List::default(),
        remove: List::truncated([VersionId::numbered(1)]),
    };
    let kinds: [(&dyn Fn(u32) -> ToCn, Duration); 9] = [
        (&|_| query(), prices.query),
        (&|n| ToCn::Inventory(removal(PAGES + u64::from(n) + 1)), prices.version),
        (&|n| update(true, false, n + 2), prices.update),
        (&|n| ToCn::Opened(Opened { intro: IntroId::numbered(n) }), prices.step),
        (&|n| ToCn::Outcome(Outcome { intro: IntroId::numbered(n), attempt: attempt.clone() }), prices.step),
        (&|n| logged(n, 1), prices.record),
        (&|_| ToCn::Unreceipted(Unreceipted { intro: intro.clone(), owed: 1, receipted: 0 }), prices.record),
        (&|_| ToCn::Ping, prices.ping),
        (&|_| ToCn::Pong, prices.ping),
    ];
    for (msg, price) in kinds {
        let (mut b, dn) = full();
        pass(&mut b, dn, secs(30));
        let most = usize::try_from(LEAD.as_micros() / price.as_micros()).expect("few");
        let out: Vec<Output> = (0..5_000).flat_map(|n| say(&mut b, 1, msg(n))).collect();
        assert_eq!(refusal(&out, 1), None, "{:?}: nobody's session ends for it", msg(0));
        assert!(work(&out) <= most.min(5_000), "{:?}: {} of {most}", msg(0), work(&out));
        assert!(b.machine.sessions() == 1 && b.machine.recording.ledger.waiting() <= 240, "{:?}", msg(0));
    }
}

#[test]
fn a_log_forked_again_and_again_fills_no_queue() {
    let (mut b, ..) = whole();
    b.cfg.logs = true;
    join(&mut b, 1);
    for n in 0..5_000_u64 {
        let record = UsageRecord { elapsed_ms: n, ..usage(1, 1) };
        let head = Log::default().append(SecondaryGuid::numbered(1), &record);
        let signature = fake_sign(&key(1), SigningContext::LogHead, &head.to_bytes());
        say(&mut b, 1, ToCn::Usage(Logged { record, head: SignedHead { head, key: key(1), signature } }));
    }
    assert!(b.machine.usage_waiting() <= 3 * 120, "{}", b.machine.usage_waiting());
}

#[test]
fn an_unpaid_inventory_is_requested_again_once_it_can_be_paid() {
    let (mut b, dn, _) = whole();
    join(&mut b, 1);
    let mut sent = 0;
    for seq in 1..=500 {
        let out = say(&mut b, 1, page(seq, seq % 50 == 1, 0));
        assert_eq!(refusal(&out, 1), None);
        sent += to_dn(&out).len();
    }
    assert_eq!(sent, 150_000 / TICKETS_PAGE_MAX, "as many versions as are earned in a minute");
    let out = pass(&mut b, dn, secs(60));
    let readd = to_client(&out, 1).iter().filter(|m| matches!(m, ToClient::ReaddRequest(_))).count();
    assert_eq!(readd, 1);
    assert!(to_dn(&say(&mut b, 1, page(501, false, 0))).is_empty(), "there is a gap before it");
    for seq in 502..502 + PAGES {
        assert_eq!(to_dn(&say(&mut b, 1, page(seq, seq == 502, 0))).len(), 1, "{seq}");
    }
}

#[test]
fn inventories_repeated_for_a_reconnected_dn_are_free() {
    let (mut b, dn) = full();
    let (mut dn, mut seq) = (dn, PAGES);
    for _ in 0..5 {
        b.input(Input::DirectoryClosed { conn: dn });
        dn = dn_conn(&b.wait(secs(1))).expect("a dial");
        let out = dn_up(&mut b, dn);
        assert!(to_client(&out, 1).iter().any(|m| matches!(m, ToClient::ReaddRequest(ReaddRequest { .. }))));
        for n in 0..PAGES {
            seq += 1;
            let out = say(&mut b, 1, page(seq, n == 0, n));
            assert_eq!(to_dn(&out).len(), 1, "{seq}");
        }
    }
}
