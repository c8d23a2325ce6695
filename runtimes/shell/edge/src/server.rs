//! Starts and stops an edge server: opens files, keys and sockets, serves, and hands over its byte counts at the end.

use super::catalogue::Files;
use super::config::EdgeConfig;
use super::handle::EdgeHandle;
use super::keeper::Keeper;
use super::live::LiveConfig;
use super::mend;
use super::notice_signer::NoticeSigner;
use super::pace::Pacer;
use super::port::{EdgePort, from_ledger};
use super::published::PublishedFiles;
use super::routes::Routes;
use super::scrub;
use futures_lite::future::or;
use std::cell::RefCell;
use std::future::Future;
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
use swarmedge_ground::host::sockets::listen;
use swarmedge_ground::host::watched::WatchedLink;
use swarmedge_ground::host::{INBOX_MAX, Live, Server, certificate, load_tls, send_clock, space, unix_ms};
use swarmedge_ground::http::{self, Limits, Signal, Site};
use swarmedge_ground::keys::{Key, verify};
use swarmedge_ground::link::{Cap, Inlet, Links};
use swarmedge_ground::mailbox::{Sender, mailbox};
use swarmedge_ground::ops;
use swarmedge_ground::rt::Rt;
use swarmedge_ground::seals::Seals;
use swarmedge_ground::spool::{self, Spool};
use swarmedge_ground::tls::client_config;

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
    let health = &health.of("edge");
    let trust = trust(cfg)?;
    let (key, cert) = identity(cfg, &trust)?;
    let (published, keeper) = stored_content(rt, cfg, health)?;
    let (spool, (records, counts)) = Spool::open_remembered(&cfg.spool, "edge")?;
    let (tls, live_tls) = load_tls(&cfg.tls_cert, &cfg.tls_key, false)?;
    let ledger_tls = client_config(&read(&cfg.ca)?, Some(&key))?;
    let seals = Seals::open(&cfg.seal_key)?;
    ops::init_metrics();
    let (listener, addr) = listen(rt, cfg.listen, "[edge] listen")?;
    let ops = cfg.ops.map(|at| ops::serve(rt, at, "[edge] ops", stop.clone(), health.clone())).transpose()?;
    let (inbox, inputs) = mailbox(INBOX_MAX);
    let (spool, writing) = spool::write(rt.clone(), spool, health, "edge's spool", |req, ok| Input::Saved { req, ok });
    let machine = EdgeHandle::new(inbox.clone());
    let notices = NoticeSigner { key: key.clone(), cert: cert.clone() };
    let port = EdgePort {
        rt: rt.clone(),
        key,
        cert: cert.clone(),
        seals: seals.clone(),
        machine: machine.clone(),
        keeper: keeper.clone(),
        spool,
        ledger: cfg.ledger.clone(),
        ledger_tls,
        ledgers: Inlet { inbox: inbox.clone(), links: Links::default(), wrap: from_ledger, cap: Cap::SERVER },
        health: health.clone(),
        ledger_link: cfg.ledger.as_ref().map(|_| WatchedLink::new(health, "edge", "the ledger")),
        refuses,
        stopped: false,
    };
    let (config, live) = (machine_config(cfg, &trust, cert), LiveConfig::new(cfg));
    let routes = Rc::new(Routes {
        rt: rt.clone(),
        cfg: live.clone(),
        published: published.clone(),
        machine,
        seals: seals.clone(),
        trust,
        pacer: Rc::new(RefCell::new(Pacer::following(live.rate()))),
        pacers: RefCell::default(),
        bodies: Rc::default(),
        health: health.clone(),
        keeper: keeper.clone(),
        notices,
    });
    let site = Site { listener, tls, limits: limits(cfg), service: routes };
    tend(rt, keeper, published, &live);
    let (rt, stop, name) = (rt.clone(), stop.clone(), cfg.name.clone());
    let run = async move {
        tracing::info!(%addr, name, "edge is ready");
        rt.spawn(seals.follow(rt.clone()));
        rt.spawn(writing);
        let machine = drive(rt.clone(), Edge::default(), config, inputs, port);
        let answering = http::serve(rt.clone(), site, stop);
        serve(rt, machine, inbox, Input::Restored { records, counts }, answering).await;
        tracing::info!("edge has stopped");
        Ok(())
    };
    let live = Live::tls(live_tls).section(LiveConfig::KEYS, move |section| live.take(section));
    Ok(Server::new(addr, ops, run).living(live))
}

/// Starts the tasks that check the stored content for damage and repair it.
fn tend<R: Rt>(rt: &R, keeper: Keeper<R>, published: PublishedFiles<R>, live: &LiveConfig) {
    rt.spawn(mend::follow(rt.clone(), keeper.clone(), published.clone()));
    rt.spawn(scrub::follow(rt.clone(), keeper, published, live.scrub_rate()));
}

/// Opens the published objects and their stored content, and watches the room on their disks.
fn stored_content<R: Rt>(rt: &R, cfg: &EdgeConfig, health: &Health) -> Result<(PublishedFiles<R>, Keeper<R>), Error> {
    let files = Files::new(&cfg.objects);
    files.create()?;
    let published = PublishedFiles::open(rt.clone(), files.clone(), health)?;
    rt.spawn(space::watch(rt.clone(), health.clone(), places(cfg)));
    Ok((published, Keeper::new(rt.clone(), files, health.clone())))
}

/// Returns the bounds of the HTTPS server.
fn limits(cfg: &EdgeConfig) -> Limits {
    Limits {
        connections_max: cfg.connections_max,
        drain_within: Duration::from_millis(cfg.drain_ms),
        ..Limits::default()
    }
}

/// Returns the directories in which the edge writes, and those in which published objects are written.
fn places(cfg: &EdgeConfig) -> Vec<space::Place> {
    vec![("edge's disk", cfg.spool.clone()), ("edge's disk of objects", cfg.objects.clone())]
}

/// Returns the configuration of the machine.
fn machine_config(cfg: &EdgeConfig, trust: &Trust, cert: ServerCert) -> Config {
    Config {
        ledger: cfg.ledger.is_some(),
        grant_for: Duration::from_millis(cfg.grant_lifetime_ms),
        challenge_permille: cfg.challenge_permille,
        ..Config::new(trust.root, verify, cert)
    }
}

/// Runs the machine and answers requests until the server is to stop; then the machine sends its last records.
async fn serve<R: Rt>(
    rt: R,
    machine: impl Future<Output = ()> + 'static,
    inbox: Sender<Input>,
    restored: Input,
    answering: impl Future<Output = ()>,
) {
    let over = Signal::default();
    let ended = over.clone();
    rt.spawn(async move {
        machine.await;
        ended.set();
    });
    // the machine's first inputs: the time, and what the spool held
    let _ = inbox.send(Input::WallClock { unix_ms: unix_ms() }).await;
    let _ = inbox.send(restored).await;
    rt.spawn(send_clock(rt.clone(), inbox.clone(), |unix_ms| Input::WallClock { unix_ms }));
    answering.await;
    tracing::info!("edge sends its last records to the ledger");
    let _ = inbox.send(Input::Shutdown).await;
    or(over.wait(), rt.sleep_until(rt.now() + HAND_OVER_WITHIN)).await;
}

fn trust(cfg: &EdgeConfig) -> Result<Trust, Error> {
    let root = cfg.root.parse().map_err(|_| Error::usage("[edge] root is not a public key"))?;
    Ok(Trust { root, verify })
}

/// Loads the signing key and its certificate; fails unless they match and the certificate is valid now.
fn identity(cfg: &EdgeConfig, trust: &Trust) -> Result<(Key, ServerCert), Error> {
    let key = Key::load(&cfg.signing_key)?;
    let signer = Some((cfg.signing_key.as_path(), key.public()));
    let cert = certificate(trust, ServerRole::Edge, &cfg.certificate, signer)?;
    Ok((key, cert))
}
