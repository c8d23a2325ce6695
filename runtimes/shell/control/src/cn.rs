//! The port of the CN machine: accepts clients, keeps links to DNs and the ledger, decrypts grants and signs
//! introductions.

use super::geo::Geo;
use super::notices;
use crate::config::CnConfig;
use std::collections::VecDeque;
use std::future::{Future, ready};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::accounting::Trust;
use swarmedge_core::ids::ConnId;
use swarmedge_core::role::cn::{Cn, Config, Input, Metric, Output};
use swarmedge_core::role::edge::io::Batch;
use swarmedge_core::wire::control::{ToClient, ToCn};
use swarmedge_core::wire::directory::{FromDn, ToDn};
use swarmedge_core::wire::ledger::{FromLedger, ToLedger};
use swarmedge_core::wire::records::{LedgerRecord, ServerCert, ServerRole};
use swarmedge_ground::client_version;
use swarmedge_ground::config::OperatorConfig;
use swarmedge_ground::drive::Port;
use swarmedge_ground::error::Error;
use swarmedge_ground::files::read;
use swarmedge_ground::health::{Cause, Health};
use swarmedge_ground::host::watched::{PATIENCE, WatchedLink};
use swarmedge_ground::host::{INBOX_MAX, Live, Role, Server, certificate, load_tls, sockets::listen, space};
use swarmedge_ground::http::seats::FloodLog;
use swarmedge_ground::http::{Origin, Signal};
use swarmedge_ground::keys::{Key, verify};
use swarmedge_ground::link::{Accept, Cap, Event, Inlet, Links, dial};
use swarmedge_ground::mailbox::mailbox;
use swarmedge_ground::ops;
use swarmedge_ground::rt::Rt;
use swarmedge_ground::seals::Seals;
use swarmedge_ground::spool::{self, Saver, Spool};
use swarmedge_ground::tls::client_config;

/// Number of connections allowed beyond `sessions_max`: for handshakes, and for clients that are refused and told
/// when to try again.
const SPARE_CONNECTIONS: usize = 1024;

/// An opened spool: the records it had, the handle that queues records to be saved, and the task that writes them.
type OpenSpool<W> = (Vec<LedgerRecord>, Option<Saver<Input>>, Option<W>);

/// Opens a CN. The server runs until `stop` is set and its clients have been sent to other CNs.
pub fn open<R: Rt>(
    rt: &R,
    operator: &OperatorConfig,
    cfg: &CnConfig,
    stop: &Signal,
    health: &Health,
) -> Result<Server, Error> {
    let health = &health.of("cn");
    let key = Key::load(&cfg.signing_key)?;
    let trust = Trust { root: operator.root, verify };
    let cert = certificate(&trust, ServerRole::Cn, &cfg.certificate, Some((&cfg.signing_key, key.public())))?;
    let geo = Geo::open(cfg.geo_countries.as_deref(), cfg.geo_networks.as_deref())?;
    let config = machine_config(operator, cfg, cert, geo.has_database())?;
    let (listener, addr) = listen(rt, cfg.listen, "[cn] listen")?;
    let (tls, live_tls) = load_tls(&cfg.tls_cert, &cfg.tls_key, true)?;
    let connections_max = usize::try_from(cfg.sessions_max).unwrap_or(usize::MAX).saturating_add(SPARE_CONNECTIONS);
    let acceptor = Accept::<R> { listener, tls, connections_max, server: "cn" };
    let (inbox, inputs) = mailbox(INBOX_MAX);
    let (records, spool, writing) = open_spool(rt, cfg, health)?;
    let port = CnPort {
        rt: rt.clone(),
        spool,
        seals: Seals::open(&cfg.seal_key)?,
        server_tls: client_config(&read(&operator.ca)?, Some(&key))?,
        key,
        dns: cfg.dns.clone(),
        ledger: cfg.ledger.clone(),
        clients: Inlet { inbox: inbox.clone(), links: Links::default(), wrap: from_client, cap: Cap::CLIENT },
        directories: Inlet { inbox: inbox.clone(), links: Links::default(), wrap: from_directory, cap: Cap::SERVER },
        ledgers: Inlet { inbox: inbox.clone(), links: Links::default(), wrap: from_ledger, cap: Cap::SERVER },
        geo: geo.clone(),
        log: FloodLog::new(rt, "cn sessions"),
        watch: Watch::new(cfg, health),
        stopped: false,
    };
    let ops = cfg.ops.map(|at| ops::serve(rt, at, "[cn] ops", stop.clone(), health.clone())).transpose()?;
    let edges = cfg.edges.iter().map(String::as_str).map(edge_origin).collect::<Result<Vec<_>, _>>()?;
    let edge_tls = client_config(&read(&operator.ca)?, None)?;
    let health = health.clone();
    let (rt, stop, name, seals) = (rt.clone(), stop.clone(), cfg.name.clone(), port.seals.clone());
    let role = Role {
        machine: Cn::default(),
        config,
        inputs,
        acceptor,
        inlet: port.clients.clone(),
        port,
        clock: |unix_ms| Input::WallClock { unix_ms },
        shutdown: Some(Input::Shutdown),
    };
    let run = async move {
        tracing::info!(%addr, name, "CN is ready");
        // the spool's records must be the machine's first input
        let _ = inbox.send(Input::Restored { records }).await;
        let closed = when_ended(&rt, writing);
        rt.spawn(seals.clone().send_cookie_keys(rt.clone(), inbox.clone(), Input::CookieKeys));
        rt.spawn(seals.follow(rt.clone()));
        rt.spawn(geo.follow(rt.clone()));
        if !edges.is_empty() {
            rt.spawn(notices::follow(rt.clone(), edge_tls, edges, inbox.clone(), health));
        }
        rt.spawn(announce(stop.clone()));
        role.serve(rt, stop, ready(())).await;
        closed.wait().await;
        tracing::info!("CN has stopped");
        Ok(())
    };
    Ok(Server::new(addr, ops, run).living(Live::tls(live_tls)))
}

/// Opens the spool, if one is configured; without one there are no records, no handle and no writing task.
fn open_spool<R: Rt>(
    rt: &R,
    cfg: &CnConfig,
    health: &Health,
) -> Result<OpenSpool<impl Future<Output = ()> + use<R>>, Error> {
    let Some(path) = cfg.spool.as_deref() else { return Ok((Vec::new(), None, None)) };
    let (spool, (records, _)) = Spool::open_remembered(path, "cn")?;
    rt.spawn(space::watch(rt.clone(), health.clone(), vec![("CN's disk", path.to_owned())]));
    let (saver, writing) = spool::write(rt.clone(), spool, health, "CN's spool", |req, ok| Input::Saved { req, ok });
    Ok((records, Some(saver), Some(writing)))
}

async fn announce(stop: Signal) {
    stop.wait().await;
    tracing::info!("CN sends its clients to other CNs");
}

/// Returns the configuration of the CN machine.
fn machine_config(
    operator: &OperatorConfig,
    cfg: &CnConfig,
    cert: ServerCert,
    geolocation: bool,
) -> Result<Config, Error> {
    let least = &cfg.client_version_min;
    let wrong = || Error::usage(format!("[cn] client_version_min: {least:?} is not a version like 0.2.0"));
    Ok(Config {
        client_version_min: client_version::number(least).ok_or_else(wrong)?,
        geolocation,
        dns: u32::try_from(cfg.dns.len()).unwrap_or(u32::MAX),
        ledger: cfg.ledger.is_some(),
        spool: cfg.spool.is_some(),
        sessions_max: cfg.sessions_max,
        drain: Duration::from_millis(cfg.drain_ms),
        ..Config::new(operator.root, verify, cert)
    })
}

fn edge_origin(url: &str) -> Result<Origin, Error> {
    Origin::parse(url).ok_or_else(|| Error::usage(format!("[cn] edges: {url:?} is not https://host:port")))
}

/// Spawns the spool's writing task, if there is one; returns a signal that is set when it has ended.
fn when_ended<R: Rt>(rt: &R, writing: Option<impl Future<Output = ()> + 'static>) -> Signal {
    let ended = Signal::default();
    match writing {
        Some(writing) => {
            let ended = ended.clone();
            rt.spawn(async move {
                writing.await;
                ended.set();
            });
        }
        None => ended.set(),
    }
    ended
}

struct CnPort<R: Rt> {
    rt: R,
    spool: Option<Saver<Input>>,
    key: Key,
    seals: Seals,
    server_tls: Arc<rustls::ClientConfig>,
    dns: Vec<String>,
    ledger: Option<String>,
    clients: Inlet<ToClient, ToCn, Input>,
    directories: Inlet<ToDn, FromDn, Input>,
    ledgers: Inlet<ToLedger, FromLedger, Input>,
    geo: Geo,
    log: Rc<FloodLog>,
    watch: Watch,
    stopped: bool,
}

/// The CN's links to other servers, as metrics and health show them.
struct Watch {
    health: Health,
    dns: Vec<WatchedLink>,
    ledger: Option<WatchedLink>,
    /// Whether a DN was connected at the last call of [`Self::look`]; `None` before.
    any_dn: Option<bool>,
}

/// Name under which `/healthz` reports whether introductions are possible.
const INTRODUCING: &str = "CN's introductions";

impl Watch {
    fn new(cfg: &CnConfig, health: &Health) -> Self {
        let link = |to: String| WatchedLink::new(health, "cn", to);
        Self {
            health: health.clone(),
            dns: cfg.dns.iter().map(|addr| link(format!("the DN at {addr}"))).collect(),
            ledger: cfg.ledger.as_ref().map(|_| link("the ledger".to_owned())),
            any_dn: None,
        }
    }

    fn look(&mut self, cn: &Cn) {
        self.dns.iter_mut().zip(cn.each_dn_up()).for_each(|(link, up)| link.note(up));
        if let Some(link) = &mut self.ledger {
            link.note(cn.is_ledger_up());
        }
        let any = cn.dns_up() > 0;
        if self.any_dn.replace(any) == Some(any) {
            return;
        }
        if any {
            return self.health.clear(INTRODUCING);
        }
        let why = "no DN is connected, so nobody is introduced (start a DN)";
        self.health.fail_after(PATIENCE, INTRODUCING, Cause::LinkDown, why);
    }
}

impl<R: Rt> Port<Cn> for CnPort<R> {
    fn perform(&mut self, output: Output, local: &mut VecDeque<Input>) {
        match output {
            Output::ClientSend { conn, msg } => self.clients.links.send(conn, &msg),
            Output::ClientClose { conn } => self.clients.links.close(conn),
            Output::DirectoryDial { conn, dn } => match self.dns.get(dn as usize) {
                Some(addr) => {
                    let tls = Arc::clone(&self.server_tls);
                    dial(&self.rt, tls, addr, conn, &self.directories);
                }
                None => local.push_back(Input::DirectoryClosed { conn }),
            },
            Output::DirectorySend { conn, msg } => self.directories.links.send(conn, &msg),
            Output::DirectoryClose { conn } => self.directories.links.close(conn),
            Output::LedgerDial { conn } => match &self.ledger {
                Some(addr) => dial(&self.rt, Arc::clone(&self.server_tls), addr, conn, &self.ledgers),
                None => local.push_back(Input::LedgerClosed { conn }),
            },
            Output::LedgerSend { conn, msg } => self.ledgers.links.send(conn, &msg),
            Output::LedgerClose { conn } => self.ledgers.links.close(conn),
            Output::Save { req, records, acked } => {
                let batch = Batch { records, acked, ..Batch::default() };
                if !self.spool.as_ref().is_some_and(|spool| spool.save(&self.clients.inbox, req, batch)) {
                    local.push_back(Input::Saved { req, ok: false });
                }
            }
            Output::Locate { conn, addr } => local.push_back(Input::Located { conn, location: self.geo.locate(addr) }),
            Output::OpenGrant { req, sealed } => {
                let grant = self.seals.unseal(&sealed).map(Box::new);
                local.push_back(Input::GrantOpened { req, grant });
            }
            Output::Sign { req, context, message } => {
                let signature = self.key.sign(context, &message);
                local.push_back(Input::Signed { req, signature });
            }
            Output::Count(metric) => self.count(metric),
            Output::Stopped => self.stopped = true,
        }
    }

    fn observe(&mut self, cn: &Cn) {
        gauge("swarmedge_cn_sessions", cn.sessions());
        gauge("swarmedge_cn_dns_up", cn.dns_up());
        gauge("swarmedge_cn_usage_waiting", cn.usage_waiting());
        self.watch.look(cn);
    }

    fn is_over(&self) -> bool {
        self.stopped
    }
}

impl<R: Rt> CnPort<R> {
    fn count(&self, metric: Metric) {
        metrics::counter!(metric.name()).increment(1);
        if metric == Metric::Busy {
            self.log.note_refused();
        } else if metric == Metric::Displaced {
            self.log.note_displaced();
        }
    }
}

fn gauge(name: &'static str, value: usize) {
    metrics::gauge!(name).set(f64::from(u32::try_from(value).unwrap_or(u32::MAX)));
}

/// Converts an event on a client's connection to an input of the CN; `None` if it needs none.
fn from_client(conn: ConnId, event: Event<ToCn>) -> Option<Input> {
    Some(match event {
        Event::Opened(peer) => peer.map(|p| Input::ClientAccepted { conn, key: p.key, from: p.from })?,
        Event::Message(msg) => Input::Client { conn, msg },
        Event::Closed => Input::ClientClosed { conn },
    })
}

/// Converts an event on the connection to a DN to an input of the CN.
fn from_directory(conn: ConnId, event: Event<FromDn>) -> Option<Input> {
    Some(match event {
        Event::Opened(_) => Input::DirectoryOpened { conn },
        Event::Message(msg) => Input::Directory { conn, msg },
        Event::Closed => Input::DirectoryClosed { conn },
    })
}

/// Converts an event on the connection to the ledger to an input of the CN.
fn from_ledger(conn: ConnId, event: Event<FromLedger>) -> Option<Input> {
    Some(match event {
        Event::Opened(_) => Input::LedgerOpened { conn },
        Event::Message(msg) => Input::Ledger { conn, msg },
        Event::Closed => Input::LedgerClosed { conn },
    })
}
