//! The port of the DN machine: accepts CNs. The directory is soft state, so a DN stops without saving anything.

use crate::config::DnConfig;
use std::collections::VecDeque;
use std::future::ready;
use swarmedge_core::accounting::Trust;
use swarmedge_core::ids::ConnId;
use swarmedge_core::role::dn::{Config, Dn, Input, Output};
use swarmedge_core::selection::directory;
use swarmedge_core::wire::directory::{FromDn, ToDn};
use swarmedge_core::wire::records::ServerRole;
use swarmedge_ground::config::OperatorConfig;
use swarmedge_ground::drive::Port;
use swarmedge_ground::error::Error;
use swarmedge_ground::health::Health;
use swarmedge_ground::host::{INBOX_MAX, Live, Role, Server, certificate, load_tls, sockets::listen};
use swarmedge_ground::http::Signal;
use swarmedge_ground::keys::verify;
use swarmedge_ground::link::{Accept, Cap, Event, Inlet, Links};
use swarmedge_ground::mailbox::mailbox;
use swarmedge_ground::ops;
use swarmedge_ground::rt::Rt;

/// Number of connections allowed beyond those of CNs: they may be in their TLS handshakes.
const SPARE_CONNECTIONS: usize = 256;

/// Opens a DN. The server runs until `stop` is set; its CNs then register with another DN, or with its next start.
pub fn open<R: Rt>(
    rt: &R,
    operator: &OperatorConfig,
    cfg: &DnConfig,
    stop: &Signal,
    health: &Health,
) -> Result<Server, Error> {
    let health = &health.of("dn");
    let trust = Trust { root: operator.root, verify };
    let cert = certificate(&trust, ServerRole::Dn, &cfg.certificate, None)?;
    let copies = directory::limits(cfg.copies_max);
    let config = Config { copies, ..Config::new(operator.root, verify, cert) };
    let (listener, addr) = listen(rt, cfg.listen, "[dn] listen")?;
    let (tls, live_tls) = load_tls(&cfg.tls_cert, &cfg.tls_key, true)?;
    let acceptor = Accept::<R> {
        listener,
        tls,
        connections_max: usize::try_from(config.cns_max).unwrap_or(usize::MAX).saturating_add(SPARE_CONNECTIONS),
        server: "dn",
    };
    let (inbox, inputs) = mailbox(INBOX_MAX);
    let cns = Inlet { inbox, links: Links::default(), wrap: from_cn, cap: Cap::SERVER };
    let port = DnPort { links: cns.links.clone() };
    let ops = cfg.ops.map(|at| ops::serve(rt, at, "[dn] ops", stop.clone(), health.clone())).transpose()?;
    let (rt, stop) = (rt.clone(), stop.clone());
    let name = cfg.name.clone();
    let role = Role {
        machine: Dn::default(),
        config,
        port,
        inputs,
        acceptor,
        inlet: cns,
        clock: |unix_ms| Input::WallClock { unix_ms },
        shutdown: None,
    };
    let run = async move {
        tracing::info!(%addr, name, "DN is ready");
        role.serve(rt, stop, ready(())).await;
        tracing::info!("DN has stopped");
        Ok(())
    };
    Ok(Server::new(addr, ops, run).living(Live::tls(live_tls)))
}

struct DnPort {
    links: Links<FromDn>,
}

impl Port<Dn> for DnPort {
    fn perform(&mut self, output: Output, _local: &mut VecDeque<Input>) {
        match output {
            Output::CnSend { conn, msg } => self.links.send(conn, &msg),
            Output::CnClose { conn } => self.links.close(conn),
            Output::Count(metric) => metrics::counter!(metric.name()).increment(1),
        }
    }

    fn observe(&mut self, dn: &Dn) {
        let gauge = |name: &'static str, value: u64| {
            metrics::gauge!(name).set(f64::from(u32::try_from(value).unwrap_or(u32::MAX)))
        };
        gauge("swarmedge_dn_cns", dn.cns() as u64);
        gauge("swarmedge_dn_peers", dn.directory().len() as u64);
        gauge("swarmedge_dn_copies", dn.directory().copies());
    }
}

/// Converts an event on a CN's connection to an input of the DN; `None` if it needs none.
fn from_cn(conn: ConnId, event: Event<ToDn>) -> Option<Input> {
    Some(match event {
        Event::Opened(peer) => peer.map(|p| Input::CnAccepted { conn, key: p.key })?,
        Event::Message(msg) => Input::Cn { conn, msg },
        Event::Closed => Input::CnClosed { conn },
    })
}
