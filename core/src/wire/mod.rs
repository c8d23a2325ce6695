//! The wire: codec, frames, and the messages of each protocol (DESIGN §6).

pub mod control;
pub mod directory;
pub mod frame;
pub mod ledger;
pub mod mux;
pub mod peer;
pub mod place;
pub mod records;

pub use crate::codec::{Blob, DecodeError, List, Reader, Text, Wire};
pub use frame::{Framed, Tail, frame, frame_len};

/// The version of every own protocol, told in the first message of a connection.
pub const PROTOCOL: u16 = 1;
