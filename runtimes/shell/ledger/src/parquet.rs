//! Export of a provider's closed days as Apache Parquet (EXPORT.md, beside this file) for other tools: one row a
//! statement. The proofs are in the JSON lines only.

use super::day::Day;
use super::places::Spot;
use super::reader::Reader;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result as Written};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use sqlx::Row as _;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use swarmedge_core::accounting::audit::{Leaf, Outcome, ProviderDay};
use swarmedge_core::ids::{DownloadId, ProviderId};
use swarmedge_ground::error::Error;

/// Columns of the table; values that a statement lacks are null.
const SCHEMA: &str = "message statement {
    REQUIRED INT32 day (DATE);
    REQUIRED INT64 provider;
    REQUIRED BYTE_ARRAY kind (UTF8);
    OPTIONAL BYTE_ARRAY download (UTF8);
    OPTIONAL BYTE_ARRAY path (UTF8);
    REQUIRED BYTE_ARRAY version (UTF8);
    OPTIONAL BYTE_ARRAY edge (UTF8);
    OPTIONAL INT64 size;
    OPTIONAL BYTE_ARRAY outcome (UTF8);
    REQUIRED INT64 edge_bytes;
    REQUIRED INT64 peer_bytes;
    REQUIRED INT64 flagged_bytes;
    REQUIRED INT64 plain_bytes;
    OPTIONAL INT64 max_peer_bytes;
    OPTIONAL BYTE_ARRAY country (UTF8);
    OPTIONAL INT64 asn;
    OPTIONAL BYTE_ARRAY evidence (UTF8);
}";

/// A Parquet file being written.
pub struct Archive {
    path: PathBuf,
    writer: SerializedFileWriter<File>,
    rows: usize,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Archive({})", self.path.display())
    }
}

/// A row of the table, in the order of the columns.
#[derive(Default)]
struct Row {
    day: i32,
    kind: &'static str,
    download: Option<String>,
    path: Option<String>,
    version: String,
    edge: Option<String>,
    size: Option<u64>,
    outcome: Option<&'static str>,
    bytes: [u64; 4],
    max_peer_bytes: Option<u64>,
    country: Option<String>,
    asn: Option<u32>,
    evidence: Option<String>,
}

impl Row {
    /// Converts a statement; `None` for a sum.
    fn of(leaf: &Leaf, spots: &BTreeMap<DownloadId, Spot>) -> Option<Self> {
        let day = i32::try_from(leaf.of().1).unwrap_or(i32::MAX);
        if let Leaf::Plain(p) = leaf {
            let (version, edge) = (p.version.to_string(), Some(p.edge.to_string()));
            return Some(Self { day, kind: "plain", version, edge, bytes: [0, 0, 0, p.bytes], ..Self::default() });
        }
        let of = leaf.download()?;
        let spot = spots.get(&of.download).copied().unwrap_or_default();
        Some(Self {
            day,
            kind: "download",
            download: Some(of.download.to_string()),
            path: Some(of.path.to_string()),
            version: of.version.to_string(),
            edge: None,
            size: Some(of.size),
            outcome: Some(match of.outcome {
                Outcome::Unreported => "unreported",
                Outcome::Unfinished => "unfinished",
                Outcome::Completed => "completed",
                Outcome::Cancelled => "cancelled",
                Outcome::Failed => "failed",
            }),
            bytes: [of.edge_bytes, of.peer_bytes, of.flagged_bytes, 0],
            max_peer_bytes: Some(of.max_peer_bytes),
            country: spot.has_country().then(|| spot.country()),
            asn: spot.asn(),
            evidence: Some(of.evidence.to_string()),
        })
    }
}

impl Archive {
    /// Creates the file, or truncates it.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(|e| Error::io(format!("write {}", path.display()), &e))?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = parse_message_type(SCHEMA)
            .and_then(|schema| SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)));
        let writer = writer.map_err(|e| failed(path, &e))?;
        Ok(Self { path: path.to_owned(), writer, rows: 0 })
    }

    /// Adds a day's statements, with the downloaders' locations.
    pub fn add(&mut self, day: &ProviderDay, spots: &BTreeMap<DownloadId, Spot>) -> Result<(), Error> {
        let rows: Vec<Row> = day.leaves.iter().filter_map(|leaf| Row::of(leaf, spots)).collect();
        self.rows += rows.len();
        if rows.is_empty() {
            return Ok(());
        }
        self.write(day.provider, &rows).map_err(|e| failed(&self.path, &e))
    }

    /// Writes the footer; returns the number of rows.
    pub fn finish(self) -> Result<usize, Error> {
        self.writer.close().map_err(|e| failed(&self.path, &e))?;
        Ok(self.rows)
    }

    fn write(&mut self, provider: ProviderId, rows: &[Row]) -> Written<()> {
        let mut group = self.writer.next_row_group()?;
        let mut at = 0;
        while let Some(mut column) = group.next_column()? {
            let to = &mut column;
            let text = |of: fn(&Row) -> Option<&str>| rows.iter().map(of).collect::<Vec<_>>();
            match at {
                0 => all::<Int32Type>(to, rows.iter().map(|r| r.day)),
                1 => all::<Int64Type>(to, rows.iter().map(|_| provider.0.into())),
                2 => texts(to, &text(|r| Some(r.kind)), true),
                3 => texts(to, &text(|r| r.download.as_deref()), false),
                4 => texts(to, &text(|r| r.path.as_deref()), false),
                5 => texts(to, &text(|r| Some(&r.version)), true),
                6 => texts(to, &text(|r| r.edge.as_deref()), false),
                7 => some::<Int64Type>(to, rows.iter().map(|r| r.size.map(number))),
                8 => texts(to, &text(|r| r.outcome), false),
                9..=12 => all::<Int64Type>(to, rows.iter().map(|r| number(r.bytes[at - 9]))),
                13 => some::<Int64Type>(to, rows.iter().map(|r| r.max_peer_bytes.map(number))),
                14 => texts(to, &text(|r| r.country.as_deref()), false),
                15 => some::<Int64Type>(to, rows.iter().map(|r| r.asn.map(i64::from))),
                _ => texts(to, &text(|r| r.evidence.as_deref()), false),
            }?;
            column.close()?;
            at += 1;
        }
        group.close().map(|_| ())
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Writes a column that has a value in every row.
fn all<T: DataType>(column: &mut SerializedColumnWriter<'_>, values: impl Iterator<Item = T::T>) -> Written<()> {
    let values: Vec<T::T> = values.collect();
    column.typed::<T>().write_batch(&values, None, None).map(|_| ())
}

/// Writes a column in which some rows have no value (null).
fn some<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    values: impl Iterator<Item = Option<T::T>>,
) -> Written<()> {
    let values: Vec<Option<T::T>> = values.collect();
    let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    column.typed::<T>().write_batch(&values, Some(&levels), None).map(|_| ())
}

fn texts(column: &mut SerializedColumnWriter<'_>, texts: &[Option<&str>], required: bool) -> Written<()> {
    let bytes = |text: &str| ByteArray::from(text.as_bytes().to_vec());
    if required {
        all::<ByteArrayType>(column, texts.iter().map(|text| bytes(text.unwrap_or_default())))
    } else {
        some::<ByteArrayType>(column, texts.iter().map(|text| text.map(bytes)))
    }
}

fn failed(path: &Path, e: &ParquetError) -> Error {
    Error::failed(format!("cannot write {}: {e}", path.display()))
}

impl Reader {
    /// Returns the locations of the downloaders of a provider's day, where known.
    pub async fn spots(&mut self, provider: ProviderId, day: Day) -> Result<BTreeMap<DownloadId, Spot>, Error> {
        self.read_spots(provider, day).await.map_err(|e| self.failed(&e))
    }

    async fn read_spots(&mut self, provider: ProviderId, day: Day) -> Result<BTreeMap<DownloadId, Spot>, sqlx::Error> {
        let text = "SELECT download, spot FROM download WHERE provider = $1 AND day = $2 AND spot <> ''";
        let rows = sqlx::query(text).bind(i64::from(provider.0)).bind(day.to_sql());
        let mut spots = BTreeMap::new();
        for row in rows.fetch_all(&mut self.db.any).await? {
            if let Ok(download) = row.try_get::<Vec<u8>, _>(0)?.try_into() {
                spots.insert(DownloadId(download), Spot::from(row.try_get::<String, _>(1)?));
            }
        }
        Ok(spots)
    }
}
