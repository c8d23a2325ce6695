//! Closing of days: the statements of a day (its bill lines: one a download, plain HTTP traffic, daily sums) become
//! the leaves of a Merkle tree, and the tree's root a leaf of the log of days, whose head is signed. A closed day
//! never changes.

use super::clock::{Clock, EVIDENCE_DAYS, first_open};
use super::columns::{day_at, number_at, provider_at, wire_at};
use super::config::LedgerConfig;
use super::connection::Connection;
use super::database::Database;
use super::day::Day;
use super::erase::forget_addresses;
use super::reader::Reader;
use super::rollup::roll;
use super::rows::{Value, insert};
use super::settle::settle_again;
use super::store::Store;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use std::collections::BTreeMap;
use swarmedge_core::accounting::audit::{
    DayLeaf, DownloadStatement, Head, Leaf, Outcome, PlainStatement, ProviderDay, SignedHead, SumStatement, Totals,
    tree,
};
use swarmedge_core::ids::{Digest, ProviderId};
use swarmedge_core::wire::records::{CertBody, ServerCert, SigningContext};
use swarmedge_core::wire::{Text, Wire};
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::keys::{Key, load_cert};

/// Number of downloads whose records are held in memory at a time.
const AT_A_TIME: usize = 256;

/// The ledger's signing key and its certificate.
#[derive(Debug)]
pub struct Signer {
    key: Key,
    cert: ServerCert,
}

impl Signer {
    /// Loads the configured key and certificate; `None` if the ledger has none.
    pub fn load(cfg: &LedgerConfig) -> Result<Option<Self>, Error> {
        let (Some(key), Some(cert)) = (&cfg.signing_key, &cfg.certificate) else { return Ok(None) };
        let (key, cert) = (Key::load(key)?, load_cert(cert)?);
        if cert.body.key != key.public() {
            return Err(Error::usage("[ledger] certificate is not for [ledger] signing_key"));
        }
        Ok(Some(Self { key, cert }))
    }

    /// Makes a signer of a key and its certificate.
    #[must_use]
    pub const fn new(key: Key, cert: ServerCert) -> Self {
        Self { key, cert }
    }

    /// Returns the body of the certificate.
    #[must_use]
    pub const fn cert_body(&self) -> &CertBody {
        &self.cert.body
    }

    /// Refuses to sign outside the certificate's validity: a day signed so would fail every audit.
    fn check(&self, now_ms: u64) -> Result<(), Error> {
        let body = &self.cert.body;
        if (body.not_before_ms..body.not_after_ms).contains(&now_ms) {
            return Ok(());
        }
        let how = if now_ms < body.not_before_ms { "is not valid yet" } else { "has expired" };
        Err(Error::failed(format!("the ledger's certificate {how}: no audit would believe it, so no day is closed"))
            .next("run `swarmedge certificates renew`, then restart the ledger"))
    }

    fn sign(&self, head: Head) -> SignedHead {
        let signature = self.key.sign(SigningContext::LedgerHead, &head.to_bytes());
        SignedHead { head, signature, cert: self.cert.clone() }
    }
}

/// A newly closed day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The day that was closed.
    pub day: Day,
    /// Number of the day's statements (bill lines), daily sums included.
    pub leaves: u64,
    /// The signed head of the log of days.
    pub head: SignedHead,
}

/// Closes every open day up to `last`, beginning with the day after the last closed one, or else the first with
/// records.
pub async fn close_days(store: &mut Store, last: Day, signer: &Signer, now_ms: u64) -> Result<Vec<Closed>, Error> {
    let (db, database) = store.parts()?;
    let failed = |e: sqlx::Error| database.unusable(&e);
    let mut closed = Vec::new();
    let Some(mut day) = first_day(&mut db.any).await.map_err(failed)? else { return Ok(closed) };
    if day <= last {
        signer.check(now_ms)?;
    }
    while day <= last {
        closed.extend(close_day(db, day, signer, now_ms).await.map_err(failed)?);
        day = day.next();
    }
    Ok(closed)
}

/// Deletes records of closed days that arrived more than `keep` days ago. The statements stay.
pub async fn trim(store: &mut Store, today: Day, keep: u32) -> Result<(), Error> {
    let (db, database) = store.parts()?;
    let failed = |e: sqlx::Error| database.unusable(&e);
    let closed = first_open(&mut db.any).await.map_err(failed)?;
    // downloads that are still open may have records of this age
    let before = (today.to_sql() - i64::from(keep)).min(closed.to_sql() - EVIDENCE_DAYS);
    db.trim(before).await.map_err(failed)
}

/// Returns the next day to close: the one after the last closed day, or the first with traffic.
async fn first_day(db: &mut AnyConnection) -> Result<Option<Day>, sqlx::Error> {
    let open = first_open(db).await?;
    if open > Day::default() {
        return Ok(Some(open));
    }
    let text = "SELECT MIN(day) FROM (SELECT MIN(day) AS day FROM download UNION ALL SELECT MIN(day) FROM plain) AS a";
    let first: Option<i64> = sqlx::query_scalar(text).fetch_one(db).await?;
    Ok(first.map(Day::from_sql))
}

/// Closes a day; `None` if another process has closed it meanwhile.
async fn close_day(db: &mut Connection, day: Day, signer: &Signer, now_ms: u64) -> Result<Option<Closed>, sqlx::Error> {
    let mut change = db.begin().await?;
    if first_open(&mut change).await? > day {
        change.rollback().await?;
        return Ok(None);
    }
    settle_open(&mut change, day, now_ms).await?;
    let leaves = leaves_of(&mut change, day).await?;
    let hashes: Vec<Digest> = leaves.iter().map(Leaf::hash).collect();
    let leaf = DayLeaf { day: day.0, leaves: hashes.len() as u64, root: tree::root(&hashes) };
    let mut log = log_of(&mut change, day).await?;
    log.push(leaf.hash());
    let head = signer.sign(Head { days: log.len() as u64, root: tree::root(&log), day: day.0, closed_ms: now_ms });
    let row = |(position, leaf): (u64, Leaf)| {
        let provider = i64::from(leaf.of().0.0);
        vec![day.to_sql().into(), position.into(), provider.into(), Value::Bytes(leaf.to_bytes())]
    };
    let rows = (0..).zip(leaves).map(row).collect();
    insert(&mut change, "INSERT INTO statement (day, position, provider, body)", rows, "").await?;
    let row = vec![day.to_sql().into(), Value::Bytes(leaf.to_bytes()), Value::Bytes(head.to_bytes()), now_ms.into()];
    insert(&mut change, "INSERT INTO day (day, leaf, head, closed_ms)", vec![row], "").await?;
    roll(&mut change, day).await?;
    change.commit().await?;
    Ok(Some(Closed { day, leaves: leaf.leaves, head }))
}

/// Prepares the closing of `day`: moves downloads whose records still count to the next day, and settles downloads
/// that expired without a final report.
async fn settle_open(change: &mut AnyConnection, day: Day, now_ms: u64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE download SET day = $1 WHERE day = $2 AND closes_ms > $3")
        .bind(day.next().to_sql())
        .bind(day.to_sql())
        .bind(i64::try_from(now_ms).unwrap_or(i64::MAX))
        .execute(&mut *change)
        .await?;
    let silent = sqlx::query("SELECT download FROM download WHERE day = $1 AND state < 2").bind(day.to_sql());
    let silent: Vec<Vec<u8>> =
        silent.fetch_all(&mut *change).await?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    for some in silent.chunks(AT_A_TIME) {
        settle_again(change, some, Clock::new(day, now_ms)).await?;
    }
    Ok(())
}

/// Returns a day's statements. For each provider: its downloads, its plain HTTP traffic, then its sum. A provider has
/// a sum every day from its first day with traffic on.
async fn leaves_of(db: &mut AnyConnection, day: Day) -> Result<Vec<Leaf>, sqlx::Error> {
    let mut by_provider: BTreeMap<ProviderId, Vec<Leaf>> = BTreeMap::new();
    let downloads = sqlx::query(
        "SELECT provider, download, path, version, size, state, edge_unique, peers_billed, flagged, evidence,
                max_peer_bytes
         FROM download WHERE day = $1 ORDER BY provider, download",
    );
    for row in downloads.bind(day.to_sql()).fetch_all(&mut *db).await? {
        let leaf = download_leaf(&row, day)?;
        by_provider.entry(leaf.of().0).or_default().push(leaf);
    }
    let plain = sqlx::query("SELECT provider, version, edge, bytes FROM plain WHERE day = $1 ORDER BY edge, version");
    for row in plain.bind(day.to_sql()).fetch_all(&mut *db).await? {
        let provider = provider_at(&row, 0)?;
        let (version, edge, bytes) = (wire_at(&row, 1)?, wire_at(&row, 2)?, number_at(&row, 3)?);
        let leaf = Leaf::Plain(PlainStatement { provider, day: day.0, version, edge, bytes });
        by_provider.entry(provider).or_default().push(leaf);
    }
    let providers = providers(db, by_provider.keys().copied(), day).await?;
    let with_sum = |(provider, since): (ProviderId, u32)| {
        let mut leaves = by_provider.remove(&provider).unwrap_or_default();
        let mut totals = Totals::default();
        leaves.iter().for_each(|leaf| totals.add(leaf));
        let statements = leaves.len() as u64;
        leaves.push(Leaf::Sum(SumStatement { provider, day: day.0, statements, totals, since }));
        leaves
    };
    Ok(providers.into_iter().flat_map(with_sum).collect())
}

/// Registers the providers of `day`; returns all providers that ever had a statement, with their first days.
async fn providers(
    db: &mut AnyConnection,
    today: impl Iterator<Item = ProviderId>,
    day: Day,
) -> Result<BTreeMap<ProviderId, u32>, sqlx::Error> {
    let rows = today.map(|provider| vec![i64::from(provider.0).into(), day.to_sql().into()]).collect();
    insert(db, "INSERT INTO provider (provider, since)", rows, "ON CONFLICT DO NOTHING").await?;
    let rows = sqlx::query("SELECT provider, since FROM provider").fetch_all(db).await?;
    rows.iter().map(|row| Ok((provider_at(row, 0)?, day_at(row, 1)?.0))).collect()
}

fn download_leaf(row: &AnyRow, day: Day) -> Result<Leaf, sqlx::Error> {
    let path: String = row.try_get(2)?;
    Ok(Leaf::Download(DownloadStatement {
        provider: provider_at(row, 0)?,
        day: day.0,
        download: wire_at(row, 1)?,
        path: Text::new(&path).map_err(|e| sqlx::Error::Decode(e.into()))?,
        version: wire_at(row, 3)?,
        size: number_at(row, 4)?,
        outcome: match row.try_get::<i64, _>(5)? {
            2 => Outcome::Completed,
            3 => Outcome::Cancelled,
            4 => Outcome::Failed,
            1 => Outcome::Unfinished,
            _ => Outcome::Unreported,
        },
        edge_bytes: number_at(row, 6)?,
        peer_bytes: number_at(row, 7)?,
        flagged_bytes: number_at(row, 8)?,
        evidence: wire_at(row, 9)?,
        max_peer_bytes: number_at(row, 10)?,
    }))
}

/// Returns the leaf hashes of the log of days before `day`.
async fn log_of(db: &mut AnyConnection, day: Day) -> Result<Vec<Digest>, sqlx::Error> {
    let rows = sqlx::query("SELECT leaf FROM day WHERE day < $1 ORDER BY day");
    let rows = rows.bind(day.to_sql()).fetch_all(db).await?;
    rows.iter().map(|row| Ok(tree::leaf_hash(&row.try_get::<Vec<u8>, _>(0)?))).collect()
}

impl Reader {
    /// Returns a provider's statements of a closed day, with their proofs.
    pub async fn provider_day(&mut self, provider: ProviderId, day: Day) -> Result<ProviderDay, Error> {
        let found = self.read_provider_day(provider, day).await.map_err(|e| self.failed(&e))?;
        found.ok_or_else(|| {
            Error::new(Code::NotFound, format!("{day} is not closed"))
                .next("`ledger close-day` closes days that are over; the ledger server does it by itself")
        })
    }

    async fn read_provider_day(&mut self, provider: ProviderId, day: Day) -> Result<Option<ProviderDay>, sqlx::Error> {
        let db = &mut self.db.any;
        let closed = sqlx::query("SELECT leaf, head FROM day WHERE day = $1").bind(day.to_sql());
        let Some(closed) = closed.fetch_optional(&mut *db).await? else { return Ok(None) };
        let (leaf, head): (DayLeaf, SignedHead) = (wire_at(&closed, 0)?, wire_at(&closed, 1)?);
        let before = sqlx::query("SELECT head FROM day WHERE day < $1 ORDER BY day DESC LIMIT 1").bind(day.to_sql());
        let before = before.fetch_optional(&mut *db).await?;
        let previous: Option<SignedHead> = before.map(|row| wire_at(&row, 0)).transpose()?;
        let rows = sqlx::query("SELECT provider, body FROM statement WHERE day = $1 ORDER BY position");
        let rows = rows.bind(day.to_sql()).fetch_all(&mut *db).await?;
        let (mut hashes, mut leaves, mut first) = (Vec::with_capacity(rows.len()), Vec::new(), 0);
        for row in &rows {
            if row.try_get::<i64, _>(0)? == i64::from(provider.0) {
                if leaves.is_empty() {
                    first = hashes.len();
                }
                leaves.push(wire_at(row, 1)?);
            }
            hashes.push(tree::leaf_hash(&row.try_get::<Vec<u8>, _>(1)?));
        }
        let mut log = log_of(db, day).await?;
        let older = log.len();
        log.push(leaf.hash());
        Ok(Some(ProviderDay {
            provider,
            first: first as u64,
            range: tree::range(&hashes, first..first + leaves.len()),
            leaves,
            inclusion: tree::inclusion(&log, older),
            consistency: tree::consistency(&log, older),
            previous,
            day: leaf,
            head,
        }))
    }

    /// Returns the last closed day.
    pub async fn last_closed(&mut self) -> Result<Option<Day>, Error> {
        let open = first_open(&mut self.db.any).await.map_err(|e| self.failed(&e))?;
        Ok(open.0.checked_sub(1).map(Day))
    }
}

/// Opens the ledger and closes the days that are due.
pub async fn close_due(
    database: &Database,
    cfg: &LedgerConfig,
    signer: &Signer,
    now_ms: u64,
) -> Result<Vec<Closed>, Error> {
    let today = Day::of_ms(now_ms);
    let mut store = Store::open(database).await?;
    let mut closed = Vec::new();
    if let Some(last) = cfg.last_due(today) {
        closed = close_days(&mut store, last, signer, now_ms).await?;
    }
    store.close().await;
    Ok(closed)
}

/// Opens the ledger, removes the addresses from logins older than `address_days`, and deletes records older than
/// `keep_days`. Call once a day: it scans much.
pub async fn forget_due(cfg: &LedgerConfig, now_ms: u64) -> Result<(), Error> {
    forget_addresses(&cfg.database, cfg.address_days, now_ms).await?;
    if let Some(keep_days) = cfg.keep_days {
        let mut store = Store::open(&cfg.database).await?;
        trim(&mut store, Day::of_ms(now_ms), keep_days).await?;
        store.close().await;
    }
    Ok(())
}
