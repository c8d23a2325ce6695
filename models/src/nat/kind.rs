//! Kinds of access to the Internet in the simulator, the models and the lab of real NATs, and the pairs of them that
//! can connect: one list for all three.

use super::{Ports, Rules};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use swarmedge_core::nat::NatBehaviour::{
    self, AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown,
};

/// A kind of access to the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Public address without a NAT.
    Public,
    /// NAT with endpoint-independent mapping and filtering.
    FullCone,
    /// NAT that filters by remote address.
    Restricted,
    /// NAT that filters by remote address and port: the usual home router.
    PortRestricted,
    /// NAT like [`Kind::PortRestricted`] that never keeps the inner port.
    PortRestrictedRandom,
    /// Public address behind a stateful firewall, which admits only answers to outgoing datagrams.
    Firewall,
    /// Home router behind a carrier's NAT with endpoint-independent mapping and filtering.
    Cgnat,
    /// Linux masquerade without an input filter: a datagram that arrives before the host has sent one takes the outer
    /// port.
    MasqueradeOpen,
    /// Symmetric NAT that gives each flow the next port in sequence.
    SymmetricSequential,
    /// Symmetric NAT that gives each flow a random port.
    Symmetric,
    /// Home router behind a carrier's symmetric NAT with a block of 1,024 ports.
    CgnatSymmetric,
    /// Network that blocks all UDP.
    UdpBlocked,
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

    /// Returns the kind's name in command lines and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::FullCone => "full-cone",
            Self::Restricted => "restricted",
            Self::PortRestricted => "port-restricted",
            Self::PortRestrictedRandom => "port-restricted-random",
            Self::Firewall => "firewall",
            Self::Cgnat => "cgnat",
            Self::MasqueradeOpen => "masquerade-open",
            Self::SymmetricSequential => "symmetric-sequential",
            Self::Symmetric => "symmetric",
            Self::CgnatSymmetric => "cgnat-symmetric",
            Self::UdpBlocked => "udp-blocked",
        }
    }

    /// Returns the kind's abbreviation in the heads of table columns.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::Public => "pub",
            Self::FullCone => "fc",
            Self::Restricted => "rc",
            Self::PortRestricted => "prc",
            Self::PortRestrictedRandom => "prc-r",
            Self::Firewall => "fw",
            Self::Cgnat => "cgn",
            Self::MasqueradeOpen => "open",
            Self::SymmetricSequential => "sym-s",
            Self::Symmetric => "sym",
            Self::CgnatSymmetric => "cgn-s",
            Self::UdpBlocked => "blk",
        }
    }

    /// Returns a one-line description of the kind for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Public => "a public address, no router and no filter",
            Self::FullCone => "endpoint-independent mapping, endpoint-independent filtering",
            Self::Restricted => "endpoint-independent mapping, address-dependent filtering",
            Self::PortRestricted => "plain masquerading: endpoint-independent mapping, filters by address and port",
            Self::PortRestrictedRandom => "the same, with a random outside port for each inside endpoint",
            Self::Firewall => "a public address behind a stateful filter, no translation",
            Self::Cgnat => "two layers: a home router behind a carrier's open NAT (RFC 6888)",
            Self::MasqueradeOpen => "masquerading without an input filter: an early probe takes the port",
            Self::SymmetricSequential => {
                "the next port for each destination (predictable), filters by address and port"
            }
            Self::Symmetric => "a random port for each destination, filters by address and port",
            Self::CgnatSymmetric => "two layers: a home router behind a carrier's symmetric NAT with 1,024 ports",
            Self::UdpBlocked => "a NAT through which no UDP leaves",
        }
    }

    /// Returns the mapping and filtering behaviour that discovery should find; `Unknown` if UDP is blocked.
    #[must_use]
    pub const fn behaviour(self) -> (NatBehaviour, NatBehaviour) {
        match self {
            Self::Public | Self::FullCone => (EndpointIndependent, EndpointIndependent),
            Self::Restricted => (EndpointIndependent, AddressDependent),
            Self::PortRestricted | Self::PortRestrictedRandom | Self::Firewall | Self::Cgnat | Self::MasqueradeOpen => {
                (EndpointIndependent, AddressAndPortDependent)
            }
            Self::SymmetricSequential | Self::Symmetric | Self::CgnatSymmetric => {
                (AddressAndPortDependent, AddressAndPortDependent)
            }
            Self::UdpBlocked => (Unknown, Unknown),
        }
    }

    /// Returns the mapping behaviour seen from outside.
    #[must_use]
    pub const fn mapping(self) -> NatBehaviour {
        self.behaviour().0
    }

    /// Returns the filtering behaviour seen from outside.
    #[must_use]
    pub const fn filtering(self) -> NatBehaviour {
        self.behaviour().1
    }

    /// Returns the rules of this kind's routers, the one next to the host first.
    #[must_use]
    pub fn routers(self) -> Vec<Rules> {
        let home = Rules {
            translates: true,
            udp: true,
            mapping: EndpointIndependent,
            filtering: AddressAndPortDependent,
            ports: Ports::Preserve,
            keeps_uninvited: false,
            hairpin: false,
            lifetime: Duration::from_secs(120),
        };
        let symmetric = Rules { mapping: AddressAndPortDependent, ports: Ports::Random, ..home };
        let carrier = Rules { filtering: EndpointIndependent, ports: Ports::Random, ..home };
        match self {
            Self::Public => Vec::new(),
            Self::FullCone => std::vec![Rules { filtering: EndpointIndependent, ..home }],
            Self::Restricted => std::vec![Rules { filtering: AddressDependent, ..home }],
            Self::PortRestricted => std::vec![home],
            Self::PortRestrictedRandom => std::vec![Rules { ports: Ports::Random, ..home }],
            Self::Firewall => std::vec![Rules { translates: false, ..home }],
            Self::Cgnat => std::vec![home, carrier],
            Self::SymmetricSequential => std::vec![Rules { ports: Ports::Sequential, ..symmetric }],
            Self::Symmetric => std::vec![symmetric],
            Self::CgnatSymmetric => std::vec![home, Rules { ports: Ports::Block(1024), ..symmetric }],
            Self::UdpBlocked => std::vec![Rules { udp: false, ..home }],
            Self::MasqueradeOpen => std::vec![Rules { keeps_uninvited: true, ..home }],
        }
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

/// Expected result for a pair of kinds over UDP, without relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// The pair connects over UDP.
    Connects,
    /// The pair connects over UDP if the next port of one side's NAT is predicted.
    ByPrediction,
    /// The pair connects over UDP by chance only: many sockets of one side against random probes of the other
    /// (birthday probing).
    ByBirthday,
    /// The pair never connects over UDP.
    Never,
}

/// Returns the expected result over UDP for two peers behind different routers. They connect if both use UDP and the
/// mappings of both are endpoint-independent, or if exactly one side's are not and the other side does not filter by
/// port. Else a sequential NAT's port may be predicted.
#[must_use]
pub fn expected(a: Kind, b: Kind) -> Expect {
    if [a, b].contains(&Kind::UdpBlocked) {
        return Expect::Never;
    }
    let independent = |k: Kind| k.mapping() == EndpointIndependent;
    let (hard, easy) = match (independent(a), independent(b)) {
        (true, true) => return Expect::Connects,
        (true, false) => (b, a),
        (false, true) => (a, b),
        (false, false) if a == Kind::SymmetricSequential && b == Kind::SymmetricSequential => {
            return Expect::ByPrediction;
        }
        (false, false) => return Expect::Never,
    };
    if easy.filtering() != AddressAndPortDependent {
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
