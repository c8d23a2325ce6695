//! World of blames: a DN that lists one holder's copy, and clients of several networks that blame it, move, or only
//! look for peers. The holder proves its possession at any time, and time passes. The DN is the production machine.

pub mod crowd;
pub mod model;
mod rules;

use super::scenario::{Name, Role};
use super::sim::keys;
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use swarmedge_core::ids::{ConnId, Guid, PublicKey, SecondaryGuid, SessionId, VersionId};
use swarmedge_core::machine::{Cx, Machine as _, Rng, Time};
use swarmedge_core::nat::{Candidate, CandidateKind, NatBehaviour, NatDescriptor};
use swarmedge_core::role::dn::{self, Dn, Input, Metric, Output};
use swarmedge_core::selection::blames::Rules;
use swarmedge_core::selection::directory::Choice;
use swarmedge_core::selection::{Locality, PeerKey};
use swarmedge_core::wire::List;
use swarmedge_core::wire::control::Shared;
use swarmedge_core::wire::directory::{BlamedCopy, DirectoryHello, FromDn, PeerEntry, PeerShares, ProvenCopy, ToDn};
use swarmedge_core::wire::records::ServerRole;

pub use rules::RULES;

/// Session number of the holder.
const HOLDER: u32 = 1;
/// Session numbers of the clients that only look for peers: one of the network that most accusers are of, and one of
/// another network.
const NEIGHBOUR: u32 = 20;
const STRANGER: u32 = 21;
/// Clients that may blame: session number, /24, AS. The first three are of one AS, two of them of one /24.
const ACCUSERS: [(u32, u8, u32); 5] =
    [(10, 1, 64_501), (11, 1, 64_501), (12, 2, 64_501), (13, 3, 64_502), (14, 4, 64_503)];
/// The /24 and AS that an accuser moves to.
const ELSEWHERE: (u8, u32) = (9, 64_509);
const CN: ConnId = ConnId(1);

/// Returns the version of the copy.
#[must_use]
pub fn version() -> VersionId {
    VersionId::numbered(1)
}

/// Seeded defects of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Seeded defect: geolocation gives each client an AS of its own.
    NetworksAreInvented,
    /// Seeded defect: a client has another GUID after it has moved.
    GuidsAreFresh,
    /// Seeded defect: the DN's requests to check a copy are lost.
    ChecksAreLost,
    /// Seeded defect: the CN does not tell the DN of proofs.
    ProofsAreLost,
}

/// Configuration of the world.
#[derive(Clone, Debug)]
pub struct Cfg {
    /// Configuration of the DN.
    pub dn: dn::Config,
    /// Rules that the DN is to keep.
    pub rules: Rules,
    /// Seeded defect, or `None` for the correct world.
    pub mutant: Option<Mutant>,
}

impl Cfg {
    /// Returns the configuration of a world whose DN keeps `rules`.
    #[must_use]
    pub fn new(rules: Rules, mutant: Option<Mutant>) -> Self {
        let tiny = dn::Config::tiny(keys::root(), keys::verify, keys::cert(Name(Role::Dn, 0), ServerRole::Dn));
        let never = Duration::from_secs(365 * 24 * 3600);
        Self { dn: dn::Config { idle_after: never, blames: rules, ..tiny }, rules, mutant }
    }
}

/// External event of the world of blames.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// The client with this session blames the copy.
    Blame(u32),
    /// The client with this session moves to another network.
    MoveAway(u32),
    /// The holder proves to an edge that it has the right bytes.
    Prove,
    /// As much time passes as a suspension may last.
    Wait,
}

/// A blame, as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Said {
    /// Session of the client that blames.
    by: u32,
    /// The /24 that it blames from.
    net: u8,
    /// AS that the client blames from.
    asn: u32,
}

/// Environment: what was said, and what has followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Court {
    /// First blame of each client.
    said: BTreeMap<u32, Said>,
    /// Blames that the DN has counted, and until when each is to count.
    counted: BTreeMap<Said, Time>,
    /// Clients that have moved.
    moved: BTreeSet<u32>,
    /// Blame that the DN is being told of.
    telling: Option<Said>,
    /// Whether the holder was told to check its copy.
    holder_told: bool,
    /// Time until which the copy may be suspended since it was last taken off the lists.
    suspended_until: Option<Time>,
    /// Whether a proof has brought the copy back.
    cleared: bool,
    /// Whether the holder has proven its possession since the copy was last taken off the lists.
    proven: bool,
}

impl Court {
    /// Returns the network (the third octet of its /24) and the AS of a client.
    fn place(&self, client: u32) -> (u8, u32) {
        let home = match client {
            NEIGHBOUR => (5, 64_501),
            STRANGER => (6, 64_510),
            HOLDER => (7, 64_511),
            _ => ACCUSERS.iter().find(|(n, ..)| *n == client).map_or((8, 64_512), |(_, net, asn)| (*net, *asn)),
        };
        if self.moved.contains(&client) { ELSEWHERE } else { home }
    }
}

/// Returns a client's entry at the DN.
#[must_use]
pub fn entry(n: u32, addr: IpAddr, asn: Option<u32>) -> PeerEntry {
    let observed = SocketAddr::new(addr, 5_000);
    let candidate = Candidate { kind: CandidateKind::ServerReflexive, addr: observed };
    let open = NatBehaviour::EndpointIndependent;
    PeerEntry {
        session: SessionId(n.into()),
        guid: Guid::numbered(n),
        secondary: SecondaryGuid::numbered(n),
        incarnation: 1,
        observed,
        upload_key: PublicKey::numbered(n),
        uploads: true,
        nat: NatDescriptor {
            epoch: 1,
            udp: true,
            mapping: open,
            filtering: open,
            v4: true,
            candidates: List::truncated([candidate]),
            ..NatDescriptor::default()
        },
        locality: Locality { asn, country: None, region: None },
    }
}

/// Returns the message that registers a client as holder of the whole version.
#[must_use]
pub fn shares(n: u32) -> ToDn {
    let add = List::truncated([Shared { version: version(), complete: true }]);
    ToDn::Shares(PeerShares { session: SessionId(n.into()), reset: true, add, remove: List::default() })
}

/// Returns the inputs that connect a CN to a DN.
#[must_use]
pub fn cn_connects() -> [Input; 3] {
    let cert = keys::cert(Name(Role::Cn, 0), ServerRole::Cn);
    let key = cert.body.key;
    let hello = DirectoryHello { protocol: swarmedge_core::wire::PROTOCOL, cert };
    [Input::WallClock { unix_ms: keys::WALL_MS }, Input::CnAccepted { conn: CN, key }, tell(ToDn::Hello(hello))]
}

/// Returns the input with a CN's message.
#[must_use]
pub const fn tell(msg: ToDn) -> Input {
    Input::Cn { conn: CN, msg }
}

fn entry_in(cfg: &Cfg, court: &Court, client: u32) -> PeerEntry {
    let (net, asn) = court.place(client);
    let asn = if cfg.mutant == Some(Mutant::NetworksAreInvented) { 65_000 + client } else { asn };
    let mut entry = entry(client, Ipv4Addr::new(20, 0, net, 1).into(), Some(asn));
    if cfg.mutant == Some(Mutant::GuidsAreFresh) && court.moved.contains(&client) {
        entry.guid = Guid::numbered(1_000 + client);
    }
    entry
}

impl System for Court {
    type Cfg = Cfg;
    type Node = Dn;
    type Event = ();
    type Input = Input;
    type Output = Output;
    type Move = Move;

    fn run(cfg: &Cfg, _: NodeIx, node: &mut Dn, Turn { now, rng }: Turn<'_>, input: Option<Input>) -> Vec<Output> {
        let mut out = Vec::new();
        let mut cx = Cx { now, cfg: &cfg.dn, rng, out: &mut out };
        match input {
            Some(input) => node.handle_input(&mut cx, input),
            None => node.handle_timeout(&mut cx),
        }
        out
    }

    fn deadline(node: &Dn) -> Option<Time> {
        node.blames().poll_timeout()
    }

    fn rebase(node: &mut Dn, by: Duration) {
        node.rebase(by);
    }

    fn check(node: &Dn) {
        node.check();
    }

    fn rebase_env(&mut self, by: Duration) {
        self.counted.values_mut().for_each(|until| *until = until.rebased(by));
        self.suspended_until = self.suspended_until.map(|until| until.rebased(by));
    }

    fn perform(world: &mut World<Self>, cfg: &Cfg, _: NodeIx, output: Output) {
        let now = world.now;
        let court = &mut world.env;
        match output {
            Output::CnSend { msg: FromDn::CheckCopy(_), .. } => {
                court.holder_told |= cfg.mutant != Some(Mutant::ChecksAreLost);
            }
            Output::Count(Metric::Blamed) => {
                if let Some(said) = court.telling.take() {
                    court.counted.insert(said, now.after(cfg.rules.vote_life));
                }
            }
            Output::Count(Metric::Unlisted) => {
                court.suspended_until = Some(now.after(cfg.rules.suspend_for));
                court.proven = false;
            }
            Output::Count(Metric::Cleared) => court.cleared = true,
            Output::CnSend { .. } | Output::CnClose { .. } | Output::Count(_) => {}
        }
    }

    fn faults(_: &World<Self>, _: &Cfg, _: Lane, (): &(), _: &mut Vec<Way>) {}

    fn arrive(_: &mut World<Self>, _: &Cfg, _: Lane, (): (), _: Way) -> Option<Input> {
        None
    }

    fn external_events(world: &World<Self>, _: &Cfg, moves: &mut Vec<Move>) {
        if world.budget.changes == 0 {
            return;
        }
        let court = &world.env;
        moves.extend([Move::Prove, Move::Wait]);
        for (client, ..) in ACCUSERS {
            moves.push(Move::Blame(client));
            // one of a network of its own is enough
            if client == 13 && court.said.contains_key(&client) && !court.moved.contains(&client) {
                moves.push(Move::MoveAway(client));
            }
        }
    }

    fn apply_external(world: &mut World<Self>, cfg: &Cfg, mv: &Move, _: &mut dyn Rng) -> Option<(NodeIx, Input)> {
        world.budget.changes -= 1;
        let court = &mut world.env;
        let msg = match mv {
            Move::Blame(client) => {
                let (net, asn) = court.place(*client);
                let said = Said { by: *client, net, asn };
                court.said.entry(*client).or_insert(said);
                court.telling = Some(said);
                let session = SessionId((*client).into());
                ToDn::Blame(BlamedCopy { session, holder: Guid::numbered(HOLDER), version: version() })
            }
            Move::MoveAway(client) => {
                court.moved.insert(*client);
                ToDn::Peer(entry_in(cfg, court, *client))
            }
            Move::Wait => {
                world.now = world.now.after(cfg.rules.suspend_for);
                return None;
            }
            Move::Prove => {
                court.proven = true;
                if cfg.mutant == Some(Mutant::ProofsAreLost) {
                    return None;
                }
                ToDn::Proven(ProvenCopy { holder: Guid::numbered(HOLDER), version: version() })
            }
        };
        Some((0, tell(msg)))
    }
}

/// Returns the world in which all clients are registered, and the holder's copy is listed.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<Court> {
    let court = Court::default();
    let mut dn = Dn::default();
    let mut rng = super::rng::Seeded::new(1);
    let peers = [HOLDER, NEIGHBOUR, STRANGER].into_iter().chain(ACCUSERS.map(|(n, ..)| n));
    let peers = peers.map(|n| tell(ToDn::Peer(entry_in(cfg, &court, n))));
    for input in cn_connects().into_iter().chain(peers).chain([tell(shares(HOLDER))]) {
        let turn = Turn { now: Time::ZERO, rng: &mut rng };
        Court::run(cfg, 0, &mut dn, turn, Some(input));
    }
    World::new(court, vec![dn], budget)
}

/// Returns whether the DN offers the holder to a client.
fn is_offered(w: &World<Court>, to: u32) -> bool {
    let Some(dn) = w.node(0) else { return false };
    let (querier, none) = (PeerKey { link: 1, session: SessionId(to.into()) }, BTreeSet::new());
    let choice = Choice { diversity: 0, ..Choice::default() };
    let mut rng = super::rng::Seeded::new(1);
    let chosen = dn.directory().clone().select(querier, version(), (40, &none), choice, &mut rng);
    chosen.is_some_and(|chosen| chosen.iter().any(|key| key.session == SessionId(HOLDER.into())))
}
