//! What the ledger's records and logs say of who may cheat: reads them, numbers the clients, and asks the core's rules
//! (`accounting::detect`, `accounting::clones`).

use super::day::Day;
use super::gaps::{GapFound, Histories};
use super::places::Spot;
use super::store::{LOCATED, LOGS_FROM, POSSESSION, decode};
use super::usage::Reader;
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
    LedgerRecord, LogEvent, Login, PossessionOutcome, PossessionRecord, Side, UsageState,
};
use swarmedge_ground::error::Error;
use swarmedge_ground::keys::verify;

/// What was found of a span of days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Suspects {
    /// The first day, and the last.
    pub days: (String, String),
    /// What was looked at: clients, logins, offers, downloads.
    pub looked_at: LookedAt,
    /// Groups that take from one another what the offers do not explain.
    pub cliques: Vec<CliqueFound>,
    /// Versions that a client demanded again and again.
    pub repeated_by_client: Vec<RepeatedFound>,
    /// Versions that a network demanded again and again.
    pub repeated_by_network: Vec<RepeatedFound>,
    /// Bytes agreed over introductions that no CN logged.
    pub not_offered: Vec<NotOffered>,
    /// Clients that could not, or would not, prove that they hold what they completed. Weak evidence where the content
    /// is public: it adds to other findings.
    pub failed_possession: Vec<PossessionFound>,
    /// Clients that signed for more than they filed: of peers' bytes the smaller claim is billed, so these were for
    /// nothing.
    pub understated: Vec<Understated>,
    /// Clients that logged in from places too far apart for the time, again and again.
    pub travel: Vec<TravelFound>,
    /// Installations that were set back or cloned: to be given a new key, not guilty.
    pub forked: Vec<Forked>,
    /// Installations of which too many starts in a row are missing to say how they hang together: what is not known,
    /// no accusation.
    pub gaps: Vec<GapFound>,
}

impl Suspects {
    /// GUIDs of those whom the findings accuse; a fork is no accusation, nor is what a network does.
    #[must_use]
    pub fn guids(&self) -> BTreeSet<String> {
        let members = self.cliques.iter().flat_map(|c| &c.members);
        let pairs = self.not_offered.iter().flat_map(|n| [&n.downloader, &n.uploader]);
        members.chain(pairs).chain(self.repeated_by_client.iter().map(|r| &r.who)).cloned().collect()
    }
}

/// See [`Suspects::looked_at`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LookedAt {
    /// Clients.
    pub clients: usize,
    /// Logins.
    pub logins: u64,
    /// Offers of one peer for one download.
    pub offers: usize,
    /// Downloads with any record.
    pub downloads: u64,
    /// Graphs of secondary GUIDs of each pattern, as figure 12 of the paper counts them.
    pub graphs: BTreeMap<&'static str, u64>,
}

/// See [`detect::Clique`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CliqueFound {
    /// GUIDs.
    pub members: Vec<String>,
    /// How often members were offered to members.
    pub offered: u64,
    /// How often they were used.
    pub used: u64,
    /// Bytes among members.
    pub bytes: u64,
    /// The part of their peers' bytes that members had from members, in thousandths.
    pub inside_permille: u64,
    /// How unlikely it is, in bits.
    pub bits: u64,
}

/// One version, demanded more often than anybody needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepeatedFound {
    /// GUID, or network.
    pub who: String,
    /// The version, hexadecimal.
    pub version: String,
    /// The day.
    pub day: String,
    /// How often it was completed.
    pub times: u64,
}

/// See [`Suspects::not_offered`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotOffered {
    /// GUID of the downloader.
    pub downloader: String,
    /// GUID of the uploader.
    pub uploader: String,
    /// Introductions.
    pub introductions: u64,
    /// Bytes.
    pub bytes: u64,
}

/// See [`Suspects::failed_possession`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PossessionFound {
    /// GUID.
    pub guid: String,
    /// Challenges passed.
    pub passed: u64,
    /// Answered wrongly.
    pub failed: u64,
    /// Not answered, or no edge was told that the download was complete.
    pub unanswered: u64,
}

/// See [`Suspects::understated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Understated {
    /// GUID.
    pub guid: String,
    /// In how many downloads.
    pub downloads: u64,
    /// Bytes that it receipted beyond what it filed at the end.
    pub bytes: u64,
}

/// An installation whose starts fork.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forked {
    /// GUID.
    pub guid: String,
    /// As figure 12 of the paper has it.
    pub pattern: &'static str,
    /// Starts that were lived through more than once: secondary GUIDs.
    pub forks: Vec<String>,
    /// How often it logged in.
    pub logins: u64,
}

/// See [`Suspects::travel`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TravelFound {
    /// GUID.
    pub guid: String,
    /// How often it moved faster than anybody travels.
    pub moves: u64,
    /// The fastest of these moves: from where, to where (country and network),
    pub from: String,
    /// See `from`.
    pub to: String,
    /// how far, at least,
    pub distance_km: u64,
    /// and in how many seconds.
    pub seconds: u64,
}

/// Fewer introductions without an offer may be those of a CN that died before it told.
const NOT_OFFERED_MIN: u64 = 4;
/// What a crash loses was receipted and is not filed: up to the most that is open at a time.
const UNDERSTATED_MIN: u64 = CREDIT_MAX;

/// Clients, numbered as they come.
#[derive(Default)]
struct Clients {
    numbers: BTreeMap<Guid, u32>,
    guids: Vec<Guid>,
    addresses: Vec<Option<IpAddr>>,
    /// Whose upload keys are whose.
    keys: BTreeMap<PublicKey, u32>,
    starts: BTreeMap<u32, (Starts, u64)>,
    /// Where geolocation saw them.
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
        self.addresses[number as usize] = Some(login.observed.ip());
        self.keys.insert(login.upload_key, number);
        let (starts, logins) = self.starts.entry(number).or_default();
        starts.login(&login.secondary);
        *logins += 1;
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

/// A home's or an office's part of the address space, as text.
fn network(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    }
}

/// What both sides of an introduction agree on.
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
    /// Downloads whose challenges had an outcome.
    challenged: BTreeSet<DownloadId>,
    possession: BTreeMap<u32, Tally>,
    /// Downloads and bytes.
    understated: BTreeMap<u32, (u64, u64)>,
    looked_at: LookedAt,
}

impl Reader {
    /// Looks at all that came on a span of days.
    pub async fn suspects(&mut self, from: Day, to: Day) -> Result<Suspects, Error> {
        let mut reading = Reading::default();
        self.read_logins(&mut reading, from, to).await.map_err(|e| self.failed(&e))?;
        self.read_possession(&mut reading, from, to).await.map_err(|e| self.failed(&e))?;
        self.read_usage(&mut reading, from, to).await.map_err(|e| self.failed(&e))?;
        self.read_offers(&mut reading, from, to).await.map_err(|e| self.failed(&e))?;
        let demands = self.read_demands(&mut reading, from, to).await.map_err(|e| self.failed(&e))?;
        Ok(reading.judge(from, to, demands))
    }

    /// The days on which anything came, first and last.
    pub async fn days_with_records(&mut self) -> Result<Option<(Day, Day)>, Error> {
        let row = sqlx::query("SELECT MIN(day), MAX(day) FROM record").fetch_one(&mut self.db.any).await;
        let days = row.and_then(|row| Ok((row.try_get::<Option<i64>, _>(0)?, row.try_get::<Option<i64>, _>(1)?)));
        let (first, last) = days.map_err(|e| self.failed(&e))?;
        Ok(first.zip(last).map(|(first, last)| (Day::from_sql(first), Day::from_sql(last))))
    }

    async fn read_logins(&mut self, reading: &mut Reading, from: Day, to: Day) -> Result<(), sqlx::Error> {
        let text = "SELECT body FROM record WHERE kind IN ($1, $2) AND day BETWEEN $3 AND $4 ORDER BY received_ms";
        let query = sqlx::query(text).bind(LOGS_FROM).bind(LOCATED).bind(from.to_sql()).bind(to.to_sql());
        let mut rows = query.fetch(&mut self.db.any);
        while let Some(row) = rows.next().await {
            let LedgerRecord::Log(log) = decode(&row?, 0)? else { continue };
            match &log.event {
                LogEvent::Login(login) => {
                    reading.clients.login(log.guid, login);
                    reading.looked_at.logins += 1;
                }
                LogEvent::Located(place) => {
                    let number = reading.clients.number(log.guid);
                    let sighting = Sighting { at_ms: log.at_ms, place: *place };
                    reading.clients.sightings.entry(number).or_default().push(sighting);
                }
                LogEvent::Registered(_) | LogEvent::Offered(_) | LogEvent::Head(_) | LogEvent::Rekeyed(_) => {}
            }
        }
        Ok(())
    }

    async fn read_possession(&mut self, reading: &mut Reading, from: Day, to: Day) -> Result<(), sqlx::Error> {
        let text = "SELECT body FROM record WHERE kind = $1 AND day BETWEEN $2 AND $3";
        let query = sqlx::query(text).bind(POSSESSION).bind(from.to_sql()).bind(to.to_sql());
        let mut rows = query.fetch(&mut self.db.any);
        while let Some(row) = rows.next().await {
            if let LedgerRecord::Possession(r) = decode(&row?, 0)? {
                reading.possession(&r);
            }
        }
        Ok(())
    }

    /// The introductions that bytes came over, download after download.
    async fn read_usage(&mut self, reading: &mut Reading, from: Day, to: Day) -> Result<(), sqlx::Error> {
        let text = "SELECT download, body FROM record WHERE kind < $1 AND download IS NOT NULL
                    AND day BETWEEN $2 AND $3 ORDER BY download";
        let query = sqlx::query(text).bind(LOGS_FROM).bind(from.to_sql()).bind(to.to_sql());
        let mut rows = query.fetch(&mut self.db.any);
        let mut now: Option<(Vec<u8>, Vec<LedgerRecord>)> = None;
        while let Some(row) = rows.next().await {
            let row = row?;
            let (download, record) = (row.try_get::<Vec<u8>, _>(0)?, decode(&row, 1)?);
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
        let query = sqlx::query(text).bind(LOGS_FROM + 2).bind(from.to_sql()).bind(to.to_sql());
        let mut rows = query.fetch(&mut self.db.any);
        while let Some(row) = rows.next().await {
            if let LedgerRecord::Log(log) = decode(&row?, 0)?
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
            let bytes = |column: usize| row.try_get::<Vec<u8>, _>(column);
            let (Ok(guid), Ok(version)) = (bytes(0)?.try_into(), bytes(1)?.try_into()) else { continue };
            reading.clients.number(Guid(guid));
            all.push((Guid(guid), VersionId(version), Day::from_sql(row.try_get(2)?)));
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
            PossessionOutcome::Waived => {}
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
        // a key whose login is not in this span belongs to nobody that is known
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
        let spot = |s: &Sighting| Spot::from(s.place.locality);
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
        // a deployment whose CNs do not log says nothing by its silence
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

    fn failed_possession(&self) -> Vec<PossessionFound> {
        let found = |(client, t): (&u32, &Tally)| PossessionFound {
            guid: self.clients.name(*client),
            passed: t.passed,
            failed: t.failed,
            unanswered: t.unanswered,
        };
        self.possession.iter().filter(|(_, t)| t.is_conspicuous()).map(found).collect()
    }

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

/// Whether a record is its downloader's word that a download is complete.
fn is_completion(record: &LedgerRecord, guid: Guid) -> bool {
    matches!(record, LedgerRecord::Usage(u)
        if u.side == Side::Downloader && u.state == UsageState::Completed && u.reporter == guid)
}

/// Whether a record is its downloader's last word.
fn is_end(record: &LedgerRecord, guid: Guid) -> bool {
    matches!(record, LedgerRecord::Usage(u)
        if u.side == Side::Downloader && u.state != UsageState::Running && u.reporter == guid)
}

/// The keys of a map from things to their numbers, by these.
fn by_number<T>(numbers: &BTreeMap<T, u32>) -> Vec<&T> {
    let mut all: Vec<(&T, &u32)> = numbers.iter().collect();
    all.sort_by_key(|(_, number)| **number);
    all.into_iter().map(|(thing, _)| thing).collect()
}
