//! Whole deployments in one world: clients, edges, CNs, DNs, a ledger, all production machines, with simulated links,
//! disks and transfers between them, and fake cryptography. Models explore small ones; [`rig`] simulates larger ones.

pub mod access;
pub mod bulk;
pub mod campaign;
mod clients;
mod connection;
pub mod keys;
pub mod links;
pub mod machines;
mod moving;
mod possession;
pub mod posting;
pub mod rig;
mod seen;
pub mod servers;
pub mod store;

pub use seen::Seen;

use super::rng::Seeded;
use super::scenario::{ClientOptions, Name, Role};
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use access::Access;
use bulk::Pull;
use links::Link;
use machines::{In, Node, Out, RoleCfg};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::{Disk, Spool};
use swarmedge_core::accounting::epochs::Epochs;
use swarmedge_core::content::{Layout, Policy};
use swarmedge_core::ids::{
    ConnId, DownloadId, Guid, Handle, IntroId, PieceIndex, ProviderId, PublicKey, RawTcpId, RecordId, ReqId, VersionId,
};
use swarmedge_core::machine::{Rng, Time};
use swarmedge_core::role::client::io::{DownloadStatus, FetchEnd, ObjectRef, Save};
use swarmedge_core::role::edge::io as edge;
use swarmedge_core::wire::notice::SignedNotice;
use swarmedge_core::wire::records::LedgerRecord;

/// Configuration of a deployment: its nodes and the behaviour of the world between them.
#[derive(Clone, Debug)]
pub struct Cfg {
    /// Names of the nodes, by index.
    pub names: Vec<Name>,
    /// Configurations of the nodes, by index.
    pub roles: Vec<RoleCfg>,
    /// Latency of a message.
    pub latency: Duration,
    /// Duration of a disk write.
    pub disk: Duration,
    /// Whether transfers take the time that the rates imply.
    pub timed: bool,
    /// Send and receive rate of a client in bytes per second; an edge sends ten times as much.
    pub rate: u64,
    /// Whether every message is encoded and decoded on its way.
    pub check_wire: bool,
    /// Lanes on which events arrive at once, besides [`posting::at_once`], because a model does not explore their
    /// delays.
    pub prompt: &'static [&'static str],
    /// Whether the heads of clients' record logs are remembered in [`Seen`], for models with rules about them.
    pub heads: bool,
    /// Function that lists a model's external events.
    pub moves: Moves,
    /// Whether every input and output of a machine is printed.
    pub traced: bool,
    /// Seeded defect, or `None` for the correct world.
    pub mutant: Option<Mutant>,
}

/// Function that adds the possible external events.
pub type Moves = fn(&World<Net>, &Cfg, &mut Vec<Move>);

/// Seeded defects of the simulated deployment; each must break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Seeded defect: a block with wrong bytes passes verification.
    BadBlockCounts,
    /// Seeded defect: a client's usage records are reported as written but are lost.
    SavesAreLost,
    /// Seeded defect: a DN ignores that a client has turned uploads off.
    UploadsOffIsOverlooked,
    /// Seeded defect: a CN's order to close a client's connection is not carried out.
    ClosesAreLost,
    /// Seeded defect: a client numbers a later session lower than an earlier one.
    IncarnationsFall,
    /// Seeded defect: a CN's request that clients register all versions again (RE-ADD) is lost.
    ReaddIsLost,
    /// Seeded defect: an introduction is delivered to a client that it does not name.
    Misdelivers,
    /// Seeded defect: the ledger's database reports a batch as durable but loses it.
    LedgerLosesBatches,
    /// Seeded defect: a usage record gets another id each time it is sent.
    FreshRecordIds,
    /// Seeded defect: acknowledgements of clients' records are lost.
    AcksAreLost,
    /// Seeded defect: a restarted client keeps the secondary GUID of its previous start.
    StartsRepeat,
    /// Seeded defect: a session from which its client has disappeared still answers pings.
    GhostsAnswer,
    /// Seeded defect: a CN's order to a client to take another key (rekey) is lost.
    RekeyOrdersAreLost,
    /// Seeded defect: a CN's notice that an old key is retired is lost.
    RetirementsAreLost,
    /// Seeded defect: CNs are not told which clients are in quarantine.
    QuarantineIsLost,
    /// Seeded defect: a CN's spool reports the record of introductions as written but loses it.
    SpoolLosesOffers,
    /// Seeded defect: a starting CN does not read its spool.
    OffersNotReplayed,
    /// Seeded defect: a client's store serves and places journalled pieces that the disk has lost.
    JournalIsBelieved,
    /// Seeded defect: an edge refuses grants to clients in quarantine.
    EdgesDenySuspects,
    /// Seeded defect: an edge sends nothing to clients in quarantine.
    EdgesStarveSuspects,
    /// Seeded defect: a CN believes every holder's ticket.
    TicketsAreBelieved,
}

/// A pending event: a message in flight, or an effect not yet performed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// An input arrives at the machine of a node.
    Input(In),
    /// A dialled connection, by number, opens or fails.
    Dial(u64),
    /// A client's request for a grant arrives at an edge.
    AskGrant(Ask),
    /// The first half of a transfer arrives, by the transfer's number.
    Progress(u64),
    /// The last blocks of a transfer arrive, by the transfer's number.
    Blocks(u64),
    /// A client's disk write completes.
    Save(ReqId, Save),
    /// A write of an edge or a CN completes.
    Spool(ReqId, edge::Batch),
    /// The ledger's database write completes.
    Store(ReqId, Vec<LedgerRecord>),
}

/// A client's request for a grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// Client that requests the grant.
    pub client: NodeIx,
    /// The client's number for the request.
    pub req: ReqId,
    /// Object that the client wants.
    pub object: ObjectRef,
    /// Grant to renew; `None` for a first grant.
    pub renew: Option<swarmedge_core::wire::records::SealedGrant>,
    /// Whether the renewal becomes a download without peers.
    pub edge_only: bool,
    /// Version that must still be current; `None`: any.
    pub version: Option<VersionId>,
}

/// An object on the edges.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Published {
    /// Provider that pays for the object's traffic.
    pub provider: ProviderId,
    /// Current version of the object.
    pub version: VersionId,
    /// Division of the object into pieces.
    pub layout: Layout,
    /// The provider's policy for the object.
    pub policy: Policy,
}

/// Environment of the machines: connections, disks, objects, NATs, and what has happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Net {
    /// All connections, by number.
    pub links: BTreeMap<u64, Link>,
    /// Disks of the clients, by node.
    pub disks: BTreeMap<NodeIx, Disk>,
    /// Disks of edges and CNs, by node.
    pub spools: BTreeMap<NodeIx, Spool>,
    /// The ledger's database, by record ID.
    pub database: BTreeMap<RecordId, LedgerRecord>,
    /// Published objects, by path.
    pub objects: BTreeMap<String, Published>,
    /// Versions that were published and later withdrawn.
    pub withdrawn: BTreeSet<VersionId>,
    /// Newest notice about each version whose policy was changed, or that was withdrawn.
    pub notices: BTreeMap<VersionId, SignedNotice>,
    /// Clients in quarantine according to the ledger's database.
    pub quarantined: BTreeSet<Guid>,
    /// Epochs of the sealing keys that edges and CNs share.
    pub epochs: Epochs,
    /// NATs and networks that clients are behind.
    pub access: Access,
    /// Destination of each raw TCP connection between clients, by node and number.
    pub raw_tcp: BTreeMap<(NodeIx, RawTcpId), NodeIx>,
    /// Options with which clients were started.
    pub options: BTreeMap<NodeIx, ClientOptions>,
    /// Status of each download as its client reported it.
    pub status: BTreeMap<(NodeIx, Handle), DownloadStatus>,
    /// Events of the run so far that rules depend on.
    pub seen: Seen,
    lives: BTreeMap<NodeIx, u8>,
    /// Number of times that each client changed its network.
    moved: BTreeMap<NodeIx, u8>,
    numbers: u64,
    pulls: BTreeMap<u64, Pull>,
    asks: BTreeMap<(NodeIx, ReqId), Ask>,
    /// For each message about a completed download that an edge has to answer: the client, and its number for the
    /// request.
    told: BTreeMap<(NodeIx, ReqId), (NodeIx, ReqId)>,
    /// Download key (K_d) of each download.
    download_keys: BTreeMap<(NodeIx, DownloadId), PublicKey>,
    /// Edges whose spools refuse every write.
    pub refusing: BTreeSet<NodeIx>,
    /// Nodes of whose disk or database the next write fails.
    pub write_fails: BTreeSet<NodeIx>,
    /// Transfers, by number, that will deliver a wrong block.
    spoiled: BTreeSet<u64>,
    /// Pieces whose writes were completed early, together with a report of lost pieces.
    written_early: BTreeSet<(NodeIx, VersionId, PieceIndex)>,
    /// Time until which each sender, receiver and rate limit is busy with earlier transfers.
    busy: BTreeMap<(NodeIx, u8), Time>,
    dice: Seeded,
    /// Saved image of a client, if any.
    image: Option<Box<Image>>,
}

/// Copy of a client's machine and disk, made by [`Move::Image`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Image {
    of: NodeIx,
    node: Node,
    disk: Disk,
}

impl Net {
    /// Creates an empty environment.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            links: BTreeMap::new(),
            disks: BTreeMap::new(),
            spools: BTreeMap::new(),
            database: BTreeMap::new(),
            objects: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            notices: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            epochs: Epochs::FIRST,
            access: Access::default(),
            raw_tcp: BTreeMap::new(),
            options: BTreeMap::new(),
            status: BTreeMap::new(),
            seen: Seen::default(),
            lives: BTreeMap::new(),
            moved: BTreeMap::new(),
            numbers: 0,
            pulls: BTreeMap::new(),
            asks: BTreeMap::new(),
            told: BTreeMap::new(),
            download_keys: BTreeMap::new(),
            refusing: BTreeSet::new(),
            write_fails: BTreeSet::new(),
            spoiled: BTreeSet::new(),
            written_early: BTreeSet::new(),
            busy: BTreeMap::new(),
            dice: Seeded::new(seed),
            image: None,
        }
    }

    /// Returns the next number for a connection, transfer or request.
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Returns a connection with its number, found by one end's own number for it.
    #[must_use]
    pub fn link_of(&self, node: NodeIx, conn: ConnId) -> Option<(u64, &Link)> {
        let is_it = |l: &Link| (l.from == (node, conn) && !l.half) || l.to == (node, conn);
        self.links.iter().find(|(_, l)| is_it(l)).map(|(&id, l)| (id, l))
    }

    /// Copies a client's download keys (K_d, one key pair per download, named in its grant) to another client.
    fn copied(&mut self, from: NodeIx, to: NodeIx) {
        let keys: Vec<_> =
            self.download_keys.iter().filter(|((n, _), _)| *n == from).map(|((_, d), k)| (*d, *k)).collect();
        self.download_keys.extend(keys.into_iter().map(|(d, k)| ((to, d), k)));
    }

    /// Returns an introduction of `seen.introductions` that is not recorded in the ledger's database, nor in a CN's
    /// spool if `spools`; `None` if there is none.
    #[must_use]
    pub fn unrecorded(&self, spools: bool) -> Option<IntroId> {
        let spooled = self.spools.values().filter(|_| spools).flat_map(|spool| spool.records.values());
        let offered = |record: &LedgerRecord| store::offered(record);
        let recorded: BTreeSet<IntroId> = self.database.values().chain(spooled).flat_map(offered).collect();
        self.seen.introductions.iter().find(|intro| !recorded.contains(intro)).copied()
    }

    /// Returns whether there is an image to set a client back to.
    #[must_use]
    pub const fn has_image(&self) -> bool {
        self.image.is_some()
    }

    /// Returns the client of the saved image, if any.
    #[must_use]
    pub fn imaged(&self) -> Option<NodeIx> {
        self.image.as_ref().map(|image| image.of)
    }

    fn edge_rate(&self, version: VersionId) -> u64 {
        self.objects.values().find(|o| o.version == version).map_or(0, |o| o.policy.edge_rate_max)
    }
}

impl Cfg {
    /// Returns the configuration of these nodes for a model, in which time does not matter.
    #[must_use]
    pub fn for_models(names: Vec<Name>, roles: Vec<RoleCfg>, mutant: Option<Mutant>, moves: Moves) -> Self {
        Self {
            names,
            roles,
            latency: Duration::ZERO,
            disk: Duration::ZERO,
            timed: false,
            rate: 1,
            check_wire: false,
            prompt: &[],
            heads: false,
            moves,
            traced: false,
            mutant,
        }
    }

    /// Returns the world of this configuration, with every node down.
    #[must_use]
    pub fn world(&self, seed: u64, budget: Budget) -> World<Net> {
        let mut world = World::new(Net::new(seed), Vec::new(), budget);
        for _ in &self.names {
            world.add_node(None);
        }
        world
    }

    /// Returns the role of a node.
    #[must_use]
    pub fn role(&self, ix: NodeIx) -> Role {
        self.names[usize::from(ix)].0
    }

    /// Returns the node of that name.
    #[must_use]
    pub fn find(&self, name: Name) -> Option<NodeIx> {
        self.names.iter().position(|n| *n == name).and_then(|i| NodeIx::try_from(i).ok())
    }

    fn numbered(&self, role: Role, n: u32) -> Option<NodeIx> {
        self.find(Name(role, u8::try_from(n).ok()?))
    }

    fn count(&self, role: Role) -> u32 {
        u32::try_from(self.names.iter().filter(|n| n.0 == role).count()).unwrap_or(u32::MAX)
    }

    fn edge(&self, n: u32) -> Option<NodeIx> {
        self.numbered(Role::Edge, n)
    }

    fn up_rate(&self, ix: NodeIx) -> u64 {
        if self.role(ix) == Role::Edge { self.rate * 10 } else { self.rate }
    }

    const fn down_rate(&self, _: NodeIx) -> u64 {
        self.rate * 4
    }
}

/// An external event in a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// A node that is down starts, with what is on its disk.
    Start(NodeIx),
    /// A node stops without warning.
    Crash(NodeIx),
    /// A node loses its power, and the nodes that it is connected to do not notice.
    PowerLoss(NodeIx),
    /// A connection breaks, and both ends notice.
    Break(u64),
    /// A connection breaks, and only its dialler notices.
    BreakHalf(u64),
    /// A transfer, by number, breaks.
    StopTransfer(u64),
    /// A transfer from a client, by number, will deliver a wrong block.
    Corrupt(u64),
    /// A client's disk loses a journalled piece.
    Forget(NodeIx, VersionId, PieceIndex),
    /// A client leaves its network and joins another.
    Rehome(NodeIx),
    /// A node receives an input from outside, such as a user's command.
    Tell(NodeIx, Box<In>),
    /// An image of a running client (its memory and disk) is saved.
    Image(NodeIx),
    /// A running client is replaced by its saved image.
    SetBack,
}

impl System for Net {
    type Cfg = Cfg;
    type Node = Node;
    type Event = Event;
    type Input = In;
    type Output = Out;
    type Move = Move;

    fn run(cfg: &Cfg, ix: NodeIx, node: &mut Node, turn: Turn<'_>, input: Option<In>) -> Vec<Out> {
        machines::run(cfg, ix, node, turn, input)
    }

    fn deadline(node: &Node) -> Option<Time> {
        node.deadline()
    }

    fn rebase(node: &mut Node, by: Duration) {
        node.rebase(by);
    }

    fn check(node: &Node) {
        node.check();
    }

    /// One millisecond in four: a machine checks itself what a step has touched, and a campaign checks all nodes often.
    fn checks_at(now: Time) -> bool {
        now.since(Time::ZERO).as_millis().is_multiple_of(4)
    }

    fn rebase_env(&mut self, by: Duration) {
        self.busy.values_mut().for_each(|at| *at = at.rebased(by));
        self.access.rebase(by);
        if let Some(image) = &mut self.image {
            image.node.rebase(by);
        }
    }

    fn perform(world: &mut World<Self>, cfg: &Cfg, node: NodeIx, output: Out) {
        match output {
            Out::Client(output) => clients::perform(world, cfg, node, output),
            Out::Session(output) => clients::perform_session(world, cfg, node, output),
            Out::Edge(output) => servers::perform_edge(world, cfg, node, output),
            Out::Cn(output) => servers::perform_cn(world, cfg, node, output),
            Out::Dn(output) => servers::perform_dn(world, cfg, node, output),
            Out::Ledger(output) => servers::perform_ledger(world, cfg, node, output),
        }
    }

    fn faults(world: &World<Self>, cfg: &Cfg, lane: Lane, event: &Event, ways: &mut Vec<Way>) {
        if let Event::Blocks(id) = event {
            bulk::faults(world, *id, ways);
        }
        let refused = match event {
            Event::Spool(..) => cfg.role(lane.to) == Role::Cn,
            Event::Store(..) => true,
            Event::Input(_)
            | Event::Dial(_)
            | Event::AskGrant(_)
            | Event::Progress(_)
            | Event::Blocks(_)
            | Event::Save(..) => false,
        };
        if refused && world.budget.drops > 0 {
            ways.push(Way::Fault("refuse"));
        }
    }

    fn delivers_immediately(_: &World<Self>, cfg: &Cfg, lane: Lane) -> bool {
        !cfg.timed && (lane.what == "at once" || cfg.prompt.contains(&lane.what))
    }

    fn arrive(world: &mut World<Self>, cfg: &Cfg, lane: Lane, event: Event, way: Way) -> Option<In> {
        match event {
            Event::Input(input) => servers::told(world, cfg, lane.to, input),
            Event::Dial(id) => links::accept(world, cfg, id),
            Event::AskGrant(ask) => clients::ask_arrives(world, cfg, lane.to, ask),
            Event::Progress(id) => bulk::progress(world, id),
            Event::Blocks(id) => bulk::arrive(world, cfg, id, way),
            Event::Save(req, what) => store::saved(world, cfg, lane.to, req, what),
            Event::Spool(req, batch) => Some(store::spooled(world, cfg, lane.to, (req, batch), way)),
            Event::Store(req, records) => Some(store::stored(world, cfg, lane.to, (req, records), way)),
        }
    }

    fn external_events(world: &World<Self>, cfg: &Cfg, moves: &mut Vec<Move>) {
        (cfg.moves)(world, cfg, moves);
    }

    fn apply_external(world: &mut World<Self>, cfg: &Cfg, mv: &Move, _: &mut dyn Rng) -> Option<(NodeIx, In)> {
        let b = &mut world.budget;
        match mv {
            Move::Crash(_) | Move::PowerLoss(_) => b.crashes = b.crashes.saturating_sub(1),
            Move::Break(_) | Move::BreakHalf(_) => b.drops = b.drops.saturating_sub(1),
            Move::Tell(..) | Move::Image(_) => b.changes = b.changes.saturating_sub(1),
            Move::Start(_) | Move::Rehome(_) | Move::SetBack | Move::Forget(..) => {}
            Move::StopTransfer(_) | Move::Corrupt(_) => {}
        }
        match mv {
            Move::Start(ix) => start(world, cfg, *ix),
            Move::Crash(ix) => {
                crash(world, cfg, *ix);
                None
            }
            Move::PowerLoss(ix) => {
                links::leave_behind(world, *ix);
                crash(world, cfg, *ix);
                None
            }
            Move::Break(id) => {
                links::break_link(world, cfg, *id);
                None
            }
            Move::BreakHalf(id) => {
                links::break_half(world, cfg, *id);
                None
            }
            Move::StopTransfer(id) => {
                bulk::stop(world, cfg, *id, FetchEnd::Broken);
                None
            }
            Move::Corrupt(id) => {
                world.env.spoiled.insert(*id);
                None
            }
            Move::Forget(ix, version, piece) => {
                let disk = world.env.disks.entry(*ix).or_default();
                if disk.has(*version, *piece) {
                    disk.forgotten.insert((*version, *piece));
                }
                None
            }
            Move::Rehome(ix) => {
                moving::change(world, cfg, *ix);
                None
            }
            Move::Tell(ix, input) => Some((*ix, (**input).clone())),
            Move::Image(ix) => {
                let disk = world.env.disks.get(ix).cloned().unwrap_or_default();
                world.env.image = world.node(*ix).cloned().map(|node| Box::new(Image { of: *ix, node, disk }));
                None
            }
            Move::SetBack => {
                let Image { of, node, disk } = *world.env.image.take()?;
                crash(world, cfg, of);
                world.set_node(of, Some(node));
                // what the image does not have is fetched and committed again
                world.env.seen.commits.retain(|&(n, version, piece), _| n != of || disk.has(version, piece));
                world.env.disks.insert(of, disk);
                world.env.seen.set_back = true;
                None
            }
        }
    }
}

/// Starts a node that is down, with what is on its disk.
fn start(world: &mut World<Net>, cfg: &Cfg, ix: NodeIx) -> Option<(NodeIx, In)> {
    match cfg.role(ix) {
        Role::Client => clients::start(world, cfg, ix),
        Role::Edge | Role::Cn | Role::Dn | Role::Ledger => servers::start(world, cfg, ix),
    }
}

/// Stops a node without warning: unfinished writes are lost.
fn crash(world: &mut World<Net>, cfg: &Cfg, ix: NodeIx) {
    clients::asks_are_lost(world, cfg, ix);
    world.set_node(ix, None);
    if cfg.role(ix) == Role::Cn {
        // started again, it knows of no quarantine until the ledger has told it
        world.env.seen.suspects.clear();
    }
    links::cut_all(world, cfg, ix);
    world.env.seen.told.retain(|(node, ..), _| *node != ix);
    bulk::node_gone(world, cfg, ix);
    clients::asks_fail(world, cfg, ix);
    possession::fail(world, cfg, ix);
    world.env.written_early.retain(|(node, ..)| *node != ix);
    // the numbers of its queries begin anew
    world.env.seen.suspects_asked.retain(|(node, _)| *node != ix);
    world.env.status.retain(|(node, _), _| *node != ix);
    world.clear_lanes(|l| l.to == ix);
}
