//! `bench ledger`: measures the records per second that become durable, and the time of a report over them.

use crate::args::BenchLedgerArgs;
use crate::demo::WorkDir;
use std::time::{Duration, Instant};
use swarmedge_core::accounting::logs::unsigned;
use swarmedge_core::ids::{DownloadId, Guid, IntroId, ProviderId, PublicKey, RecordId, VersionId};
use swarmedge_core::wire::records::{
    CertBody, EdgeRecord, FailCause, GrantRecord, LedgerRecord, LogEvent, LogRecord, Offered, OfferedPeer, PeerBytes,
    Receipt, ReceiptProof, ServerRole, Side, SigningContext, UsageRecord, UsageState,
};
use swarmedge_core::wire::{List, Text, Wire as _};
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::keys::{Key, certify};
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::out::{print_json, say};
use swarmedge_ledger::close::{Signer, close_days};
use swarmedge_ledger::fill::fill;
use swarmedge_ledger::report::Figures;
use swarmedge_ledger::{Database, Day, Reader, Store};

/// Provider of the generated downloads.
const PROVIDER: ProviderId = ProviderId(1);
/// Number of days over which the downloads are spread.
const DAYS: u32 = 30;
/// Days that a running ledger has open: the current one and `settle_days` before it.
const OPEN_DAYS: u32 = 3;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Number of objects and their size in bytes.
const OBJECTS: u64 = 200;
const SIZE: u64 = 50_000_000;
/// Number of records per download.
const PER_DOWNLOAD: u32 = 5;

/// Runs the command `swarmedge bench ledger`.
pub(crate) fn run<R: Start>(args: &BenchLedgerArgs, json: bool) -> Result<(), Error> {
    let dir = WorkDir::make(None, "swarmedge-bench-ledger", false)?;
    let database = match &args.database {
        Some(text) => Database::from(text.clone()),
        None => dir.path.join("ledger.sqlite").into(),
    };
    let (downloads, per_batch) = (args.records / PER_DOWNLOAD, args.batch / PER_DOWNLOAD);
    let (until, fill) = (args.until, args.fill);
    let day_of = move |n: u32| day_of(n, downloads, until);
    let name = database.to_string();
    let (stored_ms, report_ms, filled) = R::block_on(move |_| async move {
        let mut store = Store::open(&database).await?;
        let mut reader = Reader::open(&database).await?;
        if reader.days_of(PROVIDER).await?.is_some() {
            return Err(Error::new(Code::Usage, format!("{database} is not empty")).next("name one that is"));
        }
        let (mut stored, mut random) = (Duration::ZERO, Random(1));
        for first in (0..downloads).step_by(per_batch as usize) {
            let last = downloads.min(first + per_batch);
            let batch: Vec<_> = (first..last).flat_map(|n| download(day_of(n), &mut random)).collect();
            let began = Instant::now();
            store.store(&batch, day_of(first).end_ms()).await?;
            stored += began.elapsed();
        }
        let stored_ms = stored.as_millis();
        let began = Instant::now();
        let report = reader.report(PROVIDER, Day(until.0.saturating_sub(DAYS)), until.next()).await?;
        let report_ms = began.elapsed().as_millis();
        let filled = match fill {
            Some(records) => Some(report_over(&mut store, &mut reader, records / PER_DOWNLOAD, until).await?),
            None => None,
        };
        store.close().await;
        if report.totals.downloads != u64::from(downloads) {
            return Err(Error::failed(format!("{} of {downloads} downloads are there", report.totals.downloads)));
        }
        Ok((stored_ms, report_ms, filled))
    })?;
    let per_second = u128::from(downloads * PER_DOWNLOAD) * 1000 / stored_ms.max(1);
    if json {
        let (records, batch) = (downloads * PER_DOWNLOAD, args.batch);
        return print_json(&serde_json::json!({
            "database": name, "records": records, "batch": batch, "records_per_second": per_second,
            "stored_ms": stored_ms, "report_ms": report_ms,
            "filled_records": fill, "filled_report_open_ms": filled.map(|f| f.open),
            "filled_report_usual_ms": filled.map(|f| f.usual), "filled_report_closed_ms": filled.map(|f| f.closed),
            "filled_close_ms": filled.map(|f| f.closing),
        }));
    }
    say!("{name}: {} records of {downloads} downloads in batches of {}", downloads * PER_DOWNLOAD, args.batch)?;
    say!("  stored   {per_second} records/s, each batch durable ({stored_ms} ms)")?;
    say!("  report   {report_ms} ms over all {DAYS} days")?;
    if let (Some(records), Some(filled)) = (fill, filled) {
        let Filled { open, usual, closed, closing } = filled;
        let downloads = records / PER_DOWNLOAD;
        say!(
            "  report   {open} ms over the lines of {downloads} downloads, as {records} records leave them, all days open"
        )?;
        say!("  report   {usual} ms over the same when all but the last {OPEN_DAYS} days were closed")?;
        say!("  report   {closed} ms when all were closed, which took {closing} ms")?;
    }
    Ok(())
}

/// Durations in milliseconds of reports over the generated days, and of closing these.
#[derive(Clone, Copy, Default)]
struct Filled {
    /// Duration of a report while all days are open.
    open: u128,
    /// Duration of a report while all days are closed but the last [`OPEN_DAYS`], as in a running ledger.
    usual: u128,
    /// Duration of a report while all days are closed.
    closed: u128,
    /// Time to close all days.
    closing: u128,
}

/// Fills the ledger with `downloads` of another provider and measures reports over them.
async fn report_over(store: &mut Store, reader: &mut Reader, downloads: u32, until: Day) -> Result<Filled, Error> {
    let (provider, first) = (ProviderId(PROVIDER.0 + 1), Day(until.0.saturating_sub(DAYS - 1)));
    fill(store, provider, first, downloads).await?;
    let (mut filled, mut found) = (Filled::default(), Vec::new());
    for closed in [None, Some(Day(until.0.saturating_sub(OPEN_DAYS))), Some(until)] {
        if let Some(last) = closed {
            let began = Instant::now();
            close_days(store, last, &signer(), until.end_ms() + 2 * DAY_MS).await?;
            filled.closing += began.elapsed().as_millis();
        }
        let began = Instant::now();
        found.push(reader.report(provider, first, until).await?.totals);
        let took = match closed {
            None => &mut filled.open,
            Some(last) if last < until => &mut filled.usual,
            Some(_) => &mut filled.closed,
        };
        *took = began.elapsed().as_millis();
    }
    let bytes = |totals: &Figures| (totals.downloads, totals.edge_bytes, totals.peer_bytes);
    if found.iter().any(|totals| bytes(totals) != bytes(&found[0]) || totals.downloads != u64::from(downloads)) {
        return Err(Error::failed(format!("{downloads} downloads are reported wrongly")));
    }
    Ok(filled)
}

/// Makes the signing key of a ledger that exists for this measurement only.
fn signer() -> Signer {
    let (root, key) = (Key::generate(), Key::generate());
    let body = CertBody {
        role: ServerRole::Ledger,
        name: Text::default(),
        key: key.public(),
        not_before_ms: 0,
        not_after_ms: u64::MAX,
    };
    Signer::new(key, certify(&root, body))
}

/// Returns the day of download `n`, so that the downloads are spread evenly over the days.
fn day_of(n: u32, downloads: u32, until: Day) -> Day {
    let back = u64::from(downloads - 1 - n.min(downloads - 1)) * u64::from(DAYS) / u64::from(downloads);
    Day(until.0.saturating_sub(u32::try_from(back).unwrap_or(DAYS)))
}

/// Repeatable pseudo-random numbers and ids (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.next().to_be_bytes()[..chunk.len()]));
        bytes
    }
}

/// Makes the records of a random download on this day.
fn download(day: Day, random: &mut Random) -> [LedgerRecord; PER_DOWNLOAD as usize] {
    let object = random.next() % OBJECTS;
    let (download, version) = (DownloadId(random.bytes()), VersionId::numbered(u32::try_from(object).unwrap_or(0)));
    let (guid, intro, key) = (Guid(random.bytes()), IntroId(random.bytes()), PublicKey(random.bytes()));
    let state = match random.next() % 100 {
        0..=2 => UsageState::Failed,
        3..=9 => UsageState::Cancelled,
        _ => UsageState::Completed,
    };
    let done = if state == UsageState::Completed { SIZE } else { SIZE / 3 };
    let from_peers = done / 100 * (random.next() % 95);
    let elapsed_ms = 2_000 + random.next() % 60_000;
    let download_key = Key::from_seed(random.bytes());
    let receipt = Receipt { intro, download, version, uploader_key: key, seq: 1, bytes: from_peers };
    let signature = download_key.sign(SigningContext::Receipt, &receipt.to_bytes());
    let proof = ReceiptProof { uploader_key: key, seq: 1, bytes: from_peers, signature };
    let usage = |id: RecordId, reporter: Guid, side: Side| {
        let receipt = (side == Side::Uploader).then(|| proof.clone());
        let bytes = PeerBytes { intro, key, bytes: from_peers, receipt };
        let (edge_bytes, peers) = (done - from_peers, List::truncated([bytes]));
        LedgerRecord::Usage(unsigned(UsageRecord {
            id,
            reporter,
            side,
            download,
            version,
            seq: 1,
            state,
            edge_bytes,
            peers,
            elapsed_ms,
            cause: (state == UsageState::Failed).then_some(FailCause::EdgeUnreachable),
        }))
    };
    let granted = GrantRecord {
        id: RecordId(random.bytes()),
        download,
        guid,
        download_key: download_key.public(),
        version,
        size: SIZE,
        provider: PROVIDER,
        path: Text::new(format!("games/part-{object:03}.iso")).unwrap_or_default(),
        issued_ms: day.end_ms() - 1 - random.next() % DAY_MS,
        max_peer_bytes: SIZE,
        challenged: false,
        proof: None,
    };
    let served = EdgeRecord {
        id: RecordId(random.bytes()),
        edge: PublicKey::numbered(1),
        download: Some(download),
        guid: Some(guid),
        version,
        provider: PROVIDER,
        seq: 1,
        unique_bytes: done - from_peers,
        total_bytes: done - from_peers,
    };
    let peers = List::truncated([OfferedPeer { intro, upload_key: key }]);
    let event = LogEvent::Offered(Offered { download, version, peers });
    let offered = LogRecord { id: RecordId(random.bytes()), at_ms: granted.issued_ms, guid, event };
    [
        LedgerRecord::Granted(granted),
        LedgerRecord::Log(offered),
        usage(RecordId(random.bytes()), guid, Side::Downloader),
        usage(RecordId(random.bytes()), Guid(random.bytes()), Side::Uploader),
        LedgerRecord::Edge(served),
    ]
}
