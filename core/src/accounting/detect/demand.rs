//! Repeated demand: downloads of the same version again and again, by one client or from one network on one day. A
//! client that downloads again what it already has may be paid for that, or is faulty.

use alloc::vec::Vec;

/// A download that ended, reduced to client or network, version and day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand {
    /// Number of the client or network, as assigned by the caller.
    pub who: u32,
    /// Number of the version, as assigned by the caller.
    pub version: u32,
    /// Day on which the download ended, counted from 1970-01-01 (UTC).
    pub day: u32,
}

/// A version that was downloaded more often than the limit, by one client or from one network, on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repeated {
    /// The client or network, version and day.
    pub demand: Demand,
    /// Number of downloads, more than the limit.
    pub times: u64,
}

/// Most downloads of a version by one client on one day that are not reported: allows for a wiped disk, a test or a
/// second try.
pub const BY_CLIENT_MAX: u64 = 4;
/// Most downloads of a version from one network, such as an office behind one address, on one day that are not
/// reported.
pub const BY_NETWORK_MAX: u64 = 100;

/// Returns the combinations of client or network, version and day that occur more than `most` times.
#[must_use]
pub fn repeated(mut demands: Vec<Demand>, most: u64) -> Vec<Repeated> {
    demands.sort_unstable();
    let same = demands.chunk_by(|a, b| a == b).filter(|same| same.len() as u64 > most);
    same.filter_map(|same| Some(Repeated { demand: *same.first()?, times: same.len() as u64 })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_repetitions_by_one_client_on_one_day_are_found() {
        let demand = |who, version, day| Demand { who, version, day };
        let mut all: Vec<Demand> = (0..10).flat_map(|n| [demand(n, 1, 1), demand(1, n, 1), demand(1, 1, n)]).collect();
        all.extend([demand(2, 2, 2); 5]);
        assert_eq!(repeated(all, BY_CLIENT_MAX), [Repeated { demand: demand(2, 2, 2), times: 5 }]);
    }
}
