//! Tests the peer connections of two clients on loopback, on a real runtime.

#![allow(clippy::cast_possible_truncation, reason = "sizes of a test")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for what it names")]

use crate::Rt as R;
use std::future::Future;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::UdpSocket;
use std::time::Duration;
use swarmedge_client::peers::bench::{Node, bench_peer_leg};
use swarmedge_core::content::{Layout, Manifest, merkle};
use swarmedge_core::ids::{ConnId, IntroId, PieceIndex, ProviderId, PublicKey, VersionId, XferId};
use swarmedge_core::nat::Transport;
use swarmedge_core::role::client::io::{CloseReason, FetchEnd, Input, PeerOutput, Save, SourceName};
use swarmedge_core::wire::Text;
use swarmedge_core::wire::peer::{PeerMsg, PeerWelcome, RefuseCode};
use swarmedge_ground::rt::{Rt as _, Start};

const PIECE: u32 = 1 << 20;

struct Rig<R: Start> {
    dir: tempfile::TempDir,
    rt: R,
    up: Node<R>,
    down: Node<R>,
    manifest: Manifest,
    bytes: Vec<u8>,
}

fn rig<R: Start, F: Future<Output = ()> + 'static>(
    over: Transport,
    pieces: u32,
    test: impl FnOnce(Rig<R>) -> F + 'static,
) {
    R::block_on(move |rt| async move {
        let dir = tempfile::tempdir().expect("a directory");
        let len = pieces as usize * PIECE as usize - 7_000;
        let bytes: Vec<u8> = (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let layout = Layout::new(len as u64, PIECE).expect("a layout");
        let piece = |p: PieceIndex| {
            let r = layout.piece_range(p);
            bytes[r.start as usize..r.end as usize].to_vec()
        };
        let roots = layout.iter().map(|p| merkle::piece_root(&layout, p, &merkle::leaves(&piece(p)))).collect();
        let path = Text::new("o").expect("short");
        let manifest = Manifest::new(ProviderId(1), path, layout, roots).expect("a root a piece");
        let mut up = Node::open(rt.clone(), &dir.path().join("up"), over).expect("a node");
        up.fill(&manifest, piece).await.expect("filled");
        let mut down = Node::open(rt.clone(), &dir.path().join("down"), over).expect("a node");
        down.begin(&manifest).await.expect("begun");
        test(Rig { dir, rt, up, down, manifest, bytes }).await;
    });
}

impl<R: Start> Rig<R> {
    fn version(&self) -> VersionId {
        self.manifest.version()
    }

    /// Connects `down` to `up`; returns both sides' ids of the connection.
    async fn connect(&mut self) -> (ConnId, ConnId) {
        let addrs = vec![self.up.addr];
        let conn = self.down.connect(ConnId(1), self.up.key, addrs).await.expect("connected");
        match self.up.next().await {
            Input::PeerAccepted { conn: accepted, from, .. } => {
                // over TCP each connection has its own source port
                assert!(self.down.over == Transport::Tcp || from == self.down.addr);
                (conn, accepted)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn request(&mut self) -> XferId {
        loop {
            if let Input::PeerRequest { xfer, .. } = self.up.next().await {
                return xfer;
            }
        }
    }

    fn serve(&mut self, xfer: XferId, piece: u32, rate_max: u64) {
        let blocks = 0..self.manifest.layout().blocks(PieceIndex(piece));
        let version = self.version();
        self.up.perform(PeerOutput::Serve { xfer, version, piece: PieceIndex(piece), blocks, leaves: true, rate_max });
    }
}

async fn fetch_end<R: Start>(node: &mut Node<R>) -> (XferId, FetchEnd) {
    loop {
        if let Input::FetchEnded { xfer, end } = node.next().await {
            return (xfer, end);
        }
    }
}

async fn serve_end<R: Start>(node: &mut Node<R>) -> u64 {
    loop {
        if let Input::ServeEnded { bytes, .. } = node.next().await {
            return bytes;
        }
    }
}

fn a_version_goes_from_peer_to_peer(over: Transport) {
    rig::<R, _>(over, 9, |mut r| async move {
        let (conn, _) = r.connect().await;
        let (version, manifest, rt) = (r.version(), r.manifest.clone(), r.rt.clone());
        let Rig { mut up, mut down, bytes, dir, .. } = r;
        rt.spawn(async move { up.serve(version).await });
        down.download(conn, &manifest).await.expect("downloaded");
        let file = dir.path().join("down/pieces").join(version.to_string());
        assert_eq!(std::fs::read(file).expect("the data file"), bytes);
        for piece in manifest.layout().iter() {
            let from = vec![(SourceName::Peer(IntroId::numbered(1), PublicKey::numbered(1)), 1)];
            let save = Save::Piece { handle: swarmedge_core::ids::Handle(1), version, piece, from };
            down.save(save).await.expect("saving a journalled piece again changes nothing");
        }
    });
}

fn control_messages_arrive_in_order_both_ways(over: Transport) {
    rig::<R, _>(over, 1, |mut r| async move {
        let (conn, accepted) = r.connect().await;
        let welcome = |n| PeerMsg::Welcome(PeerWelcome { protocol: 1, requests_max: n });
        for n in 0..200 {
            r.down.perform(PeerOutput::Send { conn, msg: welcome(n) });
        }
        for n in 0..200 {
            match r.up.next().await {
                Input::Peer { conn, msg } => assert_eq!((conn, msg), (accepted, welcome(n))),
                other => panic!("{other:?}"),
            }
        }
        r.up.perform(PeerOutput::Send { conn: accepted, msg: PeerMsg::GoingAway });
        assert_eq!(r.down.next().await, Input::Peer { conn, msg: PeerMsg::GoingAway });
    });
}

fn a_corrupting_peer_is_named_by_its_first_wrong_block(over: Transport) {
    rig::<R, _>(over, 2, |mut r| async move {
        // the store itself would notice the damage; a dishonest client serves from its own file
        let (dir, name) = (r.dir.path().join("up"), r.version().to_string());
        let file = dir.join("instead").join(&name);
        std::fs::create_dir(dir.join("instead")).expect("made");
        std::fs::copy(dir.join("pieces").join(&name), &file).expect("copied");
        let mut file = std::fs::OpenOptions::new().read(true).write(true).open(file).expect("the data file");
        for block in [41_u64, 50] {
            let at = SeekFrom::Start(u64::from(PIECE) + block * 16_384 + 3);
            let mut byte = [0];
            file.seek(at).expect("within");
            file.read_exact(&mut byte).expect("within");
            file.seek(at).expect("within");
            file.write_all(&[byte[0] ^ 1]).expect("written");
        }
        let (conn, _) = r.connect().await;
        for (piece, expected) in [(0, FetchEnd::Fetched), (1, FetchEnd::BadBlock { block: 41 })] {
            r.down.fetch(conn, &r.manifest, PieceIndex(piece));
            let xfer = r.request().await;
            r.serve(xfer, piece, 0);
            assert_eq!(fetch_end(&mut r.down).await, (XferId(u64::from(piece)), expected));
        }
    });
}

fn a_cancelled_transfer_ends_on_both_sides(over: Transport) {
    rig::<R, _>(over, 1, |mut r| async move {
        let (conn, _) = r.connect().await;
        r.down.fetch(conn, &r.manifest, PieceIndex(0));
        let xfer = r.request().await;
        // slow enough to be cancelled in the middle
        r.serve(xfer, 0, 400_000);
        r.down.perform(PeerOutput::CancelFetch { xfer: XferId(0) });
        assert_eq!(fetch_end(&mut r.down).await, (XferId(0), FetchEnd::Cancelled));
        assert!(serve_end(&mut r.up).await < u64::from(PIECE) - 7_000);
        // the connection can still be used
        r.down.fetch(conn, &r.manifest, PieceIndex(0));
        let xfer = r.request().await;
        r.serve(xfer, 0, 0);
        assert_eq!(fetch_end(&mut r.down).await, (XferId(0), FetchEnd::Fetched));
        assert_eq!(serve_end(&mut r.up).await, r.bytes.len() as u64);
    });
}

fn a_refusal_says_why_before_and_during_a_transfer(over: Transport) {
    rig::<R, _>(over, 1, |mut r| async move {
        let (conn, _) = r.connect().await;
        r.down.fetch(conn, &r.manifest, PieceIndex(0));
        let xfer = r.request().await;
        r.up.perform(PeerOutput::Refuse { xfer, why: RefuseCode::TooMany });
        assert_eq!(fetch_end(&mut r.down).await, (XferId(0), FetchEnd::Refused(RefuseCode::TooMany)));
        r.down.fetch(conn, &r.manifest, PieceIndex(0));
        let xfer = r.request().await;
        r.serve(xfer, 0, 400_000);
        r.up.perform(PeerOutput::Refuse { xfer, why: RefuseCode::NotAllowed });
        assert_eq!(fetch_end(&mut r.down).await, (XferId(0), FetchEnd::Refused(RefuseCode::NotAllowed)));
        serve_end(&mut r.up).await;
    });
}

fn a_broken_connection_ends_everything_on_it_once(over: Transport) {
    rig::<R, _>(over, 3, |mut r| async move {
        let (conn, accepted) = r.connect().await;
        for piece in 0..3 {
            r.down.fetch(conn, &r.manifest, PieceIndex(piece));
        }
        let (first, second) = (r.request().await, r.request().await);
        r.serve(first, 0, 400_000);
        r.serve(second, 1, 400_000);
        r.down.perform(PeerOutput::Close { conn, why: CloseReason::Done });
        let mut ends = Vec::new();
        for _ in 0..3 {
            let (xfer, end) = fetch_end(&mut r.down).await;
            assert_eq!(end, FetchEnd::Broken);
            ends.push(xfer.0);
        }
        ends.sort_unstable();
        assert_eq!(ends, [0, 1, 2]);
        let (mut serves, mut closed) = (0, 0);
        while (serves, closed) != (2, 1) {
            match r.up.next().await {
                Input::ServeEnded { .. } => serves += 1,
                Input::PeerClosed { conn } => {
                    assert_eq!(conn, accepted);
                    closed += 1;
                }
                _ => {}
            }
        }
        r.down.fetch(conn, &r.manifest, PieceIndex(0));
        assert_eq!(r.down.next().await, Input::FetchEnded { xfer: XferId(0), end: FetchEnd::Broken });
        assert_eq!((r.up.peers.connected(), r.down.peers.connected()), (0, 0));
    });
}

fn only_the_introduced_key_may_answer(over: Transport) {
    rig::<R, _>(over, 1, |mut r| async move {
        let other = r.down.key;
        assert_eq!(r.down.connect(ConnId(1), other, vec![r.up.addr]).await, None);
        // an address that does not answer must not prevent the right one from being tried
        let nobody = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let addrs = vec![nobody.local_addr().expect("bound"), r.up.addr];
        assert_eq!(r.down.connect(ConnId(2), r.up.key, addrs).await, Some(ConnId(2)));
    });
}

#[test]
fn stun_passes_on_the_same_socket_during_a_transfer() {
    rig::<R, _>(Transport::Udp, 9, |mut r| async move {
        let (conn, _) = r.connect().await;
        let (version, manifest, rt) = (r.version(), r.manifest.clone(), r.rt.clone());
        let Rig { mut up, mut down, dir: _dir, .. } = r;
        let stun_server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        stun_server.set_read_timeout(Some(Duration::from_secs(1120))).expect("set");
        let (server_addr, down_addr) = (stun_server.local_addr().expect("bound"), down.addr);
        rt.spawn(async move { up.serve(version).await });
        let mut message = [0_u8; 20];
        message[1] = 1;
        message[4..8].copy_from_slice(&0x2112_A442_u32.to_be_bytes());
        for n in 0..50 {
            message[19] = n;
            // sent through the shared socket, and the answer received on it
            down.endpoint.raw().send(&message, server_addr).expect("sent");
            let mut buffer = [0; 64];
            let (len, from) = stun_server.recv_from(&mut buffer).expect("received");
            assert_eq!((&buffer[..len], from), (message.as_slice(), down_addr));
            stun_server.send_to(&buffer[..len], from).expect("sent");
        }
        down.download(conn, &manifest).await.expect("downloaded");
        for n in 0..50 {
            let datagram = down.stun.recv().await.expect("diverted");
            assert_eq!((datagram.from, datagram.bytes[19]), (server_addr, n));
        }
    });
}

#[test]
fn the_peer_bench_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes = std::env::var("PEER_BENCH_MIB").ok().and_then(|v| v.parse().ok()).unwrap_or(32_u64) << 20;
    let leg = bench_peer_leg::<R>(dir.path(), bytes).expect("measured");
    assert_eq!(leg.bytes, bytes);
    println!("{:.0} MB/s, cpu {:?}", leg.mb_per_s(), leg.cpu);
}

macro_rules! over {
    ($transport:ident: $($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            super::$name(super::Transport::$transport);
        }
    )*};
}

macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod quic {
            over!(Udp: $($name),*);
        }
        mod tcp {
            over!(Tcp: $($name),*);
        }
    };
}

over_both!(
    a_version_goes_from_peer_to_peer,
    control_messages_arrive_in_order_both_ways,
    a_corrupting_peer_is_named_by_its_first_wrong_block,
    a_cancelled_transfer_ends_on_both_sides,
    a_refusal_says_why_before_and_during_a_transfer,
    a_broken_connection_ends_everything_on_it_once,
    only_the_introduced_key_may_answer,
);
