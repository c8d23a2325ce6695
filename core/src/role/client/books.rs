//! Books of a client: the bytes that it has served to downloads of other clients, and the log of its usage records.

use super::io::KeptReceipt;
use crate::Time;
use crate::accounting::logs::Log;
use crate::ids::{DownloadId, Guid, IntroId, PublicKey, RecordId, ReqId, SecondaryGuid, VersionId};
use crate::wire::List;
use crate::wire::records::{Head, PeerBytes, ReceiptProof, Side, UsageRecord, UsageState};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

/// Maximum number of other clients' downloads for which served bytes are counted at the same time.
const SERVED_MAX: usize = 1024;

/// Books of a client: counts of the bytes served to each download of another client, and the log of usage records. A
/// usage record enters the log once it is durable, and is sent once its log head is signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Books {
    served: BTreeMap<DownloadId, Served>,
    /// Log of the usage records made since this start of the client.
    log: Log,
    /// Usage records in the log whose heads the shell is signing, by the number of the request.
    signing: BTreeMap<ReqId, (UsageRecord, Head)>,
    /// Usage records of an earlier start that the ledger has not acknowledged; the client's first timeout appends
    /// them to the new log.
    unsent: Vec<UsageRecord>,
}

/// Count of the bytes served to one download of another client, for its next usage record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Served {
    version: VersionId,
    seq: u32,
    peers: BTreeMap<IntroId, ServedPeer>,
    began: Time,
    last: Time,
    /// Whether bytes or receipts were added since the newest usage record.
    dirty: bool,
    /// Newest usage record of this count, and whether the ledger has acknowledged it. The store keeps the record as
    /// long as the count may grow.
    record: Option<(RecordId, bool)>,
}

/// Bytes served under one introduction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ServedPeer {
    /// Download key K_d of the downloader.
    key: PublicKey,
    /// Bytes sent under this introduction.
    bytes: u64,
    /// Receipt with the largest number of bytes; `None` before the first.
    receipt: Option<ReceiptProof>,
}

impl Served {
    const fn new(version: VersionId, seq: u32, now: Time) -> Self {
        Self { version, seq, peers: BTreeMap::new(), began: now, last: now, dirty: false, record: None }
    }

    /// Restores the count from a usage record in the store.
    fn restored(record: &UsageRecord) -> Self {
        let mut served = Self::new(record.version, record.seq, Time::ZERO);
        let peers = record.peers.iter();
        served.peers =
            peers.map(|p| (p.intro, ServedPeer { key: p.key, bytes: p.bytes, receipt: p.receipt.clone() })).collect();
        served.record = Some((record.id, false));
        served
    }

    fn peer(&mut self, intro: IntroId, key: PublicKey) -> &mut ServedPeer {
        self.peers.entry(intro).or_insert(ServedPeer { key, bytes: 0, receipt: None })
    }

    /// Stores a receipt if it proves more bytes than the one before, whatever number of bytes was counted as sent.
    fn on_receipt(&mut self, (intro, key): (IntroId, PublicKey), proof: ReceiptProof, now: Time) {
        let peer = self.peer(intro, key);
        if peer.receipt.as_ref().is_none_or(|old| old.bytes < proof.bytes) {
            peer.receipt = Some(proof);
            self.dirty = true;
        }
        self.last = self.last.max(now);
    }
}

/// Download of another client, and the introduction under which this client serves it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServedTo {
    /// Download that is served.
    pub(super) download: DownloadId,
    /// Version of the download.
    pub(super) version: VersionId,
    /// Introduction under which the downloader is served.
    pub(super) intro: IntroId,
    /// Download key K_d of the downloader.
    pub(super) key: PublicKey,
}

impl Books {
    /// Restores the books of `guid` from the usage records in the store, and from the receipts that no usage record
    /// holds.
    pub(super) fn restored(guid: Guid, usage: Vec<UsageRecord>, receipts: &[KeptReceipt]) -> Self {
        let mut books = Self::default();
        for record in usage.iter().filter(|r| r.side == Side::Uploader && r.reporter == guid) {
            if books.served.get(&record.download).is_none_or(|served| served.seq < record.seq) {
                books.served.insert(record.download, Served::restored(record));
            }
        }
        for KeptReceipt { download, version, peer } in receipts {
            let served = books.served.entry(*download).or_insert_with(|| Served::new(*version, 0, Time::ZERO));
            if let Some(proof) = &peer.receipt {
                served.on_receipt((peer.intro, peer.key), proof.clone(), Time::ZERO);
            }
        }
        books.unsent = usage;
        books
    }

    /// Removes and returns the usage records of an earlier start that are not in this start's log yet.
    pub(super) fn take_unsent(&mut self) -> Vec<UsageRecord> {
        core::mem::take(&mut self.unsent)
    }

    /// Returns the count for a download of another client, which begins now if need be; `None` if too many are
    /// counted.
    fn count(&mut self, to: &ServedTo, now: Time) -> Option<&mut Served> {
        if self.served.len() >= SERVED_MAX && !self.served.contains_key(&to.download) {
            return None;
        }
        Some(self.served.entry(to.download).or_insert_with(|| Served::new(to.version, 0, now)))
    }

    /// Counts bytes sent to a peer. Returns the time when its count began; `None` if the bytes are not counted.
    pub(super) fn count_sent(&mut self, to: &ServedTo, bytes: u64, now: Time) -> Option<Time> {
        if bytes == 0 && !self.served.contains_key(&to.download) {
            return None;
        }
        let served = self.count(to, now)?;
        let peer = served.peer(to.intro, to.key);
        peer.bytes = peer.bytes.saturating_add(bytes);
        served.dirty |= bytes > 0;
        served.last = now;
        Some(served.began)
    }

    /// Stores a receipt of a downloader. Returns the time when its count began; `None` if too many downloads are
    /// counted.
    pub(super) fn count_receipt(&mut self, to: &ServedTo, proof: ReceiptProof, now: Time) -> Option<Time> {
        let served = self.count(to, now)?;
        served.on_receipt((to.intro, to.key), proof, now);
        Some(served.began)
    }

    /// Returns the downloads for which served bytes are counted.
    pub(super) fn downloads(&self) -> Vec<DownloadId> {
        self.served.keys().copied().collect()
    }

    /// Returns the time when the youngest count began; `None` if there is no count.
    pub(super) fn youngest(&self) -> Option<Time> {
        self.served.values().map(|served| served.began).max()
    }

    /// Returns a usage record of the bytes served to a download (`None` if nothing has changed since the last one),
    /// and the id of the last one if the ledger has it, so that the store can delete it. Its sequence number is at
    /// least `seq_min`, which rises with the clock, so that numbers rise even after an earlier record is forgotten.
    pub(super) fn next_record(
        &mut self,
        download: DownloadId,
        (id, reporter): (RecordId, Guid),
        seq_min: u32,
        now: Time,
    ) -> Option<(UsageRecord, Option<RecordId>)> {
        let served = self.served.get_mut(&download).filter(|served| served.dirty)?;
        served.dirty = false;
        served.seq = served.seq.saturating_add(1).max(seq_min);
        let older = served.record.replace((id, false));
        let peers = served.peers.iter().map(|(intro, peer)| PeerBytes {
            intro: *intro,
            key: peer.key,
            bytes: peer.bytes,
            receipt: peer.receipt.clone(),
        });
        let record = UsageRecord {
            id,
            reporter,
            side: Side::Uploader,
            download,
            version: served.version,
            seq: served.seq,
            state: UsageState::Running,
            edge_bytes: 0,
            peers: List::truncated(peers),
            elapsed_ms: millis_between(served.began, now),
            cause: None,
        };
        Some((record, older.filter(|(_, acked)| *acked).map(|(id, _)| id)))
    }

    /// Returns whether a download's count has changed since its newest usage record.
    pub(super) fn is_dirty(&self, download: DownloadId) -> bool {
        self.served.get(&download).is_some_and(|served| served.dirty)
    }

    /// Notes that a download needs another usage record, since the newest could not be stored.
    pub(super) fn on_not_stored(&mut self, download: DownloadId) {
        if let Some(served) = self.served.get_mut(&download) {
            served.dirty = true;
        }
    }

    /// Forgets counts that have not changed for `keep` and are acknowledged. Returns the usage records that the store
    /// may now delete.
    pub(super) fn forget_old(&mut self, now: Time, keep: Duration) -> Vec<RecordId> {
        let mut done = Vec::new();
        self.served.retain(|_, served| {
            let old = !served.dirty && now.since(served.last) >= keep;
            let settled = old && served.record.is_none_or(|(_, acked)| acked);
            done.extend(served.record.filter(|_| settled).map(|(id, _)| id));
            !settled
        });
        done
    }

    /// Notes that the ledger has acknowledged usage records. Returns those that the store may delete; the newest
    /// record of each count stays, since a restart continues from it.
    pub(super) fn settle(&mut self, mut ids: Vec<RecordId>) -> Vec<RecordId> {
        ids.retain(|id| {
            let mut newest = self.served.values_mut().filter_map(|served| served.record.as_mut());
            match newest.find(|(newest, _)| newest == id) {
                Some((_, acked)) => {
                    *acked = true;
                    false
                }
                None => true,
            }
        });
        ids
    }

    /// Appends a durable usage record to the log of this start. Returns its log head, which the shell signs under the
    /// request number `req`.
    pub(super) fn append(&mut self, start: SecondaryGuid, record: UsageRecord, req: ReqId) -> Head {
        let head = self.log.append(start, &record);
        let before = self.signing.insert(req, (record, head.clone()));
        debug_assert!(before.is_none(), "a request's number is given once");
        head
    }

    /// Removes and returns the usage record, with its log head, that the shell has signed under this request number.
    pub(super) fn take_signed(&mut self, req: ReqId) -> Option<(UsageRecord, Head)> {
        self.signing.remove(&req)
    }

    /// Returns the request numbers of the log heads that the shell is signing.
    pub(super) fn signing(&self) -> impl Iterator<Item = &ReqId> {
        self.signing.keys()
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        for served in self.served.values_mut() {
            served.began = served.began.rebased(by);
            served.last = served.last.rebased(by);
        }
    }

    /// Returns whether the usage records of an earlier start are in this start's log.
    pub(super) const fn is_started(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Asserts that the counts are bounded, are reported, and that log heads are signed in order.
    pub(super) fn check(&self) {
        assert!(self.served.len() <= SERVED_MAX, "the counts of served bytes are bounded");
        assert!(self.served.values().all(|s| s.began <= s.last), "a count begins before its last change");
        let counted = |s: &Served| s.record.is_some() || s.dirty || s.peers.values().all(|p| p.bytes == 0);
        assert!(self.served.values().all(counted), "served bytes are in a record or for the next");
        let places = self.signing.values().map(|(_, head)| head.place);
        assert!(places.is_sorted_by(|a, b| a < b), "the log's heads are signed in order");
    }
}

#[cfg(test)]
impl Books {
    /// Corruptions of books that count a download, each with the message of the assertion in `check` that it must
    /// break.
    pub(super) const CORRUPTIONS: [(&str, fn(&mut Self)); 4] = [
        ("the counts of served bytes are bounded", |books| {
            let served = books.served.values().next().expect("a count").clone();
            let id = |n: usize| DownloadId::numbered(u32::try_from(n).expect("few"));
            books.served.extend((0..=SERVED_MAX).map(|n| (id(n), served.clone())));
        }),
        ("a count begins before its last change", |books| {
            books.served.values_mut().for_each(|served| served.last = Time::ZERO);
        }),
        ("served bytes are in a record or for the next", |books| {
            books.served.values_mut().for_each(|served| (served.record, served.dirty) = (None, false));
        }),
        ("the log's heads are signed in order", |books| {
            let (_, signing) = books.signing.first_key_value().expect("a head that is being signed");
            let again = signing.clone();
            books.signing.insert(ReqId(0), again);
        }),
    ];
}

pub(super) fn millis_between(from: Time, to: Time) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}
