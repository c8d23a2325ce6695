//! Opening a connection to an introduced peer.

use super::conn::{self, Conn};
use super::util::{Cancel, first_of, within};
use super::{Entry, Peers};
use crate::mailbox::Permit;
use crate::rt::Rt;
use crate::tls;
use futures_lite::future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::ids::{ConnId, DownloadId, PublicKey};
use swarmedge_core::limits::CANDIDATES_MAX;
use swarmedge_core::role::client::io::{CloseReason, Input};
use swarmedge_core::wire::peer::CONTROL_STREAM;

/// After this long a dial has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(6);
/// The next address is tried after this long, beside the earlier ones (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

pub(super) fn start<R: Rt>(
    peers: &Peers<R>,
    id: ConnId,
    download: DownloadId,
    key: PublicKey,
    addrs: Vec<SocketAddr>,
    permit: Permit<Input>,
) {
    let cancel = Cancel::default();
    peers.0.state.borrow_mut().conns.insert(id, Entry::Dialling(cancel.clone()));
    let peers = peers.clone();
    let rt = peers.0.rt.clone();
    rt.spawn(async move {
        let open = async { within(&peers.0.rt, DIAL_TIMEOUT, open(&peers, download, key, addrs)).await.flatten() };
        let opened = future::or(open, async {
            cancel.cancelled().await;
            None
        })
        .await;
        match opened {
            Some((quic, send, recv)) => run(peers, id, quic, send, recv, permit).await,
            None => peers.dial_failed(id, permit),
        }
    });
}

/// A connection to the first address that answers with the right key, and its control stream.
async fn open<R: Rt>(
    peers: &Peers<R>,
    download: DownloadId,
    key: PublicKey,
    addrs: Vec<SocketAddr>,
) -> Option<(quinn::Connection, quinn::SendStream, quinn::RecvStream)> {
    let store = peers.0.store.clone();
    let own = peers.0.rt.blocking(move || store.key(download)).await.ok().flatten();
    let Some(own) = own else {
        tracing::warn!(%download, "the download's key is not in the store");
        return None;
    };
    let config = tls::peer_client_config(&own, key)
        .map_err(|error| tracing::warn!(%error, "no connection to peers is possible"))
        .ok()?;
    let attempts = addrs.into_iter().take(CANDIDATES_MAX).map(|addr| {
        let begun = peers.0.endpoint.connect(addr, Arc::clone(&config));
        async move {
            let failed = |error: &dyn std::fmt::Display| tracing::debug!(%addr, %error, "no connection to a peer");
            match begun {
                Ok(connecting) => connecting.await.map_err(|e| failed(&e)).ok(),
                Err(e) => {
                    failed(&e);
                    None
                }
            }
        }
    });
    let quic = first_of(&peers.0.rt, STAGGER, attempts).await?;
    let (mut send, recv) = quic.open_bi().await.ok()?;
    send.write_all(&[CONTROL_STREAM]).await.ok()?;
    Some((quic, send, recv))
}

async fn run<R: Rt>(
    peers: Peers<R>,
    id: ConnId,
    quic: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    permit: Permit<Input>,
) {
    let Some(conn) = peers.opened(id, quic.clone(), true) else {
        quic.close((CloseReason::Done as u8).into(), b"");
        return;
    };
    permit.send(Input::PeerOpened { conn: id });
    conn.start_control(&peers.0.rt, send);
    read(&peers, &conn, recv).await;
    peers.ended(&conn).await;
}

async fn read<R: Rt>(peers: &Peers<R>, conn: &Rc<Conn>, recv: quinn::RecvStream) {
    let closed = conn.quic.closed();
    future::or(conn::read_control(peers, conn, recv, None), async {
        closed.await;
    })
    .await;
}
