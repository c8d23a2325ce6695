//! Opening a connection to an introduced peer.

use super::conn::{self, Conn};
use super::link::{Link, RecvStream, SendStream};
use super::raw_tcp::PastCheck;
use super::util::{Cancel, DIAL_TIMEOUT, within};
use super::{Entry, Peers};
use futures_lite::future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use swarmedge_core::ids::{ConnId, DownloadId, PublicKey};
use swarmedge_core::limits::CANDIDATES_MAX;
use swarmedge_core::nat::connectivity::Along;
use swarmedge_core::role::client::io::{CloseReason, Input};
use swarmedge_core::wire::peer::CONTROL_STREAM;
use swarmedge_ground::mailbox::Permit;
use swarmedge_ground::reach::first_of;
use swarmedge_ground::rt::Rt;
use swarmedge_ground::tcp;
use swarmedge_ground::tls;

/// The peer to dial, and the way to do it.
pub(super) struct Whom {
    /// The download whose key K_d this client presents to the peer.
    pub(super) download: DownloadId,
    /// The upload key K_u that the peer must present.
    pub(super) key: PublicKey,
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) along: Along,
}

/// A connection with the sending and receiving half of its control stream.
type Opened = (Link, SendStream, RecvStream);

pub(super) fn start<R: Rt>(peers: &Peers<R>, id: ConnId, whom: Whom, permit: Permit<Input>) {
    let cancel = Cancel::default();
    peers.0.state.borrow_mut().conns.insert(id, Entry::Dialling(cancel.clone()));
    let peers = peers.clone();
    let rt = peers.0.rt.clone();
    rt.spawn(async move {
        let open = async { within(&peers.0.rt, DIAL_TIMEOUT, open(&peers, whom)).await.flatten() };
        let opened = future::or(open, async {
            cancel.cancelled().await;
            None
        })
        .await;
        match opened {
            Some(opened) => run(peers, id, opened, permit).await,
            None => peers.dial_failed(id, permit),
        }
    });
}

/// Tries the peer's addresses; returns a connection to the first that answers with the right key, with a control
/// stream.
async fn open<R: Rt>(peers: &Peers<R>, whom: Whom) -> Option<Opened> {
    let Whom { download, key, addrs, along } = whom;
    let store = peers.0.store.clone();
    let own = peers.0.rt.blocking(move || store.key(download)).await.ok().flatten();
    let Some(own) = own else {
        tracing::warn!(%download, "the download's key is not in the store");
        return None;
    };
    let config = tls::peer_client_config(&own, key, along.over())
        .map_err(|error| tracing::warn!(%error, "no connection to peers is possible"))
        .ok()?;
    let attempts = addrs.into_iter().take(CANDIDATES_MAX).map(|addr| {
        let link = connect(peers, addr, Arc::clone(&config), along);
        async move { link.await.map_err(|error| tracing::debug!(%addr, %error, "no connection to a peer")) }
    });
    let link = first_of(&peers.0.rt, attempts).await.ok()?;
    let (mut send, recv) = link.open_bi().await?;
    send.write_all(&[CONTROL_STREAM]).await.ok()?;
    Some((link, send, recv))
}

/// Opens a connection to a peer over QUIC or TLS.
async fn connect<R: Rt>(
    peers: &Peers<R>,
    addr: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    along: Along,
) -> io::Result<Link> {
    let rt = &peers.0.rt;
    match along {
        Along::Udp => peers.0.endpoint.connect(addr, config)?.await.map(Link::Quic).map_err(io::Error::other),
        Along::Tcp => {
            let tcp = rt.connect(addr).await?;
            tcp::connect(rt, config, tcp, addr).await.map(Link::Tcp)
        }
        Along::RawTcp(id) => {
            let (tcp, from) = peers.take_raw_tcp(id).ok_or(io::ErrorKind::NotConnected)?;
            tcp::connect(rt, config, PastCheck::new(tcp), from).await.map(Link::Tcp)
        }
    }
}

async fn run<R: Rt>(peers: Peers<R>, id: ConnId, (link, send, recv): Opened, permit: Permit<Input>) {
    let Some(conn) = peers.opened(id, link.clone(), true) else {
        link.close(CloseReason::Done as u8);
        return;
    };
    permit.send(Input::PeerOpened { conn: id });
    conn.start_control(&peers.0.rt, send);
    read(&peers, &conn, recv).await;
    peers.ended(&conn).await;
}

async fn read<R: Rt>(peers: &Peers<R>, conn: &Rc<Conn>, recv: RecvStream) {
    let closed = conn.link.closed();
    future::or(conn::read_control(peers, conn, recv, None), async {
        closed.await;
    })
    .await;
}
