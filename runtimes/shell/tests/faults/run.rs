//! A whole run: several deployments, each with a thread that takes faults from a common list, and the table at the end.

use super::inject::{Report, inject};
use super::kinds::{Case, Fault, KINDS, Random, Role, cases, plan};
use super::net::Net;
use super::preload::{self, Call, ENOSPC};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use swarmedge_cli::bench::crash::compare::Delivered;
use swarmedge_ground::error::Error;
use swarmedge_ledger::Database;

/// Deployments side by side, and in the short run.
const NETS: usize = 5;
const NETS_SHORT: usize = 2;
/// Injections of a case that hit nothing, after which the run fails.
const MISSES_MAX: u32 = 3;
/// The faults of the short run: a disk, a kill, a clock and a client's disk.
const SHORT_RUN: [Case; 4] = [
    (Role::Edge, Fault::Call(Call::Write, ENOSPC)),
    (Role::Cn, Fault::Kill),
    (Role::Seeder, Fault::Ahead),
    (Role::Downloader, Fault::Call(Call::Sync, ENOSPC)),
];

/// A fault of the list: its number, its case, and how often it has hit nothing.
#[derive(Clone, Copy, Debug)]
struct Task {
    number: usize,
    case: Case,
    misses: u32,
}

/// Results of a run, shared by its threads.
#[derive(Default)]
struct Tally {
    todo: Vec<Task>,
    /// Numbers of faults injected, and of those that hit a call, by case.
    counts: BTreeMap<Case, (u32, u32)>,
    failures: Vec<String>,
    downloads: usize,
}

struct Run {
    seed: u64,
    all: usize,
    began: Instant,
    tally: Mutex<Tally>,
}

impl Run {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, text: &str) {
        let s = self.began.elapsed().as_secs();
        eprintln!("{} {:02}:{:02} {text}", <crate::Rt as swarmedge_ground::rt::Rt>::NAME, s / 60, s % 60);
    }

    /// Injects faults into one deployment after another until the list is empty; a failure ends a deployment.
    fn work(&self, library: &Path) {
        while !self.tally().todo.is_empty() {
            let dir = tempfile::tempdir().expect("a directory");
            let failed = match Net::start(dir.path(), library) {
                Ok(mut net) => self.life(&mut net).err().map(|error| format!("{error}\n{}", net.tails())),
                Err(error) => Some(format!("a deployment does not start: {error}")),
            };
            if let Some(why) = failed {
                let kept = dir.keep();
                self.say(&format!("FAILED: {why}\nits files are kept in {}", kept.display()));
                self.tally().failures.push(why);
            }
        }
    }

    /// Injects faults into one deployment, then compares all its downloads with the ledger once more.
    fn life(&self, net: &mut Net) -> Result<(), Error> {
        let mut delivered: Vec<Delivered> = Vec::new();
        loop {
            let Some(mut task) = self.tally().todo.pop() else { break };
            let (role, fault) = task.case;
            let what = format!("{}/{}: {}: {}", task.number + 1, self.all, role.name(), fault.name());
            let mut random = Random(self.seed).split(task.number as u64, u64::from(task.misses));
            let counted = |hit: u32| {
                let mut tally = self.tally();
                let count = tally.counts.entry(task.case).or_default();
                *count = (count.0 + 1, count.1 + hit);
            };
            let report = inject(net, task.case, &mut random).map_err(|e| {
                counted(0);
                Error::failed(format!("{what}: {e}"))
            });
            let Report { hits, line, delivered: more } = report?;
            self.say(&format!("{what}: {line}"));
            counted(u32::from(hits > 0));
            self.tally().downloads += more.len();
            delivered.extend(more);
            if hits == 0 {
                task.misses += 1;
                if task.misses >= MISSES_MAX {
                    self.tally().failures.push(format!("{what}: hits nothing"));
                } else {
                    self.tally().todo.insert(0, task);
                }
            }
        }
        let database: Database = net.network.dir.join("ledger/ledger.sqlite").into();
        for d in &delivered {
            let (_, wrong) = d.compare::<crate::Rt>(&database)?;
            if !wrong.is_empty() {
                return Err(Error::failed(format!("in the end, of {}: {}", d.download, wrong.join("; "))));
            }
        }
        let unclean = net.stop();
        if unclean.is_empty() { Ok(()) } else { Err(Error::failed(unclean.join("; "))) }
    }
}

/// Returns the table of kinds by role: faults that hit, of those injected; `-` where a role cannot meet the kind.
fn table(counts: &BTreeMap<Case, (u32, u32)>) -> String {
    let head = Role::ALL.map(|role| format!("{:>11}", role.name())).concat();
    let mut text = format!("{:14}{head}\n", "fault");
    for (fault, name, roles) in KINDS {
        let cell = |role: Role| match counts.get(&(role, fault)) {
            Some((injected, hit)) => format!("{:>11}", format!("{hit}/{injected}")),
            None if roles.contains(&role) => format!("{:>11}", "0/0"),
            None => format!("{:>11}", "-"),
        };
        text += &format!("{name:14}{}\n", Role::ALL.map(cell).concat());
    }
    text
}

/// Returns the value of an environment variable as a number.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn downloads_with_peers_and_books_are_right_after_each_fault() {
    let wanted = std::env::var("SWARMEDGE_FAULTS").ok();
    let seed = number("SWARMEDGE_FAULTS_SEED").unwrap_or_else(swarmedge_ground::host::unix_ms);
    let mut list = match wanted.as_deref() {
        None => SHORT_RUN.to_vec(),
        Some("all") => plan(2 * cases().len(), &mut Random(seed)),
        Some(n) => plan(n.parse().expect("SWARMEDGE_FAULTS is a number or `all`"), &mut Random(seed)),
    };
    if let Ok(only) = std::env::var("SWARMEDGE_FAULTS_ONLY") {
        list.retain(|(role, fault)| format!("{}: {}", role.name(), fault.name()).contains(&only));
    }
    let nets = if wanted.is_none() { NETS_SHORT } else { NETS };
    let nets = number("SWARMEDGE_FAULTS_NETS").map_or(nets, |n| usize::try_from(n).expect("few"));
    let todo = list.iter().enumerate().rev().map(|(number, case)| Task { number, case: *case, misses: 0 }).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let Some(library) = preload::compiled(dir.path()) else { return };
    let tally = Mutex::new(Tally { todo, ..Tally::default() });
    let run = Run { seed, all: list.len(), began: Instant::now(), tally };
    run.say(&format!("seed {seed}: {} faults in {nets} deployments", list.len()));
    std::thread::scope(|threads| {
        for _ in 0..nets {
            threads.spawn(|| run.work(&library));
        }
    });
    let tally = run.tally();
    let (injected, hit) = tally.counts.values().fold((0, 0), |(a, b), (injected, hit)| (a + injected, b + hit));
    run.say(&format!(
        "{injected} faults, {hit} hit, {} downloads, seed {seed}\n{}",
        tally.downloads,
        table(&tally.counts)
    ));
    assert!(tally.failures.is_empty(), "seed {seed}: {} faults: {:#?}", tally.failures.len(), tally.failures);
}
