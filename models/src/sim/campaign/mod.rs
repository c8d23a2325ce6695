//! Campaigns: random deployments under random faults. In the first phase users and operators act and faults happen, and
//! safety must hold at every moment. In the second they end, every node is restarted, and the deployment must converge:
//! every download complete with the right bytes, the ledger in agreement with every client, the directories of the DNs
//! correct. The seed determines the whole campaign. What happened is a [`Script`], which gives the same run again, also
//! after the draws have changed.

mod dice;
mod rules;
mod script;
mod step;

pub use script::Script;
pub use step::Step;

use super::Mutant;
use super::rig::SimRig;
use crate::nat::Kind;
use crate::rng::Seeded;
use crate::scenario::{Command, HONEST, Name, Object, Plan, Progress, Rig, Role};
use dice::Dice;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use step::PATHS;
use swarmedge_core::machine::{Rng as _, Time};

/// Result of a campaign.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Number of steps of each kind that happened, and of those that met a running transfer.
    pub kinds: BTreeMap<&'static str, (u32, u32)>,
    /// Number of faults and other disturbances among them.
    pub faults: u32,
    /// Duration of the campaign in simulated time.
    pub took: Duration,
    /// Description of the rule that failed; `None` if all held.
    pub failure: Option<String>,
    /// Deployment and steps of the run, from which it can be played again.
    pub script: Script,
}

/// Duration of the first phase, in which faults happen.
const FAULTS_FOR: Duration = Duration::from_secs(40);
/// Time limit for the deployment to converge after the faults.
const CONVERGES_WITHIN: Duration = Duration::from_secs(900);
/// Interval of the draws.
const EVERY: Duration = Duration::from_millis(100);
/// Sizes in bytes, and send rates of clients in bytes per second, of which each seed draws some.
const SIZES: [u64; 6] = [1, 16 * 1024, 64 * 1024 + 1, (2 << 20) + 7, 4 << 20, 16 << 20];
const UPLINKS: [u64; 4] = [1 << 17, 1 << 18, 1 << 20, 8 << 20];

struct Campaign {
    rig: SimRig,
    /// The deployment, and the steps that have happened.
    script: Script,
    /// Whether each download keeps its first grant, so that all of its bytes are counted under one id.
    exact: bool,
    kinds: BTreeMap<&'static str, (u32, u32)>,
    faults: u32,
}

/// Plays the campaign of a seed, with a seeded defect if any.
#[must_use]
pub fn run(seed: u64, mutant: Option<Mutant>) -> Outcome {
    let script = drawn(seed);
    let mut dice = Dice::new(seed, script.plan.clients);
    play(script, (mutant, false), |rig| dice.draw(rig))
}

/// Plays a script, with a seeded defect if any.
#[must_use]
pub fn replay(script: &Script, mutant: Option<Mutant>) -> Outcome {
    replayed(script, mutant, false)
}

/// Plays a script, and prints every step, and every input and output of a machine.
#[must_use]
pub fn trace(script: &Script) -> Outcome {
    replayed(script, None, true)
}

fn replayed(script: &Script, mutant: Option<Mutant>, traced: bool) -> Outcome {
    let mut steps = script.steps.iter().peekable();
    let due = |rig: &SimRig| {
        let now_ms = rig.world.now.0 / 1000;
        std::iter::from_fn(|| steps.next_if(|(at_ms, _)| *at_ms <= now_ms)).map(|(_, step)| *step).collect()
    };
    play(Script { steps: Vec::new(), ..script.clone() }, (mutant, traced), due)
}

/// Returns a script that still fails and has none of the steps of `script` that it can do without.
#[must_use]
pub fn shorten(script: &Script, mutant: Option<Mutant>) -> Script {
    let mut shortest = script.clone();
    let mut lot = shortest.steps.len().div_ceil(2);
    while lot > 0 {
        let mut from = 0;
        while from < shortest.steps.len() {
            let mut shorter = shortest.clone();
            shorter.steps.drain(from..(from + lot).min(shorter.steps.len()));
            if replay(&shorter, mutant).failure.is_some() {
                shortest = shorter;
            } else {
                from += lot;
            }
        }
        lot = if lot == 1 { 0 } else { lot.div_ceil(2) };
    }
    shortest
}

/// Draws the deployment of a seed.
fn drawn(seed: u64) -> Script {
    let mut dice = Seeded::new(seed ^ 0x5eed);
    let mut some = |n| u8::try_from(1 + dice.below(n)).unwrap_or(1);
    let plan = Plan { edges: some(2), cns: some(2), dns: some(2), ledgers: 1, clients: 1 + some(6) };
    let rate = UPLINKS[dice.below(4) as usize];
    let mut object = |path| {
        let size = SIZES[dice.below(6) as usize];
        Object { path, size, edge_rate: Dice::rate(&mut dice), upload_rate: Dice::rate(&mut dice), uploads_max: 0 }
    };
    let objects = PATHS.map(&mut object).to_vec();
    // odd seeds have NATs
    let nats = if seed % 2 == 1 { plan.clients } else { 0 };
    let nats = (0..nats).map(|_| Kind::ALL[dice.below(12) as usize]).collect();
    let faults_until_ms = u64::try_from(FAULTS_FOR.as_millis()).unwrap_or(u64::MAX);
    Script { seed, plan, rate, faults_until_ms, objects, nats, steps: Vec::new() }
}

fn play(script: Script, (mutant, traced): (Option<Mutant>, bool), due: impl FnMut(&SimRig) -> Vec<Step>) -> Outcome {
    let mut rig = script.deployment();
    (rig.cfg.mutant, rig.cfg.traced) = (mutant, traced);
    let mut c = Campaign { rig, script, exact: true, kinds: BTreeMap::new(), faults: 0 };
    // a failed assertion in a machine fails the campaign, and its script is kept
    let played = catch_unwind(AssertUnwindSafe(|| c.faults(due).and_then(|()| c.converge())));
    let failure = played.unwrap_or_else(|_| Err("a machine panicked (see above)".into())).err();
    let Campaign { rig, script, kinds, faults, .. } = c;
    Outcome { kinds, faults, took: rig.world.now.since(Time::ZERO), failure, script }
}

impl Campaign {
    /// Plays the first phase, with the steps that are due.
    fn faults(&mut self, mut due: impl FnMut(&SimRig) -> Vec<Step>) -> Result<(), String> {
        let end = Time::ZERO.after(Duration::from_millis(self.script.faults_until_ms));
        while self.rig.world.now < end {
            for step in due(&self.rig) {
                self.happen(step);
            }
            self.rig.run_until(EVERY, &mut |_| false);
            rules::safe(&self.rig)?;
        }
        Ok(())
    }

    /// Lets a step happen if it is possible, and writes it down.
    fn happen(&mut self, step: Step) {
        let (at_ms, met) = (self.rig.world.now.0 / 1000, step.meets_transfer(&self.rig));
        if self.rig.cfg.traced {
            println!("step {at_ms} {step}");
        }
        self.script.steps.push((at_ms, step));
        if step.happen(&mut self.rig).is_none() {
            self.script.steps.pop();
            return;
        }
        self.faults += u32::from(!step.is_usual());
        self.exact &= !step.may_regrant();
        let (all, meeting) = self.kinds.entry(step.kind()).or_default();
        *all += 1;
        *meeting += u32::from(met);
    }

    /// Commands the client to download every object that it has not completed.
    fn want(&mut self, client: u8) {
        for path in PATHS {
            if self.rig.status(client, path).is_none_or(|s| s.progress != Progress::Completed) {
                self.rig.command(client, Command::Get(path));
            }
        }
    }

    /// Commands clients to download again what their disks have lost or what has failed, as their users would.
    fn want_again(&mut self) {
        let progress = |c: &mut Self, n, path| c.rig.status(n, path).map(|s| s.progress);
        let lacks = |p: Option<Progress>| p.is_none_or(|p| matches!(p, Progress::Failed | Progress::Paused));
        let clients = 0..self.script.plan.clients;
        let lacking: Vec<u8> = clients.filter(|n| PATHS.iter().any(|path| lacks(progress(self, *n, path)))).collect();
        lacking.into_iter().for_each(|client| self.want(client));
    }

    /// Ends what operators and faults have begun: every object is published, no spool refuses writes, no client is in
    /// quarantine, every node runs.
    fn restore(&mut self) {
        self.rig.world.env.write_fails.clear();
        for name in self.rig.cfg.names.clone() {
            if self.rig.cfg.find(name).is_some_and(|ix| self.rig.world.node(ix).is_none()) {
                match name {
                    Name(Role::Client, n) if self.rig.never_ran(n) => self.rig.start_client(n, HONEST),
                    _ => self.rig.restart(name),
                }
            }
            match name {
                Name(Role::Edge, n) => self.rig.spool_refuses(n, false),
                Name(Role::Client, n) => self.rig.order_quarantine(n, false),
                Name(Role::Cn | Role::Dn | Role::Ledger, _) => {}
            }
        }
        for object in self.script.objects.clone() {
            self.rig.publish(&object);
        }
    }

    /// Plays the second phase: gets every object on every client.
    fn converge(&mut self) -> Result<(), String> {
        self.restore();
        self.rig.run_until(Duration::from_secs(1), &mut |_| false);
        for client in 0..self.script.plan.clients {
            self.want(client);
        }
        let end = self.rig.world.now.after(CONVERGES_WITHIN);
        loop {
            let left = rules::unsettled(&mut self.rig, self.script.plan.clients, self.exact);
            rules::safe(&self.rig)?;
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
}
