//! What a user is told of introduced peers.

use crate::ids::{Handle, PublicKey};
use crate::nat::connectivity::Attempt;
use crate::nat::{NatDescriptor, Transport};
use core::net::SocketAddr;

/// What became of an introduction: [`Meeting::Introduced`] first, then at most one [`Meeting::Ended`]. As uploader a
/// client tells of ends only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Meeting {
    /// The CN has named a peer.
    Introduced {
        /// For this download.
        handle: Handle,
        /// Who.
        peer: PublicKey,
        /// What it says of its way to the Internet.
        nat: NatDescriptor,
        /// Why no attempt is made, if none is.
        not_tried: Option<NotTried>,
    },
    /// Checks have found a path to it, or it listens there on TCP.
    Path(SocketAddr, Transport),
    /// The attempt to connect has ended.
    Ended(Attempt),
}

/// Why an introduced peer was not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotTried {
    /// The download had ended or paused meanwhile.
    NotFetching,
    /// As many peers as wanted were connected or being tried.
    Enough,
    /// It is this client.
    Own,
    /// It names no address.
    NoAddress,
    /// It was tried for this download already.
    Again,
}
