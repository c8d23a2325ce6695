//! The edge over HTTPS: real curl against a real server on loopback.

use super::config::tests::minimal;
use super::{EdgeConfig, Publish, open, publish};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use swarmedge_core::accounting::certs::KnownCerts;
use swarmedge_core::accounting::{Trust, tickets};
use swarmedge_core::content::{Access, Policy};
use swarmedge_core::ids::{Guid, ProviderId, VersionId};
use swarmedge_core::wire::Text;
use swarmedge_core::wire::records::{CertBody, LedgerRecord, ServerRole, SigningContext};
use swarmedge_ground::edge_api::{
    GRANT, GRANTS_PATH, GrantReply, GrantRequest, SIGNATURE, parse_ticket, signature_text, signed_message,
};
use swarmedge_ground::health::Health;
use swarmedge_ground::host::unix_ms;
use swarmedge_ground::http::Signal;
use swarmedge_ground::keys::{Key, SealKey, SealRing, certify, save_cert, verify};
use swarmedge_ground::rt::{Rt as _, Start as _};
use swarmedge_ground::spool::Spool;
use swarmedge_ground::terminal::units::Rate;
use swarmedge_ground::tls::CertAuthority;
use swarmedge_smol::Smol as TestRt;

mod access;
mod paths;
mod possession;
mod rot;

/// A running edge and its published objects.
pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) addr: SocketAddr,
    pub(crate) cfg: EdgeConfig,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lab {
    /// Starts an edge with fresh keys; `change` edits its configuration first.
    pub(crate) fn start(change: impl FnOnce(&mut EdgeConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let root = Key::generate();
        let key = Key::generate();
        let body = CertBody {
            role: ServerRole::Edge,
            name: Text::new("edge-1").expect("short"),
            key: key.public(),
            not_before_ms: 0,
            not_after_ms: unix_ms() + 3_600_000,
        };
        key.save(&at("edge.key")).expect("saved");
        save_cert(&at("edge.cert"), &certify(&root, body)).expect("saved");
        SealRing::of(SealKey::generate(1)).save(&at("seal.key")).expect("saved");
        let ca = CertAuthority::new().expect("a CA");
        let (cert, tls_key) = ca.issue(&["localhost", "127.0.0.1"]).expect("a certificate");
        for (name, text) in [("ca.pem", ca.cert_pem()), ("cert.pem", cert.as_str()), ("key.pem", tls_key.as_str())] {
            std::fs::write(at(name), text).expect("written");
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let mut cfg = EdgeConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], port)),
            url: format!("https://localhost:{port}"),
            root: root.public().to_string(),
            objects: at("objects"),
            tls_cert: at("cert.pem"),
            tls_key: at("key.pem"),
            signing_key: at("edge.key"),
            certificate: at("edge.cert"),
            seal_key: at("seal.key"),
            spool: at("spool.redb"),
            ca: at("ca.pem"),
            drain_ms: 200,
            ..minimal()
        };
        change(&mut cfg);
        let stop = Arc::new(AtomicBool::new(false));
        let (tx, rx) = mpsc::channel();
        let thread = std::thread::spawn({
            let (cfg, stop) = (cfg.clone(), stop.clone());
            move || serve(cfg, stop, &tx)
        });
        let addr = rx.recv().expect("the edge opens");
        Self { dir, addr, cfg, stop, thread: Some(thread) }
    }

    fn publish(&self, path: &str, bytes: &[u8], policy: Policy) -> VersionId {
        self.publish_to(path, bytes, None, policy)
    }

    fn publish_to(&self, path: &str, bytes: &[u8], access: Option<Access>, policy: Policy) -> VersionId {
        let file = self.dir.path().join("source");
        std::fs::write(&file, bytes).expect("written");
        let what = Publish { file, provider: ProviderId(7), path: path.into(), access, policy: Some(policy.into()) };
        publish(&self.cfg.objects, &what).expect("published").version
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.cfg.url)
    }

    /// Runs curl; returns status, head and body, or `None` where curl is not installed.
    fn curl(&self, path: &str, args: &[&str]) -> Option<(u16, String, Vec<u8>)> {
        let (head, body) = (self.dir.path().join("head"), self.dir.path().join("body"));
        let _ = std::fs::remove_file(&body);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--cacert"]).arg(&self.cfg.ca).arg("-D").arg(&head).arg("-o").arg(&body);
        let Ok(out) = curl.args(["-w", "%{http_code}"]).args(args).arg(self.url(path)).output() else {
            return skip("curl");
        };
        assert!(out.status.success(), "curl: {}", String::from_utf8_lossy(&out.stderr));
        let status = String::from_utf8_lossy(&out.stdout).parse().expect("a status");
        let head = std::fs::read_to_string(head).expect("a head").to_ascii_lowercase();
        Some((status, head, std::fs::read(body).unwrap_or_default()))
    }

    /// Opens a raw TCP connection to the edge.
    fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.addr).expect("connected")
    }
}

impl Lab {
    /// Stops the edge and waits until it has ended.
    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok(), "the edge panicked");
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Prints that a test is skipped; fails where every test must run.
fn skip<T>(what: &str) -> Option<T> {
    swarmedge_seeds::skip(&format!("{what} is not installed"));
    None
}

fn serve(cfg: EdgeConfig, stop: Arc<AtomicBool>, ready: &mpsc::Sender<SocketAddr>) {
    let ready = ready.clone();
    TestRt::block_on(move |rt| async move {
        let signal = Signal::default();
        let server = open(&rt, &cfg, &signal, &Health::default()).expect("the edge opens");
        ready.send(server.addr()).expect("somebody waits");
        let own = rt.clone();
        rt.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                own.sleep_until(own.now() + Duration::from_millis(10)).await;
            }
            signal.set();
        });
        server.run().await.expect("served");
    });
}

/// Returns an address of this machine that is free now.
fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port")
}

/// Returns status and body of an answer over plain HTTP.
fn get_plain(at: SocketAddr, path: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(at).expect("connected");
    write!(tcp, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

/// Returns a readiness answer without what it says of the disk of the machine that runs the tests.
fn without_disk(told: &str) -> String {
    told.lines().filter(|line| !line.contains("edge's disk")).map(|line| format!("{line}\n")).collect()
}

fn bytes(n: u32) -> Vec<u8> {
    (0..n).map(|i| u8::try_from(i.wrapping_mul(2_654_435_761) >> 24).expect("8 bits")).collect()
}

#[test]
fn curl_gets_the_whole_a_range_and_several_ranges() {
    let lab = Lab::start(|_| {});
    let all = bytes(3_000_000);
    let version = lab.publish("dir/a file.bin", &all, Policy::default());
    let path = "/7/dir/a%20file.bin";
    let Some((status, head, body)) = lab.curl(path, &[]) else { return };
    assert_eq!((status, body == all), (200, true));
    for field in [
        format!("etag: \"{version}\""),
        "accept-ranges: bytes".into(),
        "content-length: 3000000".into(),
        "repr-digest: sha-256=:".into(),
        "cache-status: \"edge-1\"; hit".into(),
        "last-modified: ".into(),
        "x-content-type-options: nosniff".into(),
    ] {
        assert!(head.contains(&field), "{field} in {head}");
    }
    let range = |asked: &str| lab.curl(path, &["-r", asked]).expect("curl is there");
    for (asked, expected) in [("0-0", 0..1), ("1000000-2000001", 1_000_000..2_000_002), ("-5", 2_999_995..3_000_000)] {
        let (status, head, body) = range(asked);
        assert_eq!((status, body == all[expected.clone()]), (206, true), "{asked}");
        assert!(head.contains(&format!("content-range: bytes {}-{}/3000000", expected.start, expected.end - 1)));
    }
    let (status, head, body) = range("0-9,2000000-2000004");
    assert_eq!(status, 206);
    let boundary = head.split("multipart/byteranges; boundary=").nth(1).and_then(|t| t.lines().next()).expect("parts");
    let mut expected = Vec::new();
    for (field, part) in [("0-9", &all[..10]), ("2000000-2000004", &all[2_000_000..2_000_005])] {
        let kind = "Content-Type: application/octet-stream";
        write!(expected, "\r\n--{boundary}\r\n{kind}\r\nContent-Range: bytes {field}/3000000\r\n\r\n")
            .expect("written");
        expected.extend_from_slice(part);
    }
    write!(expected, "\r\n--{boundary}--\r\n").expect("written");
    assert_eq!(String::from_utf8_lossy(&body), String::from_utf8_lossy(&expected));
    assert!(head.contains(&format!("content-length: {}", expected.len())));
    let (status, head, body) = range("3000000-");
    assert_eq!(status, 416);
    assert!(head.contains("content-range: bytes */3000000") && head.contains("application/problem+json"));
    assert!(String::from_utf8_lossy(&body).contains("urn:swarmedge:problem:range-not-satisfiable"));
    let (status, _, body) = lab.curl(&format!("/v1/content/{version}"), &["-r", "5-6"]).expect("curl is there");
    assert_eq!((status, body.as_slice()), (206, &all[5..7]));
    let resumed = lab.dir.path().join("resumed");
    std::fs::write(&resumed, &all[..1_234_567]).expect("written");
    let to = resumed.to_str().expect("text");
    let args = ["-sS", "-C", "-", "--cacert", lab.cfg.ca.to_str().expect("text"), "-o", to, &lab.url(path)];
    assert!(Command::new("curl").args(args).status().expect("curl runs").success());
    assert!(std::fs::read(resumed).expect("there") == all);
}

#[test]
fn conditional_requests_work_and_head_is_get_without_a_body() {
    let lab = Lab::start(|_| {});
    let old = lab.publish("a.txt", b"the old text", Policy::default());
    let new = lab.publish("a.txt", b"the new, longer text", Policy::default());
    let get = |args: &[&str]| lab.curl("/7/a.txt", args);
    let Some((status, head, body)) = get(&["-I"]) else { return };
    assert_eq!((status, body.len() > 30), (200, true), "curl writes the head to the file, too");
    assert!(head.contains("content-length: 20") && head.contains(&format!("etag: \"{new}\"")));
    let with = |name: &str, value: &str, more: &[&str]| {
        let field = format!("{name}: {value}");
        let (status, _, body) = get(&[&["-H", &field], more].concat()).expect("curl is there");
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    let (tag, old_tag) = (format!("\"{new}\""), format!("\"{old}\""));
    assert_eq!(with("If-None-Match", &tag, &[]), (304, String::new()));
    assert_eq!(with("If-None-Match", &old_tag, &[]).0, 200);
    assert_eq!(with("If-Match", &old_tag, &[]).0, 412);
    assert_eq!(with("If-Match", &tag, &["-r", "0-2"]), (206, "the".into()));
    assert_eq!(with("If-Range", &tag, &["-r", "4-6"]), (206, "new".into()));
    assert_eq!(with("If-Range", &old_tag, &["-r", "4-6"]), (200, "the new, longer text".into()));
    let modified = head.lines().find_map(|l| l.strip_prefix("last-modified: ")).expect("a date").trim().to_owned();
    // HTTP dates are case-sensitive, and the head above is in lower case
    let (status, head, _) = lab.curl("/7/a.txt", &["-z", &modified]).expect("curl is there");
    assert_eq!(status, 304, "{head}");
    let (status, _, body) = lab.curl(&format!("/v1/content/{old}"), &[]).expect("curl is there");
    assert_eq!((status, body.as_slice()), (200, b"the old text".as_slice()), "an old version is still served");
}

#[test]
fn errors_are_problem_documents_with_the_right_status() {
    let lab = Lab::start(|_| {});
    lab.publish("gone", b"x", Policy { expires_ms: 1, ..Policy::default() });
    lab.publish("empty", b"", Policy::default());
    let Some((status, _, body)) = lab.curl("/7/empty", &[]) else { return };
    assert_eq!((status, body.len()), (200, 0));
    for (path, args, expected) in [
        ("/7/none", &[][..], 404),
        ("/7/gone", &[], 410),
        ("/x", &[], 404),
        ("/7/%ff", &[], 404),
        ("/v1/content/00", &[], 404),
        ("/v1/manifests/00", &[], 404),
        ("/7/empty", &["-r", "0-0"], 416),
        ("/7/empty", &["-X", "PUT"], 405),
        ("/v1/grants", &[], 405),
        ("/v1/grants", &["-d", "{}"], 400),
        ("/7/empty", &["-H", "Swarmedge-Grant: AAAA"], 403),
    ] {
        let (status, head, body) = lab.curl(path, args).expect("curl is there");
        assert_eq!(status, expected, "{path} {args:?}");
        assert!(head.contains("application/problem+json"), "{path}: {head}");
        assert!(serde_json::from_slice::<swarmedge_ground::http::Problem>(&body).is_ok_and(|p| p.status == status));
    }
    let long = format!("X-Long: {}", "x".repeat(9_000));
    assert_eq!(lab.curl("/7/empty", &["-H", &long]).expect("curl is there").0, 431);
    for (path, word) in [("/healthz", "ok"), ("/v1/bootstrap", "client_version_min")] {
        let (status, _, body) = lab.curl(path, &[]).expect("curl is there");
        assert_eq!((status, String::from_utf8_lossy(&body).contains(word)), (200, true), "{path}");
    }
}

/// Rule: if a content file cannot be read, the answer is 503, so that clients retry; 404 would make them give up.
#[test]
fn an_unreadable_published_file_is_503_and_a_withdrawn_one_404() {
    let lab = Lab::start(|_| {});
    let version = lab.publish("a", b"some text", Policy::default());
    let paths = [format!("/v1/manifests/{version}"), format!("/v1/content/{version}"), "/7/a".to_owned()];
    let status = |path: &String| lab.curl(path, &[]).map(|(status, ..)| status);
    let Some(200) = status(&paths[0]) else { return };
    let files = super::catalogue::Files::new(&lab.cfg.objects);
    let published = [files.manifest(version), files.content(version)];
    let is = |expected: u16| paths.iter().for_each(|path| assert_eq!(status(path), Some(expected), "{path}"));
    for file in &published {
        std::fs::rename(file, file.with_extension("away")).expect("moved");
    }
    is(503);
    // a directory in place of the file cannot be read
    for file in &published {
        std::os::unix::fs::symlink(file, file).expect("a loop");
    }
    is(503);
    for file in &published {
        std::fs::rename(file.with_extension("away"), file).expect("moved back");
    }
    is(200);
    super::unpublish(&lab.cfg.objects, ProviderId(7), "a").expect("unpublished");
    is(404);
}

/// Rule: while the catalogue cannot be read, its last state stays in use, and /healthz names the file.
#[test]
fn health_names_a_catalogue_that_cannot_be_read() {
    let lab = Lab::start(|cfg| cfg.ops = Some(free_port()));
    lab.publish("a", b"some text", Policy::default());
    let health = || {
        let (status, _, body) = lab.curl("/healthz", &[])?;
        Some((status, without_disk(&String::from_utf8_lossy(&body))))
    };
    let for_the_operator = || get_plain(lab.cfg.ops.expect("configured"), "/healthz").1;
    let object = || lab.curl("/7/a", &[]).map(|(status, ..)| status);
    let Some(200) = object() else { return };
    let path = super::catalogue::Files::new(&lab.cfg.objects).catalogue();
    let good = std::fs::read(&path).expect("there");
    std::fs::write(&path, "no catalogue").expect("written");
    assert_eq!(object(), Some(200), "its last state counts");
    let (status, why) = health().expect("curl is there");
    assert_eq!((status, &why[..]), (503, "edge's catalogue: a file cannot be used\n"), "no path for strangers");
    let why = for_the_operator();
    assert!(why.starts_with("edge's catalogue: ") && why.contains("catalogue.json"), "{why}");
    std::fs::write(&path, good).expect("written");
    assert_eq!(object(), Some(200));
    assert_eq!(health(), Some((200, "ok\n".to_owned())));
}

/// Requests a grant; `signer` signs the request.
fn ask(lab: &Lab, signer: &Key, request: &GrantRequest, more: &[&str]) -> Option<(u16, Vec<u8>)> {
    let body = serde_json::to_string(request).expect("JSON");
    let nonce = data_encoding::HEXLOWER.decode(request.nonce.as_bytes()).expect("hexadecimal");
    let host = lab.cfg.url.trim_start_matches("https://");
    let nonce = nonce.try_into().expect("16 bytes");
    let message = signed_message(host, GRANTS_PATH, request.time_ms, &nonce, body.as_bytes());
    let signature = signature_text(&signer.sign(SigningContext::EdgeRequest, &message));
    let field = format!("{SIGNATURE}: {signature}");
    let (status, _, answer) = lab.curl(GRANTS_PATH, &[&["-d", &body, "-H", &field], more].concat())?;
    Some((status, answer))
}

#[test]
fn a_grant_belongs_to_its_signer_and_its_bytes_are_counted_durably() {
    // nothing listens at the ledger's address: records stay in the spool
    let mut lab = Lab::start(|cfg| cfg.ledger = Some("127.0.0.1:1".into()));
    let version = lab.publish("a", &bytes(100_000), Policy::default());
    let other = lab.publish("b", b"other", Policy::default());
    let (key, stranger) = (Key::generate(), Key::generate());
    let request = |n: u8| GrantRequest {
        provider: 7,
        path: "a".into(),
        version: None,
        guid: Guid::of(&key.public()).to_string(),
        key: key.public().to_string(),
        download_key: Key::generate().public().to_string(),
        time_ms: unix_ms(),
        nonce: data_encoding::HEXLOWER.encode(&[n; 16]),
        token: None,
        renew: None,
        edge_only: false,
        client_version: String::new(),
    };
    let first = request(0);
    let Some((status, answer)) = ask(&lab, &key, &first, &[]) else { return };
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let granted: GrantReply = serde_json::from_slice(&answer).expect("a grant");
    assert_eq!(
        (granted.version, granted.size, granted.download_key),
        (version.to_string(), 100_000, first.download_key.clone())
    );
    let ticket = granted.ticket.as_deref().and_then(parse_ticket).expect("a holder's ticket");
    assert!(ticket.is_of(Guid::of(&key.public()), version) && ticket.ticket.until_ms == 0);
    let trust = Trust { root: lab.cfg.root.parse().expect("a key"), verify };
    assert_eq!(tickets::check(&trust, &mut KnownCerts::default(), &ticket, unix_ms()), Ok(()));
    let status = |signer: &Key, request: GrantRequest, more: &[&str]| ask(&lab, signer, &request, more).map(|a| a.0);
    assert_eq!(status(&key, first, &[]), Some(400), "seen before");
    assert_eq!(status(&stranger, request(1), &[]), Some(403), "forged");
    assert_eq!(status(&key, request(2), &["-H", "Host: elsewhere:1"]), Some(421), "for another edge");
    assert_eq!(status(&key, GrantRequest { time_ms: 1, ..request(3) }, &[]), Some(400), "of another time");
    assert_eq!(status(&key, GrantRequest { guid: Guid::numbered(1).to_string(), ..request(4) }, &[]), Some(403));
    assert_eq!(status(&key, GrantRequest { version: Some(other.to_string()), ..request(5) }, &[]), Some(412));
    assert_eq!(status(&key, GrantRequest { path: "none".into(), ..request(6) }, &[]), Some(404));

    let field = format!("{GRANT}: {}", granted.grant);
    let get =
        |version, range| lab.curl(&format!("/v1/content/{version}"), &["-H", &field, "-r", range]).expect("curl").0;
    assert_eq!((get(version, "0-9999"), get(version, "5000-14999")), (206, 206));
    assert_eq!(get(other, "0-1"), 403, "the grant is for another version");
    lab.stop();
    let (_, (records, counts)) = Spool::open(&lab.cfg.spool).expect("the edge has closed it");
    assert!(
        records.iter().any(|r| matches!(r, LedgerRecord::Granted(g) if g.download.to_string() == granted.download))
    );
    let count = counts.iter().find(|c| c.grant.is_some_and(|g| g.download.to_string() == granted.download));
    let count = count.expect("the download was counted");
    assert_eq!((count.total_bytes, count.sent.as_slice()), (20_000, std::slice::from_ref(&(0..15_000))));
}

#[test]
fn garbage_and_half_open_connections_do_not_disturb_other_clients() {
    let lab = Lab::start(|_| {});
    let all = bytes(500_000);
    lab.publish("a", &all, Policy::default());
    let half_open: Vec<_> = (0..50).map(|_| lab.tcp()).collect();
    for n in 0..20 {
        let mut tcp = lab.tcp();
        tcp.set_read_timeout(Some(Duration::from_secs(1120))).expect("set");
        let _ = tcp.write_all(&bytes(1000 + n * 100)[..]);
        // the edge closes the connection, perhaps after a TLS alert
        let _ = tcp.read_to_end(&mut Vec::new());
    }
    let mut plain = lab.tcp();
    plain.set_read_timeout(Some(Duration::from_secs(1120))).expect("set");
    plain.write_all(b"GET /7/a HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let _ = plain.read_to_end(&mut Vec::new());
    let Some((status, _, body)) = lab.curl("/7/a", &[]) else { return };
    assert_eq!((status, body == all), (200, true));
    drop(half_open);
}

#[test]
fn the_edges_rate_limit_holds_for_all_clients_together() {
    let lab = Lab::start(|cfg| cfg.rate_limit = Rate(1_000_000));
    lab.publish("a", &bytes(300_000), Policy::default());
    let start = Instant::now();
    let both = std::thread::scope(|scope| {
        let curl = || {
            Command::new("curl")
                .args(["-sS", "-o", "/dev/null", "--cacert"])
                .arg(&lab.cfg.ca)
                .arg(lab.url("/7/a"))
                .status()
        };
        let other = scope.spawn(curl);
        (curl(), other.join().expect("no panic"))
    });
    let (Ok(a), Ok(b)) = both else {
        let _: Option<()> = skip("curl");
        return;
    };
    assert!(a.success() && b.success());
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(500), "600 kB at 1 MB/s took {took:?}");
}

#[test]
fn the_error_names_the_file_an_edge_cannot_start_with() {
    let fails = |change: fn(&mut EdgeConfig)| {
        let lab = Lab::start(|_| {});
        let mut cfg = EdgeConfig { spool: lab.dir.path().join("other.redb"), ..lab.cfg.clone() };
        cfg.listen.set_port(0);
        change(&mut cfg);
        TestRt::block_on(move |rt| async move {
            open(&rt, &cfg, &Signal::default(), &Health::default()).map(|_| ()).expect_err("refused").to_string()
        })
    };
    assert!(fails(|c| c.signing_key = PathBuf::from("/nowhere/edge.key")).contains("/nowhere/edge.key"));
    assert!(fails(|c| c.root = Key::generate().public().to_string()).contains("no valid certificate"));
    assert!(fails(|c| c.tls_cert = c.seal_key.clone()).contains("seal.key"));
    assert!(
        fails(|c| c.listen = c.url.replace("https://localhost", "127.0.0.1").parse().expect("an address"))
            .contains("listen")
    );
}
