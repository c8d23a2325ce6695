//! Tests an edge under a flood of grant requests by one key, on loopback, while other clients download.

use super::scenarios::RealRig;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use swarmedge_core::ids::Guid;
use swarmedge_core::wire::records::SigningContext;
use swarmedge_edge::EdgeConfig;
use swarmedge_ground::edge_api::{GRANTS_PATH, SIGNATURE, signature_text, signed_message};
use swarmedge_ground::keys::Key;
use swarmedge_ground::spool::Spool;
use swarmedge_ground::tls::client_config;
use swarmedge_models::scenario::{Command, HONEST, Name, Object, Plan, Progress, Rig, Role};

const FILM: Object = Object { path: "film", size: 1 << 20, edge_rate: 0, upload_rate: 0, uploads_max: 0 };
/// Requests of the flooding key, far more than its limit.
const FLOOD: usize = 4_000;
/// Maximum of requests without answer on one connection.
const PIPELINED: usize = 32;

/// A client of the edge's HTTP interface, with its own source address.
struct Asker {
    edge: EdgeConfig,
    stream: BufReader<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>,
    drawn: u64,
}

impl Asker {
    fn from(address: [u8; 4], edge: &EdgeConfig) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::from(address), 0)).into()).expect("a loopback address");
        socket.connect(&edge.listen.into()).expect("connects");
        let ca = std::fs::read_to_string(&edge.ca).expect("the CA's certificate");
        let name = "127.0.0.1".try_into().expect("an address");
        let tls = rustls::ClientConnection::new(Arc::clone(&client_config(&ca, None).expect("fits")), name);
        let stream = rustls::StreamOwned::new(tls.expect("a connection"), TcpStream::from(socket));
        Self { edge: edge.clone(), stream: BufReader::new(stream), drawn: 0 }
    }

    /// Builds a request of `key` for a first grant.
    fn request(&mut self, key: &Key) -> Vec<u8> {
        self.drawn += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.drawn.to_be_bytes());
        nonce[8..].copy_from_slice(&key.public().0[..8]);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let time_ms = u64::try_from(since.as_millis()).expect("before the year 500 million");
        let (public, hex) = (key.public(), nonce.iter().map(|b| format!("{b:02x}")).collect::<String>());
        let guid = Guid::of(&public);
        let body = format!(
            r#"{{"provider":7,"path":"film","guid":"{guid}","key":"{public}","download_key":"{public}","time_ms":{time_ms},"nonce":"{hex}"}}"#
        );
        let host = self.edge.url.trim_start_matches("https://");
        let message = signed_message(host, GRANTS_PATH, time_ms, &nonce, body.as_bytes());
        let signature = signature_text(&key.sign(SigningContext::EdgeRequest, &message));
        let len = body.len();
        let head = format!(
            "POST {GRANTS_PATH} HTTP/1.1\r\nhost: {host}\r\n{SIGNATURE}: {signature}\r\ncontent-length: {len}\r\n\r\n"
        );
        [head.into_bytes(), body.into_bytes()].concat()
    }

    /// Reads the next answer; returns its status and the seconds of `Retry-After`.
    fn answer(&mut self) -> (u16, Option<u32>) {
        let (mut status, mut len, mut retry_s) = (0, 0, None);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("an answer");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            match line.split_once(' ') {
                Some(("http/1.1", rest)) => status = rest[..3].parse().expect("a status"),
                Some(("content-length:", n)) => len = n.parse().expect("a length"),
                Some(("retry-after:", n)) => retry_s = n.parse().ok(),
                _ => {}
            }
        }
        self.stream.read_exact(&mut vec![0; len]).expect("a body");
        (status, retry_s)
    }

    /// Sends `times` requests, several at a time; returns how many were granted and how many were told to retry later.
    fn ask(&mut self, key: &Key, times: usize) -> (usize, usize) {
        let (mut granted, mut later) = (0, 0);
        for _ in 0..times.div_ceil(PIPELINED) {
            let n = PIPELINED.min(times);
            let requests: Vec<u8> = (0..n).flat_map(|_| self.request(key)).collect();
            self.stream.get_mut().write_all(&requests).expect("sent");
            for _ in 0..n {
                match self.answer() {
                    (200, _) => granted += 1,
                    (429, Some(seconds)) if seconds > 0 => later += 1,
                    other => panic!("neither granted nor given a time to retry: {other:?}"),
                }
            }
        }
        (granted, later)
    }
}

/// Returns the numbers of records and counts in the spool of an edge that has stopped.
fn left(spool: &Path) -> (usize, usize) {
    let (_, (records, counts)) = Spool::open(spool).expect("the edge has closed it");
    (records.len(), counts.len())
}

#[test]
fn a_flood_of_grant_requests_by_one_key_disturbs_no_other() {
    let plan = Plan { edges: 1, cns: 0, dns: 0, ledgers: 1, clients: 2 };
    let mut rig = RealRig::<crate::Rt>::new(&plan);
    rig.publish(&FILM);
    let edge = rig.edge(0).clone();
    let (flooder, others) = (Key::generate(), [Key::generate(), Key::generate(), Key::generate()]);
    let mut flood = Asker::from([127, 0, 0, 1], &edge);
    let (granted, later) = flood.ask(&flooder, FLOOD);
    println!("{granted} of {FLOOD} granted to one key, {later} told to retry later");
    assert!(granted >= 512 && later > 0, "{granted} granted, {later} later");
    // behind the same address and in another network: granted at once
    assert_eq!(Asker::from([127, 0, 0, 1], &edge).ask(&others[0], PIPELINED), (PIPELINED, 0));
    assert_eq!(Asker::from([127, 9, 9, 9], &edge).ask(&others[1], PIPELINED), (PIPELINED, 0));
    // the edge crashes; nothing of these grants is in its spool
    rig.crash(Name(Role::Edge, 0));
    assert_eq!(left(&edge.spool), (0, 0), "a grant costs nothing until its first byte is asked for");
    rig.restart(Name(Role::Edge, 0));
    let mut flood = Asker::from([127, 0, 0, 1], &edge);
    flood.ask(&flooder, FLOOD / 4);
    assert_eq!(Asker::from([127, 9, 9, 9], &edge).ask(&others[2], PIPELINED), (PIPELINED, 0));
    rig.start_client(0, HONEST);
    rig.command(0, Command::Get(FILM.path));
    let done = |r: &mut dyn Rig| r.status(0, FILM.path).is_some_and(|s| s.progress == Progress::Completed && s.right);
    assert!(rig.run_until(Duration::from_secs(120), &mut |r| done(r)), "{:?}", rig.status(0, FILM.path));
}
