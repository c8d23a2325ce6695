//! Bodies that this program sends.

use bytes::Bytes;
use futures_lite::Stream;
use hyper::body::{Frame, SizeHint};
use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body of known length.
pub struct Body {
    kind: Kind,
    left: u64,
    /// A value that is dropped when the body is sent or abandoned.
    guard: Option<Box<dyn Any>>,
}

enum Kind {
    Full(Bytes),
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>>>>),
}

impl Body {
    /// Returns a body without bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// Returns a body of the given bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { left: bytes.len() as u64, kind: Kind::Full(bytes), guard: None }
    }

    /// Returns a body of the stream's bytes, which must be `len` in all.
    #[must_use]
    pub fn stream(len: u64, stream: impl Stream<Item = io::Result<Bytes>> + 'static) -> Self {
        Self { left: len, kind: Kind::Stream(Box::pin(stream)), guard: None }
    }

    /// Returns the number of bytes still to be sent.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.left
    }

    /// Returns whether no byte is left to be sent.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Attaches a value that is dropped when the body is sent or abandoned.
    #[must_use]
    pub fn guarded(mut self, guard: impl Any) -> Self {
        self.guard = Some(match self.guard.take() {
            None => Box::new(guard),
            Some(inner) => Box::new((inner, guard)),
        });
        self
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.left)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let next = match &mut self.kind {
            Kind::Full(bytes) => Some(Ok(std::mem::take(bytes))),
            Kind::Stream(stream) => futures_lite::ready!(stream.as_mut().poll_next(cx)),
        };
        Poll::Ready(Some(match next {
            None => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(Err(e)) => Err(e),
            Some(Ok(bytes)) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Ok(Frame::data(bytes))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
