//! Results of NAT behaviour discovery, as JSON for scripts and as sentences.

use super::MappedLine;
use serde::{Deserialize, Serialize};
use swarmedge_core::nat::gatherer::Report;
use swarmedge_core::nat::{CandidateKind, Ipv6Reach, NatBehaviour};

/// The observations of the path between this host and the Internet. Field names are stable; units are at their end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatLine {
    /// Whether UDP datagrams get out and answers come back.
    pub udp: bool,
    /// Whether outgoing TCP connections succeed.
    pub tcp: bool,
    /// Whether outgoing TCP connections to port 443 succeed.
    pub tcp443: bool,
    /// The address of this host as STUN servers see it over TCP, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_address: Option<String>,
    /// TCP ports on which this client listens for peers.
    #[serde(default)]
    pub tcp_ports: Vec<u16>,
    /// The addresses at which STUN servers reached those ports from outside, `host:port`.
    #[serde(default)]
    pub tcp_reached: Vec<String>,
    /// The address at which two STUN servers both see the first of these ports, `host:port`: a peer can reach it by a
    /// TCP simultaneous open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_crossing: Option<String>,
    /// Whether a NAT translates this host's addresses.
    pub translated: bool,
    /// The NAT's mapping behaviour: `endpoint_independent`, `address_dependent`, `address_and_port_dependent` or
    /// `unknown` (RFC 4787).
    pub mapping: String,
    /// The NAT's filtering behaviour, in the terms of `mapping`.
    pub filtering: String,
    /// The distance between the ports of successive mappings; 0 if they cannot be predicted.
    pub step: u16,
    /// Whether the NAT kept the port number, if known.
    pub keeps_port: Option<bool>,
    /// Whether hosts behind this NAT reach each other by their public addresses.
    pub hairpin: bool,
    /// The IPv6 reachability: `none`, `firewalled` or `open`.
    pub ipv6: String,
    /// The host's own addresses, `host:port`.
    pub local_addresses: Vec<String>,
    /// The host's addresses as STUN servers see them, `host:port`.
    pub public_addresses: Vec<String>,
    /// The longest silence in seconds that a mapping survived; 0 if not measured.
    pub lives_s: u64,
    /// The silence in seconds that a mapping did not survive, if one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dies_s: Option<u64>,
    /// Seconds between refreshes of the mapping.
    pub keep_alive_s: u64,
    /// The STUN server that answered, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// A port that the router forwards to this host, or why there is none.
    #[serde(default)]
    pub port_mapping: MappedLine,
    /// Whether the STUN server has two addresses; otherwise filtering, and most often mapping, cannot be observed.
    pub two_addresses: bool,
}

impl From<&Report> for NatLine {
    fn from(all: &Report) -> Self {
        let (report, nat) = (&all.way, &all.way.nat);
        let of = |wanted: CandidateKind| {
            let some = nat.candidates.iter().filter(move |c| c.kind == wanted);
            some.map(|c| c.addr.to_string()).collect::<Vec<_>>()
        };
        let local_addresses = of(CandidateKind::Host);
        let mut public_addresses = of(CandidateKind::ServerReflexive);
        if nat.udp && public_addresses.is_empty() {
            public_addresses.clone_from(&local_addresses);
        }
        Self {
            udp: nat.udp,
            tcp: report.tcp,
            tcp443: nat.tcp443,
            tcp_address: report.seen.map(|seen| seen.to_string()),
            tcp_ports: report.doors.iter().map(|(port, _)| *port).collect(),
            tcp_reached: nat.doors.iter().map(ToString::to_string).collect(),
            tcp_crossing: nat.crossing.map(|at| at.to_string()),
            translated: report.translated,
            mapping: name(nat.mapping).into(),
            filtering: name(nat.filtering).into(),
            step: nat.step,
            keeps_port: report.keeps_port,
            hairpin: nat.hairpin,
            ipv6: match nat.v6 {
                Ipv6Reach::None => "none",
                Ipv6Reach::Firewalled => "firewalled",
                Ipv6Reach::Open => "open",
            }
            .into(),
            local_addresses,
            public_addresses,
            lives_s: report.lives.as_secs(),
            dies_s: report.dies.map(|d| d.as_secs()),
            keep_alive_s: report.keep_alive.as_secs(),
            server: report.server.map(|s| s.to_string()),
            port_mapping: all.mapping.into(),
            two_addresses: report.two_addresses,
        }
    }
}

const fn name(behaviour: NatBehaviour) -> &'static str {
    match behaviour {
        NatBehaviour::Unknown => "unknown",
        NatBehaviour::EndpointIndependent => "endpoint_independent",
        NatBehaviour::AddressDependent => "address_dependent",
        NatBehaviour::AddressAndPortDependent => "address_and_port_dependent",
    }
}

impl NatLine {
    /// Returns sentences: first what was found, then what it means for connections to peers.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        if !self.udp {
            return self.without_udp();
        }
        let mut lines =
            vec![format!("{}  {}", label("address"), self.addresses()), self.line("mapping", self.mapping())];
        lines.push(self.line("filtering", self.filtering()));
        if self.translated {
            let hairpin = if self.hairpin {
                "yes: hosts behind this NAT reach each other by their public addresses"
            } else {
                "not seen: hosts behind this NAT need addresses of their own network to reach each other"
            };
            lines.push(self.line("hairpin", hairpin.into()));
            lines.push(self.line("lifetime", self.lifetime()));
        }
        lines.extend(self.port_mapping.words().map(|words| self.line("port map", words)));
        lines.push(self.line("IPv6", self.ipv6()));
        let tcp = if self.tcp443 { "gets out" } else { "no STUN server answers there" };
        lines.push(self.line("TCP 443", tcp.into()));
        lines.extend(self.doors().map(|doors| self.line("TCP in", doors)));
        lines.push(String::new());
        lines.push(self.meaning());
        lines
    }

    fn line(&self, what: &str, text: String) -> String {
        format!("{}  {text}", label(what))
    }

    fn addresses(&self) -> String {
        let public = self.public_addresses.join(", ");
        match (self.translated, self.keeps_port) {
            (false, _) => format!("{public}, this host's own: no NAT"),
            (true, Some(true)) => {
                format!("{public} behind a NAT that keeps ports ({})", self.local_addresses.join(", "))
            }
            (true, _) => format!("{public} behind a NAT ({})", self.local_addresses.join(", ")),
        }
    }

    /// Returns the NAT's mapping behaviour in words.
    fn mapping(&self) -> String {
        let words = match self.mapping.as_str() {
            "endpoint_independent" if !self.translated => "endpoint-independent (no NAT)",
            "endpoint_independent" => "endpoint-independent: everybody sees the same port",
            "address_dependent" => "address-dependent: each remote address sees another port",
            "address_and_port_dependent" => {
                "address- and port-dependent (symmetric): each remote endpoint sees another port"
            }
            _ => "unknown: it takes a STUN server with two addresses, or two servers",
        };
        if self.step == 0 {
            words.into()
        } else {
            format!("{words}; ports rise by {}, so they can be foretold", self.step)
        }
    }

    /// Returns the NAT's filtering behaviour in words.
    fn filtering(&self) -> String {
        match self.filtering.as_str() {
            "endpoint_independent" => "endpoint-independent: anybody may write first",
            "address_dependent" => "address-dependent: only addresses that were written to may answer",
            "address_and_port_dependent" => {
                "address- and port-dependent: only endpoints that were written to may answer"
            }
            _ => "unknown: it takes a STUN server with two addresses",
        }
        .into()
    }

    fn lifetime(&self) -> String {
        let keep = format!("refreshed every {} s", self.keep_alive_s);
        match (self.lives_s, self.dies_s) {
            (0, None) => "not measured (a running client does that in the background)".into(),
            (lives, None) => format!("a mapping survives {lives} s of silence at least; {keep}"),
            (lives, Some(dies)) => format!("a mapping dies after {lives} to {dies} s of silence; {keep}"),
        }
    }

    /// Returns in words how far IPv6 works.
    fn ipv6(&self) -> String {
        match self.ipv6.as_str() {
            "open" => "open: anybody may write first",
            "firewalled" => "works; a firewall lets in only answers, or it is not known whether there is one",
            _ => "none, or no STUN server with IPv6",
        }
        .into()
    }

    /// Returns a sentence on whether peers without UDP can connect over TCP; `None` if no TCP port listens.
    fn doors(&self) -> Option<String> {
        let ports = self.tcp_ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" and ");
        match (self.tcp_reached.is_empty(), ports.is_empty()) {
            (_, true) => None,
            (true, _) => Some(match &self.tcp_crossing {
                Some(at) => format!(
                    "nobody was seen to reach port {ports}; two servers see it at {at}, so peers without UDP can be met \
                     there, if both open the connection at once"
                ),
                None => format!("nobody was seen to reach port {ports}: peers without UDP cannot come"),
            }),
            (false, _) => {
                Some(format!("reached at {}: peers without UDP can come there", self.tcp_reached.join(" and ")))
            }
        }
    }

    fn meaning(&self) -> String {
        let independent = self.mapping == "endpoint_independent";
        match (independent, self.filtering.as_str()) {
            _ if self.port_mapping.is_open() => "Every peer that has UDP can reach this host, at the forwarded port.",
            (true, "endpoint_independent") => "Every peer that has UDP can reach this host.",
            (true, "address_dependent") => "Every peer that has UDP can be reached, by hole punching.",
            (true, _) => {
                "Peers whose mapping is endpoint-independent can be reached, by hole punching: most homes. Peers behind \
                 symmetric NATs cannot, unless their ports can be foretold."
            }
            (false, _) if self.mapping == "unknown" => {
                "Only peers that anybody can reach are offered, since the mapping is not known."
            }
            (false, _) => {
                "Peers can be reached only if they do not filter by port; others if their NAT lets ports be foretold. \
                 Downloads still complete from the edge."
            }
        }
        .to_owned()
            + if self.ipv6 == "none" { "" } else { " Peers with IPv6 can be reached over it." }
    }

    fn without_udp(&self) -> Vec<String> {
        if self.tcp {
            let https = if self.tcp443 { "TCP to port 443 gets out" } else { "TCP gets out, though not to port 443" };
            let mut lines = vec![format!("UDP is blocked: {https}, but no STUN server answers over UDP.")];
            lines.extend(self.tcp_address.iter().map(|addr| format!("Over TCP this host is seen at {addr}.")));
            lines.push(String::new());
            lines.extend(self.doors().map(|doors| format!("TCP in: {doors}.")));
            lines.push(
                "Peers can be reached only over TCP, to download and to upload: those that listen on a port where they \
                 were reached from outside, as public ones are. Downloads complete from the edge in any case."
                    .into(),
            );
            return lines;
        }
        vec!["No STUN server answers, neither over UDP nor over TCP.".into()]
    }
}

fn label(what: &str) -> String {
    format!("{what:<10}")
}
