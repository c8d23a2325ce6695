//! Invariants of a multiplexer.

use super::{Incoming, Mux, Outgoing, Side, Stream};
use crate::limits::{FRAME_LEN_MAX, MUX_STREAMS_MAX, MUX_UNREAD_MAX, MUX_UNSENT_MAX};
use bytes::Bytes;

fn sum<'a>(chunks: impl IntoIterator<Item = &'a Bytes>) -> usize {
    chunks.into_iter().map(Bytes::len).sum()
}

impl Mux {
    /// Asserts the invariants of the windows and of the connection's end, without a walk.
    pub(super) fn check_windows(&self) {
        assert!(self.taken <= self.untaken, "only received bytes were read");
        assert!(self.untaken <= MUX_UNREAD_MAX, "no more bytes are received than the window allows");
        assert!(self.credit <= MUX_UNREAD_MAX, "the other side's window is no larger than this side's");
        assert!(self.streams.len() <= MUX_STREAMS_MAX, "no more streams are open than allowed");
        assert!(self.partial.len() < 4 + FRAME_LEN_MAX, "an incomplete frame is shorter than the longest one");
        let over = self.streams.is_empty() && self.opened.is_empty();
        assert!(self.closed.is_none() || over, "a closed connection has no streams");
    }

    /// Asserts every invariant, by a walk over all streams.
    pub fn check(&self) {
        self.check_windows();
        for (id, stream) in &self.streams {
            assert!(*id < self.next, "each stream was opened in turn");
            assert!(!stream.is_over(self.side), "a stream that is over is forgotten");
            stream.check();
        }
        let waits = |id| self.side == Side::Accepts && self.streams.contains_key(id);
        assert!(self.opened.iter().all(waits), "a stream to accept is open, and of the other side");
        let received = self.unread() + self.taken;
        assert!(self.closed.is_some() || received == self.untaken, "the window counts each byte received");
    }
}

impl Stream {
    fn check(&self) {
        let readable = matches!(self.incoming, Incoming::Open | Incoming::Finished);
        assert!(readable || self.unread.is_empty(), "nothing waits to be read after a reset or a stop");
        assert!(self.outgoing != Outgoing::Done || self.unsent.is_empty(), "nothing waits to be sent after the end");
        assert!(self.unsent_len == sum(&self.unsent), "the bytes that wait to be sent are counted");
        assert!(self.unsent_len <= MUX_UNSENT_MAX, "no more bytes wait to be sent than allowed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Clause, assert_each_clause_fires};

    fn first(m: &mut Mux) -> &mut Stream {
        m.streams.get_mut(&0).expect("a stream")
    }

    const CLAUSES: &[Clause<Mux>] = &[
        ("only received bytes were read", |m| m.taken = m.untaken + 1),
        ("no more bytes are received than the window allows", |m| m.untaken = MUX_UNREAD_MAX + 1),
        ("the other side's window is no larger than this side's", |m| m.credit += 1),
        ("no more streams are open than allowed", |m| {
            m.streams.extend((1..=257).map(|id| (id, Stream::new())));
        }),
        ("an incomplete frame is shorter than the longest one", |m| m.partial.resize(4 + FRAME_LEN_MAX, 0)),
        ("a closed connection has no streams", |m| m.closed = Some(0)),
        ("each stream was opened in turn", |m| m.next = 0),
        ("a stream that is over is forgotten", |m| {
            (first(m).incoming, first(m).outgoing) = (Incoming::Finished, Outgoing::Done);
        }),
        ("nothing waits to be read after a reset or a stop", |m| first(m).incoming = Incoming::Reset(1)),
        ("nothing waits to be sent after the end", |m| first(m).outgoing = Outgoing::Done),
        ("the bytes that wait to be sent are counted", |m| first(m).unsent_len += 1),
        ("no more bytes wait to be sent than allowed", |m| {
            first(m).unsent.push_back(Bytes::from(alloc::vec![0; MUX_UNSENT_MAX]));
            first(m).unsent_len += MUX_UNSENT_MAX;
        }),
        ("a stream to accept is open, and of the other side", |m| m.opened.push_back(7)),
        ("the window counts each byte received", |m| m.untaken += 1),
    ];

    #[test]
    fn each_clause_about_a_multiplexer_fires() {
        let (mut a, mut b) = (Mux::new(Side::Dials), Mux::new(Side::Accepts));
        let id = a.open().expect("a stream");
        a.write(id, &mut Bytes::from_static(b"question")).expect("open");
        while let Some(frame) = a.next_frame() {
            b.received(&frame).expect("an honest peer");
        }
        b.write(id, &mut Bytes::from_static(b"answer")).expect("open");
        assert_each_clause_fires(&b, Mux::check, CLAUSES);
    }
}
