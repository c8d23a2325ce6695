//! The wire formats: frames, the messages of each protocol, and the signed records that they carry.

pub mod control;
pub mod directory;
pub mod frame;
pub mod geo_location;
pub mod ledger;
pub mod mux;
pub mod notice;
pub mod peer;
pub mod records;

pub use crate::codec::{Blob, DecodeError, List, Reader, Text, Wire};
pub use frame::{Framed, Tail, frame, frame_len};

/// Version of all our protocols, sent in the first message of a connection.
pub const PROTOCOL: u16 = 1;
