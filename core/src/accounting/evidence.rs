//! Which of a download's records count. What clients and edges say is cumulative: of one reporter's records the newest
//! counts, and of the older ones those that a bill depends on all the same:
//!
//! - the first record of all: the download expires so long after it;
//! - the newest before each quarantine of the reporter: it says what counts of what the reporter says later;
//! - the first of the last words that stand: the download closes so long after it;
//! - a word that takes back a last word, as long as that is held for one of the reasons above.
//!
//! Of grants the one that was issued first counts, and one to another client that a held grant has given way to.
//!
//! All others may go unread for good, so that a download costs what its reporters are, not what they send. The rule
//! behind the list: a [`Book`] that is fed what is held comes to the same bill, and closes at the same time, as one
//! that was fed everything, and so do both after whatever comes next. For that, a book must never close earlier between
//! two held records than with the dropped ones between them: else it would take the later of the two for late.

use super::quarantine::Quarantines;
use super::settlement::Book;
use crate::ids::{Digest, Guid, PublicKey, RecordId};
use crate::wire::Wire as _;
use crate::wire::records::{LedgerRecord, Side, UsageState};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use sha2::{Digest as _, Sha256};

/// Begins what a usage record is kept by.
const KEY_TEXT: &[u8] = b"swarmedge/1 usage record\0";

/// The key that a record is kept by. Clients choose the ids of their records: an id counts among its reporter's records
/// only, so that nobody can take the id of another's record, or of a server's, before that comes.
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

/// A source of records: of its records the newest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Source {
    Downloader(Guid),
    Uploader(Guid),
    Edge(PublicKey),
    /// An edge and its life.
    Served(PublicKey, u64),
}

/// The source and number of a record; none of a record that replaces no other.
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

/// Puts records that came in one millisecond, in the order of their [`key`]s, into the order in which they count: those
/// of one source change places among themselves until their numbers ascend. Else a downloader's word that it goes on
/// would be lost where its next end came with it, half of the time, and the end before would close the download.
#[must_use]
pub fn in_turn(records: Vec<LedgerRecord>) -> Vec<LedgerRecord> {
    let mut places: BTreeMap<Source, Vec<(u32, usize)>> = BTreeMap::new();
    for (place, (source, seq)) in records.iter().enumerate().filter_map(|(n, r)| Some((n, source(r)?))) {
        places.entry(source).or_default().push((seq, place));
    }
    let mut turns: Vec<usize> = (0..records.len()).collect();
    for of_one in places.values_mut() {
        let free: Vec<usize> = of_one.iter().map(|(_, place)| *place).collect();
        of_one.sort_unstable();
        of_one.iter().zip(free).for_each(|((_, from), to)| turns[*from] = to);
    }
    let mut records: Vec<_> = turns.into_iter().zip(records).collect();
    records.sort_unstable_by_key(|(turn, _)| *turn);
    records.into_iter().map(|(_, record)| record).collect()
}

/// Whether a record is a downloader's word that it has ended.
const fn is_last_word(record: &LedgerRecord) -> bool {
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

/// A record that does not count, or no longer counts, whatever comes next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dropped {
    /// When the record came, Unix milliseconds.
    pub came_ms: u64,
    /// The record.
    pub record: LedgerRecord,
    /// Whether the record came after the download was closed; otherwise another has replaced it.
    pub late: bool,
}

/// The records of one download that count. They are added in the order in which they came, those of one millisecond
/// [in turn](in_turn).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// The book of all records: which of them are late.
    book: Book,
    quarantines: Quarantines,
    /// The records that count, by the order in which they were added, and when they came.
    held: BTreeMap<u64, (u64, LedgerRecord)>,
    /// The held records of each source, the newest last.
    chains: BTreeMap<Source, Vec<u64>>,
    /// The held grants, the one that was issued first last: no other counts.
    grants: Vec<u64>,
    next: u64,
}

impl Evidence {
    /// Evidence of nothing yet. `quarantines` are those of the reporters, and of the client with the grant.
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

    /// Takes in a record, and gives back the records that do not count, or no longer count.
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

    /// Adds the newest record of a source to its chain, and takes out of it the records that count no more.
    fn replace(&mut self, source: Source, mut chain: Vec<u64>, at: u64) -> Vec<u64> {
        chain.push(at);
        let mut gone = Vec::new();
        let mut place = 0;
        while let [old, next, ..] = chain[place..] {
            if old == 0 || self.is_cut(source, old, next) || self.dates_end(&chain, place) {
                place += 1;
            } else {
                gone.push(chain.remove(place));
            }
        }
        self.chains.insert(source, chain);
        gone
    }

    /// Adds the grant that was issued before all others, and gives back the one before it, unless a grant to another
    /// client is held before that: that client's last words would end the download in the time between.
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

    /// Whether the time at which a chain's downloader has ended, or had when later records came, depends on this record
    /// of it: on the first of the last words that stand, and on a word by which the downloader took back the last word
    /// that is held before it.
    fn dates_end(&self, chain: &[u64], place: usize) -> bool {
        let ends = |at: &u64| self.held.get(at).is_some_and(|(_, record)| is_last_word(record));
        let (before, since) = chain.split_at(place);
        let had_ended = before.last().is_some_and(ends);
        if since.first().is_some_and(ends) { !had_ended && since.iter().all(ends) } else { had_ended }
    }

    /// Whether a quarantine of the reporter has begun between two of its records.
    fn is_cut(&self, source: Source, old: u64, next: u64) -> bool {
        let (Source::Downloader(guid) | Source::Uploader(guid)) = source else { return false };
        let came = |at: u64| self.held.get(&at).map_or(0, |(came_ms, _)| *came_ms);
        self.quarantines.begins(guid).any(|begin| came(old) < begin && begin <= came(next))
    }

    fn seq(&self, at: u64) -> u32 {
        self.held.get(&at).and_then(|(_, r)| source(r)).map_or(0, |(_, seq)| seq)
    }

    /// The client with a held grant.
    fn downloader(&self, at: u64) -> Option<Guid> {
        self.held.get(&at).and_then(|(_, r)| if let LedgerRecord::Granted(g) = r { Some(g.guid) } else { None })
    }

    fn issued(&self, at: u64) -> Option<(u64, RecordId)> {
        self.held.get(&at).and_then(|(_, r)| issued(r))
    }

    /// The records that count, and when each came.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = (u64, &LedgerRecord)> {
        self.held.values().map(|(came_ms, record)| (*came_ms, record))
    }

    /// The book of the records that count.
    #[must_use]
    pub fn book(&self) -> Book {
        book_of(&self.quarantines, self.records())
    }

    /// See [`digest_of`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest_of(self.records())
    }
}

fn issued(record: &LedgerRecord) -> Option<(u64, RecordId)> {
    if let LedgerRecord::Granted(g) = record { Some((g.issued_ms, g.id)) } else { None }
}

/// The book of a ledger that is fed these records, each with when it came, and nothing else.
pub fn book_of<'a>(quarantines: &Quarantines, records: impl Iterator<Item = (u64, &'a LedgerRecord)>) -> Book {
    let mut book = Book::strict().with_quarantines(quarantines.clone());
    records.for_each(|(came_ms, record)| book.add(record.clone(), came_ms));
    book
}

/// SHA-256 over records: of each when it came and its length, 8 bytes each, and its encoding.
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
