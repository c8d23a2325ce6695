//! Runs scenarios with a whole deployment on loopback: every node is a thread with its own runtime, and really
//! listens, dials and writes files. A crash drops the node between two polls; writes handed to the disk before are
//! kept.

use super::commands::wait_for;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::future::Future;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use swarmedge_cli::config::ServerConfig;
use swarmedge_cli::init::{self, Deployment, Ports};
use swarmedge_client::client::ClientConfig;
use swarmedge_client::client::local::Call;
use swarmedge_client::client::process::{self, Ended};
use swarmedge_client::client::protocol::{Answer, DownloadLine, Request, State};
use swarmedge_control::config::CnConfig;
use swarmedge_core::content::Policy;
use swarmedge_core::ids::{Guid, ProviderId};
use swarmedge_core::wire::Text;
use swarmedge_core::wire::records::{CertBody, ServerRole};
use swarmedge_edge::{CnAddr, EdgeConfig, Publish};
use swarmedge_ground::error::Error;
use swarmedge_ground::health::Health;
use swarmedge_ground::http::Signal;
use swarmedge_ground::keys::{Key, certify, save_cert};
use swarmedge_ground::mailbox::{Sender, mailbox};
use swarmedge_ground::rt::Start;
use swarmedge_ledger::{Filter, Reader, Store, quarantine};
use swarmedge_models::scenario::{
    ALL, ClientOptions, Command, Name, Object, Plan, Progress, Rig, Role, Status, Totals,
};

const PROVIDER: u32 = 7;
/// Interval at which a goal is checked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time-out for a node to start or to answer, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the scenario of this name on runtime `R`.
fn run_scenario<R: Start>(name: &str) {
    // logs errors only, unless RUST_LOG asks for more
    let asked = std::env::var("RUST_LOG").is_err().then_some("error");
    swarmedge_ground::ops::init_logs(asked).expect("a log filter");
    swarmedge_ground::ops::init_metrics();
    let scenario = ALL.iter().find(|s| s.name == name).expect("a scenario of this name");
    let mut rig = RealRig::<R>::new(&scenario.plan);
    let result = (scenario.play)(&mut rig);
    assert_eq!(result, Ok(()), "{name} on {}", R::NAME);
}

/// A running node of the deployment.
struct Node {
    kill: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts a node on its own thread; `main` calls its second argument once it is ready. A client that has changed
    /// its key starts again, on a new runtime.
    fn start<R: Start, F: Future<Output = Result<Ended, Error>> + 'static>(
        name: Name,
        main: impl Fn(R, Box<dyn FnOnce()>) -> F + Clone + Send + 'static,
    ) -> Self {
        let (kill, mut killed) = mailbox(1);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let run = move || loop {
            let (main, ready) = (main.clone(), ready.clone());
            let (ended, back) = R::block_on(move |rt: R| async move {
                // sends only the first time, when a caller waits
                let ready = Box::new(move || {
                    let _ = ready.send(());
                });
                let node = async { main(rt, ready).await.unwrap_or_else(|e| panic!("{name} failed: {e}")) };
                let crash = async {
                    killed.recv().await.unwrap_or_default();
                    Ended::Stopped
                };
                (futures_lite::future::or(node, crash).await, killed)
            });
            if ended == Ended::Stopped {
                return;
            }
            killed = back;
        };
        let thread = std::thread::Builder::new().name(name.to_string()).spawn(run).expect("a thread");
        is_ready.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        Self { kill, thread: Some(thread) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // a node that has ended by itself no longer receives
        let _ = self.kill.try_send(());
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// State of a scenario's client.
struct Client {
    /// Number of the client whose files it uses: a copy uses those of the original.
    files: u8,
    options: ClientOptions,
    state: PathBuf,
    /// Whether a completed file has the right bytes, by path; checked once.
    right: BTreeMap<String, bool>,
}

/// A deployment of real nodes, on which scenarios run.
pub(super) struct RealRig<R> {
    dir: tempfile::TempDir,
    deployment: Deployment,
    config: ServerConfig,
    cns: Vec<CnConfig>,
    edges: Vec<EdgeConfig>,
    /// Flags by edge: whether its spool refuses every write.
    refuse: Vec<Arc<AtomicBool>>,
    nodes: BTreeMap<Name, Node>,
    clients: BTreeMap<u8, Client>,
    objects: BTreeMap<&'static str, Vec<u8>>,
    runtime: PhantomData<R>,
}

impl<R: Start> RealRig<R> {
    pub(super) fn new(plan: &Plan) -> Self {
        assert!(plan.edges >= 1 && plan.dns <= 1, "the deployment that init makes has one of them");
        let dir = tempfile::tempdir().expect("a directory");
        let made = init::make(&init::Plan {
            dir: dir.path().join("cdn"),
            host: "127.0.0.1".into(),
            region: "local".into(),
            ports: Ports::free().expect("free ports"),
            provider: ProviderId(PROVIDER),
            uploads: true,
        });
        let deployment = made.expect("a deployment");
        let mut config = ServerConfig::load(&deployment.config).expect("reads back");
        let first = config.cn.clone().expect("a CN");
        let more = (1..plan.cns).map(|n| another_cn(&dir.path().join("cdn"), &first, n));
        let cns: Vec<_> = std::iter::once(first.clone()).filter(|_| plan.cns > 0).chain(more).collect();
        let mut edge = config.edge.take().expect("an edge");
        // every download with peers gets a possession challenge at its end
        edge.challenge_permille = 1000;
        edge.cns = cns.iter().map(|cn| CnAddr { name: cn.name.clone(), addr: cn.listen.to_string() }).collect();
        let more = (1..plan.edges).map(|n| another_edge(&dir.path().join("cdn"), &edge, n));
        let mut edges: Vec<_> = std::iter::once(edge.clone()).chain(more).collect();
        let urls: Vec<String> = edges.iter().map(|edge| edge.url.clone()).collect();
        for edge in &mut edges {
            edge.edges = urls.iter().filter(|url| **url != edge.url).cloned().collect();
        }
        let (nodes, clients, objects) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let refuse = edges.iter().map(|_| Arc::default()).collect();
        let runtime = PhantomData;
        let mut rig = Self { dir, deployment, config, cns, edges, refuse, nodes, clients, objects, runtime };
        let roles =
            [(Role::Ledger, plan.ledgers), (Role::Dn, plan.dns), (Role::Cn, plan.cns), (Role::Edge, plan.edges)];
        for (role, count) in roles {
            (0..count).for_each(|n| rig.restart(Name(role, n)));
        }
        rig.start_stun();
        rig
    }

    /// Returns the configuration of an edge.
    pub(super) fn edge(&self, number: usize) -> &EdgeConfig {
        &self.edges[number]
    }

    fn start_stun(&mut self) {
        let config = self.config.stun.clone().expect("a STUN server");
        // scenarios do not name the STUN server; it runs as long as the rig
        let node = Node::start(Name(Role::Edge, u8::MAX), move |rt: R, ready| {
            let config = config.clone();
            async move {
                let server = swarmedge_control::stun::open(&rt, &config, &Signal::default(), &Health::default())?;
                ready();
                server.run().await.map(|()| Ended::Stopped)
            }
        });
        self.nodes.insert(Name(Role::Edge, u8::MAX), node);
    }

    fn start_server(&self, name: Name) -> Node {
        let number = usize::from(name.1);
        let (config, cn) = (self.config.clone(), self.cns.get(number).cloned());
        let one = self.edges.get(number).cloned().zip(self.refuse.get(number).cloned());
        Node::start(name, move |rt: R, ready| {
            let (config, cn, one) = (config.clone(), cn.clone(), one.clone());
            async move {
                let (operator, stop, health) = (&config.operator, Signal::default(), Health::default());
                let server = match name.0 {
                    Role::Edge => {
                        let (one, refuses) = one.expect("this many edges");
                        swarmedge_edge::open_on(&rt, &one, &stop, &health, refuses)?
                    }
                    Role::Cn => {
                        swarmedge_control::cn::open(&rt, operator, &cn.expect("this many CNs"), &stop, &health)?
                    }
                    Role::Dn => {
                        swarmedge_control::dn::open(&rt, operator, config.dn.as_ref().expect("a DN"), &stop, &health)?
                    }
                    Role::Ledger => {
                        swarmedge_ledger::open(&rt, operator, config.ledger.as_ref().expect("a ledger"), &stop, &health)
                            .await?
                    }
                    Role::Client => unreachable!("clients are started otherwise"),
                };
                ready();
                server.run().await.map(|()| Ended::Stopped)
            }
        })
    }

    fn run_client(&self, name: Name) -> Node {
        let state = self.clients[&name.1].state.clone();
        let mut config = ClientConfig::load(&state, Some(&self.deployment.bundle)).expect("a client's configuration");
        config.links &= !self.clients[&name.1].options.copies;
        // a killed client's last write may still be under way on another thread, which holds the lock
        let is_free = || File::open(state.join("client.lock")).map_or(true, |lock| lock.try_lock().is_ok());
        assert!(wait_for(is_free), "{name}: the client before it ends");
        Node::start(name, move |rt: R, ready| process::run(rt, config.clone(), |_| ready(), std::future::pending()))
    }

    fn ask(&self, client: u8, request: &Request) -> Option<Answer> {
        let known = self.clients.get(&client)?;
        Call::ask(&known.state, request).unwrap_or_else(|e| panic!("client{client} refuses {request:?}: {e}"))
    }

    fn line(&self, client: u8, path: &str) -> Option<DownloadLine> {
        if !self.nodes.contains_key(&Name(Role::Client, client)) {
            return None;
        }
        let Answer::Status(status) = self.ask(client, &Request::Status)? else { panic!("no status") };
        status.downloads.into_iter().find(|line| line.url.ends_with(&format!("/{path}")))
    }

    fn output(&self, client: u8, path: &str) -> PathBuf {
        let files = self.clients.get(&client).map_or(client, |c| c.files);
        self.dir.path().join(format!("client{files}-{path}"))
    }

    /// Checks a completed file once; a client that is to corrupt then gets its data files changed.
    fn is_right(&mut self, number: u8, path: &str) -> bool {
        let output = self.output(number, path);
        let expected = &self.objects[path];
        let client = self.clients.get_mut(&number).expect("a client");
        if let Some(right) = client.right.get(path) {
            return *right;
        }
        let right = std::fs::read(output).is_ok_and(|bytes| bytes == *expected);
        client.right.insert(path.to_owned(), right);
        if client.options.corrupts {
            damage(&client.state, "instead");
        }
        right
    }
}

/// Copies a directory with all its contents except sockets.
fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (kind, to) = (entry.file_type().expect("a type"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_dir(&entry.path(), &to);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to).expect("copies");
        }
    }
}

/// Puts damaged bytes in the place of a client's data files: one byte in every block is changed. Those in `instead` are
/// served, and proven, by a store that has the right ones; those in `rotten` are all that it has.
fn damage(state: &Path, folder: &str) {
    let instead = state.join(folder);
    std::fs::create_dir_all(&instead).expect("a directory");
    for entry in std::fs::read_dir(state.join("pieces")).expect("a store") {
        let entry = entry.expect("an entry");
        let mut bytes = std::fs::read(entry.path()).expect("reads");
        bytes.iter_mut().step_by(16 * 1024).for_each(|b| *b ^= 0xff);
        std::fs::write(instead.join(entry.file_name()), &bytes).expect("writes");
    }
}

fn unix_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500 million")
}

/// Returns how many changes of quarantine the CNs of this process have received.
fn changes_known() -> u64 {
    let text = swarmedge_ground::ops::metrics_text();
    let line = text.lines().find_map(|line| line.strip_prefix("swarmedge_cn_quarantine_changes_total "));
    line.map_or(0, |n| n.parse().expect("a number"))
}

/// Writes a new key and the operator's certificate for it to files.
fn another_identity(dir: &Path, role: ServerRole, name: &str) -> (PathBuf, PathBuf) {
    let root = Key::load(&dir.join("root.key")).expect("the operator's key");
    let key = Key::generate();
    let (signing_key, certificate) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.cert")));
    key.save(&signing_key).expect("writes");
    let name = Text::new(name).expect("short");
    let body = CertBody { role, name, key: key.public(), not_before_ms: 0, not_after_ms: u64::MAX };
    save_cert(&certificate, &certify(&root, body)).expect("writes");
    (signing_key, certificate)
}

/// Returns the configuration of another edge beside the one that `init` makes.
fn another_edge(dir: &Path, like: &EdgeConfig, number: u8) -> EdgeConfig {
    let name = format!("edge-{}", number + 1);
    let (signing_key, certificate) = another_identity(dir, ServerRole::Edge, &name);
    let listen: std::net::SocketAddr = (like.listen.ip(), Ports::free().expect("free ports").edge).into();
    let (objects, spool) = (dir.join(&name).join("objects"), dir.join(&name).join("spool.redb"));
    EdgeConfig {
        url: format!("https://{listen}"),
        name,
        listen,
        signing_key,
        certificate,
        objects,
        spool,
        ops: None,
        ..like.clone()
    }
}

/// Returns the configuration of another CN beside the one that `init` makes.
fn another_cn(dir: &Path, like: &CnConfig, number: u8) -> CnConfig {
    let name = format!("cn-{}", number + 1);
    let (signing_key, certificate) = another_identity(dir, ServerRole::Cn, &name);
    let ports = Ports::free().expect("free ports");
    let listen = (like.listen.ip(), ports.cn).into();
    let spool = Some(dir.join(&name).with_extension("redb"));
    CnConfig { name, listen, signing_key, certificate, spool, ops: None, ..like.clone() }
}

/// Returns bytes derived from an object's path and size; no two blocks are alike.
fn content(object: &Object) -> Vec<u8> {
    let mut x = object.path.bytes().fold(object.size | 1, |x, b| x.wrapping_mul(31).wrapping_add(b.into()));
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()[0]
    };
    (0..object.size).map(|_| next()).collect()
}

impl<R: Start> Rig for RealRig<R> {
    fn publish(&mut self, object: &Object) {
        let bytes = content(object);
        let file = self.dir.path().join(object.path);
        std::fs::write(&file, &bytes).expect("writes");
        let policy = Policy {
            edge_rate_max: object.edge_rate,
            upload_rate_max: object.upload_rate,
            uploads_max: object.uploads_max,
            ..Policy::default()
        };
        let what = Publish {
            file,
            provider: ProviderId(PROVIDER),
            path: object.path.into(),
            access: None,
            policy: Some(policy.into()),
        };
        for edge in &self.edges {
            swarmedge_edge::publish(&edge.objects, &what).expect("publishes");
        }
        self.objects.insert(object.path, bytes);
    }

    fn unpublish(&mut self, path: &'static str) {
        for edge in &self.edges {
            swarmedge_edge::unpublish(&edge.objects, ProviderId(PROVIDER), path).expect("withdrawn");
        }
    }

    fn rotate_keys(&mut self) {
        let file = &self.edges[0].seal_key;
        swarmedge_ground::seals::rotate(&[file]).expect("rotates");
    }

    fn spool_refuses(&mut self, edge: u8, on: bool) {
        self.refuse[usize::from(edge)].store(on, Ordering::Relaxed);
    }

    fn quarantine(&mut self, client: u8, on: bool) {
        let key = Key::load(&self.clients[&client].state.join("client.key")).expect("the client's key");
        let guids = [Guid::of(&key.public())].into();
        let database = self.config.ledger.as_ref().expect("a ledger").database.clone();
        let before = changes_known();
        R::block_on(move |_| async move {
            let mut store = Store::open(&database).await?;
            if on {
                quarantine::enter(&mut store, &guids, "a scenario", unix_ms()).await?;
            } else {
                quarantine::release(&mut store, &guids, unix_ms()).await?;
            }
            store.close().await;
            Ok::<(), Error>(())
        })
        .expect("noted");
        assert!(self.run_until(PATIENCE, &mut |_| changes_known() > before), "the CN does not hear of it");
    }

    fn start_client(&mut self, number: u8, options: ClientOptions) {
        if self.clients.contains_key(&number) {
            return;
        }
        let state = self.dir.path().join(format!("client{number}"));
        self.clients.insert(number, Client { files: number, options, state, right: BTreeMap::new() });
        self.restart(Name(Role::Client, number));
        if !options.uploads {
            self.command(number, Command::Uploads(false));
        }
    }

    fn copy_client(&mut self, from: u8, to: u8) {
        let (from, state) = (&self.clients[&from], self.dir.path().join(format!("client{to}")));
        copy_dir(&from.state, &state);
        let client = Client { files: from.files, options: from.options, state, right: BTreeMap::new() };
        self.clients.insert(to, client);
    }

    fn rot(&mut self, client: u8) {
        damage(&self.clients[&client].state, "rotten");
    }

    fn holds(&mut self, client: u8, path: &str) -> bool {
        self.line(client, path).is_some_and(|line| line.state == State::Completed)
    }

    fn blamed(&mut self) -> usize {
        let database = self.config.ledger.as_ref().expect("a ledger").database.clone();
        let suspects = R::block_on(move |_| async move {
            let mut reader = Reader::open(&database).await?;
            let (from, to) = reader.days_with_records().await?.unwrap_or_default();
            reader.suspects(from, to).await
        });
        suspects.expect("the ledger reads").blamed.len()
    }

    fn retired(&mut self) -> (usize, usize) {
        let database = self.config.ledger.as_ref().expect("a ledger").database.clone();
        let retired = R::block_on(move |_| async move { Reader::open(&database).await?.retired().await });
        let retired = retired.expect("the ledger reads");
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = retired.iter().map(|(_, s)| (s.rekey.old, s.rekey.new)).unzip();
        (old.len(), new.len())
    }

    fn long_outage(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn crash(&mut self, node: Name) {
        self.nodes.remove(&node);
    }

    fn restart(&mut self, node: Name) {
        let running = if node.0 == Role::Client { self.run_client(node) } else { self.start_server(node) };
        self.nodes.insert(node, running);
    }

    fn command(&mut self, client: u8, command: Command) {
        let download = |path| self.line(client, path).map(|line| line.download).expect("a download of that object");
        let request = match command {
            Command::Get(path) => {
                let output = self.output(client, path).display().to_string();
                let get = Request::Get {
                    provider: PROVIDER,
                    path: path.into(),
                    output,
                    mode: None,
                    force: true,
                    edge: None,
                    token: None,
                };
                let state = &self.clients[&client].state;
                let mut call = Call::open(state, &get).expect("speaks").expect("the client runs");
                // the call may be dropped, the download continues
                let answer = call.next(PATIENCE).expect("an answer");
                assert!(matches!(answer, Some(Answer::Accepted { .. })), "{answer:?}");
                return;
            }
            Command::Pause(path) => Request::Pause { download: download(path) },
            Command::Resume(path) => Request::Resume { download: download(path) },
            Command::Cancel(path) => Request::Cancel { download: download(path) },
            Command::Uploads(on) => Request::Uploads { on },
        };
        let answer = self.ask(client, &request);
        assert!(matches!(answer, Some(Answer::Accepted { .. })), "{answer:?}");
    }

    fn status(&mut self, client: u8, path: &str) -> Option<Status> {
        let line = self.line(client, path)?;
        let progress = match line.state {
            State::Starting | State::Running => Progress::Running,
            State::Paused => Progress::Paused,
            State::Completed => Progress::Completed,
            State::Failed => Progress::Failed,
        };
        if let Some(why) = &line.failure {
            eprintln!("client{client}, {path}: {why:?}");
        }
        let right = progress == Progress::Completed && self.is_right(client, path);
        Some(Status {
            progress,
            durable: line.durable_bytes,
            edge_bytes: line.edge_bytes,
            peer_bytes: line.peer_bytes,
            wasted_bytes: line.wasted_bytes,
            right,
        })
    }

    fn totals(&mut self, path: &str) -> Totals {
        let database = self.config.ledger.as_ref().expect("a ledger").database.clone();
        let filter = Filter { provider: Some(ProviderId(PROVIDER)), path: Some(path.to_owned()), download: None };
        let downloads = R::block_on(move |_| async move {
            let mut reader = Reader::open(&database).await?;
            reader.downloads(&filter).await
        });
        downloads.expect("the ledger reads").iter().fold(Totals::default(), |t, d| Totals {
            completed: t.completed + u64::from(d.state == "completed"),
            edge_bytes: t.edge_bytes + d.edge_claimed,
            peer_bytes: t.peer_bytes + d.peers_received,
            uploaded_bytes: t.uploaded_bytes + d.peers_sent,
            agreed_bytes: t.agreed_bytes + d.uploaders.iter().map(|u| u.agreed).sum::<u64>(),
            edge_unique_bytes: t.edge_unique_bytes + d.edge_unique,
            billed_bytes: t.billed_bytes + d.peers_billed,
            proven: t.proven + u64::from(d.possession == Some("passed")),
            unproven: t.unproven + u64::from(matches!(d.possession, Some("failed" | "unanswered"))),
        })
    }

    fn run_until(&mut self, within: Duration, goal: &mut dyn FnMut(&mut dyn Rig) -> bool) -> bool {
        let until = Instant::now() + within;
        loop {
            if goal(self) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            run_scenario::<crate::Rt>(stringify!($name));
        }
    )*};
}

scenarios!(
    peers_deliver_and_the_ledger_agrees,
    the_cn_dies,
    the_dn_dies_and_comes_back,
    a_seeder_dies,
    a_seeder_sends_wrong_bytes,
    a_seeder_with_a_rotten_copy_is_told_and_drops_it,
    there_is_no_control_plane,
    the_edge_is_away_for_a_while,
    every_edge_is_away_for_longer_than_a_grant_lasts,
    a_client_starts_while_every_edge_is_away,
    an_edge_dies_and_another_goes_on,
    an_edge_that_can_count_nothing_serves_on,
    a_client_dies_and_resumes,
    uploads_off_means_off,
    a_withdrawn_object_is_shared_no_more,
    a_new_policy_reaches_a_transfer_under_way,
    who_has_completed_proves_that_it_holds_what_peers_delivered,
    a_quarantined_client_is_served_by_the_edge_alone,
    the_sealing_keys_are_rotated_twice,
    a_forgotten_download_leaves_a_shared_copy,
    a_copy_is_uploaded_no_more_often_than_allowed,
    pause_resume_cancel,
    two_copies_of_a_client_run,
    two_copies_of_a_client_run_on_two_cns,
    a_client_that_restarts_keeps_its_key,
);
