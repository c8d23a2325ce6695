//! Locations of clients, recorded at each login: country and network (AS).

use super::columns::wire_at;
use super::day::Day;
use super::reader::Reader;
use super::rows::{Value, among, insert};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use std::collections::BTreeMap;
use std::fmt;
use swarmedge_core::ids::Guid;
use swarmedge_core::wire::geo_location::Locality;
use swarmedge_core::wire::records::{LedgerRecord, LogEvent};
use swarmedge_ground::error::Error;

/// A country and a network, each if known; written `DE/64500`, or empty if both are unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub struct Spot {
    country: Option<[u8; 2]>,
    asn: Option<u32>,
}

impl Spot {
    /// Returns the country's code, or `unknown`.
    #[must_use]
    pub fn country(&self) -> String {
        let code =
            self.country.map(|code| code.map(char::from)).filter(|code| code.iter().all(char::is_ascii_alphabetic));
        code.map_or_else(|| "unknown".into(), |code| code.iter().collect())
    }

    /// Returns the network's name, such as `AS64500`, or `unknown`.
    #[must_use]
    pub fn network(&self) -> String {
        self.asn.map_or_else(|| "unknown".into(), |asn| format!("AS{asn}"))
    }

    /// Returns whether the country is known.
    #[must_use]
    pub const fn has_country(&self) -> bool {
        self.country.is_some()
    }

    /// Returns the AS number, if known.
    #[must_use]
    pub const fn asn(&self) -> Option<u32> {
        self.asn
    }

    /// Returns whether country or network is known.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.country.is_some() || self.asn.is_some()
    }
}

impl From<Locality> for Spot {
    fn from(of: Locality) -> Self {
        Self { country: of.country, asn: of.asn }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_known() {
            return Ok(());
        }
        let country = self.country.map(|_| self.country()).unwrap_or_default();
        write!(f, "{country}/{}", self.asn.map(|asn| asn.to_string()).unwrap_or_default())
    }
}

impl From<Spot> for String {
    fn from(spot: Spot) -> Self {
        spot.to_string()
    }
}

impl From<String> for Spot {
    fn from(text: String) -> Self {
        Self::from(&text[..])
    }
}

impl From<&str> for Spot {
    /// Parses a spot; invalid text is an unknown spot.
    fn from(text: &str) -> Self {
        let (country, asn) = text.split_once('/').unwrap_or_default();
        Self { country: country.as_bytes().try_into().ok(), asn: asn.parse().ok() }
    }
}

/// Spots of some clients, by login time (Unix ms).
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<Guid, BTreeMap<i64, Spot>>);

impl Places {
    /// Reads the spots of clients from logins recorded on day `since` or later.
    pub(super) async fn of(db: &mut AnyConnection, guids: &[Vec<u8>], since: i64) -> Result<Self, sqlx::Error> {
        let mut places = Self::default();
        for row in &among(db, "SELECT guid, since_ms, spot FROM place WHERE guid", guids, since).await? {
            let Ok(guid) = row.try_get::<Vec<u8>, _>(0)?.try_into() else { continue };
            let spot = Spot::from(row.try_get::<String, _>(2)?);
            places.0.entry(Guid(guid)).or_default().insert(row.try_get(1)?, spot);
        }
        Ok(places)
    }

    /// Returns a client's spot at a Unix time in ms: that of its last login before, else of its first login after.
    pub(super) fn at(&self, guid: Guid, ms: u64) -> Spot {
        let Some(all) = self.0.get(&guid) else { return Spot::default() };
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        let before = all.range(..=ms).next_back();
        before.or_else(|| all.first_key_value()).map(|(_, spot)| *spot).unwrap_or_default()
    }
}

impl Reader {
    /// Returns the spots of all logins, oldest first.
    pub async fn places(&mut self) -> Result<Vec<(Guid, Spot)>, Error> {
        self.read_places().await.map_err(|e| self.failed(&e))
    }

    async fn read_places(&mut self) -> Result<Vec<(Guid, Spot)>, sqlx::Error> {
        let rows =
            sqlx::query("SELECT guid, spot FROM place ORDER BY since_ms, guid").fetch_all(&mut self.db.any).await?;
        let place = |row: &AnyRow| Ok((wire_at(row, 0)?, Spot::from(row.try_get::<String, _>(1)?)));
        rows.iter().map(place).collect()
    }
}

/// Stores the spots of logins from the CNs' location records.
pub(super) async fn add(change: &mut AnyConnection, records: &[&LedgerRecord], today: Day) -> Result<(), sqlx::Error> {
    let row = |record: &&LedgerRecord| {
        let LedgerRecord::Log(log) = record else { return None };
        let LogEvent::Located(place) = &log.event else { return None };
        let spot = Spot::from(place.locality);
        spot.is_known()
            .then(|| vec![log.guid.0[..].into(), log.at_ms.into(), today.to_sql().into(), Value::Text(spot.into())])
    };
    let rows = records.iter().filter_map(row).collect();
    insert(change, "INSERT INTO place (guid, since_ms, day, spot)", rows, "ON CONFLICT DO NOTHING").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spot_round_trips_through_text() {
        for (text, country, network) in [
            ("DE/64500", "DE", "AS64500"),
            ("DE/", "DE", "unknown"),
            ("/64500", "unknown", "AS64500"),
            ("", "unknown", "unknown"),
        ] {
            let spot = Spot::from(text.to_owned());
            assert_eq!(
                (spot.to_string(), spot.country(), spot.network()),
                (text.into(), country.into(), network.into())
            );
        }
        assert_eq!(Spot::from("nowhere".to_owned()), Spot::default());
    }

    #[test]
    fn a_client_is_located_at_its_last_login() {
        let spot = |text: &str| Spot::from(text.to_owned());
        let logins = BTreeMap::from([(10, spot("DE/1")), (20, spot("FR/2"))]);
        let places = Places(BTreeMap::from([(Guid::numbered(1), logins)]));
        for (ms, at) in [(5, "DE/1"), (10, "DE/1"), (19, "DE/1"), (20, "FR/2"), (99, "FR/2")] {
            assert_eq!(places.at(Guid::numbered(1), ms), spot(at), "{ms}");
        }
        assert_eq!(places.at(Guid::numbered(2), 10), Spot::default());
    }
}
