//! What one round finds out about one address family.

use super::{Attribute, Cookie, Ipv6Reach, NatBehaviour, Socket, Time};
use crate::nat::cookie::Tag;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// A step that is worth predicting (measured: two samples, the next 16 ports).
const STEP_MAX: u16 = 16;

/// What a request wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Probe {
    /// Does this server answer, and where does it see us?
    Reach(SocketAddr),
    /// Is an answer from its other address and port let in?
    Both,
    /// Is an answer from its other port let in?
    Port,
    /// Where does a server at another address see us?
    Second,
    /// Where does that address see us from its other port?
    Third,
    /// The same two questions from a socket that nobody has answered yet.
    FreshFirst,
    /// See [`Probe::FreshFirst`].
    FreshSecond,
    /// Do we reach ourselves by our mapped address?
    Hairpin,
    /// Is the mapping still there?
    Refresh,
}

impl Probe {
    pub(super) fn attributes(self, tag: Option<Tag>) -> Vec<Attribute> {
        match self {
            Self::Reach(_) | Self::Refresh => tag.map(|tag| Attribute::Cookie(tag.request())).into_iter().collect(),
            Self::Both => alloc::vec![Attribute::ChangeRequest { address: true, port: true }],
            Self::Port => alloc::vec![Attribute::ChangeRequest { address: false, port: true }],
            Self::Second | Self::Third | Self::FreshFirst | Self::FreshSecond | Self::Hairpin => Vec::new(),
        }
    }

    /// From which socket it is asked.
    pub(super) const fn socket(self) -> Socket {
        match self {
            Self::FreshFirst | Self::FreshSecond | Self::Hairpin => Socket::Asker,
            Self::Reach(_) | Self::Both | Self::Port | Self::Second | Self::Third | Self::Refresh => Socket::Main,
        }
    }
}

/// How far a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Idle,
    Reach,
    Filter,
    Map,
    Confirm,
    Hairpin,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) v6: bool,
    pub(super) stage: Stage,
    /// When the stage has had its time.
    pub(super) due: Option<Time>,
    /// Servers asked so far.
    pub(super) asked: usize,
    /// The server that answered, the address it sees, and its other address.
    pub(super) server: Option<SocketAddr>,
    pub(super) mapped: Option<SocketAddr>,
    pub(super) other: Option<SocketAddr>,
    /// The server's newest word for `mapped`.
    pub(super) cookie: Option<Cookie>,
    /// Nobody was written to from whom an answer would show something.
    pub(super) testable: bool,
    /// The server does not answer from elsewhere.
    pub(super) refused: bool,
    pub(super) filtering: NatBehaviour,
    port_let_in: bool,
    pub(super) second_server: Option<SocketAddr>,
    pub(super) second: Option<SocketAddr>,
    pub(super) third_server: Option<SocketAddr>,
    pub(super) third: Option<SocketAddr>,
    /// Where the server and its other address see the fresh socket.
    pub(super) fresh: [Option<SocketAddr>; 2],
}

impl Way {
    pub(super) const fn new(v6: bool) -> Self {
        Self {
            v6,
            stage: Stage::Idle,
            due: None,
            asked: 0,
            server: None,
            mapped: None,
            other: None,
            cookie: None,
            testable: false,
            refused: false,
            filtering: NatBehaviour::Unknown,
            port_let_in: false,
            second_server: None,
            second: None,
            third_server: None,
            third: None,
            fresh: [None; 2],
        }
    }

    /// From where the answer to a request that went to `to` must come.
    pub(super) fn expected(&self, probe: Probe, to: SocketAddr) -> Option<SocketAddr> {
        match probe {
            Probe::Both => self.other,
            Probe::Port => self.other.map(|o| SocketAddr::new(to.ip(), o.port())),
            Probe::Hairpin => None,
            Probe::Reach(_)
            | Probe::Second
            | Probe::Third
            | Probe::FreshFirst
            | Probe::FreshSecond
            | Probe::Refresh => Some(to),
        }
    }

    /// An answer from elsewhere came through.
    pub(super) fn let_in(&mut self, probe: Probe) {
        if self.stage == Stage::Filter {
            self.port_let_in |= probe == Probe::Port;
            if probe == Probe::Both {
                self.filtering = NatBehaviour::EndpointIndependent;
            }
        }
    }

    /// What has not come by now is filtered.
    pub(super) fn filter_over(&mut self) {
        self.filtering = match (self.filtering, self.port_let_in) {
            (NatBehaviour::EndpointIndependent, _) => NatBehaviour::EndpointIndependent,
            (_, true) => NatBehaviour::AddressDependent,
            (_, false) => NatBehaviour::AddressAndPortDependent,
        };
    }

    /// RFC 5780 §4.3. Without a translation there is nothing that could depend on anything.
    pub(super) fn mapping(&self, translated: bool) -> NatBehaviour {
        match (self.mapped, self.second, self.third) {
            (Some(_), _, _) if !translated => NatBehaviour::EndpointIndependent,
            (Some(first), Some(second), _) if first == second && self.needs_confirmation() => match self.fresh {
                [Some(first), Some(second)] if first == second => NatBehaviour::EndpointIndependent,
                [Some(_), Some(_)] => NatBehaviour::AddressAndPortDependent,
                _ => NatBehaviour::Unknown,
            },
            (Some(first), Some(second), _) if first == second => NatBehaviour::EndpointIndependent,
            (Some(_), Some(second), Some(third)) if second == third => NatBehaviour::AddressDependent,
            (Some(_), Some(_), _) => NatBehaviour::AddressAndPortDependent,
            _ => NatBehaviour::Unknown,
        }
    }

    /// What the other address has sent may have been let in by an outer NAT, if not by all, and have made a way back
    /// through the same mapping: that the main socket is seen the same there says nothing yet.
    pub(super) const fn needs_confirmation(&self) -> bool {
        self.testable && self.other.is_some()
    }

    /// How far apart successive mappings are, if three of them rise by small steps.
    pub(super) fn step(&self) -> u16 {
        let ports = [self.mapped, self.second, self.third].map(|m| m.map(|m| m.port()));
        let [Some(a), Some(b), Some(c)] = ports else { return 0 };
        let small = |d: u16| (1..=STEP_MAX).contains(&d).then_some(d);
        let steps = small(b.wrapping_sub(a)).zip(small(c.wrapping_sub(b)));
        steps.map_or(0, |(x, y)| x.min(y))
    }

    /// The newest mapping: the next one lies behind it.
    pub(super) fn newest(&self) -> Option<SocketAddr> {
        self.third.or(self.second).or(self.mapped)
    }

    pub(super) fn reach(&self) -> Ipv6Reach {
        match (self.mapped, self.filtering) {
            (None, _) => Ipv6Reach::None,
            (Some(_), NatBehaviour::EndpointIndependent) => Ipv6Reach::Open,
            (Some(_), _) => Ipv6Reach::Firewalled,
        }
    }
}
