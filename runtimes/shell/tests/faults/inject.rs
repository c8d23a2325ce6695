//! One fault: injects it, holds it while clients download, lifts it, and checks that all works again by itself.

use super::kinds::{Case, Fault, Random, Role};
use super::net::{Download, Net, OnFailure, PATIENCE, POLL_EVERY, SERVERS, signal};
use super::preload::{Call, ENOSPC, NEVER, Order, SHORT};
use std::thread::sleep;
use std::time::{Duration, Instant};
use swarmedge_cli::bench::crash::compare::Delivered;
use swarmedge_cli::demo::network::Server;
use swarmedge_ground::error::Error;
use swarmedge_ledger::Database;

/// Shortest duration of a fault.
const LASTS: Duration = Duration::from_secs(4);
/// Longest wait for a call to be hit, after which the fault is lifted and does not count.
const HITS_WITHIN: Duration = Duration::from_secs(25);
/// Longest wait for `/healthz` to give the reason.
const SAID_WITHIN: Duration = Duration::from_secs(60);
/// Interval at which a process is made to read its files again, where the fault needs that.
const NUDGE_EVERY: Duration = Duration::from_secs(1);

/// Result of an injected fault.
pub(crate) struct Report {
    /// Number of calls that it hit, or 1 for a signal.
    pub(crate) hits: u64,
    /// One line about it.
    pub(crate) line: String,
    /// The downloads during and after it.
    pub(crate) delivered: Vec<Delivered>,
}

/// A fault under way.
struct Injection<'a> {
    net: &'a mut Net,
    role: Role,
    fault: Fault,
    /// Whether only one or two calls fail.
    is_once: bool,
    /// The downloader that it hits, for that role.
    victim: Option<Download>,
}

/// Returns the server whose `/healthz` tells of a lasting fault, and the text that it shows.
fn reason_of(role: Role, fault: Fault) -> Option<(Role, &'static str)> {
    Some(match (role, fault) {
        (_, Fault::Call(Call::Write, SHORT)) => return None,
        (Role::Edge, Fault::Call(Call::Write | Call::Sync, _)) => (Role::Edge, "edge's spool: cannot write "),
        (Role::Cn, Fault::Call(Call::Write | Call::Sync, _)) => (Role::Cn, "CN's spool: cannot write "),
        (Role::Ledger, Fault::Call(Call::Write | Call::Sync, _)) => (Role::Ledger, "ledger: cannot store records: "),
        (Role::Edge, Fault::Call(Call::Open, _)) => (Role::Edge, "edge's catalogue: "),
        (Role::Dn, Fault::Kill) => (Role::Cn, "CN's introductions: no DN is connected"),
        (Role::Ledger, Fault::Kill) => (Role::Cn, "cn's link to the ledger: "),
        (Role::Edge | Role::Cn, Fault::Ahead | Fault::Behind) => (Role::Cn, "CN's clock: it differs by "),
        _ => return None,
    })
}

/// Injects a fault into a process of a deployment and checks everything that must hold during and after it.
pub(crate) fn inject(net: &mut Net, (role, fault): Case, random: &mut Random) -> Result<Report, Error> {
    let free_before = net.given_away().unwrap_or(0);
    let victim = if role == Role::Downloader { Some(net.begin(true)?) } else { None };
    let is_once = matches!(fault, Fault::Call(..)) && random.below(4) == 0;
    let mut injection = Injection { net, role, fault, is_once, victim };
    injection.strike(random);
    let began = Instant::now();
    let mut traffic = match injection.victim.take() {
        Some(victim) => victim,
        None => injection.net.begin(false)?,
    };
    let held = injection.hold(&traffic, began);
    injection.lift(&mut traffic)?;
    let (hits, said) = held?;
    let lasted = began.elapsed();
    let on_failure = match (role, fault) {
        (Role::Downloader, Fault::Call(_, ENOSPC)) => OnFailure::Waits,
        (Role::Downloader, Fault::Call(..)) => OnFailure::AsksAgain,
        _ => OnFailure::Fails,
    };
    let mut downloads = vec![];
    let delivered = net.finish(&mut traffic, on_failure)?;
    let asked_again = traffic.asked_again;
    downloads.push((traffic, delivered));
    let recovered = recover(net, &mut downloads)?;
    if role == Role::Seeder && fault == Fault::Kill {
        let guid = net.seeder.status()?.guid;
        downloads.iter_mut().for_each(|(_, d)| d.cut_uploaders.push(guid.clone()));
    }
    downloads[0].1.downloader_cut = role == Role::Downloader && fault == Fault::Kill;
    let free = if role == Role::Edge && matches!(fault, Fault::Call(..)) {
        net.given_away().unwrap_or(0).saturating_sub(free_before)
    } else {
        0
    };
    let delivered = settle(net, downloads, free)?;
    let mut line = format!("lasted {lasted:.1?}, hit {hits}, peers again after {recovered:.1?}");
    if is_once {
        line += ", once";
    }
    if let Some(said) = said {
        line += &format!(", healthz: {said}");
    }
    if asked_again {
        line += ", asked for again";
    }
    let peers: u64 = delivered.iter().map(|d| d.peer_bytes).sum();
    let edge: u64 = delivered.iter().map(|d| d.edge_bytes).sum();
    line += &format!(", {} downloads right: {edge} bytes of the edge, {peers} of peers", delivered.len());
    Ok(Report { hits, line, delivered })
}

impl Injection<'_> {
    /// Returns the name of the process's control file.
    fn name(&self, traffic: Option<&Download>) -> String {
        let victim = self.victim.as_ref().or(traffic).filter(|_| self.role == Role::Downloader);
        victim.map_or_else(|| self.role.name().to_owned(), |v| v.client.name.clone())
    }

    fn server(&self) -> Option<Server> {
        SERVERS.iter().find(|(role, _)| *role == self.role).map(|(_, server)| *server)
    }

    fn process_id(&self, traffic: Option<&Download>) -> u32 {
        match self.role {
            Role::Seeder => self.net.seeder.id(),
            Role::Downloader => self.victim.as_ref().or(traffic).map_or(0, |v| v.client.id()),
            Role::Edge | Role::Ledger | Role::Cn | Role::Dn | Role::Stun => {
                self.server().and_then(|server| self.net.network.id_of(server)).unwrap_or(0)
            }
        }
    }

    /// Begins the fault.
    fn strike(&mut self, random: &mut Random) {
        let name = self.name(None);
        let hours = 1 + random.below(11);
        let by_ms = i64::try_from(hours * 3_600_000).unwrap_or(0);
        match self.fault {
            Fault::Call(call, error) => {
                let dir = self.net.network.dir.display();
                let path = match (self.role, call) {
                    (_, Call::Open | Call::Rename) => format!("{dir}/"),
                    (Role::Dn | Role::Stun, _) => format!("{dir}/logs/"),
                    (Role::Seeder | Role::Downloader, _) => format!("{dir}/clients/{name}/"),
                    _ => format!("{dir}/{name}/"),
                };
                // files are opened and named seldom
                let many = matches!(call, Call::Write | Call::Sync | Call::Socket);
                let first = if self.is_once && many { random.below(3) } else { 0 };
                let end = if self.is_once { first + 1 + random.below(2) } else { NEVER };
                self.net.control(&name).arm(&Order { calls: &[call], error, numbers: first..end, path: &path });
            }
            Fault::Kill => match (self.server(), &mut self.victim) {
                (Some(server), _) => self.net.network.kill(server),
                (None, Some(victim)) => victim.client.kill(),
                (None, None) => self.net.seeder.kill(),
            },
            Fault::Stop => signal(self.process_id(None), "-STOP"),
            Fault::Ahead => self.net.control(&name).shift_clock(by_ms),
            Fault::Behind => self.net.control(&name).shift_clock(-by_ms),
        }
    }

    fn hits(&self, name: &str) -> u64 {
        match self.fault {
            Fault::Call(..) => self.net.control(name).failed(),
            Fault::Ahead | Fault::Behind => self.net.control(name).clock_reads(),
            Fault::Kill | Fault::Stop => 1,
        }
    }

    /// Makes a process do what the fault concerns, where downloads alone do not.
    fn nudge(&mut self, traffic: &Download) -> Result<(), Error> {
        let opens = matches!(self.fault, Fault::Call(Call::Open, _));
        let logs = matches!(self.fault, Fault::Call(Call::Write, _)) && matches!(self.role, Role::Dn | Role::Stun);
        // a client would end by SIGHUP
        if self.server().is_some() && (opens || logs) {
            signal(self.process_id(Some(traffic)), "-HUP");
        }
        if self.role == Role::Edge && opens { self.net.publish_again() } else { Ok(()) }
    }

    /// Holds the fault until it has hit, and `/healthz` has told of it where it must. Returns the number of hits, and
    /// what was said.
    fn hold(&mut self, traffic: &Download, began: Instant) -> Result<(u64, Option<String>), Error> {
        let reason = reason_of(self.role, self.fault).filter(|_| !self.is_once);
        let name = self.name(Some(traffic));
        let (mut said, mut nudged) = (None, None);
        loop {
            if nudged.is_none_or(|at: Instant| at.elapsed() >= NUDGE_EVERY) {
                self.nudge(traffic)?;
                nudged = Some(Instant::now());
            }
            // each question is a connection that the process accepts, or cannot accept
            let asked = self.net.reasons(self.role);
            if said.is_none()
                && let Some((whom, text)) = reason
            {
                let told = if whom == self.role { asked } else { self.net.reasons(whom) };
                said = told.into_iter().flatten().find(|line| line.contains(text));
            }
            let (hits, lasted) = (self.hits(&name), began.elapsed());
            let is_told = reason.is_none() || said.is_some();
            if hits > 0 && is_told && lasted >= LASTS || hits == 0 && lasted > HITS_WITHIN {
                return Ok((hits, said));
            }
            if lasted > SAID_WITHIN {
                let heard: Vec<_> = SERVERS.iter().map(|(role, _)| (role.name(), self.net.reasons(*role))).collect();
                return Err(Error::failed(format!("/healthz does not say {reason:?}, but {heard:?}; hits {hits}")));
            }
            sleep(POLL_EVERY);
        }
    }

    /// Ends the fault; only what was killed is started again.
    fn lift(&mut self, traffic: &mut Download) -> Result<(), Error> {
        let name = self.name(Some(traffic));
        let server = self.server();
        match self.fault {
            Fault::Call(..) | Fault::Ahead | Fault::Behind => self.net.control(&name).disarm(),
            Fault::Stop => signal(self.process_id(Some(traffic)), "-CONT"),
            Fault::Kill => {
                let Net { network, seeder, interrupt, program, .. } = &mut *self.net;
                match (server, self.role) {
                    (Some(server), _) => network.start(server, interrupt)?,
                    (None, Role::Seeder) => seeder.restart(network, program, interrupt)?,
                    (None, _) => traffic.client.restart(network, program, interrupt)?,
                }
            }
        }
        Ok(())
    }
}

/// Downloads as new clients until one gets bytes from a peer; then every server must be well. Returns how long the
/// first took.
fn recover(net: &mut Net, downloads: &mut Vec<(Download, Delivered)>) -> Result<Duration, Error> {
    let began = Instant::now();
    loop {
        let mut download = net.begin(false)?;
        let delivered = net.finish(&mut download, OnFailure::Fails)?;
        let has_peers = delivered.peer_bytes > 0;
        downloads.push((download, delivered));
        net.network.expect_running()?;
        if has_peers {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::failed(format!("no download with peers in {:.0?}", began.elapsed())));
        }
    }
    let recovered = began.elapsed();
    let until = Instant::now() + PATIENCE;
    loop {
        let all: Vec<_> = SERVERS.iter().map(|(role, _)| (role.name(), net.reasons(*role))).collect();
        if all.iter().all(|(_, reasons)| reasons.as_ref().is_some_and(Vec::is_empty)) {
            return Ok(recovered);
        }
        if Instant::now() > until {
            return Err(Error::failed(format!("/healthz still says {all:?}")));
        }
        sleep(POLL_EVERY);
    }
}

/// Waits until the ledger is right about all downloads, then ends their clients. Not more than `free` bytes in all may
/// be missing there, which the edge says it has given away.
fn settle(net: &mut Net, downloads: Vec<(Download, Delivered)>, free: u64) -> Result<Vec<Delivered>, Error> {
    let database: Database = net.network.dir.join("ledger/ledger.sqlite").into();
    let (mut clients, mut delivered): (Vec<_>, Vec<_>) = downloads.into_iter().unzip();
    delivered.iter_mut().for_each(|d| d.given_away = free);
    let until = Instant::now() + PATIENCE;
    loop {
        let mut wrong = Vec::new();
        for client in &mut clients {
            let left = client.client.status()?.usage_unreported;
            if left > 0 {
                wrong.push(format!("{} has {left} records that are not acknowledged", client.client.name));
            }
        }
        let mut missing = 0u64;
        for d in &delivered {
            let (figures, contradictions) = d.compare::<crate::Rt>(&database)?;
            wrong.extend(contradictions.into_iter().map(|what| format!("download {}: {what}", d.download)));
            missing += d.edge_bytes.saturating_sub(figures.edge);
        }
        if missing > free {
            wrong
                .push(format!("{missing} bytes of the edge are missing in the ledger, which says it gave {free} away"));
        }
        if wrong.is_empty() {
            break;
        }
        if Instant::now() > until {
            return Err(Error::failed(format!("the books are wrong: {}", wrong.join("; "))));
        }
        sleep(POLL_EVERY);
    }
    clients.into_iter().for_each(|client| net.forget(client));
    Ok(delivered)
}
