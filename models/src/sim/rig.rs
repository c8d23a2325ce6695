//! The simulator as a [`Rig`]: a deployment in virtual time, in which equal seeds give equal runs.

use super::machines::{In, RoleCfg};
use super::posting::at_once;
use super::store::Disk;
use super::{Cfg, Move, Net, Published, access, keys};
use crate::rng::Seeded;
use crate::scenario::{ClientOptions, Command, HONEST, Name, Object, Plan, Progress, Rig, Role, Status, Totals};
use crate::world::{Act, Budget, NodeIx, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use swarmedge_core::content::{Layout, Policy};
use swarmedge_core::ids::{DownloadId, Guid, Handle, ProviderId, PublicKey, ReqId, SecondaryGuid, VersionId};
use swarmedge_core::notice::sign;
use swarmedge_core::role::client::io::{
    Command as ClientCommand, CommandKind, DownloadState, Identity, Input, ObjectRef,
};
use swarmedge_core::role::{client, cn, dn, edge, ledger};
use swarmedge_core::wire::notice::{Notice, Terms};
use swarmedge_core::wire::records::{LedgerRecord, LogEvent, LogRecord, PossessionOutcome, ServerRole, SigningContext};

/// Maximum number of starts of a client under one key. Each start has a secondary GUID of its own; a further start
/// would repeat one, which looks like a copy of the installation.
pub const LIVES: u8 = 32;
/// Number of keys that a client may take, one after the other.
pub const GENERATIONS: u8 = 4;

/// Simulated deployment in virtual time.
#[derive(Clone, Debug)]
pub struct SimRig {
    /// Configuration of the nodes and of the simulated world between them.
    pub cfg: Cfg,
    /// State of the deployment.
    pub world: World<Net>,
    rng: Seeded,
    requests: u64,
}

fn names(plan: &Plan) -> Vec<Name> {
    let of = |role, n: u8| (0..n).map(move |i| Name(role, i));
    of(Role::Edge, plan.edges)
        .chain(of(Role::Cn, plan.cns))
        .chain(of(Role::Dn, plan.dns))
        .chain(of(Role::Ledger, plan.ledgers))
        .chain(of(Role::Client, plan.clients))
        .collect()
}

/// Returns a client's configuration with production's limits; the client listens on TCP.
fn config(identity: Identity) -> client::Config {
    let mut config = client::Config::new(identity, keys::verify);
    config.background = true;
    config.connectivity.crosses_from = Some(access::PORT);
    config
}

/// Returns a client's identity for its start number `life`, counted from 0 over all its keys.
pub fn identity(ix: NodeIx, name: Name, life: u8) -> Identity {
    identity_of(ix, keys::key(name), life)
}

/// Returns the identity of a client that began with key `first`, for its start number `life`; a copy of an
/// installation begins with the original's key.
pub fn identity_of(ix: NodeIx, first: PublicKey, life: u8) -> Identity {
    let key = keys::client_key(first, ix, life / LIVES);
    Identity {
        guid: Guid::of(&key),
        key,
        secondary: std::vec![SecondaryGuid::numbered(u32::from(ix) << 8 | u32::from(life))],
        upload_key: keys::upload_key(ix),
        root: keys::root(),
    }
}

/// Returns the node's configuration, with production's limits.
fn role_cfg(plan: &Plan, ix: NodeIx, name: Name) -> RoleCfg {
    let (root, verify) = (keys::root(), keys::verify);
    let ledger = plan.ledgers > 0;
    match name.0 {
        Role::Edge => RoleCfg::Edge(edge::Config {
            ledger,
            // every download with peers is challenged at its end
            challenge_permille: 1000,
            ..edge::Config::new(root, verify, keys::cert(name, ServerRole::Edge))
        }),
        Role::Cn => RoleCfg::Cn(cn::Config {
            ledger,
            dns: u32::from(plan.dns),
            ..cn::Config::new(root, verify, keys::cert(name, ServerRole::Cn))
        }),
        Role::Dn => RoleCfg::Dn(dn::Config::new(root, verify, keys::cert(name, ServerRole::Dn))),
        Role::Ledger => RoleCfg::Ledger(ledger::Config::new(root, verify)),
        Role::Client => {
            let lives = 0..LIVES * GENERATIONS;
            RoleCfg::Client(lives.map(|l| config(identity(ix, name, l))).collect())
        }
    }
}

impl SimRig {
    /// Returns a deployment with all servers running.
    #[must_use]
    pub fn new(plan: &Plan, seed: u64) -> Self {
        let names = names(plan);
        let roles = (0..).zip(&names).map(|(ix, name)| role_cfg(plan, ix, *name)).collect();
        let cfg = Cfg {
            names,
            roles,
            latency: Duration::from_millis(5),
            disk: Duration::from_millis(2),
            timed: true,
            rate: 8 << 20,
            check_wire: true,
            prompt: &[],
            heads: false,
            moves: |_, _, _| {},
            traced: false,
            mutant: None,
        };
        let mut world = World::new(Net::new(seed), Vec::new(), Budget::default());
        for _ in &cfg.names {
            world.add_node(None);
        }
        let mut rig = Self { cfg, world, rng: Seeded::new(seed), requests: 0 };
        let servers: Vec<Name> = rig.cfg.names.iter().copied().filter(|n| n.0 != Role::Client).collect();
        for name in servers {
            rig.restart(name);
        }
        rig
    }

    fn ix(&self, name: Name) -> NodeIx {
        self.cfg.find(name).expect("the plan has this node")
    }

    /// Applies an external event.
    pub fn happen(&mut self, mv: Move) {
        self.world.step(&self.cfg, &Act::Move(mv), &mut self.rng);
    }

    /// Returns the state of a client's newest download of an object; `None` if it has none, or does not run.
    #[must_use]
    pub fn state(&self, client: u8, path: &str) -> Option<DownloadState> {
        let ix = self.cfg.find(Name(Role::Client, client))?;
        let handle = self.handle(ix, path)?;
        self.world.env.status.get(&(ix, handle)).map(|s| s.state)
    }

    /// Returns whether a client's newest download of an object is running.
    #[must_use]
    pub fn is_running(&self, client: u8, path: &str) -> bool {
        self.state(client, path) == Some(DownloadState::Running)
    }

    /// Returns whether a client has neither been started nor got a disk.
    #[must_use]
    pub fn never_ran(&self, client: u8) -> bool {
        !self.world.env.disks.contains_key(&self.ix(Name(Role::Client, client)))
    }

    /// Puts a client into quarantine or releases it; a ledger that runs is told.
    pub fn order_quarantine(&mut self, client: u8, on: bool) {
        let guid = Guid::of(&keys::key(Name(Role::Client, client)));
        let all = &mut self.world.env.quarantined;
        if on {
            all.insert(guid)
        } else {
            all.remove(&guid)
        };
        let guids = all.iter().copied().collect();
        let ledger = self.ix(Name(Role::Ledger, 0));
        // behind the list that a ledger which has just started is being told, as later polls of its database are
        if self.world.node(ledger).is_some() {
            at_once(&mut self.world, ledger, In::Ledger(ledger::Input::Quarantined { guids }));
        }
    }

    /// Tells every CN of a notice about a version.
    fn tell_cns(&mut self, version: VersionId, terms: &Terms) {
        let edge = Name(Role::Edge, 0);
        let serial = self.world.now.0 + 1 + u64::try_from(self.world.env.notices.len()).expect("few notices");
        let notice = Notice::about_version(version, serial, terms);
        let signature = |bytes: &[u8]| keys::sign(&keys::key(edge), SigningContext::Notice, bytes);
        let signed = sign(&notice, keys::cert(edge, ServerRole::Edge), signature);
        self.world.env.notices.insert(version, signed.clone());
        let cns: Vec<Name> = self.cfg.names.iter().copied().filter(|n| n.0 == Role::Cn).collect();
        for cn in cns {
            let input = In::Cn(cn::Input::Notices(std::vec![signed.clone()]));
            self.happen(Move::Tell(self.ix(cn), input.into()));
        }
    }

    fn handle(&self, ix: NodeIx, path: &str) -> Option<Handle> {
        let of_it = |s: &&client::io::DownloadStatus| s.object.path == path;
        let all = self.world.env.status.iter().filter(|((node, _), _)| *node == ix).map(|(_, s)| s);
        all.filter(of_it).map(|s| s.handle).max()
    }
}

/// Returns the totals over the downloads of one version in the ledger's database.
fn totals(records: &BTreeMap<swarmedge_core::ids::RecordId, LedgerRecord>, version: VersionId) -> Totals {
    use swarmedge_core::accounting::settlement::Book;
    let mut books: BTreeMap<DownloadId, Book> = BTreeMap::new();
    for record in records.values() {
        if let Some(download) = record.download().filter(|_| record.version() == Some(version)) {
            books.entry(download).or_default().add(record.clone(), 0);
        }
    }
    let of_it = records.values().filter(|r| r.version() == Some(version));
    let told = of_it.fold(Totals::default(), challenges);
    books.values().map(|b| b.bill(keys::verify, 0)).fold(told, |t, b| Totals {
        completed: t.completed + u64::from(b.state == Some(swarmedge_core::wire::records::UsageState::Completed)),
        edge_bytes: t.edge_bytes + b.edge_claimed,
        peer_bytes: t.peer_bytes + b.peers_received,
        uploaded_bytes: t.uploaded_bytes + b.peers_sent,
        agreed_bytes: t.agreed_bytes + b.peers_agreed,
        edge_unique_bytes: t.edge_unique_bytes + b.edge_unique,
        billed_bytes: t.billed_bytes + b.peers_billed,
        ..t
    })
}

/// Adds the outcome of a possession challenge to the totals, if the record is one.
fn challenges(t: Totals, record: &LedgerRecord) -> Totals {
    let LedgerRecord::Possession(r) = record else { return t };
    let (proven, unproven) = match r.outcome {
        PossessionOutcome::Passed => (1, 0),
        PossessionOutcome::Failed | PossessionOutcome::Unanswered => (0, 1),
        PossessionOutcome::Waived | PossessionOutcome::Rechecked => (0, 0),
    };
    Totals { proven: t.proven + proven, unproven: t.unproven + unproven, ..t }
}

impl Rig for SimRig {
    fn publish(&mut self, o: &Object) {
        let objects = &self.world.env.objects;
        let n = u32::try_from(objects.len()).expect("few objects") + 1;
        let policy = Policy {
            edge_rate_max: o.edge_rate,
            upload_rate_max: o.upload_rate,
            uploads_max: o.uploads_max,
            ..Policy::default()
        };
        let layout = Layout::for_size(o.size).expect("a usual size");
        // the same bytes published again are the same version, perhaps under another policy
        let same = objects.get(o.path).filter(|known| known.layout == layout);
        let was_withdrawn = same.is_some_and(|known| self.world.env.withdrawn.contains(&known.version));
        let is_changed = was_withdrawn || same.is_some_and(|known| known.policy != policy);
        let version = same.map_or_else(|| VersionId::numbered(n), |known| known.version);
        let published = Published { provider: ProviderId(1), version, layout, policy: policy.clone() };
        self.world.env.withdrawn.remove(&version);
        self.world.env.objects.insert(o.path.to_string(), published);
        if is_changed {
            self.tell_cns(version, &Terms::Policy(policy));
        }
    }

    fn unpublish(&mut self, path: &'static str) {
        let version = self.world.env.objects.get(path).map(|o| o.version);
        self.world.env.withdrawn.extend(version);
        version.into_iter().for_each(|version| self.tell_cns(version, &Terms::Withdrawn));
    }

    fn rotate_keys(&mut self) {
        self.world.env.epochs = self.world.env.epochs.rotated();
    }

    fn spool_refuses(&mut self, edge: u8, on: bool) {
        let ix = self.ix(Name(Role::Edge, edge));
        let refusing = &mut self.world.env.refusing;
        if on {
            refusing.insert(ix)
        } else {
            refusing.remove(&ix)
        };
    }

    fn quarantine(&mut self, client: u8, on: bool) {
        self.order_quarantine(client, on);
        // a ledger checks every second, and tells the CNs soon after
        self.run_until(Duration::from_secs(1), &mut |_| false);
    }

    fn start_client(&mut self, number: u8, options: ClientOptions) {
        let ix = self.ix(Name(Role::Client, number));
        self.world.env.options.insert(ix, options);
        self.happen(Move::Start(ix));
    }

    fn copy_client(&mut self, from: u8, to: u8) {
        let (from, to) = (self.ix(Name(Role::Client, from)), self.ix(Name(Role::Client, to)));
        let env = &mut self.world.env;
        let disk = env.disks.get(&from).cloned().unwrap_or_default();
        env.copied(from, to);
        let first = keys::client_key(keys::key(self.cfg.names[usize::from(from)]), from, disk.generation);
        env.disks.insert(to, Disk { generation: 0, ..disk });
        env.options.insert(to, HONEST);
        let lives = 0..LIVES * GENERATIONS;
        self.cfg.roles[usize::from(to)] = RoleCfg::Client(lives.map(|l| config(identity_of(to, first, l))).collect());
    }

    fn rot(&mut self, client: u8) {
        let ix = self.ix(Name(Role::Client, client));
        let disk = self.world.env.disks.entry(ix).or_default();
        disk.rotten.extend(disk.pieces.keys());
    }

    fn holds(&mut self, client: u8, path: &str) -> bool {
        let ix = self.ix(Name(Role::Client, client));
        let version = self.world.env.objects.get(path).map(|o| o.version);
        let disk = self.world.env.disks.get(&ix);
        disk.zip(version).is_some_and(|(disk, version)| disk.finished.contains(&version))
    }

    fn blamed(&mut self) -> usize {
        let blamed = self.world.env.database.values().filter_map(|r| match r {
            LedgerRecord::Log(LogRecord { event: LogEvent::Blamed(blamed), .. }) => {
                Some((blamed.holder, blamed.version))
            }
            LedgerRecord::Log(_)
            | LedgerRecord::Usage(_)
            | LedgerRecord::Edge(_)
            | LedgerRecord::Granted(_)
            | LedgerRecord::Served(_)
            | LedgerRecord::Possession(_) => None,
        });
        blamed.collect::<BTreeSet<_>>().len()
    }

    fn retired(&mut self) -> (usize, usize) {
        let rekeys = self.world.env.database.values().filter_map(|r| match r {
            LedgerRecord::Log(LogRecord { event: LogEvent::Rekeyed(signed), .. }) => Some(&signed.rekey),
            LedgerRecord::Log(_)
            | LedgerRecord::Usage(_)
            | LedgerRecord::Edge(_)
            | LedgerRecord::Granted(_)
            | LedgerRecord::Served(_)
            | LedgerRecord::Possession(_) => None,
        });
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = rekeys.map(|r| (r.old, r.new)).unzip();
        (old.len(), new.len())
    }

    fn long_outage(&self) -> Duration {
        // a grant lasts a quarter of an hour, and can be renewed for ten minutes more
        Duration::from_secs(40 * 60)
    }

    fn crash(&mut self, node: Name) {
        let ix = self.ix(node);
        self.happen(Move::Crash(ix));
    }

    fn restart(&mut self, node: Name) {
        let ix = self.ix(node);
        self.happen(Move::Start(ix));
    }

    fn command(&mut self, client: u8, command: Command) {
        let ix = self.ix(Name(Role::Client, client));
        let handle = |path| self.handle(ix, path).unwrap_or_default();
        let kind = match command {
            Command::Get(path) => {
                let object = ObjectRef { provider: ProviderId(1), path: path.to_string() };
                CommandKind::Get { object, output: String::new(), replace: false }
            }
            Command::Pause(path) => CommandKind::Pause(handle(path)),
            Command::Resume(path) => CommandKind::Resume(handle(path)),
            Command::Cancel(path) => CommandKind::Cancel(handle(path)),
            Command::Uploads(on) => CommandKind::Uploads(on),
        };
        self.requests += 1;
        let command = ClientCommand { req: ReqId(1 << 32 | self.requests), kind };
        self.happen(Move::Tell(ix, In::Client(Input::Command(command)).into()));
    }

    fn status(&mut self, client: u8, path: &str) -> Option<Status> {
        let ix = self.ix(Name(Role::Client, client));
        let handle = self.handle(ix, path)?;
        let s = self.world.env.status.get(&(ix, handle))?;
        let right = s.version.is_some_and(|v| {
            let disk = self.world.env.disks.get(&ix);
            let whole = self.world.env.objects.values().find(|o| o.version == v).map(|o| o.layout.pieces() as usize);
            disk.is_some_and(|d| {
                d.finished.contains(&v) && d.pieces.get(&v).map_or(0, BTreeMap::len) == whole.unwrap_or(1)
            })
        });
        Some(Status {
            progress: match s.state {
                DownloadState::Starting | DownloadState::Running => Progress::Running,
                DownloadState::Paused => Progress::Paused,
                DownloadState::Completed => Progress::Completed,
                DownloadState::Failed(_) => Progress::Failed,
            },
            durable: s.durable,
            edge_bytes: s.edge_bytes,
            peer_bytes: s.peer_bytes,
            wasted_bytes: s.wasted_bytes,
            right,
        })
    }

    fn totals(&mut self, path: &str) -> Totals {
        self.world.env.objects.get(path).map_or_else(Totals::default, |o| totals(&self.world.env.database, o.version))
    }

    fn run_until(&mut self, within: Duration, goal: &mut dyn FnMut(&mut dyn Rig) -> bool) -> bool {
        let end = self.world.now.after(within);
        let mut look = self.world.now;
        loop {
            // checking the goal costs time: every 50 ms of simulated time is enough
            if self.world.now >= look {
                if goal(self) {
                    return true;
                }
                look = self.world.now.after(Duration::from_millis(50));
            }
            match self.world.earliest() {
                Some((at, act)) if at <= end => self.world.step(&self.cfg, &act, &mut self.rng),
                Some(_) | None => {
                    self.world.now = end;
                    return goal(self);
                }
            }
        }
    }
}
