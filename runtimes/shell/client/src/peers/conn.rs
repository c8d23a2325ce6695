//! One connection to a peer: its control stream and its end.

use super::link::{Link, NotRead, RecvStream, SendStream};
use super::util::{Slots, Stall};
use super::watch::Watch;
use super::{Peers, SINKS_PER_PEER};
use futures_lite::future;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use swarmedge_core::ids::ConnId;
use swarmedge_core::role::client::io::{CloseReason, Input};
use swarmedge_core::wire::peer::PeerMsg;
use swarmedge_core::wire::{Framed, frame, frame_len};
use swarmedge_ground::mailbox::{Receiver, Sender, mailbox};
use swarmedge_ground::rt::Rt;

/// Maximum number of control messages in the send queue.
const CONTROL_QUEUE: usize = 1024;
/// Maximum bytes of control messages in the send queue.
const CONTROL_BYTES_MAX: usize = 1 << 20;
/// Maximum number of requests of one peer that are answered at a time; others wait, so that each answer is sent fast.
const SERVED_AT_A_TIME: usize = 2;

/// An open connection to a peer.
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) link: Link,
    /// Permits for incoming transfers that hold received bytes in memory.
    pub(super) sinks: Slots,
    /// Permits for outgoing transfers, which answer the peer's requests.
    pub(super) serves: Slots,
    pub(super) watch: Watch,
    control: Sender<Vec<u8>>,
    /// The queued control messages, until the control stream is open and sends them.
    unsent: RefCell<Option<Receiver<Vec<u8>>>>,
    queued: Cell<usize>,
}

impl Conn {
    pub(super) fn new(id: ConnId, link: Link) -> Self {
        let (control, unsent) = mailbox(CONTROL_QUEUE);
        Self {
            id,
            link,
            sinks: Slots::new(SINKS_PER_PEER),
            serves: Slots::new(SERVED_AT_A_TIME),
            watch: Watch::default(),
            control,
            unsent: RefCell::new(Some(unsent)),
            queued: Cell::new(0),
        }
    }

    /// Queues a control message. If too many are queued already, closes the connection.
    pub(super) fn send(&self, msg: &PeerMsg) {
        let bytes = frame(msg);
        let queued = self.queued.get() + bytes.len();
        if queued > CONTROL_BYTES_MAX || self.control.try_send(bytes).is_err() {
            self.fail(CloseReason::Stalled);
            return;
        }
        self.queued.set(queued);
    }

    /// Closes the connection; its task then reports the end to the machine.
    pub(super) fn fail(&self, why: CloseReason) {
        self.link.close(why as u8);
    }

    /// Returns whether the control stream is open.
    pub(super) fn has_control(&self) -> bool {
        self.unsent.borrow().is_none()
    }

    /// Sends the queued control messages on the newly opened control stream, and all later ones. Returns `false` if
    /// there was a control stream already.
    pub(super) fn start_control<R: Rt>(self: &Rc<Self>, rt: &R, mut stream: SendStream) -> bool {
        let Some(mut queue) = self.unsent.borrow_mut().take() else { return false };
        let conn = Rc::clone(self);
        rt.spawn(async move {
            let closed = conn.link.closed();
            let write = async {
                while let Some(bytes) = queue.recv().await {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                    conn.queued.set(conn.queued.get().saturating_sub(bytes.len()));
                }
            };
            future::or(write, async {
                closed.await;
            })
            .await;
        });
        true
    }
}

/// The reason why a frame could not be read.
pub(super) enum NoFrame {
    /// The frame's length is invalid, or the stream ended within it.
    Invalid,
    /// Reading from the stream failed.
    Read(NotRead),
}

impl From<NotRead> for NoFrame {
    fn from(e: NotRead) -> Self {
        Self::Read(e)
    }
}

/// Reads one frame of at most `max` bytes; returns its content.
pub(super) async fn read_frame(stream: &mut RecvStream, max: usize) -> Result<Vec<u8>, NoFrame> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?.ok_or(NoFrame::Invalid)?;
    // judged by the codec, which knows the bounds
    frame_len(&head).map_err(|_| NoFrame::Invalid)?;
    let len = usize::try_from(u32::from_be_bytes(head)).ok().filter(|n| *n <= max).ok_or(NoFrame::Invalid)?;
    let mut content = vec![0; len];
    stream.read_exact(&mut content).await?.ok_or(NoFrame::Invalid)?;
    Ok(content)
}

/// Passes the peer's control messages to the machine until the stream or the connection ends; the first message must
/// come within the time `first`.
pub(super) async fn read_control<R: Rt>(
    peers: &Peers<R>,
    conn: &Rc<Conn>,
    mut stream: RecvStream,
    first: Option<Duration>,
) {
    let rt = &peers.0.rt;
    let mut limit = first;
    loop {
        let read = async { read_frame(&mut stream, swarmedge_core::limits::FRAME_LEN_MAX).await.ok() };
        let content = match limit.take() {
            Some(limit) => {
                let stall = Stall::new(rt.now(), limit);
                future::or(read, async {
                    stall.stalled(rt).await;
                    None
                })
                .await
            }
            None => read.await,
        };
        let Some(content) = content else { break };
        let msg = match Framed::<PeerMsg>::decode(&content) {
            Ok(Some(framed)) => framed.msg,
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(conn = %conn.id, %error, "a peer's message is not valid");
                break;
            }
        };
        if peers.0.inbox.send(Input::Peer { conn: conn.id, msg }).await.is_err() {
            break;
        }
    }
    // without control stream a connection has no further use
    conn.fail(CloseReason::Violation);
}
