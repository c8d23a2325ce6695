//! What the ledger recorded of each download. Reads the database beside its writer, from any process.

use super::database::{Connection, Database};
use super::store::{LOGS_FROM, decode};
use data_encoding::HEXLOWER;
use futures_lite::StreamExt as _;
use serde::Serialize;
use sqlx::Row as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use swarmedge_core::accounting::settlement::{Book, Claims};
use swarmedge_core::ids::{DownloadId, Guid, IntroId, ProviderId, RecordId};
use swarmedge_core::wire::records::{LedgerRecord, PossessionOutcome, UsageState};
use swarmedge_ground::error::Error;
use swarmedge_ground::keys::verify;

/// Which downloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this provider's.
    pub provider: Option<ProviderId>,
    /// Only of this object's path.
    pub path: Option<String>,
    /// Only this one.
    pub download: Option<DownloadId>,
}

/// What the records of one download come to. Bytes as in [`swarmedge_core::accounting::settlement::Bill`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DownloadUsage {
    /// Its id, hexadecimal.
    pub download: String,
    /// Who pays.
    pub provider: u32,
    /// The object's path.
    pub path: String,
    /// The version, hexadecimal.
    pub version: String,
    /// Who downloads, hexadecimal.
    pub guid: String,
    /// Bytes of the version.
    pub size: u64,
    /// When it was granted, Unix milliseconds.
    pub issued_ms: u64,
    /// `running`, `completed`, `cancelled`, `failed`, or `granted` before the client's first report.
    pub state: &'static str,
    /// How long it took, as the client says, milliseconds.
    pub elapsed_ms: u64,
    /// Sent by edges, each byte counted once.
    pub edge_unique: u64,
    /// Sent by edges, repetitions included.
    pub edge_total: u64,
    /// From edges, as the client says.
    pub edge_claimed: u64,
    /// From peers, as the client says.
    pub peers_received: u64,
    /// From peers, as the uploaders say.
    pub peers_sent: u64,
    /// From peers, as the downloader has signed for.
    pub peers_receipted: u64,
    /// From peers, billed.
    pub peers_billed: u64,
    /// Claimed and not billed.
    pub flagged: u64,
    /// What became of its possession challenge: `passed`, `failed`, `unanswered`, `waived`; none without.
    pub possession: Option<&'static str>,
    /// The newest reports of its uploaders.
    pub uploaders: Vec<UploaderUsage>,
}

/// One uploader's part in a download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UploaderUsage {
    /// Who, hexadecimal.
    pub guid: String,
    /// As the uploader says.
    pub sent: u64,
    /// As the downloader says of the same introductions.
    pub received: u64,
    /// As the downloader has signed for: the highest receipts that the uploader has filed.
    pub receipted: u64,
    /// What counts: the smaller of receipt and downloader's claim of each introduction.
    pub agreed: u64,
}

/// Plain HTTP traffic (curl, browsers) of one version from one edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlainUsage {
    /// Who pays.
    pub provider: u32,
    /// The version, hexadecimal.
    pub version: String,
    /// The edge's key, hexadecimal.
    pub edge: String,
    /// Bytes sent.
    pub bytes: u64,
}

/// A reader of a ledger's database.
pub struct Reader {
    pub(super) db: Connection,
    database: Database,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.database)
    }
}

impl Reader {
    /// Opens the database of a ledger that has run before.
    pub async fn open(database: &Database) -> Result<Self, Error> {
        Ok(Self { db: database.open_reader().await?, database: database.clone() })
    }

    /// What was recorded of each granted download, oldest first.
    pub async fn downloads(&mut self, filter: &Filter) -> Result<Vec<DownloadUsage>, Error> {
        self.read_downloads(filter).await.map_err(|e| self.failed(&e))
    }

    async fn read_downloads(&mut self, filter: &Filter) -> Result<Vec<DownloadUsage>, sqlx::Error> {
        let lines = sqlx::query(
            "SELECT download, edge_unique, edge_total, peers_billed, flagged FROM download
             WHERE ($1 IS NULL OR provider = $1) AND ($2 IS NULL OR path = $2) AND ($3 IS NULL OR download = $3)
             ORDER BY issued_ms, download",
        )
        .bind(filter.provider.map(|p| i64::from(p.0)))
        .bind(filter.path.clone())
        .bind(filter.download.map(|d| d.0.to_vec()))
        .fetch_all(&mut self.db.any)
        .await?;
        let mut all = Vec::with_capacity(lines.len());
        for line in lines {
            let records = self.records_of(&line.try_get::<Vec<u8>, _>(0)?).await?;
            if let Some(mut usage) = usage_of(records) {
                // what was settled counts, whatever has come since
                usage.edge_unique = bytes_at(&line, 1)?;
                usage.edge_total = bytes_at(&line, 2)?;
                usage.peers_billed = bytes_at(&line, 3)?;
                usage.flagged = bytes_at(&line, 4)?;
                all.push(usage);
            }
        }
        Ok(all)
    }

    /// What is claimed of each introduction of a download.
    pub async fn claims(&mut self, download: DownloadId) -> Result<BTreeMap<IntroId, Claims>, Error> {
        let records = self.records_of(&download.0).await.map_err(|e| self.failed(&e))?;
        Ok(book_of(records).claims(verify, 0))
    }

    async fn records_of(&mut self, download: &[u8]) -> Result<Vec<LedgerRecord>, sqlx::Error> {
        let rows = sqlx::query("SELECT body FROM record WHERE download = $1")
            .bind(download.to_vec())
            .fetch_all(&mut self.db.any)
            .await?;
        rows.iter().map(|row| decode(row, 0)).collect()
    }

    /// Plain HTTP traffic.
    pub async fn plain(&mut self, provider: Option<ProviderId>) -> Result<Vec<PlainUsage>, Error> {
        self.read_plain(provider).await.map_err(|e| self.failed(&e))
    }

    async fn read_plain(&mut self, provider: Option<ProviderId>) -> Result<Vec<PlainUsage>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT provider, version, edge, CAST(SUM(bytes) AS BIGINT) FROM plain
             WHERE ($1 IS NULL OR provider = $1) GROUP BY provider, version, edge ORDER BY provider, version, edge",
        )
        .bind(provider.map(|p| i64::from(p.0)))
        .fetch_all(&mut self.db.any)
        .await?;
        let plain = |row: &sqlx::any::AnyRow| {
            Ok(PlainUsage {
                provider: u32::try_from(row.try_get::<i64, _>(0)?).unwrap_or(u32::MAX),
                version: HEXLOWER.encode(&row.try_get::<Vec<u8>, _>(1)?),
                edge: HEXLOWER.encode(&row.try_get::<Vec<u8>, _>(2)?),
                bytes: bytes_at(row, 3)?,
            })
        };
        rows.iter().map(plain).collect()
    }

    /// The ids of records that were set aside, and why.
    pub async fn set_aside(&mut self) -> Result<Vec<(RecordId, String)>, Error> {
        let rows: Result<Vec<(Vec<u8>, String)>, _> =
            sqlx::query_as("SELECT id, why FROM set_aside ORDER BY received_ms, id").fetch_all(&mut self.db.any).await;
        let record = |(id, why): (Vec<u8>, String)| Some((RecordId(id.try_into().ok()?), why));
        Ok(rows.map_err(|e| self.failed(&e))?.into_iter().filter_map(record).collect())
    }

    /// Those whom no record names: never granted a download, never logged in, never become another. Reads all logins
    /// unless a quicker look has found everybody.
    pub async fn unnamed(&mut self, guids: &BTreeSet<Guid>) -> Result<BTreeSet<Guid>, Error> {
        self.read_unnamed(guids).await.map_err(|e| self.failed(&e))
    }

    async fn read_unnamed(&mut self, guids: &BTreeSet<Guid>) -> Result<BTreeSet<Guid>, sqlx::Error> {
        let mut unnamed = BTreeSet::new();
        let text = "SELECT 1 FROM download WHERE guid = $1 UNION ALL SELECT 1 FROM place WHERE guid = $1
                    UNION ALL SELECT 1 FROM successor WHERE guid = $1 OR next = $1 LIMIT 1";
        for guid in guids {
            if sqlx::query(text).bind(guid.0.to_vec()).fetch_optional(&mut self.db.any).await?.is_none() {
                unnamed.insert(*guid);
            }
        }
        let logins = sqlx::query("SELECT body FROM record WHERE kind = $1").bind(LOGS_FROM);
        let mut logins = logins.fetch(&mut self.db.any);
        while !unnamed.is_empty()
            && let Some(row) = logins.next().await
        {
            if let LedgerRecord::Log(log) = decode(&row?, 0)? {
                unnamed.remove(&log.guid);
            }
        }
        Ok(unnamed)
    }

    pub(super) fn failed(&self, e: &sqlx::Error) -> Error {
        self.database.unusable(e)
    }
}

/// A number of bytes: never negative, at most what the engines can hold.
pub(super) fn bytes_at(row: &sqlx::any::AnyRow, column: usize) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}

fn book_of(records: Vec<LedgerRecord>) -> Book {
    let mut book = Book::strict();
    records.into_iter().for_each(|r| book.add(r, 0));
    book
}

/// None without the first grant's record.
fn usage_of(mut records: Vec<LedgerRecord>) -> Option<DownloadUsage> {
    // of one reporter's records the last counts
    records.sort_by_key(|r| if let LedgerRecord::Usage(u) = r { u.seq } else { 0 });
    let granted = records.iter().find_map(|r| match r {
        LedgerRecord::Granted(g) => Some(g.clone()),
        LedgerRecord::Usage(_)
        | LedgerRecord::Edge(_)
        | LedgerRecord::Served(_)
        | LedgerRecord::Possession(_)
        | LedgerRecord::Log(_) => None,
    })?;
    let possession = records.iter().find_map(|r| match r {
        LedgerRecord::Possession(p) => Some(outcome_name(p.outcome)),
        LedgerRecord::Usage(_)
        | LedgerRecord::Edge(_)
        | LedgerRecord::Granted(_)
        | LedgerRecord::Served(_)
        | LedgerRecord::Log(_) => None,
    });
    let book = book_of(records);
    let uploaders = uploaders(&book);
    let bill = book.bill(verify, 0);
    Some(DownloadUsage {
        download: granted.download.to_string(),
        provider: granted.provider.0,
        path: granted.path.to_string(),
        version: granted.version.to_string(),
        guid: granted.guid.to_string(),
        size: bill.size,
        issued_ms: granted.issued_ms,
        state: bill.state.as_ref().map_or("granted", state_name),
        elapsed_ms: bill.elapsed_ms,
        edge_unique: bill.edge_unique,
        edge_total: bill.edge_total,
        edge_claimed: bill.edge_claimed,
        peers_received: bill.peers_received,
        peers_sent: bill.peers_sent,
        peers_receipted: bill.peers_receipted,
        peers_billed: bill.peers_billed,
        flagged: bill.flagged,
        possession,
        uploaders,
    })
}

const fn outcome_name(outcome: PossessionOutcome) -> &'static str {
    match outcome {
        PossessionOutcome::Passed => "passed",
        PossessionOutcome::Failed => "failed",
        PossessionOutcome::Unanswered => "unanswered",
        PossessionOutcome::Waived => "waived",
    }
}

const fn state_name(state: &UsageState) -> &'static str {
    match state {
        UsageState::Running => "running",
        UsageState::Completed => "completed",
        UsageState::Cancelled => "cancelled",
        UsageState::Failed => "failed",
    }
}

fn uploaders(book: &Book) -> Vec<UploaderUsage> {
    let mut by_guid: BTreeMap<Guid, UploaderUsage> = BTreeMap::new();
    for claims in book.claims(verify, 0).into_values() {
        let Some(guid) = claims.uploader else { continue };
        let sum = by_guid.entry(guid).or_insert_with(|| UploaderUsage {
            guid: guid.to_string(),
            sent: 0,
            received: 0,
            receipted: 0,
            agreed: 0,
        });
        sum.sent = sum.sent.saturating_add(claims.sent);
        sum.received = sum.received.saturating_add(claims.received);
        sum.receipted = sum.receipted.saturating_add(claims.receipted);
        sum.agreed = sum.agreed.saturating_add(claims.agreed);
    }
    by_guid.into_values().collect()
}
