//! Blames at the DN: who is told, who is offered to whom, and for how long.

use super::*;
use crate::nat::NatBehaviour;
use crate::selection::blames::{CopyId, Standing};
use crate::wire::directory::{BlamedCopy, DoubtedCopy, ProvenCopy};

const HOLDER: u32 = 1;

/// Registers client `n` in a /24 and an AS of its own.
fn join_apart(b: &mut Bench<Dn>, n: u32) {
    let part = u8::try_from(n).expect("few");
    join_at(b, n, (part, 0), 64_500 + n);
}

fn join_at(b: &mut Bench<Dn>, n: u32, (net, part): (u8, u8), asn: u32) {
    let mut peer = entry(n);
    peer.observed = (core::net::Ipv4Addr::new(20, net, part, 1), 5_000).into();
    let candidate = Candidate { kind: CandidateKind::ServerReflexive, addr: peer.observed };
    let (mapping, filtering) = (NatBehaviour::EndpointIndependent, NatBehaviour::EndpointIndependent);
    let candidates = List::truncated([candidate]);
    peer.nat =
        NatDescriptor { epoch: 1, udp: true, mapping, filtering, v4: true, candidates, ..NatDescriptor::default() };
    peer.locality = Locality { asn: Some(asn), ..Locality::default() };
    say(b, 1, ToDn::Peer(peer));
    share(b, 1, n);
}

/// Returns a DN with a CN and the clients 1 to 20, all holders of the same version.
fn with_crowd() -> Bench<Dn> {
    let mut b = bench();
    cn(&mut b, 1);
    (1..=20).for_each(|n| join_apart(&mut b, n));
    b
}

fn blame(b: &mut Bench<Dn>, by: u32) -> Vec<FromDn> {
    let blamed = BlamedCopy { session: SessionId(by.into()), holder: Guid::numbered(HOLDER), version: V };
    let out = say(b, 1, ToDn::Blame(blamed));
    b.machine.check_state();
    sent(&out, 1).into_iter().cloned().collect()
}

/// Returns whether client `n` is offered the holder.
fn offered(b: &mut Bench<Dn>, n: u32) -> bool {
    select(b, 1, n).iter().any(|peer| peer.guid == Guid::numbered(HOLDER))
}

fn pass(b: &mut Bench<Dn>, minutes: u32) {
    for _ in 0..minutes * 6 {
        b.wait(Duration::from_secs(10));
        say(b, 1, ToDn::Ping);
    }
    b.machine.check_state();
}

#[test]
fn the_first_blame_has_the_holder_check_its_copy() {
    let mut b = with_crowd();
    let check = FromDn::CheckCopy(DoubtedCopy { session: SessionId(HOLDER.into()), version: V });
    assert_eq!(blame(&mut b, 2), core::slice::from_ref(&check));
    assert_eq!(blame(&mut b, 3), [], "it has been told");
    pass(&mut b, 10);
    assert_eq!(blame(&mut b, 4), [check]);
    assert!(blame(&mut b, 99).is_empty(), "nobody");
    say(&mut b, 1, ToDn::Gone(PeerGone { session: SessionId(HOLDER.into()) }));
    assert_eq!(blame(&mut b, 5), [], "who has left is not told, and is blamed nevertheless");
    assert_eq!(b.machine.blames().len(), 4);
}

#[test]
fn a_suspended_copy_is_offered_to_nobody_until_its_holder_has_proven_it() {
    let mut b = with_crowd();
    (2..=3).for_each(|n| drop(blame(&mut b, n)));
    assert!(offered(&mut b, 9));
    blame(&mut b, 4);
    assert!(!offered(&mut b, 9));
    // a new session of the holder does not end it
    say(&mut b, 1, ToDn::Gone(PeerGone { session: SessionId(HOLDER.into()) }));
    join_apart(&mut b, HOLDER);
    assert!(!offered(&mut b, 9));
    say(&mut b, 1, ToDn::Proven(ProvenCopy { holder: Guid::numbered(HOLDER), version: V }));
    assert!(offered(&mut b, 9));
    b.machine.check_state();
}

#[test]
fn a_suspension_ends_after_ten_minutes_and_a_delisting_with_the_votes() {
    let mut b = with_crowd();
    (2..=4).for_each(|n| drop(blame(&mut b, n)));
    pass(&mut b, 9);
    assert!(!offered(&mut b, 9));
    pass(&mut b, 1);
    assert!(offered(&mut b, 9));
    (5..=9).for_each(|n| drop(blame(&mut b, n)));
    pass(&mut b, 5 * 60);
    say(&mut b, 1, ToDn::Proven(ProvenCopy { holder: Guid::numbered(HOLDER), version: V }));
    assert!(!offered(&mut b, 15), "eight victims");
    pass(&mut b, 60 + 20);
    assert!(offered(&mut b, 15) && b.machine.blames().is_empty());
}

#[test]
fn three_prefixes_hide_a_copy_from_their_network_alone() {
    let mut b = with_crowd();
    for part in 1..=4 {
        join_at(&mut b, 30 + u32::from(part), (99, part), 65_000);
    }
    (31..=33).for_each(|n| drop(blame(&mut b, n)));
    assert!(!offered(&mut b, 34), "of the same AS");
    assert!(offered(&mut b, 9), "of another one");
    assert_eq!(select(&mut b, 1, 34).len(), 22, "all others are offered");
    let exclude = List::truncated((2..=33).map(|n| PublicKey::numbered(100 + n)));
    let select =
        Select { req: 9, session: SessionId(34), download: DownloadId::numbered(9), version: V, want: 40, exclude };
    let out = say(&mut b, 1, ToDn::Select(select));
    let why = WhyNobody::AllKnown;
    assert_eq!(sent(&out, 1), [&FromDn::Nobody(Nobody { req: 9, why })], "no NAT is the cause");
}

#[test]
fn each_clause_about_blames_at_a_dn_fires() {
    let mut b = with_crowd();
    (2..=4).for_each(|n| drop(blame(&mut b, n)));
    crate::bench::assert_each_clause_fires(
        &b.machine,
        Dn::check_blames,
        &[
            ("votes expire in time", |dn| dn.timers.clear(Timer::Blames)),
            ("only a blamed copy has a standing", |dn| {
                let barred = Standing { is_barred: true, ..Standing::default() };
                dn.directory.set_standing(CopyId { holder: Guid::numbered(7), version: V }, barred);
            }),
        ],
    );
}
