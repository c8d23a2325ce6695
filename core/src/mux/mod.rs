//! The multiplexer: streams over one TCP connection, for peers that UDP does not reach, by the messages of
//! [`crate::wire::mux`] and without a socket. Bytes from the connection go into [`Mux::received`], bytes to send come
//! out of [`Mux::next_frame`]. The streams between are read and written like QUIC's, so the layers above use either.
//!
//! Invariants. Bounded: received bytes that were not read stay within the window, which is extended only as they are
//! read; a stream takes no more bytes to send than its bound. Fair: frames without data are sent first, then control,
//! then the oldest request with something to send. So requests are answered in order, a request that waits for its disk
//! delays no other, and a stopped stream sends nothing after the next frame. Total: any input is either a frame of an
//! honest peer or a [`Violation`].

mod invariants;
#[cfg(test)]
mod tests;

use crate::codec::{Blob, DecodeError};
use crate::limits::{MUX_DATA_MAX, MUX_NOTES_MAX, MUX_STREAMS_MAX, MUX_UNREAD_MAX, MUX_UNSENT_MAX};
use crate::wire::mux::{MuxMsg, StreamData, StreamEnd};
use crate::wire::{Framed, frame, frame_len};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use core::mem::take;

/// Number of a stream within its connection.
pub type StreamId = u32;

/// Bytes that must be read before the window is extended by a `Taken` frame.
const TAKEN_AT: usize = MUX_UNREAD_MAX / 8;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The end that dialled: only it opens streams.
    Dials,
    /// The end that was dialled.
    Accepts,
}

/// Reasons to close a connection: no honest peer sends that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// The bytes received are no frame.
    Frame(DecodeError),
    /// A stream was opened by the side that was dialled, or out of turn.
    OutOfTurn,
    /// More streams than allowed.
    TooMany,
    /// A frame for a stream that was never opened, or data after a stream's end.
    NoStream,
    /// More data than the window allows, or a data frame without data.
    Window,
    /// A `Taken` frame for more bytes than were sent.
    Taken,
    /// Too many frames that need an answer, while the answers are not read.
    Flood,
}

/// The result of reading a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// The next bytes of the stream.
    Bytes(Bytes),
    /// No bytes are available yet.
    Nothing,
    /// The stream's end: all of it was read.
    End,
    /// The other side has reset the stream, with this code.
    Reset(u8),
    /// The stream is over, or was never opened.
    Gone,
}

/// Error of writing to a stream that the other side has stopped or this side has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stopped;

/// State of a stream's receiving half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Incoming {
    Open,
    /// The other side has finished, and all bytes have come.
    Finished,
    Reset(u8),
    /// Stopped by this side: further bytes are discarded.
    Unwanted,
}

/// State of a stream's sending half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outgoing {
    Open,
    /// The bytes that wait to be sent are the last ones.
    Finishing,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stream {
    incoming: Incoming,
    unread: VecDeque<Bytes>,
    outgoing: Outgoing,
    unsent: VecDeque<Bytes>,
    unsent_len: usize,
}

impl Stream {
    const fn new() -> Self {
        Self {
            incoming: Incoming::Open,
            unread: VecDeque::new(),
            outgoing: Outgoing::Open,
            unsent: VecDeque::new(),
            unsent_len: 0,
        }
    }

    /// Whether the stream is over for both sides. The side that opened it keeps it until its end was read: by then the
    /// other side has forgotten it, and so has room for every stream that this side may open.
    fn is_over(&self, side: Side) -> bool {
        let read = match side {
            Side::Dials => self.incoming == Incoming::Unwanted,
            Side::Accepts => self.incoming != Incoming::Open,
        };
        self.outgoing == Outgoing::Done && read
    }

    /// Discards the bytes that wait to be read, and returns their number.
    fn discard(&mut self) -> usize {
        take(&mut self.unread).iter().map(Bytes::len).sum()
    }
}

/// One end of a multiplexed connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mux {
    side: Side,
    streams: BTreeMap<StreamId, Stream>,
    /// The number of the next stream.
    next: StreamId,
    /// Streams that were opened by the other side and not accepted yet.
    opened: VecDeque<StreamId>,
    /// The beginning of a frame that has not come whole.
    partial: Vec<u8>,
    /// Frames without data that wait to be sent.
    notes: VecDeque<MuxMsg>,
    /// Bytes received for which no `Taken` frame was sent: they use up the window.
    untaken: usize,
    /// The part of `untaken` that was read or discarded.
    taken: usize,
    /// Bytes of data that the other side's window still allows to send.
    credit: usize,
    /// Streams that became readable or writable since the last call of [`Mux::touched`].
    touched: BTreeSet<StreamId>,
    asked: bool,
    closed: Option<u8>,
}

impl Mux {
    /// Creates one end of a new connection.
    #[must_use]
    pub const fn new(side: Side) -> Self {
        Self {
            side,
            streams: BTreeMap::new(),
            next: 0,
            opened: VecDeque::new(),
            partial: Vec::new(),
            notes: VecDeque::new(),
            untaken: 0,
            taken: 0,
            credit: MUX_UNREAD_MAX,
            touched: BTreeSet::new(),
            asked: false,
            closed: None,
        }
    }

    /// Opens a stream; `None` while as many as allowed are open, after the connection was closed, or on the accepting
    /// side.
    pub fn open(&mut self) -> Option<StreamId> {
        if self.side != Side::Dials || self.streams.len() >= MUX_STREAMS_MAX || self.closed.is_some() {
            return None;
        }
        let id = self.next;
        self.next = self.next.checked_add(1)?;
        self.streams.insert(id, Stream::new());
        self.notes.push_back(MuxMsg::Open(id));
        Some(id)
    }

    /// Returns the next stream that the other side has opened.
    pub fn accept(&mut self) -> Option<StreamId> {
        self.opened.pop_front()
    }

    /// Returns the streams that became readable or writable since the last call.
    pub fn touched(&mut self) -> BTreeSet<StreamId> {
        take(&mut self.touched)
    }

    /// Reads the next bytes of a stream.
    pub fn read(&mut self, id: StreamId) -> Read {
        let Some(stream) = self.streams.get_mut(&id) else { return Read::Gone };
        if let Some(bytes) = stream.unread.pop_front() {
            self.taken += bytes.len();
            return Read::Bytes(bytes);
        }
        let read = match stream.incoming {
            Incoming::Open => Read::Nothing,
            Incoming::Finished => Read::End,
            Incoming::Reset(code) => Read::Reset(code),
            Incoming::Unwanted => Read::Gone,
        };
        if read != Read::Nothing {
            stream.incoming = Incoming::Unwanted;
            self.remove_if_over(id);
        }
        read
    }

    /// Queues as much of `bytes` as the stream's bound allows, and leaves the rest.
    pub fn write(&mut self, id: StreamId, bytes: &mut Bytes) -> Result<(), Stopped> {
        let stream = self.streams.get_mut(&id).filter(|s| s.outgoing == Outgoing::Open).ok_or(Stopped)?;
        let part = bytes.split_to(bytes.len().min(MUX_UNSENT_MAX - stream.unsent_len));
        if !part.is_empty() {
            stream.unsent_len += part.len();
            stream.unsent.push_back(part);
        }
        Ok(())
    }

    /// Ends a stream's sending half after the bytes that wait.
    pub fn finish(&mut self, id: StreamId) -> Result<(), Stopped> {
        let stream = self.streams.get_mut(&id).filter(|s| s.outgoing == Outgoing::Open).ok_or(Stopped)?;
        stream.outgoing = Outgoing::Finishing;
        Ok(())
    }

    /// Resets a stream's sending half: bytes that wait are not sent any more.
    pub fn reset(&mut self, id: StreamId, code: u8) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.outgoing != Outgoing::Done) else { return };
        stream.outgoing = Outgoing::Done;
        (stream.unsent, stream.unsent_len) = (VecDeque::new(), 0);
        self.notes.push_back(MuxMsg::Reset(StreamEnd { stream: id, code }));
        self.remove_if_over(id);
    }

    /// Stops a stream's receiving half: unread and further bytes are discarded.
    pub fn stop(&mut self, id: StreamId, code: u8) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.incoming != Incoming::Unwanted) else { return };
        let was_open = stream.incoming == Incoming::Open;
        stream.incoming = Incoming::Unwanted;
        let unread = stream.discard();
        if was_open {
            self.notes.push_back(MuxMsg::Stop(StreamEnd { stream: id, code }));
        }
        self.taken += unread;
        self.remove_if_over(id);
    }

    /// Asks the other side for a sign of life, unless an answer is still due.
    pub fn ping(&mut self) {
        if self.closed.is_none() && !core::mem::replace(&mut self.asked, true) {
            self.notes.push_back(MuxMsg::Ping);
        }
    }

    /// Closes the connection with a code; nothing else that waits is sent.
    pub fn close(&mut self, code: u8) {
        if self.closed.is_none() {
            self.notes = VecDeque::from([MuxMsg::Close(code)]);
            self.end(code);
        }
    }

    /// Returns the code with which either side has closed the connection.
    #[must_use]
    pub const fn closed(&self) -> Option<u8> {
        self.closed
    }

    /// Number of bytes that have come on streams and wait to be read.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.streams.values().flat_map(|s| &s.unread).map(Bytes::len).sum()
    }

    /// Number of streams that are not over.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Processes bytes from the connection. After a violation the caller must close it.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let received = self.take_frames(bytes);
        if cfg!(debug_assertions) {
            self.check_windows();
        }
        received
    }

    fn take_frames(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while self.closed.is_none() && !bytes.is_empty() {
            if self.partial.is_empty() {
                // whole frames are decoded in place, without a copy
                if let Some(len) = frame_len(bytes).map_err(Violation::Frame)? {
                    let (whole, rest) = bytes.split_at(len);
                    bytes = rest;
                    self.on_frame(&whole[4..])?;
                    continue;
                }
            }
            let missing = match self.partial.first_chunk::<4>() {
                None => 4 - self.partial.len(),
                Some(head) => {
                    let len = u32::from_be_bytes(*head).try_into().unwrap_or(usize::MAX);
                    len.saturating_sub(self.partial.len() - 4)
                }
            };
            let (now, rest) = bytes.split_at(bytes.len().min(missing));
            self.partial.extend_from_slice(now);
            bytes = rest;
            if frame_len(&self.partial).map_err(Violation::Frame)?.is_some() {
                let whole = take(&mut self.partial);
                self.on_frame(&whole[4..])?;
            }
        }
        Ok(())
    }

    fn on_frame(&mut self, content: &[u8]) -> Result<(), Violation> {
        // `None` is a frame of a later version that is marked as skippable
        let Some(framed) = Framed::<MuxMsg>::decode(content).map_err(Violation::Frame)? else { return Ok(()) };
        match framed.msg {
            MuxMsg::Open(id) => self.on_open(id),
            MuxMsg::Data(data) => self.on_data(data),
            MuxMsg::Finish(id) => self.on_end(id, Incoming::Finished),
            MuxMsg::Reset(end) => self.on_end(end.stream, Incoming::Reset(end.code)),
            MuxMsg::Stop(end) => self.on_stop(end),
            MuxMsg::Taken(n) => {
                let n = usize::try_from(n).unwrap_or(usize::MAX);
                let credit = self.credit.checked_add(n).filter(|c| *c <= MUX_UNREAD_MAX);
                self.credit = credit.ok_or(Violation::Taken)?;
                Ok(())
            }
            MuxMsg::Ping => {
                self.has_room()?;
                self.notes.push_back(MuxMsg::Pong);
                Ok(())
            }
            MuxMsg::Pong => {
                self.asked = false;
                Ok(())
            }
            MuxMsg::Close(code) => {
                self.notes.clear();
                self.end(code);
                Ok(())
            }
        }
    }

    fn on_open(&mut self, id: StreamId) -> Result<(), Violation> {
        if self.side != Side::Accepts || id != self.next {
            return Err(Violation::OutOfTurn);
        }
        if self.streams.len() >= MUX_STREAMS_MAX {
            return Err(Violation::TooMany);
        }
        self.has_room()?;
        self.next = self.next.checked_add(1).ok_or(Violation::TooMany)?;
        self.streams.insert(id, Stream::new());
        self.opened.push_back(id);
        Ok(())
    }

    fn on_data(&mut self, data: StreamData) -> Result<(), Violation> {
        let StreamData { stream: id, bytes } = data;
        let bytes = Bytes::from(bytes.into_vec());
        if bytes.is_empty() || self.untaken + bytes.len() > MUX_UNREAD_MAX {
            return Err(Violation::Window);
        }
        self.untaken += bytes.len();
        match self.streams.get_mut(&id) {
            Some(stream) if stream.incoming == Incoming::Open => {
                stream.unread.push_back(bytes);
                self.touched.insert(id);
            }
            Some(stream) if stream.incoming != Incoming::Unwanted => return Err(Violation::NoStream),
            // these bytes were under way when the stream ended on this side
            Some(_) => self.taken += bytes.len(),
            None if id < self.next => self.taken += bytes.len(),
            None => return Err(Violation::NoStream),
        }
        Ok(())
    }

    fn on_end(&mut self, id: StreamId, how: Incoming) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return if id < self.next { Ok(()) } else { Err(Violation::NoStream) };
        };
        let unread = match (stream.incoming, how) {
            (Incoming::Open, Incoming::Reset(_)) => stream.discard(),
            (Incoming::Open, _) => 0,
            (Incoming::Unwanted, _) => return Ok(()),
            (Incoming::Finished | Incoming::Reset(_), _) => return Err(Violation::NoStream),
        };
        stream.incoming = how;
        self.touched.insert(id);
        self.taken += unread;
        self.remove_if_over(id);
        Ok(())
    }

    fn on_stop(&mut self, end: StreamEnd) -> Result<(), Violation> {
        let StreamEnd { stream: id, code } = end;
        let Some(stream) = self.streams.get(&id) else {
            return if id < self.next { Ok(()) } else { Err(Violation::NoStream) };
        };
        if stream.outgoing == Outgoing::Done {
            return Ok(());
        }
        self.has_room()?;
        self.touched.insert(id);
        self.reset(id, code);
        Ok(())
    }

    /// Checks that an answer can be queued: a peer that does not read its answers is a violation.
    fn has_room(&self) -> Result<(), Violation> {
        if self.notes.len() < MUX_NOTES_MAX { Ok(()) } else { Err(Violation::Flood) }
    }

    fn remove_if_over(&mut self, id: StreamId) {
        if let Some(mut stream) = self.streams.remove(&id) {
            if stream.is_over(self.side) {
                self.opened.retain(|o| *o != id);
                self.taken += stream.discard();
            } else {
                self.streams.insert(id, stream);
            }
        }
    }

    fn end(&mut self, code: u8) {
        self.closed.get_or_insert(code);
        self.touched.extend(self.streams.keys());
        self.streams.clear();
        self.opened.clear();
    }

    /// Returns the next frame to send, if one may be sent now.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        if let Some(note) = self.notes.pop_front() {
            return Some(frame(&note));
        }
        if self.taken >= TAKEN_AT && self.closed.is_none() {
            let n = take(&mut self.taken);
            debug_assert!(n <= self.untaken, "only received bytes were read");
            self.untaken = self.untaken.saturating_sub(n);
            return Some(frame(&MuxMsg::Taken(u32::try_from(n).unwrap_or(u32::MAX))));
        }
        let ready = |s: &Stream| match s.outgoing {
            Outgoing::Open | Outgoing::Finishing if s.unsent_len > 0 => self.credit > 0,
            Outgoing::Finishing => true,
            Outgoing::Open | Outgoing::Done => false,
        };
        let (&id, stream) = self.streams.iter_mut().find(|(_, s)| ready(s))?;
        let msg = if stream.unsent_len == 0 {
            stream.outgoing = Outgoing::Done;
            MuxMsg::Finish(id)
        } else {
            let mut len = MUX_DATA_MAX.min(self.credit).min(stream.unsent_len);
            (stream.unsent_len, self.credit) = (stream.unsent_len - len, self.credit - len);
            let mut bytes = Vec::with_capacity(len);
            while let Some(chunk) = stream.unsent.front_mut().filter(|_| len > 0) {
                let part = chunk.split_to(chunk.len().min(len));
                len -= part.len();
                bytes.extend_from_slice(&part);
                if chunk.is_empty() {
                    stream.unsent.pop_front();
                }
            }
            MuxMsg::Data(StreamData { stream: id, bytes: Blob::new(bytes).unwrap_or_default() })
        };
        self.touched.insert(id);
        self.remove_if_over(id);
        Some(frame(&msg))
    }
}
