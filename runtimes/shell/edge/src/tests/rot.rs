//! Content that has rotted or was cut on the disk of a running edge.

use super::super::catalogue::Files;
use super::*;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const PIECE: usize = 65_536;
/// Time-out of each wait, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts an edge that reads stored content again at this rate.
fn start(scrub_rate: u64) -> Lab {
    Lab::start(|cfg| {
        cfg.scrub_rate = Rate(scrub_rate);
        cfg.ops = Some(free_port());
    })
}

/// Changes a byte of a file.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "not seen: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Lab {
    /// Returns what curl gets of an answer that may break off; `None` where curl is not installed.
    fn curl_what_comes(&self, path: &str) -> Option<(bool, Vec<u8>)> {
        let body = self.dir.path().join("body");
        let _ = std::fs::remove_file(&body);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--cacert"]).arg(&self.cfg.ca).arg("-o").arg(&body).arg(self.url(path));
        let Ok(out) = curl.output() else { return skip("curl") };
        Some((out.status.success(), std::fs::read(body).unwrap_or_default()))
    }

    fn health(&self) -> String {
        without_disk(&get_plain(self.cfg.ops.expect("configured"), "/healthz").1)
    }
}

/// Rule: no byte of a piece whose hash fails leaves the edge, and what is right does.
#[test]
fn a_rotten_piece_alone_is_refused_until_it_is_published_again() {
    let lab = start(0);
    let all = bytes(200_000);
    let version = lab.publish("a", &all, Policy::default());
    let content = Files::new(&lab.cfg.objects).content(version);
    let Some(whole) = lab.curl_what_comes("/7/a") else { return };
    assert!(whole == (true, all.clone()));
    flip(&content, 70_000);
    let (success, begin) = lab.curl_what_comes("/7/a").expect("curl is there");
    let right = begin.len() <= PIECE && all.starts_with(&begin);
    assert!(!success && right, "it breaks off before the rotten piece: {} bytes", begin.len());
    let range = |asked: &str| lab.curl("/7/a", &["-r", asked]).expect("curl is there");
    for (asked, right) in [("0-65535", 0..PIECE), ("131072-", 2 * PIECE..200_000)] {
        let (status, head, body) = range(asked);
        assert!(status == 206 && body == all[right], "{asked}");
        assert!(head.contains("repr-digest"), "of the right content: {head}");
    }
    for asked in ["65536-65536", "0-", "131071-131072"] {
        let (status, head, body) = range(asked);
        let body = String::from_utf8_lossy(&body);
        assert!(status == 503 && head.contains("retry-after: 30"), "{asked}: {status} {head}");
        assert!(body.contains("urn:swarmedge:problem:content-damaged"), "{body}");
    }
    assert_eq!(lab.curl("/7/a", &["-I"]).expect("curl is there").0, 503);
    let told = lab.health();
    assert!(told.starts_with("ok\nwarning: edge's content: 7/a (version ") && told.contains("piece 1 "), "{told}");
    let (status, _, strangers) = lab.curl("/healthz", &[]).expect("curl is there");
    let strangers = without_disk(&String::from_utf8_lossy(&strangers));
    assert_eq!((status, &strangers[..]), (200, "ok\nwarning: edge's content: stored content is damaged\n"));
    assert_eq!(lab.publish("a", &all, Policy::default()), version);
    assert!(lab.curl_what_comes("/7/a").expect("curl is there") == (true, all));
    until("health", || lab.health() == "ok\n");
}

/// Rule: content of another length is refused before the answer begins, and nothing breaks off.
#[test]
fn a_cut_file_is_503_until_it_is_published_again() {
    let lab = start(0);
    let all = bytes(200_000);
    let version = lab.publish("a", &all, Policy::default());
    let content = Files::new(&lab.cfg.objects).content(version);
    let status = |args: &[&str]| lab.curl("/7/a", args).map(|(status, ..)| status);
    let Some(before) = status(&[]) else { return };
    assert_eq!(before, 200);
    File::options().write(true).open(&content).and_then(|file| file.set_len(100_000)).expect("cut");
    for args in [&[][..], &["-r", "0-5"], &["-I"]] {
        assert_eq!(status(args), Some(503), "{args:?}");
    }
    let told = lab.health();
    assert!(told.contains("7/a") && told.contains("100000 bytes instead of 200000"), "{told}");
    lab.publish("a", &all, Policy::default());
    assert_eq!(status(&[]), Some(200));
    until("health", || lab.health() == "ok\n");
}

/// Rule: the edge repairs what another copy of the same bytes has.
#[test]
fn damaged_content_is_repaired_from_another_copy() {
    let lab = start(0);
    let all = bytes(200_000);
    let version = lab.publish("a", &all, Policy::default());
    lab.publish("b/copy", &all, Policy::default());
    let content = Files::new(&lab.cfg.objects).content(version);
    let get = || lab.curl_what_comes("/7/a");
    flip(&content, 70_000);
    let Some((success, _)) = get() else { return };
    assert!(!success, "a piece is rotten");
    until("repaired", || std::fs::read(&content).expect("there") == all);
    until("health", || lab.health() == "ok\n");
    assert!(get().expect("curl is there") == (true, all.clone()));
    File::options().write(true).open(&content).and_then(|file| file.set_len(100_000)).expect("cut");
    assert!(!get().expect("curl is there").0);
    until("repaired", || get().expect("curl is there") == (true, all.clone()));
    std::fs::remove_file(&content).expect("removed");
    assert!(!get().expect("curl is there").0);
    until("repaired", || get().expect("curl is there") == (true, all.clone()));
    until("health", || lab.health() == "ok\n");
}

/// Rule: an object of which most is the same has the pieces too, wherever it is kept.
#[test]
fn a_piece_is_repaired_from_an_old_version() {
    let lab = start(0);
    let (old, mut new) = (bytes(200_000), bytes(200_000));
    new[0] ^= 1;
    lab.publish("a", &old, Policy::default());
    let version = lab.publish("a", &new, Policy::default());
    let content = Files::new(&lab.cfg.objects).content(version);
    flip(&content, 199_999);
    let Some((status, ..)) = lab.curl("/7/a", &["-r", "-1"]) else { return };
    assert_eq!(status, 503);
    until("repaired", || std::fs::read(&content).expect("there") == new);
    flip(&content, 5);
    assert_eq!(lab.curl("/7/a", &["-r", "0-0"]).expect("curl is there").0, 503);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(lab.curl("/7/a", &["-r", "0-0"]).expect("curl is there").0, 503, "no other copy has this piece");
}

/// Rule: rot is found before anybody asks for the object.
#[test]
fn the_scrub_finds_what_nobody_asks_for() {
    let lab = start(10_000_000_000);
    let version = lab.publish("a", &bytes(200_000), Policy::default());
    let other = lab.publish("b", &bytes(100_000), Policy::default());
    until("read", || {
        get_plain(lab.cfg.ops.expect("configured"), "/metrics").1.contains("swarmedge_edge_scrubbed_bytes")
    });
    assert_eq!(lab.health(), "ok\n");
    let files = Files::new(&lab.cfg.objects);
    flip(&files.content(version), 150_000);
    File::options().write(true).open(files.content(other)).and_then(|file| file.set_len(9)).expect("cut");
    until("found", || {
        let told = lab.health();
        told.contains("7/a (") && told.contains("in piece 2") && told.contains("9 bytes instead of 100000")
    });
}

#[test]
fn metrics_are_the_operators_alone() {
    let lab = start(0);
    lab.publish("a", b"x", Policy::default());
    let Some((status, ..)) = lab.curl("/metrics", &[]) else { return };
    assert_eq!(status, 404);
    assert_eq!(lab.curl("/7/a", &[]).expect("curl is there").0, 200);
    let ops = lab.cfg.ops.expect("configured");
    let metrics = || get_plain(ops, "/metrics").1;
    for line in [
        "swarmedge_edge_requests_total{status=\"2xx\"}",
        "swarmedge_edge_requests_total{status=\"4xx\"}",
        "swarmedge_edge_sent_bytes_total",
        "swarmedge_connections{server=\"https\"}",
        "swarmedge_disk_left_bytes{part=\"edge's disk\"}",
    ] {
        until(line, || metrics().contains(line));
    }
    assert_eq!((get_plain(ops, "/livez"), get_plain(ops, "/7/a").0), ((200, "ok\n".to_owned()), 404));
    let (status, _, body) = lab.curl("/livez", &[]).expect("curl is there");
    assert_eq!((status, &body[..]), (200, &b"ok\n"[..]));
    let (_, head, body) = lab.curl("/healthz?json", &[]).expect("curl is there");
    let body = String::from_utf8_lossy(&body);
    assert!(head.contains("application/json") && body.starts_with(r#"{"ready":true,"reasons":["#), "{body}");
}
