//! Days of the ledger: UTC, counted from 1970-01-01, written as `2026-11-22`.

use std::fmt;
use std::str::FromStr;
use swarmedge_ground::error::Error;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// A day, counted from 1970-01-01 (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    /// The last representable day, 9999-12-31.
    pub const MAX: Self = Self(2_932_896);

    /// Returns the day of a Unix time in milliseconds.
    #[must_use]
    pub fn of_ms(ms: u64) -> Self {
        u32::try_from(ms / DAY_MS).map_or(Self::MAX, |day| Self(day).min(Self::MAX))
    }

    /// Returns the day after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the end of the day, Unix milliseconds.
    #[must_use]
    pub fn end_ms(self) -> u64 {
        u64::from(self.next().0) * DAY_MS
    }

    /// Converts a day column of the database.
    pub(super) fn from_sql(day: i64) -> Self {
        Self(u32::try_from(day.max(0)).unwrap_or(u32::MAX))
    }

    /// Converts to a day column of the database.
    pub(super) fn to_sql(self) -> i64 {
        i64::from(self.0)
    }

    /// Returns year, month and day of the month in the Gregorian calendar.
    const fn civil(self) -> (u32, u32, u32) {
        // eras of 400 years that begin on 1 March: leap days come last (H. Hinnant, "chrono-compatible low-level date
        // algorithms")
        let z = self.0 + 719_468;
        let of_era = z % 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year_of_era + z / 146_097 * 400;
        (if month <= 2 { year + 1 } else { year }, month, day)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Day {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::usage(format!("{text:?} is not a day")).next("write it like 2026-11-22");
        let mut parts = text.splitn(3, '-').map(str::parse::<u32>);
        let mut part = || parts.next().and_then(Result::ok).ok_or_else(wrong);
        let (year, month, day) = (part()?, part()?, part()?);
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
            return Err(wrong());
        }
        // inverts `civil` by a search of at most 42 days
        let first = (year - 1970) * 365 + (year - 1969) / 4 - (year - 1901) / 100 + (year - 1601) / 400;
        let near = first + (month - 1) * 30;
        let found = (near.saturating_sub(2)..near + 40).map(Self).find(|d| d.civil() == (year, month, day));
        found.ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_format_and_parse() {
        for (day, text) in
            [(0, "1970-01-01"), (11_016, "2000-02-29"), (20_779, "2026-11-22"), (2_932_896, "9999-12-31")]
        {
            assert_eq!(Day(day).to_string(), text);
            assert_eq!(text.parse(), Ok(Day(day)));
        }
        for wrong in ["", "2026-02-30", "2026-13-01", "26-1-1", "2026-11", "today"] {
            assert!(wrong.parse::<Day>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_day_of_a_century_round_trips() {
        for day in (0..36_525).map(Day) {
            assert_eq!(day.to_string().parse(), Ok(day));
        }
    }
}
