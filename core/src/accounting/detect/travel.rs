//! Implausible travel: one client's logins from places so far apart that nobody travels between them in the time. A
//! client with a copied installation or a lent GUID is in two places at once; so is, at times, a client that switches
//! a VPN on. Up to [`MOVES_MAX`] such moves are therefore not reported.

use crate::wire::geo_location::{Coordinates, GeoLocation};

/// A login of a client at some location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Time of the login, Unix milliseconds.
    pub at_ms: u64,
    /// Location from which the client logged in.
    pub location: GeoLocation,
}

/// Summary of a client's implausible moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Travel {
    /// Number of moves between consecutive logins that were faster than [`SPEED_MAX_KMH`].
    pub moves: u64,
    /// The login before the fastest move.
    pub from: Sighting,
    /// The login after the fastest move.
    pub to: Sighting,
    /// Lower bound of the fastest move's distance, in kilometres.
    pub distance_km: u64,
}

/// Highest plausible speed in km/h: an airliner's ground speed, with the wind.
pub const SPEED_MAX_KMH: u64 = 1_100;
/// Tolerated error of a distance, in kilometres: geolocation databases are wrong by so much, and an address may be an
/// operator's gateway.
pub const ERROR_KM: u64 = 300;
/// Number of implausible moves of one client that are not reported.
pub const MOVES_MAX: u64 = 2;
/// Assumed distance between two countries in kilometres, where coordinates are not known.
pub const COUNTRIES_KM: u64 = 500;
/// Assumed distance between two continents in kilometres, where coordinates are not known.
pub const REGIONS_KM: u64 = 2_000;
/// Mean radius of the earth, in kilometres.
const RADIUS_KM: i64 = 6_371;
/// The number one in the fixed-point format of sines, in units of 2⁻²⁰.
const ONE: i64 = 1 << 20;

/// Returns the implausible moves of a client, from its sightings in any order. `None` for [`MOVES_MAX`] moves or fewer.
#[must_use]
pub fn implausible(sightings: &mut [Sighting]) -> Option<Travel> {
    sightings.sort_unstable_by_key(|s| s.at_ms);
    let mut found: Option<Travel> = None;
    for pair in sightings.windows(2) {
        let [from, to] = *pair else { continue };
        let distance_km = distance_km(&from.location, &to.location);
        if !is_too_fast(distance_km, to.at_ms.saturating_sub(from.at_ms)) {
            continue;
        }
        let moves = found.map_or(0, |f| f.moves).saturating_add(1);
        let fastest = found.filter(|f| is_faster(f, distance_km, &from, &to)).map(|f| Travel { moves, ..f });
        found = Some(fastest.unwrap_or(Travel { moves, from, to, distance_km }));
    }
    found.filter(|travel| travel.moves > MOVES_MAX)
}

/// Returns whether the move `known` is at least as fast as a move of `km` kilometres between `from` and `to`.
fn is_faster(known: &Travel, km: u64, from: &Sighting, to: &Sighting) -> bool {
    let time = |from: &Sighting, to: &Sighting| u128::from(to.at_ms.saturating_sub(from.at_ms)) + 1;
    u128::from(known.distance_km) * time(from, to) >= u128::from(km) * time(&known.from, &known.to)
}

/// Returns whether a move of `km` kilometres in `ms` milliseconds is faster than [`SPEED_MAX_KMH`], even if `km` is
/// wrong by [`ERROR_KM`].
const fn is_too_fast(km: u64, ms: u64) -> bool {
    km.saturating_sub(ERROR_KM) as u128 * 3_600_000 > SPEED_MAX_KMH as u128 * ms as u128
}

/// Returns a lower bound of the distance between two places, in kilometres.
#[must_use]
pub fn distance_km(a: &GeoLocation, b: &GeoLocation) -> u64 {
    if let (Some(a), Some(b)) = (&a.at, &b.at) {
        return chord_km(a, b);
    }
    let differ = |a: Option<u16>, b: Option<u16>| matches!((a, b), (Some(a), Some(b)) if a != b);
    if differ(a.locality.region.map(u16::from), b.locality.region.map(u16::from)) {
        REGIONS_KM
    } else if differ(a.locality.country.map(u16::from_be_bytes), b.locality.country.map(u16::from_be_bytes)) {
        COUNTRIES_KM
    } else {
        0
    }
}

/// Returns the distance straight through the earth in kilometres, which is never longer than the way on its surface.
fn chord_km(a: &Coordinates, b: &Coordinates) -> u64 {
    let vector = |c: &Coordinates| {
        let (latitude, longitude) = (i64::from(c.latitude), i64::from(c.longitude));
        let scale = cosine(latitude);
        [scale * cosine(longitude) / ONE, scale * sine(longitude) / ONE, sine(latitude)]
    };
    let (a, b) = (vector(a), vector(b));
    let squares: i64 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
    u64::try_from(squares.max(0).isqrt() * RADIUS_KM / ONE).unwrap_or(0)
}

/// Returns the sine of an angle in tenths of a degree, times [`ONE`], with an error of 0.2 % (Bhaskara's formula).
const fn sine(tenths: i64) -> i64 {
    let angle = tenths.rem_euclid(3_600);
    let half = angle % 1_800;
    let product = half * (1_800 - half);
    let sine = 4 * product * ONE / (4_050_000 - product);
    if angle < 1_800 { sine } else { -sine }
}

const fn cosine(tenths: i64) -> i64 {
    sine(tenths + 900)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::geo_location::Locality;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const BERLIN: Coordinates = Coordinates { latitude: 525, longitude: 134 };
    const PARIS: Coordinates = Coordinates { latitude: 489, longitude: 23 };
    const SYDNEY: Coordinates = Coordinates { latitude: -339, longitude: 1_512 };
    const NEW_YORK: Coordinates = Coordinates { latitude: 407, longitude: -740 };
    const HOUR: u64 = 3_600_000;

    const fn at(at: Coordinates, at_ms: u64) -> Sighting {
        Sighting { at_ms, location: GeoLocation { locality: Locality::UNKNOWN, at: Some(at) } }
    }

    fn of(country: &[u8; 2], region: u8, at_ms: u64) -> Sighting {
        let locality = Locality { asn: None, country: Some(*country), region: Some(region) };
        Sighting { at_ms, location: GeoLocation { locality, at: None } }
    }

    #[test]
    fn distances_are_those_through_the_earth() {
        for (a, b, km) in [(BERLIN, PARIS, 878), (BERLIN, SYDNEY, 12_142), (PARIS, NEW_YORK, 5_640), (PARIS, PARIS, 0)]
        {
            let found = chord_km(&a, &b);
            assert!(found.abs_diff(km) <= 40, "{found} for {km}");
        }
    }

    #[test]
    fn only_repeated_impossible_journeys_are_found() {
        let flights = |hours: u64, n: u64| -> Vec<Sighting> {
            (0..n).map(|i| at(if i % 2 == 0 { PARIS } else { NEW_YORK }, i * hours * HOUR)).collect()
        };
        assert_eq!(implausible(&mut flights(8, 20)), None, "an airliner, every day");
        assert_eq!(implausible(&mut flights(1, 3)), None, "a VPN that was switched on and off");
        let travel = implausible(&mut flights(1, 20)).expect("found");
        assert_eq!((travel.moves, travel.to.at_ms - travel.from.at_ms), (19, HOUR));
        let mut close: Vec<Sighting> = (0..20).map(|i| at(if i % 2 == 0 { PARIS } else { BERLIN }, i * HOUR)).collect();
        assert_eq!(implausible(&mut close), None, "within an hour's flight and the database's error");
    }

    #[test]
    fn without_coordinates_countries_and_continents_stand_in() {
        let between = |a: (&[u8; 2], u8), b: (&[u8; 2], u8), minutes: u64| {
            let mut all: Vec<Sighting> =
                (0..10)
                    .map(|i| {
                        if i % 2 == 0 { of(a.0, a.1, i * minutes * 60_000) } else { of(b.0, b.1, i * minutes * 60_000) }
                    })
                    .collect();
            implausible(&mut all).is_some()
        };
        assert!(between((b"DE", 4), (b"FR", 4), 5));
        assert!(!between((b"DE", 4), (b"FR", 4), 15));
        assert!(between((b"DE", 4), (b"US", 5), 60));
        assert!(!between((b"DE", 4), (b"US", 5), 120));
        assert!(!between((b"DE", 4), (b"DE", 4), 0));
    }

    proptest! {
        #![proptest_config(swarmedge_seeds::random(256))]

        #[test]
        fn any_numbers_at_all_have_a_distance_within_the_earth(
            a in any::<(i16, i16)>(), b in any::<(i16, i16)>(), times in proptest::collection::vec(any::<u64>(), 0..6)
        ) {
            let place = |(latitude, longitude)| Coordinates { latitude, longitude };
            let (there, back) = (chord_km(&place(a), &place(b)), chord_km(&place(b), &place(a)));
            prop_assert_eq!(there, back);
            prop_assert!(there <= 2 * 6_371 + 30);
            let mut all: Vec<Sighting> = times.into_iter().map(|at_ms| at(place(a), at_ms)).collect();
            prop_assert_eq!(implausible(&mut all), None, "who stays does not travel");
        }
    }
}
