//! Nested sets that contain a peer, by its public address: address ⊂ prefix ⊂ AS ⊂ country ⊂ continent (region) ⊂
//! world. An AS that geolocation assigns to several countries makes a set in each of them.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use crate::wire::geo_location::Locality;

/// Set of peers that agree in all these fields; `None`: any value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set {
    region: Option<u8>,
    country: Option<[u8; 2]>,
    asn: Option<u32>,
    part: Part,
}

/// Subset of a continent's, country's or AS's peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    /// All peers of the continent, country or AS.
    Whole,
    /// Peers whose public addresses have this prefix, a /24 (IPv6: /48).
    Prefix(IpAddr),
    /// Peers behind one public address.
    Address(IpAddr),
}

impl Set {
    /// Set of all peers everywhere.
    pub const WORLD: Self = Self { region: None, country: None, asn: None, part: Part::Whole };

    /// Returns the number of the autonomous system if this set is all peers of one.
    #[must_use]
    pub fn network(&self) -> Option<u32> {
        self.asn.filter(|_| self.part == Part::Whole)
    }

    /// Returns the address prefix if this set is the peers of one.
    #[must_use]
    pub const fn prefix(&self) -> Option<IpAddr> {
        if let Part::Prefix(p) = self.part { Some(p) } else { None }
    }

    /// Returns the public address if this set is the peers behind one.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        if let Part::Address(a) = self.part { Some(a) } else { None }
    }
}

/// Returns the sets that contain a peer with the public address `addr`, widest first; the last two are those of its
/// prefix and of its address.
#[must_use]
pub fn sets(addr: IpAddr, locality: &Locality) -> Vec<Set> {
    let addr = addr.to_canonical();
    let mut set = Set::WORLD;
    let mut sets = alloc::vec![set];
    if locality.region.is_some() {
        set.region = locality.region;
        sets.push(set);
    }
    if locality.country.is_some() {
        set.country = locality.country;
        sets.push(set);
    }
    if locality.asn.is_some() {
        set.asn = locality.asn;
        sets.push(set);
    }
    sets.extend([Part::Prefix(prefix(addr)), Part::Address(addr)].map(|part| Set { part, ..set }));
    sets
}

/// Returns the first address of the /24 (IPv6: /48) that contains an address.
#[must_use]
pub fn prefix(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & (u32::MAX << 8))),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & (u128::MAX << 80))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_narrow_from_the_world_to_the_address() {
        let addr: IpAddr = "192.0.2.77".parse().expect("an address");
        let net: IpAddr = "192.0.2.0".parse().expect("an address");
        let unknown = sets(addr, &Locality::default());
        let parts = [Part::Whole, Part::Prefix(net), Part::Address(addr)];
        assert_eq!(unknown, parts.map(|part| Set { part, ..Set::WORLD }));
        let known = sets(addr, &Locality { asn: Some(64_500), country: Some(*b"DE"), region: Some(1) });
        let region = Set { region: Some(1), ..Set::WORLD };
        let country = Set { country: Some(*b"DE"), ..region };
        let network = Set { asn: Some(64_500), ..country };
        assert_eq!(known[..4], [Set::WORLD, region, country, network]);
        assert_eq!((known[3].network(), known[4].network()), (Some(64_500), None));
        assert_eq!((known[4].prefix(), known[5].address()), (Some(net), Some(addr)));
    }

    #[test]
    fn an_ipv4_address_inside_ipv6_is_the_ipv4_address() {
        let mapped: IpAddr = "::ffff:192.0.2.77".parse().expect("an address");
        assert_eq!(prefix(mapped), "192.0.2.0".parse::<IpAddr>().expect("an address"));
    }
}
