//! Tests the control plane (CN, DN, STUN, ledger) on a real runtime, with clients that speak the wire protocol.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for what it names")]

use futures_lite::future::or;
use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::cell::Cell;
use std::future::Future;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use swarmedge_control::config::{CnConfig, DnConfig};
use swarmedge_control::{cn, dn, stun};
use swarmedge_core::accounting::logs::Log;
use swarmedge_core::content::Policy;
use swarmedge_core::ids::{ConnId, DownloadId, Guid, ProviderId, PublicKey, RecordId, SecondaryGuid, VersionId};
use swarmedge_core::nat::{Candidate, CandidateKind, NatBehaviour, NatDescriptor};
use swarmedge_core::wire::control::{Hello, IntroducedPeer, Query, ToClient, ToCn};
use swarmedge_core::wire::ledger::{FromLedger, ToLedger};
use swarmedge_core::wire::records::{
    CertBody, Grant, GrantRecord, LedgerRecord, Logged, ServerCert, ServerRole, Side, SignedGrant, SignedHead,
    SigningContext, UsageRecord, UsageState,
};
use swarmedge_core::wire::{List, PROTOCOL, Text, Wire};
use swarmedge_ground::config::OperatorConfig;
use swarmedge_ground::health::Health;
use swarmedge_ground::host::Server;
use swarmedge_ground::http::Signal;
use swarmedge_ground::keys::{Key, SealKey, SealRing, certify, save_cert};
use swarmedge_ground::link::{Cap, Event, Inlet, Links, dial};
use swarmedge_ground::mailbox::{Receiver, mailbox};
use swarmedge_ground::rt::{Rt as _, Start};
use swarmedge_ground::tls::{CertAuthority, client_config};
use swarmedge_ledger::config::LedgerConfig;
use swarmedge_ledger::{Filter, Reader};

#[path = "located.rs"]
mod located;
#[path = "offers.rs"]
mod offers;
#[path = "stun.rs"]
mod stun_tests;
#[path = "tickets.rs"]
mod tickets;

use crate::Rt as R;
use stun_tests::{ask_over_tcp, stun_config};
use tickets::inventory;

const VERSION: VersionId = VersionId([9; 32]);
const DOWNLOAD: DownloadId = DownloadId([8; 16]);
/// Time-out of a test, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// A deployment: its keys, and its servers once they are started.
struct Net<R: Start> {
    rt: R,
    dir: tempfile::TempDir,
    ca: CertAuthority,
    root: Key,
    edge: Key,
    seal: SealRing,
    stop: Signal,
    health: Health,
    ended: Rc<Cell<u32>>,
}

fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("not so far")
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

fn run<R: Start, F: Future<Output = ()> + 'static>(test: impl FnOnce(Net<R>) -> F + 'static) {
    R::block_on(move |rt| async move {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = CertAuthority::new().expect("made");
        std::fs::write(dir.path().join("ca.pem"), ca.cert_pem()).expect("written");
        let seal = SealRing::of(SealKey::generate(1));
        seal.save(&dir.path().join("seal.key")).expect("written");
        let net = Net {
            rt: rt.clone(),
            dir,
            ca,
            root: Key::generate(),
            edge: Key::generate(),
            seal,
            stop: Signal::default(),
            health: Health::default(),
            ended: Rc::default(),
        };
        let late = async {
            rt.sleep_until(rt.now() + PATIENCE).await;
            panic!("the test hangs");
        };
        or(test(net), late).await;
    });
}

impl<R: Start> Net<R> {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn certify(&self, role: ServerRole, name: &str, key: &Key) -> ServerCert {
        let body = CertBody {
            role,
            name: Text::new(name).expect("short"),
            key: key.public(),
            not_before_ms: 0,
            not_after_ms: unix_ms() + 1_000_000,
        };
        certify(&self.root, body)
    }

    /// Writes a server's TLS files and certificate; returns its signing key.
    fn equip(&self, role: ServerRole, name: &str) -> Key {
        let (cert, tls_key) = self.ca.issue(&["127.0.0.1"]).expect("issued");
        std::fs::write(self.path(&format!("{name}.pem")), cert).expect("written");
        std::fs::write(self.path(&format!("{name}.key.pem")), tls_key).expect("written");
        let key = Key::generate();
        key.save(&self.path(&format!("{name}.key"))).expect("written");
        save_cert(&self.path(&format!("{name}.cert")), &self.certify(role, name, &key)).expect("written");
        key
    }

    fn operator(&self) -> OperatorConfig {
        OperatorConfig { root: self.root.public(), ca: self.path("ca.pem") }
    }

    fn start(&self, server: Server) -> SocketAddr {
        let (addr, ended) = (server.addr(), Rc::clone(&self.ended));
        self.rt.spawn(async move {
            server.run().await.expect("runs");
            ended.set(ended.get() + 1);
        });
        addr
    }

    fn dn(&self) -> SocketAddr {
        self.equip(ServerRole::Dn, "dn");
        let cfg = DnConfig {
            name: "dn".into(),
            listen: any(),
            tls_cert: self.path("dn.pem"),
            tls_key: self.path("dn.key.pem"),
            certificate: self.path("dn.cert"),
            ops: None,
            copies_max: swarmedge_core::role::dn::COPIES_MAX,
        };
        self.start(dn::open(&self.rt, &self.operator(), &cfg, &self.stop, &self.health).expect("opens"))
    }

    async fn ledger(&self) -> SocketAddr {
        self.equip(ServerRole::Ledger, "ledger");
        self.second_ledger_addr().await
    }

    fn cn_config(&self, dn: SocketAddr, ledger: SocketAddr) -> CnConfig {
        self.equip(ServerRole::Cn, "cn");
        CnConfig {
            name: "cn".into(),
            listen: any(),
            tls_cert: self.path("cn.pem"),
            tls_key: self.path("cn.key.pem"),
            signing_key: self.path("cn.key"),
            certificate: self.path("cn.cert"),
            seal_key: self.path("seal.key"),
            dns: vec![dn.to_string()],
            spool: Some(self.path("cn-spool.redb")),
            edges: Vec::new(),
            geo_countries: None,
            geo_networks: None,
            ledger: Some(ledger.to_string()),
            ops: Some(any()),
            sessions_max: 100,
            client_version_min: "0.0.0".into(),
            drain_ms: 300,
        }
    }

    /// Starts a DN, a ledger and a CN; returns the CN's address.
    async fn control_plane(&self) -> SocketAddr {
        let cfg = self.cn_config(self.dn(), self.ledger().await);
        self.start(cn::open(&self.rt, &self.operator(), &cfg, &self.stop, &self.health).expect("opens"))
    }

    fn grant(&self, client: &Client) -> SignedGrant {
        let grant = Grant {
            download: DOWNLOAD,
            guid: Guid::of(&client.key.public()),
            download_key: PublicKey::numbered(5),
            version: VERSION,
            size: 1_000_000,
            provider: ProviderId(7),
            path: Text::default(),
            policy: Policy::default(),
            max_peer_bytes: 1_000_000,
            order_seed: 1,
            began_ms: unix_ms() - 1000,
            issued_ms: unix_ms() - 1000,
            expires_ms: unix_ms() + 600_000,
            challenged: false,
        };
        let cert = self.certify(ServerRole::Edge, "edge", &self.edge);
        SignedGrant { signature: self.edge.sign(SigningContext::Grant, &grant.to_bytes()), grant, cert }
    }

    /// Connects a client until its session is open. A CN that does not know the time yet closes the connection, so the
    /// client retries.
    async fn client(&self, cn: SocketAddr, n: u32) -> Client {
        loop {
            let mut client = Client::connect(self, cn, n);
            if matches!(client.inbox.recv().await, Some(Event::Opened(_))) {
                client.hello();
                if let Some(Event::Message(ToClient::Welcome(welcome))) = client.inbox.recv().await {
                    assert_eq!(welcome.cert.body.name, Text::new("cn").expect("short"));
                    return client;
                }
            }
            self.rt.sleep_until(self.rt.now() + Duration::from_millis(20)).await;
        }
    }
}

struct Client {
    key: Key,
    upload_key: PublicKey,
    links: Links<ToCn>,
    inbox: Receiver<Event<ToClient>>,
}

const CONN: ConnId = ConnId(1);

impl Client {
    fn connect<R: Start>(net: &Net<R>, cn: SocketAddr, n: u32) -> Self {
        let key = Key::from_seed([u8::try_from(n).expect("small"); 32]);
        let (tx, inbox) = mailbox(16);
        let inlet = Inlet { inbox: tx, links: Links::default(), wrap: |_, event| Some(event), cap: Cap::CLIENT };
        let tls = client_config(net.ca.cert_pem(), Some(&key)).expect("fits");
        dial(&net.rt, tls, &cn.to_string(), CONN, &inlet);
        Self { key, upload_key: PublicKey::numbered(100 + n), links: inlet.links, inbox }
    }

    fn send(&self, msg: &ToCn) {
        self.links.send(CONN, msg);
    }

    fn hello(&self) {
        let addr = "127.0.0.1:4000".parse().expect("an address");
        let nat = NatDescriptor {
            epoch: 1,
            udp: true,
            mapping: NatBehaviour::EndpointIndependent,
            filtering: NatBehaviour::EndpointIndependent,
            candidates: List::truncated([Candidate { kind: CandidateKind::Host, addr }]),
            ..NatDescriptor::default()
        };
        self.send(&ToCn::Hello(Hello {
            protocol: PROTOCOL,
            guid: Guid::of(&self.key.public()),
            secondary: List::truncated([SecondaryGuid([1; 20])]),
            incarnation: 1,
            upload_key: self.upload_key,
            uploads: true,
            nat,
            client_version: 1,
            platform: Text::new("test").expect("short"),
            checkpoint: None,
        }));
    }

    /// Returns the next message other than pings and inventory requests; `None` when the connection has ended.
    async fn next(&mut self) -> Option<ToClient> {
        loop {
            match self.inbox.recv().await {
                Some(Event::Message(ToClient::Ping | ToClient::ReaddRequest(_))) => {}
                Some(Event::Message(msg)) => return Some(msg),
                Some(Event::Opened(_)) => panic!("opened again"),
                Some(Event::Closed) | None => return None,
            }
        }
    }
}

impl<R: Start> Net<R> {
    /// Connects a client that shares a version and one that queries for peers; returns both and the introductions.
    async fn introduced(&self, cn: SocketAddr) -> (Client, Client, Vec<IntroducedPeer>) {
        let up = self.client(cn, 1).await;
        let ticket = self.ticket(&up);
        up.send(&inventory(1, &ticket));
        let mut down = self.client(cn, 2).await;
        let sealed = self.seal.seal(&self.grant(&down));
        // the DN may not know the copy yet: repeats with growing waits, since a client may send ten queries a minute
        let mut wait = Duration::from_millis(50);
        let mut seq = 1;
        loop {
            let query = Query { query: 1, grant: sealed.clone(), want: 5, exclude: List::default() };
            down.send(&ToCn::Query(query));
            match down.next().await {
                Some(ToClient::Introductions(found)) if !found.peers.is_empty() => {
                    return (up, down, found.peers.into_vec());
                }
                Some(ToClient::Introductions(_) | ToClient::QueryFailed(_)) => {}
                other => panic!("unexpected: {other:?}"),
            }
            self.rt.sleep_until(self.rt.now() + wait).await;
            seq += 1;
            up.send(&inventory(seq, &ticket));
            wait *= 2;
        }
    }

    /// Waits until this many servers have stopped.
    async fn ended(&self, servers: u32) {
        while self.ended.get() < servers {
            self.rt.sleep_until(self.rt.now() + Duration::from_millis(10)).await;
        }
    }
}

/// A downloader's query is answered with the other client's introduction, which that client receives too.
#[test]
fn two_clients_are_introduced_and_the_ledger_keeps_their_record() {
    run::<R, _>(|net| async move {
        let cn = net.control_plane().await;
        let (mut up, mut down, introduced) = net.introduced(cn).await;
        assert_eq!(introduced.len(), 1);
        assert_eq!(introduced[0].intro.intro.uploader_key, up.upload_key);
        let mut said = up.next().await;
        while matches!(said, Some(ToClient::ReaddRequest(_))) {
            said = up.next().await;
        }
        let Some(ToClient::Introduce(told)) = said else { panic!("the uploader got no introduction") };
        assert_eq!(told.intro, introduced[0].intro);

        let record = UsageRecord {
            id: RecordId::numbered(77),
            reporter: Guid::of(&down.key.public()),
            side: Side::Downloader,
            download: DOWNLOAD,
            version: VERSION,
            seq: 1,
            state: UsageState::Completed,
            edge_bytes: 1_000_000,
            peers: List::default(),
            elapsed_ms: 12,
            cause: None,
        };
        // the second record is a repetition, the third is another record with the same position in the log
        let other = UsageRecord { id: RecordId::numbered(79), seq: 2, ..record.clone() };
        for record in [record.clone(), record, other] {
            let (id, forks) = (record.id, record.seq == 2);
            let head = Log::default().append(SecondaryGuid([5; 20]), &record);
            let signature = down.key.sign(SigningContext::LogHead, &head.to_bytes());
            let head = SignedHead { head, key: down.key.public(), signature };
            down.send(&ToCn::Usage(Logged { record, head: head.clone() }));
            if forks {
                assert_eq!(down.next().await, Some(ToClient::Rekey), "a client with a forked log must take a new key");
            }
            let Some(ToClient::UsageAck(ack)) = down.next().await else { panic!("not acknowledged") };
            assert_eq!(&ack.ids[..], &[id]);
            assert_eq!(
                ack.checkpoint.map(|signed| signed.checkpoint.head),
                Some(head),
                "the CN's checkpoint for the log position"
            );
        }
        net.granted_by_the_edge(&down).await;
        let mut ledger = Reader::open(&net.path("ledger.sqlite").into()).await.expect("opens");
        let all = ledger.downloads(&Filter::default()).await.expect("read");
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].state, all[0].edge_claimed, all[0].provider), ("completed", 1_000_000, 7));
        let forks = ledger.forks().await.expect("read");
        assert_eq!(
            (forks.len(), forks[0].guid),
            (1, Guid::of(&down.key.public())),
            "evidence, there before the record was acknowledged"
        );
    });
}

impl<R: Start> Net<R> {
    /// Sends an edge's grant record straight to a ledger server.
    async fn granted_by_the_edge(&self, client: &Client) {
        let ledger = self.second_ledger_addr().await;
        let (tx, mut inbox) = mailbox(4);
        let inlet = Inlet::<ToLedger, FromLedger, _> {
            inbox: tx,
            links: Links::default(),
            wrap: |_, event| Some(event),
            cap: Cap::SERVER,
        };
        let tls = client_config(self.ca.cert_pem(), Some(&self.edge)).expect("fits");
        dial(&self.rt, tls, &ledger.to_string(), CONN, &inlet);
        assert!(matches!(inbox.recv().await, Some(Event::Opened(_))));
        inlet.links.send(CONN, &ToLedger::Hello(self.certify(ServerRole::Edge, "edge", &self.edge)));
        let record = LedgerRecord::Granted(GrantRecord {
            id: RecordId::numbered(78),
            download: DOWNLOAD,
            guid: Guid::of(&client.key.public()),
            download_key: client.key.public(),
            version: VERSION,
            size: 1_000_000,
            provider: ProviderId(7),
            path: Text::new("a/b").expect("short"),
            issued_ms: 1,
            max_peer_bytes: 1_000_000,
            challenged: false,
            proof: None,
        });
        inlet.links.send(CONN, &ToLedger::Submit(record));
        let Some(Event::Message(FromLedger::Ack(ack))) = inbox.recv().await else { panic!("not acknowledged") };
        assert_eq!(&ack.ids[..], &[RecordId::numbered(78)]);
    }

    /// Starts another ledger server on the same database, as after a restart.
    async fn second_ledger_addr(&self) -> SocketAddr {
        let cfg = LedgerConfig {
            listen: any(),
            tls_cert: self.path("ledger.pem"),
            tls_key: self.path("ledger.key.pem"),
            database: self.path("ledger.sqlite").into(),
            signing_key: None,
            certificate: None,
            settle_days: 2,
            keep_days: None,
            address_days: 90,
            ops: None,
        };
        self.start(
            swarmedge_ledger::open(&self.rt, &self.operator(), &cfg, &self.stop, &self.health).await.expect("opens"),
        )
    }
}

/// A grant that was altered, or sealed by another key, leads to no introduction.
#[test]
fn a_forged_grant_introduces_nobody() {
    run::<R, _>(|net| async move {
        let cn = net.control_plane().await;
        let mut client = net.client(cn, 1).await;
        let mut forged = net.grant(&client);
        forged.grant.size += 1;
        let stranger = SealRing::of(SealKey::generate(1));
        for sealed in [net.seal.seal(&forged), stranger.seal(&net.grant(&client))] {
            client.send(&ToCn::Query(Query { query: 3, grant: sealed, want: 5, exclude: List::default() }));
            let Some(ToClient::QueryFailed(failed)) = client.next().await else { panic!("not refused") };
            assert_eq!(failed.query, 3);
        }
    });
}

/// Random bytes and silence on every port disturb no other connection.
#[test]
fn garbage_on_every_port_disturbs_no_connection() {
    run::<R, _>(|net| async move {
        let (dn, ledger) = (net.dn(), net.ledger().await);
        let cfg = net.cn_config(dn, ledger);
        let server = cn::open(&net.rt, &net.operator(), &cfg, &net.stop, &net.health).expect("opens");
        let ops = server.ops().expect("configured");
        let cn = net.start(server);
        let stun = net.start(stun::open(&net.rt, &stun_config(), &net.stop, &net.health).expect("opens"));
        let udp = UdpSocket::bind(any()).expect("a port");
        let mut half_open = Vec::new();
        for addr in [dn, ledger, cn, stun, ops] {
            for seed in 1..6_u32 {
                let bytes: Vec<u8> = (0..3000)
                    .map(|i| (seed.wrapping_mul(2_654_435_761).wrapping_mul(77 + i) >> 9).to_be_bytes()[3])
                    .collect();
                let mut tcp = TcpStream::connect(addr).expect("connected");
                // the connection may be closed in the middle
                let _ = std::io::Write::write_all(&mut tcp, &bytes);
                let _ = udp.send_to(&bytes[..1200], stun);
                half_open.push(TcpStream::connect(addr).expect("connected"));
            }
        }
        net.client(cn, 1).await;
        let mut tcp = net.rt.connect(stun).await.expect("connected");
        let from = ask_over_tcp::<R>(&mut tcp).await;
        assert_eq!(from.ip(), stun.ip());
        drop(half_open);
    });
}

/// A CN that is stopped sends its clients to another CN, and every server then ends by itself.
#[test]
fn a_stopping_cn_drains_its_clients() {
    run::<R, _>(|net| async move {
        let cn = net.control_plane().await;
        let mut client = net.client(cn, 1).await;
        net.stop.set();
        let Some(ToClient::Drain(_)) = client.next().await else { panic!("no drain message") };
        assert_eq!(client.next().await, None, "closed at the end");
        net.ended(3).await;
        assert!(net.rt.connect(cn).await.is_err(), "the port is closed");
    });
}

/// A port in use stops the start with one line that names the port and the setting to change.
#[test]
fn a_port_in_use_is_one_clear_error() {
    run::<R, _>(|net| async move {
        let (dn, ledger) = (net.dn(), net.ledger().await);
        let cfg = CnConfig { listen: dn, ..net.cn_config(dn, ledger) };
        let error = cn::open(&net.rt, &net.operator(), &cfg, &net.stop, &net.health).expect_err("taken").to_string();
        assert!(error.contains(&dn.to_string()) && error.contains("[cn] listen"), "{error}");
        assert_eq!(error.lines().count(), 1);
    });
}

/// Checks the contract that every `Rt` must fulfil.
#[test]
fn the_runtime_fulfils_its_contract() {
    R::block_on(|rt: R| async move {
        // deadlines fire in order; a deadline in the past fires at once
        let (tx, mut order) = mailbox(8);
        let start = rt.now();
        for ms in [60, 20, 40] {
            let (sleep, tx) = (rt.sleep_until(start + Duration::from_millis(ms)), tx.clone());
            rt.spawn(async move {
                sleep.await;
                tx.send(ms).await.expect("open");
            });
        }
        for expected in [20, 40, 60] {
            assert_eq!(order.recv().await, Some(expected));
        }
        rt.sleep_until(start).await;

        // blocking work runs in parallel with the shard, even if no task waits for it
        let (signal, wait) = std::sync::mpsc::channel();
        drop(rt.blocking(move || signal.send(7)));
        assert_eq!(rt.blocking(move || wait.recv()).await, Ok(7));

        // bytes pass both ways, and a closed direction leaves the other open
        let listener = std::net::TcpListener::bind(any()).expect("a port");
        listener.set_nonblocking(true).expect("set");
        let addr = listener.local_addr().expect("bound");
        let listener = rt.listen(listener).expect("listening");
        let echo = rt.clone();
        rt.spawn(async move {
            let (mut tcp, _) = echo.accept(&listener).await.expect("accepted");
            let mut all = Vec::new();
            tcp.read_to_end(&mut all).await.expect("read");
            tcp.write_all(&all).await.expect("sent");
            tcp.close().await.expect("closed");
        });
        let mut tcp = rt.connect(addr).await.expect("connected");
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_be_bytes()[2]).collect();
        tcp.write_all(&sent).await.expect("sent");
        tcp.close().await.expect("closed");
        let mut back = Vec::new();
        tcp.read_to_end(&mut back).await.expect("read");
        assert_eq!(back, sent);
        let closed = std::net::TcpListener::bind(any()).expect("a port").local_addr().expect("bound");
        assert!(rt.connect(closed).await.is_err());
    });
}

/// A panic in blocking work is passed on to the waiting task.
#[test]
#[should_panic(expected = "on the pool")]
fn a_panic_on_the_blocking_pool_reaches_its_caller() {
    R::block_on(|rt: R| async move {
        rt.blocking(|| panic!("on the pool")).await;
    });
}

/// Tasks end with their shard, and their values are dropped.
#[test]
fn tasks_end_with_their_shard() {
    let held = Rc::new(());
    let inner = Rc::clone(&held);
    R::block_on(move |rt: R| async move {
        let own = rt.clone();
        rt.spawn(async move {
            own.sleep_until(own.now() + Duration::from_secs(3600)).await;
            drop(inner);
        });
        rt.sleep_until(rt.now() + Duration::from_millis(5)).await;
    });
    assert_eq!(Rc::strong_count(&held), 1);
}
