//! Links: framed connections over TLS on TCP, between clients and CNs and among servers.
//!
//! A link's reader decodes frames and waits while the role's mailbox is full; its writer sends from a queue with a cap
//! on items and bytes, above which the link closes. Any misbehaviour of the other side (no TLS, no key, garbage,
//! silence, not reading) ends that one link with one line in the log. [`dial()`] and [`accept()`] open links, [`Links`]
//! is the table of open ones, and [`Inlet`] passes their events to a machine.

mod accept;
mod dial;

pub use accept::{Accept, accept};
pub use dial::{connect, dial};

use crate::mailbox::Sender;
use crate::rt::{AsyncRead, AsyncWrite, Rt};
use futures_lite::future::{or, poll_fn};
use futures_lite::io::{AsyncWriteExt as _, split};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker, ready};
use std::time::{Duration, Instant};
use swarmedge_core::ids::{ConnId, PublicKey};
use swarmedge_core::wire::{DecodeError, Framed, Wire, frame, frame_len};

/// Time limit for sending the rest of the queue of a closed link.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
/// Most bytes of frames that are gathered for one write.
const WRITE_LEN: usize = 64 * 1024;
/// Bytes per read, into a buffer that all links of a thread share, so that an idle link holds none.
const READ_LEN: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_LEN]);
}

/// Bound of a link's send queue.
#[derive(Clone, Copy, Debug)]
pub struct Cap {
    /// Most frames in the queue.
    pub items: usize,
    /// Most bytes of queued frames.
    pub bytes: usize,
}

impl Cap {
    /// Bound of links to clients, which get few messages.
    pub const CLIENT: Self = Self { items: 1024, bytes: 1024 * 1024 };
    /// Bound of links among servers. What a CN sends to rebuild a DN's directory, for all its clients at once, must
    /// fit.
    pub const SERVER: Self = Self { items: 128 * 1024, bytes: 64 * 1024 * 1024 };
}

/// Reason why a link has ended.
#[derive(Debug)]
pub enum End {
    /// Closed by this side, after its queue was sent or the time limit passed.
    Closed,
    /// The other side closed the link.
    Gone,
    /// The connection failed with an I/O error.
    Broken(io::Error),
    /// The other side sent bytes that are not a message.
    Garbage(DecodeError),
    /// The other side's first frame did not come in time.
    Silent,
    /// The other side does not read: the queue has reached its cap.
    Overflow,
    /// The machine that receives the messages has ended.
    Unwanted,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Gone => f.write_str("closed by the other side"),
            Self::Broken(e) => write!(f, "broken: {e}"),
            Self::Garbage(e) => write!(f, "not our protocol: {e}"),
            Self::Silent => f.write_str("no message came in time"),
            Self::Overflow => f.write_str("the other side does not read"),
            Self::Unwanted => f.write_str("this side is ending"),
        }
    }
}

/// The sending end of a framed connection. Clones are the same connection.
pub struct Link<M>(Rc<Queue>, PhantomData<fn(M)>);

impl<M> Clone for Link<M> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0), PhantomData)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The writer sends the rest of the queue, then closes the connection.
    Finishing,
    /// The queue has exceeded its cap; the link ends without sending more.
    Overflown,
}

struct Queue {
    cap: Cap,
    frames: RefCell<VecDeque<Vec<u8>>>,
    bytes: Cell<usize>,
    phase: Cell<Phase>,
    writer: RefCell<Option<Waker>>,
}

impl Queue {
    fn wake(&self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    /// Waits for the next batch of frames to write; `None` when the writer must end.
    async fn next(&self) -> Option<Vec<u8>> {
        poll_fn(|cx| {
            if self.phase.get() == Phase::Overflown {
                return Poll::Ready(None);
            }
            let mut frames = self.frames.borrow_mut();
            let Some(mut batch) = frames.pop_front() else {
                if self.phase.get() == Phase::Finishing {
                    return Poll::Ready(None);
                }
                self.writer.replace(Some(cx.waker().clone()));
                return Poll::Pending;
            };
            while let Some(next) = frames.pop_front_if(|next| batch.len() + next.len() <= WRITE_LEN) {
                batch.extend_from_slice(&next);
            }
            self.bytes.set(self.bytes.get() - batch.len());
            Poll::Ready(Some(batch))
        })
        .await
    }

    /// Completes when the queue overflows, to end the link even if its writer is stuck in a write.
    async fn overflown(&self) -> End {
        // this future and the writer are parts of one task, which any wake polls as a whole
        poll_fn(|cx| {
            if self.phase.get() == Phase::Overflown {
                return Poll::Ready(End::Overflow);
            }
            self.writer.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

impl<M: Wire + Clone> Link<M> {
    fn new(cap: Cap) -> Self {
        let queue = Queue {
            cap,
            frames: RefCell::default(),
            bytes: Cell::new(0),
            phase: Cell::new(Phase::Open),
            writer: RefCell::default(),
        };
        Self(Rc::new(queue), PhantomData)
    }

    /// Queues a message; if it exceeds the cap, the link ends with [`End::Overflow`].
    pub fn send(&self, msg: &M) {
        if self.0.phase.get() != Phase::Open {
            return;
        }
        let frame = frame(msg);
        let bytes = self.0.bytes.get() + frame.len();
        let mut frames = self.0.frames.borrow_mut();
        if frames.len() >= self.0.cap.items || bytes > self.0.cap.bytes {
            self.0.phase.set(Phase::Overflown);
        } else {
            self.0.bytes.set(bytes);
            frames.push_back(frame);
        }
        drop(frames);
        self.0.wake();
    }

    /// Closes the link after the queue is sent. Later messages from the other side are not received.
    pub fn close(&self) {
        if self.0.phase.get() == Phase::Open {
            self.0.phase.set(Phase::Finishing);
            self.0.wake();
        }
    }

    fn is_closing(&self) -> bool {
        self.0.phase.get() == Phase::Finishing
    }
}

/// The open links of one kind by connection id. Clones share the same table.
pub struct Links<M>(Rc<RefCell<BTreeMap<ConnId, Link<M>>>>);

impl<M> Clone for Links<M> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<M> Default for Links<M> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<M: Wire + Clone + 'static> Links<M> {
    /// Queues a message. If the link has ended the message is dropped; [`Event::Closed`] reports the end.
    pub fn send(&self, conn: ConnId, msg: &M) {
        if let Some(link) = self.0.borrow().get(&conn) {
            link.send(msg);
        }
    }

    /// Closes a link after its queue is sent; no [`Event::Closed`] follows.
    pub fn close(&self, conn: ConnId) {
        if let Some(link) = self.0.borrow_mut().remove(&conn) {
            link.close();
        }
    }

    /// Closes all links of the table.
    pub fn close_all(&self) {
        self.0.take().into_values().for_each(|link| link.close());
    }

    fn insert(&self, conn: ConnId, link: Link<M>) {
        self.0.borrow_mut().insert(conn, link);
    }

    fn remove(&self, conn: ConnId) {
        self.0.borrow_mut().remove(&conn);
    }
}

/// Event on a link.
#[derive(Debug)]
pub enum Event<M> {
    /// The link is open; accepted links name the peer, dialled links carry `None`.
    Opened(Option<Peer>),
    /// A message from the other side arrived.
    Message(M),
    /// The link could not be opened, or has ended other than by [`Links::close`].
    Closed,
}

/// The other side of an accepted link.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Ed25519 key that the other side proved in the TLS handshake.
    pub key: PublicKey,
    /// Remote address of the connection.
    pub from: SocketAddr,
}

/// Destination of link events: converts them to a machine's inputs with `wrap` and puts these into its mailbox. `Out`
/// is the type of messages that this side may send, `In` of those that the other side may send.
pub struct Inlet<Out, In, I> {
    /// Mailbox of the machine.
    pub inbox: Sender<I>,
    /// Table of open links, shared with the machine's port.
    pub links: Links<Out>,
    /// Converts an event into an input; `None` drops the event.
    pub wrap: fn(ConnId, Event<In>) -> Option<I>,
    /// The limits of each link's queue.
    pub cap: Cap,
}

impl<Out, In, I> Clone for Inlet<Out, In, I> {
    fn clone(&self) -> Self {
        Self { inbox: self.inbox.clone(), links: self.links.clone(), wrap: self.wrap, cap: self.cap }
    }
}

impl<Out: Wire + Clone + 'static, In: Wire + 'static, I: Send + 'static> Inlet<Out, In, I> {
    /// Passes an event of the connection to the machine.
    async fn tell(&self, conn: ConnId, event: Event<In>) -> Result<(), End> {
        match (self.wrap)(conn, event) {
            Some(input) => self.inbox.send(input).await.map_err(|_| End::Unwanted),
            None => Ok(()),
        }
    }

    /// Runs an open connection to its end. A first message must come before `first`, if that is set.
    async fn run<R: Rt, S>(&self, rt: &R, conn: ConnId, stream: S, first: Option<Instant>, who: Option<Peer>) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let link = Link::<Out>::new(self.cap);
        self.links.insert(conn, link.clone());
        if let Err(end) = self.tell(conn, Event::Opened(who)).await {
            self.links.remove(conn);
            return end;
        }
        let (reader, writer) = split(stream);
        let reading = self.read(rt, conn, reader, first);
        let end = or(or(write(rt, &link, writer), link.0.overflown()), async {
            let end = reading.await;
            if link.is_closing() {
                // closing: the writer ends the link once its queue is sent
                std::future::pending::<()>().await;
            }
            end
        })
        .await;
        if !link.is_closing() {
            self.links.remove(conn);
            // a failed send means that the machine has ended, so nobody needs the event
            let _ = self.tell(conn, Event::Closed).await;
        }
        end
    }

    /// Reads frames until the connection ends; the first must come before `first`.
    async fn read<R: Rt>(
        &self,
        rt: &R,
        conn: ConnId,
        mut stream: impl AsyncRead + Unpin,
        first: Option<Instant>,
    ) -> End {
        let mut buffer = Vec::new();
        let first = match first {
            None => next_frame(&mut stream, &mut buffer).await,
            Some(deadline) => {
                let silence = async {
                    rt.sleep_until(deadline).await;
                    Err(End::Silent)
                };
                or(next_frame(&mut stream, &mut buffer), silence).await
            }
        };
        let mut frame = first;
        loop {
            let delivered = match frame {
                Ok(Some(msg)) => self.tell(conn, Event::Message(msg)).await,
                // a message type of a later version is skipped
                Ok(None) => Ok(()),
                Err(end) => return end,
            };
            if let Err(end) = delivered {
                return end;
            }
            frame = next_frame(&mut stream, &mut buffer).await;
        }
    }
}

/// Reads the next message; `None` if its type is unknown and may be skipped.
async fn next_frame<M: Wire>(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Result<Option<M>, End> {
    loop {
        if let Some(len) = frame_len(buffer).map_err(End::Garbage)? {
            let msg = Framed::decode(&buffer[4..len]).map_err(End::Garbage)?;
            buffer.drain(..len);
            if buffer.is_empty() {
                // free the buffer: an idle link holds no memory
                *buffer = Vec::new();
            }
            return Ok(msg.map(|framed: Framed<M>| framed.msg));
        }
        let read = poll_fn(|cx| {
            SCRATCH.with_borrow_mut(|scratch| {
                let n = ready!(Pin::new(&mut *stream).poll_read(cx, scratch))?;
                buffer.extend_from_slice(&scratch[..n]);
                Poll::Ready(Ok(n))
            })
        });
        match read.await {
            Ok(0) => return Err(End::Gone),
            Ok(_) => {}
            Err(e) => return Err(broken(e)),
        }
    }
}

/// Classifies a read or write error. Peers often leave without a TLS close alert, which counts as [`End::Gone`].
fn broken(e: io::Error) -> End {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows")]
    match e.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => End::Gone,
        _ => End::Broken(e),
    }
}

/// Writes queued frames until the connection ends.
async fn write<M, R: Rt>(rt: &R, link: &Link<M>, mut stream: impl AsyncWrite + Unpin) -> End {
    let all = async {
        while let Some(batch) = link.0.next().await {
            if let Err(e) = stream.write_all(&batch).await {
                return broken(e);
            }
            if let Err(e) = stream.flush().await {
                return broken(e);
            }
        }
        if link.0.phase.get() == Phase::Overflown {
            return End::Overflow;
        }
        // a failed TLS close alert does not matter: the link ends anyway
        let _ = stream.close().await;
        End::Closed
    };
    let late = async {
        poll_fn(|cx| {
            if link.0.phase.get() == Phase::Finishing {
                return Poll::Ready(());
            }
            link.0.writer.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        rt.sleep_until(rt.now() + FLUSH_WITHIN).await;
        End::Closed
    };
    or(all, late).await
}

#[cfg(test)]
mod tests;
