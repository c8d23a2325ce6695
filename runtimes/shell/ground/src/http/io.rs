//! futures-io streams as hyper wants them.

use futures_lite::io::{AsyncRead, AsyncWrite};
use hyper::rt::ReadBufCursor;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Bytes of the buffer that all connections of a thread read through, one after another.
const SCRATCH_LEN: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_LEN]);
}

/// The phase of a connection, seen from outside hyper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests: nothing of the next one has come.
    Idle,
    /// A request's head is arriving (or the first is awaited).
    Head,
    /// A request is being answered.
    Busy,
}

/// The activity of a connection, as its watchdog reads it.
#[derive(Debug)]
pub(crate) struct Pulse {
    pub(crate) phase: Cell<Phase>,
    /// Counter of the reads and writes that moved bytes.
    pub(crate) beats: Cell<u64>,
    /// Counter of the connection's requests.
    pub(crate) requests: Cell<u64>,
}

impl Pulse {
    pub(crate) fn new(phase: Phase) -> Rc<Self> {
        Rc::new(Self { phase: Cell::new(phase), beats: Cell::new(0), requests: Cell::new(0) })
    }

    fn beat(&self) {
        self.beats.set(self.beats.get().wrapping_add(1));
    }
}

/// A byte stream for hyper. It has no buffer of its own.
#[derive(Debug)]
pub struct Io<T> {
    inner: T,
    pulse: Rc<Pulse>,
    /// An error that came after bytes of the same read, for the next one.
    late: Option<io::Error>,
}

impl<T> Io<T> {
    /// Wraps a stream for hyper, without a watchdog.
    pub fn new(inner: T) -> Self {
        Self::with_pulse(inner, Pulse::new(Phase::Busy))
    }

    pub(crate) const fn with_pulse(inner: T, pulse: Rc<Pulse>) -> Self {
        Self { inner, pulse, late: None }
    }
}

impl<T: AsyncRead + Unpin> Io<T> {
    /// Fills `buf` as far as bytes are at hand: TLS gives 16 KiB at a time, hyper works better with more.
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
                    self.pulse.phase.set(Phase::Head);
                }
            }
            cursor.put_slice(&scratch[..n]);
            Poll::Ready(Ok(()))
        })
    }
}

impl<T: AsyncWrite + Unpin> hyper::rt::Write for Io<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.pulse.beat();
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        self.pulse.beat();
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        // content is queued as it is instead of being copied behind the head
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}
