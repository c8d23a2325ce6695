//! A report as one HTML file: no script, nothing loaded from anywhere, plots as inline SVG. The templates escape all
//! that they are given, since publishers choose paths.

use super::plot::{Heading, Plot, bars, speeds};
use super::text::{efficiency, is_located, plain, speed};
use askama::Template;
use swarmedge_ground::error::Error;
use swarmedge_ground::terminal::units::{bytes, percent};
use swarmedge_ledger::report::{Figures, Report, Row};

/// Most rows of a table; CSV and JSON have all.
pub(super) const ROWS_MAX: usize = 100;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    heading: String,
    span: String,
    report: &'a Report,
    tiles: [Tile; 4],
    plots: [Plot; 3],
    /// Causes of failures, most frequent first.
    causes: Vec<(&'static str, u64)>,
    tables: Vec<Table<'a>>,
}

/// A large figure on the page, with a label above and a detail below.
pub(super) struct Tile {
    pub(super) figure: String,
    pub(super) what: &'static str,
    pub(super) more: String,
}

/// A table of figures.
struct Table<'a> {
    title: &'static str,
    what: &'static str,
    rows: Vec<(&'a str, [String; 12])>,
}

pub(super) fn of(r: &Report) -> Result<String, Error> {
    let mut causes: Vec<(&str, u64)> = r.totals.causes.iter().map(|(cause, n)| (*cause, *n)).collect();
    causes.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let mut tables = vec![table("By day", "Day", &r.days), table("By object", "Object", most(&r.objects))];
    let places = [("By country", "Country", &r.countries), ("By network", "Network", &r.networks)];
    let places = places.into_iter().filter(|(_, _, rows)| is_located(rows));
    tables.extend(places.map(|(title, what, rows)| table(title, what, most(rows))));
    rendered(&Page {
        heading: format!("Provider {}", r.provider),
        span: format!("{} to {}", r.from, r.to),
        report: r,
        tiles: tiles(r),
        plots: plots(r),
        causes,
        tables,
    })
}

/// Returns a page's whole HTML.
pub(super) fn rendered(page: &impl Template) -> Result<String, Error> {
    let html = page.render().map(|html| html + "\n");
    html.map_err(|e| Error::failed(format!("cannot write this as HTML: {e}")))
}

/// Returns the rows that a table shows.
pub(super) fn most<T>(rows: &[T]) -> &[T] {
    &rows[..rows.len().min(ROWS_MAX)]
}

fn tiles(r: &Report) -> [Tile; 4] {
    let t = &r.totals;
    let with_peers = &r.speed_with_peers;
    let all = t.edge_bytes.saturating_add(t.peer_bytes).saturating_add(t.plain());
    let completed = percent(t.completed, t.downloads);
    let median = format!("with peers {} of {} downloads", speed(with_peers.p50), with_peers.downloads);
    [
        Tile { figure: t.downloads.to_string(), what: "Downloads", more: format!("{completed} completed") },
        Tile { figure: bytes(all), what: "Delivered", more: format!("{} plain HTTPS", bytes(t.plain())) },
        Tile { figure: efficiency(t), what: "Peer efficiency", more: format!("{} from peers", bytes(t.peer_bytes)) },
        Tile { figure: speed(t.speed.p50), what: "Median speed", more: median },
    ]
}

fn plots(r: &Report) -> [Plot; 3] {
    let stack = |of: fn(&Figures) -> Vec<u64>| -> Vec<(&str, Vec<u64>)> {
        r.days.iter().map(|row| (&row.name[..], of(&row.figures))).collect()
    };
    let delivered = Heading {
        title: "Bytes delivered by day",
        what: "Bytes delivered by day, from peers, from edges and by plain HTTPS",
        keys: &["peers", "edges", "plain HTTPS"],
    };
    let ends = Heading {
        title: "Downloads by day",
        what: "Downloads by day and by how they ended",
        keys: &["completed", "cancelled", "failed", "no end reported"],
    };
    let speed = Heading {
        title: "Speed of completed downloads by day",
        what: "Speed of completed downloads by day",
        keys: &["median", "10 % to 90 %"],
    };
    let by_end = |f: &Figures| vec![f.completed, f.cancelled, f.failed, f.unfinished.saturating_add(f.unreported)];
    [
        bars(&delivered, &stack(|f| vec![f.peer_bytes, f.edge_bytes, f.plain()]), bytes),
        bars(&ends, &stack(by_end), |n| n.to_string()),
        speeds(&speed, &r.days),
    ]
}

/// Returns a table of the report's page.
fn table<'a>(title: &'static str, what: &'static str, rows: &'a [Row]) -> Table<'a> {
    let cells = |f: &Figures| {
        [
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
        ]
    };
    Table { title, what, rows: rows.iter().map(|row| (&row.name[..], cells(&row.figures))).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::of_names;

    #[test]
    fn no_name_can_write_html() {
        let hostile = "<b onclick='x'>&\"</text><script>";
        let mut report = of_names(hostile, hostile);
        report.countries = report.objects.clone();
        report.networks = report.objects.clone();
        report.unknown = vec![hostile.into()];
        let day = &mut report.days[0].figures;
        (day.peer_bytes, day.completed) = (9, 9);
        day.speed = swarmedge_ledger::report::Speeds { downloads: 9, p10: Some(1), p50: Some(2), p90: Some(3) };
        let page = of(&report).expect("a page");
        for raw in ["<b onclick", "<script", "onclick='", "&\"<"] {
            assert!(!page.contains(raw), "{raw} in {page}");
        }
        let escaped = "&#60;b onclick=&#39;x&#39;&#62;&#38;&#34;&#60;/text&#62;&#60;script&#62;";
        assert!(page.matches(escaped).count() > 9, "{page}");
    }

    #[test]
    fn a_page_is_whole_and_says_what_is_not_known() {
        let mut report = of_names("2026-11-22", "a/b.iso");
        report.unknown = vec!["why".into()];
        report.totals.causes = [("disk", 1), ("network", 2)].into();
        let page = of(&report).expect("a page");
        assert!(page.starts_with("<!doctype html>\n<html") && page.ends_with("</body></html>\n"), "{page}");
        assert!(page.contains("<title>Provider 1: 2026-11-22 to 2026-11-22</title>"), "{page}");
        assert!(page.contains("<p>Not known: why.</p>") && page.contains("figures may still change"), "{page}");
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(!page.contains("By country"), "{page}");
        let (network, disk) = (page.find("<td>network</td><td>2</td>"), page.find("<td>disk</td><td>1</td>"));
        assert!(network.is_some() && network < disk, "{page}");
        report.final_up_to = Some("2026-11-22".into());
        assert!(of(&report).expect("a page").contains("Final up to 2026-11-22: these figures are signed"));
    }
}
