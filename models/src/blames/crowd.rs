//! Crowds: hundreds of clients of many networks at one production DN, over hours. Some download from a holder that
//! sends wrong blocks, or a clique blames every honest holder that it is offered.

use super::{cn_connects, entry, shares, tell, version};
use crate::bench::Bench;
use crate::rng::Seeded;
use crate::scenario::{Name, Role};
use crate::sim::keys;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;
use swarmedge_core::Rng as _;
use swarmedge_core::ids::{DownloadId, Guid, SessionId};
use swarmedge_core::role::dn::{Config, Dn, Output};
use swarmedge_core::selection::blames::Rules;
use swarmedge_core::wire::List;
use swarmedge_core::wire::directory::{BlamedCopy, FromDn, PeerEntry, PeerGone, ProvenCopy, Select, ToDn};
use swarmedge_core::wire::records::ServerRole;

/// One step of time.
const STEP: Duration = Duration::from_secs(10);
/// Number of honest holders.
const HONEST: u32 = 30;
/// First number of the clients that download.
const FIRST: u32 = 1_000;
/// Number of the holder that sends a wrong block in every fifty.
const POISONER: u32 = 1;
/// Number of a client that only looks who is offered.
const WITNESS: u32 = 900_000;

/// Place of a client: second and third byte of its address, and its AS.
pub type Place = ((u8, u8), u32);

/// How holders answer when they are told to check a blamed copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proofs {
    /// The proof reaches the DN after at most two minutes.
    Soon,
    /// No proof ever reaches the DN: edges or the ledger are away.
    Never,
}

/// A DN with its crowd.
#[derive(Debug)]
pub struct Crowd {
    bench: Bench<Dn>,
    rng: Seeded,
    proofs: Proofs,
    /// Steps after which holders' proofs reach the DN.
    proving: BTreeMap<u32, u32>,
    next: u32,
}

impl Crowd {
    /// Returns a DN that keeps `rules`, with the honest holders and the poisoner.
    #[must_use]
    pub fn new(rules: Rules, proofs: Proofs, seed: u64) -> Self {
        let cfg = Config::new(keys::root(), keys::verify, keys::cert(Name(Role::Dn, 0), ServerRole::Dn));
        let cfg = Config { blames: rules, offers_max: None, ..cfg };
        let mut bench = Bench::new(Dn::default(), cfg);
        bench.inputs(cn_connects());
        let mut crowd = Self { bench, rng: Seeded::new(seed), proofs, proving: BTreeMap::new(), next: FIRST };
        for n in POISONER..=POISONER + HONEST {
            crowd.joins(n, ((240, u8::try_from(n).expect("few")), 1_000 + n));
            crowd.say(shares(n));
        }
        crowd.joins(WITNESS, ((241, 0), 2_000));
        crowd
    }

    fn say(&mut self, msg: ToDn) -> Vec<Output> {
        self.bench.input(tell(msg))
    }

    fn joins(&mut self, n: u32, ((net, part), asn): Place) {
        let peer: PeerEntry = entry(n, Ipv4Addr::new(20, net, part, 1).into(), Some(asn));
        self.say(ToDn::Peer(peer));
    }

    /// Returns the holders that the DN offers to a client, by number.
    fn offered(&mut self, to: u32) -> BTreeSet<u32> {
        let (session, download) = (SessionId(to.into()), DownloadId::numbered(to));
        let select = Select { req: 1, session, download, version: version(), want: 40, exclude: List::default() };
        let selected = self.say(ToDn::Select(select)).into_iter().find_map(|output| match output {
            Output::CnSend { msg: FromDn::Selected(selected), .. } => Some(selected),
            Output::CnSend { .. } | Output::CnClose { .. } | Output::Count(_) => None,
        });
        let number = |guid| (POISONER..=POISONER + HONEST).find(|n| Guid::numbered(*n) == guid);
        selected.into_iter().flat_map(|s| s.peers.into_vec()).filter_map(|peer| number(peer.guid)).collect()
    }

    fn blame(&mut self, by: u32, holder: u32) {
        let blamed = BlamedCopy { session: SessionId(by.into()), holder: Guid::numbered(holder), version: version() };
        let is_told = |o| matches!(o, Output::CnSend { msg: FromDn::CheckCopy(_), .. });
        let told = self.say(ToDn::Blame(blamed)).into_iter().any(is_told);
        if told && self.proofs == Proofs::Soon {
            // the poisoner has the right bytes, and proves it at once
            let steps = if holder == POISONER { 0 } else { self.rng.below(12) };
            self.proving.insert(holder, steps);
        }
    }

    fn pass(&mut self) {
        self.bench.wait(STEP);
        self.say(ToDn::Ping);
        let due: Vec<u32> = self.proving.iter().filter(|(_, steps)| **steps == 0).map(|(n, _)| *n).collect();
        self.proving.retain(|_, steps| *steps > 0);
        self.proving.values_mut().for_each(|steps| *steps -= 1);
        for holder in due {
            self.say(ToDn::Proven(ProvenCopy { holder: Guid::numbered(holder), version: version() }));
        }
    }

    /// Lets a client of each place download, one after another. Whoever is offered the poisoner takes more than fifty
    /// blocks from it, and blames it; the poisoner then begins a new session. Returns the number of these victims.
    pub fn victims(&mut self, places: impl IntoIterator<Item = Place>) -> u32 {
        let mut victims = 0;
        for place in places {
            self.next += 1;
            let client = self.next;
            self.joins(client, place);
            if self.offered(client).contains(&POISONER) {
                victims += 1;
                self.blame(client, POISONER);
                self.say(ToDn::Gone(PeerGone { session: SessionId(POISONER.into()) }));
                self.joins(POISONER, ((240, 1), 1_000 + POISONER));
                self.say(shares(POISONER));
            }
            self.say(ToDn::Gone(PeerGone { session: SessionId(client.into()) }));
            self.pass();
        }
        victims
    }

    /// Lets a clique of twenty, in these places, blame every holder that it is offered, for some hours. Returns the
    /// longest time for which an honest holder was not offered to a client of another network.
    pub fn longest_absence(&mut self, clique: &[Place], hours: u32) -> Duration {
        let members: Vec<u32> = (0..20).map(|n| 500_000 + n).collect();
        for (member, place) in members.iter().zip(clique.iter().cycle()) {
            self.joins(*member, *place);
        }
        let (mut away, mut longest): (BTreeMap<u32, u32>, u32) = (BTreeMap::new(), 0);
        for _ in 0..hours * 360 {
            let member = members[self.rng.below(20) as usize];
            for holder in self.offered(member) {
                self.blame(member, holder);
            }
            self.pass();
            let offered = self.offered(WITNESS);
            for holder in POISONER + 1..=POISONER + HONEST {
                let steps = away.entry(holder).or_default();
                *steps = if offered.contains(&holder) { 0 } else { *steps + 1 };
                longest = longest.max(*steps);
            }
        }
        STEP * longest
    }
}
