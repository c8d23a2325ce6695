//! The nftables rules of each router in a lab.
//!
//! Endpoint-independent mappings are kept in nftables maps that the rules update themselves. After translation a
//! packet carries the outside endpoint while conntrack still knows the inside one, so the rules record both in
//! postrouting, after `srcnat`. Only outgoing packets pass there, so only they keep a mapping alive (RFC 4787 REQ-6).
//! Unsolicited packets are dropped in `input` and `forward`, before conntrack creates an entry for them. The router
//! kind [`Kind::MasqueradeOpen`] (masquerading without an input filter) lacks that filter.

use crate::Kind;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Port range of the sequential NAT.
const SEQUENCE: std::ops::Range<u32> = 40_000..44_096;
/// Range of outside ports that a carrier's NAT gives to one home.
const CARRIER_PORTS: &str = "20000-21023";
/// Seconds after which a UDP mapping without outgoing packets is removed.
pub(crate) const UDP_TIMEOUT_S: u32 = 120;

/// Kind of address translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Translation {
    /// No address translation at all.
    Routed,
    /// Translation by conntrack's defaults.
    Masquerade,
    /// One outside endpoint for each inside endpoint (endpoint-independent mapping).
    Independent { preserve_port: bool, admits: Admits },
    /// A new outside endpoint for each flow, with a random port.
    PerFlow { ports: Option<&'static str> },
    /// A new outside endpoint for each flow, with the next port in sequence.
    Sequential,
}

/// Senders whose packets an endpoint-independent mapping forwards to the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admits {
    Anybody,
    AddressesSentTo,
    EndpointsSentTo,
}

/// Properties of one router of a site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Router {
    translation: Translation,
    filters_input: bool,
    blocks_udp: bool,
    hairpin: bool,
    filters_ipv6: bool,
}

impl Router {
    /// Returns the router next to a site's peers, or the carrier's router if `outer`; `None` for public peers, which
    /// have none.
    pub(crate) fn of(kind: Kind, outer: bool, hairpin: bool, filters_ipv6: bool) -> Option<Self> {
        use Translation::{Independent, Masquerade, PerFlow, Routed, Sequential};
        let cone = |admits| Independent { preserve_port: true, admits };
        let translation = match (kind, outer) {
            (Kind::Public, _) => return None,
            (Kind::Cgnat, true) => Independent { preserve_port: false, admits: Admits::Anybody },
            (Kind::CgnatSymmetric, true) => PerFlow { ports: Some(CARRIER_PORTS) },
            (_, true) => return None,
            (Kind::FullCone, _) => cone(Admits::Anybody),
            (Kind::Restricted, _) => cone(Admits::AddressesSentTo),
            (Kind::PortRestrictedRandom, _) => Independent { preserve_port: false, admits: Admits::EndpointsSentTo },
            (Kind::Symmetric, _) => PerFlow { ports: None },
            (Kind::SymmetricSequential, _) => Sequential,
            (Kind::Firewall, _) => Routed,
            // for hairpinning, the rules must know which inside endpoint an outside port belongs to
            (Kind::PortRestricted | Kind::MasqueradeOpen, _) if hairpin => cone(Admits::EndpointsSentTo),
            (Kind::PortRestricted | Kind::MasqueradeOpen | Kind::UdpBlocked, _)
            | (Kind::Cgnat | Kind::CgnatSymmetric, false) => Masquerade,
        };
        Some(Self {
            translation,
            filters_input: kind != Kind::MasqueradeOpen,
            blocks_udp: kind == Kind::UdpBlocked,
            hairpin,
            filters_ipv6: filters_ipv6 && !outer,
        })
    }

    /// Returns whether packets leave with the peers' own addresses, without translation.
    pub(crate) fn is_routed(self) -> bool {
        self.translation == Translation::Routed
    }

    /// Returns the nftables maps and sets in which the router keeps its mappings, each as its type (`map` or `set`)
    /// and name.
    pub(crate) fn remembers(self) -> Vec<(&'static str, &'static str)> {
        let Translation::Independent { admits, .. } = self.translation else { return Vec::new() };
        let mut all = vec![("map", "inside"), ("map", "outside"), ("set", "taken")];
        all.extend((admits == Admits::AddressesSentTo).then_some(("set", "talked")));
        all
    }

    /// Returns the whole ruleset, for `nft -f`. It replaces an earlier ruleset of the same router.
    pub(crate) fn ruleset(self, wan: Ipv4Addr) -> String {
        let mut text = String::from("table inet filter {}\ndelete table inet filter\n");
        if !self.is_routed() {
            text.push_str("table ip nat {}\ndelete table ip nat\n");
            text.push_str(&self.nat(wan));
        }
        text.push_str(&self.filter());
        text
    }

    fn nat(self, wan: Ipv4Addr) -> String {
        let (mut sets, mut pre, mut post, mut note) = (String::new(), String::new(), String::new(), String::new());
        match self.translation {
            Translation::Routed => {}
            Translation::Masquerade => post.push_str("oifname \"wan\" masquerade\n"),
            Translation::PerFlow { ports } => {
                let to = ports.map(|p| format!(" to :{p}")).unwrap_or_default();
                _ = writeln!(post, "oifname \"wan\" meta l4proto {{ tcp, udp }} masquerade{to} fully-random");
                post.push_str("oifname \"wan\" masquerade\n");
            }
            Translation::Sequential => {
                // maps to whole endpoints: a number computed in the rule would be written to the packet byte-swapped
                let ports = SEQUENCE.enumerate().map(|(i, port)| format!("{i} : {wan} . {port}"));
                let ports = ports.collect::<Vec<_>>().join(", ");
                let next = format!("numgen inc mod {} map {{ {ports} }}", SEQUENCE.len());
                _ = writeln!(post, "oifname \"wan\" meta l4proto {{ tcp, udp }} snat ip to {next}");
                post.push_str("oifname \"wan\" masquerade\n");
            }
            Translation::Independent { preserve_port, admits } => {
                self.independent(wan, preserve_port, admits, [&mut sets, &mut pre, &mut post, &mut note]);
            }
        }
        format!(
            "table ip nat {{\n{sets}\
             chain prerouting {{ type nat hook prerouting priority dstnat;\n{pre}}}\n\
             chain postrouting {{ type nat hook postrouting priority srcnat;\n{post}}}\n\
             chain note {{ type filter hook postrouting priority 110;\n{note}}}\n}}\n"
        )
    }

    fn independent(self, wan: Ipv4Addr, preserve_port: bool, admits: Admits, text: [&mut String; 4]) {
        let [sets, pre, post, note] = text;
        let lives = format!("flags dynamic, timeout; timeout {UDP_TIMEOUT_S}s; size 65535;");
        let (port, end) = ("inet_proto . inet_service", "ipv4_addr . inet_service");
        _ = writeln!(sets, "map inside {{ type {port} : {end}; {lives} }}");
        _ = writeln!(sets, "map outside {{ type inet_proto . {end} : {end}; {lives} }}");
        _ = writeln!(sets, "set taken {{ type {port}; {lives} }}");
        // an existing outside endpoint is kept; otherwise the inside port if it is free, else a random port
        post.push_str("oifname \"wan\" snat ip to meta l4proto . ip saddr . th sport map @outside\n");
        let random = if preserve_port { "meta l4proto . th sport @taken" } else { "meta l4proto { tcp, udp }" };
        _ = writeln!(post, "oifname \"wan\" {random} masquerade random\noifname \"wan\" masquerade");
        for way in ["original", "reply"] {
            let inside = format!("ct {way} ip saddr . ct {way} proto-src");
            let when =
                format!("ip saddr {wan} meta l4proto {{ tcp, udp }} ct direction {way} ct {way} ip saddr != {wan}");
            _ = writeln!(note, "{when} update @inside {{ meta l4proto . th sport : {inside} }}");
            _ = writeln!(note, "{when} update @outside {{ meta l4proto . {inside} : ip saddr . th sport }}");
            _ = writeln!(note, "{when} update @taken {{ meta l4proto . th sport }}");
        }
        let inwards = "dnat ip to meta l4proto . th dport map @inside";
        match admits {
            Admits::Anybody => _ = writeln!(pre, "iifname \"wan\" ip daddr {wan} {inwards}"),
            Admits::AddressesSentTo => {
                _ = writeln!(sets, "set talked {{ type {port} . ipv4_addr; {lives} }}");
                let known = "meta l4proto . th dport . ip saddr @talked";
                _ = writeln!(pre, "iifname \"wan\" ip daddr {wan} {known} {inwards}");
                let sent = "update @talked { meta l4proto . th sport . ip daddr }";
                _ = writeln!(note, "ip saddr {wan} meta l4proto {{ tcp, udp }} {sent}");
            }
            Admits::EndpointsSentTo => {}
        }
        if self.hairpin {
            // a hairpinned packet carries the sender's outside endpoint (RFC 4787 REQ-9a)
            _ = writeln!(pre, "iifname \"lan\" ip daddr {wan} {inwards}");
            let back = "oifname \"lan\" iifname \"lan\" ct status dnat snat ip to";
            _ = writeln!(post, "{back} meta l4proto . ip saddr . th sport map @outside");
            _ = writeln!(post, "{back} {wan}");
        }
    }

    fn filter(self) -> String {
        let input = if self.filters_input { "drop\n" } else { "" };
        let outgoing =
            if self.blocks_udp { "iifname \"lan\" meta l4proto != udp accept\n" } else { "iifname \"lan\" accept\n" };
        let ipv6 = if self.filters_ipv6 { "meta l4proto ipv6-icmp accept\n" } else { "meta nfproto ipv6 accept\n" };
        format!(
            "table inet filter {{\n\
             chain input {{ type filter hook input priority filter;\n\
             ct state established,related accept\nmeta l4proto {{ icmp, ipv6-icmp }} accept\n{input}}}\n\
             chain forward {{ type filter hook forward priority filter; policy drop;\n\
             ct state established,related accept\n{ipv6}{outgoing}ct status dnat accept\n}}\n}}\n"
        )
    }
}

/// Returns the rulesets that are loaded into the routers of a site of this kind, for inspection.
#[must_use]
pub fn rules(kind: Kind) -> Vec<(&'static str, String)> {
    let wan = crate::plan::address::outside(1, 0);
    let routers = [("the carrier's router", true), ("the router", false)];
    let all = routers.into_iter().filter_map(|(name, outer)| Some((name, Router::of(kind, outer, false, true)?)));
    all.map(|(name, router)| (name, router.ruleset(wan))).collect()
}
