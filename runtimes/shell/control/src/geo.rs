//! Geolocation: country and network of an IP address, from databases in the MaxMind format. A running server reads them
//! again when their files are replaced.

use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use swarmedge_core::wire::geo_location::{Coordinates, GeoLocation, Locality};
use swarmedge_ground::error::Error;
use swarmedge_ground::files::Stamp;
use swarmedge_ground::rt::Rt;

/// Interval at which a running server checks the files.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// The opened databases; clones share them. Without any, every location is unknown.
#[derive(Clone, Debug, Default)]
pub struct Geo {
    countries: Option<Rc<Database>>,
    networks: Option<Rc<Database>>,
}

struct Database {
    path: PathBuf,
    /// The file's stamp (time of modification, length, inode) when it was read last, by which a replacement is
    /// noticed.
    stamp: Cell<Option<Stamp>>,
    reader: RefCell<Reader<Vec<u8>>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.path.display())
    }
}

/// Fields read from a database of countries or cities.
#[derive(Deserialize)]
struct CountryEntry<'a> {
    #[serde(borrow)]
    country: Option<Country<'a>>,
    #[serde(borrow)]
    continent: Option<Continent<'a>>,
    location: Option<Location>,
}

#[derive(Deserialize)]
struct Country<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
struct Continent<'a> {
    code: Option<&'a str>,
}

#[derive(Deserialize)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

/// Fields read from a database of networks.
#[derive(Deserialize)]
struct NetworkEntry {
    autonomous_system_number: Option<u32>,
}

impl Geo {
    /// Reads the given databases; an unreadable one is an error.
    pub fn open(countries: Option<&Path>, networks: Option<&Path>) -> Result<Self, Error> {
        let open = |path: &Path| {
            // take the stamp before reading: a change in between is found at the next check
            let stamp = Cell::new(Stamp::of(path));
            let reader = RefCell::new(load(path)?);
            Ok::<_, Error>(Rc::new(Database { path: path.to_owned(), stamp, reader }))
        };
        Ok(Self { countries: countries.map(open).transpose()?, networks: networks.map(open).transpose()? })
    }

    /// Returns whether there is any database.
    #[must_use]
    pub const fn has_database(&self) -> bool {
        self.countries.is_some() || self.networks.is_some()
    }

    /// Returns the location of an address, as far as known; a broken entry counts as unknown.
    #[must_use]
    pub fn locate(&self, addr: IpAddr) -> GeoLocation {
        let addr = addr.to_canonical();
        let mut location = GeoLocation::UNKNOWN;
        if let Some(countries) = &self.countries {
            let reader = countries.reader.borrow();
            if let Ok(Some(entry)) = reader.lookup(addr).and_then(|found| found.decode::<CountryEntry<'_>>()) {
                location = location_of(&entry);
            }
        }
        if let Some(networks) = &self.networks {
            let reader = networks.reader.borrow();
            if let Ok(Some(entry)) = reader.lookup(addr).and_then(|found| found.decode::<NetworkEntry>()) {
                location.locality.asn = entry.autonomous_system_number.filter(|asn| *asn > 0);
            }
        }
        location
    }

    /// Reloads replaced files, for as long as the runtime lives. An unreadable file leaves the old database in use.
    pub async fn follow<R: Rt>(self, rt: R) {
        while self.has_database() {
            rt.sleep_until(rt.now() + CHECK_EVERY).await;
            self.reload_changed(&rt).await;
        }
    }

    async fn reload_changed<R: Rt>(&self, rt: &R) {
        for database in self.countries.iter().chain(&self.networks) {
            let (path, known) = (database.path.clone(), database.stamp.get());
            let found = rt.blocking(move || {
                let stamp = Stamp::of(&path);
                (stamp.is_some() && stamp != known).then(|| (stamp, load(&path)))
            });
            let Some((stamp, loaded)) = found.await else { continue };
            database.stamp.set(stamp);
            match loaded {
                Ok(reader) => {
                    tracing::info!(path = %database.path.display(), "a geolocation database was reloaded");
                    *database.reader.borrow_mut() = reader;
                }
                Err(error) => tracing::error!(%error, "cannot reload a geolocation database: the old one stays in use"),
            }
        }
    }
}

fn load(path: &Path) -> Result<Reader<Vec<u8>>, Error> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|e| Error::io(format!("read geolocation database {shown}"), &e))?;
    let broken = |e: MaxMindDbError| {
        Error::usage(format!("{shown} is no geolocation database: {e}"))
            .next("it must be a .mmdb file (MaxMind DB) of countries, cities or ASNs")
    };
    Reader::from_source(bytes).map_err(broken)
}

fn location_of(entry: &CountryEntry<'_>) -> GeoLocation {
    let code =
        entry.country.as_ref().and_then(|c| c.iso_code).filter(|code| code.bytes().all(|b| b.is_ascii_uppercase()));
    let country = code.and_then(|code| code.as_bytes().try_into().ok());
    let region = entry.continent.as_ref().and_then(|c| c.code).and_then(region);
    let at = entry
        .location
        .as_ref()
        .and_then(|l| Some(Coordinates { latitude: tenths(l.latitude?, 90)?, longitude: tenths(l.longitude?, 180)? }));
    GeoLocation { locality: Locality { asn: None, country, region }, at }
}

/// Returns the region number of a continent code, from 1; `None` for an unknown code.
fn region(code: &str) -> Option<u8> {
    let at = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"].iter().position(|known| *known == code)?;
    u8::try_from(at + 1).ok()
}

/// Converts degrees of latitude or longitude to tenths of a degree; `None` if beyond `most` degrees.
fn tenths(degrees: f64, most: i16) -> Option<i16> {
    let within = degrees.abs() <= f64::from(most);
    #[expect(clippy::cast_possible_truncation, reason = "at most 1,800")]
    within.then(|| (degrees * 10.0).round() as i16)
}

#[cfg(test)]
#[path = "../../tests/shared/mmdb.rs"]
mod mmdb;

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_ground::rt::Start as _;
    use swarmedge_smol::Smol as TestRt;

    fn addr(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn write(path: &Path, bytes: &[u8]) {
        std::fs::write(path, bytes).expect("written");
    }

    #[test]
    fn the_longest_prefix_locates_an_address_and_others_are_unknown() {
        let dir = tempfile::tempdir().expect("a directory");
        let (countries, networks) = (dir.path().join("countries.mmdb"), dir.path().join("networks.mmdb"));
        let berlin = mmdb::Entry { at: Some((52.52, 13.4)), ..mmdb::country("DE", "EU") };
        write(&countries, &mmdb::of(&[("192.0.2.0/24", berlin), ("192.0.2.128/25", mmdb::country("FR", "EU"))]));
        write(
            &networks,
            &mmdb::of(&[("192.0.2.0/24", mmdb::network(64_500)), ("2001:db8::/32", mmdb::network(64_501))]),
        );
        let geo = Geo::open(Some(&countries), Some(&networks)).expect("opens");
        let location = geo.locate(addr("192.0.2.7"));
        assert_eq!(location.locality, Locality { asn: Some(64_500), country: Some(*b"DE"), region: Some(4) });
        assert_eq!(location.at, Some(Coordinates { latitude: 525, longitude: 134 }));
        assert_eq!(geo.locate(addr("::ffff:192.0.2.7")), location);
        let french = geo.locate(addr("192.0.2.129"));
        assert_eq!((french.locality.country, french.at), (Some(*b"FR"), None));
        assert_eq!(geo.locate(addr("2001:db8::1")).locality.asn, Some(64_501));
        assert_eq!(geo.locate(addr("203.0.113.1")), GeoLocation::UNKNOWN);
        assert_eq!(Geo::default().locate(addr("192.0.2.7")), GeoLocation::UNKNOWN);
    }

    #[test]
    fn an_absent_or_broken_database_is_one_clear_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("broken.mmdb");
        let absent = Geo::open(Some(&path), None).expect_err("absent").to_string();
        assert!(absent.contains("broken.mmdb"), "{absent}");
        let whole = mmdb::of(&[("192.0.2.0/24", mmdb::country("DE", "EU"))]);
        for bytes in [&b"no database"[..], &whole[whole.len() / 2..], &whole[..whole.len() / 2]] {
            write(&path, bytes);
            let broken = Geo::open(None, Some(&path)).expect_err("broken").to_string();
            assert!(broken.contains("is no geolocation database"), "{broken}");
        }
    }

    #[test]
    fn corrupt_databases_never_panic() {
        let entries = [("192.0.2.0/24", mmdb::country("DE", "EU")), ("0.0.0.0/1", mmdb::network(64_500))];
        let whole = mmdb::of(&entries);
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                let Ok(reader) = Reader::from_source(bytes) else { continue };
                let database =
                    Rc::new(Database { path: PathBuf::new(), stamp: Cell::default(), reader: RefCell::new(reader) });
                let geo = Geo { countries: Some(Rc::clone(&database)), networks: Some(database) };
                let _ = geo.locate(addr("192.0.2.7"));
                let _ = geo.locate(addr("10.0.0.1"));
            }
        }
    }

    #[test]
    fn a_replaced_database_is_reloaded_and_a_broken_one_ignored() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("countries.mmdb");
        write(&path, &mmdb::of(&[("192.0.2.0/24", mmdb::country("DE", "EU"))]));
        TestRt::block_on(move |rt| async move {
            let geo = Geo::open(Some(&path), None).expect("opens");
            let country = |geo: &Geo| geo.locate(addr("192.0.2.7")).locality.country;
            write(&path, b"broken");
            geo.reload_changed(&rt).await;
            assert_eq!(country(&geo), Some(*b"DE"));
            write(&path, &mmdb::of(&[("192.0.2.0/24", mmdb::country("FR", "EU"))]));
            geo.reload_changed(&rt).await;
            assert_eq!(country(&geo), Some(*b"FR"));
        });
    }
}
