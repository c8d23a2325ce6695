//! What uploaders say of downloads whose introductions ended without receipts (DESIGN §10.3). A download that leaves
//! its uploaders unreceipted again and again goes on from the edge alone for a while; it never fails.
//!
//! A network that breaks ends many introductions at once, and an honest download cannot receipt what was under way:
//! ends within [`APART`] count once. So that nobody takes from many uploaders at once instead, bytes are summed too.

use super::receipts::CreditRule;
use crate::Time;
use crate::ids::IntroId;
use alloc::collections::BTreeMap;
use core::time::Duration;

/// Times after which a download gets no more peers.
const TIMES_MAX: u8 = 3;
/// Ends closer together count as one.
pub const APART: Duration = Duration::from_secs(60);
/// Without another such end for so long, all is forgotten.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// Introductions that are kept apart; a download with more has too many in any case.
const INTRODUCTIONS_MAX: usize = 256;

/// How an introduction ended, as its uploader says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct End {
    /// Bytes sent that no receipt covers, waste allowed for.
    pub owed: u64,
    /// Bytes receipted.
    pub receipted: u64,
}

/// What is known of one introduction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Told {
    /// Without receipts, by its uploader's newest word.
    owed: u64,
    /// It has ended with so much that a receipt was due: it counts once, however often that is said.
    counted: bool,
}

/// What is known of one download.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conduct {
    told: BTreeMap<IntroId, Told>,
    times: u8,
    /// When the last one counted.
    last: Option<Time>,
}

impl Conduct {
    /// An introduction has ended, or ended again after its peers had met once more. Whether that is news, which puts
    /// off the time when all is forgotten: no uploader does so twice by one introduction.
    pub fn ended(&mut self, rule: &CreditRule, now: Time, intro: IntroId, end: End) -> bool {
        // what an uploader gives beyond the credit is its own affair
        let owed = end.owed.min(rule.credit(end.receipted).saturating_add(rule.first));
        if self.told.len() >= INTRODUCTIONS_MAX && !self.told.contains_key(&intro) {
            return false;
        }
        let told = self.told.entry(intro).or_default();
        told.owed = owed;
        let counts = owed >= rule.due(end.receipted) && !told.counted;
        told.counted |= counts;
        if counts && self.last.is_none_or(|last| now.since(last) >= APART) {
            self.times = self.times.saturating_add(1);
            self.last = Some(now);
        }
        counts
    }

    /// Bytes without receipts, over all introductions.
    #[must_use]
    pub fn owed(&self) -> u64 {
        self.told.values().fold(0, |sum, told| sum.saturating_add(told.owed))
    }

    /// Whether it gets no peers for now.
    #[must_use]
    pub fn is_edge_only(&self, rule: &CreditRule) -> bool {
        let full = self.told.len() >= INTRODUCTIONS_MAX;
        full || self.times >= TIMES_MAX || self.owed() >= rule.most.saturating_mul(u64::from(TIMES_MAX))
    }

    /// See [`crate::Machine::rebase`].
    pub fn rebase(&mut self, by: Duration) {
        self.last = self.last.map(|last| last.rebased(by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const RULE: CreditRule = CreditRule::PROTOCOL;

    /// Ends of introductions, each with its second.
    fn after(ends: impl IntoIterator<Item = (u64, End)>) -> Conduct {
        let mut conduct = Conduct::default();
        for (n, (second, end)) in (0..).zip(ends) {
            conduct.ended(&RULE, Time(second * 1_000_000), IntroId::numbered(n), end);
        }
        conduct
    }

    const NOTHING: End = End { owed: MIB, receipted: 0 };

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
    fn a_network_that_breaks_counts_once() {
        assert!(!after((0..24).map(|n| (n, NOTHING))).is_edge_only(&RULE));
    }

    #[test]
    fn who_takes_from_many_at_once_is_known_by_the_bytes() {
        let all = after((0..96).map(|_| (0, NOTHING)));
        assert!(all.is_edge_only(&RULE) && all.owed() == 96 * MIB);
        assert!(!after((0..95).map(|_| (0, NOTHING))).is_edge_only(&RULE));
        assert!(after((0..256).map(|_| (0, End { owed: 1, receipted: 0 }))).is_edge_only(&RULE));
    }

    #[test]
    fn less_than_what_makes_a_receipt_due_is_no_offence() {
        let little = End { owed: 4 * MIB, receipted: 80 * MIB };
        assert!(!after((0..9).map(|n| (n * 60, little))).is_edge_only(&RULE));
    }

    #[test]
    fn an_uploader_cannot_claim_more_than_the_credit_and_its_word_replaces_its_word() {
        let lie = End { owed: u64::MAX, receipted: 0 };
        let mut conduct = after([(0, lie)]);
        assert_eq!(conduct.owed(), 2 * MIB);
        conduct.ended(&RULE, Time(1), IntroId::numbered(0), End { owed: 0, receipted: 9 * MIB });
        assert_eq!(conduct.owed(), 0, "receipted after all");
    }
}
