//! Packet counters of a lab: packets by destination, and packets that cross a router.

use super::{Lab, load};
use crate::Error;
use crate::plan::address;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Transport protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// User datagrams, QUIC's included.
    Udp,
    /// Segments of TCP connections.
    Tcp,
}

impl Transport {
    const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl Lab {
    /// Starts counting the UDP and TCP packets that a node sends, by destination.
    pub fn count_sent(&self, node: &str) -> Result<(), Error> {
        let (mut sets, mut rules) = (String::new(), String::new());
        for over in [Transport::Udp, Transport::Tcp].map(Transport::name) {
            for (family, ip) in [("4", "ip"), ("6", "ip6")] {
                sets.push_str(&format!(
                    "set {over}{family} {{ type ipv{family}_addr . inet_service; flags dynamic; size 65535; }}\n"
                ));
                rules.push_str(&format!(
                    "oifname != \"lo\" meta l4proto {over} update @{over}{family} {{ {ip} daddr . th dport counter }}\n"
                ));
            }
        }
        let rules = format!(
            "table inet sent {{}}\ndelete table inet sent\ntable inet sent {{\n{sets}\
             chain output {{ type filter hook output priority filter;\n{rules}}}\n}}\n"
        );
        self.script(node, &load(&rules)).map(drop)
    }

    /// Returns the UDP packets that [`Self::count_sent`] has counted, by destination.
    pub fn sent(&self, node: &str) -> Result<BTreeMap<SocketAddr, u64>, Error> {
        self.sent_over(node, Transport::Udp)
    }

    /// Returns the packets of one protocol that [`Self::count_sent`] has counted, by destination.
    pub fn sent_over(&self, node: &str, over: Transport) -> Result<BTreeMap<SocketAddr, u64>, Error> {
        let mut all = BTreeMap::new();
        for family in ["4", "6"] {
            let text = self.script(node, &format!("nft -j list set inet sent {}{family}\n", over.name()))?;
            let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::new(e.to_string()))?;
            let elements = json["nftables"].as_array().into_iter().flatten();
            let elements = elements.filter_map(|o| o["set"]["elem"].as_array()).flatten();
            for e in elements.map(|e| &e["elem"]) {
                let concat = &e["val"]["concat"];
                let ip = concat[0].as_str().and_then(|a| a.parse::<IpAddr>().ok());
                let port = concat[1].as_u64().and_then(|p| u16::try_from(p).ok());
                let (Some(ip), Some(port)) = (ip, port) else {
                    return Err(Error::new(format!("nft lists an element that is no address: {e}")));
                };
                all.insert(SocketAddr::new(ip, port), e["counter"]["packets"].as_u64().unwrap_or(0));
            }
        }
        Ok(all)
    }

    /// Starts counting the UDP packets that a site's peers send to their router, except those to servers and
    /// port-mapping requests (PCP, NAT-PMP, UPnP): packets that two peers on one LAN need not send through it.
    pub fn count_crossing(&self, site: &str) -> Result<(), Error> {
        let rules = format!(
            "table inet crossing {{}}\ndelete table inet crossing\ntable inet crossing {{\n\
             counter crossed {{}}\n\
             chain prerouting {{ type filter hook prerouting priority raw;\n\
             udp dport {{ 1900, 5351 }} accept\n\
             iifname \"lan\" meta l4proto udp ip daddr != {} counter name crossed\n\
             iifname \"lan\" meta l4proto udp ip6 daddr != {} counter name crossed\n}}\n}}\n",
            address::SERVERS,
            address::SERVERS6
        );
        let (.., site) = self.site(site)?;
        site.router_names().first().map_or(Ok(()), |r| self.script(r, &load(&rules)).map(drop))
    }

    /// Returns the packets that [`Self::count_crossing`] has counted.
    pub fn crossed(&self, site: &str) -> Result<u64, Error> {
        let (.., site) = self.site(site)?;
        let Some(router) = site.router_names().into_iter().next() else { return Ok(0) };
        let text = self.script(&router, "nft -j list counter inet crossing crossed\n")?;
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::new(e.to_string()))?;
        let counters = json["nftables"].as_array().into_iter().flatten();
        counters
            .filter_map(|o| o["counter"]["packets"].as_u64())
            .next()
            .ok_or_else(|| Error::new("nft lists no counter"))
    }
}
