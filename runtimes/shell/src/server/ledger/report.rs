//! What a provider is told of a span of days: computed from the downloads' lines, so that it needs no record.

use super::day::Day;
use super::line::{cause_name, speed_of};
use super::quarantine::InQuarantine;
use super::store::first_open;
use super::usage::{Reader, bytes_at};
use crate::error::Error;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use std::collections::BTreeMap;
use swarmedge_core::ids::ProviderId;

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whose.
    pub provider: u32,
    /// The first day.
    pub from: String,
    /// The last day.
    pub to: String,
    /// Days up to this one are closed: their figures are final, and `audit` can prove them.
    pub final_up_to: Option<String>,
    /// Everything together.
    pub totals: Figures,
    /// By day, every day of the span.
    pub days: Vec<Row>,
    /// By object, most bytes first.
    pub objects: Vec<Row>,
    /// Speeds of completed downloads that peers had no part in.
    pub speed_edge_only: Speeds,
    /// Speeds of completed downloads that peers had a part in.
    pub speed_with_peers: Speeds,
    /// Downloads of clients in quarantine: edges alone have served them.
    pub quarantine: InQuarantine,
    /// What the records do not tell yet.
    pub unknown: [&'static str; 1],
}

/// Figures of a day or an object.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// The day, or the object's path.
    pub name: String,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Downloads by how they went, and bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Downloads granted, whatever became of them.
    pub downloads: u64,
    /// All bytes verified and durable.
    pub completed: u64,
    /// Given up because of an error.
    pub failed: u64,
    /// Of them, by cause.
    pub causes: BTreeMap<&'static str, u64>,
    /// Given up by the user.
    pub cancelled: u64,
    /// Begun, without a report of an end: still running, or abandoned.
    pub unfinished: u64,
    /// Granted, without any report of the client.
    pub unreported: u64,
    /// From edges to clients, each byte counted once an edge: billed.
    pub edge_bytes: u64,
    /// From peers: billed.
    pub peer_bytes: u64,
    /// To browsers and curl: billed.
    pub plain_bytes: u64,
    /// Claimed from or by peers, and not billed.
    pub flagged_bytes: u64,
    /// The part of the clients' bytes that peers delivered, in tenths of a per cent; none without bytes.
    pub peer_efficiency_permille: Option<u64>,
    /// Speeds of completed downloads.
    pub speed: Speeds,
}

/// Percentiles of speed, bytes a second, to 6 %.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Speeds {
    /// How many downloads.
    pub downloads: u64,
    /// A tenth was slower.
    pub p10: Option<u64>,
    /// Half was slower.
    pub p50: Option<u64>,
    /// Nine tenths were slower.
    pub p90: Option<u64>,
}

/// How many downloads had which class of speed.
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

    fn finish(&mut self, speeds: Option<&Histogram>) {
        let all = self.edge_bytes.saturating_add(self.peer_bytes);
        self.peer_efficiency_permille =
            (u128::from(self.peer_bytes) * 1000).checked_div(all.into()).and_then(|p| u64::try_from(p).ok());
        self.speed = speeds.map(Speeds::of).unwrap_or_default();
    }
}

/// What the queries found, before it is put in order.
#[derive(Default)]
struct Found {
    totals: Figures,
    days: BTreeMap<Day, Figures>,
    objects: BTreeMap<String, Figures>,
    speeds: Histogram,
    /// By whether peers had a part.
    speeds_by_kind: [Histogram; 2],
    speeds_by_day: BTreeMap<Day, Histogram>,
    speeds_by_object: BTreeMap<String, Histogram>,
}

impl Reader {
    /// The report of a provider from one day to another, both included.
    pub async fn report(&mut self, provider: ProviderId, from: Day, to: Day) -> Result<Report, Error> {
        let (found, open) = self.read_report(provider, from, to).await.map_err(|e| self.failed(&e))?;
        let quarantine = self.report_quarantine(provider, from, to).await.map_err(|e| self.failed(&e))?;
        Ok(Report { quarantine, ..found.into_report(provider, from, to, open) })
    }

    /// The days on which a provider had traffic, first and last.
    pub async fn days_of(&mut self, provider: ProviderId) -> Result<Option<(Day, Day)>, Error> {
        let text = "SELECT MIN(day), MAX(day) FROM (SELECT day FROM download WHERE provider = $1
                    UNION ALL SELECT day FROM plain WHERE provider = $1) AS d";
        let row = sqlx::query(text).bind(i64::from(provider.0)).fetch_one(&mut self.db.any).await;
        let days = row.and_then(|row| Ok((row.try_get::<Option<i64>, _>(0)?, row.try_get::<Option<i64>, _>(1)?)));
        match days.map_err(|e| self.failed(&e))? {
            (Some(first), Some(last)) => Ok(Some((Day::from_sql(first), Day::from_sql(last)))),
            (None, _) | (_, None) => Ok(None),
        }
    }

    async fn rows_of(
        &mut self,
        text: &'static str,
        provider: ProviderId,
        from: Day,
        to: Day,
    ) -> Result<Vec<AnyRow>, sqlx::Error> {
        let query = sqlx::query(text).bind(i64::from(provider.0)).bind(from.to_sql()).bind(to.to_sql());
        query.fetch_all(&mut self.db.any).await
    }

    async fn read_report(&mut self, provider: ProviderId, from: Day, to: Day) -> Result<(Found, Day), sqlx::Error> {
        let mut found = Found::default();
        let text = "SELECT day, path, state, COUNT(*), CAST(SUM(edge_unique) AS BIGINT),
                    CAST(SUM(peers_billed) AS BIGINT), CAST(SUM(flagged) AS BIGINT), cause FROM download
                    WHERE provider = $1 AND day BETWEEN $2 AND $3 GROUP BY day, path, state, cause";
        for row in self.rows_of(text, provider, from, to).await? {
            found.add_downloads(&row)?;
        }
        let text = "SELECT day, speed, CASE WHEN peers_billed > 0 THEN 1 ELSE 0 END AS kind, COUNT(*) FROM download
                    WHERE provider = $1 AND day BETWEEN $2 AND $3 AND speed >= 0 GROUP BY day, speed, kind";
        for row in self.rows_of(text, provider, from, to).await? {
            let (day, class, n) = (Day::from_sql(row.try_get(0)?), row.try_get(1)?, bytes_at(&row, 3)?);
            let with_peers = row.try_get::<i64, _>(2).or_else(|_| row.try_get::<i32, _>(2).map(i64::from))? > 0;
            let by_kind = &mut found.speeds_by_kind[usize::from(with_peers)];
            for histogram in [&mut found.speeds, by_kind, found.speeds_by_day.entry(day).or_default()] {
                *histogram.entry(class).or_default() += n;
            }
        }
        let text = "SELECT path, speed, COUNT(*) FROM download
                    WHERE provider = $1 AND day BETWEEN $2 AND $3 AND speed >= 0 GROUP BY path, speed";
        for row in self.rows_of(text, provider, from, to).await? {
            let histogram = found.speeds_by_object.entry(row.try_get(0)?).or_default();
            *histogram.entry(row.try_get(1)?).or_default() += bytes_at(&row, 2)?;
        }
        let text = "SELECT day, CAST(SUM(bytes) AS BIGINT) FROM plain
                    WHERE provider = $1 AND day BETWEEN $2 AND $3 GROUP BY day";
        for row in self.rows_of(text, provider, from, to).await? {
            let bytes = bytes_at(&row, 1)?;
            let day = found.days.entry(Day::from_sql(row.try_get(0)?)).or_default();
            for figures in [day, &mut found.totals] {
                figures.plain_bytes = figures.plain_bytes.saturating_add(bytes);
            }
        }
        Ok((found, first_open(&mut self.db.any).await?))
    }
}

impl Found {
    fn add_downloads(&mut self, row: &AnyRow) -> Result<(), sqlx::Error> {
        let (state, cause, n) = (row.try_get(2)?, row.try_get(7)?, bytes_at(row, 3)?);
        let (edge, peer, flagged) = (bytes_at(row, 4)?, bytes_at(row, 5)?, bytes_at(row, 6)?);
        let day = self.days.entry(Day::from_sql(row.try_get(0)?)).or_default();
        let object = self.objects.entry(row.try_get(1)?).or_default();
        for figures in [day, object, &mut self.totals] {
            figures.count(state, cause, n);
            figures.add_bytes(edge, peer, flagged);
        }
        Ok(())
    }

    fn into_report(mut self, provider: ProviderId, from: Day, to: Day, open: Day) -> Report {
        self.totals.finish(Some(&self.speeds));
        let day = |day: Day| {
            let mut figures = self.days.remove(&day).unwrap_or_default();
            figures.finish(self.speeds_by_day.get(&day));
            Row { name: day.to_string(), figures }
        };
        let days = (from.0..=to.0).map(Day).map(day).collect();
        let object = |(name, mut figures): (String, Figures)| {
            figures.finish(self.speeds_by_object.get(&name));
            Row { name, figures }
        };
        let mut objects: Vec<Row> = self.objects.into_iter().map(object).collect();
        objects.sort_by_key(|o| std::cmp::Reverse(o.figures.edge_bytes.saturating_add(o.figures.peer_bytes)));
        let final_up_to = open.0.checked_sub(1).map(Day).filter(|last| *last >= from).map(|last| last.min(to));
        Report {
            provider: provider.0,
            from: from.to_string(),
            to: to.to_string(),
            final_up_to: final_up_to.map(|day| day.to_string()),
            totals: self.totals,
            days,
            objects,
            speed_edge_only: Speeds::of(&self.speeds_by_kind[0]),
            speed_with_peers: Speeds::of(&self.speeds_by_kind[1]),
            quarantine: InQuarantine::default(),
            unknown: ["countries and networks: no geolocation"],
        }
    }
}
