//! Forgotten addresses and erased clients, in SQLite and PostgreSQL.

use super::close_tests::{close_up_to, exported, store_on, traffic};
use super::columns::record_at;
use super::erase::{Erased, erase, forget_addresses};
use super::suspects_tests::login;
use super::tests::Fixture;
use super::*;
use futures_lite::future::block_on;
use swarmedge_core::ids::{Guid, ProviderId};
use swarmedge_core::wire::records::{LedgerRecord, LogEvent};

const FIRST: Day = Day(20_500);

/// Returns the addresses in all logins, in order of arrival.
fn addresses(ledger: &Fixture) -> Vec<String> {
    block_on(async {
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        let text = "SELECT body FROM record WHERE kind IN (5, 13) ORDER BY received_ms, day";
        let rows = sqlx::query(text).fetch_all(&mut reader.db.any).await.expect("read");
        let address = |row: &sqlx::any::AnyRow| match record_at(row, 0).expect("decodes") {
            LedgerRecord::Log(log) => match log.event {
                LogEvent::Login(login) => login.observed.ip().to_string(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        rows.iter().map(address).collect()
    })
}

pub(super) fn old_logins_lose_their_address_and_nothing_else(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    store_on(&ledger, FIRST, &[login(1, &[3]), login(2, &[4])]);
    store_on(&ledger, FIRST.next(), &[login(3, &[5])]);
    let forget = |today: Day| block_on(forget_addresses(&ledger.path, 90, today.end_ms() - 1)).expect("done");
    assert_eq!(forget(Day(FIRST.0 + 90)), 0, "the first is 90 days old");
    assert_eq!(forget(Day(FIRST.0 + 91)), 2);
    assert_eq!(forget(Day(FIRST.0 + 91)), 0, "once");
    assert_eq!(addresses(&ledger), ["0.0.0.0", "0.0.0.0", "10.0.3.1"]);
    let (unnamed, suspects) = block_on(async {
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        let guids = [1, 2, 3, 4].map(Guid::numbered).into();
        (reader.unnamed(&guids).await.expect("read"), reader.suspects(FIRST, FIRST.next()).await.expect("read"))
    });
    assert_eq!(unnamed, [Guid::numbered(4)].into(), "the logins are there");
    assert_eq!(suspects.looked_at.logins, 3);
}

pub(super) fn a_client_is_erased_and_closed_days_stay_as_they_are(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let (last, open) = (Day(FIRST.0 + 1), Day(FIRST.0 + 40));
    for day in [FIRST, last, open] {
        store_on(&ledger, day, &traffic(day, 2));
    }
    store_on(&ledger, FIRST, &[login(1, &[3]), login(2, &[4])]);
    close_up_to(&ledger, Day(FIRST.0 + 2));
    let said = || {
        let report = block_on(async {
            let mut reader = Reader::open(&ledger.path).await.expect("opens");
            reader.report(ProviderId(7), FIRST, open).await.expect("read")
        });
        (exported(&ledger, FIRST.0..=last.0), serde_json::to_string(&report).expect("text"))
    };
    let before = said();
    let erase_one = || {
        block_on(async {
            let mut store = Store::open(&ledger.path).await.expect("opens");
            let erased = erase(&mut store, Guid::numbered(1)).await.expect("erased");
            store.close().await;
            erased
        })
    };
    let erased = erase_one();
    // one login; three downloads a day, of which the one that was only granted moves on to the open day
    assert_eq!(erased, Erased { events: 1, downloads: 4, open_downloads: 5 });
    assert_eq!(erase_one(), Erased { open_downloads: 5, ..Erased::default() }, "once");
    assert_eq!(said(), before, "bills and reports");
    assert_eq!(addresses(&ledger), ["10.0.2.1"], "another client's login stays");
    let (named, evidence) = block_on(async {
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        let text = "SELECT count(*) FROM download WHERE guid = $1";
        let query = sqlx::query_scalar(text).bind(Guid::numbered(1).0.to_vec());
        let named: i64 = query.fetch_one(&mut reader.db.any).await.expect("read");
        let day = reader.provider_day(ProviderId(7), FIRST).await.expect("closed");
        (named, reader.evidence(&day, |_| Ok(())).await)
    });
    assert_eq!(named, 5, "the open day's downloads");
    assert!(evidence.expect_err("erased").to_string().contains("other records"), "evidence is gone");
}
