//! Frames on a byte stream: `length u32 | type u8 | body | extension tail`. `length` counts the bytes after it, at
//! least 1 and at most [`limits::FRAME_LEN_MAX`]. The tail is a list of `(tag u16, length u16, bytes)` in ascending
//! order of tag, by which a message can grow without a new protocol version. An unknown type of 128 or above is
//! skipped.

use super::{DecodeError, Reader, Wire};
use crate::limits;
use alloc::vec::Vec;

/// Extensions of a message (tag and bytes) that later protocol versions may add, in ascending order of tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tail(Vec<(u16, Vec<u8>)>);

/// A message and its extensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Framed<M> {
    /// The message in the frame.
    pub msg: M,
    /// Extensions that a later version added to the message.
    pub tail: Tail,
}

impl<M> From<M> for Framed<M> {
    fn from(msg: M) -> Self {
        Self { msg, tail: Tail::default() }
    }
}

impl<M: Wire> Framed<M> {
    /// Appends the encoded frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        self.msg.encode(out);
        for (tag, bytes) in &self.tail.0 {
            tag.encode(out);
            u16::try_from(bytes.len()).unwrap_or(u16::MAX).encode(out);
            out.extend_from_slice(bytes);
        }
        let len = out.len() - start - 4;
        assert!(len <= limits::FRAME_LEN_MAX, "a message's bounds allow a frame above the limit");
        out[start..start + 4].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    }

    /// Decodes the content of a frame (without its length). `None`: a message type of a later version, to be skipped.
    pub fn decode(content: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut r = Reader::new(content);
        let msg = match M::decode(&mut r) {
            Ok(msg) => msg,
            Err(DecodeError::UnknownType(t)) if t >= 128 && content.first() == Some(&t) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut tail = Vec::new();
        while !r.rest().is_empty() {
            let tag = u16::decode(&mut r)?;
            if tail.last().is_some_and(|&(last, _)| last >= tag) {
                return Err(DecodeError::Invalid);
            }
            let len = u16::decode(&mut r)?;
            tail.push((tag, r.take(usize::from(len))?.to_vec()));
        }
        Ok(Some(Self { msg, tail: Tail(tail) }))
    }
}

/// Returns the frame of `msg` without extensions.
#[must_use]
pub fn frame<M: Wire + Clone>(msg: &M) -> Vec<u8> {
    let mut out = Vec::new();
    Framed::from(msg.clone()).encode(&mut out);
    out
}

/// Returns the length of the frame at the head of a buffer, its length field included; `Ok(None)` if the buffer does
/// not contain the whole frame yet.
pub fn frame_len(buffer: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let len = usize::try_from(u32::from_be_bytes(*head)).map_err(|_| DecodeError::TooLong)?;
    match len {
        0 => Err(DecodeError::Invalid),
        _ if len > limits::FRAME_LEN_MAX => Err(DecodeError::TooLong),
        _ => Ok((buffer.len() >= len + 4).then_some(len + 4)),
    }
}
