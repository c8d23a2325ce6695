//! Repeated demand: the same version again and again, by one client or from one network on one day. Whoever wants what
//! it has already is paid for it, or broken.

use alloc::vec::Vec;

/// A download that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand {
    /// Who, as the caller numbers clients, or networks.
    pub who: u32,
    /// The version, as the caller numbers them.
    pub version: u32,
    /// The day.
    pub day: u32,
}

/// One version, more often than anybody needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repeated {
    /// Who, what, when.
    pub demand: Demand,
    /// How often.
    pub times: u64,
}

/// A client needs a version once; a disk that was wiped, a test, a second try are let pass.
pub const BY_CLIENT_MAX: u64 = 4;
/// A network's clients, a household's or an office's behind one address, on one day.
pub const BY_NETWORK_MAX: u64 = 100;

/// What was demanded more than `most` times.
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
    fn only_what_is_repeated_on_one_day_by_one_is_found() {
        let demand = |who, version, day| Demand { who, version, day };
        let mut all: Vec<Demand> = (0..10).flat_map(|n| [demand(n, 1, 1), demand(1, n, 1), demand(1, 1, n)]).collect();
        all.extend([demand(2, 2, 2); 5]);
        assert_eq!(repeated(all, BY_CLIENT_MAX), [Repeated { demand: demand(2, 2, 2), times: 5 }]);
    }
}
