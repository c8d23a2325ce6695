//! Choice of the ports on which a new deployment listens.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};
use swarmedge_ground::error::Error;

/// First port of a deployment unless `--base-port` is given.
const USUAL_BASE: u16 = 8443;
/// Range in which free ports are searched: below the ephemeral range of the system, so that no outgoing connection
/// takes a port while its server is down.
const SEARCH: std::ops::Range<u16> = 20_000..32_000;

/// Ports of a deployment, one per listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// HTTPS of the edge.
    pub edge: u16,
    /// Control connections of clients, at the CN.
    pub cn: u16,
    /// Directory connections of CNs, at the DN.
    pub dn: u16,
    /// Record connections of edges and CNs, at the ledger.
    pub ledger: u16,
    /// STUN over UDP and TCP.
    pub stun: u16,
    /// `/healthz` and `/metrics` of cn, dn, stun, ledger and edge.
    pub ops: [u16; 5],
}

/// Number of ports in [`Ports`].
const COUNT: u16 = 10;
/// Ports of one block of [`SEARCH`]: a guard, then the ports of a deployment. The process that takes a block keeps the
/// guard's UDP port bound until its end. Processes that search at the same time so get different blocks, and never bind
/// a port of another's block, not even for a moment.
const BLOCK: u16 = COUNT + 1;
/// Bound guard sockets of this process's blocks.
static GUARDS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

impl Ports {
    /// Takes the ports from `base` upwards; fails if one of them is in use.
    pub fn at(base: u16) -> Result<Self, Error> {
        let last =
            base.checked_add(COUNT - 1).ok_or_else(|| Error::usage(format!("--base-port {base} is too high")))?;
        match (base..=last).find(|p| !is_free(*p)) {
            None => Ok(Self::from_base(base)),
            Some(taken) => Err(Error::usage(format!("port {taken} is in use"))
                .next(format!("choose a --base-port with {COUNT} free ports from it upwards, or leave it out"))),
        }
    }

    /// Takes the ports from 8443 upwards, or any free ones if one of those is in use.
    pub fn usual_or_free() -> Result<Self, Error> {
        Self::at(USUAL_BASE).or_else(|_| Self::free())
    }

    /// Takes ten free ports between 20000 and 32000. No other process gets them while this one lives, so that several
    /// deployments can be made at once.
    pub fn free() -> Result<Self, Error> {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(|e| Error::failed(format!("the system gives no random bytes: {e}")))?;
        let span = SEARCH.end - SEARCH.start;
        let blocks = span / BLOCK;
        let first = u16::from_le_bytes(random) % blocks;
        (0..blocks)
            .map(|i| SEARCH.start + (first + i) % blocks * BLOCK)
            .find_map(Self::take_block)
            .ok_or_else(|| Error::failed("no free ports").next("end some servers, or choose a --base-port"))
    }

    fn take_block(guard: u16) -> Option<Self> {
        let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, guard)).ok()?;
        let base = guard + 1;
        if !(base..=guard + COUNT).all(is_free) {
            return None;
        }
        GUARDS.lock().unwrap_or_else(PoisonError::into_inner).push(held);
        Some(Self::from_base(base))
    }

    const fn from_base(p: u16) -> Self {
        let ops = [p + 5, p + 6, p + 7, p + 8, p + 9];
        Self { edge: p, cn: p + 1, dn: p + 2, ledger: p + 3, stun: p + 4, ops }
    }
}

fn is_free(port: u16) -> bool {
    let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    // a port that cannot be had for other reasons is free: there may be no IPv6
    let taken = |e: std::io::Error| e.kind() == ErrorKind::AddrInUse;
    let v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    TcpListener::bind((v4, port)).is_ok()
        && UdpSocket::bind((v4, port)).is_ok()
        && !TcpListener::bind((v6, port)).is_err_and(taken)
        && !UdpSocket::bind((v6, port)).is_err_and(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let ports = Ports::free().expect("free ports");
        let _taken = TcpListener::bind(("127.0.0.1", ports.dn)).expect("it was free");
        let error = Ports::at(ports.edge).expect_err("one is taken").to_string();
        assert!(error.contains(&format!("port {} is in use", ports.dn)), "{error}");
        assert!(Ports::at(u16::MAX).is_err());
    }

    #[test]
    fn a_block_is_taken_only_once() {
        let ports = Ports::free().expect("free ports");
        assert_eq!(Ports::take_block(ports.edge - 1), None, "nothing listens there yet, but it is taken");
        assert_ne!(Ports::free().expect("more"), ports);
    }
}
