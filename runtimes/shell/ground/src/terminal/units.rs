//! Sizes and rates as people write and read them, on the command line and in configuration files.

use bytesize::{ByteSize, Unit};
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Number of bytes, written like `268435456`, `256MiB`, `1.5 GB` or `2PB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Number of bytes a second, written like `20MB/s`, `20 MB` or `1000000`; in configuration files a bare number will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Rate(pub u64);

/// How rates are written, for errors.
const RATES: &str = "20MB/s, 512KiB/s or 1000000 (bytes a second)";

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a size; write it like 268435456, 256MiB, 1.5GB or 2PB");
        parse(text).map(Self).ok_or_else(wrong)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = text.trim();
        let size = size.strip_suffix("/s").unwrap_or(size);
        parse(size).map(Self).ok_or_else(|| format!("\"{text}\" is not a rate; write it like {RATES}"))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(RateVisitor)
    }
}

struct RateVisitor;

impl Visitor<'_> for RateVisitor {
    type Value = Rate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a rate like {RATES}")
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Rate, E> {
        Ok(Rate(n))
    }

    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Rate, E> {
        u64::try_from(n).map(Rate).map_err(|_| E::invalid_value(Unexpected::Signed(n), &self))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Rate, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Parses a number of bytes with or without a unit, from `B` to `EB` and `EiB`.
fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = if unit.is_empty() { Unit::Byte } else { unit.trim_start().parse().ok()? };
    let scale = u128::from(unit * 1_u64);
    // in integers: `ByteSize` multiplies fractions as floats, and 2.01kB would be 2009 bytes
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.len() > 6 {
        return None;
    }
    let whole = u128::from(whole.parse::<u64>().ok()?) * scale;
    let part = u128::from(fraction.parse::<u64>().ok()?) * scale / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    u64::try_from(whole + part).ok()
}

/// Formats bytes for tables with a decimal unit, to the nearest tenth: `268.4 MB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    // rounded before a unit is chosen, and halves upwards: 999.95 kB is shown as 1.0 MB
    let tenth = n.checked_ilog10().map_or(1, |log| 10_u64.pow((log / 3 * 3).saturating_sub(1)));
    let rounded = n.saturating_add(tenth / 2) / tenth * tenth;
    ByteSize(rounded).display().si().to_string()
}

/// Formats `n` bytes in `time` as a rate: `84.1 MB/s`.
#[must_use]
pub fn rate(n: u64, time: Duration) -> String {
    format!("{}/s", bytes(per_second(n, time)))
}

/// Returns the bytes per second of `n` bytes in `time`; `time` counts as 1 ms at least.
#[must_use]
pub fn per_second(n: u64, time: Duration) -> u64 {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    u64::try_from(u128::from(n) * 1000 / u128::from(ms)).unwrap_or(u64::MAX)
}

/// Formats a share in per cent to the nearest tenth, `71.4 %`; `-` if `whole` is 0. Less than the whole is never shown
/// as 100.0 %.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    let (part, whole) = (u128::from(part), u128::from(whole));
    let permille = (part * 1000 + whole / 2) / whole;
    let permille = if part < whole { permille.min(999) } else { permille };
    format!("{}.{} %", permille / 10, permille % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_to_the_byte() {
        let size = |s: &str| s.parse::<Size>().map(|s| s.0);
        for (text, n) in [
            ("0", 0),
            ("256MiB", 268_435_456),
            (" 256 mib ", 268_435_456),
            ("1.5GB", 1_500_000_000),
            ("0.000001MB", 1),
            ("2.01kB", 2_010),
            ("20M", 20_000_000),
            ("1.5TiB", 3 << 39),
            ("12PB", 12_000_000_000_000_000),
            ("9007199254740993B", 9_007_199_254_740_993),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(n), "{text}");
        }
        for bad in ["", "MiB", "-1", "+1", "1..5", "1.", ".5", "1.5.5MB", "12 parsecs", "16EiB", "0.0000001GB", "1e3"] {
            let said = size(bad).expect_err(bad);
            assert!(said.contains(&format!("\"{bad}\"")) && said.contains("256MiB"), "{said}");
        }
    }

    #[test]
    fn rates_may_leave_the_second_out() {
        for text in ["20MB/s", "20MB", "20 MB", " 20 mb/s ", "20000000", "0.02GB/s"] {
            assert_eq!(text.parse(), Ok(Rate(20_000_000)), "{text}");
        }
        for bad in ["20MB/h", "fast", "/s", "-1"] {
            assert!(bad.parse::<Rate>().expect_err(bad).contains("20MB/s"), "{bad}");
        }
    }

    #[test]
    fn a_configured_rate_is_a_number_or_a_text() {
        #[derive(Debug, Deserialize)]
        struct Section {
            rate: Rate,
        }
        let read = |value: &str| toml::from_str::<Section>(&format!("rate = {value}")).map(|s| s.rate.0);
        for (value, n) in [("0", 0), ("1000", 1_000), ("\"20MB/s\"", 20_000_000), ("\"7\"", 7)] {
            assert_eq!(read(value).ok(), Some(n), "{value}");
        }
        for bad in ["-5", "\"5MBps\"", "1.5", "true"] {
            let said = read(bad).expect_err(bad).message().to_owned();
            assert!(said.contains(bad) && said.contains("20MB/s"), "{said}");
        }
        assert_eq!(serde_json::to_string(&Rate(7)).expect("written"), "7");
    }

    #[test]
    fn formatted_figures_are_short_and_rounded() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(268_435_456), "268.4 MB");
        assert_eq!(percent(7, 10), "70.0 %");
        assert_eq!(percent(2, 3), "66.7 %");
        assert_eq!((percent(9_999, 10_000), percent(1, 1)), ("99.9 %".into(), "100.0 %".into()));
        assert_eq!(bytes(26_250_000), "26.3 MB");
        assert_eq!(bytes(3_749_999), "3.7 MB");
        for (n, shown) in [(999_949, "999.9 kB"), (999_950, "1.0 MB"), (999_950_000, "1.0 GB"), (1_000, "1.0 kB")] {
            assert_eq!(bytes(n), shown);
        }
        for (n, shown) in
            [(0, "0 B"), (999_949_999_999, "999.9 GB"), (999_950_000_000, "1.0 TB"), (12_345 << 40, "13.6 PB")]
        {
            assert_eq!(bytes(n), shown);
        }
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!(percent(0, 0), "-");
        assert_eq!(rate(10_000_000, Duration::from_millis(500)), "20.0 MB/s");
    }
}
