//! A simulated month of the paper's network, settled and searched for cheats by production code. Its clients upload
//! or do not, share LANs, take nearly all from peers, are fast, lie one by one, or form cliques that fake downloads
//! with true signatures; some installations are set back or cloned. It reports the bytes billed beyond those
//! delivered, the cheats found, and the honest clients wrongly found guilty. A month can be played with a seeded
//! [`Defect`], which must break one of the month's promises.
//!
//! The production [`Book`](swarmedge_core::accounting::settlement::Book) of the ledger makes the bills and accepts
//! only introductions that a CN has recorded. Signatures are the fake ones of all test worlds: a checksum of key,
//! purpose and the signed bytes. They are so cheap that a million downloads settle in seconds, and they verify
//! exactly when an Ed25519 signature would. The tests of the shell check that real verification is strict.

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

/// Size of the simulated month, its number of dishonest clients, and its seeded defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Number of clients, liars and cliques included.
    pub clients: u32,
    /// Number of downloads by honest clients and liars.
    pub downloads: u32,
    /// Number of cliques, each of five clients.
    pub cliques: u32,
    /// Number of downloads that each member of a clique fakes.
    pub fakes: u32,
    /// Number of objects that are downloaded.
    pub objects: u32,
    /// Seed that determines the whole run.
    pub seed: u64,
    /// Seeded defect, or `None` for the correct ledger.
    pub defect: Option<Defect>,
}

impl Config {
    /// Full month, whose figures the documentation reports.
    pub const MONTH: Self =
        Self { clients: 400_000, downloads: 1_000_000, cliques: 200, fakes: 20, objects: 4_000, seed: 1, defect: None };
    /// Small month for use in tests.
    pub const SMALL: Self = Self { clients: 8_000, downloads: 20_000, cliques: 6, objects: 150, ..Self::MONTH };
}

/// Result of a simulated month.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Number of downloads settled, faked ones included.
    pub downloads: u64,
    /// Number of downloads in which the downloader or an uploader lies.
    pub lied: u64,
    /// Number of peers that were offered to downloaders.
    pub offers: u64,
    /// Bytes that edges sent.
    pub edge_bytes: u64,
    /// Bytes that peers delivered in all downloads.
    pub delivered: u64,
    /// Peer bytes that the ledger billed.
    pub billed: u64,
    /// Bytes billed beyond those delivered, over introductions of which at most one side lies: must be 0.
    pub over_billed: u64,
    /// Bytes billed for faked downloads of cliques, where both sides signed and nothing was delivered.
    pub faked: u64,
    /// Part of `faked` above the downloads' ceilings (size less the bytes that edges sent): must be 0.
    pub faked_above_ceiling: u64,
    /// Bytes that downloader and uploader both claimed and signed, over introductions that no CN has made.
    pub uninvited: u64,
    /// Bytes billed in downloads with introductions that no CN has made: must be 0.
    pub uninvited_billed: u64,
    /// Bytes delivered between honest clients and not billed: must be 0.
    pub under_billed: u64,
    /// Bytes that clients claimed and that were not billed.
    pub flagged_bytes: u64,
    /// Number of clients that belong to a clique.
    pub members: u64,
    /// Number of members of cliques that detection found guilty.
    pub members_found: u64,
    /// Number of honest clients, and of those among them wrongly found guilty, by habit: plain, on a LAN, edge last,
    /// fast.
    pub honest: [(u64, u64); 4],
    /// Number of groups that detection found guilty as cliques.
    pub groups: u64,
    /// Number of clients that detection found for downloading one version again and again.
    pub repeated: u64,
    /// Results of the analysis of secondary GUIDs.
    pub installs: Installs,
}

impl Outcome {
    /// Returns how many of 1,000 members of cliques were found guilty.
    #[must_use]
    pub fn found_permille(&self) -> u64 {
        (self.members_found * 1_000).checked_div(self.members).unwrap_or(1_000)
    }

    /// Returns how many of a million honest clients were found guilty.
    #[must_use]
    pub fn wronged_ppm(&self) -> u64 {
        let (all, wronged) = self.honest.iter().fold((0, 0), |sum, h| (sum.0 + h.0, sum.1 + h.1));
        (wronged * 1_000_000_u64).checked_div(all).unwrap_or(0)
    }

    /// Returns the texts of the promises that this month broke; such a promise is that no byte is billed that nobody
    /// delivered.
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

/// One peer that was offered to a downloader; 16 bytes, since a month has millions of them.
#[derive(Clone, Copy, Debug)]
struct Logged {
    downloader: u32,
    uploader: u32,
    /// Bytes that the peer delivered, in units of 64 KiB; at least 1 if it delivered any, 0 if none.
    units: u32,
    near: Near,
}

/// State of a month while it is played.
struct Month {
    cfg: Config,
    rng: Seeded,
    people: People,
    /// Clients that share each object, the newest at the end.
    holders: Vec<Vec<u32>>,
    sizes: Vec<u64>,
    offers: Vec<Logged>,
    demands: Vec<Demand>,
    outcome: Outcome,
    next_id: u32,
}

/// Plays a month and returns its result.
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
    /// Plays honest and faked downloads, mixed over thirty days.
    fn play(&mut self) {
        let fakes = u64::from(self.cfg.cliques) * 5 * u64::from(self.cfg.fakes);
        let honest = u64::from(self.cfg.downloads);
        let mut faked = 0;
        for n in 0..honest {
            let day = u32::try_from(n * 30 / honest).unwrap_or(29);
            self.download(day);
            // fakes are spread over the month, among honest downloads
            while faked < fakes && faked * honest < (n + 1) * fakes {
                self.fake(u32::try_from(faked % (u64::from(self.cfg.cliques) * 5)).unwrap_or(0), day);
                faked += 1;
            }
        }
    }

    /// Seeded defect: finds every client guilty that took bytes from one peer three times, which happens honestly in
    /// an office.
    fn busy_offices(&self) -> Vec<Clique> {
        let mut taken: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
        for l in self.offers.iter().filter(|l| l.units > 0) {
            *taken.entry(l.downloader).or_default().entry(l.uploader).or_default() += 1;
        }
        let often = |of: &BTreeMap<u32, u32>| of.values().any(|n| *n >= 3);
        let members: Vec<u32> = taken.iter().filter(|(_, of)| often(of)).map(|(who, _)| *who).collect();
        std::vec![Clique { members, offered: 0, used: 0, bytes: 0, inside_permille: 0, bits: 0 }]
    }

    /// Runs the production detection and counts the clients it found.
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
