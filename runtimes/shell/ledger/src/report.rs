//! A provider's report over a span of days, computed from download rows and the rollups of closed days, never from
//! records.

use super::clock::first_open;
use super::columns::{number_at, span_at};
use super::day::Day;
use super::line::{cause_name, speed_of};
use super::quarantine::InQuarantine;
use super::reader::Reader;
use super::rollup::{self, Rollup};
use serde::Serialize;
use sqlx::Row as _;
use std::collections::BTreeMap;
use swarmedge_core::ids::ProviderId;
use swarmedge_ground::error::Error;

/// A provider's report over a span of days.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The provider of the report.
    pub provider: u32,
    /// First day of the span.
    pub from: String,
    /// Last day of the span, included.
    pub to: String,
    /// Last closed day of the span: figures up to it are final and `audit` can prove them.
    pub final_up_to: Option<String>,
    /// Figures of the whole span.
    pub totals: Figures,
    /// Figures of every day of the span.
    pub days: Vec<Row>,
    /// Figures by object, most bytes first.
    pub objects: Vec<Row>,
    /// Figures by the downloaders' country, most bytes first; without plain traffic and speeds.
    pub countries: Vec<Row>,
    /// Figures by the downloaders' network (AS), like `countries`.
    pub networks: Vec<Row>,
    /// Speeds of completed downloads without bytes from peers.
    pub speed_edge_only: Speeds,
    /// Speeds of completed downloads with bytes from peers.
    pub speed_with_peers: Speeds,
    /// Downloads of clients in quarantine, served by edges alone.
    pub quarantine: InQuarantine,
    /// Figures that the stored records cannot give, each explained by a sentence.
    pub unknown: Vec<String>,
}

/// Figures of a day, an object, a country or a network.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Name of the row: day, object path, country code, or `AS64500`; `unknown`.
    pub name: String,
    /// Figures of the row.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Numbers of downloads by outcome, and bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Granted downloads, whatever their outcome.
    pub downloads: u64,
    /// Downloads with all bytes verified and durable.
    pub completed: u64,
    /// Downloads given up because of an error.
    pub failed: u64,
    /// Failed downloads by cause.
    pub causes: BTreeMap<&'static str, u64>,
    /// Downloads cancelled by the user.
    pub cancelled: u64,
    /// Downloads without a final report: still running, or abandoned.
    pub unfinished: u64,
    /// Downloads without any report of the client.
    pub unreported: u64,
    /// Billed bytes from edges to clients; a byte that one edge sent repeatedly is counted once for this edge.
    pub edge_bytes: u64,
    /// Billed bytes from peers.
    pub peer_bytes: u64,
    /// Billed bytes to plain HTTP clients (browsers, curl). `None` where they cannot be attributed: by country and
    /// network always; by object if none is known for this object while some belong to no known object.
    pub plain_bytes: Option<u64>,
    /// Bytes claimed by downloaders or uploaders and not billed.
    pub flagged_bytes: u64,
    /// Share of clients' bytes that peers delivered, in thousandths; `None` without bytes.
    pub peer_efficiency_permille: Option<u64>,
    /// Speeds of completed downloads.
    pub speed: Speeds,
}

/// Percentiles of speed, bytes a second, to 6 %.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Speeds {
    /// Number of downloads measured.
    pub downloads: u64,
    /// 10th percentile of speed.
    pub p10: Option<u64>,
    /// Median speed, the 50th percentile.
    pub p50: Option<u64>,
    /// 90th percentile of speed.
    pub p90: Option<u64>,
}

/// Number of downloads by speed class.
type Histogram = BTreeMap<i64, u64>;

impl Speeds {
    fn of(histogram: &Histogram) -> Self {
        let downloads: u64 = histogram.values().sum();
        let at = |percent: u64| {
            let rank = (downloads * percent).div_ceil(100).max(1);
            let mut seen = 0;
            histogram.iter().find_map(|(class, n)| {
                seen += n;
                (seen >= rank).then(|| speed_of(*class))
            })
        };
        Self { downloads, p10: at(10), p50: at(50), p90: at(90) }
    }
}

impl Figures {
    fn count(&mut self, state: i64, cause: i64, n: u64) {
        self.downloads += n;
        let counter = match state {
            0 => &mut self.unreported,
            2 => &mut self.completed,
            3 => &mut self.cancelled,
            4 => &mut self.failed,
            _ => &mut self.unfinished,
        };
        *counter += n;
        if state == 4 {
            *self.causes.entry(cause_name(cause)).or_default() += n;
        }
    }

    fn add_bytes(&mut self, edge: u64, peer: u64, flagged: u64) {
        self.edge_bytes = self.edge_bytes.saturating_add(edge);
        self.peer_bytes = self.peer_bytes.saturating_add(peer);
        self.flagged_bytes = self.flagged_bytes.saturating_add(flagged);
    }

    /// Returns the known bytes of plain HTTP traffic.
    #[must_use]
    pub fn plain(&self) -> u64 {
        self.plain_bytes.unwrap_or(0)
    }

    fn add_plain(&mut self, bytes: u64) {
        self.plain_bytes = Some(self.plain().saturating_add(bytes));
    }

    fn finish(&mut self, speeds: Option<&Histogram>) {
        let all = u128::from(self.edge_bytes.saturating_add(self.peer_bytes));
        // round to the nearest
        let permille = (u128::from(self.peer_bytes) * 1000 + all / 2).checked_div(all);
        self.peer_efficiency_permille = permille.and_then(|p| u64::try_from(p).ok());
        self.speed = speeds.map(Speeds::of).unwrap_or_default();
    }
}

/// Accumulator of a report's figures, not sorted yet.
#[derive(Default)]
struct Found {
    totals: Figures,
    days: BTreeMap<Day, Figures>,
    objects: BTreeMap<String, Figures>,
    countries: BTreeMap<String, Figures>,
    networks: BTreeMap<String, Figures>,
    /// Bytes of plain HTTP traffic of versions whose object is unknown, since no client has downloaded them.
    plain_of_nothing: u64,
    speeds: Histogram,
    /// Speeds without and with bytes from peers.
    speeds_by_kind: [Histogram; 2],
    speeds_by_day: BTreeMap<Day, Histogram>,
    speeds_by_object: BTreeMap<String, Histogram>,
}

impl Reader {
    /// Makes the report of a provider from one day to another, both included.
    pub async fn report(&mut self, provider: ProviderId, from: Day, to: Day) -> Result<Report, Error> {
        let (found, open) = self.read_report(provider, from, to).await.map_err(|e| self.failed(&e))?;
        let quarantine = self.report_quarantine(provider, from, to).await.map_err(|e| self.failed(&e))?;
        Ok(Report { quarantine, ..found.into_report(provider, from, to, open) })
    }

    /// Returns the first and last day with traffic of a provider.
    pub async fn days_of(&mut self, provider: ProviderId) -> Result<Option<(Day, Day)>, Error> {
        let text = "SELECT MIN(day), MAX(day) FROM (SELECT day FROM download WHERE provider = $1
                    UNION ALL SELECT day FROM plain WHERE provider = $1) AS d";
        let row = sqlx::query(text).bind(i64::from(provider.0)).fetch_one(&mut self.db.any).await;
        row.and_then(|row| span_at(&row)).map_err(|e| self.failed(&e))
    }

    async fn read_report(&mut self, provider: ProviderId, from: Day, to: Day) -> Result<(Found, Day), sqlx::Error> {
        let mut found = Found::default();
        rollup::read(&mut self.db, Some(provider), (from, to), |day, path, rollup| found.add(day, path, &rollup))
            .await?;
        self.attribute_plain(&mut found, provider, from, to).await?;
        Ok((found, first_open(&mut self.db.any).await?))
    }

    /// Attributes plain HTTP traffic, which is recorded by version, to objects: a version's downloads name its
    /// object.
    async fn attribute_plain(
        &mut self,
        found: &mut Found,
        provider: ProviderId,
        from: Day,
        to: Day,
    ) -> Result<(), sqlx::Error> {
        let text = "SELECT day, version, CAST(SUM(bytes) AS BIGINT) FROM plain
                    WHERE provider = $1 AND day BETWEEN $2 AND $3 GROUP BY day, version";
        let query = sqlx::query(text).bind(i64::from(provider.0)).bind(from.to_sql()).bind(to.to_sql());
        let plain = query.fetch_all(&mut self.db.any).await?;
        if plain.is_empty() {
            return Ok(());
        }
        let text =
            "SELECT version, MIN(path) FROM download WHERE provider = $1 AND day BETWEEN $2 AND $3 AND version IN
                    (SELECT version FROM plain WHERE provider = $1 AND day BETWEEN $2 AND $3) GROUP BY version";
        let query = sqlx::query_as(text).bind(i64::from(provider.0)).bind(from.to_sql()).bind(to.to_sql());
        let paths: Vec<(Vec<u8>, String)> = query.fetch_all(&mut self.db.any).await?;
        let paths: BTreeMap<Vec<u8>, String> = paths.into_iter().collect();
        for row in plain {
            let (day, version, bytes) = (row.try_get(0)?, row.try_get::<Vec<u8>, _>(1)?, number_at(&row, 2)?);
            found.days.entry(Day::from_sql(day)).or_default().add_plain(bytes);
            match paths.get(&version) {
                Some(path) => found.objects.entry(path.clone()).or_default().add_plain(bytes),
                None => found.plain_of_nothing = found.plain_of_nothing.saturating_add(bytes),
            }
            found.totals.add_plain(bytes);
        }
        Ok(())
    }
}

impl Found {
    fn add(&mut self, day: Day, path: String, rollup: &Rollup) {
        for ((with_peers, class), n) in &rollup.speeds {
            let of_object = self.speeds_by_object.entry(path.clone()).or_default();
            let of_kind = &mut self.speeds_by_kind[usize::from(*with_peers)];
            let of_day = self.speeds_by_day.entry(day).or_default();
            for histogram in [&mut self.speeds, of_kind, of_day, of_object] {
                *histogram.entry(*class).or_default() += n;
            }
        }
        let day = self.days.entry(day).or_default();
        let object = self.objects.entry(path).or_default();
        for (spot, sums) in &rollup.spots {
            let country = self.countries.entry(spot.country()).or_default();
            let network = self.networks.entry(spot.network()).or_default();
            for figures in [&mut *day, &mut *object, country, network, &mut self.totals] {
                sums.ends.iter().for_each(|((state, cause), n)| figures.count(*state, *cause, *n));
                figures.add_bytes(sums.edge_bytes, sums.peer_bytes, sums.flagged_bytes);
            }
        }
    }

    fn into_report(mut self, provider: ProviderId, from: Day, to: Day, open: Day) -> Report {
        self.totals.finish(Some(&self.speeds));
        self.totals.add_plain(0);
        if self.plain_of_nothing == 0 {
            self.objects.values_mut().for_each(|figures| figures.add_plain(0));
        }
        let day = |day: Day| {
            let mut figures = self.days.remove(&day).unwrap_or_default();
            figures.finish(self.speeds_by_day.get(&day));
            figures.add_plain(0);
            Row { name: day.to_string(), figures }
        };
        let days = (from.0..=to.0).map(Day).map(day).collect();
        let located = |rows: &BTreeMap<String, Figures>| rows.keys().any(|name| name != "unknown");
        let places = match (located(&self.countries), located(&self.networks)) {
            (true, true) => None,
            (false, true) => Some("countries: no database of them"),
            (true, false) => Some("networks: no database of them"),
            (false, false) => Some("countries and networks: no database of them"),
        };
        let objects = (self.plain_of_nothing > 0).then(|| {
            let bytes = self.plain_of_nothing;
            format!("of which object {bytes} B of plain HTTPS are: no client has downloaded these versions meanwhile")
        });
        let final_up_to = open.0.checked_sub(1).map(Day).filter(|last| *last >= from).map(|last| last.min(to));
        Report {
            provider: provider.0,
            from: from.to_string(),
            to: to.to_string(),
            final_up_to: final_up_to.map(|day| day.to_string()),
            totals: self.totals,
            days,
            objects: rows(self.objects, &self.speeds_by_object),
            countries: rows(self.countries, &BTreeMap::new()),
            networks: rows(self.networks, &BTreeMap::new()),
            speed_edge_only: Speeds::of(&self.speeds_by_kind[0]),
            speed_with_peers: Speeds::of(&self.speeds_by_kind[1]),
            quarantine: InQuarantine::default(),
            unknown: places.map(str::to_owned).into_iter().chain(objects).collect(),
        }
    }
}

/// Finishes the rows and sorts them, most bytes first.
fn rows(all: BTreeMap<String, Figures>, speeds: &BTreeMap<String, Histogram>) -> Vec<Row> {
    let row = |(name, mut figures): (String, Figures)| {
        figures.finish(speeds.get(&name));
        Row { name, figures }
    };
    let mut rows: Vec<Row> = all.into_iter().map(row).collect();
    let all = |f: &Figures| f.edge_bytes.saturating_add(f.peer_bytes).saturating_add(f.plain());
    rows.sort_by_key(|row| std::cmp::Reverse(all(&row.figures)));
    rows
}
