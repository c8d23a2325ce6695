//! NAT traversal: STUN messages, what a client tells of its NAT, and which pairs can connect (DESIGN §9).

pub mod stun;

use crate::limits;
use crate::wire::List;
use core::net::SocketAddr;

crate::wire! {
    /// How a NAT maps or filters (RFC 4787 §4.1, §5).
    pub enum NatBehaviour {
        /// Not known; treated as the strictest.
        Unknown = 0,
        /// The same for every remote endpoint.
        EndpointIndependent = 1,
        /// One for each remote address.
        AddressDependent = 2,
        /// One for each remote address and port.
        AddressAndPortDependent = 3,
    }
}
impl Copy for NatBehaviour {}

crate::wire! {
    /// What a client has observed of its way to the Internet; never more open than observed.
    pub struct NatDescriptor {
        /// Rises with each change of network; an older descriptor never replaces a newer one.
        pub epoch: u32,
        /// UDP datagrams come back.
        pub udp: bool,
        /// Mapping behaviour.
        pub mapping: NatBehaviour,
        /// Filtering behaviour.
        pub filtering: NatBehaviour,
        /// Where the QUIC socket can be tried, best first.
        pub candidates: List<Candidate, { limits::CANDIDATES_MAX }>,
    }

    /// One address of a peer's QUIC socket.
    pub struct Candidate {
        /// Where it was learned.
        pub kind: CandidateKind,
        /// The address.
        pub addr: SocketAddr,
    }
}

crate::wire! {
    /// Where a candidate was learned (RFC 8445 §5.1.1).
    pub enum CandidateKind {
        /// An address of the host itself.
        Host = 1,
        /// Seen by a STUN server.
        ServerReflexive = 2,
        /// Opened by PCP, NAT-PMP or UPnP.
        Mapped = 3,
    }
}
impl Copy for CandidateKind {}

impl Default for NatDescriptor {
    fn default() -> Self {
        Self {
            epoch: 0,
            udp: false,
            mapping: NatBehaviour::Unknown,
            filtering: NatBehaviour::Unknown,
            candidates: List::default(),
        }
    }
}

/// Whether two clients behind different public addresses can be connected: the DN's first table. Both can use UDP, and
/// either both map endpoint-independently, or exactly one does not and the other does not filter by port.
#[must_use]
pub fn can_connect(a: &NatDescriptor, b: &NatDescriptor) -> bool {
    let independent = |d: &NatDescriptor| d.mapping == NatBehaviour::EndpointIndependent;
    let open =
        |d: &NatDescriptor| matches!(d.filtering, NatBehaviour::EndpointIndependent | NatBehaviour::AddressDependent);
    a.udp
        && b.udp
        && match (independent(a), independent(b)) {
            (true, true) => true,
            (true, false) => open(a),
            (false, true) => open(b),
            (false, false) => false,
        }
}
