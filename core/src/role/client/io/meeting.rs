//! Reports to the user about introduced peers.

use crate::ids::{Handle, PublicKey};
use crate::nat::connectivity::Attempt;
use crate::nat::{NatDescriptor, Transport};
use core::net::SocketAddr;

/// Fate of an introduction: for a downloader [`Meeting::Introduced`] first, then at most one [`Meeting::Ended`]. An
/// uploader reports `Ended` only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Meeting {
    /// The CN has introduced a peer.
    Introduced {
        /// Download that the peer is for.
        handle: Handle,
        /// K_u, the upload key of the peer.
        peer: PublicKey,
        /// NAT type and addresses that the peer has reported to the CN.
        nat: NatDescriptor,
        /// Reason for making no attempt; `None` if one is made.
        not_tried: Option<NotTried>,
    },
    /// A path to the peer is found by connectivity checks, or is its TCP listener.
    Path(SocketAddr, Transport),
    /// The attempt to connect has ended.
    Ended(Attempt),
}

/// Reason for not trying an introduced peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotTried {
    /// The download had ended or was paused meanwhile.
    NotFetching,
    /// Enough peers were connected or being tried.
    EnoughPeers,
    /// The introduced peer is this client itself.
    SameClient,
    /// The introduction carries no address of the peer.
    NoAddress,
    /// The download has tried this peer before.
    AlreadyTried,
}
