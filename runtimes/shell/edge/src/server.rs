//! Starts and stops an edge server: opens files, keys and sockets, serves, and hands over its byte counts at the end.

use super::catalogue::Files;
use super::config::EdgeConfig;
use super::door::EdgeHandle;
use super::pace::Pacer;
use super::port::{EdgePort, from_ledger};
use super::routes::Routes;
use super::shelf::PublishedFiles;
use futures_lite::future::or;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use swarmedge_core::accounting::Trust;
use swarmedge_core::role::edge::{Config, Edge, Input};
use swarmedge_core::wire::records::{ServerCert, ServerRole};
use swarmedge_ground::drive::drive;
use swarmedge_ground::error::Error;
use swarmedge_ground::files::read;
use swarmedge_ground::health::Health;
use swarmedge_ground::host::sockets::listen_tcp;
use swarmedge_ground::host::{INBOX_MAX, Server, send_clock, unix_ms};
use swarmedge_ground::http::{self, Limits, Signal};
use swarmedge_ground::keys::{Key, load_cert, verify};
use swarmedge_ground::link::{Inlet, Links};
use swarmedge_ground::mailbox::mailbox;
use swarmedge_ground::ops;
use swarmedge_ground::rt::Rt;
use swarmedge_ground::seals::Seals;
use swarmedge_ground::spool::{self, Spool};
use swarmedge_ground::tls::{client_config, server_config};

/// Time for the machine to send its records to the ledger after the last answer; the rest stays in the spool.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(10);

/// Opens an edge. The server runs until `stop` is set and running answers have ended or `drain_ms` is over.
pub fn open<R: Rt>(rt: &R, cfg: &EdgeConfig, stop: &Signal, health: &Health) -> Result<Server, Error> {
    open_on(rt, cfg, stop, health, Arc::default())
}

/// Opens an edge whose spool refuses every write while `refuses` is set, as a full disk would.
pub fn open_on<R: Rt>(
    rt: &R,
    cfg: &EdgeConfig,
    stop: &Signal,
    health: &Health,
    refuses: Arc<AtomicBool>,
) -> Result<Server, Error> {
    let trust = trust(cfg)?;
    let (key, cert) = identity(cfg, &trust)?;
    let files = Files::new(&cfg.objects);
    files.create()?;
    let published = PublishedFiles::open(rt.clone(), files.clone(), health)?;
    let (spool, (records, counts)) = Spool::open_remembered(&cfg.spool, "edge")?;
    let tls = server_config(&read(&cfg.tls_cert)?, &read(&cfg.tls_key)?, false)
        .map_err(|e| Error::usage(format!("{} and {}: {e}", cfg.tls_cert.display(), cfg.tls_key.display())))?;
    let ledger_tls = client_config(&read(&cfg.ca)?, Some(&key))?;
    let seals = Seals::open(&cfg.seal_key)?;
    ops::init_metrics();
    let socket = listen_tcp(cfg.listen, "[edge] listen")?;
    let listening = |e: std::io::Error| Error::io(format!("listen on {}", cfg.listen), &e);
    let addr = socket.local_addr().map_err(listening)?;
    let listener = rt.listen(socket).map_err(listening)?;

    let (inbox, inputs) = mailbox(INBOX_MAX);
    let (spool, writing) = spool::write(rt.clone(), spool, health, "edge's spool", |req, ok| Input::Saved { req, ok });
    let machine = EdgeHandle::new(inbox.clone());
    let port = EdgePort {
        rt: rt.clone(),
        key,
        cert: cert.clone(),
        seals: seals.clone(),
        machine: machine.clone(),
        files: files.clone(),
        spool,
        ledger: cfg.ledger.clone(),
        ledger_tls,
        ledgers: Inlet { inbox: inbox.clone(), links: Links::default(), wrap: from_ledger },
        health: health.clone(),
        refuses,
        stopped: false,
    };
    let config = Config {
        ledger: cfg.ledger.is_some(),
        grant_for: Duration::from_millis(cfg.grant_lifetime_ms),
        challenge_permille: cfg.challenge_permille,
        ..Config::new(trust.root, verify, cert)
    };
    let routes = Rc::new(Routes {
        rt: rt.clone(),
        cfg: Rc::new(cfg.clone()),
        published,
        machine,
        seals: seals.clone(),
        trust,
        pacer: Rc::new(RefCell::new(Pacer::new(cfg.rate_limit.0))),
        pacers: RefCell::default(),
        health: health.clone(),
        read_errors: Rc::default(),
    });
    let limits = Limits {
        connections_max: cfg.connections_max,
        drain_within: Duration::from_millis(cfg.drain_ms),
        ..Limits::default()
    };
    let (rt, stop, name) = (rt.clone(), stop.clone(), cfg.name.clone());
    let run = async move {
        tracing::info!(%addr, name, "edge is ready");
        rt.spawn(seals.follow(rt.clone()));
        rt.spawn(writing);
        let over = Signal::default();
        let machine = {
            let (rt, over) = (rt.clone(), over.clone());
            async move {
                drive(rt, Edge::default(), config, inputs, port).await;
                over.set();
            }
        };
        rt.spawn(machine);
        // the machine's first inputs: the time, and what the spool held
        let _ = inbox.send(Input::WallClock { unix_ms: unix_ms() }).await;
        let _ = inbox.send(Input::Restored { records, counts }).await;
        rt.spawn(send_clock(rt.clone(), inbox.clone(), |unix_ms| Input::WallClock { unix_ms }));
        http::serve(rt.clone(), listener, tls, limits, routes, stop).await;
        tracing::info!("edge sends its last records to the ledger");
        let _ = inbox.send(Input::Shutdown).await;
        or(over.wait(), rt.sleep_until(rt.now() + HAND_OVER_WITHIN)).await;
        tracing::info!("edge has stopped");
        Ok(())
    };
    Ok(Server::new(addr, None, run))
}

fn trust(cfg: &EdgeConfig) -> Result<Trust, Error> {
    let root = cfg.root.parse().map_err(|_| Error::usage("[edge] root is not a public key"))?;
    Ok(Trust { root, verify })
}

/// Loads the signing key and its certificate; fails unless they match and the certificate is valid now.
fn identity(cfg: &EdgeConfig, trust: &Trust) -> Result<(Key, ServerCert), Error> {
    let key = Key::load(&cfg.signing_key)?;
    let cert = load_cert(&cfg.certificate)?;
    if trust.check_cert(&cert, ServerRole::Edge, unix_ms()).is_err() || cert.body.key != key.public() {
        return Err(Error::usage(format!(
            "{} is no valid certificate of the operator for an edge with {}",
            cfg.certificate.display(),
            cfg.signing_key.display()
        ))
        .next("certificates expire: `swarmedge certificates renew` makes new ones"));
    }
    Ok((key, cert))
}
