//! The nested sets a peer belongs to, by its public address: address ⊂ AS ⊂ country ⊂ region ⊂ World.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use crate::wire::place::Locality;

/// A set of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// Behind the same public address.
    Address(IpAddr),
    /// In the same /24 (IPv6: /48): stands in for the AS where that is not known.
    Prefix(IpAddr),
    /// In the same autonomous system.
    As(u32),
    /// In the same country.
    Country([u8; 2]),
    /// In the same group of countries.
    Region(u8),
    /// Everywhere.
    World,
}

/// The sets of a peer at `addr`, most specific first.
#[must_use]
pub fn sets(addr: IpAddr, locality: &Locality) -> Vec<Set> {
    let addr = addr.to_canonical();
    let network = locality.asn.map_or(Set::Prefix(prefix(addr)), Set::As);
    let wider = [locality.country.map(Set::Country), locality.region.map(Set::Region)];
    [Set::Address(addr), network].into_iter().chain(wider.into_iter().flatten()).chain([Set::World]).collect()
}

/// The /24 (IPv6: /48) of an address, as its first address.
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
    fn sets_widen_from_the_address_to_the_world() {
        let addr: IpAddr = "192.0.2.77".parse().expect("an address");
        let net = Set::Prefix("192.0.2.0".parse().expect("an address"));
        assert_eq!(sets(addr, &Locality::default()), [Set::Address(addr), net, Set::World]);
        let known = Locality { asn: Some(64_500), country: Some(*b"DE"), region: Some(1) };
        assert_eq!(
            sets(addr, &known),
            [Set::Address(addr), Set::As(64_500), Set::Country(*b"DE"), Set::Region(1), Set::World]
        );
    }

    #[test]
    fn an_ipv4_address_inside_ipv6_is_the_ipv4_address() {
        let mapped: IpAddr = "::ffff:192.0.2.77".parse().expect("an address");
        assert_eq!(prefix(mapped), "192.0.2.0".parse::<IpAddr>().expect("an address"));
    }
}
