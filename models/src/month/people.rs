//! Clients of the simulated month: their behaviour and location.

use super::Config;
use crate::rng::Seeded;
use swarmedge_core::Rng as _;
use swarmedge_core::accounting::detect::Near;

/// Behaviour of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Habit {
    /// Client that behaves like most.
    Plain,
    /// Client in an office, whose other clients have the objects that it wants.
    Lan,
    /// Client that takes from the edge only what no peer has.
    EdgeLast,
    /// Client whose connections with offered peers succeed more often than those of most.
    Fast,
    /// Client that lies in its records, without accomplices.
    Liar(Lie),
    /// Member of a clique: five clients that fake downloads for one another.
    Member,
}

impl Habit {
    /// Returns the index of this habit in [`Outcome::honest`](super::Outcome::honest).
    pub(super) const fn column(self) -> usize {
        match self {
            Self::Plain | Self::Liar(_) | Self::Member => 0,
            Self::Lan => 1,
            Self::EdgeLast => 2,
            Self::Fast => 3,
        }
    }
}

/// False claim of a client that lies alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lie {
    /// The downloader claims twice the bytes that it received, and an introduction that no CN has made.
    Inflates,
    /// The downloader claims half of the bytes that it received.
    Deflates,
    /// The uploader changes the byte counts in its receipts.
    ForgesReceipts,
    /// The uploader files a receipt that belongs to another download.
    Replays,
    /// The uploader files every record and receipt twice, under new ids and sequence numbers.
    Repeats,
}

const LIES: [Lie; 5] = [Lie::Inflates, Lie::Deflates, Lie::ForgesReceipts, Lie::Replays, Lie::Repeats];

#[derive(Clone, Copy, Debug)]
struct Person {
    habit: Habit,
    address: u32,
    network: u16,
    country: u8,
    uploads: bool,
    /// Chance that others can connect to the client, in per cent of the average.
    quality: u8,
}

/// All clients of the month by number. The members of cliques come first, five for each clique.
pub(super) struct People(Vec<Person>);

impl People {
    pub(super) fn new(cfg: &Config, rng: &mut Seeded) -> Self {
        let members = cfg.cliques * 5;
        let mut all: Vec<Person> = Vec::with_capacity(cfg.clients as usize);
        let mut office = 0;
        for n in 0..cfg.clients {
            let before = all.last().copied();
            let member = n < members;
            // an office has up to twenty machines behind one address; one client in twelve is in one
            let colleague = office > 0 && !member;
            office = if colleague { office - 1 } else { 0 };
            if !member && !colleague && rng.chance(8) {
                office = 3 + rng.below(17);
            }
            let place = if colleague { before } else { None };
            let country = place.map_or_else(|| u8::try_from(rng.below(rng_country(n))).unwrap_or(0), |p| p.country);
            let network = place
                .map_or_else(|| u16::from(country) * 100 + u16::try_from(rng.below(100)).unwrap_or(0), |p| p.network);
            let habit = match rng.below(1_000) {
                _ if member => Habit::Member,
                0..=9 => Habit::Liar(LIES[rng.below(5) as usize]),
                _ if colleague || office > 0 => Habit::Lan,
                10..=109 => Habit::EdgeLast,
                110..=209 => Habit::Fast,
                _ => Habit::Plain,
            };
            // three in ten allow uploads, as in the paper
            let uploads = member || rng.chance(300) || habit == Habit::Lan;
            let quality = 50 + u8::try_from(rng.below(101)).unwrap_or(0);
            let quality = if habit == Habit::Fast { 180 } else { quality };
            all.push(Person { habit, address: place.map_or(n, |p| p.address), network, country, uploads, quality });
        }
        Self(all)
    }

    fn of(&self, n: u32) -> Person {
        self.0[n as usize]
    }

    pub(super) fn habit(&self, n: u32) -> Habit {
        self.of(n).habit
    }

    pub(super) fn uploads(&self, n: u32) -> bool {
        self.of(n).uploads
    }

    pub(super) fn near(&self, a: u32, b: u32) -> Near {
        let (a, b) = (self.of(a), self.of(b));
        if a.address == b.address {
            Near::Address
        } else if a.network == b.network {
            Near::Network
        } else if a.country == b.country {
            Near::Country
        } else {
            Near::World
        }
    }

    /// Returns the other clients of a client's office, whose numbers are near its own.
    pub(super) fn colleagues(&self, n: u32) -> impl Iterator<Item = u32> + '_ {
        let first = n.saturating_sub(20);
        let last = n.saturating_add(20).min(u32::try_from(self.0.len()).unwrap_or(u32::MAX).saturating_sub(1));
        let address = self.of(n).address;
        (first..=last).filter(move |m| *m != n && self.of(*m).address == address)
    }

    /// Returns the chance, in thousandths, that the downloader gets bytes from an offered uploader.
    pub(super) fn use_permille(&self, downloader: u32, uploader: u32) -> u32 {
        let usual = match self.near(downloader, uploader) {
            Near::Address => return 960,
            Near::Network => 550,
            Near::Country => 380,
            Near::World => 280,
        };
        let eager = if self.habit(downloader) == Habit::Fast { 150 } else { 100 };
        (usual * u32::from(self.of(uploader).quality) / 100 * eager / 100).min(950)
    }
}

/// Returns the number of countries from which client `n`'s country is drawn: 6 for every second client, 60 for the
/// others.
const fn rng_country(n: u32) -> u32 {
    if n.is_multiple_of(2) { 6 } else { 60 }
}
