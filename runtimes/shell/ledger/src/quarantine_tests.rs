//! Quarantine of a client extends to its later keys.

use super::close_tests::{close_up_to, proven};
use super::tests::{Fixture, gave, got, granted_on, offered};
use super::*;
use futures_lite::future::block_on;
use std::collections::BTreeSet;
use swarmedge_core::accounting::logs::unsigned;
use swarmedge_core::accounting::rekeys;
use swarmedge_core::ids::{Guid, ProviderId, SecondaryGuid};
use swarmedge_core::limits::HEIRS_MAX;
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::records::{
    GrantRecord, LedgerRecord, LogEvent, LogRecord, Rekey, Side, SignedRekey, SigningContext, UsageRecord,
};
use swarmedge_ground::keys::Key;

const DAY: Day = Day(20_000);

fn key(n: u8) -> Key {
    Key::from_seed([n; 32])
}

fn guid(n: u8) -> Guid {
    Guid::of(&key(n).public())
}

/// Makes a CN's rekey record from client key `old` to `new`; key `by` signs where the new one should.
fn rekeyed(old: u8, new: u8, by: u8) -> LedgerRecord {
    rekeyed_by(&key(old), &key(new), &key(by))
}

fn rekeyed_by(old: &Key, new: &Key, by: &Key) -> LedgerRecord {
    let rekey = Rekey { old: old.public(), new: new.public(), start: SecondaryGuid::numbered(1) };
    let [by_old, by_new] = [old, by].map(|key| key.sign(SigningContext::Rekey, &rekey.to_bytes()));
    let signed = SignedRekey { rekey, by_old, by_new };
    let id = rekeys::record_id(&signed);
    let guid = Guid::of(&old.public());
    LedgerRecord::Log(LogRecord { id, at_ms: 1, guid, event: LogEvent::Rekeyed(signed) })
}

/// Makes the key with number `n`; different numbers give different keys.
fn made(n: u16) -> Key {
    let mut seed = [0xaa; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    Key::from_seed(seed)
}

/// Makes rekey records from client 1 to more successors than quarantine may add for one client.
fn many_heirs() -> Vec<LedgerRecord> {
    let more = u16::try_from(HEIRS_MAX + 6).expect("small");
    (0..more).map(|n| rekeyed_by(&key(1), &made(n), &made(n))).collect()
}

/// Makes both sides' usage records of a download whose uploader is client `n`.
fn uploaded(download: u32, n: u8) -> Vec<LedgerRecord> {
    let peers = [(download, 40)];
    let sent = match gave(download * 10 + 1, download, 2, 1, &peers) {
        LedgerRecord::Usage(r) => LedgerRecord::Usage(unsigned(UsageRecord { reporter: guid(n), ..r.record })),
        other => other,
    };
    let received = got(download * 10, download, 1, 2, &peers);
    vec![granted_on(DAY, download, 7), offered(download, &[download]), received, sent]
}

struct Books {
    ledger: Fixture,
    store: Store,
    at_ms: u64,
}

impl Books {
    fn open(ledger: Fixture) -> Self {
        let store = block_on(Store::open(&ledger.path)).expect("opens");
        Self { ledger, store, at_ms: DAY.end_ms() - 100_000 }
    }

    fn store(&mut self, records: &[LedgerRecord]) {
        self.at_ms += 1_000;
        block_on(self.store.store(records, self.at_ms)).expect("stored");
    }

    fn put_in(&mut self, n: u8) -> (usize, usize, Vec<String>) {
        self.at_ms += 1_000;
        let done = block_on(quarantine::enter(&mut self.store, &BTreeSet::from([guid(n)]), "a clique", self.at_ms));
        done.map(|done| (done.added, done.already, done.heirs)).expect("put in")
    }

    fn let_out(&mut self, n: u8) -> (usize, Vec<String>, Vec<String>) {
        self.at_ms += 1_000;
        let done = block_on(quarantine::release(&mut self.store, &BTreeSet::from([guid(n)]), self.at_ms));
        done.map(|done| (done.removed, done.heirs, done.left)).expect("let out")
    }

    fn is_in(&self) -> BTreeSet<Guid> {
        let read = async { Reader::open(&self.ledger.path).await?.in_quarantine().await };
        block_on(read).expect("read").into_iter().collect()
    }

    fn peer_bytes(&self) -> u64 {
        let read = async { Reader::open(&self.ledger.path).await?.report(ProviderId(7), DAY, DAY).await };
        block_on(read).expect("read").totals.peer_bytes
    }
}

fn all(clients: &[u8]) -> BTreeSet<Guid> {
    clients.iter().map(|n| guid(*n)).collect()
}

fn name(n: u8) -> Vec<String> {
    vec![guid(n).to_string()]
}

/// Scenario: client 1 is in quarantine and was copied; its copies take keys 2 and 3, and then 3 takes key 4.
pub(super) fn quarantine_follows_a_client_to_its_new_key(fixture: &mut dyn FnMut() -> Fixture) {
    let mut books = Books::open(fixture());
    assert_eq!(books.put_in(1), (1, 0, vec![]));
    books.store(&[rekeyed(1, 2, 2), rekeyed(1, 9, 8)]);
    assert_eq!(books.is_in(), all(&[1, 2]), "and nobody whose key has not signed");
    books.store(&uploaded(1, 2));
    assert_eq!(books.peer_bytes(), 0);

    // a GUID released by name stays released, whatever keys the others take
    assert_eq!(books.let_out(2), (1, vec![], name(1)));
    books.store(&[rekeyed(3, 4, 4), rekeyed(1, 3, 3), rekeyed(1, 2, 2)]);
    assert_eq!(books.is_in(), all(&[1, 3, 4]));
    books.store(&uploaded(2, 2));
    assert_eq!(books.peer_bytes(), 40, "of what it does now");

    let (removed, heirs, left) = books.let_out(1);
    assert_eq!(
        (removed, heirs.into_iter().collect::<BTreeSet<_>>(), left),
        (3, [name(3), name(4)].concat().into_iter().collect::<BTreeSet<_>>(), vec![])
    );
    assert_eq!(books.is_in(), all(&[]));
}

/// Scenario: client 1 takes key 2 before key 1 is put into quarantine.
pub(super) fn quarantining_an_old_guid_includes_its_successor(fixture: &mut dyn FnMut() -> Fixture) {
    let mut books = Books::open(fixture());
    books.store(&[rekeyed(1, 2, 2), rekeyed(2, 1, 1)]);
    assert_eq!(books.is_in(), all(&[]));
    assert_eq!(books.put_in(1), (2, 0, name(2)));
    assert_eq!(books.is_in(), all(&[1, 2]));
    books.store(&uploaded(1, 2));
    assert_eq!(books.peer_bytes(), 0);
    assert_eq!(books.let_out(2), (2, name(1), vec![]), "a circle is walked once");
}

/// Scenario: two downloads expire without a report of their downloaders. Bytes with receipts of client 3 are billed;
/// those with receipts of client 1, which is in quarantine, are not.
pub(super) fn receipts_of_a_silent_downloader_in_quarantine_are_not_billed(fixture: &mut dyn FnMut() -> Fixture) {
    let mut books = Books::open(fixture());
    books.put_in(1);
    for (download, who) in [(1, 1), (2, 3)] {
        let said = uploaded(download, 2).into_iter().filter_map(|record| match record {
            LedgerRecord::Granted(g) => Some(LedgerRecord::Granted(GrantRecord { guid: guid(who), ..g })),
            LedgerRecord::Usage(r) if r.record.side == Side::Downloader => None,
            other => Some(other),
        });
        books.store(&said.collect::<Vec<_>>());
    }
    assert_eq!(books.peer_bytes(), 0, "until they expire");
    close_up_to(&books.ledger, Day(DAY.0 + 35));
    assert_eq!(books.peer_bytes(), 40);
    // a later quarantine changes nothing in the exported evidence
    books.at_ms = Day(DAY.0 + 40).end_ms();
    books.put_in(3);
    assert_eq!(proven(&books.ledger, DAY.0..=DAY.0).map(|p| (p.receipts, p.peer_bytes)), Ok((2, 40)));
}

/// Rule: a client with more successors than quarantine may add is still put into quarantine itself.
pub(super) fn a_client_with_too_many_keys_is_quarantined_all_the_same(fixture: &mut dyn FnMut() -> Fixture) {
    let mut books = Books::open(fixture());
    books.store(&many_heirs());
    let (added, already, heirs) = books.put_in(1);
    assert_eq!((added, already, heirs.len()), (1 + HEIRS_MAX, 0, HEIRS_MAX));
    assert!(books.is_in().contains(&guid(1)));
    assert_eq!(books.put_in(2), (1, 0, vec![]), "nor does it keep others out");
}

/// Rule: a client in quarantine that takes many new keys, in parallel or one after another, does not fill the list.
pub(super) fn new_keys_of_one_client_do_not_fill_the_quarantine(fixture: &mut dyn FnMut() -> Fixture) {
    let mut books = Books::open(fixture());
    books.put_in(1);
    books.store(&many_heirs()[..HEIRS_MAX - 1]);
    assert_eq!(books.is_in().len(), HEIRS_MAX, "it and all that it has become");
    let [second, third] = [made(60_000), made(60_001)];
    books.store(&[rekeyed_by(&made(0), &second, &second), rekeyed_by(&second, &third, &third)]);
    let is_in = books.is_in();
    assert_eq!(is_in.len(), HEIRS_MAX + 1, "the last that it is followed to");
    assert!(is_in.contains(&Guid::of(&second.public())));
    assert_eq!(books.put_in(2), (1, 0, vec![]));
}
