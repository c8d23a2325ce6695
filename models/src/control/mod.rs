//! World of the control plane: two clients' sessions, two CNs, one DN, all production machines. One client shares a
//! version, the other looks for peers that have it, and claims to have it itself, with a copy of the first one's
//! holder's ticket.

pub mod model;

use super::rng::Seeded;
use super::rule::{Rule, settles};
use super::scenario::{Name, Role};
use super::sim::machines::{In, Node, RoleCfg};
use super::sim::posting::at_once;
use super::sim::rig::identity;
use super::sim::servers::INCARNATIONS_FALL_FROM;
use super::sim::{Cfg, Move, Mutant, Net, keys};
use super::world::{Act, Budget, NodeIx, World};
use std::collections::BTreeSet;
use swarmedge_core::accounting::epochs::Epochs;
use swarmedge_core::content::Policy;
use swarmedge_core::ids::{DownloadId, Guid, ProviderId, PublicKey, SessionId, VersionId};
use swarmedge_core::role::{client, cn, dn};
use swarmedge_core::selection::directory::PeerKey;
use swarmedge_core::session::ClientSession;
use swarmedge_core::session::client::{Input, Want};
use swarmedge_core::wire::records::{Grant, SealedGrant, ServerRole, SignedGrant, SigningContext};
use swarmedge_core::wire::{Text, Wire as _};

const CNS: [NodeIx; 2] = [0, 1];
const DN: NodeIx = 2;
const SEEDER: NodeIx = 3;
const SEEKER: NodeIx = 4;

pub(super) fn version() -> VersionId {
    VersionId::numbered(1)
}

/// Returns the deployment's configuration, with the limits for models.
#[must_use]
pub fn cfg(mutant: Option<Mutant>) -> Cfg {
    let names = std::vec![
        Name(Role::Cn, 0),
        Name(Role::Cn, 1),
        Name(Role::Dn, 0),
        Name(Role::Client, 0),
        Name(Role::Client, 1)
    ];
    let (root, verify) = (keys::root(), keys::verify);
    let role = |(ix, &name): (NodeIx, &Name)| match name.0 {
        Role::Cn => {
            let blind = mutant == Some(Mutant::TicketsAreBelieved);
            let verify = if blind { keys::verify_all_but_tickets } else { verify };
            let tiny = cn::Config::tiny(root, verify, keys::cert(name, ServerRole::Cn));
            RoleCfg::Cn(cn::Config { ledger: false, dns: 1, ..tiny })
        }
        Role::Dn => RoleCfg::Dn(dn::Config::tiny(root, verify, keys::cert(name, ServerRole::Dn))),
        Role::Client | Role::Edge | Role::Ledger => {
            RoleCfg::Client(std::vec![client::Config::tiny(identity(ix, name, 0), verify)])
        }
    };
    let roles = (0..).zip(&names).map(role).collect();
    Cfg::for_models(names, roles, mutant, moves)
}

fn moves(w: &World<Net>, _: &Cfg, moves: &mut Vec<Move>) {
    let b = w.budget;
    for ix in CNS.into_iter().chain([DN]) {
        match w.node(ix) {
            Some(_) if b.crashes > 0 => moves.push(Move::Crash(ix)),
            Some(_) => {}
            None => moves.push(Move::Start(ix)),
        }
    }
    if b.drops > 0 {
        for (&id, link) in w.env.links.iter().filter(|(_, l)| l.open && !l.half) {
            moves.push(Move::Break(id));
            if link.to.0 != DN {
                moves.push(Move::BreakHalf(id));
            }
        }
    }
    if b.changes > 0 {
        moves.push(Move::Tell(SEEDER, Box::new(In::Session(Input::Uploads(false)))));
    }
}

fn grant(node: NodeIx, name: Name) -> SealedGrant {
    let edge = keys::cert(Name(Role::Edge, 0), ServerRole::Edge);
    let grant = Grant {
        download: DownloadId::numbered(u32::from(node)),
        guid: Guid::of(&keys::key(name)),
        download_key: PublicKey::numbered(7),
        version: version(),
        size: 1 << 20,
        provider: ProviderId(1),
        path: Text::default(),
        policy: Policy::default(),
        max_peer_bytes: 1 << 20,
        order_seed: 0,
        began_ms: 0,
        issued_ms: 0,
        expires_ms: u64::MAX,
        challenged: false,
    };
    let signature = keys::sign(&edge.body.key, SigningContext::Grant, &grant.to_bytes());
    keys::seal(&SignedGrant { grant, signature, cert: edge }, Epochs::FIRST)
}

/// Returns the world with the seeder connected and registered, and the seeker about to look for peers.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<Net> {
    let mut w = cfg.world(1, budget);
    let mut rng = Seeded::new(1);
    for ix in [CNS[0], CNS[1], DN] {
        w.step(cfg, &Act::Move(Move::Start(ix)), &mut rng);
    }
    let tell = |w: &mut World<Net>, ix, input| at_once(w, ix, In::Session(input));
    // the seeker knows one CN only, so that it comes back to it
    for (ix, cns) in [(SEEDER, 2), (SEEKER, 1)] {
        w.set_node(ix, Some(Node::Session(Box::new(ClientSession::new(true)), 0)));
        tell(&mut w, ix, Input::Network(keys::nat(ix)));
        tell(&mut w, ix, Input::Servers { cns, now_ms: keys::WALL_MS });
        let ticket = keys::ticket(&keys::key(cfg.names[usize::from(SEEDER)]), version());
        tell(&mut w, ix, Input::Share { version: version(), complete: true, ticket });
    }
    let ready = w.settle(cfg, 500, &mut rng, |w| w.is_quiet() && is_up(w));
    assert!(ready, "an undisturbed control plane comes up");
    w.rebase();
    tell(&mut w, SEEKER, Input::Want(want(SEEKER, cfg.names[usize::from(SEEKER)])));
    w
}

/// Returns a client's request to its session for one peer that has [`version`].
pub(super) fn want(node: NodeIx, name: Name) -> Want {
    Want {
        download: DownloadId::numbered(u32::from(node)),
        download_key: PublicKey::numbered(7),
        version: version(),
        grant: grant(node, name),
        more: 1,
        exclude: Vec::new(),
        soon: false,
    }
}

/// Returns the DN; `None` while it does not run.
fn dn(w: &World<Net>) -> Option<&dn::Dn> {
    match w.node(DN)? {
        Node::Dn(dn) => Some(dn),
        Node::Client(..) | Node::Session(..) | Node::Edge(_) | Node::Cn(_) | Node::Ledger(_) => None,
    }
}

/// Returns a client's session machine; `None` while it does not run.
fn session(w: &World<Net>, ix: NodeIx) -> Option<&ClientSession> {
    match w.node(ix)? {
        Node::Session(s, _) => Some(s),
        Node::Client(..) | Node::Edge(_) | Node::Cn(_) | Node::Dn(_) | Node::Ledger(_) => None,
    }
}

/// Returns the keys of all registrations in the DN's directory, found by trying all 144 keys that can occur in this
/// small world.
fn registrations(dn: &dn::Dn) -> impl Iterator<Item = PeerKey> + '_ {
    let keys = (0..12).flat_map(|link| (0..12).map(move |s| PeerKey { link, session: SessionId(s) }));
    keys.filter(|k| dn.directory().get(*k).is_some())
}

/// Returns whether both clients' sessions are open, the DN knows exactly these two clients, each once, and it lists the
/// seeder as a peer.
fn is_up(w: &World<Net>) -> bool {
    let Some(dn) = dn(w) else { return false };
    let open = [SEEDER, SEEKER].into_iter().all(|c| session(w, c).is_some_and(ClientSession::is_open));
    let is_listed = dn
        .directory()
        .listed(version())
        .filter_map(|k| dn.directory().get(k))
        .any(|e| e.upload_key == keys::upload_key(SEEDER));
    open && is_listed && registrations(dn).count() == 2
}

/// Returns whether the DN lists as peers only clients to whom an edge has granted the version.
fn only_granted_are_listed(cfg: &Cfg, w: &World<Net>) -> bool {
    let granted = Guid::of(&keys::key(cfg.names[usize::from(SEEDER)]));
    dn(w).is_none_or(|dn| {
        dn.directory().listed(version()).all(|k| dn.directory().get(k).is_some_and(|e| e.guid == granted))
    })
}

/// Returns whether both clients' sessions are open, the DN knows exactly these two clients, each once, and it lists
/// the seeder as a peer if and only if the seeder's user allows uploads.
fn is_true(w: &World<Net>) -> bool {
    let Some(dn) = dn(w) else { return false };
    let open = [SEEDER, SEEKER].into_iter().all(|c| session(w, c).is_some_and(ClientSession::is_open));
    let listed: Vec<PublicKey> =
        dn.directory().listed(version()).filter_map(|k| dn.directory().get(k)).map(|e| e.upload_key).collect();
    let wanted: Vec<PublicKey> =
        session(w, SEEDER).filter(|s| s.uploads()).map(|_| keys::upload_key(SEEDER)).into_iter().collect();
    let known: BTreeSet<Guid> = registrations(dn).filter_map(|k| dn.directory().get(k)).map(|e| e.guid).collect();
    open && listed == wanted && known.len() == 2 && registrations(dn).count() == 2
}

/// Returns whether no client is listed as a peer under a registration older than its newest one.
fn newest_is_listed(cfg: &Cfg, w: &World<Net>) -> bool {
    let Some(dn) = dn(w) else { return true };
    let age = |k: PeerKey| {
        let told = dn.directory().get(k).map_or(0, |e| e.incarnation);
        if cfg.mutant == Some(Mutant::IncarnationsFall) { INCARNATIONS_FALL_FROM - told } else { told }
    };
    let guid = |k: PeerKey| dn.directory().get(k).map(|e| e.guid);
    dn.directory().listed(version()).all(|k| registrations(dn).all(|o| guid(o) != guid(k) || age(o) <= age(k)))
}

/// Returns whether each client has at most one open session on any one CN.
fn one_session_a_guid(w: &World<Net>) -> bool {
    let mut seen = BTreeSet::new();
    let live = w.env.links.values().filter(|l| l.welcomed);
    live.map(|l| (l.to.0, l.key)).all(|s| seen.insert(s))
}

/// Rules of the model of the control plane, checked in its reachable states.
pub const RULES: &[Rule<Net>] = &[
    Rule::always("a client whose user forbids uploads is never chosen", |_, w| !w.env.seen.chosen_though_off),
    Rule::always("a client has at most one session on a CN", |_, w| one_session_a_guid(w)),
    Rule::always("of a client's registrations only the newest is listed", newest_is_listed),
    Rule::always("a DN lists only holders to whom an edge has granted the version", only_granted_are_listed),
    Rule::always("an introduction reaches only the client that it names", |_, w| !w.env.seen.misdelivered),
    Rule::always("left alone, the directory comes to say what is true", |cfg, w| {
        let all_up = w.node(DN).is_some() && CNS.iter().all(|c| w.node(*c).is_some());
        !all_up || settles(cfg, w, 600, is_true)
    }),
    Rule::sometimes("a client is introduced to a peer", |_, w| w.env.seen.introduced),
    Rule::sometimes("a client's sessions on two CNs are both registered", |_, w| {
        dn(w).is_some_and(|d| registrations(d).count() > 2)
    }),
    Rule::sometimes("the directory is true after a crash", |_, w| w.budget.crashes == 0 && is_true(w)),
];
