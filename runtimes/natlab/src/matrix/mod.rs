//! The pair matrix: for each pair of NAT kinds, whether one peer's download gets its bytes from the other peer. It
//! runs real binaries and a real CN, with a freshly installed client for each try.
//!
//! Every kind of NAT has a site with a seeder and a site for a downloader. Each seeder holds an object of its own and
//! the edge sends slowly, so a download that ends quickly, with most bytes from peers, was connected to that seeder.
//! Cells that share no site are measured at the same time.

mod bench;
mod forced;
mod report;
mod stats;

pub use report::{Class, Report, Row, document};
pub use stats::{lower_bound_95, percentile};

use crate::run::Error;
use crate::{Expect, Kind, expected};
use bench::Bench;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::thread;
use swarmedge_client::client::protocol::AttemptLine;

/// Part of the measurement of the pair matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Pairs as the DN selects them; each try transfers 8 MiB.
    Pairs,
    /// Pairs while the core loses packets; a try ends with the first verified bytes from the peer.
    Loss {
        /// Share of packets lost each way, in percent.
        percent: u8,
        /// Whether only UDP datagrams are lost; HTTPS and control connections then are not.
        udp_only: bool,
    },
    /// Pairs in which the CN's messages reach the downloader late.
    Skew {
        /// Delay of these messages in milliseconds.
        ms: u16,
    },
    /// Pairs that connect by birthday probing only; the clients have it switched on.
    Birthday,
    /// Pairs that no CN would introduce: their NATs change after discovery.
    Forced,
}

/// Parameters of a measurement.
#[derive(Clone, Debug)]
pub struct Options {
    /// Binary under test, for clients and servers.
    pub program: PathBuf,
    /// Path of this tool, which delays connections and packets.
    pub tool: PathBuf,
    /// Delay of every packet that crosses the core, in milliseconds.
    pub latency_ms: u16,
    /// Part of the measurement to run.
    pub part: Part,
    /// Cells to measure: (seeder, downloader).
    pub cells: Vec<(Kind, Kind)>,
    /// Number of tries of each cell that is expected to connect.
    pub tries: u32,
    /// Number of tries of each cell that is not expected to connect.
    pub tries_of_others: u32,
    /// Number of cells measured at the same time.
    pub parallel: usize,
}

/// Result of one try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// Whether the downloader got the object from the peer.
    pub connected: bool,
    /// Milliseconds from the CN's "go" to the open QUIC connection.
    pub after_go_ms: Option<f64>,
    /// Outcome of the introduction in words; `None` if the pair was not introduced.
    pub outcome: Option<String>,
    /// Number of datagrams that the downloader sent to find a path to the peer.
    pub probes: u16,
    /// Milliseconds from the user's command to the complete file.
    pub done_ms: Option<f64>,
    /// Verified bytes from the peer.
    pub peer_bytes: u64,
    /// Verified bytes from the edge.
    pub edge_bytes: u64,
    /// Ends of the connection attempts, as the downloader and as the uploader report them; empty unless the pair was
    /// forced.
    #[serde(default)]
    pub ends: [Vec<AttemptLine>; 2],
}

/// All tries of one pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Kind of NAT of the peer that has the object.
    pub seeder: Kind,
    /// Kind of NAT of the peer that downloads it.
    pub downloader: Kind,
    /// Expected result for this pair.
    pub expected: Expect,
    /// Results of the tries.
    pub tries: Vec<Try>,
}

/// Returns every pair of kinds, in both roles, ordered so that consecutive cells share no site.
#[must_use]
pub fn all_cells() -> Vec<(Kind, Kind)> {
    let kinds = Kind::ALL;
    let diagonal = |by: usize| (0..kinds.len()).map(move |i| (kinds[i], kinds[(i + by) % kinds.len()]));
    (0..kinds.len()).flat_map(diagonal).collect()
}

/// Returns the cells that a part measures.
#[must_use]
pub fn cells_of(part: Part) -> Vec<(Kind, Kind)> {
    let mut all = all_cells();
    all.retain(|(a, b)| {
        let expected = expected(*a, *b);
        match part {
            Part::Pairs => true,
            Part::Loss { .. } => expected == Expect::Connects,
            Part::Skew { .. } => expected == Expect::Connects && [*a, *b].contains(&Kind::MasqueradeOpen),
            Part::Birthday => expected == Expect::ByBirthday,
            Part::Forced => matches!(expected, Expect::Never | Expect::ByBirthday),
        }
    });
    all
}

/// Returns one cell for each kind of downloader, with the strictest of three usual kinds of seeder that it can
/// connect to.
#[must_use]
pub fn reduced_cells() -> Vec<(Kind, Kind)> {
    let partner = |b: Kind| {
        let strict = [Kind::PortRestrictedRandom, Kind::Restricted, Kind::Public];
        let found = strict.into_iter().find(|a| expected(*a, b) == Expect::Connects);
        found.unwrap_or(Kind::Public)
    };
    Kind::ALL.into_iter().map(|b| (partner(b), b)).collect()
}

/// Builds a lab, measures all cells and removes the lab. `tell` is called with each cell when it is measured.
pub fn measure(options: &Options, tell: &(dyn Fn(&Cell) + Sync)) -> Result<Vec<Cell>, Error> {
    let bench = Bench::new(options)?;
    let mut cells = Vec::new();
    for batch in batches(&options.cells, options.parallel) {
        let measured: Vec<Result<Cell, Error>> = thread::scope(|s| {
            let bench = &bench;
            let running = batch.iter().map(|(a, b)| s.spawn(move || bench.cell(options, *a, *b)));
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

/// Splits cells into batches of at most `parallel` cells, no two of which share a site.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn batches_share_no_site_and_cover_every_cell() {
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

    #[test]
    fn each_part_measures_its_own_cells() {
        assert_eq!(cells_of(Part::Loss { percent: 5, udp_only: false }).len(), 82);
        assert_eq!(cells_of(Part::Forced).len(), 51);
        assert_eq!(cells_of(Part::Birthday).len(), 20);
        let skewed = cells_of(Part::Skew { ms: 500 });
        assert_eq!(skewed.len(), 15, "{skewed:?}");
    }
}
