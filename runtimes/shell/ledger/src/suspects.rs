//! Detection of clients that may cheat: reads the ledger's records and logs, numbers the clients, and applies the
//! core's rules (`accounting::detect`, `accounting::clones`).

use super::blamed::{BlamedFound, Blames};
use super::columns::{day_at, record_at, span_at, wire_at};
use super::day::Day;
use super::gaps::{GapFound, Histories};
use super::kind::Kind;
use super::network::network;
use super::places::Spot;
use super::reader::Reader;
use futures_lite::StreamExt as _;
use serde::Serialize;
use sqlx::Row as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use swarmedge_core::accounting::clones::{Pattern, Starts};
use swarmedge_core::accounting::detect::{
    self, Affinity, Demand, Near, Offer, Repeated, Sighting, Travel, demand, travel,
};
use swarmedge_core::accounting::possession::Tally;
use swarmedge_core::accounting::settlement::Book;
use swarmedge_core::ids::{DownloadId, Guid, IntroId, PublicKey, VersionId};
use swarmedge_core::limits::CREDIT_MAX;
use swarmedge_core::wire::records::{
    LedgerRecord, LogEvent, Login, PossessionOutcome, PossessionRecord, Side, UsageRecord, UsageState,
};
use swarmedge_ground::error::Error;
use swarmedge_ground::keys::verify;

/// Findings over a span of days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Suspects {
    /// First and last day of the span.
    pub days: (String, String),
    /// Numbers of clients, logins, offers and downloads that were examined.
    pub looked_at: LookedAt,
    /// Groups of clients that exchange more bytes with one another than the CNs' offers of peers explain.
    pub cliques: Vec<CliqueFound>,
    /// Versions that a client downloaded again and again.
    pub repeated_by_client: Vec<RepeatedFound>,
    /// Versions that a network's clients downloaded again and again.
    pub repeated_by_network: Vec<RepeatedFound>,
    /// Bytes, receipted and reported, for introductions that no CN has logged.
    pub not_offered: Vec<NotOffered>,
    /// Clients that failed to prove possession of completed downloads. Weak evidence where the content is public; it
    /// supports other findings.
    pub failed_possession: Vec<PossessionFound>,
    /// Copies that downloaders have blamed for wrong blocks; votes, and no accusation.
    pub blamed: Vec<BlamedFound>,
    /// Clients that signed receipts for more bytes than they reported: the smaller number is billed, so the difference
    /// was free.
    pub understated: Vec<Understated>,
    /// Clients that repeatedly logged in from places too far apart for the time between.
    pub travel: Vec<TravelFound>,
    /// Installations restored from a backup or cloned: they need a new key and are not accused.
    pub forked: Vec<Forked>,
    /// Installations with so many missing starts in a row that their history is incomplete; no accusation.
    pub gaps: Vec<GapFound>,
}

impl Suspects {
    /// Returns the GUIDs that the findings accuse; forks and network findings accuse no client.
    #[must_use]
    pub fn guids(&self) -> BTreeSet<String> {
        let members = self.cliques.iter().flat_map(|c| &c.members);
        let pairs = self.not_offered.iter().flat_map(|n| [&n.downloader, &n.uploader]);
        members.chain(pairs).chain(self.repeated_by_client.iter().map(|r| &r.who)).cloned().collect()
    }
}

/// Numbers of records examined, for [`Suspects::looked_at`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LookedAt {
    /// Number of clients with any record.
    pub clients: usize,
    /// Number of recorded logins.
    pub logins: u64,
    /// Number of offers: a CN offers one peer to one download.
    pub offers: usize,
    /// Number of downloads with any record.
    pub downloads: u64,
    /// Graphs of secondary GUIDs by pattern, as in figure 12 of the paper.
    pub graphs: BTreeMap<&'static str, u64>,
}

/// A group found by [`detect::cliques`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CliqueFound {
    /// GUIDs of the members.
    pub members: Vec<String>,
    /// Number of offers of one member to another.
    pub offered: u64,
    /// Number of these offers over which bytes were transferred.
    pub used: u64,
    /// Bytes transferred between members.
    pub bytes: u64,
    /// Share of the members' peer bytes that came from members, in thousandths.
    pub inside_permille: u64,
    /// Improbability of the group by chance: minus the binary logarithm of the probability.
    pub bits: u64,
}

/// A version that was downloaded unusually often on one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepeatedFound {
    /// GUID of the client, or the network.
    pub who: String,
    /// Id of the version, hexadecimal.
    pub version: String,
    /// Day of the downloads.
    pub day: String,
    /// Number of completed downloads.
    pub times: u64,
}

/// A pair of clients in [`Suspects::not_offered`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotOffered {
    /// GUID of the downloader.
    pub downloader: String,
    /// GUID of the uploader.
    pub uploader: String,
    /// Number of introductions without a logged offer.
    pub introductions: u64,
    /// Bytes over these introductions: of each the smaller of receipt and downloader's report.
    pub bytes: u64,
}

/// A client in [`Suspects::failed_possession`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PossessionFound {
    /// GUID of the client.
    pub guid: String,
    /// Number of challenges passed.
    pub passed: u64,
    /// Number of challenges answered wrongly.
    pub failed: u64,
    /// Number of challenges not answered, or avoided by not reporting the completion to an edge.
    pub unanswered: u64,
}

/// A client in [`Suspects::understated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Understated {
    /// GUID of the client.
    pub guid: String,
    /// Number of downloads concerned.
    pub downloads: u64,
    /// Bytes receipted beyond those in its final reports.
    pub bytes: u64,
}

/// An installation whose history of starts forks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forked {
    /// GUID of the client.
    pub guid: String,
    /// Name of the pattern in figure 12 of the paper.
    pub pattern: &'static str,
    /// Secondary GUIDs of the starts that have more than one successor.
    pub forks: Vec<String>,
    /// Number of its logins.
    pub logins: u64,
}

/// A client in [`Suspects::travel`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TravelFound {
    /// GUID of the client.
    pub guid: String,
    /// Number of moves faster than possible travel.
    pub moves: u64,
    /// Country and network at the start of the fastest move.
    pub from: String,
    /// Country and network at the end of the fastest move.
    pub to: String,
    /// Least distance of that move, km.
    pub distance_km: u64,
    /// Duration of that move, seconds.
    pub seconds: u64,
}

/// Least number of unlogged introductions that is reported: fewer may be those of a CN that crashed before logging.
const NOT_OFFERED_MIN: u64 = 4;
/// Understated bytes of one download that are tolerated: a crash can lose as many unreported receipts.
const UNDERSTATED_MIN: u64 = CREDIT_MAX;

/// Clients, numbered in order of appearance.
#[derive(Default)]
struct Clients {
    numbers: BTreeMap<Guid, u32>,
    guids: Vec<Guid>,
    addresses: Vec<Option<IpAddr>>,
    /// Client numbers by upload key K_u.
    keys: BTreeMap<PublicKey, u32>,
    starts: BTreeMap<u32, (Starts, u64)>,
    /// Locations at logins, by client number.
    sightings: BTreeMap<u32, Vec<Sighting>>,
}

impl Clients {
    fn number(&mut self, guid: Guid) -> u32 {
        let next = u32::try_from(self.guids.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(guid).or_insert(next);
        if number == next {
            self.guids.push(guid);
            self.addresses.push(None);
        }
        number
    }

    fn name(&self, number: u32) -> String {
        self.guids.get(number as usize).map(ToString::to_string).unwrap_or_default()
    }

    fn login(&mut self, guid: Guid, login: &Login) {
        let number = self.number(guid);
        // an old login has none
        self.addresses[number as usize] = Some(login.observed.ip()).filter(|ip| !ip.is_unspecified());
        self.keys.insert(login.upload_key, number);
        let (starts, logins) = self.starts.entry(number).or_default();
        starts.login(&login.secondary);
        *logins += 1;
    }

    fn network(&self, guid: Guid) -> Option<String> {
        let number = *self.numbers.get(&guid)?;
        self.addresses.get(number as usize).copied().flatten().map(network)
    }

    fn near(&self, a: u32, b: u32) -> Near {
        let of = |n: u32| self.addresses.get(n as usize).copied().flatten();
        match (of(a), of(b)) {
            (Some(a), Some(b)) if a == b => Near::Address,
            (Some(a), Some(b)) if network(a) == network(b) => Near::Network,
            _ => Near::World,
        }
    }
}

/// An introduction with bytes that count: the smaller of receipt and downloader's report.
struct Agreed {
    downloader: u32,
    uploader: u32,
    bytes: u64,
    offered: bool,
}

#[derive(Default)]
struct Reading {
    clients: Clients,
    agreed: BTreeMap<IntroId, Agreed>,
    offers: Vec<Offer>,
    /// Downloads with a recorded challenge outcome.
    challenged: BTreeSet<DownloadId>,
    possession: BTreeMap<u32, Tally>,
    /// By client number: the number of downloads that the client understated, and the bytes that it did not report.
    understated: BTreeMap<u32, (u64, u64)>,
    looked_at: LookedAt,
    blames: Blames,
}

impl Reader {
    /// Examines the records that arrived over a span of days.
    pub async fn suspects(&mut self, from: Day, to: Day) -> Result<Suspects, Error> {
        let mut reading = Reading::default();
        self.read_logins(&mut reading, from, to).await.map_err(|e| self.failed(&e))?;
        self.read_possession(&mut reading, from, to).await.map_err(|e| self.failed(&e))?;
        self.read_usage(&mut reading, from, to).await.map_err(|e| self.failed(&e))?;
        self.read_offers(&mut reading, from, to).await.map_err(|e| self.failed(&e))?;
        let demands = self.read_demands(&mut reading, from, to).await.map_err(|e| self.failed(&e))?;
        reading.blames = self.blames(from, to).await.map_err(|e| self.failed(&e))?;
        Ok(reading.judge(from, to, demands))
    }

    /// Returns the first and last day with any record.
    pub async fn days_with_records(&mut self) -> Result<Option<(Day, Day)>, Error> {
        let row = sqlx::query("SELECT MIN(day), MAX(day) FROM record").fetch_one(&mut self.db.any).await;
        row.and_then(|row| span_at(&row)).map_err(|e| self.failed(&e))
    }

    async fn read_logins(&mut self, reading: &mut Reading, from: Day, to: Day) -> Result<(), sqlx::Error> {
        let text = "SELECT body FROM record WHERE kind IN ($1, $2, $3) AND day BETWEEN $4 AND $5 ORDER BY received_ms";
        let query = sqlx::query(text)
            .bind(Kind::Login.to_sql())
            .bind(Kind::OldLogin.to_sql())
            .bind(Kind::Located.to_sql())
            .bind(from.to_sql())
            .bind(to.to_sql());
        let mut rows = query.fetch(&mut self.db.any);
        while let Some(row) = rows.next().await {
            let LedgerRecord::Log(log) = record_at(&row?, 0)? else { continue };
            match &log.event {
                LogEvent::Login(login) => {
                    reading.clients.login(log.guid, login);
                    reading.looked_at.logins += 1;
                }
                LogEvent::Located(location) => {
                    let number = reading.clients.number(log.guid);
                    let sighting = Sighting { at_ms: log.at_ms, location: *location };
                    reading.clients.sightings.entry(number).or_default().push(sighting);
                }
                LogEvent::Registered(_) | LogEvent::Offered(_) | LogEvent::Head(_) => {}
                LogEvent::Rekeyed(_) | LogEvent::Blamed(_) => {}
            }
        }
        Ok(())
    }

    async fn read_possession(&mut self, reading: &mut Reading, from: Day, to: Day) -> Result<(), sqlx::Error> {
        let text = "SELECT body FROM record WHERE kind = $1 AND day BETWEEN $2 AND $3";
        let query = sqlx::query(text).bind(Kind::Possession.to_sql()).bind(from.to_sql()).bind(to.to_sql());
        let mut rows = query.fetch(&mut self.db.any);
        while let Some(row) = rows.next().await {
            if let LedgerRecord::Possession(r) = record_at(&row?, 0)? {
                reading.possession(&r);
            }
        }
        Ok(())
    }

    /// Reads the usage records download by download and notes the introductions with agreed bytes.
    async fn read_usage(&mut self, reading: &mut Reading, from: Day, to: Day) -> Result<(), sqlx::Error> {
        let text = "SELECT download, body FROM record WHERE kind < $1 AND download IS NOT NULL
                    AND day BETWEEN $2 AND $3 ORDER BY download";
        let query = sqlx::query(text).bind(Kind::FIRST_LOG.to_sql()).bind(from.to_sql()).bind(to.to_sql());
        let mut rows = query.fetch(&mut self.db.any);
        let mut now: Option<(Vec<u8>, Vec<LedgerRecord>)> = None;
        while let Some(row) = rows.next().await {
            let row = row?;
            let (download, record) = (row.try_get::<Vec<u8>, _>(0)?, record_at(&row, 1)?);
            match &mut now {
                Some((of, records)) if *of == download => records.push(record),
                _ => {
                    let done = now.replace((download, vec![record]));
                    reading.download(done.map(|(_, records)| records));
                }
            }
        }
        reading.download(now.map(|(_, records)| records));
        Ok(())
    }

    async fn read_offers(&mut self, reading: &mut Reading, from: Day, to: Day) -> Result<(), sqlx::Error> {
        let text = "SELECT body FROM record WHERE kind = $1 AND day BETWEEN $2 AND $3";
        let query = sqlx::query(text).bind(Kind::Offered.to_sql()).bind(from.to_sql()).bind(to.to_sql());
        let mut rows = query.fetch(&mut self.db.any);
        while let Some(row) = rows.next().await {
            if let LedgerRecord::Log(log) = record_at(&row?, 0)?
                && let LogEvent::Offered(offered) = &log.event
            {
                let downloader = reading.clients.number(log.guid);
                for peer in &offered.peers {
                    reading.offer(downloader, peer.intro, &peer.upload_key);
                }
            }
        }
        Ok(())
    }

    /// Reads who completed which version on which day, for the chances that clients met.
    async fn read_demands(
        &mut self,
        reading: &mut Reading,
        from: Day,
        to: Day,
    ) -> Result<Vec<(Guid, VersionId, Day)>, sqlx::Error> {
        let text = "SELECT guid, version, day FROM download WHERE state = 2 AND day BETWEEN $1 AND $2";
        let mut rows = sqlx::query(text).bind(from.to_sql()).bind(to.to_sql()).fetch(&mut self.db.any);
        let mut all = Vec::new();
        while let Some(row) = rows.next().await {
            let row = row?;
            let guid = wire_at(&row, 0)?;
            reading.clients.number(guid);
            all.push((guid, wire_at(&row, 1)?, day_at(&row, 2)?));
        }
        Ok(all)
    }
}

impl Reading {
    fn download(&mut self, records: Option<Vec<LedgerRecord>>) {
        let Some(records) = records else { return };
        self.looked_at.downloads += 1;
        let granted = records.iter().find_map(|r| if let LedgerRecord::Granted(g) = r { Some(g.guid) } else { None });
        let Some(guid) = granted else { return };
        let downloader = self.clients.number(guid);
        let silent = records.iter().any(|r| matches!(r, LedgerRecord::Granted(g) if g.challenged))
            && records.iter().any(|r| is_completion(r, guid))
            && records.iter().filter_map(LedgerRecord::download).all(|d| !self.challenged.contains(&d));
        let ended = records.iter().any(|r| is_end(r, guid));
        let book: Book = records.into_iter().collect();
        let claims = book.claims(verify, 0);
        let less: u64 = claims.values().map(|c| c.receipted.saturating_sub(c.received)).sum();
        if ended && less > UNDERSTATED_MIN {
            let (downloads, bytes) = self.understated.entry(downloader).or_default();
            *downloads += 1;
            *bytes = bytes.saturating_add(less);
        }
        if silent && claims.values().any(|c| c.agreed > 0) {
            self.possession.entry(downloader).or_default().unanswered += 1;
        }
        for (intro, claims) in claims {
            if let Some(uploader) = claims.uploader.filter(|_| claims.agreed > 0) {
                let uploader = self.clients.number(uploader);
                self.agreed.insert(intro, Agreed { downloader, uploader, bytes: claims.agreed, offered: false });
            }
        }
    }

    fn possession(&mut self, r: &PossessionRecord) {
        self.challenged.insert(r.download);
        let client = self.clients.number(r.guid);
        let tally = self.possession.entry(client).or_default();
        match r.outcome {
            PossessionOutcome::Passed => tally.passed += 1,
            PossessionOutcome::Failed => tally.failed += 1,
            PossessionOutcome::Unanswered => tally.unanswered += 1,
            PossessionOutcome::Waived | PossessionOutcome::Rechecked => {}
        }
    }

    fn offer(&mut self, downloader: u32, intro: IntroId, key: &PublicKey) {
        let agreed = self.agreed.get_mut(&intro).filter(|a| a.downloader == downloader);
        let (known, bytes) = match agreed {
            Some(agreed) => {
                agreed.offered = true;
                (Some(agreed.uploader), agreed.bytes)
            }
            None => (self.clients.keys.get(key).copied(), 0),
        };
        // an upload key whose login is outside this span belongs to no known client
        let Some(uploader) = known else { return };
        let near = self.clients.near(downloader, uploader);
        self.offers.push(Offer { downloader, uploader, near, bytes });
    }

    fn judge(mut self, from: Day, to: Day, demands: Vec<(Guid, VersionId, Day)>) -> Suspects {
        let clients = u32::try_from(self.clients.guids.len()).unwrap_or(u32::MAX);
        self.looked_at.clients = self.clients.guids.len();
        self.looked_at.offers = self.offers.len();
        let affinity = Affinity::of(clients, self.offers.iter().copied());
        let cliques = detect::cliques::find(&affinity).into_iter().map(|c| CliqueFound {
            members: c.members.iter().map(|m| self.clients.name(*m)).collect(),
            offered: c.offered,
            used: c.used,
            bytes: c.bytes,
            inside_permille: c.inside_permille,
            bits: c.bits,
        });
        let (repeated_by_client, repeated_by_network) = self.repeated(&demands);
        let histories =
            Histories::of(self.clients.starts.iter().map(|(n, (s, logins))| (self.clients.name(*n), s, *logins)));
        self.looked_at.graphs = histories.graphs;
        Suspects {
            days: (from.to_string(), to.to_string()),
            cliques: cliques.collect(),
            repeated_by_client,
            repeated_by_network,
            not_offered: self.not_offered(),
            failed_possession: self.failed_possession(),
            blamed: self.blames.found(|guid| self.clients.network(*guid)),
            understated: self.understated(),
            travel: self.travel(),
            forked: self.forked(),
            gaps: histories.gaps,
            looked_at: self.looked_at,
        }
    }

    fn repeated(&self, demands: &[(Guid, VersionId, Day)]) -> (Vec<RepeatedFound>, Vec<RepeatedFound>) {
        let mut versions: BTreeMap<VersionId, u32> = BTreeMap::new();
        let mut networks: BTreeMap<String, u32> = BTreeMap::new();
        let (mut by_client, mut by_network) = (Vec::new(), Vec::new());
        for (guid, version, day) in demands {
            let next = u32::try_from(versions.len()).unwrap_or(u32::MAX);
            let version = *versions.entry(*version).or_insert(next);
            let Some(&who) = self.clients.numbers.get(guid) else { continue };
            by_client.push(Demand { who, version, day: day.0 });
            if let Some(ip) = self.clients.addresses[who as usize] {
                let next = u32::try_from(networks.len()).unwrap_or(u32::MAX);
                let who = *networks.entry(network(ip)).or_insert(next);
                by_network.push(Demand { who, version, day: day.0 });
            }
        }
        let versions: Vec<String> = by_number(&versions).into_iter().map(ToString::to_string).collect();
        let networks: Vec<String> = by_number(&networks).into_iter().cloned().collect();
        let found = |r: &Repeated, who: String| RepeatedFound {
            who,
            version: versions.get(r.demand.version as usize).cloned().unwrap_or_default(),
            day: Day(r.demand.day).to_string(),
            times: r.times,
        };
        let by_client = demand::repeated(by_client, demand::BY_CLIENT_MAX);
        let by_network = demand::repeated(by_network, demand::BY_NETWORK_MAX);
        let of_network = |who: u32| networks.get(who as usize).cloned().unwrap_or_default();
        (
            by_client.iter().map(|r| found(r, self.clients.name(r.demand.who))).collect(),
            by_network.iter().map(|r| found(r, of_network(r.demand.who))).collect(),
        )
    }

    fn travel(&mut self) -> Vec<TravelFound> {
        let found = self.clients.sightings.iter_mut().filter_map(|(n, s)| Some((*n, travel::implausible(s)?)));
        let found: Vec<(u32, Travel)> = found.collect();
        let spot = |s: &Sighting| Spot::from(s.location.locality);
        let of = |(client, t): (u32, Travel)| TravelFound {
            guid: self.clients.name(client),
            moves: t.moves,
            from: spot(&t.from).to_string(),
            to: spot(&t.to).to_string(),
            distance_km: t.distance_km,
            seconds: t.to.at_ms.saturating_sub(t.from.at_ms) / 1_000,
        };
        found.into_iter().map(of).collect()
    }

    fn not_offered(&self) -> Vec<NotOffered> {
        // without any logged offer the CNs do not log at all, and missing offers mean nothing
        if self.offers.is_empty() {
            return Vec::new();
        }
        let mut sums: BTreeMap<(u32, u32), (u64, u64)> = BTreeMap::new();
        for a in self.agreed.values().filter(|a| !a.offered) {
            let (introductions, bytes) = sums.entry((a.downloader, a.uploader)).or_default();
            *introductions += 1;
            *bytes = bytes.saturating_add(a.bytes);
        }
        let many = sums.into_iter().filter(|(_, (introductions, _))| *introductions >= NOT_OFFERED_MIN);
        let found = many.map(|((downloader, uploader), (introductions, bytes))| NotOffered {
            downloader: self.clients.name(downloader),
            uploader: self.clients.name(uploader),
            introductions,
            bytes,
        });
        found.collect()
    }

    /// Returns the clients that failed challenges of possession.
    fn failed_possession(&self) -> Vec<PossessionFound> {
        let found = |(client, t): (&u32, &Tally)| PossessionFound {
            guid: self.clients.name(*client),
            passed: t.passed,
            failed: t.failed,
            unanswered: t.unanswered,
        };
        self.possession.iter().filter(|(_, t)| t.is_conspicuous()).map(found).collect()
    }

    /// Returns the downloaders that reported fewer bytes than their receipts prove.
    fn understated(&self) -> Vec<Understated> {
        let found = |(client, (downloads, bytes)): (&u32, &(u64, u64))| Understated {
            guid: self.clients.name(*client),
            downloads: *downloads,
            bytes: *bytes,
        };
        self.understated.iter().map(found).collect()
    }

    fn forked(&self) -> Vec<Forked> {
        let forked = |(number, (starts, logins)): (&u32, &(Starts, u64))| {
            let history = starts.history();
            let pattern = history.pattern();
            pattern.is_forked().then(|| Forked {
                guid: self.clients.name(*number),
                pattern: Pattern::name(pattern),
                forks: history.graphs.iter().flat_map(|g| &g.forks).map(ToString::to_string).collect(),
                logins: *logins,
            })
        };
        self.clients.starts.iter().filter_map(forked).collect()
    }
}

/// Returns whether a record is the downloader's report of completion.
fn is_completion(record: &LedgerRecord, guid: Guid) -> bool {
    let is = |u: &UsageRecord| u.side == Side::Downloader && u.state == UsageState::Completed && u.reporter == guid;
    record.usage().is_some_and(is)
}

/// Returns whether a record is the downloader's final report (completed, cancelled, failed).
fn is_end(record: &LedgerRecord, guid: Guid) -> bool {
    let is = |u: &UsageRecord| u.side == Side::Downloader && u.state != UsageState::Running && u.reporter == guid;
    record.usage().is_some_and(is)
}

/// Returns the keys of a map, ordered by their numbers.
fn by_number<T>(numbers: &BTreeMap<T, u32>) -> Vec<&T> {
    let mut all: Vec<(&T, &u32)> = numbers.iter().collect();
    all.sort_by_key(|(_, number)| **number);
    all.into_iter().map(|(thing, _)| thing).collect()
}
