//! Tests of a CN's signed checkpoints of the client's log: they are accepted only with all valid signatures, and sent
//! at login after they were stored.

use super::*;
use crate::accounting::certs::tests::fake_sign;
use crate::wire::Wire as _;
use crate::wire::records::{Checkpoint, SignedCheckpoint, SigningContext};

const KEY: PublicKey = PublicKey([5; 32]);

/// Returns an open session of a client with a key, and its connection.
fn client() -> (Bench<ClientSession>, ConnId) {
    let mut b = bench();
    b.cfg.guid = Guid::of(&KEY);
    let (conn, _) = connect(&mut b);
    (b, conn)
}

/// Returns a CN's checkpoint of the client's record `n` at the first place of its log.
fn checkpoint(n: u32, at_ms: u64) -> SignedCheckpoint {
    let head = usage(n, n, Side::Downloader).head.head;
    let signature = fake_sign(&KEY, SigningContext::LogHead, &head.to_bytes());
    resign(Checkpoint { head: SignedHead { head, key: KEY, signature }, at_ms })
}

fn resign(checkpoint: Checkpoint) -> SignedCheckpoint {
    let signature = fake_sign(&CN_KEY, SigningContext::Checkpoint, &checkpoint.to_bytes());
    SignedCheckpoint { checkpoint, signature, cert: cert(ServerRole::Cn, CN_KEY) }
}

fn acked(b: &mut Bench<ClientSession>, conn: ConnId, checkpoint: SignedCheckpoint) -> Vec<Output> {
    let ids = List::truncated([RecordId::numbered(1)]);
    b.input(Input::Message { conn, msg: ToClient::UsageAck(UsageAck { ids, checkpoint: Some(checkpoint) }) })
}

fn shown(out: &[Output]) -> Option<SignedCheckpoint> {
    sent(out).into_iter().find_map(|m| if let ToCn::Hello(h) = m { h.checkpoint.clone() } else { None })
}

#[test]
fn the_newest_durable_checkpoint_is_shown_to_the_next_cn() {
    let (mut b, conn) = client();
    let new = Box::new(checkpoint(1, NOW_MS));
    assert_eq!(acked(&mut b, conn, (*new).clone()), [Output::Checkpoint(new.clone())]);
    let again = |b: &mut Bench<ClientSession>, conn| {
        b.input(Input::Closed { conn });
        let (conn, _) = *dialled(&b.wait(secs(1))).last().expect("a dial");
        let hello = b.input(Input::Opened { conn });
        b.input(Input::Message { conn, msg: welcome() });
        (conn, shown(&hello))
    };
    let (conn, none) = again(&mut b, conn);
    assert_eq!(none, None, "a crash now would forget it");
    b.input(Input::Checkpoint(new.clone()));
    assert!(acked(&mut b, conn, checkpoint(2, NOW_MS - 1)).is_empty(), "an older one changes nothing");
    assert_eq!(again(&mut b, conn).1, Some(*new));
}

#[test]
fn a_checkpoint_unsigned_or_of_another_head_ends_the_connection() {
    let good = checkpoint(1, NOW_MS).checkpoint;
    let mut forged_head = good.clone();
    forged_head.head.head.place += 1;
    let mut foreign = good.clone();
    foreign.head.key = PublicKey([6; 32]);
    let mut forged = checkpoint(1, NOW_MS);
    forged.checkpoint.at_ms += 1;
    let edge = SignedCheckpoint { cert: cert(ServerRole::Edge, CN_KEY), ..checkpoint(1, NOW_MS) };
    let early = resign(Checkpoint { at_ms: 999, ..good });
    for bad in [resign(forged_head), resign(foreign), forged, edge, early] {
        let (mut b, conn) = client();
        let out = acked(&mut b, conn, bad.clone());
        assert!(out.contains(&Output::Close { conn }), "{bad:?}");
        assert!(!out.iter().any(|o| matches!(o, Output::Checkpoint(_))), "{bad:?}");
    }
}
