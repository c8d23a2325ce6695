//! Test bench for cells of the pair matrix: a lab, a deployment in it, and a seeder behind each kind of NAT.

use super::{Cell, Options, Part, Try};
use crate::cdn::{Cdn, Client};
use crate::delay::Delay;
use crate::lab::{Lab, Lossy};
use crate::latency::Latency;
use crate::plan::{Plan, Site};
use crate::run::Error;
use crate::{Expect, Kind, expected};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Size of each object in bytes.
pub(super) const OBJECT_LEN: usize = 8 * 1024 * 1024;
/// Limit of the edge's rate for one download, in bytes per second: the edge alone takes longer than a try may last.
const EDGE_RATE: u64 = 512 * 1024;
/// Time-out of a try.
const TRY_WITHIN: Duration = Duration::from_secs(15);
/// Time-out for a seeder's own download.
pub(super) const SEED_WITHIN: Duration = Duration::from_secs(30);
/// Time-out for a client to discover its NAT and open a session at the CN.
pub(super) const SETTLE_WITHIN: Duration = Duration::from_secs(5);
/// Time until a client's registration has reached the DN by way of its CN.
pub(super) const BE_LISTED: Duration = Duration::from_millis(200);

/// Lab, deployment and seeders. Fields are dropped in order, so that the processes end before the lab.
pub(super) struct Bench {
    /// One seeder for each kind of NAT, which runs as long as the bench; empty if the part of the measurement forces
    /// pairs.
    _seeders: Vec<Client>,
    _delays: Vec<Delay>,
    _latency: Option<Latency>,
    pub(super) cdn: Cdn,
    pub(super) lab: Lab,
    _dir: tempfile::TempDir,
}

/// Returns the kind of NAT that a site of kind `kind` pretends to be during discovery, when pairs are forced.
pub(super) fn disguise(kind: Kind) -> Kind {
    match kind {
        Kind::Symmetric | Kind::SymmetricSequential | Kind::UdpBlocked => Kind::PortRestricted,
        Kind::CgnatSymmetric => Kind::Cgnat,
        Kind::Public
        | Kind::FullCone
        | Kind::Restricted
        | Kind::PortRestricted
        | Kind::PortRestrictedRandom
        | Kind::Firewall
        | Kind::Cgnat
        | Kind::MasqueradeOpen => kind,
    }
}

impl Bench {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let dir = tempfile::tempdir().map_err(|e| Error::new(format!("make a temporary directory: {e}")))?;
        let seeders: BTreeSet<Kind> = options.cells.iter().map(|(a, _)| *a).collect();
        let downloaders: BTreeSet<Kind> = options.cells.iter().map(|(_, b)| *b).collect();
        let is = |k: Kind| if options.part == Part::Forced { disguise(k) } else { k };
        let site = |prefix: &str, k: &Kind| Site::new(&format!("{prefix}-{k}"), is(*k));
        let sites = seeders.iter().map(|k| site("s", k)).chain(downloaders.iter().map(|k| site("d", k)));
        let lab = Lab::up(&Plan {
            servers: vec![("edge".into(), 2), ("stun".into(), 2)],
            sites: sites.collect(),
            ..Plan::default()
        })?;
        let mut cdn = Cdn::start(&lab, dir.path(), &options.program)?;
        // the matrix is for UDP only: clients that listen on TCP are reached in more cells
        let udp_only = ["--tcp-port", "off"];
        match options.part {
            Part::Birthday => cdn.client_options(&[&udp_only[..], &["--birthday"]].concat()),
            Part::Pairs | Part::Loss { .. } | Part::Skew { .. } | Part::Forced => cdn.client_options(&udp_only),
        }
        let forced = options.part == Part::Forced;
        let seeded = if forced { Vec::new() } else { seed(&lab, &cdn, &seeders, &options.program)? };
        let delays = match options.part {
            Part::Skew { ms } => delay(&lab, &cdn, &downloaders, Duration::from_millis(ms.into()), &options.tool)?,
            Part::Pairs | Part::Loss { .. } | Part::Birthday | Part::Forced => Vec::new(),
        };
        if let Part::Loss { percent, udp_only } = options.part {
            lab.lose_of(percent, if udp_only { Lossy::Udp } else { Lossy::Everything })?;
        }
        let late = Duration::from_millis(options.latency_ms.into());
        let latency = (!late.is_zero()).then(|| Latency::start(&lab, late, &options.tool)).transpose()?;
        Ok(Self { _seeders: seeded, _delays: delays, _latency: latency, cdn, lab, _dir: dir })
    }

    pub(super) fn cell(&self, options: &Options, seeder: Kind, downloader: Kind) -> Result<Cell, Error> {
        let expected = expected(seeder, downloader);
        let well = matches!(expected, Expect::Connects | Expect::ByPrediction);
        let tries = if well || options.part == Part::Birthday { options.tries } else { options.tries_of_others };
        let one = |_| match options.part {
            Part::Forced => self.force_until_introduced(&options.program, seeder, downloader),
            Part::Pairs | Part::Loss { .. } | Part::Skew { .. } | Part::Birthday => {
                self.try_once(options, seeder, downloader)
            }
        };
        Ok(Cell { seeder, downloader, expected, tries: (0..tries).map(one).collect::<Result<_, Error>>()? })
    }

    fn try_once(&self, options: &Options, seeder: Kind, downloader: Kind) -> Result<Try, Error> {
        // packets of an earlier try may still be in flight; a router that has forgotten its mappings would take them
        // for new flows
        thread::sleep(Duration::from_millis(options.latency_ms.into()) * 4);
        // mappings left from an earlier try would help this one
        self.lab.separate(&format!("s-{seeder}"), &format!("d-{downloader}"))?;
        let mut client = self.cdn.client(&self.lab, &format!("d-{downloader}"), &options.program, false)?;
        client.settle(SETTLE_WITHIN)?;
        thread::sleep(BE_LISTED);
        let slow = matches!(options.part, Part::Loss { .. } | Part::Birthday);
        let began = Instant::now();
        let line = client.get_until(seeder.name(), TRY_WITHIN, |line| slow && line.peer_bytes > 0)?;
        let took = began.elapsed();
        let line = line.ok_or_else(|| client.error("tells nothing of its download"))?;
        let done = line.durable_bytes == OBJECT_LEN as u64;
        let met = client.meetings()?.into_iter().max_by_key(|m| m.attempt.outcome == "connected");
        let go = met.as_ref().filter(|m| m.attempt.outcome == "connected").map(|m| f64::from(m.attempt.took_ms));
        let connected = if slow { go.is_some() } else { done && line.peer_bytes > line.edge_bytes };
        let outcome = met.as_ref().map(|m| {
            let end = m.attempt.reason.as_ref().or(m.attempt.rung.as_ref()).unwrap_or(&m.attempt.outcome);
            m.dropped.as_ref().map_or_else(|| end.clone(), |why| format!("{end}, dropped later: {why}"))
        });
        Ok(Try {
            connected,
            after_go_ms: go,
            probes: met.as_ref().map_or(0, |m| m.attempt.probes),
            outcome,
            done_ms: done.then_some(took.as_secs_f64() * 1000.0),
            peer_bytes: line.peer_bytes,
            edge_bytes: line.edge_bytes,
            ends: [Vec::new(), Vec::new()],
        })
    }

    /// Starts a client behind this kind of NAT and lets it download the object of that name from the edge; then
    /// limits the edge to `edge_rate` bytes per second for each download.
    pub(super) fn seeder(
        (lab, cdn): (&Lab, &Cdn),
        kind: Kind,
        program: &Path,
        edge_rate: u64,
    ) -> Result<Client, Error> {
        cdn.publish(kind.name(), &content(kind), 0)?;
        let mut client = cdn.client(lab, &format!("s-{kind}"), program, true)?;
        let line = client.get(kind.name(), SEED_WITHIN, |_| {})?;
        if line.is_none_or(|l| l.durable_bytes < OBJECT_LEN as u64) {
            return Err(client.error("does not get its object from the edge"));
        }
        cdn.publish(kind.name(), &content(kind), edge_rate)?;
        client.settle(SETTLE_WITHIN)?;
        Ok(client)
    }
}

/// Starts a seeder behind each kind of NAT and lets it download the object of its kind from the edge.
fn seed(lab: &Lab, cdn: &Cdn, kinds: &BTreeSet<Kind>, program: &Path) -> Result<Vec<Client>, Error> {
    let seeded: Vec<Result<Client, Error>> = thread::scope(|s| {
        let one = |kind: Kind| s.spawn(move || Bench::seeder((lab, cdn), kind, program, EDGE_RATE));
        let running: Vec<_> = kinds.iter().map(|kind| one(*kind)).collect();
        running.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(Error::new("a thread panicked")))).collect()
    });
    let seeded = seeded.into_iter().collect::<Result<Vec<_>, _>>()?;
    thread::sleep(BE_LISTED);
    Ok(seeded)
}

/// Delays the CN's messages to every downloader by `by`.
fn delay(lab: &Lab, cdn: &Cdn, kinds: &BTreeSet<Kind>, by: Duration, tool: &Path) -> Result<Vec<Delay>, Error> {
    let other = lab.node("edge")?.addresses.iter().copied().filter(IpAddr::is_ipv4).nth(1);
    let other = other.ok_or_else(|| Error::new("the node edge has no second address"))?;
    let cn = cdn.cn(lab)?;
    kinds.iter().map(|k| Delay::start(lab, &format!("d-{k}"), (cn, other), by, tool)).collect()
}

/// Returns the content of the object that is named after a kind of NAT; no two objects share a block.
fn content(kind: Kind) -> Vec<u8> {
    let mut x = kind.name().bytes().fold(0x9e37_79b9_7f4a_7c15, |x: u64, b| x.wrapping_mul(31).wrapping_add(b.into()));
    let words = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    words.flatten().take(OBJECT_LEN).collect()
}
