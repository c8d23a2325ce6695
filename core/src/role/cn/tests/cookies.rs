//! Tests that an address which the CN does not see itself is told to others only if a STUN server's cookie proves it.

use super::*;
use crate::nat::cookie::{Cookie, CookieKeys, Proven, Tag};
use crate::nat::{Candidate, CandidateKind};
use core::net::SocketAddr;

const V6: &str = "[2001:db8::5]:4000";

fn keys(n: u8) -> CookieKeys {
    CookieKeys::derived([(1, &[n; 32])])
}

fn addr(s: &str) -> SocketAddr {
    s.parse().expect("an address")
}

fn cookie(client: u32, at: &str) -> Cookie {
    let tag = Tag::of(&PublicKey::numbered(1_000 + client));
    keys(1).issue(NOW_MS, tag, addr(at)).expect("there is a key")
}

/// Returns the NAT descriptor of a client at [`V6`] that shows `cookie` as proof of the address `proven`.
fn says(epoch: u32, proven: &str, cookie: Option<Cookie>) -> NatDescriptor {
    NatDescriptor {
        epoch,
        candidates: List::truncated([Candidate { kind: CandidateKind::Host, addr: addr(V6) }]),
        proven: List::truncated([Proven { addr: addr(proven), cookie }]),
        ..NatDescriptor::default()
    }
}

/// Opens a session for client 1 with `nat`, and returns the descriptor that the DN gets.
fn hello_descriptor(b: &mut Bench<Cn>, nat: NatDescriptor) -> NatDescriptor {
    accept(b, 1, 1);
    sent_descriptor(&say(b, 1, ToCn::Hello(Hello { nat, ..hello(1) })))
}

fn sent_descriptor(out: &[Output]) -> NatDescriptor {
    let [ToDn::Peer(entry)] = to_dn(out)[..] else { panic!("{out:?}") };
    entry.nat.clone()
}

fn with_keys() -> Bench<Cn> {
    let (mut b, ..) = whole();
    b.input(Input::CookieKeys(keys(1)));
    b
}

#[test]
fn an_address_with_a_cookie_is_passed_on_without_the_cookie() {
    let nat = hello_descriptor(&mut with_keys(), says(1, V6, Some(cookie(1, V6))));
    assert_eq!(nat.candidates.len(), 1);
    assert_eq!(nat.proven[..], [Proven { addr: addr(V6), cookie: None }]);
}

#[test]
fn an_address_without_a_valid_cookie_of_its_own_is_dropped() {
    let good = cookie(1, V6);
    let forged = Cookie { mac: [0; 16], ..good.clone() };
    let later = |b: &mut Bench<Cn>| b.now = b.now.after(secs(302));
    let cases: [(&str, NatDescriptor, fn(&mut Bench<Cn>)); 6] = [
        ("forged", says(1, V6, Some(forged)), |_| {}),
        ("missing", says(1, V6, None), |_| {}),
        ("another client's", says(1, V6, Some(cookie(2, V6))), |_| {}),
        ("another port's", says(1, V6, Some(cookie(1, "[2001:db8::5]:4001"))), |_| {}),
        ("the CN has other keys", says(1, V6, Some(good.clone())), |b| drop(b.input(Input::CookieKeys(keys(2))))),
        ("old", says(1, V6, Some(good)), later),
    ];
    for (why, nat, before) in cases {
        let mut b = with_keys();
        before(&mut b);
        // the DN connection may have timed out meanwhile, so the session's own descriptor is checked
        accept(&mut b, 1, 1);
        say(&mut b, 1, ToCn::Hello(Hello { nat, ..hello(1) }));
        let session = b.machine.sessions.get(ConnId(1)).expect("open");
        assert!(session.nat.candidates.is_empty() && session.nat.proven.is_empty(), "{why}");
    }
}

#[test]
fn a_checked_address_stays_valid_for_its_session_only() {
    let mut b = with_keys();
    hello_descriptor(&mut b, says(1, V6, Some(cookie(1, V6))));
    b.now = b.now.after(secs(20));
    let update = |epoch, cookie| ToCn::Update(Update { uploads: true, nat: says(epoch, V6, cookie) });
    assert_eq!(sent_descriptor(&say(&mut b, 1, update(2, None))).candidates.len(), 1);
    b.input(Input::ClientClosed { conn: ConnId(1) });
    assert!(hello_descriptor(&mut b, says(3, V6, None)).candidates.is_empty());
}
