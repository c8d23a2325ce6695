//! Evaluates uploaders' reports of bytes for which a downloader gave no receipt. A download that repeatedly leaves
//! its uploaders without receipts continues from the edge alone for a while; it never fails.
//!
//! A network failure breaks many connections at once, and an honest download cannot send receipts for bytes in
//! flight: ends within [`APART`] count once. To stop a download from taking from many uploaders at once, their bytes
//! without receipt are limited too.

use super::receipts::CreditRule;
use crate::Time;
use crate::ids::IntroId;
use alloc::collections::BTreeMap;
use core::time::Duration;

/// Number of introductions ended without a due receipt, at least [`APART`] from each other, after which a download
/// gets no more peers.
const TIMES_MAX: u8 = 3;
/// Smallest time between the ends of two introductions without receipts for both to be counted.
pub const APART: Duration = Duration::from_secs(60);
/// Time without another introduction ended without receipts after which a download may have peers again.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// Maximum number of introductions stored for a download; a download with as many gets no more peers.
const INTRODUCTIONS_MAX: usize = 256;

/// End of an introduction, as its uploader reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct End {
    /// Bytes sent that no receipt covers, less an eighth of the receipted bytes, which may have been wasted.
    pub owed: u64,
    /// Bytes sent over the introduction that receipts cover.
    pub receipted: u64,
}

/// State of one introduction of a download.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Reported {
    /// Bytes without receipts, by the uploader's newest report.
    owed: u64,
    /// Whether the introduction was counted as one that ended although a receipt was due.
    counted: bool,
}

/// A download's history of introductions that ended without receipts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conduct {
    reported: BTreeMap<IntroId, Reported>,
    times: u8,
    /// Time of the last end that was counted.
    last: Option<Time>,
}

impl Conduct {
    /// Records that an introduction ended, possibly again after a new connection. Returns whether it is now counted,
    /// for the first time, as one that ended although a receipt was due.
    pub fn ended(&mut self, rule: &CreditRule, now: Time, intro: IntroId, end: End) -> bool {
        // bytes that an uploader sends beyond the credit are its own risk
        let owed = end.owed.min(rule.credit(end.receipted).saturating_add(rule.first));
        if self.reported.len() >= INTRODUCTIONS_MAX && !self.reported.contains_key(&intro) {
            return false;
        }
        let reported = self.reported.entry(intro).or_default();
        reported.owed = owed;
        let counts = owed >= rule.due(end.receipted) && !reported.counted;
        reported.counted |= counts;
        if counts && self.last.is_none_or(|last| now.since(last) >= APART) {
            self.times = self.times.saturating_add(1);
            self.last = Some(now);
        }
        debug_assert!(usize::from(self.times) <= self.reported.len(), "no more ends count than were reported");
        counts
    }

    /// Asserts that the numbers of stored and counted introductions are within their limits.
    pub fn check(&self) {
        assert!(self.reported.len() <= INTRODUCTIONS_MAX, "remembered introductions are bounded");
        let counted = self.reported.values().filter(|r| r.counted).count();
        assert!(usize::from(self.times) <= counted, "an introduction counts once");
        assert!((self.times > 0) == self.last.is_some(), "an end that counted has a time");
    }

    /// Returns the number of bytes without receipts, summed over the download's introductions.
    #[must_use]
    pub fn owed(&self) -> u64 {
        self.reported.values().fold(0, |sum, reported| sum.saturating_add(reported.owed))
    }

    /// Returns whether the download gets no peers at present, because too many introductions or bytes ended without
    /// receipts.
    #[must_use]
    pub fn is_edge_only(&self, rule: &CreditRule) -> bool {
        let full = self.reported.len() >= INTRODUCTIONS_MAX;
        full || self.times >= TIMES_MAX || self.owed() >= rule.most.saturating_mul(u64::from(TIMES_MAX))
    }

    /// Expresses the stored time relative to an origin that lies `by` later ([`crate::Machine::rebase`]).
    pub fn rebase(&mut self, by: Duration) {
        self.last = self.last.map(|last| last.rebased(by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const RULE: CreditRule = CreditRule::PROTOCOL;

    /// Returns the state after introductions have ended, each given with its time in seconds.
    fn after(ends: impl IntoIterator<Item = (u64, End)>) -> Conduct {
        let mut conduct = Conduct::default();
        for (n, (second, end)) in (0..).zip(ends) {
            conduct.ended(&RULE, Time(second * 1_000_000), IntroId::numbered(n), end);
        }
        conduct
    }

    const NOTHING: End = End { owed: MIB, receipted: 0 };

    #[test]
    fn each_clause_of_a_history_finds_a_corruption() {
        crate::bench::assert_each_clause_fires(
            &after([(0, NOTHING), (60, NOTHING)]),
            Conduct::check,
            &[
                ("remembered introductions are bounded", |c| {
                    c.reported.extend((0..=256).map(|n| (IntroId::numbered(n), Reported::default())));
                }),
                ("an introduction counts once", |c| c.times = 3),
                ("an end that counted has a time", |c| c.last = None),
            ],
        );
    }

    #[test]
    fn the_third_unreceipted_end_is_the_last_with_peers() {
        assert!(!after([(0, NOTHING), (60, NOTHING)]).is_edge_only(&RULE));
        assert!(after([(0, NOTHING), (60, NOTHING), (120, NOTHING)]).is_edge_only(&RULE));
    }

    #[test]
    fn an_introduction_counts_once_however_often_its_uploader_says_so() {
        let mut conduct = Conduct::default();
        let mut says = |minute: u64, intro| {
            let now = Time(minute * 60_000_000);
            let news = conduct.ended(&RULE, now, IntroId::numbered(intro), NOTHING);
            (news, conduct.is_edge_only(&RULE))
        };
        assert_eq!(says(0, 1), (true, false));
        (1..9).for_each(|minute| assert_eq!(says(minute, 1), (false, false)));
        assert_eq!([says(9, 2), says(10, 2), says(11, 3)], [(true, false), (false, false), (true, true)]);
    }

    #[test]
    fn a_broken_network_counts_once() {
        assert!(!after((0..24).map(|n| (n, NOTHING))).is_edge_only(&RULE));
    }

    #[test]
    fn taking_from_many_uploaders_at_once_is_found_by_the_bytes() {
        let all = after((0..96).map(|_| (0, NOTHING)));
        assert!(all.is_edge_only(&RULE) && all.owed() == 96 * MIB);
        assert!(!after((0..95).map(|_| (0, NOTHING))).is_edge_only(&RULE));
        assert!(after((0..256).map(|_| (0, End { owed: 1, receipted: 0 }))).is_edge_only(&RULE));
    }

    #[test]
    fn owing_less_than_a_due_receipt_is_no_offence() {
        let little = End { owed: 4 * MIB, receipted: 80 * MIB };
        assert!(!after((0..9).map(|n| (n * 60, little))).is_edge_only(&RULE));
    }

    #[test]
    fn a_claim_is_capped_by_the_credit_and_replaces_the_last_one() {
        let lie = End { owed: u64::MAX, receipted: 0 };
        let mut conduct = after([(0, lie)]);
        assert_eq!(conduct.owed(), 2 * MIB);
        conduct.ended(&RULE, Time(1), IntroId::numbered(0), End { owed: 0, receipted: 9 * MIB });
        assert_eq!(conduct.owed(), 0, "receipted after all");
    }
}
