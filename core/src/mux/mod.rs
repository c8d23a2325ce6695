//! Streams over one TCP connection, for peers that UDP does not reach: the rules of [`crate::wire::mux`], without a
//! socket. Bytes go in by [`Mux::received`] and come out of [`Mux::next_frame`]; in between are streams that are read
//! and written like QUIC's, so that what is said on them is the same.
//!
//! Invariants. Bounded: what came and was not read stays within the window, which grows only as it is read; what waits
//! to be sent is refused beyond a bound of each stream. Fair: frames without data go first, then control, then the
//! oldest request that has something to send, so requests are answered in order, one that waits for its disk holds up
//! nobody, and a stream that is stopped sends nothing after the next frame. Total: whatever comes is a frame of an
//! honest peer or a [`Violation`].

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

/// A stream of a connection.
pub type StreamId = u32;

/// So many bytes are read before the other side is told that more may come.
const TAKEN_AT: usize = MUX_UNREAD_MAX / 8;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// It has dialled: it opens streams.
    Dials,
    /// It was dialled.
    Accepts,
}

/// Why a connection is closed: no honest peer sends that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// What came is no frame.
    Frame(DecodeError),
    /// A stream was opened by the side that was dialled, or out of turn.
    OutOfTurn,
    /// More streams than allowed.
    TooMany,
    /// Something came of a stream that was never opened, or behind its end.
    NoStream,
    /// More bytes than the window, or none in a frame of data.
    Window,
    /// More was taken than was sent.
    Taken,
    /// Much is asked that must be answered, and the answers are not read.
    Flood,
}

/// What a stream gives its reader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// The next bytes.
    Bytes(Bytes),
    /// Nothing yet.
    Nothing,
    /// Nothing any more: it was sent to its end.
    End,
    /// The other side has given it up.
    Reset(u8),
    /// It is over, or never was.
    Gone,
}

/// The other side wants no more of a stream, or this side has ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stopped;

/// How far what comes on a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Incoming {
    Open,
    /// All of it has come.
    Finished,
    Reset(u8),
    /// Nobody wants it here: what still comes is thrown away.
    Unwanted,
}

/// How far what leaves on a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outgoing {
    Open,
    /// What waits is all that comes.
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

    /// Neither side says anything on it any more. The side that has opened it keeps it until its end was read: by then
    /// the other side has forgotten it, so what one side may open the other has room for.
    fn is_over(&self, side: Side) -> bool {
        let read = match side {
            Side::Dials => self.incoming == Incoming::Unwanted,
            Side::Accepts => self.incoming != Incoming::Open,
        };
        self.outgoing == Outgoing::Done && read
    }

    /// Throws away what waits to be read: so many bytes.
    fn discard(&mut self) -> usize {
        take(&mut self.unread).iter().map(Bytes::len).sum()
    }
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mux {
    side: Side,
    streams: BTreeMap<StreamId, Stream>,
    /// The number of the next stream.
    next: StreamId,
    /// Streams that were opened by the other side and not accepted yet.
    opened: VecDeque<StreamId>,
    /// A frame of which more must come.
    partial: Vec<u8>,
    /// Frames without data.
    notes: VecDeque<MuxMsg>,
    /// Bytes that have come and that the other side was not told to be taken.
    untaken: usize,
    /// Those of them that were read or thrown away.
    taken: usize,
    /// Bytes that may be sent.
    credit: usize,
    /// Streams on which something has happened.
    touched: BTreeSet<StreamId>,
    asked: bool,
    closed: Option<u8>,
}

impl Mux {
    /// A connection on which nothing was said yet.
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

    /// Opens a stream; none while as many as allowed are open, or if this side may not.
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

    /// The next stream that the other side has opened.
    pub fn accept(&mut self) -> Option<StreamId> {
        self.opened.pop_front()
    }

    /// Streams on which something has happened since this was last asked: they can be read or written again.
    pub fn touched(&mut self) -> BTreeSet<StreamId> {
        take(&mut self.touched)
    }

    /// The next bytes of a stream.
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
            self.bury(id);
        }
        read
    }

    /// Takes as much of `bytes` as may wait to be sent now.
    pub fn write(&mut self, id: StreamId, bytes: &mut Bytes) -> Result<(), Stopped> {
        let stream = self.streams.get_mut(&id).filter(|s| s.outgoing == Outgoing::Open).ok_or(Stopped)?;
        let part = bytes.split_to(bytes.len().min(MUX_UNSENT_MAX - stream.unsent_len));
        if !part.is_empty() {
            stream.unsent_len += part.len();
            stream.unsent.push_back(part);
        }
        Ok(())
    }

    /// Nothing more is written to a stream.
    pub fn finish(&mut self, id: StreamId) -> Result<(), Stopped> {
        let stream = self.streams.get_mut(&id).filter(|s| s.outgoing == Outgoing::Open).ok_or(Stopped)?;
        stream.outgoing = Outgoing::Finishing;
        Ok(())
    }

    /// Gives up what is written to a stream.
    pub fn reset(&mut self, id: StreamId, code: u8) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.outgoing != Outgoing::Done) else { return };
        stream.outgoing = Outgoing::Done;
        (stream.unsent, stream.unsent_len) = (VecDeque::new(), 0);
        self.notes.push_back(MuxMsg::Reset(StreamEnd { stream: id, code }));
        self.bury(id);
    }

    /// Wants no more of a stream.
    pub fn stop(&mut self, id: StreamId, code: u8) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.incoming != Incoming::Unwanted) else { return };
        let was_open = stream.incoming == Incoming::Open;
        stream.incoming = Incoming::Unwanted;
        let unread = stream.discard();
        if was_open {
            self.notes.push_back(MuxMsg::Stop(StreamEnd { stream: id, code }));
        }
        self.taken += unread;
        self.bury(id);
    }

    /// Asks whether somebody is there.
    pub fn ping(&mut self) {
        if self.closed.is_none() && !core::mem::replace(&mut self.asked, true) {
            self.notes.push_back(MuxMsg::Ping);
        }
    }

    /// Ends the connection: what waits is not sent any more, but that it ends, and why.
    pub fn close(&mut self, code: u8) {
        if self.closed.is_none() {
            self.notes = VecDeque::from([MuxMsg::Close(code)]);
            self.end(code);
        }
    }

    /// The code with which either side has closed the connection.
    #[must_use]
    pub const fn closed(&self) -> Option<u8> {
        self.closed
    }

    /// Bytes that have come on streams and wait to be read.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.streams.values().flat_map(|s| &s.unread).map(Bytes::len).sum()
    }

    /// Streams that are not over.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Reads bytes of the connection. After a violation it is to be closed.
    pub fn received(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while self.closed.is_none() && !bytes.is_empty() {
            if self.partial.is_empty() {
                // whole frames are read where they lie
                if let Some(len) = frame_len(bytes).map_err(Violation::Frame)? {
                    let (whole, rest) = bytes.split_at(len);
                    bytes = rest;
                    self.frame(&whole[4..])?;
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
                self.frame(&whole[4..])?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, content: &[u8]) -> Result<(), Violation> {
        // a frame that a later version may send and that says of itself that it can be skipped
        let Some(framed) = Framed::<MuxMsg>::decode(content).map_err(Violation::Frame)? else { return Ok(()) };
        match framed.msg {
            MuxMsg::Open(id) => self.peer_opens(id),
            MuxMsg::Data(data) => self.data(data),
            MuxMsg::Finish(id) => self.peer_ends(id, Incoming::Finished),
            MuxMsg::Reset(end) => self.peer_ends(end.stream, Incoming::Reset(end.code)),
            MuxMsg::Stop(end) => self.peer_stops(end),
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

    fn peer_opens(&mut self, id: StreamId) -> Result<(), Violation> {
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

    fn data(&mut self, data: StreamData) -> Result<(), Violation> {
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
            // it was on its way when the stream ended here
            Some(_) => self.taken += bytes.len(),
            None if id < self.next => self.taken += bytes.len(),
            None => return Err(Violation::NoStream),
        }
        Ok(())
    }

    fn peer_ends(&mut self, id: StreamId, how: Incoming) -> Result<(), Violation> {
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
        self.bury(id);
        Ok(())
    }

    fn peer_stops(&mut self, end: StreamEnd) -> Result<(), Violation> {
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

    /// Whether what the other side asks can be answered: it must read the answers.
    fn has_room(&self) -> Result<(), Violation> {
        if self.notes.len() < MUX_NOTES_MAX { Ok(()) } else { Err(Violation::Flood) }
    }

    fn bury(&mut self, id: StreamId) {
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

    /// The next frame to send, if there is one that may be sent.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        if let Some(note) = self.notes.pop_front() {
            return Some(frame(&note));
        }
        if self.taken >= TAKEN_AT && self.closed.is_none() {
            let n = take(&mut self.taken);
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
        self.bury(id);
        Some(frame(&msg))
    }
}
