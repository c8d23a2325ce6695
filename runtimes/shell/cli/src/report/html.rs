//! A report as one HTML file: no script, nothing loaded from anywhere, plots as inline SVG.

use super::text::{efficiency, is_located, plain, speed};
use swarmedge_ground::terminal::units::{bytes, percent};
use swarmedge_ledger::report::{Figures, Report, Row, Speeds};

/// Inner width and height of a plot, in SVG units.
const WIDTH: u64 = 720;
const HEIGHT: u64 = 180;
/// Room for the labels left of and below a plot, in SVG units.
const LEFT: u64 = 76;
const BELOW: u64 = 22;
/// Most bars of a plot that have room for a name.
pub(super) const BARS_NAMED: usize = 8;
/// Most rows of a table; CSV and JSON have all.
pub(super) const ROWS_MAX: usize = 100;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b2430;--dim:#5d6b7a;--line:#d9dfe6;--page:#fff;--tile:#f4f6f8;
--a:#2f6fb0;--b:#e08a1e;--c:#b8433c;--d:#8a94a0}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--dim:#98a5b3;--line:#36414d;--page:#14191f;--tile:#1e252d;
--a:#6aa8e4;--b:#f0a94e;--c:#e0736c;--d:#7d8894}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:60rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}p{margin:.2rem 0;color:var(--dim)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:.7rem;margin:1.2rem 0}
.tile{background:var(--tile);border-radius:.5rem;padding:.7rem .9rem}.tile b{display:block;font-size:1.35rem}
.tile span{color:var(--dim);font-size:.85rem}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .5rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--dim);font-weight:600}td:first-child,th:first-child{text-align:left;white-space:normal;
overflow-wrap:anywhere}.wide{overflow-x:auto}
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font:11px system-ui,sans-serif}
.grid{stroke:var(--line)}.a{fill:var(--a)}.b{fill:var(--b)}.c{fill:var(--c)}.d{fill:var(--d)}
.key{display:inline-block;width:.8em;height:.8em;border-radius:.15em;margin:0 .3em 0 1em;vertical-align:-.05em}
i.a{background:var(--a)}i.b{background:var(--b)}i.c{background:var(--c)}i.d{background:var(--d)}
";

pub(super) fn of(report: &Report) -> String {
    let r = report;
    let closed = match &r.final_up_to {
        Some(day) => {
            format!("Final up to {day}: these figures are signed, and <code>swarmedge audit</code> proves them.")
        }
        None => "No day of this span is closed: figures may still change.".to_owned(),
    };
    let unknown: String = r.unknown.iter().map(|what| format!("<p>Not known: {what}.</p>\n")).collect();
    let places = [("By country", "Country", &r.countries), ("By network", "Network", &r.networks)];
    let places = places.into_iter().filter(|(_, _, rows)| is_located(rows));
    let places: String = places
        .map(|(title, what, rows)| format!("<h2>{title}</h2>{}", table(what, &rows[..rows.len().min(ROWS_MAX)])))
        .collect();
    let body = format!(
        "<p>{from} to {to} (UTC). {closed}</p>\n{tiles}{plots}\
         {causes}<h2>By day</h2>{by_day}<h2>By object</h2>{by_object}{places}\n{unknown}",
        from = r.from,
        to = r.to,
        tiles = tiles(r),
        plots = plots(r),
        causes = causes(&r.totals),
        by_day = table("Day", &r.days),
        by_object = table("Object", &r.objects[..r.objects.len().min(ROWS_MAX)]),
    );
    page(&format!("Provider {}", r.provider), &format!("{} to {}", r.from, r.to), &body)
}

/// Returns the whole HTML file. `what` completes the title, `body` follows the heading.
pub(super) fn page(heading: &str, what: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{heading}: {what}</title><style>{STYLE}</style></head><body>\n<h1>{heading}</h1>{body}</body></html>\n"
    )
}

/// Returns a tile: a large figure with a label above and a detail below.
pub(super) fn tile(figure: &str, what: &str, more: &str) -> String {
    format!("<div class=\"tile\"><span>{what}</span><b>{figure}</b><span>{more}</span></div>")
}

fn tiles(r: &Report) -> String {
    let t = &r.totals;
    let speeds = |s: &Speeds| format!("{} of {} downloads", speed(s.p50), s.downloads);
    let all = t.edge_bytes.saturating_add(t.peer_bytes).saturating_add(t.plain());
    let tiles = [
        tile(&t.downloads.to_string(), "Downloads", &format!("{} completed", percent(t.completed, t.downloads))),
        tile(&bytes(all), "Delivered", &format!("{} plain HTTPS", bytes(t.plain()))),
        tile(&efficiency(t), "Peer efficiency", &format!("{} from peers", bytes(t.peer_bytes))),
        tile(&speed(t.speed.p50), "Median speed", &format!("with peers {}", speeds(&r.speed_with_peers))),
    ];
    format!("<div class=\"tiles\">{}</div>\n", tiles.concat())
}

/// Returns the table of failure causes, most frequent first.
fn causes(totals: &Figures) -> String {
    let mut causes: Vec<(&&str, &u64)> = totals.causes.iter().collect();
    causes.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    if causes.is_empty() {
        return String::new();
    }
    let row = |(cause, n): (&&str, &u64)| format!("<tr><td>{cause}</td><td>{n}</td></tr>\n");
    let rows: String = causes.into_iter().map(row).collect();
    format!("<h2>Failures by cause</h2><table><tr><th>Cause</th><th>Downloads</th></tr>\n{rows}</table>\n")
}

fn plots(r: &Report) -> String {
    let stack = |of: fn(&Figures) -> Vec<u64>| -> Vec<(&str, Vec<u64>)> {
        r.days.iter().map(|row| (&row.name[..], of(&row.figures))).collect()
    };
    let delivered = stack(|f| vec![f.peer_bytes, f.edge_bytes, f.plain()]);
    let ends = stack(|f| vec![f.completed, f.cancelled, f.failed, f.unfinished.saturating_add(f.unreported)]);
    format!(
        "<h2>Bytes delivered by day<small>{}</small></h2>{}\n\
         <h2>Downloads by day<small>{}</small></h2>{}\n\
         <h2>Speed of completed downloads by day<small>{}</small></h2>{}\n",
        keys(&["peers", "edges", "plain HTTPS"]),
        bars("Bytes delivered by day, from peers, from edges and by plain HTTPS", &delivered, bytes),
        keys(&["completed", "cancelled", "failed", "no end reported"]),
        bars("Downloads by day and by how they ended", &ends, |n| n.to_string()),
        keys(&["median", "10 % to 90 %"]),
        speed_plot(&r.days)
    )
}

/// Returns the legend for the parts of a bar, in the order of the colours.
pub(super) fn keys(names: &[&str]) -> String {
    let key = |(class, name): (&str, &&str)| format!("<i class=\"key {class}\"></i>{name}");
    ["a", "b", "c", "d"].into_iter().zip(names).map(key).collect()
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

/// Returns the SVG with grid, axis labels and some bars' names around `drawn`. `what` is the label for screen readers.
fn frame(what: &str, names: &[&str], top: u64, unit: impl Fn(u64) -> String, drawn: &str) -> String {
    let mut grid = String::new();
    for half in 0..=2 {
        let y = HEIGHT - HEIGHT * half / 2 + 6;
        let label = unit(top / 2 * half);
        grid += &format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
            LEFT + WIDTH,
            LEFT - 6,
            y + 4
        );
    }
    let every = names.len().div_ceil(BARS_NAMED).max(1);
    let mut year_before = "";
    for (at, name) in names.iter().enumerate().step_by(every) {
        let (x, width) = slot(at, names.len());
        // only the first day of a year shows the year
        let name = match name.split_once('-') {
            Some((year, of_year)) if year == year_before => of_year,
            Some((year, _)) => {
                year_before = year;
                name
            }
            None => name,
        };
        grid += &format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
            x + width / 2,
            HEIGHT + 6 + BELOW - 5
        );
    }
    let (w, h) = (LEFT + WIDTH + 4, HEIGHT + 6 + BELOW);
    format!("<svg viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{what}\">{grid}{drawn}</svg>")
}

/// Returns the left edge and width of bar `at` of `n`.
fn slot(at: usize, n: usize) -> (u64, u64) {
    let (at, n) = (at as u64, n.max(1) as u64);
    let left = LEFT + WIDTH * at / n;
    (left, (LEFT + WIDTH * (at + 1) / n - left).max(1))
}

/// Draws a stacked bar per entry, its parts from bottom to top.
pub(super) fn bars(what: &str, all: &[(&str, Vec<u64>)], unit: impl Fn(u64) -> String) -> String {
    let sum = |parts: &[u64]| parts.iter().fold(0_u64, |a, b| a.saturating_add(*b));
    let top = round_up(all.iter().map(|(_, parts)| sum(parts)).max().unwrap_or(0));
    let mut drawn = String::new();
    for (at, (name, parts)) in all.iter().enumerate() {
        let (x, width) = slot(at, all.len());
        let gap = (width / 6).min(8);
        let mut below = 0;
        for (class, part) in ["a", "b", "c", "d"].into_iter().zip(parts) {
            // differences of cumulated heights, so that rounding leaves no gap
            let (from, to) = (scaled(below, top), scaled(below.saturating_add(*part), top));
            below = below.saturating_add(*part);
            if to > from {
                drawn += &format!(
                    "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{name}: {}</title></rect>",
                    x + gap,
                    HEIGHT - to + 6,
                    width - 2 * gap,
                    to - from,
                    unit(*part)
                );
            }
        }
    }
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    frame(what, &names, top, unit, &drawn)
}

/// The middle 80 % as a bar, the median as a mark.
fn speed_plot(days: &[Row]) -> String {
    let top = round_up(days.iter().filter_map(|d| d.figures.speed.p90).max().unwrap_or(0));
    let mut drawn = String::new();
    for (at, day) in days.iter().enumerate() {
        let s = &day.figures.speed;
        let (Some(p10), Some(p50), Some(p90)) = (s.p10, s.p50, s.p90) else { continue };
        let (x, width) = slot(at, days.len());
        let gap = width / 4;
        let (low, middle, high) = (scaled(p10, top), scaled(p50, top), scaled(p90, top));
        drawn += &format!(
            "<g><title>{}: {} ({} to {})</title>\
             <rect class=\"b\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\
             <rect class=\"a\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"3\"/></g>",
            day.name,
            speed(s.p50),
            speed(s.p10),
            speed(s.p90),
            x + gap,
            HEIGHT - high + 6,
            (width - 2 * gap).max(1),
            (high - low).max(1),
            x + gap / 2,
            (HEIGHT - middle + 5).min(HEIGHT + 3),
            (width - gap).max(1)
        );
    }
    let names: Vec<&str> = days.iter().map(|d| &d.name[..]).collect();
    frame("Speed of completed downloads by day", &names, top, |n| speed(Some(n)), &drawn)
}

fn table(what: &str, rows: &[Row]) -> String {
    let mut text = format!(
        "<div class=\"wide\"><table><tr><th>{what}</th><th>Started</th><th>Completed</th><th>Failed</th>\
         <th>Cancelled</th><th>No end</th><th>Edges</th><th>Peers</th><th>Plain HTTPS</th><th>Peer efficiency</th><th>Speed 10 %</th>\
         <th>Median</th><th>90 %</th></tr>\n"
    );
    for Row { name, figures: f } in rows {
        let cells = [
            f.downloads.to_string(),
            f.completed.to_string(),
            f.failed.to_string(),
            f.cancelled.to_string(),
            f.unfinished.saturating_add(f.unreported).to_string(),
            bytes(f.edge_bytes),
            bytes(f.peer_bytes),
            plain(f),
            efficiency(f),
            speed(f.speed.p10),
            speed(f.speed.p50),
            speed(f.speed.p90),
        ];
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        text += &format!("<tr><td>{}</td>{cells}</tr>\n", escaped(name));
    }
    text + "</table></div>\n"
}

/// Escapes untrusted text (publishers choose paths) for HTML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_write_html() {
        assert_eq!(escaped("<b onclick='x'>&\""), "&lt;b onclick=&#39;x&#39;&gt;&amp;&quot;");
    }

    #[test]
    fn the_top_of_an_axis_is_round_and_high_enough() {
        for (n, top) in [(0, 2), (1, 2), (3, 4), (7, 8), (9, 10), (11, 20), (81, 100), (100, 100), (1_234, 2_000)] {
            assert_eq!(round_up(n), top);
        }
        assert!(round_up(u64::MAX) >= 1 << 63);
    }

    #[test]
    fn axis_labels_have_exact_values_and_days_show_the_year_once() {
        let texts = |svg: &str| -> Vec<String> {
            let text = |part: &str| part.split(['>', '<']).nth(1).expect("a label").to_owned();
            svg.split("<text").skip(1).map(text).collect()
        };
        for (most, labels) in
            [(1, ["0", "1", "2"]), (3, ["0", "2", "4"]), (5, ["0", "3", "6"]), (70, ["0", "40", "80"])]
        {
            let svg = bars("", &[("AS1", vec![most])], |n| n.to_string());
            assert_eq!(texts(&svg)[..3], labels, "{most}");
        }
        let days = ["2026-12-30", "2026-12-31", "2027-01-01"].map(|day| (day, vec![1]));
        assert_eq!(texts(&bars("", &days, |n| n.to_string()))[3..], ["2026-12-30", "12-31", "2027-01-01"]);
    }

    #[test]
    fn the_parts_of_a_bar_leave_no_gap_and_stay_inside() {
        let svg = bars("Ends", &[("2026-11-22", vec![2, 2, 2]), ("2026-11-23", vec![0, 0, 0])], |n| n.to_string());
        assert_eq!(svg.matches("<rect").count(), 3);
        assert_eq!(svg.matches("height=\"60\"").count(), 3);
        assert!(svg.contains("aria-label=\"Ends\""), "{svg}");
        assert_eq!(scaled(u64::MAX, 1), HEIGHT);
    }
}
