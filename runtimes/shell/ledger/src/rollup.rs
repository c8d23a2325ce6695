//! Sums of the download rows of one object on one day. For open days they are computed at each query; for a closed
//! day once, when it is closed. Both use the same code.

use super::connection::Connection;
use super::day::Day;
use super::places::Spot;
use super::rows::{Value, insert};
use futures_lite::StreamExt as _;
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::ids::ProviderId;

/// Sums over the downloads of one object on one day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rollup {
    /// Sums by location of the downloader.
    #[serde(with = "pairs")]
    pub(super) spots: BTreeMap<Spot, Sums>,
    /// Number of completed downloads by (whether peers delivered bytes, speed class).
    #[serde(with = "pairs")]
    pub(super) speeds: BTreeMap<(bool, i64), u64>,
    /// Billed bytes of peers by location of uploader and downloader.
    #[serde(with = "pairs")]
    pub(super) flows: BTreeMap<(Spot, Spot), u64>,
}

/// Numbers of downloads, and their billed and flagged bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    /// Number of downloads by state and failure cause.
    #[serde(with = "pairs")]
    pub(super) ends: BTreeMap<(i64, i64), u64>,
    pub(super) edge_bytes: u64,
    pub(super) peer_bytes: u64,
    pub(super) flagged_bytes: u64,
}

/// Serialises maps as lists of pairs, since JSON keys are texts.
mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(d)?.into_iter().collect())
    }
}

/// SQL expression that joins the summed columns of a download row to one text: with millions of rows, reading one
/// column is faster than eleven. Only the path, which is last, can contain a space.
const ROW_AS_TEXT: &str =
    "concat_ws(' ', provider, day, state, cause, speed, edge_unique, peers_billed, flagged, spot, sources, path)";

/// A parsed row of [`ROW_AS_TEXT`].
struct DownloadRow<'a> {
    provider: ProviderId,
    day: Day,
    state: i64,
    cause: i64,
    speed: i64,
    edge: u64,
    peers: u64,
    flagged: u64,
    spot: Spot,
    sources: &'a str,
    path: &'a str,
}

impl<'a> DownloadRow<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(11, ' ');
        let mut number = || parts.next()?.parse::<i64>().ok();
        let (provider, day, state, cause, speed) = (number()?, number()?, number()?, number()?, number()?);
        let mut bytes = || Some(u64::try_from(number()?).unwrap_or(0));
        let (edge, peers, flagged) = (bytes()?, bytes()?, bytes()?);
        let (provider, day) = (ProviderId(u32::try_from(provider).unwrap_or(u32::MAX)), Day::from_sql(day));
        let (spot, sources, path) = (parts.next()?.into(), parts.next()?, parts.next()?);
        Some(DownloadRow { provider, day, state, cause, speed, edge, peers, flagged, spot, sources, path })
    }
}

/// Rollups by provider and day, then by object path.
type Rollups = BTreeMap<(ProviderId, Day), BTreeMap<String, Rollup>>;

impl Rollup {
    fn add(&mut self, line: &DownloadRow<'_>) -> Result<(), sqlx::Error> {
        let sums = self.spots.entry(line.spot).or_default();
        *sums.ends.entry((line.state, line.cause)).or_default() += 1;
        sums.edge_bytes = sums.edge_bytes.saturating_add(line.edge);
        sums.peer_bytes = sums.peer_bytes.saturating_add(line.peers);
        sums.flagged_bytes = sums.flagged_bytes.saturating_add(line.flagged);
        if line.speed >= 0 {
            *self.speeds.entry((line.peers > 0, line.speed)).or_default() += 1;
        }
        let sources = if line.sources.is_empty() {
            BTreeMap::from([(Spot::default(), line.peers)])
        } else {
            from_json(line.sources)?
        };
        for (from, bytes) in sources.into_iter().filter(|(_, bytes)| *bytes > 0) {
            let flow = self.flows.entry((from, line.spot)).or_default();
            *flow = flow.saturating_add(bytes);
        }
        Ok(())
    }
}

/// Parses a JSON column.
fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|e| sqlx::Error::Decode(e.into()))
}

/// Formats a value for a JSON column.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|e| sqlx::Error::Encode(e.into()))
}

/// Passes each rollup of a span of days to `take`, with its day and object path. Rollups of closed days are read from
/// the database, those of open days computed from download rows. `provider` selects one provider.
pub(super) async fn read(
    db: &mut Connection,
    provider: Option<ProviderId>,
    (from, to): (Day, Day),
    mut take: impl FnMut(Day, String, Rollup),
) -> Result<(), sqlx::Error> {
    // one snapshot, so that a day closed meanwhile is not read twice or missed
    let mut then = db.snapshot().await?;
    let whose = provider.map(|p| i64::from(p.0));
    let closed = "SELECT day FROM day WHERE day BETWEEN $1 AND $2";
    let closed = sqlx::query_scalar(closed).bind(from.to_sql()).bind(to.to_sql());
    let closed: BTreeSet<i64> = closed.fetch_all(&mut *then).await?.into_iter().collect();
    if let (Some(first), Some(last)) = (closed.first(), closed.last()) {
        let text = match whose {
            Some(_) => "SELECT day, path, body FROM rollup WHERE provider = $1 AND day BETWEEN $2 AND $3",
            None => "SELECT day, path, body FROM rollup WHERE $1 < 0 AND day BETWEEN $2 AND $3",
        };
        let mut rows = sqlx::query(text).bind(whose.unwrap_or(-1)).bind(*first).bind(*last).fetch(&mut *then);
        while let Some(row) = rows.next().await {
            let row = row?;
            let rollup = from_json(&row.try_get::<String, _>(2)?)?;
            take(Day::from_sql(row.try_get(0)?), row.try_get(1)?, rollup);
        }
    }
    for (first, last) in gaps(&closed, from.to_sql(), to.to_sql()) {
        for ((_, day), objects) in of_lines(&mut then, provider, first, last).await? {
            objects.into_iter().for_each(|(path, rollup)| take(day, path, rollup));
        }
    }
    then.rollback().await
}

/// Returns the spans of days between `from` and `to`, both included, without the days in `taken`.
fn gaps(taken: &BTreeSet<i64>, from: i64, to: i64) -> Vec<(i64, i64)> {
    let mut gaps = Vec::new();
    let mut first = from;
    for day in taken.iter().copied().chain([to.saturating_add(1)]) {
        if first < day {
            gaps.push((first, day - 1));
        }
        first = day.saturating_add(1);
    }
    gaps
}

/// Adds up the download rows of a span of days.
async fn of_lines(
    db: &mut AnyConnection,
    provider: Option<ProviderId>,
    first: i64,
    last: i64,
) -> Result<Rollups, sqlx::Error> {
    let whose = if provider.is_some() { "provider = $1" } else { "$1 < 0" };
    let text = format!("SELECT {ROW_AS_TEXT} FROM download WHERE {whose} AND day BETWEEN $2 AND $3");
    let query = sqlx::query_scalar(sqlx::AssertSqlSafe(text)).bind(provider.map_or(-1, |p| i64::from(p.0)));
    let mut lines = query.bind(first).bind(last).fetch(db);
    let mut all = Rollups::new();
    while let Some(text) = lines.next().await {
        let text: String = text?;
        let line =
            DownloadRow::read(&text).ok_or_else(|| sqlx::Error::Decode(format!("a broken line: {text}").into()))?;
        let objects = all.entry((line.provider, line.day)).or_default();
        let rollup = match objects.get_mut(line.path) {
            Some(rollup) => rollup,
            None => objects.entry(line.path.to_owned()).or_default(),
        };
        rollup.add(&line)?;
    }
    Ok(all)
}

/// Adds up a closed day and stores its rollups.
pub(super) async fn roll(change: &mut AnyConnection, day: Day) -> Result<(), sqlx::Error> {
    let of_day = of_lines(change, None, day.to_sql(), day.to_sql()).await?;
    let mut rows = Vec::new();
    for ((provider, day), objects) in of_day {
        for (path, rollup) in objects {
            let body = Value::Text(to_json(&rollup)?);
            rows.push(vec![i64::from(provider.0).into(), day.to_sql().into(), Value::Text(path), body]);
        }
    }
    insert(change, "INSERT INTO rollup (provider, day, path, body)", rows, "").await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_the_days_not_taken() {
        let of = |taken: &[i64]| gaps(&taken.iter().copied().collect(), 1, 9);
        assert_eq!(of(&[]), [(1, 9)]);
        assert_eq!(of(&[1, 2, 3]), [(4, 9)]);
        assert_eq!(of(&[3, 4, 7]), [(1, 2), (5, 6), (8, 9)]);
        assert_eq!(of(&[1, 9]), [(2, 8)]);
        assert_eq!(of(&(1..=9).collect::<Vec<_>>()), []);
    }

    #[test]
    fn a_row_parses_with_spaces_in_its_path() {
        let line = DownloadRow::read("7 20100 2 0 320 60 40 -1 DE/64500 {\"/\":40} a path/of words").expect("a line");
        assert_eq!((line.provider, line.day, line.state, line.speed), (ProviderId(7), Day(20_100), 2, 320));
        assert_eq!((line.edge, line.peers, line.flagged), (60, 40, 0));
        assert_eq!((line.spot.network(), line.sources, line.path), ("AS64500".into(), "{\"/\":40}", "a path/of words"));
        let bare = DownloadRow::read("7 20100 0 0 -1 0 0 0   a").expect("a line");
        assert_eq!((bare.spot, bare.sources, bare.path), (Spot::default(), "", "a"));
        assert!(DownloadRow::read("7 20100 2 0 320 60").is_none());
    }

    #[test]
    fn a_rollup_round_trips_through_json() {
        let spot = Spot::from("DE/64500".to_owned());
        let sums = Sums { ends: BTreeMap::from([((2, 0), 5)]), edge_bytes: u64::MAX, peer_bytes: 1, flagged_bytes: 2 };
        let rollup = Rollup {
            spots: BTreeMap::from([(spot, sums.clone()), (Spot::default(), sums)]),
            speeds: BTreeMap::from([((true, 320), 4), ((false, 9), 1)]),
            flows: BTreeMap::from([((Spot::default(), spot), 7)]),
        };
        assert_eq!(from_json::<Rollup>(&to_json(&rollup).expect("text")).expect("reads"), rollup);
    }
}
