//! Detection from the CNs' logs, in SQLite and PostgreSQL.

use super::tests::{Fixture, gave, got, granted_on};
use super::*;
use futures_lite::future::block_on;
use swarmedge_core::accounting::possession;
use swarmedge_core::ids::{DownloadId, Guid, IntroId, PieceIndex, PublicKey, RecordId, SecondaryGuid, VersionId};
use swarmedge_core::wire::List;
use swarmedge_core::wire::records::{
    Blamed, GrantRecord, LedgerRecord, LogEvent, LogRecord, Login, Offered, OfferedPeer, PossessionOutcome,
    PossessionRecord,
};

const DAY: Day = Day(20_500);
const FRIENDS: u32 = 5;

pub(super) fn log(n: u32, guid: u32, event: LogEvent) -> LedgerRecord {
    LedgerRecord::Log(LogRecord { id: RecordId::numbered(n), at_ms: 1, guid: Guid::numbered(guid), event })
}

/// Makes a login of client `n` from its own address, with its last starts, newest first.
pub(super) fn login(n: u32, starts: &[u32]) -> LedgerRecord {
    let login = Login {
        observed: format!("10.{}.{}.1:9", n / 250, n % 250).parse().expect("an address"),
        secondary: List::truncated(starts.iter().map(|s| SecondaryGuid::numbered(*s))),
        upload_key: PublicKey::numbered(n),
        uploads: true,
        client_version: 1,
    };
    let newest = starts.first().copied().unwrap_or_default();
    log(900_000 + n * 10 + newest, n, LogEvent::Login(login))
}

pub(super) fn guids_without_any_record_are_found(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    stored(&ledger, &[granted_on(DAY, 5, 7), login(2, &[1])]);
    let guids = [1, 2, 3].map(Guid::numbered).into();
    let unnamed = block_on(async { Reader::open(&ledger.path).await.expect("opens").unnamed(&guids).await });
    assert_eq!(unnamed, Ok([Guid::numbered(3)].into()));
}

/// Makes the records of download `d` by client `who`. It is offered `peers` and gets bytes only from its friends
/// among them.
fn download(d: u32, who: u32, peers: &[u32]) -> Vec<LedgerRecord> {
    let intro = |peer: u32| d * 100 + peer;
    let offered = Offered {
        download: DownloadId::numbered(d),
        version: VersionId::numbered(9),
        peers: List::truncated(
            peers
                .iter()
                .map(|p| OfferedPeer { intro: IntroId::numbered(intro(*p)), upload_key: PublicKey::numbered(*p) }),
        ),
    };
    let LedgerRecord::Granted(mut granted) = granted_on(DAY, d, 7) else { panic!("a grant") };
    granted.guid = Guid::numbered(who);
    let mut records = vec![LedgerRecord::Granted(granted), log(d, who, LogEvent::Offered(offered))];
    let friends: Vec<u32> = peers.iter().copied().filter(|p| *p <= FRIENDS).collect();
    for friend in &friends {
        let id = 100_000 + intro(*friend);
        records.push(gave(id, d, *friend, 1, &[(intro(*friend), 20)]));
    }
    let peers: Vec<(u32, u64)> = friends.iter().map(|f| (intro(*f), 20)).collect();
    records.push(got(500_000 + d, d, who, 2, &peers));
    records
}

fn stored(ledger: &Fixture, records: &[LedgerRecord]) {
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        for batch in records.chunks(500) {
            store.store(batch, DAY.end_ms() - 5).await.expect("stored");
        }
        store.close().await;
    });
}

/// Scenario: five friends download twenty times each and use only one another, but not ten other clients that were
/// offered as often. Another client was restored from a backup.
pub(super) fn a_clique_and_a_fork_are_found_with_their_evidence(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let mut records: Vec<_> = (1..=20).map(|n| login(n, &[n])).collect();
    records.extend([login(20, &[202, 20]), login(20, &[203, 204, 20])]);
    // the history of client 19 has a gap
    records.push(login(19, &[195, 194, 193]));
    for d in 1..=100 {
        let who = 1 + d % FRIENDS;
        let peers: Vec<u32> = (1..=15).filter(|p| *p != who).collect();
        records.extend(download(d, who, &peers));
    }
    stored(&ledger, &records);
    let found = block_on(async {
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        assert_eq!(reader.days_with_records().await, Ok(Some((DAY, DAY))));
        reader.suspects(DAY, DAY).await.expect("read")
    });
    assert_eq!((found.looked_at.offers, found.looked_at.downloads, found.looked_at.logins), (1_400, 100, 23));
    let [clique] = &found.cliques[..] else { panic!("{found:?}") };
    let friends: Vec<String> = (1..=FRIENDS).map(|n| Guid::numbered(n).to_string()).collect();
    assert_eq!(clique.members, friends);
    assert_eq!((clique.offered, clique.used, clique.bytes, clique.inside_permille), (400, 400, 8_000, 1_000));
    let [forked] = &found.forked[..] else { panic!("{found:?}") };
    assert_eq!((&forked.guid, forked.logins), (&Guid::numbered(20).to_string(), 3));
    assert_eq!(forked.forks, [SecondaryGuid::numbered(20).to_string()]);
    let [gap] = &found.gaps[..] else { panic!("{found:?}") };
    assert_eq!((&gap.guid, gap.logins), (&Guid::numbered(19).to_string(), 2));
    let names = |starts: &[u32]| starts.iter().map(|n| SecondaryGuid::numbered(*n).to_string()).collect::<Vec<_>>();
    let parts: Vec<_> = gap.parts.iter().map(|p| (p.starts, p.oldest.clone(), p.newest.clone())).collect();
    assert_eq!(parts, [(1, names(&[19]), names(&[19])), (3, names(&[193]), names(&[195]))]);
    assert!(!found.guids().contains(&gap.guid), "it accuses nobody");
    let graphs = [("short", 19), ("linear", 1), ("failed update", 1)];
    assert_eq!(found.looked_at.graphs, graphs.into_iter().collect());
    assert_eq!(found.not_offered, []);
    // each friend downloads one version twenty times a day
    assert_eq!(found.repeated_by_client.len(), 5);
}

/// Scenario: bytes were transferred over introductions that the CN did not log, although it logged others.
pub(super) fn introductions_without_an_offer_are_found(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let mut records = download(1, 1, &[2, 9]);
    for d in 2..=6 {
        let silent = download(d, 1, &[2]);
        records.extend(silent.into_iter().filter(|r| !matches!(r, LedgerRecord::Log(_))));
    }
    stored(&ledger, &records);
    let found =
        block_on(async { Reader::open(&ledger.path).await.expect("opens").suspects(DAY, DAY).await.expect("read") });
    let [not_offered] = &found.not_offered[..] else { panic!("{found:?}") };
    assert_eq!((not_offered.introductions, not_offered.bytes), (5, 100));
    assert_eq!(not_offered.uploader, Guid::numbered(2).to_string());
}

/// Scenario: client 1 signs receipts for 100 MB and reports 10 MB; client 2 reports all; client 3 reports 95 MB,
/// since it lost the rest in a crash.
pub(super) fn clients_that_report_less_than_they_receipted_are_found(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let mut records = Vec::new();
    for (who, filed) in [(1, 10_000_000), (2, 100_000_000), (3, 95_000_000)] {
        let LedgerRecord::Granted(mut granted) = granted_on(DAY, who, 7) else { panic!("a grant") };
        granted.guid = Guid::numbered(who);
        records.push(LedgerRecord::Granted(granted));
        records.push(gave(60 + who, who, 9, 1, &[(who, 100_000_000)]));
        records.push(got(50 + who, who, who, 2, &[(who, filed)]));
    }
    stored(&ledger, &records);
    let found =
        block_on(async { Reader::open(&ledger.path).await.expect("opens").suspects(DAY, DAY).await.expect("read") });
    let [understated] = &found.understated[..] else { panic!("{found:?}") };
    let expected = (Guid::numbered(1).to_string(), 1, 90_000_000);
    assert_eq!((understated.guid.clone(), understated.downloads, understated.bytes), expected);
    assert!(!found.guids().contains(&understated.guid), "evidence for people, no accusation");
}

/// Scenario: four clients have ten downloads each, all with a challenge. Client 1 answers twice wrongly, client 2
/// never reports completion to an edge, client 3 passes all, and client 4 answers once wrongly.
pub(super) fn failed_possession_is_shown_without_accusation(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let mut records = Vec::new();
    for (who, d) in (1..=4).flat_map(|who| (1..=10).map(move |n| (who, who * 1_000 + n))) {
        for record in download(d, who, &[5]) {
            records.push(match record {
                LedgerRecord::Granted(g) => LedgerRecord::Granted(GrantRecord { challenged: true, ..g }),
                other => other,
            });
        }
        let wrong = if who == 1 { 2 } else { u32::from(who == 4) };
        let outcome = if d % 1_000 <= wrong { PossessionOutcome::Failed } else { PossessionOutcome::Passed };
        let outcome = PossessionRecord {
            id: possession::record_id(DownloadId::numbered(d)),
            edge: PublicKey::numbered(1),
            download: DownloadId::numbered(d),
            guid: Guid::numbered(who),
            version: VersionId::numbered(9),
            outcome,
            at_ms: 1,
        };
        if who != 2 {
            // a second outcome of the same challenge changes nothing
            let again = PossessionRecord { outcome: PossessionOutcome::Unanswered, ..outcome.clone() };
            records.push(LedgerRecord::Possession(outcome));
            stored(&ledger, &std::mem::take(&mut records));
            records.push(LedgerRecord::Possession(again));
        }
    }
    stored(&ledger, &records);
    let found =
        block_on(async { Reader::open(&ledger.path).await.expect("opens").suspects(DAY, DAY).await.expect("read") });
    let found: Vec<_> =
        found.failed_possession.iter().map(|p| (p.guid.clone(), p.passed, p.failed, p.unanswered)).collect();
    assert_eq!(found, [(Guid::numbered(1).to_string(), 8, 2, 0), (Guid::numbered(2).to_string(), 0, 0, 10)]);
    let filter = Filter { download: Some(DownloadId::numbered(1_001)), ..Filter::default() };
    assert_eq!(ledger.show(&filter)[0].possession, Some("failed"));
}

/// Scenario: three clients of three networks blame a copy, one of them twice, and one more blames another; the first
/// holder has since proven that it has the right bytes.
pub(super) fn blamed_copies_are_shown_with_their_accusers(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let blame = |n: u32, by: u32, holder: u32| {
        let (intro, piece) = (IntroId::numbered(n), PieceIndex(1));
        let (holder, version) = (Guid::numbered(holder), VersionId::numbered(9));
        log(n, by, LogEvent::Blamed(Blamed { intro, holder, version, piece, block: 2 }))
    };
    let mut records: Vec<_> = (1..=3).map(|n| login(n * 300, &[n])).collect();
    records.extend([blame(1, 300, 7), blame(2, 600, 7), blame(3, 900, 7), blame(4, 900, 7), blame(5, 300, 8)]);
    records.push(LedgerRecord::Possession(PossessionRecord {
        id: RecordId::numbered(6),
        edge: PublicKey::numbered(1),
        download: DownloadId::numbered(77),
        guid: Guid::numbered(7),
        version: VersionId::numbered(9),
        outcome: PossessionOutcome::Rechecked,
        at_ms: 1,
    }));
    stored(&ledger, &records);
    let found =
        block_on(async { Reader::open(&ledger.path).await.expect("opens").suspects(DAY, DAY).await.expect("read") });
    let shown = |b: &crate::blamed::BlamedFound| (b.guid.clone(), b.accusers, b.networks, b.rechecked);
    let expected = [(Guid::numbered(7).to_string(), 3, 3, 1), (Guid::numbered(8).to_string(), 1, 1, 0)];
    assert_eq!(found.blamed.iter().map(shown).collect::<Vec<_>>(), expected);
    assert!(found.guids().is_empty() && found.failed_possession.is_empty(), "votes accuse nobody");
}
