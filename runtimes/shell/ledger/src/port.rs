//! The port of the ledger machine: accepts CNs and edges, stores batches one after another, closes days, and reads the
//! quarantine list.

use super::close::{Signer, close_due, forget_due};
use super::config::LedgerConfig;
use super::database::Database;
use super::day::Day;
use super::quarantine;
use super::reader::Reader;
use super::store::Store;
use futures_lite::future::or;
use std::collections::VecDeque;
use std::time::Duration;
use swarmedge_core::ids::{ConnId, Guid, ReqId};
use swarmedge_core::role::ledger::{Config, Input, Ledger, Output};
use swarmedge_core::wire::ledger::{FromLedger, ToLedger};
use swarmedge_core::wire::records::LedgerRecord;
use swarmedge_ground::config::OperatorConfig;
use swarmedge_ground::drive::Port;
use swarmedge_ground::error::Error;
use swarmedge_ground::health::{Condition, Health};
use swarmedge_ground::host::{INBOX_MAX, Live, Role, Server, load_tls, sockets::listen, space, unix_ms};
use swarmedge_ground::http::Signal;
use swarmedge_ground::keys::verify;
use swarmedge_ground::link::{Accept, Cap, Event, Inlet, Links};
use swarmedge_ground::mailbox::{Receiver, Sender, mailbox};
use swarmedge_ground::ops;
use swarmedge_ground::rt::Rt;

/// Number of connections allowed beyond one per certified server: they may be in their TLS handshakes.
const SPARE_CONNECTIONS: usize = 256;

/// Interval of the checks whether a day is due to be closed.
const CLOSE_EVERY: Duration = Duration::from_secs(3600);
/// Wait before days are closed again after closing has failed.
const CLOSE_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Advice to the operator after a database error.
const MEND: &str = "see to the database and its disk: until then records wait with edges and CNs";

/// Interval of checkpoints of SQLite's log.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);

/// Records to store together, with the request's number.
type Batch = (ReqId, Vec<LedgerRecord>);

/// Opens a ledger. The server runs until `stop` is set and all accepted records are stored.
pub async fn open<R: Rt>(
    rt: &R,
    operator: &OperatorConfig,
    cfg: &LedgerConfig,
    stop: &Signal,
    health: &Health,
) -> Result<Server, Error> {
    let health = &health.of("ledger");
    let config = Config::new(operator.root, verify);
    let (listener, addr) = listen(rt, cfg.listen, "[ledger] listen")?;
    let (tls, live_tls) = load_tls(&cfg.tls_cert, &cfg.tls_key, true)?;
    let acceptor = Accept::<R> {
        listener,
        tls,
        connections_max: usize::try_from(config.servers_max).unwrap_or(usize::MAX).saturating_add(SPARE_CONNECTIONS),
        server: "ledger",
    };
    cfg.database.check_unopened()?;
    let store = Store::open(&cfg.database).await?;
    let signer = Signer::load(cfg)?;
    let (inbox, inputs) = mailbox(INBOX_MAX);
    let (batches, to_store) = mailbox(1);
    let servers = Inlet { inbox: inbox.clone(), links: Links::default(), wrap: from_server, cap: Cap::SERVER };
    let port = LedgerPort { links: servers.links.clone(), batches, stopped: false };
    let ops = cfg.ops.map(|at| ops::serve(rt, at, "[ledger] ops", stop.clone(), health.clone())).transpose()?;
    let [storing, reading, closing] =
        ["ledger", "ledger's quarantine", "ledger's days"].map(|part| Condition::new(health, part));
    if let Database::Sqlite(file) = &cfg.database {
        rt.spawn(space::watch(rt.clone(), health.clone(), vec![("ledger's disk", file.clone())]));
    }
    let (rt, stop, config_of_days) = (rt.clone(), stop.clone(), cfg.clone());
    let role = Role {
        machine: Ledger::default(),
        config,
        port,
        inputs,
        acceptor,
        inlet: servers,
        clock: |unix_ms| Input::WallClock { unix_ms },
        shutdown: Some(Input::Shutdown),
    };
    let run = async move {
        tracing::info!(%addr, "ledger is ready");
        // these tasks use the database too and must end before its writer
        let stored_all = Signal::default();
        let telling = tell_quarantine(rt.clone(), config_of_days.database.clone(), inbox.clone(), reading);
        rt.spawn(or(stored_all.wait(), telling));
        if let Some(signer) = signer {
            rt.spawn(or(stored_all.wait(), close_daily(rt.clone(), config_of_days, signer, closing)));
        }
        let storing = async {
            let writer = Writer { rt: rt.clone(), store, batches: to_store, inbox: inbox.clone(), condition: storing };
            writer.store_batches(stored_all).await;
        };
        // when the machine ends it drops the port, whose end of the mailbox ends the writer
        role.serve(rt.clone(), stop, storing).await;
        tracing::info!("ledger has stopped");
        Ok(())
    };
    Ok(Server::new(addr, ops, run).living(Live::tls(live_tls)))
}

/// Task that stores the machine's batches.
struct Writer<R: Rt> {
    rt: R,
    store: Store,
    batches: Receiver<Batch>,
    inbox: Sender<Input>,
    condition: Condition,
}

impl<R: Rt> Writer<R> {
    /// Stores batches until the machine has ended, then sets `stored_all` and closes the database with an empty log.
    async fn store_batches(mut self, stored_all: Signal) {
        let mut checkpoint_at = self.rt.now() + CHECKPOINT_EVERY;
        loop {
            if self.rt.now() >= checkpoint_at {
                checkpoint_at = self.rt.now() + CHECKPOINT_EVERY;
                self.store.checkpoint().await;
            }
            let due = async {
                self.rt.sleep_until(checkpoint_at).await;
                None
            };
            let Some(next) = or(async { Some(self.batches.recv().await) }, due).await else { continue };
            let Some((req, records)) = next else { break };
            let stored = self.store.store(&records, unix_ms()).await;
            match &stored {
                Ok(()) => self.condition.succeeded(),
                Err(e) => self.condition.failed(format_args!("cannot store records: {e} ({MEND})")),
            }
            // the machine may have ended without waiting for this
            let _ = self.inbox.send(Input::Stored { req, ok: stored.is_ok() }).await;
        }
        stored_all.set();
        self.store.close_with_empty_log().await;
    }
}

/// Sends the quarantine list to the machine at intervals, until the machine has ended.
async fn tell_quarantine<R: Rt>(rt: R, database: Database, inbox: Sender<Input>, mut condition: Condition) {
    let mut reader = None;
    loop {
        match in_quarantine(&mut reader, &database).await {
            Ok(guids) => {
                condition.succeeded();
                if inbox.send(Input::Quarantined { guids }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                condition.failed(format_args!("cannot read who is in quarantine: {error} ({MEND})"));
                reader = None;
            }
        }
        rt.sleep_until(rt.now() + quarantine::LOOK_EVERY).await;
    }
}

/// Returns the GUIDs in quarantine, and opens the database for it if it is not open.
async fn in_quarantine(reader: &mut Option<Reader>, database: &Database) -> Result<Vec<Guid>, Error> {
    let reader = match reader {
        Some(reader) => reader,
        None => reader.insert(Reader::open(database).await?),
    };
    reader.in_quarantine().await
}

/// Closes due days at intervals, and once a day deletes old records and the addresses in old logins.
async fn close_daily<R: Rt>(rt: R, cfg: LedgerConfig, signer: Signer, mut condition: Condition) {
    let mut forgot_on = None;
    loop {
        let now_ms = unix_ms();
        let mut done = match close_due(&cfg.database, &cfg, &signer, now_ms).await {
            Ok(closed) => {
                closed.iter().for_each(|c| tracing::info!(day = %c.day, leaves = c.leaves, "a day was closed"));
                Ok(())
            }
            Err(error) => Err(format!("cannot close days: {error} ({MEND})")),
        };
        if forgot_on != Some(Day::of_ms(now_ms)) {
            match forget_due(&cfg, now_ms).await {
                Ok(()) => forgot_on = Some(Day::of_ms(now_ms)),
                Err(error) => done = done.and(Err(format!("cannot forget old records: {error} ({MEND})"))),
            }
        }
        let wait = if done.is_ok() { CLOSE_EVERY } else { CLOSE_AGAIN_AFTER };
        match done {
            Ok(()) => condition.succeeded(),
            Err(why) => condition.failed(why),
        }
        rt.sleep_until(rt.now() + wait).await;
    }
}

struct LedgerPort {
    links: Links<FromLedger>,
    batches: Sender<Batch>,
    stopped: bool,
}

impl Port<Ledger> for LedgerPort {
    fn perform(&mut self, output: Output, local: &mut VecDeque<Input>) {
        match output {
            Output::Send { conn, msg } => self.links.send(conn, &msg),
            Output::Close { conn } => self.links.close(conn),
            Output::Store { req, records } => {
                // the machine sends one batch at a time: there is room unless the writer has ended
                if self.batches.try_send((req, records)).is_err() {
                    local.push_back(Input::Stored { req, ok: false });
                }
            }
            Output::Count(metric) => metrics::counter!(metric.name()).increment(1),
            Output::Stopped => self.stopped = true,
        }
    }

    fn observe(&mut self, ledger: &Ledger) {
        let waiting = u32::try_from(ledger.waiting()).unwrap_or(u32::MAX);
        metrics::gauge!("swarmedge_ledger_waiting").set(f64::from(waiting));
    }

    fn is_over(&self) -> bool {
        self.stopped
    }
}

/// Converts an event on a server's connection to an input of the ledger; `None` if it needs none.
fn from_server(conn: ConnId, event: Event<ToLedger>) -> Option<Input> {
    Some(match event {
        Event::Opened(peer) => peer.map(|p| Input::Accepted { conn, key: p.key })?,
        Event::Message(msg) => Input::Server { conn, msg },
        Event::Closed => Input::Closed { conn },
    })
}
