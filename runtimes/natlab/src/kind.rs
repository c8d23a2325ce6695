//! What kinds of routers there are, and which pairs of peers behind them can connect.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How a NAT maps or filters (RFC 4787 §4.1, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// The same for every remote endpoint.
    EndpointIndependent,
    /// One for each remote address.
    AddressDependent,
    /// One for each remote address and port.
    AddressAndPortDependent,
}

/// What stands between a peer and the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing.
    Public,
    /// A NAT that lets anybody in through a mapping.
    FullCone,
    /// A NAT that lets in addresses that were sent to.
    Restricted,
    /// The usual home router: plain Linux masquerading.
    PortRestricted,
    /// The same, but the outside port never equals the inside one.
    PortRestrictedRandom,
    /// A NAT with a fresh random port for each destination.
    Symmetric,
    /// A NAT with a fresh port for each destination, counting upwards.
    SymmetricSequential,
    /// A home router behind a carrier's open NAT.
    Cgnat,
    /// A home router behind a carrier's symmetric NAT with 1,024 ports.
    CgnatSymmetric,
    /// A stateful filter in front of a public address.
    Firewall,
    /// A NAT through which no UDP leaves.
    UdpBlocked,
    /// Masquerading without an input filter: a probe that comes too early takes the port.
    MasqueradeOpen,
}

impl Kind {
    /// Every kind, the most open first.
    pub const ALL: [Self; 12] = [
        Self::Public,
        Self::FullCone,
        Self::Restricted,
        Self::PortRestricted,
        Self::PortRestrictedRandom,
        Self::Firewall,
        Self::Cgnat,
        Self::MasqueradeOpen,
        Self::SymmetricSequential,
        Self::Symmetric,
        Self::CgnatSymmetric,
        Self::UdpBlocked,
    ];

    /// As the command line and the tables call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::FullCone => "full-cone",
            Self::Restricted => "restricted",
            Self::PortRestricted => "port-restricted",
            Self::PortRestrictedRandom => "port-restricted-random",
            Self::Symmetric => "symmetric",
            Self::SymmetricSequential => "symmetric-sequential",
            Self::Cgnat => "cgnat",
            Self::CgnatSymmetric => "cgnat-symmetric",
            Self::Firewall => "firewall",
            Self::UdpBlocked => "udp-blocked",
            Self::MasqueradeOpen => "masquerade-open",
        }
    }

    /// The head of its column.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::Public => "pub",
            Self::FullCone => "fc",
            Self::Restricted => "rc",
            Self::PortRestricted => "prc",
            Self::PortRestrictedRandom => "prc-r",
            Self::Symmetric => "sym",
            Self::SymmetricSequential => "sym-s",
            Self::Cgnat => "cgn",
            Self::CgnatSymmetric => "cgn-s",
            Self::Firewall => "fw",
            Self::UdpBlocked => "blk",
            Self::MasqueradeOpen => "open",
        }
    }

    /// One line for those who choose one.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Public => "a public address, no router and no filter",
            Self::FullCone => "endpoint-independent mapping, endpoint-independent filtering",
            Self::Restricted => "endpoint-independent mapping, address-dependent filtering",
            Self::PortRestricted => "plain masquerading: endpoint-independent mapping, filters by address and port",
            Self::PortRestrictedRandom => "the same, with a random outside port for each inside endpoint",
            Self::Symmetric => "a random port for each destination, filters by address and port",
            Self::SymmetricSequential => {
                "the next port for each destination (predictable), filters by address and port"
            }
            Self::Cgnat => "two layers: a home router behind a carrier's open NAT (RFC 6888)",
            Self::CgnatSymmetric => "two layers: a home router behind a carrier's symmetric NAT with 1,024 ports",
            Self::Firewall => "a public address behind a stateful filter, no translation",
            Self::UdpBlocked => "a NAT through which no UDP leaves",
            Self::MasqueradeOpen => "masquerading without an input filter: an early probe takes the port",
        }
    }

    /// How it maps, seen from outside; `None` where no UDP passes.
    #[must_use]
    pub const fn mapping(self) -> Option<Behaviour> {
        match self {
            Self::UdpBlocked => None,
            Self::Symmetric | Self::SymmetricSequential | Self::CgnatSymmetric => {
                Some(Behaviour::AddressAndPortDependent)
            }
            Self::Public
            | Self::FullCone
            | Self::Restricted
            | Self::PortRestricted
            | Self::PortRestrictedRandom
            | Self::Cgnat
            | Self::Firewall
            | Self::MasqueradeOpen => Some(Behaviour::EndpointIndependent),
        }
    }

    /// How it filters, seen from outside; `None` where no UDP passes.
    #[must_use]
    pub const fn filtering(self) -> Option<Behaviour> {
        match self {
            Self::UdpBlocked => None,
            Self::Public | Self::FullCone => Some(Behaviour::EndpointIndependent),
            Self::Restricted => Some(Behaviour::AddressDependent),
            Self::PortRestricted
            | Self::PortRestrictedRandom
            | Self::Cgnat
            | Self::Firewall
            | Self::MasqueradeOpen
            | Self::Symmetric
            | Self::SymmetricSequential
            | Self::CgnatSymmetric => Some(Behaviour::AddressAndPortDependent),
        }
    }

    /// Whether a peer's inside port is the one that is seen outside, while it is free there.
    #[must_use]
    pub const fn preserves_port(self) -> bool {
        matches!(
            self,
            Self::Public
                | Self::FullCone
                | Self::Restricted
                | Self::PortRestricted
                | Self::Firewall
                | Self::MasqueradeOpen
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|k| k.name() == text || k.short() == text);
        found.ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|k| k.name()).collect();
            format!("no kind is called {text:?}; there are {}", all.join(", "))
        })
    }
}

/// What is known of a pair of kinds over UDP, without relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Connects.
    Connects,
    /// Connects where the other side's next port is predicted.
    ByPrediction,
    /// Connects by luck only: many sockets against random probes.
    ByBirthday,
    /// Does not.
    Never,
}

/// Whether two peers behind different routers can connect: both use UDP, and either both map independently, or exactly
/// one does not and the other does not filter by port. Beyond that a sequential NAT can be predicted.
#[must_use]
pub fn expected(a: Kind, b: Kind) -> Expect {
    let (Some(map_a), Some(map_b)) = (a.mapping(), b.mapping()) else { return Expect::Never };
    let independent = |m| m == Behaviour::EndpointIndependent;
    let by_port = |k: Kind| k.filtering() == Some(Behaviour::AddressAndPortDependent);
    let (hard, easy) = match (independent(map_a), independent(map_b)) {
        (true, true) => return Expect::Connects,
        (true, false) => (b, a),
        (false, true) => (a, b),
        (false, false) if a == Kind::SymmetricSequential && b == Kind::SymmetricSequential => {
            return Expect::ByPrediction;
        }
        (false, false) => return Expect::Never,
    };
    if !by_port(easy) {
        Expect::Connects
    } else if hard == Kind::SymmetricSequential {
        Expect::ByPrediction
    } else {
        Expect::ByBirthday
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(kind.short().parse(), Ok(kind));
        }
        assert!("cone".parse::<Kind>().expect_err("no such kind").contains("full-cone"));
    }

    #[test]
    fn who_can_connect_is_mutual_and_one_hard_side_needs_an_open_one() {
        for a in Kind::ALL {
            for b in Kind::ALL {
                assert_eq!(expected(a, b), expected(b, a), "{a} {b}");
            }
        }
        assert_eq!(expected(Kind::Symmetric, Kind::Restricted), Expect::Connects);
        assert_eq!(expected(Kind::Symmetric, Kind::Firewall), Expect::ByBirthday);
        assert_eq!(expected(Kind::SymmetricSequential, Kind::Cgnat), Expect::ByPrediction);
        assert_eq!(expected(Kind::Symmetric, Kind::SymmetricSequential), Expect::Never);
        assert_eq!(expected(Kind::Public, Kind::UdpBlocked), Expect::Never);
    }
}
