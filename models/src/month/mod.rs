//! A simulated month of the paper's network, through the production settlement and detection: clients that upload or do
//! not, LANs, clients that take nearly all from peers, fast ones, liars one by one, cliques that fake downloads with
//! true signatures, installations that were set back or cloned. It says what was billed beyond what was delivered,
//! who was found, and who was wronged. A month can be played with a [`Defect`], which must break a promise.
//!
//! Bills are made by the ledger's own book, in which only introductions count that a CN has recorded. Signatures are
//! those of all test worlds, fakes: a checksum over key, purpose and the very bytes that are signed for. So a receipt
//! verifies here exactly if it would under Ed25519, unless somebody breaks Ed25519, and a million downloads are settled
//! in seconds. That the real ones are strict is the business of the shell's tests.

mod defect;
mod download;
mod installs;
mod people;

use crate::rng::Seeded;
pub use defect::Defect;
pub use installs::Installs;
use people::{Habit, People};
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::accounting::detect::{self, Affinity, Clique, Demand, Near, Offer, demand};

/// How large, and how bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Clients, liars and cliques included.
    pub clients: u32,
    /// Downloads of honest clients and liars.
    pub downloads: u32,
    /// Number of cliques, each of five clients.
    pub cliques: u32,
    /// How many downloads each member of a clique fakes.
    pub fakes: u32,
    /// Number of objects that are downloaded.
    pub objects: u32,
    /// Seed that determines the whole run.
    pub seed: u64,
    /// Seeded defect, or `None` for the correct ledger.
    pub defect: Option<Defect>,
}

impl Config {
    /// The month of which the figures are told.
    pub const MONTH: Self =
        Self { clients: 400_000, downloads: 1_000_000, cliques: 200, fakes: 20, objects: 4_000, seed: 1, defect: None };
    /// Small month for use in tests.
    pub const SMALL: Self = Self { clients: 8_000, downloads: 20_000, cliques: 6, objects: 150, ..Self::MONTH };
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Downloads settled, faked ones included.
    pub downloads: u64,
    /// Of them, with a liar on either side.
    pub lied: u64,
    /// Number of introductions recorded by the CN.
    pub offers: u64,
    /// Bytes that edges sent.
    pub edge_bytes: u64,
    /// Bytes that peers delivered.
    pub delivered: u64,
    /// Bytes of peers that were billed.
    pub billed: u64,
    /// Billed beyond what was delivered, where at least one side of each introduction was honest.
    pub over_billed: u64,
    /// Billed although nothing was delivered, in cliques: both sides signed.
    pub faked: u64,
    /// Of that, beyond the ceilings (size less the edges' bytes): must be 0.
    pub faked_above_ceiling: u64,
    /// Claimed and signed by both sides over introductions that no CN has made.
    pub uninvited: u64,
    /// Billed of that: must be 0.
    pub uninvited_billed: u64,
    /// Delivered and not billed, by honest to honest: must be 0.
    pub under_billed: u64,
    /// Claimed and not billed.
    pub flagged_bytes: u64,
    /// Members of cliques, and how many were found.
    pub members: u64,
    /// See `members`.
    pub members_found: u64,
    /// Honest clients by habit: plain, on a LAN, edge last, fast; and how many were found guilty.
    pub honest: [(u64, u64); 4],
    /// Groups that were found.
    pub groups: u64,
    /// Clients found for demanding one version again and again.
    pub repeated: u64,
    /// What secondary GUIDs told.
    pub installs: Installs,
}

impl Outcome {
    /// Members of cliques that were found, in thousandths.
    #[must_use]
    pub fn found_permille(&self) -> u64 {
        (self.members_found * 1_000).checked_div(self.members).unwrap_or(1_000)
    }

    /// Honest clients that were found guilty, in millionths.
    #[must_use]
    pub fn wronged_ppm(&self) -> u64 {
        let (all, wronged) = self.honest.iter().fold((0, 0), |sum, h| (sum.0 + h.0, sum.1 + h.1));
        (wronged * 1_000_000_u64).checked_div(all).unwrap_or(0)
    }

    /// What the project promises of a month, and of what it was not kept.
    #[must_use]
    pub fn broken_promises(&self) -> Vec<&'static str> {
        let promises = [
            (self.over_billed == 0, "bytes were billed that nobody delivered"),
            (self.faked_above_ceiling == 0, "a clique was billed beyond its ceilings"),
            (self.uninvited_billed == 0, "bytes were billed of introductions that no CN has made"),
            (self.under_billed == 0, "honest bytes were not billed"),
            (self.found_permille() >= 950, "fewer than 95 % of the cliques' members were found"),
            (self.wronged_ppm() <= 1_000, "more than 0.1 % of the honest clients were found guilty"),
            (self.installs.wrong == 0, "an installation was taken for what it is not"),
        ];
        promises.into_iter().filter(|(kept, _)| !kept).map(|(_, why)| why).collect()
    }
}

/// An offer, in 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Logged {
    downloader: u32,
    uploader: u32,
    /// In 64 KiB, at least one if there were any.
    units: u32,
    near: Near,
}

/// The month as it goes.
struct Month {
    cfg: Config,
    rng: Seeded,
    people: People,
    /// Who shares an object, the newest at the end.
    holders: Vec<Vec<u32>>,
    sizes: Vec<u64>,
    offers: Vec<Logged>,
    demands: Vec<Demand>,
    outcome: Outcome,
    next_id: u32,
}

/// Plays a month.
#[must_use]
pub fn run(cfg: Config) -> Outcome {
    let mut rng = Seeded::new(cfg.seed);
    let people = People::new(&cfg, &mut rng);
    let sizes = (0..cfg.objects).map(|_| 4_000_000 + rng.next() % 1_500_000_000).collect();
    let mut month = Month {
        holders: (0..cfg.objects).map(|_| Vec::new()).collect(),
        people,
        sizes,
        offers: Vec::new(),
        demands: Vec::new(),
        outcome: Outcome::default(),
        next_id: 0,
        rng,
        cfg,
    };
    month.play();
    month.judge();
    month.outcome.installs = installs::month(&cfg, &mut month.rng);
    month.outcome
}

impl Month {
    /// Honest downloads and faked ones, mixed over thirty days.
    fn play(&mut self) {
        let fakes = u64::from(self.cfg.cliques) * 5 * u64::from(self.cfg.fakes);
        let honest = u64::from(self.cfg.downloads);
        let mut faked = 0;
        for n in 0..honest {
            let day = u32::try_from(n * 30 / honest).unwrap_or(29);
            self.download(day);
            // fakes begin once there is somebody to hide among
            while faked < fakes && faked * honest < (n + 1) * fakes {
                self.fake(u32::try_from(faked % (u64::from(self.cfg.cliques) * 5)).unwrap_or(0), day);
                faked += 1;
            }
        }
    }

    /// What is defective: who takes from the same few again and again is found guilty, though an office explains it.
    fn busy_offices(&self) -> Vec<Clique> {
        let mut taken: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
        for l in self.offers.iter().filter(|l| l.units > 0) {
            *taken.entry(l.downloader).or_default().entry(l.uploader).or_default() += 1;
        }
        let often = |of: &BTreeMap<u32, u32>| of.values().any(|n| *n >= 3);
        let members: Vec<u32> = taken.iter().filter(|(_, of)| often(of)).map(|(who, _)| *who).collect();
        std::vec![Clique { members, offered: 0, used: 0, bytes: 0, inside_permille: 0, bits: 0 }]
    }

    /// Through the production detection.
    fn judge(&mut self) {
        let defect = self.cfg.defect;
        let offer = |l: &Logged| Offer {
            downloader: l.downloader,
            uploader: l.uploader,
            near: l.near,
            bytes: if defect == Some(Defect::BlindToBytes) { 0 } else { u64::from(l.units) << 16 },
        };
        let affinity = Affinity::of(self.cfg.clients, self.offers.iter().map(offer));
        let groups: Vec<Clique> = match defect {
            Some(Defect::BytesAreGuilt) => self.busy_offices(),
            _ => detect::cliques::find(&affinity),
        };
        let again = demand::repeated(std::mem::take(&mut self.demands), demand::BY_CLIENT_MAX);
        let mut guilty: BTreeSet<u32> = groups.iter().flat_map(|g| g.members.iter().copied()).collect();
        guilty.extend(again.iter().map(|r| r.demand.who));
        let out = &mut self.outcome;
        (out.groups, out.repeated, out.offers) = (groups.len() as u64, again.len() as u64, self.offers.len() as u64);
        for client in 0..self.cfg.clients {
            let found = u64::from(guilty.contains(&client));
            match self.people.habit(client) {
                Habit::Member => {
                    out.members += 1;
                    out.members_found += found;
                }
                Habit::Liar(_) => {}
                habit @ (Habit::Plain | Habit::Lan | Habit::EdgeLast | Habit::Fast) => {
                    let (all, wronged) = &mut out.honest[habit.column()];
                    (*all, *wronged) = (*all + 1, *wronged + found);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_month_keeps_every_promise() {
        let outcome = run(Config::SMALL);
        assert_eq!(outcome.broken_promises(), [""; 0], "{outcome:?}");
        assert!(outcome.lied > 200 && outcome.faked > 0 && outcome.flagged_bytes > 0, "{outcome:?}");
        assert!(outcome.uninvited > 0, "{outcome:?}");
        assert_eq!(outcome, run(Config::SMALL), "a seed fixes a month");
    }

    #[test]
    fn a_month_without_cliques_finds_none() {
        let outcome = run(Config { cliques: 0, seed: 2, ..Config::SMALL });
        assert_eq!((outcome.members, outcome.faked), (0, 0));
        assert_eq!(outcome.broken_promises(), [""; 0], "{outcome:?}");
    }
}
