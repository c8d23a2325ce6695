//! World of grants: two edges and a CN whose clocks and sealing keys may differ, an operator that rotates the keys, a
//! provider that publishes another version, and a client that renews its grant in time or was switched off.
//! Production code makes every decision ([`decide`], [`check_shown`], [`renew_after`], [`Epochs`]); in every state a
//! thief's attempts to use the grant are checked as well.

pub mod model;

use super::rng::Seeded;
use super::rule::Rule;
use super::scenario::{Name, Role};
use super::sim::keys;
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use swarmedge_core::accounting::Trust;
use swarmedge_core::accounting::epochs::Epochs;
use swarmedge_core::accounting::grants::{
    Decision, Denial, GrantAsked, Lifetimes, ObjectFacts, Renewal, SKEW_MS, check_shown, decide, renew_after,
};
use swarmedge_core::content::{Access, Policy};
use swarmedge_core::ids::{DownloadId, Guid, ProviderId, PublicKey, ReqId, VersionId};
use swarmedge_core::machine::{Rng, Time};
use swarmedge_core::wire::records::{Grant, SealedGrant, ServerRole, SignedGrant, SigningContext};
use swarmedge_core::wire::{Text, Wire as _};

const LIVES: Lifetimes = Lifetimes { valid_ms: 900_000, renew_ms: 600_000, whole_ms: 1_500_000 };
const RENEW_BEFORE: Duration = Duration::from_secs(180);
const EDGES: [usize; 2] = [0, 1];
const CN: usize = 2;
/// Milliseconds by which the clocks of the two edges and the CN are ahead: none, or the most allowed.
const CLOCKS: [[u64; 3]; 3] = [[0, 0, 0], [SKEW_MS, SKEW_MS / 2, 0], [0, 0, SKEW_MS]];
/// Amounts in milliseconds by which the time may advance in one step; sums of them fall exactly on the ends of a
/// grant's lifetime.
const TICKS: [u64; 3] = [SKEW_MS, LIVES.valid_ms - SKEW_MS, LIVES.renew_ms];
/// Size in bytes of the object's version: when the first grant is made, and when it is renewed.
const SIZES: [u64; 2] = [100, 200];

/// Configuration of the grants model.
#[derive(Clone, Debug, Default)]
pub struct Cfg {
    /// Seeded defect, or `None` for the correct world.
    pub mutant: Option<Mutant>,
}

/// Seeded defects of the grants world; each must break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Seeded defect: a rotation of the sealing keys makes a new key current at once, which no server has loaded yet.
    SwitchesAtOnce,
    /// Seeded defect: servers forget the sealing key of the previous epoch.
    ForgetsPrevious,
    /// Seeded defect: the CN ignores the time at which it is shown a grant, so grants never expire.
    CnHasNoClock,
    /// Seeded defect: the CN makes no allowance for differences between its clock and the edge's.
    NoAllowance,
    /// Seeded defect: the CN does not check the signatures of grants.
    CnTrusts,
    /// Seeded defect: the CN accepts a grant from any client.
    AnyClient,
    /// Seeded defect: an edge renews a grant although the client has not proven the download key K_d.
    NoProof,
    /// Seeded defect: an edge renews a grant for a version that is not the object's current one.
    AnyVersion,
    /// Seeded defect: an edge renews a grant at any time after its expiry.
    RenewsForever,
    /// Seeded defect: an edge renews grants without a limit on the download's age.
    NeverEnds,
    /// Seeded defect: a renewal raises the grant's limit of peer bytes to the object's present size.
    Widens,
    /// Seeded defect: a renewed grant has a new download id.
    NewDownload,
    /// Seeded defect: a renewed grant has the download key of the request, instead of the old one.
    NewKey,
    /// Seeded defect: a client renews after its grant has expired.
    RenewsLate,
    /// Seeded defect: a client gives up when its first edge does not answer.
    AsksOneEdge,
}

/// An external event in the grants world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// The servers' clocks get these skews, by index in `CLOCKS`.
    Clocks(u8),
    /// The client requests its first grant from this edge.
    Ask(u8),
    /// The time advances by this many milliseconds.
    Tick(u64),
    /// The client is switched off and renews nothing until it returns.
    Sleep,
    /// The client returns and renews its grant at this edge.
    Wake(u8),
    /// An edge fails and answers no more.
    Fail(u8),
    /// The operator rotates the keys, once every server has loaded the previous rotation.
    Rotate,
    /// A server (edge 0 or 1, CN 2) loads the operator's newest sealing keys.
    Load(u8),
    /// The provider publishes another version of the object.
    Publish,
}

/// Whole state of the grants model; there are no machines, since all decisions are pure functions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grants {
    clocks: Option<u8>,
    now_ms: u64,
    file: Epochs,
    /// Key epochs that each server has loaded: edges 0 and 1, CN 2.
    servers: [Epochs; 3],
    failed: Option<u8>,
    version: u32,
    held: Option<SealedGrant>,
    /// First grant of the client's current download.
    first: Option<Grant>,
    /// Whether the client is switched on.
    awake: bool,
    /// Time of the client's next renewal, in milliseconds; `None` if it renews nothing.
    due_ms: Option<u64>,
    /// Whether an edge renewed a grant after the end of its renewal time, or for a version that is not the current
    /// one.
    wrongly_renewed: bool,
    /// Number of first grants requested so far.
    asks: u64,
    /// Epochs of the sealing keys of the download's first grant and of its latest one.
    epochs: [u32; 2],
}

fn trust(mutant: Option<Mutant>) -> Trust {
    let verify = if mutant == Some(Mutant::CnTrusts) { |_: &_, _, _: &_, _: &_| true } else { keys::verify };
    Trust { root: keys::root(), verify }
}

/// Returns the public key of the client (0) or of a thief (1).
fn client(n: u32) -> PublicKey {
    PublicKey::numbered(0x50 + n)
}

impl Grants {
    fn clock(&self, server: usize) -> u64 {
        let ahead = self.clocks.map_or(0, |n| CLOCKS[usize::from(n)][server]);
        self.now_ms + ahead
    }

    /// Returns the request of the client with this key to an edge: for a first grant, or for a renewal if `renew` is
    /// given.
    fn asked(&self, key: PublicKey, renew: Option<Renewal>) -> GrantAsked {
        let size = SIZES[usize::from(renew.is_some())];
        let object = ObjectFacts {
            provider: ProviderId(5),
            path: Text::default(),
            version: VersionId::numbered(self.version),
            size,
            access: Access::Public,
            policy: Policy::default(),
        };
        let (guid, download_key) = (Guid::of(&key), PublicKey::numbered(0xd0 + u32::from(renew.is_some())));
        GrantAsked {
            req: ReqId(1),
            guid,
            key,
            download_key,
            object,
            token: None,
            version: None,
            renew,
            from: IpAddr::V4(Ipv4Addr::LOCALHOST),
            time_ms: self.now_ms,
            nonce: Default::default(),
        }
    }

    /// Returns an edge's decision on a request by `key` to renew the client's grant; `None` if there is no grant.
    /// `proven` tells whether the request is signed with the download's key K_d.
    fn renewal(
        &self,
        m: Option<Mutant>,
        edge: usize,
        key: PublicKey,
        proven: bool,
    ) -> Option<Result<Decision, Denial>> {
        let sealed = self.held.as_ref()?;
        let grant = keys::open(sealed, self.servers[edge]);
        let old = grant.as_ref().map(|g| g.grant.clone());
        let mut asked =
            self.asked(key, Some(Renewal { grant, proven: proven || m == Some(Mutant::NoProof), edge_only: false }));
        let mut now_ms = self.clock(edge);
        if let Some(old) = &old {
            match m {
                Some(Mutant::AnyVersion) => asked.object.version = old.version,
                Some(Mutant::RenewsForever) => now_ms = now_ms.min(old.expires_ms),
                _ => {}
            }
        }
        let whole_ms = if m == Some(Mutant::NeverEnds) { u64::MAX } else { LIVES.whole_ms };
        let lives = Lifetimes { whole_ms, ..LIVES };
        let mut decided = decide(&trust(None), lives, now_ms, &mut Seeded::new(2), &asked);
        if let Ok(Decision { grant, .. }) = &mut decided {
            match m {
                Some(Mutant::Widens) => grant.max_peer_bytes = asked.object.size,
                Some(Mutant::NewDownload) => grant.download = DownloadId::numbered(77),
                Some(Mutant::NewKey) => grant.download_key = asked.download_key,
                _ => {}
            }
        }
        Some(decided)
    }

    /// Signs and seals a grant as the edge would; the client stores it and schedules its renewal.
    fn keep(&mut self, m: Option<Mutant>, edge: usize, grant: Grant) {
        let cert = keys::cert(Name(Role::Edge, u8::try_from(edge).unwrap_or(0)), ServerRole::Edge);
        let signature = keys::sign(&cert.body.key, SigningContext::Grant, &grant.to_bytes());
        let left = Duration::from_millis(grant.expires_ms.saturating_sub(self.clock(CN)));
        let wait = match m {
            Some(Mutant::RenewsLate) => left + Duration::from_millis(SKEW_MS),
            _ => renew_after(left, RENEW_BEFORE),
        };
        self.due_ms = Some(self.now_ms + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self.held = Some(keys::seal(&SignedGrant { grant, signature, cert }, self.servers[edge]));
    }

    fn renew(&mut self, m: Option<Mutant>, edge: usize) {
        let old = self.opened();
        match (self.renewal(m, edge, client(0), true), old) {
            (Some(Ok(decision)), Some(old)) => {
                let ends = (old.expires_ms + LIVES.renew_ms).min(old.began_ms + LIVES.whole_ms);
                let late = self.clock(edge) > ends;
                self.wrongly_renewed |= late || old.version != VersionId::numbered(self.version);
                self.epochs[1] = self.servers[edge].current;
                self.keep(m, edge, decision.grant);
            }
            // the edge refused: the client asks for a first grant
            _ => self.ask(m, edge),
        }
    }

    fn ask(&mut self, m: Option<Mutant>, edge: usize) {
        let asked = self.asked(client(0), None);
        self.asks += 1;
        let mut rng = Seeded::new(self.asks);
        let Ok(decision) = decide(&trust(None), LIVES, self.clock(edge), &mut rng, &asked) else { return };
        self.epochs = [self.servers[edge].current; 2];
        self.awake = true;
        self.first = Some(decision.grant.clone());
        self.keep(m, edge, decision.grant);
    }

    /// Advances the time to `until_ms`. A client that is switched on renews its grant when that is due, at an edge
    /// that has not failed.
    fn pass(&mut self, m: Option<Mutant>, until_ms: u64) {
        while let Some(due) = self.due_ms.filter(|due| *due <= until_ms) {
            self.now_ms = due;
            let reachable = EDGES.into_iter().find(|e| self.failed.map(usize::from) != Some(*e));
            match reachable.filter(|e| m != Some(Mutant::AsksOneEdge) || *e == 0) {
                Some(edge) => self.renew(m, edge),
                None => self.due_ms = None,
            }
        }
        self.now_ms = until_ms;
    }

    /// Returns the client's grant, opened without a check of its epoch or signature.
    fn opened(&self) -> Option<Grant> {
        let signed = SignedGrant::from_bytes(&self.held.as_ref()?.sealed).ok()?;
        Some(signed.grant)
    }

    /// Returns whether the CN accepts the client's grant, modified by `change`, from a client with this key.
    fn is_taken(&self, m: Option<Mutant>, key: &PublicKey, change: fn(&mut Grant)) -> bool {
        let opened = self.held.as_ref().and_then(|sealed| keys::open(sealed, self.servers[CN]));
        let Some(mut signed) = opened else { return false };
        change(&mut signed.grant);
        let now_ms = match m {
            Some(Mutant::CnHasNoClock) => signed.grant.issued_ms,
            Some(Mutant::NoAllowance) => self.clock(CN).saturating_sub(SKEW_MS),
            _ => self.clock(CN),
        };
        let guid = if m == Some(Mutant::AnyClient) { signed.grant.guid } else { Guid::of(key) };
        check_shown(&trust(m), &signed, guid, now_ms).is_ok()
    }

    /// Returns whether the sealing keys of the CN and of the edge that sealed this grant are at most one rotation
    /// apart.
    fn is_near(&self, sealed: &SealedGrant) -> bool {
        sealed.epoch.abs_diff(self.servers[CN].current) <= 1
    }
}

impl System for Grants {
    type Cfg = Cfg;
    type Node = ();
    type Event = ();
    type Input = ();
    type Output = ();
    type Move = Move;

    fn run(_: &Cfg, _: NodeIx, (): &mut (), _: Turn<'_>, _: Option<()>) -> Vec<()> {
        Vec::new()
    }
    fn deadline((): &()) -> Option<Time> {
        None
    }
    fn rebase((): &mut (), _: Duration) {}
    fn check((): &()) {}

    fn rebase_env(&mut self, _: Duration) {}
    fn perform(_: &mut World<Self>, _: &Cfg, _: NodeIx, (): ()) {}
    fn faults(_: &World<Self>, _: &Cfg, _: Lane, (): &(), _: &mut Vec<Way>) {}
    fn arrive(_: &mut World<Self>, _: &Cfg, _: Lane, (): (), _: Way) -> Option<()> {
        None
    }

    fn external_events(w: &World<Self>, _: &Cfg, moves: &mut Vec<Move>) {
        let env = &w.env;
        if env.clocks.is_none() {
            return moves.extend((0..).zip(CLOCKS).map(|(n, _)| Move::Clocks(n)));
        }
        let asleep = env.held.is_some() && !env.awake;
        for edge in [0, 1] {
            if env.failed != Some(edge) {
                moves.extend(env.held.is_none().then_some(Move::Ask(edge)));
                moves.extend(asleep.then_some(Move::Wake(edge)));
            }
        }
        if w.budget.fires > 0 {
            moves.extend(TICKS.map(Move::Tick));
        }
        if w.budget.drops > 0 && env.held.is_some() {
            moves.extend((!asleep).then_some(Move::Sleep));
            moves.extend([0, 1].map(Move::Fail));
            moves.push(Move::Publish);
        }
        if w.budget.changes > 0 && env.servers.iter().all(|s| *s == env.file) {
            moves.push(Move::Rotate);
        }
        let stale = (0..3).filter(|s| env.servers[usize::from(*s)] != env.file);
        moves.extend(stale.map(Move::Load));
    }

    fn apply_external(w: &mut World<Self>, cfg: &Cfg, mv: &Move, _: &mut dyn Rng) -> Option<(NodeIx, ())> {
        let (env, m) = (&mut w.env, cfg.mutant);
        match *mv {
            Move::Clocks(n) => env.clocks = Some(n),
            Move::Ask(edge) => env.ask(m, usize::from(edge)),
            Move::Wake(edge) => {
                env.awake = true;
                env.renew(m, usize::from(edge));
            }
            Move::Tick(ms) => {
                w.budget.fires -= 1;
                env.pass(m, env.now_ms + ms);
            }
            Move::Sleep => {
                w.budget.drops -= 1;
                (env.awake, env.due_ms) = (false, None);
            }
            Move::Fail(edge) => {
                w.budget.drops -= 1;
                env.failed = Some(edge);
            }
            Move::Rotate => {
                w.budget.changes -= 1;
                let (old, rotated) = (env.file, env.file.rotated());
                env.file = match m {
                    Some(Mutant::SwitchesAtOnce) => {
                        let fresh = rotated.current + 1;
                        Epochs { previous: Some(old.current), current: fresh, next: Some(fresh + 1) }
                    }
                    Some(Mutant::ForgetsPrevious) => Epochs { previous: None, ..rotated },
                    _ => rotated,
                };
            }
            Move::Load(server) => env.servers[usize::from(server)] = env.file,
            Move::Publish => {
                w.budget.drops -= 1;
                env.version = 2;
            }
        }
        None
    }
}

/// Returns the world before any grant is requested.
#[must_use]
pub fn world(_: &Cfg, budget: Budget) -> World<Grants> {
    let first = Epochs::FIRST;
    let env = Grants {
        clocks: None,
        now_ms: 10_000_000,
        file: first,
        servers: [first; 3],
        failed: None,
        version: 1,
        held: None,
        first: None,
        awake: false,
        due_ms: None,
        wrongly_renewed: false,
        asks: 0,
        epochs: [0; 2],
    };
    World::new(env, Vec::new(), budget)
}

/// Rules of the model of grants, checked in its reachable states.
pub const RULES: &[Rule<Grants>] = &[
    Rule::always(
        "a grant is taken neither before its issue nor after its end, but for the clocks' skew",
        |c: &Cfg, w| {
            let (now_ms, Some(g)) = (w.env.clock(CN), w.env.opened()) else { return true };
            let timely = now_ms + SKEW_MS >= g.issued_ms && now_ms < g.expires_ms;
            timely || !w.env.is_taken(c.mutant, &client(0), |_| {})
        },
    ),
    Rule::always("a good grant is taken, whatever clocks and keys differ within bounds", |c: &Cfg, w| {
        let (Some(g), Some(sealed)) = (w.env.opened(), &w.env.held) else { return true };
        let now_ms = w.env.clock(CN);
        let good = now_ms + SKEW_MS >= g.issued_ms && now_ms < g.expires_ms && w.env.is_near(sealed);
        !good || w.env.is_taken(c.mutant, &client(0), |_| {})
    }),
    Rule::always("another client, a changed grant, a request without K_d get nothing", |c: &Cfg, w| {
        let stolen = w.env.is_taken(c.mutant, &client(1), |_| {});
        let forged = w.env.is_taken(c.mutant, &client(0), |g| g.version = VersionId::numbered(9))
            || w.env.is_taken(c.mutant, &client(0), |g| g.download_key = PublicKey::numbered(9))
            || w.env.is_taken(c.mutant, &client(0), |g| g.expires_ms += 3_600_000);
        let renewed =
            |key, proven| EDGES.into_iter().any(|e| matches!(w.env.renewal(c.mutant, e, key, proven), Some(Ok(_))));
        !stolen && !forged && !renewed(client(1), true) && !renewed(client(0), false)
    }),
    Rule::always("a renewal keeps download, client, key, version and ceiling", |_, w| {
        let (Some(g), Some(first)) = (w.env.opened(), w.env.first.clone()) else { return true };
        g == Grant { issued_ms: g.issued_ms, expires_ms: g.expires_ms, ..first }
    }),
    Rule::always("nothing is renewed too late, or into another version", |_, w| !w.env.wrongly_renewed),
    Rule::always("a client that is on and reaches an edge always holds a grant that is taken", |_, w| {
        let Some(sealed) = w.env.held.as_ref().filter(|_| w.env.awake) else { return true };
        !w.env.is_near(sealed) || w.env.is_taken(None, &client(0), |_| {})
    }),
    Rule::always("between servers one rotation apart there is no gap", |_, w| {
        let all = &w.env.servers;
        all.iter().all(|a| all.iter().all(|b| b.opens(a.current)))
    }),
    Rule::sometimes("a grant of the first epoch is renewed in the third", |_, w| w.env.epochs == [1, 3]),
];
