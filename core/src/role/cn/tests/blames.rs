//! Blames of clients: only those of introduced and connected peers reach DNs and ledger, once each.

use super::*;
use crate::wire::control::{Blame, CheckCopy};
use crate::wire::directory::{DoubtedCopy, ProvenCopy};

fn connects(b: &mut Bench<Cn>, intro: IntroId, fails: bool) {
    let failure = fails.then_some(crate::nat::connectivity::Failure::Silence);
    let attempt = Attempt { failure, rung: Rung::Reflexive, probes: 1, took_ms: 2 };
    say(b, 1, ToCn::Outcome(Outcome { intro, attempt }));
}

/// Returns the GUID that is blamed at the DN, if the blame of client `n` reaches it.
fn blamed(b: &mut Bench<Cn>, n: u64, intro: IntroId) -> Option<Guid> {
    let out = say(b, n, ToCn::Blame(Blame { intro, piece: crate::ids::PieceIndex(1), block: 2 }));
    let version = VersionId::numbered(6);
    to_dn(&out).into_iter().find_map(|m| match m {
        ToDn::Blame(blamed) if blamed.version == version => Some(blamed.holder),
        _ => None,
    })
}

#[test]
fn a_blame_counts_with_a_recorded_introduction_that_has_connected() {
    let (mut b, dn, _) = whole();
    let (intro, _) = introduced(&mut b, dn);
    join(&mut b, 2);
    assert_eq!(blamed(&mut b, 1, intro), None, "not connected yet");
    assert_eq!(blamed(&mut b, 1, IntroId::numbered(99)), None, "never introduced");
    connects(&mut b, intro, false);
    assert_eq!(blamed(&mut b, 2, intro), None, "another client's introduction");
    assert_eq!(blamed(&mut b, 1, intro), Some(Guid::numbered(200)));
    assert_eq!(blamed(&mut b, 1, intro), None, "once an introduction");
    let (intro, _) = introduced(&mut b, dn);
    connects(&mut b, intro, true);
    assert_eq!(blamed(&mut b, 1, intro), None, "it could not connect");
}

#[test]
fn a_blame_is_recorded_in_the_ledger() {
    let (mut b, dn, _) = whole();
    let (intro, _) = introduced(&mut b, dn);
    b.cfg.logs = true;
    connects(&mut b, intro, false);
    let out = say(&mut b, 1, ToCn::Blame(Blame { intro, piece: crate::ids::PieceIndex(1), block: 2 }));
    let event = out.iter().find_map(|o| match o {
        Output::LedgerSend { msg: ToLedger::Submit(LedgerRecord::Log(r)), .. } => Some((r.guid, r.event.clone())),
        _ => None,
    });
    let Some((guid, LogEvent::Blamed(said))) = event else { panic!("{out:?}") };
    assert_eq!((guid, said.holder, said.intro), (Guid::of(&key(1)), Guid::numbered(200), intro));
    assert_eq!((said.piece.0, said.block), (1, 2));
}

#[test]
fn a_holder_is_told_to_check_and_its_proof_reaches_the_dn() {
    let (mut b, dn, ledger) = whole();
    let out = join(&mut b, 1);
    let [ToDn::Peer(entry)] = to_dn(&out)[..] else { panic!("{out:?}") };
    let (session, version) = (entry.session, VersionId::numbered(6));
    let msg = FromDn::CheckCopy(DoubtedCopy { session, version });
    let out = b.input(Input::Directory { conn: dn, msg });
    assert_eq!(to_client(&out, 1), [&ToClient::CheckCopy(CheckCopy { version })]);
    let gone = FromDn::CheckCopy(DoubtedCopy { session: SessionId(99), version });
    assert!(b.input(Input::Directory { conn: dn, msg: gone }).is_empty());
    let proven = ProvenCopy { holder: Guid::of(&key(1)), version };
    let out = b.input(Input::Ledger { conn: ledger, msg: FromLedger::Proven(proven.clone()) });
    assert_eq!(to_dn(&out), [&ToDn::Proven(proven)]);
}
