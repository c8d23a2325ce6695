//! Checks that the wire format changes only on purpose: the bytes of every message of every protocol, and of every
//! signed or sealed value, are checked in. After an intended change run `SWARMEDGE_BLESS=1 cargo test -p
//! swarmedge-core --test golden`.

#[path = "golden/samples.rs"]
mod samples;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use swarmedge_core::wire::control::{ToClient, ToCn};
use swarmedge_core::wire::directory::{FromDn, ToDn};
use swarmedge_core::wire::ledger::{FromLedger, ToLedger};
use swarmedge_core::wire::mux::MuxMsg;
use swarmedge_core::wire::notice::Terms;
use swarmedge_core::wire::peer::PeerMsg;
use swarmedge_core::wire::{DecodeError, Framed, Wire, frame, frame_len};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        write!(s, "{b:02x}").expect("a string takes all");
        s
    })
}

/// Returns a line for each message, encoded as a frame; checks that it decodes to the same message.
fn frames<M: Wire + Clone + PartialEq + std::fmt::Debug>(
    protocol: &str,
    name: fn(&M) -> &'static str,
    all: &[M],
) -> String {
    all.iter().fold(String::new(), |mut text, msg| {
        let bytes = frame(msg);
        assert_eq!(frame_len(&bytes), Ok(Some(bytes.len())));
        let read = Framed::<M>::decode(&bytes[4..]).expect("own bytes").expect("a known type");
        assert_eq!(&read.msg, msg);
        writeln!(text, "{protocol} {} {}", name(msg), hex(&bytes)).expect("a string takes all");
        text
    })
}

fn value<T: Wire + PartialEq + std::fmt::Debug>(name: &str, v: &T) -> String {
    let bytes = v.to_bytes();
    assert_eq!(T::from_bytes(&bytes).as_ref(), Ok(v));
    format!("value {name} {}\n", hex(&bytes))
}

fn all() -> String {
    let mut text = String::new();
    text += &frames("control", ToCn::name, &samples::to_cn());
    text += &frames("control", ToClient::name, &samples::to_client());
    text += &frames("directory", ToDn::name, &samples::to_dn());
    text += &frames("directory", FromDn::name, &samples::from_dn());
    text += &frames("ledger", ToLedger::name, &samples::to_ledger());
    text += &frames("ledger", FromLedger::name, &samples::from_ledger());
    text += &frames("peer", PeerMsg::name, &samples::peer());
    text += &frames("mux", MuxMsg::name, &samples::mux());
    text += &value("PieceRequest", &samples::piece_request());
    text += &value("PieceAnswer", &samples::piece_answer());
    text += &value("ServerCert", &samples::cert());
    text += &value("SignedGrant", &samples::signed_grant());
    text += &value("SealedGrant", &samples::sealed_grant());
    text += &value("SignedIntroduction", &samples::introduction());
    text += &value("UsageRecord", &samples::usage());
    text += &value("SignedReceipt", &samples::receipt());
    text += &value("EdgeRecord", &samples::edge_record());
    text += &value("ServedRecord", &samples::served_record());
    text += &value("GrantRecord", &samples::grant_record());
    text += &value("SignedHolderTicket", &samples::holder_ticket());
    text += &value("Notice", &samples::notice(&Terms::Policy(samples::policy())));
    text += &value("Terms", &Terms::Withdrawn);
    text += &value("Manifest", &samples::manifest());
    text += &format!("hash VersionId {}\n", samples::manifest().version());
    text
}

#[test]
fn every_message_has_the_bytes_that_are_checked_in() {
    let now = all();
    if std::env::var_os("SWARMEDGE_BLESS").is_some() {
        std::fs::write(FILE, &now).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(FILE).expect("the golden file can be read");
    // both directions of a protocol have the keep-alive's lines, in the file each stands once
    let (golden, now): (BTreeSet<&str>, BTreeSet<&str>) = (golden.lines().collect(), now.lines().collect());
    assert_eq!(golden.difference(&now).next(), None, "a message has other bytes, or is missing from the code");
    assert_eq!(now.difference(&golden).next(), None, "a message is missing from the golden file");
}

/// Returns the numbers of the message types that a protocol's decoder knows.
fn known<M: Wire>() -> BTreeSet<u8> {
    (0..=u8::MAX).filter(|t| !matches!(M::from_bytes(&[*t]), Err(DecodeError::UnknownType(_)))).collect()
}

#[test]
fn no_message_of_any_protocol_is_without_golden_bytes() {
    let numbers = |it: &mut dyn Iterator<Item = u8>| it.collect::<BTreeSet<u8>>();
    assert_eq!(known::<ToCn>(), numbers(&mut samples::to_cn().iter().map(ToCn::number)));
    assert_eq!(known::<ToClient>(), numbers(&mut samples::to_client().iter().map(ToClient::number)));
    assert_eq!(known::<ToDn>(), numbers(&mut samples::to_dn().iter().map(ToDn::number)));
    assert_eq!(known::<FromDn>(), numbers(&mut samples::from_dn().iter().map(FromDn::number)));
    assert_eq!(known::<ToLedger>(), numbers(&mut samples::to_ledger().iter().map(ToLedger::number)));
    assert_eq!(known::<FromLedger>(), numbers(&mut samples::from_ledger().iter().map(FromLedger::number)));
    assert_eq!(known::<PeerMsg>(), numbers(&mut samples::peer().iter().map(PeerMsg::number)));
    assert_eq!(known::<MuxMsg>(), numbers(&mut samples::mux().iter().map(MuxMsg::number)));
}

#[test]
fn the_two_directions_of_a_protocol_share_only_the_keep_alive() {
    let shared = |a: BTreeSet<u8>, b: &BTreeSet<u8>| a.intersection(b).copied().collect::<Vec<_>>();
    assert_eq!(shared(known::<ToCn>(), &known::<ToClient>()), [ToCn::Ping.number(), ToCn::Pong.number()]);
    assert_eq!(shared(known::<ToDn>(), &known::<FromDn>()), [ToDn::Ping.number(), ToDn::Pong.number()]);
    assert_eq!(shared(known::<ToLedger>(), &known::<FromLedger>()), [ToLedger::Ping.number(), ToLedger::Pong.number()]);
}
