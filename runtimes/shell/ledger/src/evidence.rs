//! Export of the records that a provider's closed downloads were settled from: JSON lines, one a download (EXPORT.md,
//! beside this file).

use super::clock::evidence_since;
use super::day::Day;
use super::export::{id, unwritable};
use super::gather::{FreshRecords, Selection, gather};
use super::reader::Reader;
use super::spans::{Spans, quarantine_subject};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use swarmedge_core::accounting::audit::settled::Settled;
use swarmedge_core::accounting::audit::{DownloadStatement, Leaf, ProviderDay};
use swarmedge_core::accounting::evidence::Evidence;
use swarmedge_core::accounting::quarantine::Quarantines;
use swarmedge_core::ids::Guid;
use swarmedge_core::wire::Wire;
use swarmedge_core::wire::records::LedgerRecord;
use swarmedge_ground::error::Error;

/// Value of `format` in each line.
const FORMAT: &str = "swarmedge-evidence/1";
/// Number of downloads whose records are held in memory at a time.
const AT_A_TIME: usize = 256;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceLine {
    format: String,
    provider: u32,
    day: String,
    download: String,
    records: Vec<RecordText>,
    quarantines: Vec<SpanText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordText {
    came_ms: u64,
    record: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpanText {
    guid: String,
    from_ms: u64,
    until_ms: Option<u64>,
}

impl Reader {
    /// Passes `write` one line for each download of a closed day. Fails if the records that a download was settled from
    /// are no longer stored.
    pub async fn evidence(
        &mut self,
        of: &ProviderDay,
        mut write: impl FnMut(&str) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let downloads: Vec<&DownloadStatement> = of.leaves.iter().filter_map(Leaf::download).collect();
        let day = Day(of.day.day);
        for some in downloads.chunks(AT_A_TIME) {
            let ids: Vec<Vec<u8>> = some.iter().map(|s| s.download.0.to_vec()).collect();
            let selection = Selection { downloads: &ids, since: evidence_since(day), known_ms: of.head.head.closed_ms };
            let gathered = gather(&mut self.db.any, selection, &FreshRecords::new(), 0).await;
            let gathered = gathered.map_err(|e| self.failed(&e))?;
            for statement in some {
                let evidence = gathered.evidence.get(&statement.download.0[..]);
                let evidence = evidence.filter(|evidence| evidence.digest() == statement.evidence);
                let evidence = evidence.ok_or_else(|| forgotten(statement, day))?;
                write(&line(of, statement, evidence, &gathered.spans)?)?;
            }
        }
        Ok(downloads.len())
    }
}

fn forgotten(of: &DownloadStatement, day: Day) -> Error {
    let download = of.download;
    Error::failed(format!("{day}: download {download} was settled from other records than those that are there")).next(
        "records that keep_days has forgotten or `ledger erase` has erased cannot be shown: export without --evidence",
    )
}

fn line(of: &ProviderDay, statement: &DownloadStatement, evidence: &Evidence, spans: &Spans) -> Result<String, Error> {
    let speakers: BTreeSet<Guid> = evidence.records().filter_map(|(_, r)| quarantine_subject(r)).collect();
    let record = |(came_ms, r): (u64, &LedgerRecord)| RecordText { came_ms, record: BASE64.encode(&r.to_bytes()) };
    let span = |(guid, from_ms, until_ms): &(Guid, u64, u64)| SpanText {
        guid: guid.to_string(),
        from_ms: *from_ms,
        until_ms: Some(*until_ms).filter(|until| *until < u64::MAX),
    };
    let line = EvidenceLine {
        format: FORMAT.into(),
        provider: of.provider.0,
        day: Day(of.day.day).to_string(),
        download: statement.download.to_string(),
        records: evidence.records().map(record).collect(),
        quarantines: spans.iter().filter(|(guid, ..)| speakers.contains(guid)).map(span).collect(),
    };
    Ok(serde_json::to_string(&line).map_err(unwritable)? + "\n")
}

/// Parses a line that [`Reader::evidence`] wrote.
pub fn from_line(text: &str) -> Result<Settled, String> {
    let line: EvidenceLine = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if line.format != FORMAT {
        return Err(format!("format {:?} is not {FORMAT}", line.format));
    }
    let record = |r: &RecordText| {
        let bytes = BASE64.decode(r.record.as_bytes()).map_err(|e| e.to_string())?;
        Ok((r.came_ms, LedgerRecord::from_bytes(&bytes).map_err(|e| e.to_string())?))
    };
    let mut quarantines = Quarantines::default();
    for span in &line.quarantines {
        quarantines.add(id(&span.guid)?, span.from_ms, span.until_ms.unwrap_or(u64::MAX));
    }
    Ok(Settled {
        download: id(&line.download)?,
        records: line.records.iter().map(record).collect::<Result<_, String>>()?,
        quarantines,
    })
}
