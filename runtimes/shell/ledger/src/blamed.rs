//! Blames: copies of which downloaders have said that their holders sent wrong blocks. Each is a vote, never proof.

use super::columns::record_at;
use super::day::Day;
use super::kind::Kind;
use super::reader::Reader;
use futures_lite::StreamExt as _;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::ids::{Guid, VersionId};
use swarmedge_core::wire::records::{LedgerRecord, LogEvent};

/// A copy that downloaders have blamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlamedFound {
    /// GUID of the holder.
    pub guid: String,
    /// Id of the version, hexadecimal.
    pub version: String,
    /// Number of clients that blamed it.
    pub accusers: usize,
    /// Number of their networks (/24, IPv6: /48), as far as their logins tell.
    pub networks: usize,
    /// Number of times that the holder has then proven to an edge that it has the right bytes.
    pub rechecked: u64,
}

/// Blames of a span of days, and what the blamed clients have proven.
#[derive(Debug, Default)]
pub(super) struct Blames {
    accusers: BTreeMap<(Guid, VersionId), BTreeSet<Guid>>,
    rechecked: BTreeMap<(Guid, VersionId), u64>,
}

impl Blames {
    fn add(&mut self, record: &LedgerRecord) {
        if let Some(copy) = record.rechecked() {
            *self.rechecked.entry(copy).or_default() += 1;
        }
        if let LedgerRecord::Log(log) = record
            && let LogEvent::Blamed(blamed) = &log.event
        {
            self.accusers.entry((blamed.holder, blamed.version)).or_default().insert(log.guid);
        }
    }

    /// Returns the blamed copies, those with accusers of most networks first; `network` tells a client's network.
    pub(super) fn found(&self, network: impl Fn(&Guid) -> Option<String>) -> Vec<BlamedFound> {
        let found = |(copy, accusers): (&(Guid, VersionId), &BTreeSet<Guid>)| BlamedFound {
            guid: copy.0.to_string(),
            version: copy.1.to_string(),
            accusers: accusers.len(),
            networks: accusers.iter().filter_map(&network).collect::<BTreeSet<_>>().len(),
            rechecked: self.rechecked.get(copy).copied().unwrap_or(0),
        };
        let mut all: Vec<BlamedFound> = self.accusers.iter().map(found).collect();
        all.sort_by_key(|b| (std::cmp::Reverse((b.networks, b.accusers)), b.guid.clone()));
        all
    }
}

impl Reader {
    /// Reads the blames that arrived over a span of days.
    pub(super) async fn blames(&mut self, from: Day, to: Day) -> Result<Blames, sqlx::Error> {
        let text = "SELECT body FROM record WHERE kind IN ($1, $2) AND day BETWEEN $3 AND $4";
        let query = sqlx::query(text)
            .bind(Kind::Blamed.to_sql())
            .bind(Kind::Possession.to_sql())
            .bind(from.to_sql())
            .bind(to.to_sql());
        let mut rows = query.fetch(&mut self.db.any);
        let mut blames = Blames::default();
        while let Some(row) = rows.next().await {
            blames.add(&record_at(&row?, 0)?);
        }
        Ok(blames)
    }
}
