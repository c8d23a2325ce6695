//! Closes port mappings that are no longer useful, and all of them when the client stops.

use super::io::{Effect, IgdAsk, IgdEnd, IgdError, Opened, Output, Protocol, Site};
use super::{Context, LIFETIME_S, Mapping, PORT, natpmp, numbered, pcp};
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

impl Mapping {
    /// Closes the open port mapping, by the protocol that opened it.
    pub(super) fn close(&mut self, cx: &mut Context<'_>) {
        let (Some(lease), Some(site)) = (self.lease.take(), self.site) else { return };
        match lease.protocol {
            Protocol::Upnp => self.close_by_upnp(cx, site, lease.external.port()),
            Protocol::Pcp | Protocol::NatPmp => self.close_by_datagram(cx, site, lease.protocol),
        }
    }

    /// Closes all port mappings that are or may be open: the answer to a request that opened a port may have been
    /// lost.
    pub(super) fn leave(&mut self, cx: &mut Context<'_>) {
        if let Some(site) = self.site {
            for protocol in core::mem::take(&mut self.asked) {
                self.close_by_datagram(cx, site, protocol);
            }
            if self.lease.is_some_and(|l| l.protocol == Protocol::Upnp) {
                self.close(cx);
            }
        }
        let opening = self.opening;
        self.set_site(cx, None);
        // the port that is being opened is closed once it is
        self.opening = opening;
        self.closing = opening.map(|(id, _)| id).or(self.closing);
    }

    fn close_by_upnp(&mut self, cx: &mut Context<'_>, site: Site, port: u16) {
        self.next_id += 1;
        let id = numbered(self.next_id, site);
        self.closing = Some(id);
        cx.push(Output::Effect(Effect::Igd { id, ask: IgdAsk::Close { site, port } }));
    }

    fn close_by_datagram(&mut self, cx: &mut Context<'_>, site: Site, protocol: Protocol) {
        let to = SocketAddr::new(site.gateway.into(), PORT);
        let bytes = if protocol == Protocol::Pcp {
            let external = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
            let (nonce, internal) = (self.nonce, site.local);
            pcp::MapRequest { nonce, over: site.over, internal, external, lifetime_s: 0 }.encode()
        } else {
            let internal_port = site.local.port();
            natpmp::Request::Map { over: site.over, internal_port, external_port: 0, lifetime_s: 0 }.encode()
        };
        cx.push(Output::Effect(Effect::Send { socket: site.socket(), to, bytes }));
    }

    /// Handles the end of a UPnP request to open or close a port.
    pub(super) fn igd(&mut self, cx: &mut Context<'_>, IgdEnd { id, answer }: IgdEnd) {
        self.closing = self.closing.filter(|closing| *closing != id);
        let opened_at = self.opening.take_if(|(open, _)| *open == id).map(|(_, site)| site);
        if !self.ask.as_ref().is_some_and(|a| a.protocol == Protocol::Upnp && a.id == id) {
            // too late to be of use: it need not stay open, unless it is what was opened before
            if let (Some(site), Ok(Opened { external, .. })) = (opened_at, answer)
                && self.site.is_none_or(|now| now == site)
                && self.lease.is_none_or(|l| l.external.port() != external.port())
            {
                self.close_by_upnp(cx, site, external.port());
            }
            return;
        }
        match answer {
            Ok(Opened { external, lifetime_s }) => {
                let lifetime_s = if lifetime_s == 0 { LIFETIME_S.1 } else { lifetime_s };
                self.opened(cx, Protocol::Upnp, external, lifetime_s, false);
            }
            Err(IgdError::NoAnswer) => self.go_on(cx, None),
            Err(IgdError::Refused(code)) => self.go_on(cx, Some(code)),
        }
    }
}
