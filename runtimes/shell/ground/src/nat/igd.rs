//! Requests to a UPnP Internet Gateway Device, through a blocking library: each request runs on a thread of its own,
//! so that a slow gateway does not occupy the blocking pool, which the store needs. Only the answer of the host's own
//! gateway is accepted. The library follows no redirection, sends requests only to the address that answered, and
//! limits the length of answers.

use igd_next::{
    AddPortError, Gateway, GatewayIpVersion, PortMappingProtocol, RequestError, SearchOptions, search_gateway,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};
use swarmedge_core::nat::Transport;
use swarmedge_core::nat::mapping::io::{IgdAsk, IgdError, Opened, Site};

/// Description of our port mapping in the gateway's list.
const DESCRIPTION: &str = "swarmedge";
/// Port and multicast group on which UPnP gateways listen for searches (UPnP Device Architecture 1.1 §1.3.2).
const SSDP_PORT: u16 = 1900;
const SSDP_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// Maximum number of external ports tried if the wanted one is in use.
const PORTS_MAX: u16 = 4;
/// Time-out for finding the gateway again to remove the mapping.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Error code for a refusal that has none.
const NO_CODE: u16 = 0;

/// Runs an IGD request on a thread of its own and reports its result.
pub(super) fn begin(ask: IgdAsk, answer: impl FnOnce(Result<Opened, IgdError>) + Send + 'static) {
    thread::spawn(move || {
        let result = match ask {
            IgdAsk::Open { site, port, lifetime_s, within } => open(site, port, lifetime_s, Instant::now() + within),
            IgdAsk::Close { site, port } => close(site, port),
        };
        answer(result);
    });
}

fn open(site: Site, port: u16, lifetime_s: u32, until: Instant) -> Result<Opened, IgdError> {
    let gateway = find(site, until)?;
    let external = match gateway.get_external_ip() {
        Ok(IpAddr::V4(ip)) => ip,
        Ok(IpAddr::V6(_)) | Err(_) => return Err(IgdError::NoAnswer),
    };
    let (mut port, mut lifetime_s) = (port, lifetime_s);
    for _ in 0..PORTS_MAX {
        if Instant::now() >= until {
            break;
        }
        let local = SocketAddr::V4(site.local);
        let error = match gateway.add_port(protocol(site), port, local, lifetime_s, DESCRIPTION) {
            Ok(()) => return Ok(Opened { external: SocketAddrV4::new(external, port), lifetime_s }),
            Err(error) => error,
        };
        match error {
            AddPortError::PortInUse => port = port.checked_add(1).unwrap_or(1024),
            AddPortError::SamePortValuesRequired if port != site.local.port() => port = site.local.port(),
            AddPortError::OnlyPermanentLeasesSupported if lifetime_s != 0 => lifetime_s = 0,
            AddPortError::RequestError(RequestError::ErrorCode(code, _)) => return Err(IgdError::Refused(code)),
            AddPortError::ActionNotAuthorized => return Err(IgdError::Refused(606)),
            AddPortError::RequestError(_) => return Err(IgdError::NoAnswer),
            AddPortError::SamePortValuesRequired
            | AddPortError::OnlyPermanentLeasesSupported
            | AddPortError::InternalPortZeroInvalid
            | AddPortError::ExternalPortZeroInvalid
            | AddPortError::DescriptionTooLong => return Err(IgdError::Refused(NO_CODE)),
        }
    }
    Err(IgdError::NoAnswer)
}

const fn protocol(site: Site) -> PortMappingProtocol {
    match site.over {
        Transport::Udp => PortMappingProtocol::UDP,
        Transport::Tcp => PortMappingProtocol::TCP,
    }
}

fn close(site: Site, port: u16) -> Result<Opened, IgdError> {
    let gateway = find(site, Instant::now() + CLOSE_WITHIN)?;
    if let Err(error) = gateway.remove_port(protocol(site), port) {
        tracing::debug!(%error, port, "the gateway has not closed a port");
    }
    // nothing is open any more
    Err(IgdError::NoAnswer)
}

/// Searches the gateway of this site: first with a request to its address, then by multicast. Other gateways are
/// ignored.
fn find(site: Site, until: Instant) -> Result<Gateway, IgdError> {
    let own = IpAddr::V4(site.gateway);
    for to in [own, SSDP_GROUP.into()] {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::new((*site.local.ip()).into(), 0);
        options.broadcast_address = SocketAddr::new(to, SSDP_PORT);
        let timeout = if to == own { left / 2 } else { left };
        (options.timeout, options.single_search_timeout) = (Some(timeout), Some(timeout));
        options.gateway_ip_version = GatewayIpVersion::V4;
        match search_gateway(options) {
            Ok(gateway) if gateway.addr.ip() == own => return Ok(gateway),
            Ok(gateway) => tracing::debug!(addr = %gateway.addr, "a UPnP gateway that is not this host's"),
            Err(error) => tracing::debug!(%error, %to, "no UPnP gateway"),
        }
    }
    Err(IgdError::NoAnswer)
}
