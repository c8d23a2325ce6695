//! Reports are equal whether days are open or closed, also by country and network; the same holds for the balance of
//! networks.

use super::close_tests::{close_up_to, store_on};
use super::tests::{Fixture, edge, gave, got, granted_on, offered};
use super::*;
use futures_lite::future::block_on;
use swarmedge_core::ids::{Guid, ProviderId, RecordId, VersionId};
use swarmedge_core::wire::Text;
use swarmedge_core::wire::geo_location::{GeoLocation, Locality};
use swarmedge_core::wire::records::{LedgerRecord, LogEvent, LogRecord};

pub(super) const FIRST: Day = Day(20_100);
pub(super) const PROVIDER: ProviderId = ProviderId(7);

/// SQL that clears the figures of download rows, so that only the object of each version remains known.
const EMPTIED: &str =
    "UPDATE download SET state = 0, speed = -1, edge_unique = 0, peers_billed = 0, flagged = 0, spot = ''";

/// Makes the record of a login at `at_ms` from a country and a network.
fn located(n: u32, guid: u32, at_ms: u64, country: &[u8; 2], asn: u32) -> LedgerRecord {
    let locality = Locality { asn: Some(asn), country: Some(*country), region: Some(4) };
    let event = LogEvent::Located(GeoLocation { locality, at: None });
    LedgerRecord::Log(LogRecord { id: RecordId::numbered(3_000_000_000 + n), at_ms, guid: Guid::numbered(guid), event })
}

/// Makes the records of an ended download of client 1: 60 bytes from the edge, 25 and 15 from clients 2 and 3. Also
/// plain HTTP traffic.
fn ended(day: Day, d: u32) -> Vec<LedgerRecord> {
    let peers = [(d * 2, 25), (d * 2 + 1, 15)];
    vec![
        granted_on(day, d, 7),
        offered(d, &[d * 2, d * 2 + 1]),
        got(d * 9, d, 1, 2, &peers),
        gave(d * 9 + 1, d, 2, 1, &peers[..1]),
        gave(d * 9 + 2, d, 3, 1, &peers[1..]),
        edge(d * 9 + 3, Some(d), 1, 60),
        edge(d * 9 + 4, None, d, u64::from(d)),
    ]
}

/// Returns the report as JSON, without `final_up_to`, and the balance of networks.
fn reported(ledger: &Fixture) -> (String, balance::Balance) {
    block_on(async {
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        let (from, to) = (FIRST, Day(FIRST.0 + 4));
        let mut report = reader.report(PROVIDER, from, to).await.expect("read");
        report.final_up_to = None;
        let balance = reader.balance(None, from, to).await.expect("read");
        (serde_json::to_string(&report).expect("text"), balance)
    })
}

fn execute(ledger: &Fixture, sql: &'static str) {
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        store.execute_for_test(sql).await;
        store.close().await;
    });
}

/// Stores four days of traffic, of which the third is empty. Clients 1 and 2 are in two networks; the network of
/// client 3 is unknown.
pub(super) fn written(ledger: &Fixture) {
    let logins = [located(1, 1, 0, b"DE", 64_500), located(2, 2, 0, b"FR", 64_501)];
    store_on(ledger, FIRST, &logins);
    for (day, downloads) in [(0, 1..4), (1, 4..6), (3, 6..9)] {
        let day = Day(FIRST.0 + day);
        let records: Vec<_> = downloads.flat_map(|d| ended(day, d)).collect();
        store_on(ledger, day, &records);
    }
}

pub(super) fn reports_of_closed_and_open_days_are_equal_to_the_byte(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    written(&ledger);
    let open = reported(&ledger);
    assert_eq!(close_up_to(&ledger, Day(FIRST.0 + 1)), 2);
    assert_eq!(reported(&ledger), open, "half closed");
    // a late record counts while its day is open, and not once the day is closed
    let late = [got(1, 1, 1, 9, &[(2, 1)]), got(901, 6, 1, 9, &[(12, 5)])];
    store_on(&ledger, Day(FIRST.0 + 3), &late);
    let late = reported(&ledger);
    let bytes = |balance: &balance::Balance| balance.peer_bytes;
    assert_eq!((bytes(&open.1), bytes(&late.1)), (8 * 40, 8 * 40 - 35));
    assert_eq!(close_up_to(&ledger, Day(FIRST.0 + 4)), 3);
    assert_eq!(reported(&ledger), late, "all closed");
    // the report reads the stored rollups
    execute(&ledger, EMPTIED);
    assert_eq!(reported(&ledger), late);
}

/// Scenario: synthetic download rows as in `bench ledger --fill`, over 30 days and 200 objects.
pub(super) fn synthetic_download_rows_are_reported(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let last = Day(FIRST.0 + 29);
    let report = || {
        block_on(async {
            Reader::open(&ledger.path).await.expect("opens").report(PROVIDER, FIRST, last).await.expect("read")
        })
    };
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        fill::fill(&mut store, PROVIDER, FIRST, 900).await.expect("filled");
        store.close().await;
    });
    let open = report();
    assert_eq!((open.totals.downloads, open.objects.len()), (900, 200));
    assert!(open.days.iter().all(|day| day.figures.downloads == 30) && open.networks.len() > 1);
    close_up_to(&ledger, Day(last.0 - 3));
    let json = |rows: &[report::Row]| serde_json::to_string(rows).expect("text");
    assert_eq!(json(&report().objects), json(&open.objects), "27 days closed");
}

pub(super) fn countries_and_networks_add_up_to_the_whole(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    written(&ledger);
    let (report, balance) = block_on(async {
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        let report = reader.report(PROVIDER, FIRST, Day(FIRST.0 + 4)).await.expect("read");
        (report, reader.balance(Some(PROVIDER), FIRST, Day(FIRST.0 + 4)).await.expect("read"))
    });
    let of = |rows: &[report::Row]| {
        rows.iter().map(|r| (r.name.clone(), r.figures.completed, r.figures.edge_bytes, r.figures.peer_bytes)).collect()
    };
    let countries: Vec<_> = of(&report.countries);
    assert_eq!(countries, [("DE".to_owned(), 8, 480, 320)]);
    let networks: Vec<_> = of(&report.networks);
    assert_eq!(networks, [("AS64500".to_owned(), 8, 480, 320)]);
    assert_eq!((report.totals.edge_bytes, report.totals.peer_bytes, report.unknown.len()), (480, 320, 0));
    let flows: Vec<_> = balance.flows.iter().map(|f| (&f.from[..], &f.to[..], f.bytes)).collect();
    assert_eq!(flows, [("AS64501", "AS64500", 200), ("unknown", "AS64500", 120)]);
    let sums: Vec<_> = balance.networks.iter().map(|n| (&n.name[..], n.sent_bytes, n.received_bytes)).collect();
    assert_eq!(sums, [("AS64500", 0, 320), ("AS64501", 200, 0), ("unknown", 120, 0)]);
    assert_eq!((balance.peer_bytes, balance.inside_bytes), (320, 0));
}

/// Scenario: browsers fetch two versions, of which clients have downloaded only one.
pub(super) fn plain_traffic_of_unknown_objects_is_reported(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let LedgerRecord::Edge(mut other) = edge(5, None, 1, 30) else { panic!("an edge's") };
    other.version = VersionId::numbered(8);
    let LedgerRecord::Granted(mut silent) = granted_on(FIRST, 3, 7) else { panic!("a grant") };
    (silent.version, silent.path) = (VersionId::numbered(7), Text::new("games/b.iso").expect("short"));
    let records =
        [granted_on(FIRST, 2, 7), edge(4, None, 1, 10), LedgerRecord::Edge(other), LedgerRecord::Granted(silent)];
    store_on(&ledger, FIRST, &records);
    let report = block_on(async {
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        reader.report(PROVIDER, FIRST, FIRST).await.expect("read")
    });
    let plain: Vec<_> = report.objects.iter().map(|r| (&r.name[..], r.figures.plain_bytes)).collect();
    assert_eq!(plain, [("games/a.iso", Some(11)), ("games/b.iso", None)]);
    assert_eq!((report.totals.plain_bytes, report.days[0].figures.plain_bytes), (Some(42), Some(42)));
    assert!(report.unknown.iter().any(|what| what.contains("31 B of plain HTTPS")), "{:?}", report.unknown);
}

/// Scenario: one client logs in from Paris and New York, in turn, every hour.
pub(super) fn a_client_in_two_places_at_once_is_found(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let hour = |n: u32| u64::from(n) * 3_600_000;
    let mut records: Vec<_> = (0..10)
        .map(|n| {
            let (country, region, asn) = if n % 2 == 0 { (b"FR", 4, 64_501) } else { (b"US", 5, 64_502) };
            let LedgerRecord::Log(mut log) = located(n, 5, hour(n), country, asn) else { panic!("a log") };
            if let LogEvent::Located(location) = &mut log.event {
                location.locality.region = Some(region);
            }
            LedgerRecord::Log(log)
        })
        .collect();
    records.extend((0..10).map(|n| located(100 + n, 6, hour(n), b"FR", 64_501)));
    store_on(&ledger, FIRST, &records);
    let found = block_on(async {
        Reader::open(&ledger.path).await.expect("opens").suspects(FIRST, FIRST).await.expect("read")
    });
    let [travel] = &found.travel[..] else { panic!("{found:?}") };
    assert_eq!((&travel.guid, travel.moves, travel.seconds), (&Guid::numbered(5).to_string(), 9, 3_600));
    assert_eq!((&travel.from[..], &travel.to[..]), ("FR/64501", "US/64502"));
}
