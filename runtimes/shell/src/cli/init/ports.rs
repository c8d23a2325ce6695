//! Which ports a new deployment listens on.

use crate::error::Error;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

/// The first port that `init` tries by itself.
const USUAL_BASE: u16 = 8443;
/// Where free ports are looked for: below the range that systems take for outgoing connections, so that a port stays
/// free while its server is down.
const SEARCH: std::ops::Range<u16> = 20_000..32_000;

/// One port a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The edge's HTTPS.
    pub edge: u16,
    /// Clients' control connections.
    pub cn: u16,
    /// CNs' directory connections.
    pub dn: u16,
    /// Records.
    pub ledger: u16,
    /// STUN over UDP.
    pub stun: u16,
    /// `/healthz` and `/metrics` of cn, dn, stun and ledger.
    pub ops: [u16; 4],
}

/// How many ports [`Ports`] has.
const COUNT: u16 = 9;
/// A block of [`SEARCH`]: first its guard, a UDP port that stays bound as long as the process lives which took the
/// block, then the ports. Of processes that look for ports at the same time each gets a block of its own, and none
/// tries the ports of another's, not even for a moment.
const BLOCK: u16 = COUNT + 1;
/// The guards of this process's blocks.
static GUARDS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

impl Ports {
    /// From `base` upwards; refused if one of them is in use.
    pub fn at(base: u16) -> Result<Self, Error> {
        let last =
            base.checked_add(COUNT - 1).ok_or_else(|| Error::usage(format!("--base-port {base} is too high")))?;
        match (base..=last).find(|p| !is_free(*p)) {
            None => Ok(Self::from_base(base)),
            Some(taken) => Err(Error::usage(format!("port {taken} is in use"))
                .next(format!("choose a --base-port with {COUNT} free ports from it upwards, or leave it out"))),
        }
    }

    /// The usual ones, or free ones where those are in use.
    pub fn usual_or_free() -> Result<Self, Error> {
        Self::at(USUAL_BASE).or_else(|_| Self::free())
    }

    /// Free ones, in no particular place, which no other process is given while this one lives: several deployments
    /// can be made at once.
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
        Self { edge: p, cn: p + 1, dn: p + 2, ledger: p + 3, stun: p + 4, ops: [p + 5, p + 6, p + 7, p + 8] }
    }
}

fn is_free(port: u16) -> bool {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    TcpListener::bind((any, port)).is_ok() && UdpSocket::bind((any, port)).is_ok()
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
    fn a_block_is_given_once() {
        let ports = Ports::free().expect("free ports");
        assert_eq!(Ports::take_block(ports.edge - 1), None, "nothing listens there yet, but it is taken");
        assert_ne!(Ports::free().expect("more"), ports);
    }
}
