//! Tests of content that rots or is cut on the disk of a running edge, and of health and metrics of running servers.

use super::crew::{Running, deployment, text};
use super::gets::Cdn;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use swarmedge_cli::init::Deployment;
use swarmedge_ground::http::{Body, Client, Origin};
use swarmedge_ground::rt::Start;
use swarmedge_ground::tls::client_config;

/// Time-out of each wait, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(180);
const LEN: usize = 3_000_000;
const PIECE: usize = 65_536;

/// An answer of the edge: status, the bytes that came, and whether these are all.
struct Came {
    status: u16,
    bytes: Vec<u8>,
    whole: bool,
}

/// Requests a path of the edge over HTTPS, as any HTTP client does.
fn get<R: Start>(made: &Deployment, path: &str, range: &str) -> Came {
    let (ca, origin) = (fs::read_to_string(&made.ca).expect("made"), Origin::parse(&made.edge_url).expect("a URL"));
    let (path, range) = (path.to_owned(), range.to_owned());
    R::block_on(move |rt: R| async move {
        let client = Client::new(rt, client_config(&ca, None).expect("a CA"));
        let request = || {
            let get = hyper::Request::get(&path);
            let get = if range.is_empty() { get } else { get.header("range", format!("bytes={range}")) };
            get.body(Body::empty()).expect("a request")
        };
        let mut answer = client.send(&origin, request).await.expect("answered");
        let mut came = Came { status: answer.head.status.as_u16(), bytes: Vec::new(), whole: true };
        while let Some(chunk) = answer.chunk().await {
            match chunk {
                Ok(bytes) => came.bytes.extend_from_slice(&bytes),
                Err(_) => {
                    came.whole = false;
                    break;
                }
            }
        }
        came
    })
}

/// Returns status and body of an answer over plain HTTP; status 0 if there is none.
fn ask(port: u16, path: &str) -> (u16, String) {
    let asked = || -> std::io::Result<String> {
        let mut tcp = TcpStream::connect(("127.0.0.1", port))?;
        write!(tcp, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = asked().unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0), body.to_owned())
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "not seen: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the edge of a deployment serves.
fn until_served(cdn: &Cdn) {
    until("the servers", || ask(cdn.made.ports.ops[4], "/livez").0 == 200);
}

/// Returns the only stored content file.
fn stored(cdn: &Cdn) -> PathBuf {
    let mut entries = fs::read_dir(cdn.at("cdn/edge/objects/content")).expect("there");
    entries.next().expect("one is published").expect("an entry").path()
}

/// Returns the edge's health without what it says of this machine's disk.
fn health(cdn: &Cdn) -> (u16, String) {
    let (status, told) = ask(cdn.made.ports.ops[4], "/healthz");
    let told = told.lines().filter(|line| !line.contains("'s disk")).map(|line| format!("{line}\n"));
    (status, told.collect())
}

/// A byte of a stored file rots under a running edge: nobody gets it, what is right is served, and a download ends well
/// once the same file is published again.
#[test]
fn rot_is_served_to_nobody_and_mended_by_publishing_again() {
    let cdn = Cdn::start_at("127.0.0.1");
    until_served(&cdn);
    let all = cdn.publish("film", LEN);
    let at = 20 * PIECE + 5;
    let file = File::options().read(true).write(true).open(stored(&cdn)).expect("there");
    file.write_all_at(&[all[at] ^ 1], at as u64).expect("written");
    let came = get::<crate::Rt>(&cdn.made, "/1/film", "");
    assert!(!came.whole || came.status == 503, "{} bytes with status {}", came.bytes.len(), came.status);
    assert!(came.status == 503 || came.bytes.len() <= 20 * PIECE && all.starts_with(&came.bytes), "nothing wrong came");
    let rotten = get::<crate::Rt>(&cdn.made, "/1/film", &format!("{at}-{at}"));
    let why = String::from_utf8_lossy(&rotten.bytes).into_owned();
    assert!(rotten.status == 503 && why.contains("content-damaged"), "{}: {why}", rotten.status);
    let right = get::<crate::Rt>(&cdn.made, "/1/film", &format!("{}-", 21 * PIECE));
    assert!(right.status == 206 && right.bytes == all[21 * PIECE..], "{}", right.status);
    let (status, told) = health(&cdn);
    assert!(status == 200 && told.contains("1/film") && told.contains("piece 20 "), "{status} {told}");
    let metrics = ask(cdn.made.ports.ops[4], "/metrics").1;
    assert!(metrics.contains("\nswarmedge_edge_objects_damaged 1\n"), "{metrics}");
    assert!(cdn.said("servers").contains("stored content is damaged"), "{}", cdn.said("servers"));

    let mut download = cdn.get_with("film", "out", &[]);
    let whole_pieces = LEN as u64 - PIECE as u64;
    cdn.until("all but the rotten piece", |status| status.downloads.iter().any(|d| d.durable_bytes >= whole_pieces));
    assert_eq!(cdn.publish("film", LEN), all);
    cdn.ends_well(&mut download, "out", &all);
    until("health", || health(&cdn).1 == "ok\n");
}

/// A stored file is cut: every answer is 503 before it begins, with one log line, and publishing again repairs it.
#[test]
fn a_cut_file_is_refused_with_one_line_and_mended_by_publishing_again() {
    let cdn = Cdn::start_at("127.0.0.1");
    until_served(&cdn);
    let all = cdn.publish("film", LEN);
    let ask = || get::<crate::Rt>(&cdn.made, "/1/film", "0-9");
    assert_eq!(ask().status, 206);
    File::options().write(true).open(stored(&cdn)).and_then(|file| file.set_len(1_000)).expect("cut");
    for _ in 0..10 {
        assert_eq!(ask().status, 503);
    }
    let (status, told) = health(&cdn);
    assert!(status == 200 && told.contains("1000 bytes instead of 3000000"), "{status} {told}");
    assert_eq!(cdn.said("servers").matches("stored content is damaged").count(), 1, "{}", cdn.said("servers"));
    cdn.publish("film", LEN);
    assert_eq!(ask().bytes, all[..10]);
    until("health", || health(&cdn).1 == "ok\n");
}

/// The edge's public port tells its own health in words, and no metrics; a CN without a DN is not ready, and the edge
/// beside it is.
#[test]
fn each_role_tells_its_health_and_strangers_learn_no_more_than_words() {
    let (dir, made) = deployment();
    let config = text(&made.config);
    let log = File::create(dir.path().join("log")).expect("made");
    let mut servers = Running::start(&["serve", "--roles", "edge,cn,stun", "--config", &config], log.into());
    let [cn, _, stun, _, edge] = made.ports.ops;
    servers.wait_until(|| [cn, stun, edge].iter().all(|port| ask(*port, "/livez").0 == 200));
    until("a CN without a DN", || ask(cn, "/healthz").0 == 503);
    let (_, told) = ask(cn, "/healthz");
    let dn = format!("warning: cn's link to the DN at 127.0.0.1:{}", made.ports.dn);
    for part in ["CN's introductions: no DN is connected", "warning: edge's link to the ledger: ", &dn] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let json = ask(cn, "/healthz?json").1;
    assert!(json.contains(r#""ready":false"#) && json.contains(r#""cause":"link-down""#), "{json}");
    for port in [cn, stun, edge] {
        let metrics = ask(port, "/metrics").1;
        assert!(metrics.contains("swarmedge_link_up{server=\"edge\",to=\"the ledger\"} 0"), "{metrics}");
    }
    let public = |path: &str| {
        let came = get::<crate::Rt>(&made, path, "");
        (came.status, String::from_utf8_lossy(&came.bytes).into_owned())
    };
    let (status, told) = public("/healthz");
    assert!(status == 200 && told.contains("warning: edge's link to the ledger: no connection\n"), "{status} {told}");
    assert!(!told.contains("cn") && !told.contains("127.0.0.1"), "{told}");
    assert_eq!((public("/metrics").0, public("/livez")), (404, (200, "ok\n".to_owned())));
    assert_eq!(servers.stop().code(), Some(0));
}
