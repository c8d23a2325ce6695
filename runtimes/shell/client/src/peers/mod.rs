//! Connections to other clients: performs those outputs of the client machine that concern peers, and reports the
//! results.
//!
//! Every report goes through the machine's mailbox. Tasks that read from peers wait while it is full. Space for a
//! command's last report is reserved when the command begins; if there is none, the command fails at once.

mod accept;
pub mod bench;
mod conn;
mod dial;
mod fetch;
mod link;
mod raw_tcp;
mod scatter;
mod serve;
mod util;
mod watch;

pub use accept::TcpAcceptor;

use crate::store::{SINK_BYTES_MAX, Store};
use conn::Conn;
use futures_lite::future;
use link::Link;
use serve::{Rate, Request};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use swarmedge_core::ids::{ConnId, IntroId, RawTcpId, VersionId, XferId};
use swarmedge_core::limits::PEER_CONNECTIONS_MAX;
use swarmedge_core::role::client::io::{CloseReason, FetchEnd, Input, PeerOutput};
use swarmedge_core::wire::peer::RefuseCode;
use swarmedge_ground::http::Signal;
use swarmedge_ground::mailbox::{Permit, Sender};
use swarmedge_ground::nat::udp::Udp;
use swarmedge_ground::quic::{Endpoint, WINDOW_MAX, WINDOW_MIN};
use swarmedge_ground::rt::Rt;
use util::Cancel;

/// Maximum number of bytes that all peers together may make a client hold in memory.
const BUFFERED_MAX: usize = 256 << 20;
/// Maximum number of transfers from one peer that hold received bytes; other transfers' bytes stay unread within the
/// connection's flow control window.
const SINKS_PER_PEER: usize = 4;

const _: () = assert!(PEER_CONNECTIONS_MAX * (SINKS_PER_PEER * SINK_BYTES_MAX + WINDOW_MIN as usize) <= BUFFERED_MAX);

/// A client's connections to peers. Clones share them.
pub struct Peers<R: Rt>(Rc<Inner<R>>);

impl<R: Rt> Clone for Peers<R> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

struct Inner<R: Rt> {
    rt: R,
    store: Store,
    endpoint: Endpoint,
    inbox: Sender<Input>,
    /// TLS configuration with this client's upload key, for peers that connect over TCP.
    tls: Arc<rustls::ServerConfig>,
    /// TCP connections on which no peer has shown its key yet, with the remote addresses.
    raw_tcp: RefCell<BTreeMap<RawTcpId, (R::Tcp, SocketAddr)>>,
    /// Set when no more connections are accepted over TCP.
    closing: Signal,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    conns: BTreeMap<ConnId, Entry>,
    fetches: BTreeMap<XferId, Cancel>,
    requests: BTreeMap<XferId, Request>,
    serves: BTreeMap<XferId, (Cancel, RefuseSlot)>,
    /// TCP connections that are being opened.
    calls: BTreeMap<RawTcpId, Cancel>,
    rates: BTreeMap<VersionId, Rate>,
    /// Rate limit of each version of which transfers run, which all follow the newest transfer's.
    limits: BTreeMap<VersionId, Rc<Cell<u64>>>,
    /// The additional UDP sockets of introductions that use birthday probing.
    scattered: BTreeMap<IntroId, BTreeMap<u16, Udp>>,
    last: u64,
    /// Number of running handshakes of incoming connections.
    greeting: usize,
    /// Whether a task checks the connections for silence.
    watched: bool,
}

/// The code that a peer gets when a running transfer to it is stopped.
type RefuseSlot = Rc<RefCell<RefuseCode>>;

enum Entry {
    /// The connection is being opened. Removing this entry makes the attempt end without a report.
    Dialling(Cancel),
    Open(Rc<Conn>),
}

impl State {
    fn number(&mut self) -> u64 {
        self.last += 1;
        ConnId::ACCEPTED.0 | self.last
    }

    /// Returns the open connections.
    fn open(&self) -> impl Iterator<Item = &Rc<Conn>> {
        self.conns.values().filter_map(|e| match e {
            Entry::Open(conn) => Some(conn),
            Entry::Dialling(_) => None,
        })
    }

    /// Divides the bytes that peers may make this client hold among the open connections.
    fn share_windows(&self) {
        let n = self.open().count().max(1);
        let each = (BUFFERED_MAX / n).saturating_sub(SINKS_PER_PEER * SINK_BYTES_MAX);
        let window = u32::try_from(each).unwrap_or(WINDOW_MAX).clamp(WINDOW_MIN, WINDOW_MAX);
        self.open().for_each(|conn| {
            conn.link.set_windows(window);
        });
    }
}

impl<R: Rt> Peers<R> {
    /// Starts accepting connections on `endpoint`, and reporting to `inbox`. `tls` is for peers that connect over
    /// TCP.
    #[must_use]
    pub fn new(rt: R, store: Store, endpoint: Endpoint, tls: Arc<rustls::ServerConfig>, inbox: Sender<Input>) -> Self {
        let peers = Self(Rc::new(Inner {
            rt: rt.clone(),
            store,
            endpoint,
            inbox,
            tls,
            raw_tcp: RefCell::default(),
            closing: Signal::default(),
            state: RefCell::default(),
        }));
        rt.spawn(accept::run(peers.clone()));
        peers
    }

    /// Performs an output of the client machine. Results known at once are pushed to `local`.
    pub fn perform(&self, output: PeerOutput, local: &mut VecDeque<Input>) {
        match output {
            PeerOutput::Dial { conn, download, key, addrs, along } => match self.0.inbox.reserve() {
                Ok(permit) => dial::start(self, conn, dial::Whom { download, key, addrs, along }, permit),
                Err(_) => local.push_back(Input::PeerClosed { conn }),
            },
            PeerOutput::Expect { addrs } => self.expect(&addrs),
            PeerOutput::Probe { to, bytes, ttl } => self.probe(to, &bytes, ttl),
            PeerOutput::Scatter(what) => self.scatter(what),
            PeerOutput::RawTcp(what) => self.raw_tcp(what, local),
            PeerOutput::Send { conn, msg } => {
                let open = self.conn(conn);
                if let Some(open) = open {
                    open.send(&msg);
                }
            }
            PeerOutput::Close { conn, why } => self.close(conn, why),
            PeerOutput::Fetch { xfer, conn, version, piece, blocks } => {
                let permit = self.0.inbox.reserve().ok();
                match (permit, self.conn(conn)) {
                    (Some(permit), Some(conn)) => {
                        fetch::start(self, &conn, fetch::Want { xfer, version, piece, blocks }, permit);
                    }
                    _ => local.push_back(Input::FetchEnded { xfer, end: FetchEnd::Broken }),
                }
            }
            // an unknown transfer has ended already, and its completion is in the mailbox
            PeerOutput::CancelFetch { xfer } => {
                if let Some(cancel) = self.0.state.borrow().fetches.get(&xfer) {
                    cancel.cancel();
                }
            }
            PeerOutput::Serve { xfer, version, piece, blocks, leaves, rate_max } => {
                let rate_max = self.limit(version, rate_max);
                self.serve(xfer, serve::What { version, piece, blocks, leaves, rate_max }, local);
            }
            PeerOutput::Refuse { xfer, why } => self.refuse(xfer, why),
            PeerOutput::ProbePaths => self.knock(),
        }
    }

    /// Sets the rate limit of a version, bytes a second, also for its transfers under way.
    fn limit(&self, version: VersionId, rate_max: u64) -> Rc<Cell<u64>> {
        let mut state = self.0.state.borrow_mut();
        state.limits.retain(|_, limit| Rc::strong_count(limit) > 1);
        let limit = state.limits.entry(version).or_default();
        limit.set(rate_max);
        Rc::clone(limit)
    }

    /// Sends the blocks that a peer has requested.
    fn serve(&self, xfer: XferId, what: serve::What, local: &mut VecDeque<Input>) {
        let request = self.0.state.borrow_mut().requests.remove(&xfer);
        match (request, self.0.inbox.reserve()) {
            (Some(request), Ok(permit)) => serve::start(self, xfer, request, what, permit),
            (request, _) => {
                if let Some(request) = request {
                    request.refuse(RefuseCode::Failed);
                }
                local.push_back(Input::ServeEnded { xfer, bytes: 0 });
            }
        }
    }

    /// Refuses a peer's request, or stops serving it.
    fn refuse(&self, xfer: XferId, why: RefuseCode) {
        let request = self.0.state.borrow_mut().requests.remove(&xfer);
        if let Some(request) = request {
            request.refuse(why);
        } else if let Some((cancel, slot)) = self.0.state.borrow().serves.get(&xfer) {
            *slot.borrow_mut() = why;
            cancel.cancel();
        }
    }

    /// Has every connection check that the peer still answers, as after a change of the network.
    fn knock(&self) {
        self.0.endpoint.knock();
        self.0.state.borrow().open().for_each(|conn| {
            conn.link.knock();
            conn.watch.knocked();
        });
    }

    /// Accepts connections over TCP too, until this client ends.
    pub fn listen(&self, listener: R::Listener, acceptor: TcpAcceptor) {
        let (closing, accepting) = (self.0.closing.clone(), accept::run_tcp(self.clone(), listener, acceptor));
        self.0.rt.spawn(async move { future::or(closing.wait(), accepting).await });
    }

    /// Returns the number of connected peers.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.0.state.borrow().open().count()
    }

    /// Closes every connection and stops accepting.
    pub async fn shutdown(&self) {
        self.0.closing.set();
        let links: Vec<_> = self.0.state.borrow().open().map(|conn| conn.link.clone()).collect();
        for link in &links {
            link.close(CloseReason::Shutdown as u8);
        }
        for link in links {
            link.over().await;
        }
        self.0.raw_tcp.borrow_mut().clear();
        self.0.state.borrow().calls.values().for_each(Cancel::cancel);
        let endpoint = self.0.endpoint.clone();
        endpoint.close(CloseReason::Shutdown as u8, "shutdown").await;
    }

    /// Returns a connection, if it is open.
    fn conn(&self, conn: ConnId) -> Option<Rc<Conn>> {
        match self.0.state.borrow().conns.get(&conn) {
            Some(Entry::Open(open)) => Some(Rc::clone(open)),
            Some(Entry::Dialling(_)) | None => None,
        }
    }

    /// Sends one datagram to each address, which makes our NAT admit packets from there. The receiver ignores it: it
    /// is neither QUIC nor STUN.
    fn expect(&self, addrs: &[SocketAddr]) {
        let raw = self.0.endpoint.raw();
        for addr in addrs {
            if let Err(error) = raw.send(&[0], *addr) {
                tracing::debug!(%addr, %error, "no datagram could be sent");
            }
        }
    }

    /// Sends one datagram. A failure is only logged, as if the datagram were lost on its way.
    fn probe(&self, to: SocketAddr, bytes: &[u8], ttl: Option<u8>) {
        let raw = self.0.endpoint.raw();
        let sent = match ttl {
            Some(ttl) => raw.send_with_ttl(bytes, to, ttl),
            None => raw.send(bytes, to),
        };
        if let Err(error) = sent {
            tracing::debug!(%to, %error, "no datagram could be sent");
        }
    }

    fn close(&self, conn: ConnId, why: CloseReason) {
        let entry = self.0.state.borrow_mut().conns.remove(&conn);
        match entry {
            Some(Entry::Dialling(cancel)) => cancel.cancel(),
            Some(Entry::Open(open)) => {
                tracing::debug!(%conn, ?why, "peer connection closed");
                open.link.close(why as u8);
                self.0.state.borrow().share_windows();
            }
            None => {}
        }
    }

    /// Registers a newly opened connection; `None` if the machine has closed it while it was being opened.
    fn opened(&self, id: ConnId, link: Link, dialled: bool) -> Option<Rc<Conn>> {
        let mut state = self.0.state.borrow_mut();
        if dialled && !matches!(state.conns.get(&id), Some(Entry::Dialling(_))) {
            return None;
        }
        let conn = Rc::new(Conn::new(id, link));
        state.conns.insert(id, Entry::Open(Rc::clone(&conn)));
        state.share_windows();
        if !std::mem::replace(&mut state.watched, true) {
            self.0.rt.spawn(watch::run(self.clone()));
        }
        Some(conn)
    }

    /// Removes a connection that has ended, and reports that unless the machine itself has closed it.
    async fn ended(&self, conn: &Rc<Conn>) {
        tracing::debug!(conn = %conn.id, why = conn.link.close_reason(), "a peer connection has ended");
        let known = {
            let mut state = self.0.state.borrow_mut();
            state.requests.retain(|_, r| r.conn != conn.id);
            let known = state.conns.remove(&conn.id).is_some();
            state.share_windows();
            known
        };
        if known {
            // without a machine there is nobody to tell
            let _ = self.0.inbox.send(Input::PeerClosed { conn: conn.id }).await;
        }
    }
}

impl<R: Rt> Peers<R> {
    /// Reports that a connection could not be opened.
    fn dial_failed(&self, conn: ConnId, permit: Permit<Input>) {
        if self.0.state.borrow_mut().conns.remove(&conn).is_some() {
            permit.send(Input::PeerClosed { conn });
        }
    }
}
