//! Evidence: the records of one download that its bill depends on. Clients and edges report cumulative figures, so of
//! one source's records the newest counts. Of the older ones these are held too:
//!
//! - the first record of all: the download expires a fixed time after it;
//! - the newest record before each quarantine of the reporter: it limits how much of later reports is billed;
//! - the first of the final reports (completed, cancelled, failed) that still stand: the download closes a fixed time
//!   after it;
//! - a report that the download is running again, as long as the final report it revokes is held for one of the reasons
//!   above.
//!
//! Of several grants the one issued first counts; also held is a grant to another client that it has replaced.
//!
//! All other records may be dropped for good, so that the cost of a download depends on the number of its reporters,
//! not of their reports. The rule behind the list: a [`Book`] that is fed only the held records makes the same bill,
//! and closes at the same time, as one that was fed all records, and still does so after any further record. For that,
//! a book must never close earlier between two held records than it did with the dropped ones between them: else it
//! would treat the later of the two as late.

use super::quarantine::Quarantines;
use super::settlement::Book;
use crate::ids::{Digest, Guid, PublicKey, RecordId};
use crate::wire::Wire as _;
use crate::wire::records::{LedgerRecord, Side, UsageState};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use sha2::{Digest as _, Sha256};

/// Prefix of the hash that makes a usage record's storage key.
const KEY_TEXT: &[u8] = b"swarmedge/1 usage record\0";

/// Returns the key under which a record is stored. Clients choose the ids of their records, so the key of a usage
/// record also hashes its reporter and side: nobody can occupy the id of another client's or a server's record before
/// that arrives.
#[must_use]
pub fn key(record: &LedgerRecord) -> RecordId {
    let LedgerRecord::Usage(r) = record else { return record.id() };
    let side = match r.side {
        Side::Downloader => [1],
        Side::Uploader => [2],
    };
    let hash = Sha256::new_with_prefix(KEY_TEXT).chain_update(side).chain_update(r.reporter.0).chain_update(r.id.0);
    let mut key = [0; RecordId::LEN];
    key.copy_from_slice(&hash.finalize()[..RecordId::LEN]);
    RecordId(key)
}

/// A source of cumulative records: only its newest record counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Source {
    Downloader(Guid),
    Uploader(Guid),
    Edge(PublicKey),
    /// An edge's key and the life of its counts.
    Served(PublicKey, u64),
}

/// Returns a record's source and number; `None` for a record that replaces no other.
fn source(record: &LedgerRecord) -> Option<(Source, u32)> {
    match record {
        LedgerRecord::Usage(r) => match r.side {
            Side::Downloader => Some((Source::Downloader(r.reporter), r.seq)),
            Side::Uploader => Some((Source::Uploader(r.reporter), r.seq)),
        },
        LedgerRecord::Edge(r) => Some((Source::Edge(r.edge), r.seq)),
        LedgerRecord::Served(r) => Some((Source::Served(r.edge, r.life), r.seq)),
        LedgerRecord::Granted(_) | LedgerRecord::Log(_) | LedgerRecord::Possession(_) => None,
    }
}

/// Sorts records that came in one millisecond, given in the order of their [`key`]s: the records of each source swap
/// places among themselves until their numbers ascend. Without this, if a downloader's report of running and its next
/// final report came together, the first would be lost half of the time, and an earlier final report would close the
/// download.
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

/// Whether a record is a downloader's final report: completed, cancelled or failed.
const fn is_final_report(record: &LedgerRecord) -> bool {
    match record {
        LedgerRecord::Usage(r) => matches!(
            (r.side, r.state),
            (Side::Downloader, UsageState::Completed | UsageState::Cancelled | UsageState::Failed)
        ),
        LedgerRecord::Edge(_)
        | LedgerRecord::Served(_)
        | LedgerRecord::Granted(_)
        | LedgerRecord::Log(_)
        | LedgerRecord::Possession(_) => false,
    }
}

/// A record that does not count, whatever comes later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dropped {
    /// Time at which the record was received, Unix milliseconds.
    pub came_ms: u64,
    /// The record that was dropped.
    pub record: LedgerRecord,
    /// Whether the record came after the download had closed; otherwise a newer record has replaced it.
    pub late: bool,
}

/// The records of one download that count. Records are added in the order in which they were received; those of one
/// millisecond are sorted [first](in_turn).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// A book of all records, dropped ones included: it decides which records are late.
    book: Book,
    quarantines: Quarantines,
    /// The records that count and the times they came, by the order in which they were added.
    held: BTreeMap<u64, (u64, LedgerRecord)>,
    /// The held records of each source, oldest first, as keys of `held`.
    chains: BTreeMap<Source, Vec<u64>>,
    /// The held grants, as keys of `held`. The last one was issued first and is the one that counts.
    grants: Vec<u64>,
    next: u64,
}

impl Evidence {
    /// Creates evidence without records. `quarantines` are those of all reporters and of the client with the grant.
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

    /// Adds a record and returns the records that do not count, or no longer count.
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
        let gone = gone.into_iter().filter_map(|at| self.held.remove(&at));
        gone.map(|(came_ms, record)| Dropped { came_ms, record, late: false }).collect()
    }

    fn hold(&mut self, came_ms: u64, record: LedgerRecord) {
        self.held.insert(self.next, (came_ms, record));
        self.next += 1;
    }

    /// Appends a source's newest record to its chain; removes and returns the records that no longer count.
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

    /// Adds a grant that was issued before all held ones. Returns the grant it replaces, unless the one before that is
    /// to another client: that client's final reports would end the download in the time between.
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

    /// Whether this record of a chain decides when the downloader ended, now or when later records came. That is the
    /// first of the final reports that stand, and a report of running that revokes the final report held before it.
    fn dates_end(&self, chain: &[u64], index: usize) -> bool {
        let ends = |at: &u64| self.held.get(at).is_some_and(|(_, record)| is_final_report(record));
        let (before, since) = chain.split_at(index);
        let had_ended = before.last().is_some_and(ends);
        if since.first().is_some_and(ends) { !had_ended && since.iter().all(ends) } else { had_ended }
    }

    /// Whether a quarantine of the reporter began between two of its records.
    fn is_cut(&self, source: Source, old: u64, next: u64) -> bool {
        let (Source::Downloader(guid) | Source::Uploader(guid)) = source else { return false };
        let came = |at: u64| self.held.get(&at).map_or(0, |(came_ms, _)| *came_ms);
        self.quarantines.begins(guid).any(|begin| came(old) < begin && begin <= came(next))
    }

    fn seq(&self, at: u64) -> u32 {
        self.held.get(&at).and_then(|(_, r)| source(r)).map_or(0, |(_, seq)| seq)
    }

    /// Returns the client that a held grant names.
    fn downloader(&self, at: u64) -> Option<Guid> {
        self.held.get(&at).and_then(|(_, r)| if let LedgerRecord::Granted(g) = r { Some(g.guid) } else { None })
    }

    fn issued(&self, at: u64) -> Option<(u64, RecordId)> {
        self.held.get(&at).and_then(|(_, r)| issued(r))
    }

    /// Returns the records that count and the times they came, in the order in which they were added.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = (u64, &LedgerRecord)> {
        self.held.values().map(|(came_ms, record)| (*came_ms, record))
    }

    /// Returns a book of the records that count.
    #[must_use]
    pub fn book(&self) -> Book {
        book_of(&self.quarantines, self.records())
    }

    /// Returns the [`digest_of`] the records that count.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest_of(self.records())
    }
}

fn issued(record: &LedgerRecord) -> Option<(u64, RecordId)> {
    if let LedgerRecord::Granted(g) = record { Some((g.issued_ms, g.id)) } else { None }
}

/// Returns a ledger's book of exactly these records, each with the time it came.
pub fn book_of<'a>(quarantines: &Quarantines, records: impl Iterator<Item = (u64, &'a LedgerRecord)>) -> Book {
    let mut book = Book::strict().with_quarantines(quarantines.clone());
    records.for_each(|(came_ms, record)| book.add(record.clone(), came_ms));
    book
}

/// Returns SHA-256 over records: for each its time, its length (8 bytes each) and its encoding.
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
