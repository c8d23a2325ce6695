//! The client process: opens its directory, builds the parts that perform the machine's outputs, and runs the machine
//! to its end.

use super::api_state::ApiState;
use super::config::{ClientConfig, TcpPort};
use super::identity::Identity;
use super::local::{Api, Server};
use super::meetings::now_ms;
use super::port::{ClientPort, control_input};
use super::protocol::{CachedLine, CheckpointLine, Failure, StatusLine, url};
use crate::edge_client::tokens::Tokens;
use crate::edge_client::{EdgeClient, Own};
use crate::peers::{Peers, TcpAcceptor};
use crate::store::{self, Loss, Restored, Store};
use futures_lite::future::{or, zip};
use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use swarmedge_core::limits::DOORS_MAX;
use swarmedge_core::nat::Transport;
use swarmedge_core::nat::connectivity;
use swarmedge_core::nat::connectivity::Birthday;
use swarmedge_core::nat::cookie::Tag;
use swarmedge_core::role::client::io::{Input, ObjectRef};
use swarmedge_core::role::client::{Client, Config, KeptServers, Restore, io};
use swarmedge_core::wire::Text;
use swarmedge_ground::client_version;
use swarmedge_ground::drive::drive;
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::health::Health;
use swarmedge_ground::http::{Origin, Signal};
use swarmedge_ground::keys;
use swarmedge_ground::link::{Cap, Inlet, Links};
use swarmedge_ground::mailbox::{Receiver, Sender, mailbox};
use swarmedge_ground::nat::{self, Called, NatLine, Sight, Told};
use swarmedge_ground::ops;
use swarmedge_ground::quic::{Datagram, Endpoint, RawSender};
use swarmedge_ground::reach::Way;
use swarmedge_ground::rt::{Rt, Start, begin_listen};
use swarmedge_ground::tls;

/// Capacity of the machine's mailbox, in inputs; places reserved for the results of running commands count too.
const INBOX: usize = 16 * 1024;
/// Time-out for the machine to end after a shutdown was requested.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Interval at which a client looks whether the day of its upload key is over.
const LOOK_AT_DAY_EVERY: Duration = Duration::from_secs(60);
/// Time-out for telling peers that the client stops.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// Time-out for the lock of the state directory, which a command without a running client holds for a moment.
const UNLOCKED_WITHIN: Duration = Duration::from_secs(1);
/// File with this installation's UDP port. The port is random, since a STUN server would take two clients with the
/// same port in one home for one client behind a symmetric NAT. It is kept across starts, since each change would
/// leave unused port mappings behind.
const PORT: &str = "udp.port";

/// The reason for the end of a client's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client was told to stop.
    Stopped,
    /// The client must restart under another key, of the installation or of the day; downloads continue after the
    /// restart.
    NewKey,
}

/// Runs the client in the directory `config.state` until it is stopped. After a change of a key the client starts
/// again on a new runtime, so that nothing of the old key is left. `shutdown` is called once per start; `ready` is
/// called each time the client takes commands.
pub fn run_on<R: Start, S: Future<Output = ()> + 'static>(
    config: &ClientConfig,
    ready: impl Fn(&ApiState) + Clone + 'static,
    shutdown: impl Fn(&R) -> Result<S, Error> + Clone + 'static,
) -> Result<(), Error> {
    loop {
        let (config, ready, shutdown) = (config.clone(), ready.clone(), shutdown.clone());
        let run = R::block_on(move |rt: R| async move {
            let shutdown = shutdown(&rt)?;
            run(rt, config, ready, shutdown).await
        });
        if run? == Ended::Stopped {
            return Ok(());
        }
    }
}

/// Runs the client in `config.state` once: until `shutdown` completes, the local API asks it to end, or one of its keys
/// is to change.
pub async fn run<R: Rt>(
    rt: R,
    config: ClientConfig,
    ready: impl FnOnce(&ApiState),
    shutdown: impl Future<Output = ()>,
) -> Result<Ended, Error> {
    let (inbox, receiver) = mailbox(INBOX);
    let (store, restored) = open_store(&rt, &config, inbox.clone()).await?;
    let identity = Identity::begin(&config.state, today(), config.machine.as_deref())?;
    let new_key = identity.pending(&config.state)?.map(Box::new);
    let mut core = core_config(&config, &identity);
    let parts = Parts::make(&rt, &config, &identity, &store, &inbox)?;
    core.connectivity.crosses_from = parts.doors.first().copied();
    let api_state = api_state(&config, &identity, &restored, R::NAME, inbox.clone());
    let _closing = Closing(api_state.clone());
    let _serving = serve_commands(&config, &api_state, &store, parts.edges.tokens().clone())?;
    tracing::info!(guid = %identity.guid(), state = %config.state.display(), "client started");
    let Parts { edges, peers, way, raw, datagrams, doors, called } = parts;
    let stopped = report_news(&edges, &api_state);
    let key = KeyOfDay { identity: identity.clone(), stays: config.one_shot, is_over: Signal::default() };
    let (looks, looked_for) = mailbox(1);
    let leaves = Signal::default();
    let sight = Sight {
        raw,
        datagrams,
        looks: looked_for,
        doors,
        called,
        tag: Tag::of(&identity.upload_key.public()),
        maps_ports: config.port_mapping,
        leaves: leaves.clone(),
    };
    let left = spawn(&rt, observe(rt.clone(), sight, edges.clone(), api_state.clone(), inbox.clone()));
    let servers = recall_servers(&edges, &config, &api_state);
    let machine = Client::restore(&core, Restore { new_key, servers, ..restore(restored) }, config.bundle.uploads);
    let closing_peers = peers.clone();
    let control = Inlet { inbox: inbox.clone(), links: Links::default(), wrap: control_input, cap: Cap::CLIENT };
    let links = control.links.clone();
    let port = ClientPort {
        rt: rt.clone(),
        api_state: api_state.clone(),
        store,
        edges,
        peers,
        control,
        identity,
        state: config.state.clone(),
        way,
        inbox,
        looks,
        counted: BTreeMap::new(),
        keys: Rc::default(),
    };
    let metrics = |addr| ops::serve(&rt, addr, "client ops", stopped.clone(), Health::default());
    config.ops.map(metrics).transpose()?;
    ready(&api_state);
    let stop = or(shutdown, key.end(&rt, &api_state, &closing_peers));
    let stop = stop_asked(rt.clone(), api_state.clone(), stop);
    or(drive(rt.clone(), machine, core, receiver, port), stop).await;
    api_state.close();
    stopped.set();
    links.close_all();
    leaves.set();
    let closing = async {
        zip(closing_peers.shutdown(), left.wait()).await;
    };
    or(closing, rt.sleep_until(rt.now() + CLOSE_WITHIN)).await;
    tracing::info!("client stopped");
    Ok(if api_state.begins_anew() || key.is_over.is_set() { Ended::NewKey } else { Ended::Stopped })
}

/// The upload key of a running client, which is for one day.
struct KeyOfDay {
    identity: Identity,
    /// Whether the key stays as long as the client runs: one that is for a single `get`.
    stays: bool,
    is_over: Signal,
}

impl KeyOfDay {
    /// Waits until the key's day is over and the client is idle, or the next day too.
    async fn end<R: Rt>(&self, rt: &R, api_state: &ApiState, peers: &Peers<R>) {
        loop {
            rt.sleep_until(rt.now() + LOOK_AT_DAY_EVERY).await;
            let downloads_rest = || api_state.status().downloads.iter().all(|line| line.state.is_at_rest());
            let idle = api_state.gets() == 0 && peers.connected() == 0 && downloads_rest();
            if !self.stays && self.identity.is_over(today(), idle) {
                tracing::info!("the day of the upload key is over: the client starts again under a new one");
                return self.is_over.set();
            }
        }
    }
}

/// Returns the servers of the last bootstrap, and passes the edges among them to the local API.
fn recall_servers<R: Rt>(edges: &EdgeClient<R>, config: &ClientConfig, api_state: &ApiState) -> Option<KeptServers> {
    let servers = edges.keep_bootstrap(&config.state)?;
    api_state.bundle_edges(edges.directory().edges.iter().cloned());
    Some(servers)
}

/// Opens the local API. It ends, and closes the store for its threads, when both results are dropped.
fn serve_commands(
    config: &ClientConfig,
    api_state: &ApiState,
    store: &Store,
    tokens: Tokens,
) -> Result<(Server, CacheView), Error> {
    let hears = api_state.clone();
    store.on_not_placed(move |(handle, why)| hears.not_placed(handle, why));
    let hears = api_state.clone();
    store.on_no_room(move |(handle, why)| hears.no_room(handle, why));
    let view = CacheView::new(store.clone());
    let cache = view.lister(api_state.clone());
    let (put_there, modes) = (store.put_there(), store.modes());
    let api = Api { api_state: api_state.clone(), tokens, cache, put_there, modes, one_shot: config.one_shot };
    Ok((Server::start(&config.state, api)?, view))
}

/// Passes the results of requests to edges to the local API, and asks edges for their own URLs where a user names them
/// otherwise, until the returned signal is set.
fn report_news<R: Rt>(edges: &EdgeClient<R>, api_state: &ApiState) -> Signal {
    let (hears, stopped) = (api_state.clone(), Signal::default());
    edges.on_news(move |news| hears.edge_news(news));
    let (names, mut given) = mailbox(NAMES_GIVEN_MAX);
    api_state.identify_by(names);
    let (asking, until) = (edges.clone(), stopped.clone());
    edges.spawn(async move {
        let asks = async {
            while let Some(name) = given.recv().await {
                asking.identify(name).await;
            }
        };
        or(asks, until.wait()).await;
    });
    stopped
}

/// Opens the store, and has it inform the machine when pieces of a version are lost.
async fn open_store<R: Rt>(rt: &R, config: &ClientConfig, inbox: Sender<Input>) -> Result<(Store, Restored), Error> {
    let until = rt.now() + UNLOCKED_WITHIN;
    let (store, restored) = loop {
        let state = config.state.clone();
        match rt.blocking(move || Store::open(&state)).await {
            // the other user of the directory may be a command, which releases it soon
            Err(store::Error::InUse { .. }) if rt.now() < until => {
                rt.sleep_until(rt.now() + UNLOCKED_WITHIN / 20).await
            }
            opened => break opened.map_err(|e| open_failed(&e))?,
        }
    };
    store.set_links(config.links);
    store.on_lost(move |Loss { version, left, sources }| {
        // if the machine has ended, nothing needs the report
        let _ = futures_lite::future::block_on(inbox.send(Input::VersionLost { version, left, sources }));
    });
    Ok((store, restored))
}

/// Starts a task; returns a signal that is set at its end.
fn spawn<R: Rt>(rt: &R, task: impl Future<Output = ()> + 'static) -> Signal {
    let ended = Signal::default();
    let over = ended.clone();
    rt.spawn(async move {
        task.await;
        over.set();
    });
    ended
}

/// Waits until a stop is requested, by `shutdown` or over the local API, requests the machine's shutdown, and returns
/// only if this takes longer than [`STOP_WITHIN`].
async fn stop_asked<R: Rt>(rt: R, api_state: ApiState, shutdown: impl Future<Output = ()>) {
    or(api_state.shutdown_asked(), shutdown).await;
    api_state.shut_down();
    rt.sleep_until(rt.now() + STOP_WITHIN).await;
    tracing::warn!("the client did not end in time; what is durable stays");
}

/// The parts built once for each start of the client.
struct Parts<R: Rt> {
    edges: EdgeClient<R>,
    peers: Peers<R>,
    way: Way,
    raw: RawSender,
    datagrams: Receiver<Datagram>,
    /// The TCP ports on which the client listens; STUN messages that arrive there go to `called`.
    doors: Vec<u16>,
    called: Receiver<Called>,
}

impl<R: Rt> Parts<R> {
    /// Builds the parts: opens sockets, and prepares the clients of edges and peers.
    fn make(
        rt: &R,
        config: &ClientConfig,
        identity: &Identity,
        store: &Store,
        inbox: &Sender<Input>,
    ) -> Result<Self, Error> {
        let origin = |url: &String| {
            Origin::parse(url).ok_or_else(|| Error::usage(format!("the bundle's bootstrap {url:?} is no https URL")))
        };
        let bundle = config.bundle.bootstrap.iter().map(origin).collect::<Result<Vec<_>, _>>()?;
        if let Some(proxy) = config.reach.shown() {
            tracing::info!(%proxy, "edges and control plane are reached through a proxy, peers directly");
        }
        let way =
            |key| Ok::<_, Error>(Way { tls: tls::client_config(&config.bundle.ca, key)?, reach: config.reach.clone() });
        let (plain, way) = (way(None)?, way(Some(&identity.key))?);
        let peer_tls = |over| tls::peer_server_config(&identity.upload_key, over);
        let (endpoint, datagrams) = bind(rt, config, &peer_tls(Transport::Udp)?)?;
        let (raw, datagrams) = (endpoint.raw(), sort(rt, datagrams, inbox.clone()));
        let tokens = Tokens::open(&config.state).map_err(|e| Error::io("read the providers' tokens", &e))?;
        let own = Own { key: identity.key.clone(), tokens, store: store.clone() };
        let edges = EdgeClient::new(rt.clone(), plain, bundle, own, inbox.clone());
        let peers = Peers::new(rt.clone(), store.clone(), endpoint, peer_tls(Transport::Tcp)?, inbox.clone());
        let (calls, called) = mailbox(CALLS_MAX);
        let doors = if let Ok(addr) = raw.local_addr() { listen(rt, config, addr) } else { Vec::new() };
        let ports = doors.iter().map(|(port, _)| *port).collect();
        for (port, listener) in doors {
            peers.listen(listener, TcpAcceptor { port, calls: calls.clone() });
        }
        Ok(Self { edges, peers, way, raw, datagrams, doors: ports, called })
    }
}

/// Capacity of the queue of names that users have given of edges; further ones are refused.
const NAMES_GIVEN_MAX: usize = 8;
/// Length of the kernel's queue of TCP connections from peers that are not accepted yet.
const TCP_BACKLOG: i32 = 64;
/// Capacity of the queue of STUN messages that arrived on TCP ports; more are dropped.
const CALLS_MAX: usize = 16;
/// Capacity of the queue of datagrams from STUN servers; more are dropped, as UDP permits.
const ANSWERS_MAX: usize = 64;

/// Passes connectivity checks to the machine; returns a receiver of all other datagrams, which are from STUN servers.
fn sort<R: Rt>(rt: &R, mut datagrams: Receiver<Datagram>, inbox: Sender<Input>) -> Receiver<Datagram> {
    let (rest, receiver) = mailbox(ANSWERS_MAX);
    rt.spawn(async move {
        while let Some(datagram) = datagrams.recv().await {
            // a full mailbox drops the check, as UDP may drop datagrams
            if connectivity::is_check(&datagram.bytes) {
                let _ = inbox.try_send(Input::Datagram { from: datagram.from, bytes: datagram.bytes.to_vec() });
            } else {
                let _ = rest.try_send(datagram);
            }
        }
    });
    receiver
}

/// Observes the client's addresses, NAT and port mappings as soon as STUN servers are known, and reports them to
/// machine and API.
async fn observe<R: Rt>(rt: R, sight: Sight, edges: EdgeClient<R>, api_state: ApiState, inbox: Sender<Input>) {
    let leaves = sight.leaves.wait();
    let known = async {
        edges.located().await;
        true
    };
    let left = async {
        leaves.await;
        false
    };
    if !or(known, left).await {
        return;
    }
    let servers = edges.directory().stun.clone();
    let told = move |told| match told {
        Told::Changed(nat) => {
            let (udp, ways) = (nat.udp, nat.candidates.len());
            tracing::info!(udp, mapping = ?nat.mapping, filtering = ?nat.filtering, addresses = ways, "the network as observed");
            let seen = nat.mapped().or(nat.candidates.first().filter(|_| nat.udp).map(|c| c.addr));
            api_state.public_address(seen.map(|addr| addr.to_string()));
            // a full mailbox drops the observation
            let _ = inbox.try_send(Input::Network(nat));
        }
        Told::Proven(proven) => {
            let _ = inbox.try_send(Input::Proven(proven));
        }
        Told::Report(report) => api_state.network(NatLine::from(&report)),
    };
    nat::run(rt, sight, servers, told).await;
}

/// Binds the UDP socket to the configured address, else to this installation's port, else to any free one: for IPv6
/// and IPv4, or for IPv4 alone if the system has no IPv6.
fn bind<R: Rt>(
    rt: &R,
    config: &ClientConfig,
    server: &Arc<rustls::ServerConfig>,
) -> Result<(Endpoint, Receiver<Datagram>), Error> {
    let bind = |addr| Endpoint::bind(rt, addr, Arc::clone(server));
    if let Some(addr) = config.listen {
        return bind(addr).map_err(|e| Error::io(format!("bind UDP {addr}"), &e));
    }
    let file = config.state.join(PORT);
    let kept: Option<u16> = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
    let any = |port| [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), (Ipv4Addr::UNSPECIFIED, port).into()];
    let mut tries = kept.into_iter().chain([0]).flat_map(any);
    let bound = loop {
        let Some(addr) = tries.next() else { return Err(Error::failed("no UDP port can be bound")) };
        match bind(addr) {
            Ok(bound) => break bound,
            Err(error) => tracing::debug!(%addr, %error, "UDP port not taken"),
        }
    };
    if let Ok(addr) = bound.0.local_addr()
        && kept != Some(addr.port())
    {
        fs::write(&file, format!("{}\n", addr.port()))
            .map_err(|e| Error::io(format!("write {}", file.display()), &e))?;
    }
    Ok(bound)
}

/// Listens for peers over TCP at the UDP socket's address. A port that cannot be bound is left out: most peers use
/// UDP.
fn listen<R: Rt>(rt: &R, config: &ClientConfig, udp: SocketAddr) -> Vec<(u16, R::Listener)> {
    let mut all: Vec<(u16, R::Listener)> = Vec::new();
    if config.tcp.contains(&TcpPort::Off) {
        return all;
    }
    for wanted in config.tcp.iter().take(DOORS_MAX) {
        let port = if let TcpPort::Port(port) = wanted { *port } else { udp.port() };
        let addr = SocketAddr::new(udp.ip(), port);
        let listening = begin_listen(addr, TCP_BACKLOG).and_then(|socket| rt.listen(socket));
        match listening {
            Ok(_) if all.iter().any(|(p, _)| *p == port) => {}
            Ok(listener) => all.push((port, listener)),
            Err(error) => {
                tracing::warn!(%addr, %error, "TCP port not taken: peers without UDP cannot come there; see --tcp-port");
            }
        }
    }
    all
}

/// Returns the error for a store that cannot be opened.
pub(super) fn open_failed(error: &store::Error) -> Error {
    match error {
        store::Error::InUse { .. } => Error::new(Code::Unreachable, error)
            .next("end that client, or wait for it: its commands work through the same directory"),
        store::Error::Unreadable { .. } => Error::new(Code::Disk, error),
        store::Error::Io { path, error } => Error::io(format!("use {}", path.display()), error),
    }
}

/// Returns the current day in days since 1970.
fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / (24 * 3600)
}

/// Returns the configuration of the machine.
fn core_config(config: &ClientConfig, identity: &Identity) -> Config {
    let who = io::Identity {
        guid: identity.guid(),
        key: identity.key.public(),
        secondary: identity.secondary.clone(),
        upload_key: identity.upload_key.public(),
        root: config.bundle.root,
    };
    let mut core = Config::new(who, keys::verify);
    core.connectivity.birthday = config.birthday.then(Birthday::default);
    core.background = !config.one_shot;
    core.session.client_version = client_version::number(env!("CARGO_PKG_VERSION")).unwrap_or(0);
    let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    core.session.platform = Text::new(platform).unwrap_or_default();
    core
}

fn restore(restored: Restored) -> Restore {
    let Restored { downloads, sources, usage, receipts, cached, terms, notices, checkpoint, owner, uploads, why: _ } =
        restored;
    let kept = Restore { downloads, sources, usage, receipts, cached, terms, notices, ..Restore::default() };
    Restore { checkpoint, owner, uploads, ..kept }
}

/// Builds the state that the local API shows before the machine's first output.
fn api_state(
    config: &ClientConfig,
    identity: &Identity,
    restored: &Restored,
    runtime: &str,
    inbox: Sender<Input>,
) -> ApiState {
    let client = StatusLine {
        guid: identity.guid().to_string(),
        client_version: env!("CARGO_PKG_VERSION").into(),
        runtime: runtime.into(),
        running: true,
        state_dir: config.state.display().to_string(),
        background: !config.one_shot,
        uploads: restored.uploads.unwrap_or(config.bundle.uploads),
        proxy: config.reach.shown(),
        checkpoint: restored.checkpoint.as_deref().map(CheckpointLine::from),
        ..StatusLine::default()
    };
    let api_state = ApiState::new(client, move |input| inbox.try_send(input).is_ok());
    api_state.bundle_edges(config.bundle.bootstrap.iter().filter_map(|url| Origin::parse(url)));
    show_restored(&api_state, restored);
    api_state
}

/// Copies the downloads, usage records and explanations of earlier starts from the store to the local API's state.
pub(super) fn show_restored(api_state: &ApiState, restored: &Restored) {
    for (record, have) in &restored.downloads {
        let of_size = |size: u64| u128::from(size) * u128::from(have.count()) / u128::from(have.len().max(1));
        let durable = of_size(record.granted.as_ref().map_or(0, |g| g.size));
        let sources = restored.sources.get(&record.handle).cloned().unwrap_or_default();
        api_state.restored(record, u64::try_from(durable).unwrap_or(u64::MAX), &sources);
    }
    restored.usage.iter().for_each(|record| api_state.restored_usage(record));
    let expiries = restored.terms.iter().map(|(version, terms)| (*version, terms.policy.expires_ms));
    api_state.restored_expiries(expiries, &restored.notices);
    restored.why.iter().for_each(|(handle, why)| api_state.restored_why(*handle, why));
}

/// Returns the cached versions of a store, as the local API lists them.
pub(super) fn cached_lines(store: &Store, api_state: &ApiState) -> Vec<CachedLine> {
    let now_ms = now_ms();
    let lines = store.cached().into_iter().map(|(manifest, have)| CachedLine {
        version: manifest.version().to_string(),
        url: Some(url(&ObjectRef { provider: manifest.provider, path: manifest.path.to_string() })),
        size_bytes: manifest.layout().size(),
        pieces: have.count(),
        pieces_total: have.len(),
        expired: api_state.is_expired(manifest.version(), now_ms),
    });
    lines.collect()
}

/// A guard that wakes the API's waiting threads when the client ends, however it ends.
struct Closing(ApiState);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The store as the API's threads see it. It is closed when the client ends, even if such a thread still runs, so
/// that the next client can lock the directory.
struct CacheView(Arc<Mutex<Option<Store>>>);

impl CacheView {
    fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(Some(store))))
    }

    fn lister(&self, api_state: ApiState) -> Arc<dyn Fn() -> Result<Vec<CachedLine>, Failure> + Send + Sync> {
        let shared = Arc::clone(&self.0);
        Arc::new(move || {
            let store = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let store = store.ok_or_else(|| Failure::new(Code::Unreachable, "the client is stopping", ""))?;
            Ok(cached_lines(&store, &api_state))
        })
    }
}

impl Drop for CacheView {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }
}
