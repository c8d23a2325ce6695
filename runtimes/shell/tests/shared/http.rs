//! Tests HTTP as odd but honest clients speak it to an edge: half-closed connections, and paths with dot segments.

use super::outputs::{Cdn, command};
use rustls::{ClientConnection, StreamOwned};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarmedge_cli::config::ServerConfig;
use swarmedge_edge::EdgeConfig;
use swarmedge_ground::tls::client_config;

/// Time-out of each wait, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn edge_of(cdn: &Cdn) -> EdgeConfig {
    ServerConfig::load(&cdn.at("cdn/server.toml")).expect("reads back").edge.expect("an edge")
}

/// Opens a TLS connection to the edge, once it listens.
fn connect(edge: &EdgeConfig) -> Tls {
    let until = Instant::now() + PATIENCE;
    let tcp = loop {
        match TcpStream::connect(("127.0.0.1", edge.listen.port())) {
            Ok(tcp) => break tcp,
            Err(error) => assert!(Instant::now() < until, "the edge does not listen: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    tcp.set_read_timeout(Some(PATIENCE)).expect("set");
    let ca = fs::read_to_string(&edge.ca).expect("the CA's certificate");
    let name = "127.0.0.1".try_into().expect("an address");
    let tls = ClientConnection::new(Arc::clone(&client_config(&ca, None).expect("fits")), name);
    StreamOwned::new(tls.expect("a connection"), tcp)
}

/// Sends requests and closes the sending side, then reads to the end.
fn half_closed(edge: &EdgeConfig, requests: &str, with_close_notify: bool) -> Vec<u8> {
    let mut tls = connect(edge);
    tls.write_all(requests.as_bytes()).expect("sent");
    if with_close_notify {
        tls.conn.send_close_notify();
    }
    tls.flush().expect("sent");
    while tls.conn.wants_write() {
        tls.conn.write_tls(&mut tls.sock).expect("sent");
    }
    tls.sock.shutdown(Shutdown::Write).expect("half closed");
    let mut answer = Vec::new();
    match tls.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            panic!("after {} bytes: {error}", answer.len())
        }
        Ok(_) | Err(_) => answer,
    }
}

/// Splits whole answers off what a connection has brought; each has a Content-Length.
fn bodies(mut answers: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !answers.is_empty() {
        let end = answers.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&answers[..end]).to_ascii_lowercase();
        let len = head.lines().find_map(|l| l.strip_prefix("content-length: ")).expect("a length");
        let len: usize = len.trim().parse().expect("a number");
        assert!(answers.len() >= end + len, "a cut body: {} of {len} bytes after {head}", answers.len() - end);
        out.push(answers[end..end + len].to_vec());
        answers = &answers[end + len..];
    }
    out
}

#[test]
fn a_client_that_sends_no_more_gets_its_whole_answer() {
    let cdn = Cdn::new();
    let edge = edge_of(&cdn);
    let get = "GET /1/o HTTP/1.1\r\nHost: x\r\n";
    let last = format!("{get}Connection: close\r\n\r\n");
    for with_close_notify in [false, true] {
        for requests in [last.clone(), format!("{get}\r\n"), format!("{get}Range: bytes=0-\r\n\r\n")] {
            let answers = bodies(&half_closed(&edge, &requests, with_close_notify));
            assert!(answers == [&cdn.bytes[..]], "{requests}: {} answers", answers.len());
        }
        let ranges = [0..5, 1_000_000..3_000_000, 7..8];
        let ask = |r: &std::ops::Range<usize>| format!("{get}Range: bytes={}-{}\r\n\r\n", r.start, r.end - 1);
        let pipelined: String = ranges.iter().map(ask).collect();
        let answers = bodies(&half_closed(&edge, &pipelined, with_close_notify));
        assert!(answers == ranges.map(|r| cdn.bytes[r].to_vec()), "{} answers", answers.len());
        let many = "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(40) + &last;
        let answers = half_closed(&edge, &many, with_close_notify);
        assert!(answers.ends_with(&cdn.bytes), "more than the edge reads at once, and then an object");
        let cut = half_closed(&edge, get, with_close_notify);
        assert!(!cut.starts_with(b"HTTP/1.1 200"), "half a request: {}", String::from_utf8_lossy(&cut));
    }
}

/// A connection whose client has gone is given up, though its answer would take hours.
#[test]
fn a_client_that_has_gone_is_noticed_during_its_answer() {
    let slow = |config: &std::path::Path| {
        let text = fs::read_to_string(config).expect("it was made").replace("rate_limit = 0", "rate_limit = 20000");
        fs::write(config, text).expect("writes");
    };
    let cdn = Cdn::with(slow);
    let edge = edge_of(&cdn);
    let mut gone = connect(&edge);
    gone.write_all(b"GET /1/o HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    gone.read_exact(&mut [0; 1000]).expect("an answer begins");
    let socket = their_socket(&gone.sock);
    let is_open = || {
        let open = fs::read_dir(format!("/proc/{}/fd", cdn.servers())).expect("Linux").flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|to| to.as_os_str() == socket.as_str())
    };
    assert!(is_open());
    drop(gone);
    let until = Instant::now() + PATIENCE;
    while is_open() {
        assert!(Instant::now() < until, "the edge keeps the connection");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the name under which the other process of this machine has its end of a connection open.
fn their_socket(ours: &TcpStream) -> String {
    let port = |addr: std::io::Result<std::net::SocketAddr>| format!(":{:04X}", addr.expect("connected").port());
    let (ours, theirs) = (port(ours.local_addr()), port(ours.peer_addr()));
    let lines = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default()).concat();
    let mut lines = lines.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let line = lines.find(|line| line.len() > 9 && line[1].ends_with(&theirs) && line[2].ends_with(&ours));
    format!("socket:[{}]", line.expect("it is connected")[9])
}

#[test]
fn get_and_edge_read_dot_segments_alike() {
    let cdn = Cdn::new();
    let edge = edge_of(&cdn);
    let mut n = 0;
    let mut get = |url: &str| {
        n += 1;
        let output = format!("out-{n}");
        let args = ["get", url, "-o", &output, "--state", "state", "--bundle", "cdn/install/bundle.toml"];
        let out = command(cdn.dir.path(), &args).output().expect("starts");
        let is_right = fs::read(cdn.at(&output)).is_ok_and(|bytes| bytes == cdn.bytes);
        (out.status.code(), is_right, String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let raw = |path: &str| {
        let answer = half_closed(&edge, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"), true);
        answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&cdn.bytes)
    };
    for path in ["/1/./o", "/1/x/../o", "/2/%2e%2E/1/%2e/o", "/../1/o"] {
        assert!(raw(path), "the edge: {path}");
        let (code, is_right, said) = get(&format!("{}{path}", edge.url));
        assert!(code == Some(0) && is_right, "{path}: {said}");
    }
    for path in ["/1/..%2f1/o", "/2/o", "/1/o/."] {
        assert!(!raw(path), "the edge: {path}");
        let (code, is_right, said) = get(&format!("{}{path}", edge.url));
        assert!(code == Some(3) && !is_right, "{path}: {code:?} {said}");
    }
}
