//! What a user is told of introduced peers, and the sockets beside the QUIC socket that some are met with.

use crate::ids::{Handle, IntroId, PublicKey};
use crate::nat::NatDescriptor;
use crate::nat::connectivity::Attempt;
use alloc::vec::Vec;
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
    /// Checks have found a path to it.
    Path(SocketAddr),
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

/// A STUN datagram came on a socket of [`Scatter::Send`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scattered {
    /// For which introduction it was opened.
    pub intro: IntroId,
    /// Its number.
    pub socket: u16,
    /// From where.
    pub from: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What is to be done with the many sockets of an introduction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scatter {
    /// Send a datagram from one of them, opened when it is first named.
    Send {
        /// For this introduction.
        intro: IntroId,
        /// Its number.
        socket: u16,
        /// To where.
        to: SocketAddr,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// From now on what goes to `to` leaves from that socket, and what comes to it counts as come to the QUIC socket.
    Adopt {
        /// For this introduction.
        intro: IntroId,
        /// The socket.
        socket: u16,
        /// The peer's endpoint.
        to: SocketAddr,
    },
    /// Close them, but for the adopted one.
    Gather(IntroId),
}
