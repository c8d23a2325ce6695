//! futures-io streams as hyper wants them.

use super::seats::Seat;
use futures_lite::io::{AsyncRead, AsyncWrite};
use hyper::rt::ReadBufCursor;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Length in bytes of the read buffer that all connections of a thread share.
const SCRATCH_LEN: usize = 256 * 1024;

/// Reads of what came after the last request, before a connection is closed.
const LAST_READS_MAX: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_LEN]);
}

/// The phase of an HTTP connection, by which its watchdog chooses a time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between two requests: no byte of the next one has arrived.
    Idle,
    /// The head of a request is arriving; also before the first request.
    Head,
    /// A request is being answered.
    Busy,
}

/// The activity of a connection, which its watchdog checks.
#[derive(Debug)]
pub(crate) struct Pulse {
    pub(crate) phase: Cell<Phase>,
    /// Number of reads and writes that moved bytes, wrapping around.
    pub(crate) beats: Cell<u64>,
    /// Counter of the connection's requests.
    pub(crate) requests: Cell<u64>,
    /// Bytes that the other side, or the kernel for it, has taken.
    pub(crate) taken: Cell<u64>,
    /// Whether the last write waits for the other side to take something.
    pub(crate) waits: Cell<bool>,
    /// Seat of an accepted connection.
    seat: Option<Seat>,
    /// Whether the seat is kept.
    served: Cell<bool>,
}

impl Pulse {
    pub(crate) fn new(phase: Phase, seat: Option<Seat>) -> Rc<Self> {
        let (beats, requests, taken, waits) = (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(false));
        Rc::new(Self { phase: Cell::new(phase), beats, requests, taken, waits, seat, served: Cell::new(false) })
    }

    /// Begins a phase. The seat is kept from a request's head to the last byte of its answer.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        if phase == Phase::Busy {
            self.serve(true);
        }
    }

    /// Notes whether the connection is serving a request, so that it is not closed to make room.
    fn serve(&self, on: bool) {
        if self.served.replace(on) != on
            && let Some(seat) = &self.seat
        {
            seat.serve(on);
        }
    }

    /// Notes how a write ended: it moved so many bytes, or it waits for the other side.
    fn note_write(&self, moved: &Poll<io::Result<usize>>) {
        self.waits.set(moved.is_pending());
        if let Poll::Ready(Ok(n)) = moved {
            self.taken.set(self.taken.get().wrapping_add(*n as u64));
            self.beat();
        }
    }

    /// Notes that all that was written has left.
    fn note_flushed(&self) {
        if self.phase.get() == Phase::Idle {
            self.serve(false);
        }
    }

    fn beat(&self) {
        self.beats.set(self.beats.get().wrapping_add(1));
    }
}

/// A byte stream with hyper's I/O traits. It has no buffer of its own.
#[derive(Debug)]
pub struct Io<T> {
    inner: T,
    pulse: Rc<Pulse>,
    /// An error that followed bytes in the same read; the next read returns it.
    late: Option<io::Error>,
}

impl<T> Io<T> {
    /// Wraps a stream for hyper, without a watchdog.
    pub fn new(inner: T) -> Self {
        Self::with_pulse(inner, Pulse::new(Phase::Busy, None))
    }

    pub(crate) const fn with_pulse(inner: T, pulse: Rc<Pulse>) -> Self {
        Self { inner, pulse, late: None }
    }
}

impl<T: AsyncRead + Unpin> Io<T> {
    /// Fills `buf` with all bytes available now: TLS returns 16 KiB per read, and hyper is faster with more.
    fn read_many(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(e) = self.late.take() {
            return Poll::Ready(Err(e));
        }
        let mut filled = 0;
        while filled < buf.len() {
            match Pin::new(&mut self.inner).poll_read(cx, &mut buf[filled..]) {
                Poll::Ready(Ok(0)) => break,
                Poll::Ready(Ok(n)) => filled += n,
                Poll::Ready(Err(e)) if filled == 0 => return Poll::Ready(Err(e)),
                Poll::Ready(Err(e)) => {
                    self.late = Some(e);
                    break;
                }
                Poll::Pending if filled == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(filled))
    }
}

impl<T: AsyncRead + Unpin> hyper::rt::Read for Io<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let want = cursor.remaining().min(SCRATCH_LEN);
            let n = ready!(self.read_many(cx, &mut scratch[..want]))?;
            if n > 0 {
                self.pulse.beat();
                if self.pulse.phase.get() == Phase::Idle {
                    self.pulse.enter(Phase::Head);
                }
            }
            cursor.put_slice(&scratch[..n]);
            Poll::Ready(Ok(()))
        })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for Io<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.pulse.note_write(&moved);
        moved
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.pulse.note_write(&moved);
        moved
    }

    fn is_write_vectored(&self) -> bool {
        // content is queued as it is instead of being copied behind the head
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.pulse.waits.set(flushed.is_pending());
        if let Poll::Ready(Ok(())) = flushed {
            self.pulse.note_flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // a socket that is closed with bytes unread resets the connection, and the other side loses what is on its way
        SCRATCH.with_borrow_mut(|scratch| {
            for _ in 0..LAST_READS_MAX {
                match Pin::new(&mut self.inner).poll_read(cx, scratch) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) | Poll::Pending => break,
                }
            }
        });
        Pin::new(&mut self.inner).poll_close(cx)
    }
}
