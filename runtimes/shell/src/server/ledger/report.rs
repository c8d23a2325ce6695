//! What the ledger recorded, for providers and operators. Reads the database beside its writer, from any process.

use super::store::brief;
use crate::cli::{Code, Error};
use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use swarmedge_core::accounting::settlement::Book;
use swarmedge_core::ids::{DownloadId, Guid, IntroId, ProviderId};
use swarmedge_core::wire::Wire;
use swarmedge_core::wire::records::{GrantRecord, LedgerRecord, Side, UsageRecord, UsageState};

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
    /// From peers, billed.
    pub peers_billed: u64,
    /// Claimed and not billed.
    pub flagged: u64,
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
    /// What both say: the smaller claim of each introduction.
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
    db: SqliteConnection,
    path: PathBuf,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.path.display())
    }
}

impl Reader {
    /// Opens the database of a ledger that has run before.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        if !path.exists() {
            return Err(Error::new(Code::NotFound, format!("there is no ledger at {}", path.display()))
                .next("start the ledger server first: it makes its database"));
        }
        let options = SqliteConnectOptions::new().filename(path).read_only(true).disable_statement_logging();
        let db = options.connect().await;
        let db = db.map_err(|e| Error::failed(format!("cannot read ledger {}: {}", path.display(), brief(&e))))?;
        Ok(Self { db, path: path.to_owned() })
    }

    /// What was recorded of each granted download, oldest first.
    pub async fn downloads(&mut self, filter: &Filter) -> Result<Vec<DownloadUsage>, Error> {
        let ids: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT download FROM download
             WHERE (?1 IS NULL OR provider = ?1) AND (?2 IS NULL OR path = ?2) AND (?3 IS NULL OR download = ?3)
             ORDER BY issued_ms, download",
        )
        .bind(filter.provider.map(|p| i64::from(p.0)))
        .bind(filter.path.as_deref())
        .bind(filter.download.as_ref().map(|d| &d.0[..]))
        .fetch_all(&mut self.db)
        .await
        .map_err(|e| self.failed(&e))?;
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            all.extend(usage_of(self.records(&id).await?));
        }
        Ok(all)
    }

    /// The newest record of each reporter about a download.
    async fn records(&mut self, download: &[u8]) -> Result<Vec<LedgerRecord>, Error> {
        let bodies: Result<Vec<Vec<u8>>, _> = sqlx::query_scalar(
            "SELECT body FROM record AS r WHERE download = ?1 AND seq =
                 (SELECT max(seq) FROM record AS s
                  WHERE s.download = ?1 AND s.kind = r.kind AND s.reporter = r.reporter)",
        )
        .bind(download)
        .fetch_all(&mut self.db)
        .await;
        bodies.map_err(|e| self.failed(&e))?.iter().map(|body| self.decode(body)).collect()
    }

    /// Plain HTTP traffic.
    pub async fn plain(&mut self, provider: Option<ProviderId>) -> Result<Vec<PlainUsage>, Error> {
        let rows = sqlx::query(
            "SELECT body, max(seq) FROM record WHERE kind = 3 AND download IS NULL GROUP BY reporter, version",
        )
        .fetch_all(&mut self.db)
        .await
        .map_err(|e| self.failed(&e))?;
        let body = |row: &SqliteRow| row.try_get::<Vec<u8>, _>(0).map_err(|e| self.failed(&e));
        let mut all = Vec::new();
        for row in &rows {
            if let LedgerRecord::Edge(r) = self.decode(&body(row)?)?
                && provider.is_none_or(|p| p == r.provider)
            {
                all.push(PlainUsage {
                    provider: r.provider.0,
                    version: r.version.to_string(),
                    edge: r.edge.to_string(),
                    bytes: r.total_bytes,
                });
            }
        }
        Ok(all)
    }

    fn decode(&self, body: &[u8]) -> Result<LedgerRecord, Error> {
        LedgerRecord::from_bytes(body)
            .map_err(|e| Error::failed(format!("ledger {} holds a broken record: {e}", self.path.display())))
    }

    fn failed(&self, e: &sqlx::Error) -> Error {
        Error::failed(format!("cannot read ledger {}: {}", self.path.display(), brief(e)))
    }
}

/// None without the first grant's record.
fn usage_of(records: Vec<LedgerRecord>) -> Option<DownloadUsage> {
    let granted = records.iter().find_map(|r| match r {
        LedgerRecord::Granted(g) => Some(g.clone()),
        LedgerRecord::Usage(_) | LedgerRecord::Edge(_) => None,
    })?;
    let uploaders = uploaders(&granted, &records);
    let bill = records.into_iter().collect::<Book>().bill();
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
        peers_billed: bill.peers_billed,
        flagged: bill.flagged,
        uploaders,
    })
}

const fn state_name(state: &UsageState) -> &'static str {
    match state {
        UsageState::Running => "running",
        UsageState::Completed => "completed",
        UsageState::Cancelled => "cancelled",
        UsageState::Failed => "failed",
    }
}

fn uploaders(granted: &GrantRecord, records: &[LedgerRecord]) -> Vec<UploaderUsage> {
    let usage = |side: Side| {
        records.iter().filter_map(move |r| match r {
            LedgerRecord::Usage(u) if u.side == side => Some(u),
            LedgerRecord::Usage(_) | LedgerRecord::Edge(_) | LedgerRecord::Granted(_) => None,
        })
    };
    let by_intro = |r: &UsageRecord| {
        let mut bytes: BTreeMap<IntroId, u64> = BTreeMap::new();
        for p in &r.peers {
            let b = bytes.entry(p.intro).or_default();
            *b = b.saturating_add(p.bytes);
        }
        bytes
    };
    let downloader = usage(Side::Downloader).find(|r| r.reporter == granted.guid);
    let received = downloader.map(by_intro).unwrap_or_default();
    let by_guid: BTreeMap<Guid, &UsageRecord> = usage(Side::Uploader).map(|r| (r.reporter, r)).collect();
    let one = |(guid, r): (Guid, &UsageRecord)| {
        let mut sum = UploaderUsage { guid: guid.to_string(), sent: 0, received: 0, agreed: 0 };
        for (intro, sent) in by_intro(r) {
            let received = received.get(&intro).copied().unwrap_or(0);
            sum.sent = sum.sent.saturating_add(sent);
            sum.received = sum.received.saturating_add(received);
            sum.agreed = sum.agreed.saturating_add(sent.min(received));
        }
        sum
    };
    by_guid.into_iter().map(one).collect()
}
