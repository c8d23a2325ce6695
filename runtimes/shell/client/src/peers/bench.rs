//! The peer part of `bench transfer`: one client sends a version over QUIC to another, which verifies the bytes and
//! writes them durably. There is no machine: every request is served.

#![expect(clippy::wildcard_enum_match_arm, reason = "no machine: what is of no interest here is passed over")]

use super::{Peers, TcpAcceptor};
use crate::store::{Sink, Store};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarmedge_core::content::{Layout, Manifest, merkle};
use swarmedge_core::ids::{ConnId, DownloadId, Handle, PieceIndex, ProviderId, PublicKey, ReqId, VersionId, XferId};
use swarmedge_core::limits::BLOCK_LEN;
use swarmedge_core::nat::Transport;
use swarmedge_core::nat::connectivity::Along;
use swarmedge_core::role::client::io::{
    DownloadRecord, DownloadState, FetchEnd, Input, ObjectRef, PeerOutput, Save, SourceName, StoreError,
};
use swarmedge_core::wire::peer::{PeerMsg, PeerWelcome};
use swarmedge_core::wire::{PROTOCOL, Text};
use swarmedge_ground::keys::Key;
use swarmedge_ground::mailbox::{Receiver, Sender, mailbox};
use swarmedge_ground::quic::{Datagram, Endpoint};
use swarmedge_ground::rt::{Rt, Start};
use swarmedge_ground::tls;

/// Number of piece requests that the downloader keeps outstanding.
const OPEN_REQUESTS: usize = 8;
/// The id of the benchmark's only download.
const DOWNLOAD: DownloadId = DownloadId([1; 16]);
/// The handle of the benchmark's only download.
const HANDLE: Handle = Handle(1);

/// A client without a machine: a store and connections to peers. Public for the tests of the runtimes.
pub struct Node<R: Rt> {
    /// The transport, UDP (QUIC) or TCP, of incoming and outgoing connections.
    pub over: Transport,
    /// The store of the node's pieces.
    pub store: Store,
    /// The node's connections to peers.
    pub peers: Peers<R>,
    /// The node's upload key K_u.
    pub key: PublicKey,
    /// The address that accepts connections.
    pub addr: SocketAddr,
    /// The QUIC socket of the node.
    pub endpoint: Endpoint,
    /// Receiver of the STUN datagrams that arrive.
    pub stun: Receiver<Datagram>,
    inbox: Receiver<Input>,
    sender: Sender<Input>,
    local: VecDeque<Input>,
    rt: R,
}

impl<R: Rt> Node<R> {
    /// Opens a state directory and a socket on loopback.
    pub fn open(rt: R, dir: &Path, over: Transport) -> io::Result<Self> {
        let (store, _) = Store::open(dir).map_err(io::Error::other)?;
        let own = Key::generate();
        let server = |over| tls::peer_server_config(&own, over).map_err(io::Error::other);
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let (endpoint, stun) = Endpoint::bind(&rt, loopback, server(Transport::Udp)?)?;
        let (sender, inbox) = mailbox(1024);
        let peers = Peers::new(rt.clone(), store.clone(), endpoint.clone(), server(Transport::Tcp)?, sender.clone());
        let addr = match over {
            Transport::Udp => endpoint.local_addr()?,
            Transport::Tcp => {
                let listener = std::net::TcpListener::bind(loopback)?;
                listener.set_nonblocking(true)?;
                let addr = listener.local_addr()?;
                // nobody dials back here
                let acceptor = TcpAcceptor { port: addr.port(), calls: mailbox(1).0 };
                peers.listen(rt.listen(listener)?, acceptor);
                addr
            }
        };
        Ok(Self {
            over,
            store,
            peers,
            key: own.public(),
            addr,
            endpoint,
            stun,
            inbox,
            sender,
            local: VecDeque::new(),
            rt,
        })
    }

    /// Performs an output of a machine about peers.
    pub fn perform(&mut self, output: PeerOutput) {
        self.peers.perform(output, &mut self.local);
    }

    /// Begins a save as for a machine's output; [`Input::Saved`] reports its completion.
    fn begin_save(&mut self, req: ReqId, what: Save) {
        match self.sender.reserve() {
            Ok(permit) => self.store.save(what, move |result| permit.send(Input::Saved { req, result })),
            Err(_) => self.local.push_back(Input::Saved { req, result: Err(StoreError::Io) }),
        }
    }

    /// Waits for the next input that would go to a machine.
    pub async fn next(&mut self) -> Input {
        match self.local.pop_front() {
            Some(input) => input,
            None => self.inbox.recv().await.expect("the node has a sender itself"),
        }
    }

    /// Fills the store with a version as if it had been downloaded.
    pub async fn fill(&mut self, manifest: &Manifest, mut piece: impl FnMut(PieceIndex) -> Vec<u8>) -> io::Result<()> {
        let version = manifest.version();
        self.begin(manifest).await?;
        for index in manifest.layout().iter() {
            let blocks = manifest.layout().blocks(index);
            let bad = |end: FetchEnd| io::Error::other(format!("{end:?}"));
            let mut sink = Sink::new(self.rt.clone(), &self.store, version, (index, 0..blocks), None).map_err(bad)?;
            sink.push(Bytes::from(piece(index))).await.map_err(bad)?;
            match sink.finish().await {
                FetchEnd::Fetched => {
                    self.save(Save::Piece { handle: HANDLE, version, piece: index, from: vec![] }).await?
                }
                end => return Err(bad(end)),
            }
        }
        Ok(())
    }

    /// Makes the download of `manifest` known to the store, with a fresh key.
    pub async fn begin(&mut self, manifest: &Manifest) -> io::Result<()> {
        self.store.put_manifest(manifest.clone());
        self.store.put_key(DOWNLOAD, &Key::generate());
        self.save(Save::Download(DownloadRecord {
            handle: HANDLE,
            object: ObjectRef { provider: ProviderId(1), path: "bench".into() },
            output: String::new(),
            replace: false,
            granted: None,
            state: DownloadState::Running,
            usage_seq: 0,
            active_ms: 0,
        }))
        .await
    }

    /// Saves `what` and waits until it is durable.
    pub async fn save(&mut self, what: Save) -> io::Result<()> {
        let (done, mut wait) = mailbox(1);
        self.store.save(what, move |result| {
            // nobody waits any more
            let _ = done.try_send(result);
        });
        let result = wait.recv().await.unwrap_or(Err(StoreError::Io));
        result.map_err(|e| io::Error::other(format!("{e:?}")))
    }

    /// Connects to a peer; `None` if it cannot be reached or has another key.
    pub async fn connect(&mut self, conn: ConnId, key: PublicKey, addrs: Vec<SocketAddr>) -> Option<ConnId> {
        let along = if self.over == Transport::Udp { Along::Udp } else { Along::Tcp };
        self.perform(PeerOutput::Dial { conn, download: DOWNLOAD, key, addrs, along });
        loop {
            match self.next().await {
                Input::PeerOpened { conn: c } if c == conn => return Some(conn),
                Input::PeerClosed { conn: c } if c == conn => return None,
                _ => {}
            }
        }
    }

    /// Requests all blocks of a piece from a peer.
    pub fn fetch(&mut self, conn: ConnId, manifest: &Manifest, piece: PieceIndex) {
        self.perform(PeerOutput::Fetch {
            xfer: XferId(u64::from(piece.0)),
            conn,
            version: manifest.version(),
            piece,
            blocks: 0..manifest.layout().blocks(piece),
        });
    }

    /// Serves every request for pieces of a version, until no peer is connected any more.
    pub async fn serve(&mut self, version: VersionId) {
        loop {
            match self.next().await {
                Input::PeerRequest { xfer, request, .. } => self.perform(PeerOutput::Serve {
                    xfer,
                    version,
                    piece: request.piece,
                    blocks: u32::from(request.first_block)..u32::from(request.first_block) + u32::from(request.blocks),
                    leaves: request.want_leaves,
                    rate_max: 0,
                }),
                Input::PeerClosed { .. } if self.peers.connected() == 0 => return,
                _ => {}
            }
        }
    }

    /// Downloads a whole version from a peer: every piece verified and durable.
    pub async fn download(&mut self, conn: ConnId, manifest: &Manifest) -> io::Result<()> {
        let version = manifest.version();
        let mut todo = manifest.layout().iter();
        let mut left = manifest.layout().pieces();
        for piece in todo.by_ref().take(OPEN_REQUESTS) {
            self.fetch(conn, manifest, piece);
        }
        while left > 0 {
            match self.next().await {
                Input::FetchEnded { xfer, end: FetchEnd::Fetched } => {
                    let piece = PieceIndex(u32::try_from(xfer.0).map_err(io::Error::other)?);
                    let from = vec![(SourceName::Edge, manifest.layout().piece_size(piece))];
                    let what = Save::Piece { handle: HANDLE, version, piece, from };
                    self.begin_save(ReqId(xfer.0), what);
                    if let Some(piece) = todo.next() {
                        self.fetch(conn, manifest, piece);
                    }
                }
                Input::Saved { result: Ok(()), .. } => left -= 1,
                input @ (Input::FetchEnded { .. } | Input::Saved { .. } | Input::PeerClosed { .. }) => {
                    return Err(io::Error::other(format!("{input:?}")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Makes the content of a piece of the benchmark's version: cheap to compute, and no two blocks are equal.
fn piece_bytes(layout: &Layout, piece: PieceIndex) -> Vec<u8> {
    let mut bytes = vec![0x5a; layout.piece_size(piece) as usize];
    for (n, block) in bytes.chunks_mut(BLOCK_LEN as usize).enumerate() {
        let head = (u64::from(piece.0) << 32 | n as u64).to_be_bytes();
        block.iter_mut().zip(head).for_each(|(b, h)| *b = h);
    }
    bytes
}

/// Makes the manifest of the benchmark's version, which has `bytes` bytes.
pub fn bench_manifest(bytes: u64) -> io::Result<Manifest> {
    let layout = Layout::for_size(bytes).ok_or(io::ErrorKind::InvalidInput)?;
    let root = |p| merkle::piece_root(&layout, p, &merkle::leaves(&piece_bytes(&layout, p)));
    let roots = layout.iter().map(root).collect();
    let path = Text::new("bench").map_err(io::Error::other)?;
    Manifest::new(ProviderId(1), path, layout, roots).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The sending side's address and key, for the receiving side.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The address where the sending side listens.
    pub addr: SocketAddr,
    /// The sending side's upload key K_u.
    pub key: PublicKey,
}

/// Runs the sending side: fills `dir`, calls `ready`, and serves until the other side has gone.
pub async fn bench_send<R: Rt>(rt: R, dir: &Path, bytes: u64, ready: impl FnOnce(Offer)) -> io::Result<()> {
    let manifest = bench_manifest(bytes)?;
    let layout = manifest.layout();
    let mut node = Node::open(rt, dir, Transport::Udp)?;
    node.fill(&manifest, |piece| piece_bytes(&layout, piece)).await?;
    ready(Offer { addr: node.addr, key: node.key });
    node.serve(manifest.version()).await;
    node.peers.shutdown().await;
    Ok(())
}

/// Runs the receiving side. Returns the time, connection included, until every piece was verified and durable in `dir`.
pub async fn bench_receive<R: Rt>(rt: R, dir: &Path, bytes: u64, offer: Offer) -> io::Result<Duration> {
    let manifest = bench_manifest(bytes)?;
    receive(rt, dir, &manifest, offer).await
}

async fn receive<R: Rt>(rt: R, dir: &Path, manifest: &Manifest, offer: Offer) -> io::Result<Duration> {
    let mut node = Node::open(rt, dir, Transport::Udp)?;
    node.begin(manifest).await?;
    let start = Instant::now();
    let conn = node.connect(ConnId(1), offer.key, vec![offer.addr]).await;
    let conn = conn.ok_or_else(|| io::Error::other("the peer does not answer"))?;
    // a connection without a first message is soon closed
    let first = PeerMsg::Welcome(PeerWelcome { protocol: PROTOCOL, requests_max: 0 });
    node.perform(PeerOutput::Send { conn, msg: first });
    node.download(conn, manifest).await?;
    let took = start.elapsed();
    node.peers.shutdown().await;
    Ok(took)
}

/// The measurements of a bench.
#[derive(Clone, Copy, Debug)]
pub struct PeerLeg {
    /// Number of bytes delivered.
    pub bytes: u64,
    /// Time from dialling to the last durable piece.
    pub took: Duration,
    /// Processor time of both sides during the transfer, if the system reports it.
    pub cpu: Option<Duration>,
}

impl PeerLeg {
    /// Returns the rate in MB/s (10⁶ bytes a second).
    #[must_use]
    pub fn mb_per_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }
}

/// Runs both sides in this process, each on its own thread and in its own directory under `dir`.
pub fn bench_peer_leg<R: Start>(dir: &Path, bytes: u64) -> io::Result<PeerLeg> {
    let (tell, told) = std::sync::mpsc::channel();
    let sender_dir = dir.join("sender");
    let receiver_dir = Arc::new(dir.join("receiver"));
    let sender = std::thread::Builder::new().name("bench-send".into()).spawn(move || {
        R::block_on(move |rt| async move {
            bench_send(rt, &sender_dir, bytes, move |offer| tell.send(offer).unwrap_or_default()).await
        })
    })?;
    let failed = |_| io::Error::other("the sending side has failed");
    let measured = match told.recv() {
        Ok(offer) => R::block_on(move |rt| async move {
            let manifest = bench_manifest(bytes)?;
            let before = process_cpu();
            let took = receive(rt, &receiver_dir, &manifest, offer).await?;
            let cpu = process_cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
            Ok(PeerLeg { bytes, took, cpu })
        }),
        Err(_) => Err(io::Error::other("the sending side has failed")),
    };
    sender.join().map_err(failed)??;
    measured
}

/// Returns user and system time that this process has used (proc(5): fields 14 and 15 of `stat`, in ticks of 10 ms).
fn process_cpu() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // the second field is a name in brackets and may hold spaces
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok());
    Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}
