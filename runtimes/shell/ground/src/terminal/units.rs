//! Sizes and rates as people write and read them.

use std::str::FromStr;
use std::time::Duration;

/// Bytes, written like `268435456`, `256MiB`, `1.5 GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Bytes a second, written like `20MB/s`, `20MB` or `512KiB/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("b", 1),
    ("k", 1_000),
    ("kb", 1_000),
    ("kib", 1 << 10),
    ("mb", 1_000_000),
    ("mib", 1 << 20),
    ("gb", 1_000_000_000),
    ("gib", 1 << 30),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a size; write it like 268435456, 256MiB or 1.5GB");
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        // integer arithmetic, since a size must be exact to the byte
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole = whole.parse::<u64>().map_err(|_| wrong())?.checked_mul(*scale).ok_or_else(wrong)?;
        if fraction.len() > 6 || number.ends_with('.') {
            return Err(wrong());
        }
        let part = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().map_err(|_| wrong())? };
        let part = part * scale / 10u64.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
        whole.checked_add(part).map(Self).ok_or_else(wrong)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = text.trim().strip_suffix("/s").unwrap_or(text);
        let wrong = |_| format!("\"{text}\" is not a rate; write it like 20MB/s or 512KiB/s");
        size.parse::<Size>().map(|s| Self(s.0)).map_err(wrong)
    }
}

/// Formats bytes for tables with a decimal unit, to the nearest tenth: `268.4 MB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    // thresholds after rounding: 999.95 kB is shown as 1.0 MB
    const STEPS: [(u64, u64, &str); 3] =
        [(999_950_000, 1_000_000_000, "GB"), (999_950, 1_000_000, "MB"), (1_000, 1_000, "kB")];
    let Some((_, scale, unit)) = STEPS.iter().find(|(from, ..)| n >= *from) else { return format!("{n} B") };
    let tenths = n.saturating_add(scale / 20) / (scale / 10);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
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
/// as
/// 100.0 %.
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
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("256MiB"), Ok(268_435_456));
        assert_eq!(size("256 mib"), Ok(268_435_456));
        assert_eq!(size("1.5GB"), Ok(1_500_000_000));
        assert_eq!(size("0.000001MB"), Ok(1));
        for bad in ["", "MiB", "-1", "1..5", "1.", "1.5.5MB", "12 parsecs", "99999999999GiB", "0.0000001GB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_may_leave_the_second_out() {
        assert_eq!("20MB/s".parse(), Ok(Rate(20_000_000)));
        assert_eq!("20MB".parse(), Ok(Rate(20_000_000)));
        assert!("20MB/h".parse::<Rate>().is_err());
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
        assert_eq!(bytes(u64::MAX), "18446744073.7 GB");
        assert_eq!(percent(0, 0), "-");
        assert_eq!(rate(10_000_000, Duration::from_millis(500)), "20.0 MB/s");
    }
}
