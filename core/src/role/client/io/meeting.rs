//! Reports to the user about introduced peers.

use crate::ids::{Handle, PublicKey};
use crate::nat::connectivity::Attempt;
use crate::nat::{NatDescriptor, Transport};
use crate::wire::control::QueryError;
use core::net::SocketAddr;

/// Course of an introduction. A downloader reports [`Meeting::Introduced`] first, then at most one
/// [`Meeting::Ended`]; an uploader reports only [`Meeting::Ended`].
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
        /// Reason why no connection is attempted; `None` if one is attempted.
        not_tried: Option<NotTried>,
    },
    /// Address and transport at which the peer will be dialled: found by connectivity checks, or the peer's TCP
    /// listener.
    Path(SocketAddr, Transport),
    /// The attempt to connect to the peer has ended.
    Ended(Attempt),
}

/// Reason for not trying an introduced peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotTried {
    /// The download was paused or had ended when the introduction arrived.
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

/// Reason why a download is without peers, or without more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoPeers {
    /// The provider's policy forbids peers for the object, as the edge's grant says.
    Policy,
    /// The edges no longer count what they send under the download's first grant, so that peers would not be billed
    /// right: they have granted the rest without peers.
    EdgesAlone,
    /// The control plane, which makes introductions, is not connected.
    NotConnected,
    /// The CNs refuse this version of the client.
    VersionRefused,
    /// The CN has answered the download's last query without peers.
    Refused(QueryError),
}
