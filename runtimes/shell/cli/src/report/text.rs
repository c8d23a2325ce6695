//! A report as text for a terminal.

use swarmedge_ground::terminal::units::{bytes, percent};
use swarmedge_ledger::report::{Figures, Report, Row, Speeds};

/// Most objects, countries and networks in a table; CSV and JSON have all.
const OBJECTS_MAX: usize = 20;

pub(super) fn of(report: &Report) -> String {
    let t = &report.totals;
    let mut text = format!("provider {}, {} to {} (UTC)\n", report.provider, report.from, report.to);
    text += &match &report.final_up_to {
        Some(day) => format!("final up to {day}; `audit` can prove it\n\n"),
        None => "no day of this span is closed: figures may still change\n\n".to_owned(),
    };
    text += &format!(
        "downloads  {} started: {} completed ({}), {} failed, {} cancelled, {} without an end, {} never reported\n",
        t.downloads,
        t.completed,
        percent(t.completed, t.downloads),
        t.failed,
        t.cancelled,
        t.unfinished,
        t.unreported
    );
    let causes: Vec<String> = t.causes.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
    if !causes.is_empty() {
        text += &format!("failures   {}\n", causes.join(", "));
    }
    text += &format!(
        "bytes      {} from edges, {} from peers, {} plain HTTPS; {} claimed and not billed\n",
        bytes(t.edge_bytes),
        bytes(t.peer_bytes),
        bytes(t.plain()),
        bytes(t.flagged_bytes)
    );
    text += &format!("peers      delivered {} of the clients' bytes\n", efficiency(t));
    text += &format!("speed      with peers {}\n", speeds(&report.speed_with_peers));
    text += &format!("           edge only  {}\n", speeds(&report.speed_edge_only));
    let q = report.quarantine;
    if q.downloads > 0 {
        text += &format!("quarantine {} downloads of {} clients, from edges alone\n", q.downloads, q.clients);
    }
    for unknown in &report.unknown {
        text += &format!("unknown    {unknown}\n");
    }
    text += &table("day", &report.days);
    text += &table("object", &report.objects[..report.objects.len().min(OBJECTS_MAX)]);
    let places = [("country", &report.countries), ("network", &report.networks)];
    for (what, rows) in places.into_iter().filter(|(_, rows)| is_located(rows)) {
        text += &table(what, &rows[..rows.len().min(OBJECTS_MAX)]);
    }
    if report.objects.len() > OBJECTS_MAX {
        text += &format!("{} more objects: --format csv shows all\n", report.objects.len() - OBJECTS_MAX);
    }
    text
}

/// Returns whether any of these rows has a known country or network.
pub(super) fn is_located(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.name != "unknown")
}

/// Formats the peer efficiency (share of clients' bytes that peers delivered) as `71.4 %`, or `-` if there are no
/// bytes.
pub(super) fn efficiency(f: &Figures) -> String {
    f.peer_efficiency_permille.map_or_else(|| "-".into(), |p| format!("{}.{} %", p / 10, p % 10))
}

/// Formats the bytes of plain HTTPS, or `-` if unknown.
pub(super) fn plain(f: &Figures) -> String {
    f.plain_bytes.map_or_else(|| "-".into(), bytes)
}

/// Formats a percentile of speed as `12.3 MB/s`, or `-`.
pub(super) fn speed(per_second: Option<u64>) -> String {
    per_second.map_or_else(|| "-".into(), |s| format!("{}/s", bytes(s)))
}

fn speeds(s: &Speeds) -> String {
    if s.downloads == 0 {
        return "no completed download".into();
    }
    let [p10, p50, p90] = [s.p10, s.p50, s.p90].map(speed);
    format!("{p50} median, {p10} to {p90} for the middle 80 % of {} downloads", s.downloads)
}

fn table(what: &str, rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let width = rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0).clamp(10, 40);
    let mut text = format!(
        "\n{what:width$}  started completed  failed cancelled  no end       edge      peers      plain  peers %      median\n"
    );
    for Row { name, figures: f } in rows {
        text += &format!(
            "{name:width$} {:>8} {:>9} {:>7} {:>9} {:>7} {:>10} {:>10} {:>10} {:>8} {:>11}\n",
            f.downloads,
            f.completed,
            f.failed,
            f.cancelled,
            f.unfinished.saturating_add(f.unreported),
            bytes(f.edge_bytes),
            bytes(f.peer_bytes),
            plain(f),
            efficiency(f),
            speed(f.speed.p50)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_billed_bytes_stand_below_their_headings() {
        let figures = Figures { plain_bytes: Some(7_000), edge_bytes: 5, ..Figures::default() };
        let text = table("day", &[Row { name: "2026-11-22".into(), figures }, Row::default()]);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let end = lines[0].find("plain").expect("a column") + "plain".len();
        assert_eq!((lines[1][..end].ends_with("7.0 kB"), lines[2][..end].ends_with(" -")), (true, true), "{text}");
    }
}
