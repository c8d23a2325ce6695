//! The state of port mapping, as JSON for scripts and as a sentence.

use serde::{Deserialize, Serialize};
use swarmedge_core::nat::mapping::io::{Protocol, Status, Why};

/// A port that the router forwards to this host, or the reason why there is none. Field names are stable; units are
/// at their end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedLine {
    /// The state of the port mapping: `open`, `busy` (in progress), `off` (not wanted), `unneeded`, or the reason for
    /// a failure: `no_gateway`, `no_answer`, `refused`, `double_nat` (another NAT beyond the router), `too_short`
    /// (its lifetime), `deaf` (nothing passes), `unseen` (no STUN server can test it).
    pub state: String,
    /// The protocol that the router answered: `pcp`, `nat_pmp` or `upnp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The external address that the router reports, `host:port`; behind another NAT only the host. Other hosts learn
    /// it only in the state `open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// The lifetime of the mapping in seconds; it is renewed at half of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u32>,
    /// The router's reason for a refusal: the error code of its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
}

impl From<Status> for MappedLine {
    fn from(status: Status) -> Self {
        let is = |state: &str| Self { state: state.into(), ..Self::default() };
        let by = |state: &str, protocol| Self { protocol: Some(name(protocol).into()), ..is(state) };
        match status {
            Status::Off => is("off"),
            Status::Unneeded => is("unneeded"),
            Status::NoGateway => is("no_gateway"),
            Status::Busy => is("busy"),
            Status::Open { protocol, external, lifetime_s } => {
                Self { external: Some(external.to_string()), lifetime_s: Some(lifetime_s), ..by("open", protocol) }
            }
            Status::Failed(Why::NoAnswer) => is("no_answer"),
            Status::Failed(Why::Refused { protocol, code }) => Self { code: Some(code), ..by("refused", protocol) },
            Status::Failed(Why::DoubleNat { protocol, external }) => {
                Self { external: Some(external.to_string()), ..by("double_nat", protocol) }
            }
            Status::Failed(Why::TooShort { protocol, lifetime_s }) => {
                Self { lifetime_s: Some(lifetime_s), ..by("too_short", protocol) }
            }
            Status::Failed(Why::Deaf { protocol, external }) => {
                Self { external: Some(external.to_string()), ..by("deaf", protocol) }
            }
            Status::Failed(Why::NoWitness { protocol, external }) => {
                Self { external: Some(external.to_string()), ..by("unseen", protocol) }
            }
        }
    }
}

const fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Pcp => "pcp",
        Protocol::NatPmp => "nat_pmp",
        Protocol::Upnp => "upnp",
    }
}

impl MappedLine {
    /// Returns whether a port is forwarded and was seen to be reachable from outside.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == "open"
    }

    /// Returns the state as a sentence; `None` if no port mapping is needed.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let by = match self.protocol.as_deref() {
            Some("pcp") => "PCP",
            Some("nat_pmp") => "NAT-PMP",
            _ => "UPnP",
        };
        let external = self.external.as_deref().unwrap_or("an address");
        let words = match self.state.as_str() {
            "open" => {
                let s = self.lifetime_s.unwrap_or_default();
                format!(
                    "{external} is forwarded here, by {by}, for {s} s at a time; a STUN server got through uninvited"
                )
            }
            "busy" => "the router is being asked".into(),
            "off" => "switched off".into(),
            "no_gateway" => "none: the system names no router".into(),
            "no_answer" => "none: the router answers neither PCP nor NAT-PMP nor UPnP".into(),
            "refused" => {
                let code = self.code.map_or_else(String::new, |code| format!(" with code {code}"));
                format!("none: the router refuses it, by {by}{code}; look for port mapping in its settings")
            }
            "double_nat" => {
                format!("none: another NAT is behind the router, whose own address is {external} ({by})")
            }
            "too_short" => {
                let s = self.lifetime_s.unwrap_or_default();
                format!("none: the router opens a port for {s} s at a time ({by}), which is too short to be of use")
            }
            "deaf" => {
                format!("none: the router says that {external} is forwarded here ({by}), but nothing comes through")
            }
            "unseen" => {
                format!(
                    "not claimed: {external} ({by}); it takes a STUN server with two addresses to see that it is open"
                )
            }
            _ => return None,
        };
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn each_end_is_named_and_only_an_open_port_is_open() {
        let (protocol, ip) = (Protocol::NatPmp, Ipv4Addr::new(203, 0, 113, 5));
        let external = std::net::SocketAddrV4::new(ip, 50_000);
        let open = MappedLine::from(Status::Open { protocol, external, lifetime_s: 3600 });
        assert!(open.is_open());
        let json = serde_json::to_value(&open).expect("a value");
        let right = serde_json::json!({
            "state": "open", "protocol": "nat_pmp", "external": "203.0.113.5:50000", "lifetime_s": 3600
        });
        assert_eq!(json, right);
        for (status, word) in [
            (Status::Off, "switched off"),
            (Status::NoGateway, "no router"),
            (Status::Busy, "being asked"),
            (Status::Failed(Why::NoAnswer), "neither PCP"),
            (Status::Failed(Why::Refused { protocol, code: 2 }), "by NAT-PMP with code 2"),
            (Status::Failed(Why::DoubleNat { protocol, external: ip }), "another NAT"),
            (Status::Failed(Why::TooShort { protocol, lifetime_s: 30 }), "for 30 s at a time"),
            (Status::Failed(Why::Deaf { protocol, external }), "nothing comes through"),
            (Status::Failed(Why::NoWitness { protocol, external }), "not claimed"),
        ] {
            let line = MappedLine::from(status);
            let words = line.words().expect("words");
            assert!(words.contains(word) && !line.is_open(), "{words}");
        }
        assert_eq!(MappedLine::from(Status::Unneeded).words(), None);
    }
}
