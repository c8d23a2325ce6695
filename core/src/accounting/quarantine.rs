//! Quarantines of clients, which decide from which time on a client's usage records do not count for bills.

use crate::ids::Guid;
use alloc::collections::BTreeMap;

/// Start and end of each client's quarantines, Unix milliseconds; a quarantine that still lasts ends at `u64::MAX`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Quarantines(BTreeMap<Guid, BTreeMap<u64, u64>>);

impl Quarantines {
    /// Adds a quarantine of a client from `from_ms` to `until_ms`, Unix milliseconds.
    pub fn add(&mut self, guid: Guid, from_ms: u64, until_ms: u64) {
        self.0.entry(guid).or_default().insert(from_ms, until_ms);
    }

    /// Returns the start times of a client's quarantines, ascending, Unix milliseconds.
    pub fn begins(&self, guid: Guid) -> impl Iterator<Item = u64> + '_ {
        self.0.get(&guid).into_iter().flat_map(|spans| spans.keys().copied())
    }

    /// Returns the time (Unix milliseconds) from which the client's reports of an introduction made at `made_ms` do
    /// not count: the start of its first quarantine that ends after `made_ms`. `None` if all reports count.
    #[must_use]
    pub fn cut(&self, guid: Guid, made_ms: u64) -> Option<u64> {
        self.0.get(&guid)?.iter().find(|(_, until)| **until > made_ms).map(|(from, _)| *from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantine_cuts_only_introductions_made_before_its_end() {
        let (who, mut all) = (Guid::numbered(1), Quarantines::default());
        assert_eq!(all.cut(who, 0), None);
        all.add(who, 10, 20);
        all.add(who, 30, u64::MAX);
        assert_eq!((all.cut(who, 5), all.cut(who, 15)), (Some(10), Some(10)));
        assert_eq!((all.cut(who, 20), all.cut(who, 99)), (Some(30), Some(30)));
        assert_eq!(all.cut(Guid::numbered(2), 5), None);
        assert_eq!(all.begins(who).collect::<alloc::vec::Vec<_>>(), [10, 30]);
    }
}
