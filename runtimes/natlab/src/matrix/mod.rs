//! The pair matrix: for each pair of kinds, does a download by one peer get its bytes from the other? With real
//! binaries, through a real CN, each try by a freshly installed client.
//!
//! Every kind has a seeder's site and a downloader's site. Each seeder holds an object of its own, and the edge sends
//! slowly, so a download that is done quickly with most bytes from peers has met exactly one peer. Cells that share no
//! site run at the same time.

mod report;
mod stats;

pub use report::{Report, Row};
pub use stats::{lower_bound_95, percentile};

use crate::cdn::{Cdn, Client};
use crate::lab::Lab;
use crate::plan::{Plan, Site};
use crate::run::Error;
use crate::{Expect, Kind, expected};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of each object.
const OBJECT_LEN: usize = 8 * 1024 * 1024;
/// What the edge sends to one download, bytes a second: by itself it takes twice as long as a try may last.
const EDGE_RATE: u64 = 512 * 1024;
/// How long a try may last.
const TRY_WITHIN: Duration = Duration::from_secs(8);
/// How long seeding may last.
const SEED_WITHIN: Duration = Duration::from_secs(30);
/// How long a client may take to know its NAT and be known to the CN.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);
/// What a client tells the CN takes a moment to reach the DN.
const BE_LISTED: Duration = Duration::from_millis(200);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary whose clients are measured; the servers run on it too.
    pub program: PathBuf,
    /// Which cells: (seeder, downloader).
    pub cells: Vec<(Kind, Kind)>,
    /// Tries of each cell that is expected to connect.
    pub tries: u32,
    /// Tries of each of the others.
    pub tries_of_others: u32,
    /// Cells at the same time.
    pub parallel: usize,
    /// The core loses this share of packets, each way.
    pub loss_percent: u8,
}

/// One try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// The object came from the peer.
    pub connected: bool,
    /// From the CN's "go" to the open QUIC connection.
    pub after_go_ms: Option<f64>,
    /// What became of the introduction, in words; none was made without.
    pub outcome: Option<String>,
    /// Datagrams sent to find the peer.
    pub probes: u16,
    /// From the command to the complete file.
    pub done_ms: Option<f64>,
    /// Verified bytes from the peer.
    pub peer_bytes: u64,
    /// Verified bytes from the edge.
    pub edge_bytes: u64,
}

/// All tries of one pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Who has the object.
    pub seeder: Kind,
    /// Who wants it.
    pub downloader: Kind,
    /// What is known of this pair.
    pub expected: Expect,
    /// What happened.
    pub tries: Vec<Try>,
}

/// Every pair of kinds, in both roles, along the diagonals: neighbours share no site.
#[must_use]
pub fn all_cells() -> Vec<(Kind, Kind)> {
    let kinds = Kind::ALL;
    let diagonal = |by: usize| (0..kinds.len()).map(move |i| (kinds[i], kinds[(i + by) % kinds.len()]));
    (0..kinds.len()).flat_map(diagonal).collect()
}

/// One cell a kind, of those that matter most: each downloader with the strictest seeder that it can reach.
#[must_use]
pub fn reduced_cells() -> Vec<(Kind, Kind)> {
    let partner = |b: Kind| {
        let strict = [Kind::PortRestrictedRandom, Kind::Restricted, Kind::Public];
        let found = strict.into_iter().find(|a| expected(*a, b) == Expect::Connects);
        found.unwrap_or(Kind::Public)
    };
    Kind::ALL.into_iter().map(|b| (partner(b), b)).collect()
}

/// Builds a lab, measures, and takes it down again. `tell` is called with each finished cell.
pub fn measure(options: &Options, tell: &(dyn Fn(&Cell) + Sync)) -> Result<Vec<Cell>, Error> {
    let dir = tempfile::tempdir().map_err(|e| Error::new(format!("make a temporary directory: {e}")))?;
    let seeders: BTreeSet<Kind> = options.cells.iter().map(|(a, _)| *a).collect();
    let downloaders: BTreeSet<Kind> = options.cells.iter().map(|(_, b)| *b).collect();
    let site = |prefix: &str, k: &Kind| Site::new(&format!("{prefix}-{k}"), *k);
    let sites = seeders.iter().map(|k| site("s", k)).chain(downloaders.iter().map(|k| site("d", k)));
    let lab = Lab::up(&Plan {
        servers: vec![("edge".into(), 1), ("stun".into(), 2)],
        sites: sites.collect(),
        ..Plan::default()
    })?;
    let cdn = Cdn::start(&lab, dir.path(), &options.program)?;
    // they serve as long as they live
    let _seeders = seed(&lab, &cdn, &seeders, &options.program)?;
    lab.lose(options.loss_percent)?;
    let mut cells = Vec::new();
    for batch in batches(&options.cells, options.parallel) {
        let measured: Vec<Result<Cell, Error>> = thread::scope(|s| {
            let (lab, cdn) = (&lab, &cdn);
            let running = batch.iter().map(|(a, b)| s.spawn(move || measure_cell(lab, cdn, options, *a, *b)));
            let running: Vec<_> = running.collect();
            let ended = running.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(Error::new("a thread panicked"))));
            ended.inspect(|cell| cell.iter().for_each(tell)).collect()
        });
        cells.extend(measured.into_iter().collect::<Result<Vec<_>, _>>()?);
    }
    cells.sort_by_key(|c| {
        let at = |k| Kind::ALL.iter().position(|x| *x == k);
        (at(c.seeder), at(c.downloader))
    });
    Ok(cells)
}

/// Gives every seeder its object.
fn seed(lab: &Lab, cdn: &Cdn, kinds: &BTreeSet<Kind>, program: &Path) -> Result<Vec<Client>, Error> {
    for kind in kinds {
        cdn.publish(kind.name(), &content(*kind), 0)?;
    }
    let seeded: Vec<Result<Client, Error>> = thread::scope(|s| {
        let one = |kind: Kind| {
            let mut client = cdn.client(lab, &format!("s-{kind}"), program, true)?;
            let line = client.get(kind.name(), SEED_WITHIN, |_| {})?;
            if line.is_none_or(|l| l.durable_bytes < OBJECT_LEN as u64) {
                return Err(client.error("does not get its object from the edge"));
            }
            client.settle(SETTLE_WITHIN)?;
            Ok(client)
        };
        let running: Vec<_> = kinds.iter().map(|kind| s.spawn(move || one(*kind))).collect();
        running.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(Error::new("a thread panicked")))).collect()
    });
    let seeded = seeded.into_iter().collect::<Result<Vec<_>, _>>()?;
    for kind in kinds {
        cdn.publish(kind.name(), &content(*kind), EDGE_RATE)?;
    }
    thread::sleep(BE_LISTED);
    Ok(seeded)
}

/// Bytes that no other kind's object shares a block with.
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

/// Cells in groups of which no two share a site.
fn batches(cells: &[(Kind, Kind)], parallel: usize) -> Vec<Vec<(Kind, Kind)>> {
    let mut left = cells.to_vec();
    let mut all = Vec::new();
    while !left.is_empty() {
        let mut batch: Vec<(Kind, Kind)> = Vec::new();
        left.retain(|(a, b)| {
            let fits = batch.len() < parallel.max(1) && !batch.iter().any(|(c, d)| a == c || b == d);
            if fits {
                batch.push((*a, *b));
            }
            !fits
        });
        all.push(batch);
    }
    all
}

fn measure_cell(lab: &Lab, cdn: &Cdn, options: &Options, seeder: Kind, downloader: Kind) -> Result<Cell, Error> {
    let expected = expected(seeder, downloader);
    let tries = if expected == Expect::Connects { options.tries } else { options.tries_of_others };
    let one = |_| {
        // what the routers remember of an earlier try helps the next one: it must not
        lab.separate(&format!("s-{seeder}"), &format!("d-{downloader}"))?;
        let mut client = cdn.client(lab, &format!("d-{downloader}"), &options.program, false)?;
        client.settle(SETTLE_WITHIN)?;
        thread::sleep(BE_LISTED);
        let began = Instant::now();
        let line = client.get(seeder.name(), TRY_WITHIN, |_| {})?;
        let took = began.elapsed();
        let line = line.ok_or_else(|| client.error("tells nothing of its download"))?;
        let done = line.durable_bytes == OBJECT_LEN as u64;
        let connected = done && line.peer_bytes > line.edge_bytes;
        let met = client.meetings()?.into_iter().max_by_key(|m| m.outcome == "connected");
        let go = met.as_ref().filter(|m| m.outcome == "connected").map(|m| f64::from(m.took_ms));
        Ok(Try {
            connected,
            after_go_ms: go,
            probes: met.as_ref().map_or(0, |m| m.probes),
            outcome: met.map(|m| m.reason.or(m.rung).unwrap_or(m.outcome)),
            done_ms: done.then_some(took.as_secs_f64() * 1000.0),
            peer_bytes: line.peer_bytes,
            edge_bytes: line.edge_bytes,
        })
    };
    Ok(Cell { seeder, downloader, expected, tries: (0..tries).map(one).collect::<Result<_, Error>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_at_the_same_time_share_no_site_and_none_is_left_out() {
        let all = batches(&all_cells(), 12);
        assert_eq!(all.len(), 12, "a Latin square");
        for batch in &all {
            let (a, b): (BTreeSet<_>, BTreeSet<_>) = batch.iter().copied().unzip();
            assert_eq!((a.len(), b.len()), (batch.len(), batch.len()));
        }
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 144);
    }

    #[test]
    fn the_reduced_matrix_has_every_kind_once() {
        let kinds: BTreeSet<Kind> = reduced_cells().into_iter().map(|(_, b)| b).collect();
        assert_eq!(kinds.len(), Kind::ALL.len());
    }
}
