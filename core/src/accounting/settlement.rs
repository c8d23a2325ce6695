//! What the records of a download come to: what its provider is told and billed.

use crate::ids::{Guid, IntroId, PublicKey};
use crate::wire::records::{EdgeRecord, GrantRecord, LedgerRecord, Side, UsageRecord, UsageState};
use alloc::collections::BTreeMap;

/// The records of one download, each reporter's newest. Order and repetition of records make no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Book {
    granted: Option<GrantRecord>,
    downloader: Option<UsageRecord>,
    uploaders: BTreeMap<Guid, UsageRecord>,
    edges: BTreeMap<PublicKey, EdgeRecord>,
}

/// What a download came to, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bill {
    /// Size of the version; 0 while the first grant's record is missing.
    pub size: u64,
    /// Sent by edges, each byte counted once an edge.
    pub edge_unique: u64,
    /// Sent by edges, repetitions included.
    pub edge_total: u64,
    /// From edges, as the downloader says.
    pub edge_claimed: u64,
    /// From peers, as the downloader says.
    pub peers_received: u64,
    /// To the downloader, as uploaders say.
    pub peers_sent: u64,
    /// From peers, billed: what both sides of an introduction say, at most what edges cannot have delivered.
    pub peers_billed: u64,
    /// Claimed by either side and not billed: no counterpart, more than the counterpart says, or more than there is
    /// room for. Shown, never billed.
    pub flagged: u64,
    /// How far the downloader says it is.
    pub state: Option<UsageState>,
    /// How long the downloader says it took, in milliseconds.
    pub elapsed_ms: u64,
}

fn newer<T>(old: Option<&T>, new: &T, seq: impl Fn(&T) -> u32) -> bool {
    old.is_none_or(|old| seq(old) < seq(new))
}

impl Book {
    /// Takes in a record of this download. Of the records of one reporter the highest `seq` counts.
    pub fn add(&mut self, record: LedgerRecord) {
        match record {
            LedgerRecord::Granted(r) => {
                let first = self.granted.as_ref().is_none_or(|old| (r.issued_ms, r.id) < (old.issued_ms, old.id));
                if first {
                    self.granted = Some(r);
                }
            }
            LedgerRecord::Edge(r) => {
                if newer(self.edges.get(&r.edge), &r, |r| r.seq) {
                    self.edges.insert(r.edge, r);
                }
            }
            LedgerRecord::Usage(r) => match r.side {
                Side::Downloader => {
                    if newer(self.downloader.as_ref(), &r, |r| r.seq) {
                        self.downloader = Some(r);
                    }
                }
                Side::Uploader => {
                    if newer(self.uploaders.get(&r.reporter), &r, |r| r.seq) {
                        self.uploaders.insert(r.reporter, r);
                    }
                }
            },
        }
    }

    /// What it comes to.
    #[must_use]
    pub fn bill(&self) -> Bill {
        // only who was granted the download may speak as its downloader
        let downloader =
            self.downloader.as_ref().filter(|r| self.granted.as_ref().is_none_or(|g| g.guid == r.reporter));
        let size = self.granted.as_ref().map_or(0, |g| g.size);
        let mut claims: BTreeMap<IntroId, (u64, u64)> = BTreeMap::new();
        for p in downloader.iter().flat_map(|r| &r.peers) {
            let c = &mut claims.entry(p.intro).or_default().0;
            *c = c.saturating_add(p.bytes);
        }
        for p in self.uploaders.values().flat_map(|r| &r.peers) {
            let c = &mut claims.entry(p.intro).or_default().1;
            *c = c.saturating_add(p.bytes);
        }
        let total = |of: fn(&(u64, u64)) -> u64| claims.values().map(of).fold(0_u64, u64::saturating_add);
        let agreed = total(|&(down, up)| down.min(up));
        let claimed = total(|&(down, up)| down.max(up));
        let edge_unique = self.edges.values().map(|r| r.unique_bytes).fold(0, u64::saturating_add);
        let peers_billed = agreed.min(size.saturating_sub(edge_unique));
        Bill {
            size,
            edge_unique,
            edge_total: self.edges.values().map(|r| r.total_bytes).fold(0, u64::saturating_add),
            edge_claimed: downloader.map_or(0, |r| r.edge_bytes),
            peers_received: total(|&(down, _)| down),
            peers_sent: total(|&(_, up)| up),
            peers_billed,
            flagged: claimed.saturating_sub(peers_billed),
            state: downloader.map(|r| r.state),
            elapsed_ms: downloader.map_or(0, |r| r.elapsed_ms),
        }
    }
}

impl FromIterator<LedgerRecord> for Book {
    fn from_iter<I: IntoIterator<Item = LedgerRecord>>(records: I) -> Self {
        let mut book = Self::default();
        records.into_iter().for_each(|r| book.add(r));
        book
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DownloadId, ProviderId, RecordId, VersionId};
    use crate::wire::records::PeerBytes;
    use crate::wire::{List, Text};
    use alloc::vec;
    use alloc::vec::Vec;

    const D: DownloadId = DownloadId([1; 16]);
    const V: VersionId = VersionId([2; 32]);

    fn granted(size: u64) -> LedgerRecord {
        LedgerRecord::Granted(GrantRecord {
            id: RecordId::numbered(1),
            download: D,
            guid: Guid::numbered(1),
            download_key: PublicKey::numbered(2),
            version: V,
            size,
            provider: ProviderId(1),
            path: Text::default(),
            issued_ms: 5,
        })
    }

    fn usage(reporter: u32, side: Side, seq: u32, peers: &[(u32, u64)]) -> LedgerRecord {
        LedgerRecord::Usage(UsageRecord {
            id: RecordId::numbered(reporter * 100 + seq),
            reporter: Guid::numbered(reporter),
            side,
            download: D,
            version: V,
            seq,
            state: UsageState::Running,
            edge_bytes: 0,
            peers: List::truncated(peers.iter().map(|&(intro, bytes)| PeerBytes {
                intro: IntroId::numbered(intro),
                key: PublicKey::numbered(intro),
                bytes,
                receipt: None,
            })),
            elapsed_ms: 0,
        })
    }

    fn edge(edge: u32, seq: u32, unique_bytes: u64) -> LedgerRecord {
        LedgerRecord::Edge(EdgeRecord {
            id: RecordId::numbered(edge * 1000 + seq),
            edge: PublicKey::numbered(edge),
            download: Some(D),
            guid: Some(Guid::numbered(1)),
            version: V,
            provider: ProviderId(1),
            seq,
            unique_bytes,
            total_bytes: unique_bytes + 1,
        })
    }

    fn bill(records: &[LedgerRecord]) -> Bill {
        records.iter().cloned().collect::<Book>().bill()
    }

    #[test]
    fn what_both_sides_say_is_billed() {
        let records = [
            granted(100),
            edge(1, 1, 30),
            usage(1, Side::Downloader, 1, &[(1, 40), (2, 30)]),
            usage(2, Side::Uploader, 1, &[(1, 40)]),
            usage(3, Side::Uploader, 1, &[(2, 30)]),
        ];
        let b = bill(&records);
        assert_eq!((b.edge_unique, b.edge_total, b.peers_billed, b.flagged), (30, 31, 70, 0));
        assert_eq!((b.peers_received, b.peers_sent), (70, 70));
    }

    #[test]
    fn one_side_alone_cannot_raise_the_bill() {
        let honest = [granted(100), usage(1, Side::Downloader, 1, &[(1, 40)]), usage(2, Side::Uploader, 1, &[(1, 40)])];
        let mut more = honest.to_vec();
        more.push(usage(2, Side::Uploader, 2, &[(1, 90), (9, 50)]));
        assert_eq!(bill(&more).peers_billed, bill(&honest).peers_billed);
        assert_eq!(bill(&more).flagged, 100);
        let stranger =
            [granted(100), usage(7, Side::Downloader, 9, &[(1, 40)]), usage(2, Side::Uploader, 1, &[(1, 40)])];
        assert_eq!(bill(&stranger).peers_billed, 0);
    }

    #[test]
    fn bytes_of_edges_leave_no_room_for_peers() {
        let both =
            |bytes| vec![usage(1, Side::Downloader, 1, &[(1, bytes)]), usage(2, Side::Uploader, 1, &[(1, bytes)])];
        let b = bill(&[vec![granted(100), edge(1, 1, 50), edge(2, 1, 20)], both(60)].concat());
        assert_eq!((b.peers_billed, b.flagged), (30, 30));
        assert_eq!(bill(&both(60)).peers_billed, 0, "without a grant nothing is billed");
    }

    #[test]
    fn order_and_repetition_make_no_difference() {
        let mut records = vec![
            granted(100),
            edge(1, 1, 10),
            edge(1, 2, 30),
            usage(1, Side::Downloader, 1, &[(1, 10)]),
            usage(1, Side::Downloader, 2, &[(1, 40)]),
            usage(2, Side::Uploader, 1, &[(1, 40)]),
        ];
        let expected = bill(&records);
        assert_eq!((expected.edge_unique, expected.peers_billed), (30, 40));
        let again: Vec<_> = records.iter().chain(&records).cloned().collect();
        assert_eq!(bill(&again), expected);
        records.reverse();
        assert_eq!(bill(&records), expected);
    }
}
