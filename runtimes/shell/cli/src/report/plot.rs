//! The geometry of a report's plots, in SVG units; `plot.html` draws them.

use super::text::speed;
use swarmedge_ledger::report::Row;

/// Inner width and height of a plot.
const WIDTH: u64 = 720;
const HEIGHT: u64 = 180;
/// Space in SVG units for the labels left of and below a plot, and for half a label above it.
const LEFT: u64 = 76;
const BELOW: u64 = 22;
const ABOVE: u64 = 6;
/// Maximum number of bars in a plot such that each has space for a name.
pub(super) const BARS_NAMED: usize = 8;

/// Classes of the style sheet that colour the parts of a bar, in their order.
const COLOURS: [&str; 4] = ["a", "b", "c", "d"];

/// A plot with its heading and legend.
pub(super) struct Plot {
    pub(super) title: &'static str,
    /// Style class and name of each part of the bars, for the legend.
    pub(super) keys: Vec<(&'static str, &'static str)>,
    /// Description of the plot for screen readers.
    pub(super) what: &'static str,
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) grid: Vec<Line>,
    pub(super) names: Vec<Name>,
    /// Parts of stacked bars, each with its own title.
    pub(super) parts: Vec<(String, Rect)>,
    /// Spans of speed with their medians, under one title.
    pub(super) spreads: Vec<(String, [Rect; 2])>,
}

/// A horizontal line of the grid.
pub(super) struct Line {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) y: u64,
    pub(super) label: String,
}

/// The name below a bar.
pub(super) struct Name {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) text: String,
}

/// A coloured rectangle.
pub(super) struct Rect {
    pub(super) class: &'static str,
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) width: u64,
    pub(super) height: u64,
}

/// Title, unit and legend of a plot.
pub(super) struct Heading<'a> {
    pub(super) title: &'static str,
    pub(super) what: &'static str,
    pub(super) keys: &'a [&'static str],
}

/// Rounds `n` up to a round and even number, for the top of an axis whose middle is labelled too.
fn round_up(n: u64) -> u64 {
    if n < 10 {
        return n.max(1).next_multiple_of(2);
    }
    let scale = 10_u64.pow(n.ilog10());
    [1, 2, 3, 4, 5, 6, 8]
        .into_iter()
        .map(|k| scale.saturating_mul(k))
        .find(|top| *top >= n)
        .unwrap_or(scale.saturating_mul(10))
}

/// Scales `n` of `top` to a height in the plot.
fn scaled(n: u64, top: u64) -> u64 {
    u64::try_from(u128::from(n) * u128::from(HEIGHT) / u128::from(top.max(1))).map_or(HEIGHT, |h| h.min(HEIGHT))
}

/// Returns the left edge and width of bar `at` of `n`.
fn slot(at: usize, n: usize) -> (u64, u64) {
    let (at, n) = (at as u64, n.max(1) as u64);
    let left = LEFT + WIDTH * at / n;
    (left, (LEFT + WIDTH * (at + 1) / n - left).max(1))
}

/// Returns a plot without bars: its grid up to `top`, axis labels, and some of the bars' names.
fn frame<'a>(heading: &Heading<'_>, names: &[&'a str], top: u64, unit: impl Fn(u64) -> String) -> Plot {
    let line = |half| Line {
        from: LEFT,
        to: LEFT + WIDTH,
        y: HEIGHT - HEIGHT * half / 2 + ABOVE,
        label: unit(top / 2 * half),
    };
    let mut year_before = "";
    // only the first day of a year shows the year
    let mut short = |name: &'a str| match name.split_once('-') {
        Some((year, of_year)) if year == year_before => of_year,
        Some((year, _)) => {
            year_before = year;
            name
        }
        None => name,
    };
    let every = names.len().div_ceil(BARS_NAMED).max(1);
    let named = names.iter().enumerate().step_by(every).map(|(at, &name)| {
        let (x, width) = slot(at, names.len());
        Name { x: x + width / 2, y: HEIGHT + ABOVE + BELOW - 5, text: short(name).to_owned() }
    });
    Plot {
        title: heading.title,
        keys: COLOURS.into_iter().zip(heading.keys.iter().copied()).collect(),
        what: heading.what,
        width: LEFT + WIDTH + 4,
        height: HEIGHT + ABOVE + BELOW,
        grid: (0..=2).map(line).collect(),
        names: named.collect(),
        parts: Vec::new(),
        spreads: Vec::new(),
    }
}

/// Returns a plot with a stacked bar per entry, its parts from bottom to top.
pub(super) fn bars(heading: &Heading<'_>, all: &[(&str, Vec<u64>)], unit: impl Fn(u64) -> String) -> Plot {
    let sum = |parts: &[u64]| parts.iter().fold(0_u64, |a, b| a.saturating_add(*b));
    let top = round_up(all.iter().map(|(_, parts)| sum(parts)).max().unwrap_or(0));
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let mut plot = frame(heading, &names, top, &unit);
    for (at, (name, parts)) in all.iter().enumerate() {
        let (x, width) = slot(at, all.len());
        let gap = (width / 6).min(8);
        let mut below = 0;
        for (class, part) in COLOURS.into_iter().zip(parts) {
            // differences of cumulated heights, so that rounding leaves no gap
            let (from, to) = (scaled(below, top), scaled(below.saturating_add(*part), top));
            below = below.saturating_add(*part);
            if to > from {
                let y = HEIGHT - to + ABOVE;
                let rect = Rect { class, x: x + gap, y, width: width - 2 * gap, height: to - from };
                plot.parts.push((format!("{name}: {}", unit(*part)), rect));
            }
        }
    }
    plot
}

/// Returns the plot of the speeds of each day: the middle 80 % as a bar, the median as a mark.
pub(super) fn speeds(heading: &Heading<'_>, days: &[Row]) -> Plot {
    let top = round_up(days.iter().filter_map(|d| d.figures.speed.p90).max().unwrap_or(0));
    let names: Vec<&str> = days.iter().map(|d| &d.name[..]).collect();
    let mut plot = frame(heading, &names, top, |n| speed(Some(n)));
    for (at, day) in days.iter().enumerate() {
        let s = &day.figures.speed;
        let (Some(p10), Some(p50), Some(p90)) = (s.p10, s.p50, s.p90) else { continue };
        let (x, width) = slot(at, days.len());
        let gap = width / 4;
        let (low, middle, high) = (scaled(p10, top), scaled(p50, top), scaled(p90, top));
        let span = Rect {
            class: "b",
            x: x + gap,
            y: HEIGHT - high + ABOVE,
            width: (width - 2 * gap).max(1),
            height: (high - low).max(1),
        };
        let median = Rect {
            class: "a",
            x: x + gap / 2,
            y: (HEIGHT - middle + ABOVE - 1).min(HEIGHT + 3),
            width: (width - gap).max(1),
            height: 3,
        };
        let title = format!("{}: {} ({} to {})", day.name, speed(s.p50), speed(s.p10), speed(s.p90));
        plot.spreads.push((title, [span, median]));
    }
    plot
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: Heading<'_> = Heading { title: "Ends by day", what: "Ends", keys: &["x"] };

    #[test]
    fn the_top_of_an_axis_is_round_and_high_enough() {
        for (n, top) in [(0, 2), (1, 2), (3, 4), (7, 8), (9, 10), (11, 20), (81, 100), (100, 100), (1_234, 2_000)] {
            assert_eq!(round_up(n), top);
        }
        assert!(round_up(u64::MAX) >= 1 << 63);
    }

    #[test]
    fn axis_labels_have_exact_values_and_days_show_the_year_once() {
        for (most, labels) in
            [(1, ["0", "1", "2"]), (3, ["0", "2", "4"]), (5, ["0", "3", "6"]), (70, ["0", "40", "80"])]
        {
            let plot = bars(&HEADING, &[("AS1", vec![most])], |n| n.to_string());
            assert_eq!(plot.grid.iter().map(|line| &line.label[..]).collect::<Vec<_>>(), labels, "{most}");
        }
        let days = ["2026-12-30", "2026-12-31", "2027-01-01"].map(|day| (day, vec![1]));
        let names = bars(&HEADING, &days, |n| n.to_string()).names;
        assert_eq!(names.iter().map(|n| &n.text[..]).collect::<Vec<_>>(), ["2026-12-30", "12-31", "2027-01-01"]);
    }

    #[test]
    fn the_parts_of_a_bar_leave_no_gap_and_stay_inside() {
        let all = [("2026-11-22", vec![2, 2, 2]), ("2026-11-23", vec![0, 0, 0])];
        let plot = bars(&HEADING, &all, |n| n.to_string());
        let heights: Vec<u64> = plot.parts.iter().map(|(_, rect)| rect.height).collect();
        assert_eq!(heights, [60, 60, 60]);
        assert_eq!(scaled(u64::MAX, 1), HEIGHT);
    }
}
