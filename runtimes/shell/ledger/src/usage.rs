//! Queries of the recorded usage of downloads.

use super::columns::{number_at, record_at};
use super::kind::Kind;
use super::reader::Reader;
use data_encoding::HEXLOWER;
use futures_lite::StreamExt as _;
use serde::Serialize;
use sqlx::Row as _;
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::accounting::settlement::{Book, Claims};
use swarmedge_core::ids::{DownloadId, Guid, IntroId, ProviderId, RecordId};
use swarmedge_core::wire::records::{LedgerRecord, PossessionOutcome, UsageState};
use swarmedge_ground::error::Error;
use swarmedge_ground::keys::verify;

/// Selects downloads; `None` matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only downloads of this provider.
    pub provider: Option<ProviderId>,
    /// Only downloads of the object at this path.
    pub path: Option<String>,
    /// Only the download with this id.
    pub download: Option<DownloadId>,
}

/// Settled usage of one download. Byte counts are those of [`swarmedge_core::accounting::settlement::Bill`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DownloadUsage {
    /// Id of the download, hexadecimal.
    pub download: String,
    /// The provider that pays.
    pub provider: u32,
    /// Path of the object.
    pub path: String,
    /// Id of the version, hexadecimal.
    pub version: String,
    /// GUID of the downloader, hexadecimal.
    pub guid: String,
    /// Size of the version, bytes.
    pub size: u64,
    /// Time of the first grant, Unix milliseconds.
    pub issued_ms: u64,
    /// `running`, `completed`, `cancelled`, `failed`, or `granted` before the client's first report.
    pub state: &'static str,
    /// Duration reported by the client, milliseconds.
    pub elapsed_ms: u64,
    /// Bytes sent by edges, each byte counted once.
    pub edge_unique: u64,
    /// Bytes sent by edges, repetitions included.
    pub edge_total: u64,
    /// Bytes from edges, reported by the client.
    pub edge_claimed: u64,
    /// Bytes from peers, reported by the client.
    pub peers_received: u64,
    /// Bytes from peers, reported by the uploaders.
    pub peers_sent: u64,
    /// Bytes from peers for which the downloader signed receipts.
    pub peers_receipted: u64,
    /// Bytes from peers that are billed.
    pub peers_billed: u64,
    /// Bytes that are claimed and not billed.
    pub flagged: u64,
    /// Outcome of the possession challenge: `passed`, `failed`, `unanswered`, `waived`; `None` without one.
    pub possession: Option<&'static str>,
    /// Newest reports of the uploaders.
    pub uploaders: Vec<UploaderUsage>,
}

/// One uploader's part in a download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UploaderUsage {
    /// GUID of the uploader, hexadecimal.
    pub guid: String,
    /// Bytes sent, reported by the uploader.
    pub sent: u64,
    /// Bytes received over the same introductions, reported by the downloader.
    pub received: u64,
    /// Bytes of the highest receipts, signed by the downloader and filed by the uploader.
    pub receipted: u64,
    /// Bytes that count, summed over introductions: the smaller of the highest receipt and the downloader's report.
    pub agreed: u64,
}

/// Plain HTTP traffic (curl, browsers) of one version from one edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlainUsage {
    /// The provider that pays.
    pub provider: u32,
    /// Id of the version, hexadecimal.
    pub version: String,
    /// Public key of the edge, hexadecimal.
    pub edge: String,
    /// Bytes sent by the edge.
    pub bytes: u64,
}

impl Reader {
    /// Returns the usage of each granted download, oldest first.
    pub async fn downloads(&mut self, filter: &Filter) -> Result<Vec<DownloadUsage>, Error> {
        self.read_downloads(filter).await.map_err(|e| self.failed(&e))
    }

    /// Reads the usage of the downloads that a filter selects.
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
                // the settled figures count, whatever records came since
                usage.edge_unique = number_at(&line, 1)?;
                usage.edge_total = number_at(&line, 2)?;
                usage.peers_billed = number_at(&line, 3)?;
                usage.flagged = number_at(&line, 4)?;
                all.push(usage);
            }
        }
        Ok(all)
    }

    /// Returns the bytes that downloader and uploader claim, by introduction of the download.
    pub async fn claims(&mut self, download: DownloadId) -> Result<BTreeMap<IntroId, Claims>, Error> {
        let records = self.records_of(&download.0).await.map_err(|e| self.failed(&e))?;
        Ok(book_of(records).claims(verify, 0))
    }

    /// Reads the records of a download.
    async fn records_of(&mut self, download: &[u8]) -> Result<Vec<LedgerRecord>, sqlx::Error> {
        let rows = sqlx::query("SELECT body FROM record WHERE download = $1")
            .bind(download.to_vec())
            .fetch_all(&mut self.db.any)
            .await?;
        rows.iter().map(|row| record_at(row, 0)).collect()
    }

    /// Returns plain HTTP traffic, by version and edge.
    pub async fn plain(&mut self, provider: Option<ProviderId>) -> Result<Vec<PlainUsage>, Error> {
        self.read_plain(provider).await.map_err(|e| self.failed(&e))
    }

    /// Reads the bytes that edges sent without a grant, by version and edge.
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
                bytes: number_at(row, 3)?,
            })
        };
        rows.iter().map(plain).collect()
    }

    /// Returns the records that were set aside, with the database's reasons.
    pub async fn set_aside(&mut self) -> Result<Vec<(RecordId, String)>, Error> {
        let rows: Result<Vec<(Vec<u8>, String)>, _> =
            sqlx::query_as("SELECT id, why FROM set_aside ORDER BY received_ms, id").fetch_all(&mut self.db.any).await;
        let record = |(id, why): (Vec<u8>, String)| Some((RecordId(id.try_into().ok()?), why));
        Ok(rows.map_err(|e| self.failed(&e))?.into_iter().filter_map(record).collect())
    }

    /// Returns those of `guids` that no download, login or rekey record names. Scans all logins if cheaper lookups
    /// leave some GUIDs unfound.
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
        let logins = sqlx::query("SELECT body FROM record WHERE kind IN ($1, $2)")
            .bind(Kind::Login.to_sql())
            .bind(Kind::OldLogin.to_sql());
        let mut logins = logins.fetch(&mut self.db.any);
        while !unnamed.is_empty()
            && let Some(row) = logins.next().await
        {
            if let LedgerRecord::Log(log) = record_at(&row?, 0)? {
                unnamed.remove(&log.guid);
            }
        }
        Ok(unnamed)
    }
}

fn book_of(records: Vec<LedgerRecord>) -> Book {
    let mut book = Book::strict();
    records.into_iter().for_each(|r| book.add(r, 0));
    book
}

/// Settles a download's records; `None` without a grant record.
fn usage_of(mut records: Vec<LedgerRecord>) -> Option<DownloadUsage> {
    // of one reporter's records the one with the highest sequence number counts
    records.sort_by_key(|r| r.usage().map_or(0, |u| u.seq));
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
        PossessionOutcome::Rechecked => "rechecked",
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
