//! Campaigns: random deployments under random faults. In the first phase faults happen, and safety must hold at every
//! moment. In the second they end, every node is restarted, and the deployment must converge: every download complete
//! with the right bytes, the ledger in agreement with every client, the directories of the DNs correct. The seed
//! determines the whole campaign.
#![expect(clippy::wildcard_enum_match_arm, reason = "it looks for one kind among many")]

use super::access::Access;
use super::machines::Node;
use super::rig::SimRig;
use super::{Event, Move, Mutant, Net};
use crate::nat::Kind;
use crate::rng::Seeded;
use crate::scenario::{ClientOptions, Command, HONEST, Name, Object, Plan, Progress, Rig, Role};
use crate::sim::keys;
use crate::world::{Act, Lane, NodeIx, Way};
use std::collections::BTreeSet;
use std::time::Duration;
use swarmedge_core::accounting::settlement::Book;
use swarmedge_core::ids::{DownloadId, PublicKey};
use swarmedge_core::machine::{Rng as _, Time};
use swarmedge_core::role::client::io::{DownloadState, DownloadStatus};
use swarmedge_core::wire::records::{LedgerRecord, Side, UsageRecord, UsageState};

/// Result of the campaign of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Number of faults that happened.
    pub faults: u32,
    /// Number of clients in the deployment.
    pub clients: u8,
    /// Duration of the campaign in simulated time.
    pub took: Duration,
    /// Description of the rule that failed; `None` if all held.
    pub failure: Option<String>,
}

/// Duration of the first phase, in which faults happen.
const FAULTS_FOR: Duration = Duration::from_secs(20);
/// Time limit for the deployment to converge after the faults.
const CONVERGES_WITHIN: Duration = Duration::from_secs(600);
/// Paths of the objects; the size of each in bytes is drawn from `SIZES`.
const PATHS: [&str; 2] = ["one", "two"];
const SIZES: [u64; 6] = [1, 16 * 1024, 64 * 1024 + 1, (2 << 20) + 7, 4 << 20, 16 << 20];

struct Campaign {
    rig: SimRig,
    plan: Plan,
    dice: Seeded,
    /// Kinds of faults enabled for this seed, as bits.
    kinds: u32,
    /// Chance of a fault every 100 ms, in thousandths.
    chance: u32,
    down: Vec<(Time, Name)>,
    faults: u32,
    /// Random source for which disks lose pieces, and which pieces.
    forgets: Seeded,
}

/// Plays the campaign of a seed, with a seeded defect if any.
#[must_use]
pub fn run(seed: u64, mutant: Option<Mutant>) -> Outcome {
    let mut c = Campaign::new(seed);
    c.rig.cfg.mutant = mutant;
    let failure = c.play().err();
    Outcome { faults: c.faults, clients: c.plan.clients, took: c.rig.world.now.since(Time::ZERO), failure }
}

impl Campaign {
    fn new(seed: u64) -> Self {
        let mut dice = Seeded::new(seed ^ 0x5eed);
        let mut some = |n| u8::try_from(1 + dice.below(n)).unwrap_or(1);
        let plan = Plan { edges: some(2), cns: some(2), dns: some(2), ledgers: 1, clients: 1 + some(6) };
        let mut rig = SimRig::new(&plan, seed);
        for path in PATHS {
            let size = SIZES[dice.below(6) as usize];
            let rate = |d: &mut Seeded| u64::from(d.below(3)) << 19;
            rig.publish(&Object {
                path,
                size,
                edge_rate: rate(&mut dice),
                upload_rate: rate(&mut dice),
                uploads_max: 0,
            });
        }
        if seed % 2 == 1 {
            // separate dice, so that NATs do not change the rest of a seed
            let mut kinds = Seeded::new(seed ^ 0x4e41_5473);
            let clients: Vec<_> = (0..plan.clients).filter_map(|n| rig.cfg.find(Name(Role::Client, n))).collect();
            let kind = |d: &mut Seeded| Kind::ALL[d.below(12) as usize];
            rig.world.env.access = Access::of(clients.into_iter().map(|ix| (ix, kind(&mut kinds))));
        }
        let kinds = u32::try_from(dice.next() & 0xfff).unwrap_or(0);
        let chance = 20 + dice.below(300);
        // separate dice again
        let forgets = Seeded::new(seed ^ 0x0066_6f72_6765_7473);
        Self { rig, plan, dice, kinds, chance, down: Vec::new(), faults: 0, forgets }
    }

    fn play(&mut self) -> Result<(), String> {
        let end = Time::ZERO.after(FAULTS_FOR);
        let mut starts: Vec<u8> = (0..self.plan.clients).collect();
        while self.rig.world.now < end {
            if !starts.is_empty() && self.dice.chance(200) {
                let client = starts.remove(0);
                let options =
                    ClientOptions { uploads: self.dice.chance(800), corrupts: self.dice.chance(150), ..HONEST };
                self.rig.start_client(client, options);
                self.want(client);
            }
            self.rig.run_until(Duration::from_millis(100), &mut |_| false);
            self.come_back();
            if self.dice.chance(self.chance) {
                self.fault();
            }
            self.safe()?;
        }
        for client in starts {
            self.rig.start_client(client, HONEST);
        }
        self.converge()
    }

    /// Commands the client to download every object that it has not completed.
    fn want(&mut self, client: u8) {
        for path in PATHS {
            if self.rig.status(client, path).is_some_and(|s| s.progress == Progress::Completed) {
                continue;
            }
            self.rig.command(client, Command::Get(path));
        }
    }

    /// Commands clients to download again the objects that their disks have lost, as their users would.
    fn want_again(&mut self) {
        let forgotten = |c: &mut Self, n: u8| PATHS.iter().any(|path| c.rig.status(n, path).is_none());
        let clients: Vec<u8> = (0..self.plan.clients).filter(|n| forgotten(self, *n)).collect();
        clients.into_iter().for_each(|client| self.want(client));
    }

    /// Restarts the crashed nodes whose random downtime is over.
    fn come_back(&mut self) {
        let now = self.rig.world.now;
        let (due, later) = std::mem::take(&mut self.down).into_iter().partition(|(at, _)| *at <= now);
        self.down = later;
        let due: Vec<(Time, Name)> = due;
        for (_, name) in due {
            self.forget(name);
            self.rig.restart(name);
        }
    }

    /// Makes the disk of a stopped client lose some of its pieces, at random.
    fn forget(&mut self, name: Name) {
        let client = self.rig.cfg.find(name).filter(|_| name.0 == Role::Client);
        let Some(ix) = client.filter(|_| self.forgets.chance(500)) else { return };
        let pieces = self.rig.world.env.disks.get(&ix).into_iter().flat_map(|disk| &disk.pieces);
        let pieces: Vec<_> = pieces.flat_map(|(version, of_it)| of_it.keys().map(|piece| (*version, *piece))).collect();
        let share = self.forgets.below(1_000);
        for (version, piece) in pieces {
            if self.forgets.chance(share) {
                self.faults += 1;
                self.rig.happen(Move::Forget(ix, version, piece));
            }
        }
    }

    fn is_up(&self, name: Name) -> bool {
        self.rig.cfg.find(name).is_some_and(|ix| self.rig.world.node(ix).is_some())
    }

    fn any(&mut self, role: Role) -> Option<Name> {
        let all: Vec<Name> = self.rig.cfg.names.iter().copied().filter(|n| n.0 == role && self.is_up(*n)).collect();
        self.pick(&all)
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let n = u32::try_from(all.len()).unwrap_or(0);
        if n == 0 { None } else { all.get(self.dice.below(n) as usize).copied() }
    }

    fn fault(&mut self) {
        let kind = self.dice.below(12);
        if self.kinds & (1 << kind) == 0 || self.strike(kind).is_none() {
            return;
        }
        self.faults += 1;
    }

    /// Causes one fault of this kind; `None` if there is no node, connection or transfer that it could affect.
    fn strike(&mut self, kind: u32) -> Option<()> {
        let path = self.pick(&PATHS)?;
        match kind {
            0 => self.crash(Role::Client)?,
            1 => self.crash(Role::Edge)?,
            2 => self.crash(Role::Cn)?,
            3 => self.crash(Role::Dn)?,
            4 => self.crash(Role::Ledger)?,
            5 | 6 => {
                let links: Vec<u64> =
                    self.rig.world.env.links.iter().filter(|(_, l)| l.open).map(|(&id, _)| id).collect();
                let id = self.pick(&links)?;
                self.rig.happen(if kind == 5 { Move::Break(id) } else { Move::BreakHalf(id) });
            }
            7 => self.tell(if self.dice.clone().chance(500) { Command::Pause(path) } else { Command::Resume(path) })?,
            8 => {
                let on = self.dice.chance(500);
                self.tell(Command::Uploads(on))?;
            }
            9 => self.tell(Command::Cancel(path))?,
            10 => self.transfer(Way::Fault("break"))?,
            _ => self.transfer(Way::Fault("corrupt"))?,
        }
        Some(())
    }

    fn tell(&mut self, command: Command) -> Option<()> {
        let Name(_, client) = self.any(Role::Client)?;
        self.rig.command(client, command);
        Some(())
    }

    fn crash(&mut self, role: Role) -> Option<()> {
        let name = self.any(role)?;
        self.rig.crash(name);
        let away = Duration::from_millis(u64::from(self.dice.below(5_000)));
        self.down.push((self.rig.world.now.after(away), name));
        Some(())
    }

    /// Delivers a random transfer with the fault `way`; `None` if there is no transfer.
    fn transfer(&mut self, way: Way) -> Option<()> {
        let world = &self.rig.world;
        let from_peer = |id: &u64| world.env.pulls.get(id).is_some_and(|p| p.link.is_some());
        let lanes: Vec<Lane> = world
            .under_way()
            .filter_map(|(lane, e)| match e {
                Event::Blocks(id) if way == Way::Fault("break") || from_peer(id) => Some(lane),
                _ => None,
            })
            .filter(|lane| {
                world.under_way().find(|(l, _)| l == lane).is_some_and(|(_, e)| matches!(e, Event::Blocks(_)))
            })
            .collect();
        let lane = self.pick(&lanes)?;
        self.rig.world.step(&self.rig.cfg, &Act::Deliver(lane, way), &mut self.dice);
        Some(())
    }

    /// Checks the safety rules, which hold at every moment.
    fn safe(&self) -> Result<(), String> {
        self.rig.world.nodes().for_each(|(_, node)| node.check());
        let env = &self.rig.world.env;
        let seen = &env.seen;
        let rules = [
            (!seen.served_unverified, "a client served what it had not made durable"),
            (!seen.believed, "a client served or placed what its disk had forgotten"),
            (!seen.misdelivered, "an introduction came to a client that it does not name"),
            (!seen.chosen_though_off, "a client whose user forbids uploads was chosen"),
            (seen.tainted.iter().all(|p| !seen.commits.contains_key(p)), "a piece with a wrong block was committed"),
            (seen.commits.values().all(|&n| n <= 1), "a piece was committed twice"),
        ];
        if let Some((_, what)) = rules.iter().find(|(holds, _)| !holds) {
            return Err(String::from(*what));
        }
        if let Some(intro) = env.unrecorded(true) {
            return Err(format!("a client was told of {intro:?}, of which there is no durable record"));
        }
        let sound = |s: &DownloadStatus| s.durable <= s.size && s.edge_bytes + s.peer_bytes <= s.size;
        match env.status.iter().find(|(_, s)| !sound(s)) {
            Some(((node, _), s)) => Err(format!("node {node} counts more than there is: {s:?}")),
            None => Ok(()),
        }
    }

    /// Plays the second phase: restarts every node and gets every object on every client.
    fn converge(&mut self) -> Result<(), String> {
        let names = self.rig.cfg.names.clone();
        for name in names {
            if !self.is_up(name) {
                self.rig.restart(name);
            }
        }
        self.rig.run_until(Duration::from_secs(1), &mut |_| false);
        for client in 0..self.plan.clients {
            self.want(client);
        }
        let end = self.rig.world.now.after(CONVERGES_WITHIN);
        loop {
            let left = self.unsettled();
            self.safe()?;
            match left {
                None => return Ok(()),
                Some(what) if self.rig.world.now >= end => return Err(what),
                Some(_) => {
                    self.want_again();
                    self.rig.run_until(Duration::from_millis(500), &mut |_| false);
                }
            }
        }
    }

    /// Returns the first reason why the deployment has not converged, as text; `None` once it has.
    fn unsettled(&mut self) -> Option<String> {
        for client in 0..self.plan.clients {
            for path in PATHS {
                let s = self.rig.status(client, path);
                let done = s.is_some_and(|s| s.progress == Progress::Completed && s.right);
                if !done {
                    return Some(format!("client{client} has not completed {path}: {s:?}"));
                }
            }
        }
        let env = &self.rig.world.env;
        // an object already in the cache is fetched from nobody
        let counted = |s: &DownloadStatus| [0, s.size].contains(&(s.edge_bytes + s.peer_bytes));
        let wrong = env
            .status
            .iter()
            .find(|(_, s)| s.state == DownloadState::Completed && !(counted(s) && ledger_agrees(env, s)));
        if let Some(((node, _), s)) = wrong {
            let record = s.download.and_then(|d| newest(env, d));
            return Some(format!("node {node} and the ledger differ: {s:?}; {record:?}"));
        }
        if let Some(intro) = self.rig.world.env.unrecorded(false) {
            return Some(format!("a client was told of {intro:?}, and the ledger was not"));
        }
        self.untrue_directory()
    }

    /// Returns a description of a DN's directory that does not list exactly the clients that share; `None` if all are
    /// correct.
    fn untrue_directory(&self) -> Option<String> {
        let world = &self.rig.world;
        for (path, object) in &world.env.objects {
            let shares = |(ix, node): (NodeIx, &Node)| match node {
                Node::Client(c, _) if c.session().uploads() => {
                    let holds = world.env.disks.get(&ix).and_then(|d| d.pieces.get(&object.version));
                    holds.filter(|p| !p.is_empty()).map(|_| keys::upload_key(ix))
                }
                _ => None,
            };
            let truth: BTreeSet<PublicKey> = world.nodes().filter_map(shares).collect();
            for (ix, node) in world.nodes() {
                let Node::Dn(dn) = node else { continue };
                let listed = dn.directory().listed(object.version);
                let listed: BTreeSet<PublicKey> =
                    listed.filter_map(|k| dn.directory().get(k)).map(|e| e.upload_key).collect();
                if listed != truth {
                    return Some(format!("node {ix} lists {listed:?} for {path}, but {truth:?} share it"));
                }
            }
        }
        None
    }
}

/// Returns the downloader's newest usage record of a download in the ledger's database.
fn newest(env: &Net, download: DownloadId) -> Option<&UsageRecord> {
    let all = env.database.values().filter_map(LedgerRecord::usage);
    let all = all.filter(|r| r.download == download && r.side == Side::Downloader);
    all.max_by_key(|r| r.seq)
}

fn ledger_agrees(env: &Net, s: &DownloadStatus) -> bool {
    let Some(record) = s.download.and_then(|d| newest(env, d)) else { return false };
    let peers: u64 = record.peers.iter().map(|p| p.bytes).sum();
    let book: Book = env.database.values().filter(|r| r.download() == s.download).cloned().collect();
    let bill = book.bill(keys::verify, 0);
    let fair = bill.peers_billed <= bill.peers_agreed && bill.peers_agreed <= s.peer_bytes;
    fair && (record.state, record.edge_bytes, peers) == (UsageState::Completed, s.edge_bytes, s.peer_bytes)
}
