//! The script of a campaign: its deployment and its steps, as lines of text. A script gives the same run however the
//! draws of campaigns change.

use super::step::{self, Step};
use crate::nat::Kind;
use crate::scenario::{Name, Object, Plan, Rig as _, Role};
use crate::sim::access::Access;
use crate::sim::rig::SimRig;
use std::fmt;
use std::str::FromStr;

/// A deployment, and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Seed of the machines' own draws.
    pub seed: u64,
    /// Number of nodes of each role.
    pub plan: Plan,
    /// Send rate of a client in bytes per second.
    pub rate: u64,
    /// Time at which the faults end and the deployment must converge, in milliseconds.
    pub faults_until_ms: u64,
    /// Objects that are published at the start.
    pub objects: Vec<Object>,
    /// Kinds of NAT of the clients; empty if all have public addresses.
    pub nats: Vec<Kind>,
    /// Steps in order, each with its time in milliseconds.
    pub steps: Vec<(u64, Step)>,
}

impl Script {
    /// Returns the deployment with all servers running, and all objects published.
    #[must_use]
    pub fn deployment(&self) -> SimRig {
        let mut rig = SimRig::new(&self.plan, self.seed);
        rig.cfg.rate = self.rate;
        self.objects.iter().for_each(|object| rig.publish(object));
        let client = |n| rig.cfg.find(Name(Role::Client, n));
        let clients: Vec<_> = (0..self.plan.clients).filter_map(client).zip(self.nats.iter().copied()).collect();
        if !clients.is_empty() {
            rig.world.env.access = Access::of(clients);
        }
        rig
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { edges, cns, dns, ledgers, clients } = self.plan;
        writeln!(f, "seed {}\nplan {edges} {cns} {dns} {ledgers} {clients}", self.seed)?;
        writeln!(f, "rate {}\nfaults-until {}", self.rate, self.faults_until_ms)?;
        for o in &self.objects {
            writeln!(f, "object {} {} {} {}", o.path, o.size, o.edge_rate, o.upload_rate)?;
        }
        for kind in &self.nats {
            writeln!(f, "nat {}", kind.name())?;
        }
        self.steps.iter().try_for_each(|(at_ms, step)| writeln!(f, "{at_ms} {step}"))
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plan = Plan { edges: 0, cns: 0, dns: 0, ledgers: 0, clients: 0 };
        let mut script = Self {
            seed: 0,
            plan,
            rate: 0,
            faults_until_ms: 0,
            objects: Vec::new(),
            nats: Vec::new(),
            steps: Vec::new(),
        };
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            script.read(line).ok_or_else(|| format!("no line of a campaign's script: {line}"))?;
        }
        if script.plan.clients == 0 || script.rate == 0 {
            return Err("a campaign's script needs a plan with clients, and a rate".into());
        }
        Ok(script)
    }
}

impl Script {
    fn read(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words {
            ["seed", n] => self.seed = n.parse().ok()?,
            ["plan", edges, cns, dns, ledgers, clients] => {
                let [edges, cns, dns, ledgers, clients] = [edges, cns, dns, ledgers, clients].map(|n| n.parse().ok());
                let (edges, cns, dns) = (edges?, cns?, dns?);
                self.plan = Plan { edges, cns, dns, ledgers: ledgers?, clients: clients? };
            }
            ["rate", n] => self.rate = n.parse().ok()?,
            ["faults-until", n] => self.faults_until_ms = n.parse().ok()?,
            ["object", path, size, edge_rate, upload_rate] => {
                let [size, edge_rate, upload_rate] = [size, edge_rate, upload_rate].map(|n| n.parse().ok());
                let path = step::path(path)?;
                self.objects.push(Object {
                    path,
                    size: size?,
                    edge_rate: edge_rate?,
                    upload_rate: upload_rate?,
                    uploads_max: 0,
                });
            }
            ["nat", kind] => self.nats.push(kind.parse().ok()?),
            [at_ms, ..] => {
                let rest = line.get(at_ms.len()..)?;
                self.steps.push((at_ms.parse().ok()?, rest.parse().ok()?));
            }
            [] => {}
        }
        Some(())
    }
}
