//! Opens the HTML reports in a browser without a window, and measures what it shows.

use super::tests::of_names;
use super::{balance_html, html};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use swarmedge_ledger::balance::{Balance, Flow, Network};
use swarmedge_ledger::report::{Figures, Report, Row, Speeds};

/// Programs that are the browser, in the order in which they are tried.
const BROWSERS: [&str; 4] = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
/// Script that writes into the page's title: by how much the page is wider than the window, the height of the highest
/// row of a table in lines of text, the width of the narrowest first column, the number of tables, and by how much the
/// widest of them is wider than its place.
const MEASURE: &str = "<script>onload=()=>{const all=q=>[...document.querySelectorAll(q)];\
    const line=parseFloat(getComputedStyle(document.querySelector('td')).lineHeight);\
    const rows=all('tr').map(r=>r.getBoundingClientRect().height/line);\
    const first=all('td:first-child').map(d=>d.getBoundingClientRect().width);\
    const page=document.documentElement;\
    document.title=['measured',page.scrollWidth-innerWidth,Math.max(...rows),Math.min(...first),all('table').length,\
    Math.max(...all('.wide').map(w=>w.scrollWidth-w.clientWidth))]\
    .join(' ')}</script>";

/// Measures of a page as the browser lays it out.
#[derive(Debug)]
struct Shown {
    /// Pixels by which the page is wider than the window.
    too_wide: f64,
    /// Height of the highest row of a table, in lines of text.
    row_lines: f64,
    /// Width of the narrowest cell in a first column, in pixels.
    first_width: f64,
    tables: f64,
    /// Pixels of the widest table or plot that are seen only after scrolling it.
    hidden: f64,
}

/// Returns the browser's name; without one, reports that the test is skipped.
fn browser() -> Option<&'static str> {
    let starts = |name: &&&str| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let found = BROWSERS.iter().find(starts).copied();
    if found.is_none() {
        assert!(std::env::var_os("SWARMEDGE_REQUIRE_ALL").is_none(), "needed for this test: chromium");
        // not `eprintln!`, which the harness shows for failing tests only
        let line = b"SKIPPED: chromium is not installed (`.ci/run tools` installs it), no report was looked at\n";
        let _ = std::io::stderr().write_all(line);
    }
    found
}

/// Opens a page in a window of this width, and measures it.
fn show(browser: &str, dir: &Path, page: &str, width: u32) -> Shown {
    // in a frame, since a window cannot be made as narrow as a telephone
    let frame = format!(
        "<!doctype html><iframe id=f style='border:0;width:{width}px;height:900px' srcdoc='{}'></iframe>\
        <script>f.onload=()=>setTimeout(()=>document.title=f.contentDocument.title,300)</script>",
        escaped(page)
    );
    let outer = dir.join("frame.html");
    std::fs::write(&outer, frame).expect("writes");
    let out = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--window-size=1400,1000"])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", outer.display()))
        .output()
        .expect("the browser starts");
    let dom = String::from_utf8_lossy(&out.stdout);
    let title = dom.split("<title>measured ").nth(1).and_then(|rest| rest.split("</title>").next());
    let title = title.unwrap_or_else(|| panic!("nothing is measured: {dom}\n{}", String::from_utf8_lossy(&out.stderr)));
    let figures: Vec<f64> = title.split(' ').map(|n| n.parse().expect("a number")).collect();
    let [too_wide, row_lines, first_width, tables, hidden] = figures[..] else { panic!("five figures: {title}") };
    Shown { too_wide, row_lines, first_width, tables, hidden }
}

/// Escapes a page for an attribute, with the script that measures it.
fn escaped(page: &str) -> String {
    let page = page.replace("</body>", &format!("{MEASURE}</body>"));
    page.replace('&', "&amp;").replace('\'', "&#39;")
}

/// Returns a report with figures of every length, and names as publishers choose them.
fn report() -> Report {
    let speed = Speeds { downloads: 9, p10: Some(1_234_567), p50: Some(123_456_789), p90: Some(999_949_999) };
    let figures = Figures {
        downloads: 1_234_567,
        completed: 1_200_000,
        failed: 34_567,
        cancelled: 12,
        edge_bytes: 999_940_000_000_000,
        peer_bytes: 123_456_789_012,
        speed,
        ..Figures::default()
    };
    let row = |name: String| Row { name, figures: figures.clone() };
    let long = "games/some-studio/a-rather-long-title/releases/1.4.2/windows/installer-x64.iso";
    let mut report = of_names("2026-11-01", long);
    report.totals = Figures { causes: [("disk", 1), ("network", 2)].into(), ..figures.clone() };
    report.days = (1..=30).map(|day| row(format!("2026-11-{day:02}"))).collect();
    report.objects = ["a.iso", long, &"x".repeat(120)].map(|name| row(name.into())).into();
    report.countries = ["DE", "unknown"].map(|name| row(name.into())).into();
    report.networks = ["AS4294967295", "unknown"].map(|name| row(name.into())).into();
    report
}

fn balance() -> Balance {
    let names: Vec<String> = (0..14).map(|n| format!("AS{}", 4_294_967_281_u32 + n)).collect();
    let network = |name: &String| Network {
        name: name.clone(),
        countries: ["DE", "FR", "NL"].map(String::from).into(),
        sent_bytes: 123_456_789_012,
        received_bytes: 999_940_000_000,
        inside_bytes: 1,
        edge_bytes: 2,
    };
    let flows = names.iter().zip(names.iter().rev());
    Balance {
        from: "2026-11-01".into(),
        to: "2026-11-30".into(),
        provider: None,
        peer_bytes: 999_940_000_000,
        inside_bytes: 5,
        networks: names.iter().map(network).collect(),
        flows: flows.map(|(from, to)| Flow { from: from.clone(), to: to.clone(), bytes: 123_456_789_012 }).collect(),
    }
}

#[test]
fn the_reports_tables_can_be_read_on_a_telephone_and_on_a_desk() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let pages = [html::of(&report()).expect("a page"), balance_html::of(&balance()).expect("a page")];
    if let Some(keep) = std::env::var_os("SWARMEDGE_REPORTS") {
        for (name, page) in ["report.html", "balance.html"].iter().zip(&pages) {
            std::fs::write(Path::new(&keep).join(name), page).expect("writes");
        }
    }
    // the matrix of many networks is wider than a desk
    for (page, tables, hidden_max) in [(&pages[0], 5.0, 0.0), (&pages[1], 3.0, 2000.0)] {
        for width in [360, 1280] {
            let shown = show(browser, dir.path(), page, width);
            assert_eq!(shown.tables, tables, "{shown:?}");
            assert!(shown.too_wide <= 0.0, "{width} px: tables scroll, the page does not: {shown:?}");
            let lines_max = if width == 360 { 10.0 } else { 6.0 };
            assert!(shown.row_lines <= lines_max, "{width} px: {shown:?}");
            assert!(shown.first_width >= 100.0, "{width} px: {shown:?}");
            assert!(width == 360 || shown.hidden <= hidden_max, "{width} px: a column is cut off: {shown:?}");
        }
    }
}
