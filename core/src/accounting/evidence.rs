//! Evidence: selects the records of a download that count for its bill. Reports of clients and edges are cumulative:
//! of one reporter's records the newest counts, and of the older ones only those on which the bill still depends:
//!
//! - the first record of all, which sets the time at which the download expires;
//! - the newest before each quarantine of the reporter, which limits what counts of its later reports;
//! - the first final report (complete, cancelled or failed) with no later report that the download goes on, which sets
//!   the time at which the download closes;
//! - a report that the download goes on, which takes back a final report that is held for one of the reasons above.
//!
//! Of grants, the one that was issued first counts, and any that replaced a held grant to another client.
//!
//! All other records may be dropped for good, so that a download's storage depends on the number of its reporters, not
//! on the number of their records. Invariant: a [`Book`] of the held records yields the same bill and closing time as a
//! book of all records, now and after any further record. For that, a book must never close earlier between two held
//! records than with the dropped ones between them: otherwise it would take the later of the two for late.

use super::quarantine::Quarantines;
use super::settlement::Book;
use crate::ids::{Digest, Guid, PublicKey, RecordId};
use crate::wire::Wire as _;
use crate::wire::records::{LedgerRecord, Logged, Side, UsageState};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use sha2::{Digest as _, Sha256};

/// Prefix of the hash input of a usage record's key.
const KEY_TEXT: &[u8] = b"swarmedge/1 usage record\0";

/// Returns the key under which the ledger stores a record. Clients choose the ids of their records, so a usage
/// record's key also depends on its reporter: a client cannot block the record of another client or server by using
/// its id first.
#[must_use]
pub fn key(record: &LedgerRecord) -> RecordId {
    let Some(r) = record.usage() else { return record.id() };
    let side = match r.side {
        Side::Downloader => [1],
        Side::Uploader => [2],
    };
    let hash = Sha256::new_with_prefix(KEY_TEXT).chain_update(side).chain_update(r.reporter.0).chain_update(r.id.0);
    let mut key = [0; RecordId::LEN];
    key.copy_from_slice(&hash.finalize()[..RecordId::LEN]);
    RecordId(key)
}

/// Reporter of cumulative records about one download; each record replaces the reporter's earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Source {
    Downloader(Guid),
    Uploader(Guid),
    Edge(PublicKey),
    /// An edge, and the time at which that edge's count of this download began (`life`, Unix milliseconds).
    Served(PublicKey, u64),
}

/// Returns the source and number of a record; `None` for a record that replaces no other.
fn source(record: &LedgerRecord) -> Option<(Source, u32)> {
    match record {
        LedgerRecord::Usage(Logged { record: r, .. }) => match r.side {
            Side::Downloader => Some((Source::Downloader(r.reporter), r.seq)),
            Side::Uploader => Some((Source::Uploader(r.reporter), r.seq)),
        },
        LedgerRecord::Edge(r) => Some((Source::Edge(r.edge), r.seq)),
        LedgerRecord::Served(r) => Some((Source::Served(r.edge, r.life), r.seq)),
        LedgerRecord::Granted(_) | LedgerRecord::Log(_) | LedgerRecord::Possession(_) => None,
    }
}

/// Sorts records that the ledger received in one millisecond, given in the order of their [`key`]s: the records of
/// each reporter are put into the order of their numbers, at the indices where that reporter's records were.
/// Otherwise a report that a download continues could come after the final report that follows it, and would not
/// count.
#[must_use]
pub fn in_turn(records: Vec<LedgerRecord>) -> Vec<LedgerRecord> {
    let mut places: BTreeMap<Source, Vec<(u32, usize)>> = BTreeMap::new();
    for (index, (source, seq)) in records.iter().enumerate().filter_map(|(n, r)| Some((n, source(r)?))) {
        places.entry(source).or_default().push((seq, index));
    }
    let mut turns: Vec<usize> = (0..records.len()).collect();
    for of_one in places.values_mut() {
        let free: Vec<usize> = of_one.iter().map(|(_, index)| *index).collect();
        of_one.sort_unstable();
        of_one.iter().zip(free).for_each(|((_, from), to)| turns[*from] = to);
    }
    let mut records: Vec<_> = turns.into_iter().zip(records).collect();
    records.sort_unstable_by_key(|(turn, _)| *turn);
    records.into_iter().map(|(_, record)| record).collect()
}

/// Returns whether a record is a downloader's final report (complete, cancelled or failed).
const fn is_final_report(record: &LedgerRecord) -> bool {
    match record.usage() {
        Some(r) => matches!(
            (r.side, r.state),
            (Side::Downloader, UsageState::Completed | UsageState::Cancelled | UsageState::Failed)
        ),
        None => false,
    }
}

/// A record that does not count for the bill, whichever records come later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dropped {
    /// Time at which the record was received, Unix milliseconds.
    pub came_ms: u64,
    /// The record that does not count.
    pub record: LedgerRecord,
    /// Whether the record came after the download was closed; otherwise another record has replaced it.
    pub late: bool,
}

/// The records of one download that count for its bill. Records are added in the order in which the ledger received
/// them, those of one millisecond in the order of [`in_turn`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// Settlement of all records so far, which decides which records are late.
    book: Book,
    quarantines: Quarantines,
    /// The records that count, by the order in which they were added, each with its time of arrival.
    held: BTreeMap<u64, (u64, LedgerRecord)>,
    /// The records of each source that count, oldest first, as keys of `held`.
    chains: BTreeMap<Source, Vec<u64>>,
    /// The grants kept, as keys of `held`. The last one was issued first, and only that one counts for the bill.
    grants: Vec<u64>,
    next: u64,
}

impl Evidence {
    /// Creates evidence without records. `quarantines` are those of all clients that report, and of the client that
    /// holds the grant.
    #[must_use]
    pub fn new(quarantines: Quarantines) -> Self {
        Self {
            book: Book::strict().with_quarantines(quarantines.clone()),
            quarantines,
            held: BTreeMap::new(),
            chains: BTreeMap::new(),
            grants: Vec::new(),
            next: 0,
        }
    }

    /// Adds a record that was received at `came_ms` (Unix milliseconds) and returns the records that do not count
    /// from now on.
    pub fn add(&mut self, came_ms: u64, record: LedgerRecord) -> Vec<Dropped> {
        let late = self.book.late();
        self.book.add(record.clone(), came_ms);
        if self.book.late() != late {
            return vec![Dropped { came_ms, record, late: true }];
        }
        let at = self.next;
        let gone = match (source(&record), &record) {
            (Some((source, seq)), _) => {
                let chain = self.chains.get(&source).cloned().unwrap_or_default();
                if chain.last().is_some_and(|last| self.seq(*last) >= seq) {
                    return vec![Dropped { came_ms, record, late: false }];
                }
                self.hold(came_ms, record);
                self.replace(source, chain, at)
            }
            (None, LedgerRecord::Granted(_)) => {
                if self.grants.last().is_some_and(|old| self.issued(*old) <= issued(&record)) {
                    return vec![Dropped { came_ms, record, late: false }];
                }
                self.hold(came_ms, record);
                self.grant(at)
            }
            (None, _) => {
                self.hold(came_ms, record);
                Vec::new()
            }
        };
        debug_assert!(gone.iter().all(|gone| self.held.contains_key(gone)), "what no longer counts was held");
        let gone = gone.into_iter().filter_map(|at| self.held.remove(&at));
        gone.map(|(came_ms, record)| Dropped { came_ms, record, late: false }).collect()
    }

    /// Asserts that `held` has exactly the records listed in `chains` and `grants`, and those of kinds that replace
    /// no other record.
    pub fn check(&self) {
        self.book.check();
        let mut of_one = 0;
        for (of, chain) in &self.chains {
            let is_of = |at: &u64| self.held.get(at).and_then(|(_, r)| source(r)).is_some_and(|(s, _)| s == *of);
            assert!(chain.iter().all(is_of), "a chain holds its source's records");
            assert!(chain.is_sorted_by(|a, b| a < b && self.seq(*a) < self.seq(*b)), "a chain's records are in order");
            of_one += chain.len();
        }
        let in_chain = self.held.values().filter(|(_, r)| source(r).is_some()).count();
        assert!(in_chain == of_one, "a source's records are in its chain");
        assert!(self.grants.iter().all(|at| self.downloader(*at).is_some()), "a grant that counts is held");
        let earlier = |a: &u64, b: &u64| a < b && self.issued(*a) > self.issued(*b);
        assert!(self.grants.is_sorted_by(earlier), "a later grant counts only if it was issued before");
        let granted = self.held.values().filter(|(_, r)| issued(r).is_some()).count();
        assert!(granted == self.grants.len(), "a held grant counts");
        assert!(self.held.last_key_value().is_none_or(|(at, _)| *at < self.next), "records are numbered in order");
    }

    fn hold(&mut self, came_ms: u64, record: LedgerRecord) {
        self.held.insert(self.next, (came_ms, record));
        self.next += 1;
    }

    /// Appends the newest record of a source to its chain, and returns the records of the chain that no longer count.
    fn replace(&mut self, source: Source, mut chain: Vec<u64>, at: u64) -> Vec<u64> {
        chain.push(at);
        let mut gone = Vec::new();
        let mut index = 0;
        while let [old, next, ..] = chain[index..] {
            if old == 0 || self.is_cut(source, old, next) || self.dates_end(&chain, index) {
                index += 1;
            } else {
                gone.push(chain.remove(index));
            }
        }
        self.chains.insert(source, chain);
        gone
    }

    /// Adds a grant that was issued before all other grants, and returns the grant that it replaces. An older grant
    /// is kept if the grant added before it is another client's, whose final report would otherwise end the download
    /// in the meantime.
    fn grant(&mut self, at: u64) -> Vec<u64> {
        let gone = match self.grants[..] {
            [] | [0] => None,
            [.., before, old] if self.downloader(before) != self.downloader(old) => None,
            [.., old] => Some(old),
        };
        self.grants.retain(|held| Some(*held) != gone);
        self.grants.push(at);
        gone.into_iter().collect()
    }

    /// Returns whether the time of a downloader's final report, now or at the arrival of a later record, depends on
    /// this record of the chain: the first final report with no later report that the download goes on, or a report
    /// that the download goes on after a final one.
    fn dates_end(&self, chain: &[u64], index: usize) -> bool {
        let ends = |at: &u64| self.held.get(at).is_some_and(|(_, record)| is_final_report(record));
        let (before, since) = chain.split_at(index);
        let had_ended = before.last().is_some_and(ends);
        if since.first().is_some_and(ends) { !had_ended && since.iter().all(ends) } else { had_ended }
    }

    /// Returns whether a quarantine of the reporter `source` began between the arrivals of two of its records.
    fn is_cut(&self, source: Source, old: u64, next: u64) -> bool {
        let (Source::Downloader(guid) | Source::Uploader(guid)) = source else { return false };
        let came = |at: u64| self.held.get(&at).map_or(0, |(came_ms, _)| *came_ms);
        self.quarantines.begins(guid).any(|begin| came(old) < begin && begin <= came(next))
    }

    fn seq(&self, at: u64) -> u32 {
        self.held.get(&at).and_then(|(_, r)| source(r)).map_or(0, |(_, seq)| seq)
    }

    /// Returns the client that the grant with this key names; `None` if the record is no grant.
    fn downloader(&self, at: u64) -> Option<Guid> {
        self.held.get(&at).and_then(|(_, r)| if let LedgerRecord::Granted(g) = r { Some(g.guid) } else { None })
    }

    fn issued(&self, at: u64) -> Option<(u64, RecordId)> {
        self.held.get(&at).and_then(|(_, r)| issued(r))
    }

    /// Returns the records that count, each with its time of arrival, Unix milliseconds.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = (u64, &LedgerRecord)> {
        self.held.values().map(|(came_ms, record)| (*came_ms, record))
    }

    /// Returns the settlement computed from the records that count.
    #[must_use]
    pub fn book(&self) -> Book {
        book_of(&self.quarantines, self.records())
    }

    /// Returns the SHA-256 over the records that count ([`digest_of`]).
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest_of(self.records())
    }
}

fn issued(record: &LedgerRecord) -> Option<(u64, RecordId)> {
    if let LedgerRecord::Granted(g) = record { Some((g.issued_ms, g.id)) } else { None }
}

/// Returns the settlement of exactly these records, each given with its time of arrival, Unix milliseconds.
pub fn book_of<'a>(quarantines: &Quarantines, records: impl Iterator<Item = (u64, &'a LedgerRecord)>) -> Book {
    let mut book = Book::strict().with_quarantines(quarantines.clone());
    records.for_each(|(came_ms, record)| book.add(record.clone(), came_ms));
    book
}

/// Returns SHA-256 over records: for each its time of arrival and length, 8 bytes each, and its encoding.
pub fn digest_of<'a>(records: impl Iterator<Item = (u64, &'a LedgerRecord)>) -> Digest {
    let mut hash = Sha256::new();
    for (came_ms, record) in records {
        let bytes = record.to_bytes();
        hash.update(came_ms.to_be_bytes());
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    Digest(hash.finalize().into())
}

#[cfg(test)]
mod tests;
