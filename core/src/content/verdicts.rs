//! Verdicts on stored content: which pieces of a file were hashed recently, and whether their hashes were right.
//!
//! A verdict is valid for the file's state at the time of hashing: a write to the file, or another file in its place,
//! voids the verdict. Verdicts also expire, since bytes can rot on a disk without a write.

use super::Bitfield;
use crate::ids::{PieceIndex, VersionId};
use crate::machine::Time;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

/// Identity of a file and its state: device, inode, length, and times of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity(pub [u64; 7]);

/// Knowledge about a stored piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The piece must be hashed before it is sent.
    Unknown,
    /// The piece was right when it was hashed.
    Good,
    /// The piece was wrong when it was hashed.
    Bad,
}

/// Limits of verdicts: for how long they are valid, and how many are kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time for which a piece counts as good after hashing; the shortest is half of it.
    pub good_for: Duration,
    /// Time for which a piece counts as bad after hashing; then the piece is hashed again.
    pub bad_for: Duration,
    /// Maximum number of pieces over all files, three bits each; the least recently used file is dropped first.
    pub pieces_max: u64,
}

impl Limits {
    /// Limits of an edge: the verdicts take at most 24 MiB of memory.
    pub const PRODUCTION: Self =
        Self { good_for: Duration::from_secs(3600), bad_for: Duration::from_secs(60), pieces_max: 1 << 26 };
}

/// Verdicts on the pieces of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    identity: FileIdentity,
    /// Pieces found good in the current period; a period is half of [`Limits::good_for`].
    good: Bitfield,
    /// Pieces found good in the previous period.
    good_before: Bitfield,
    /// Time at which the current period began.
    half_began: Time,
    bad: Bitfield,
    /// Time at which a piece was last found bad.
    bad_at: Time,
    /// Value of [`Verdicts::asked`] at the last use of this file.
    asked: u64,
}

impl Known {
    fn new(identity: FileIdentity, pieces: u32, now: Time) -> Self {
        let none = Bitfield::empty(pieces);
        Self {
            identity,
            good: none.clone(),
            good_before: none.clone(),
            half_began: now,
            bad: none,
            bad_at: now,
            asked: 0,
        }
    }

    fn pieces(&self) -> u64 {
        u64::from(self.good.len())
    }

    /// Begins the next period, if the current one is over.
    fn age(&mut self, now: Time, half: Duration) {
        let past = now.since(self.half_began);
        if past < half {
            return;
        }
        let fresh = Bitfield::empty(self.good.len());
        let before = core::mem::replace(&mut self.good, fresh.clone());
        (self.good_before, self.half_began) =
            if past < half.saturating_mul(2) { (before, self.half_began.after(half)) } else { (fresh, now) };
    }
}

/// The verdicts on all files of a server, by version.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    files: BTreeMap<VersionId, Known>,
    /// Number of pieces of all files.
    pieces: u64,
    /// Number of uses (lookups and new verdicts) of all files so far.
    asked: u64,
}

impl Verdicts {
    /// Returns the verdict on a piece of this file.
    pub fn of(
        &mut self,
        limits: &Limits,
        now: Time,
        (version, identity): (VersionId, FileIdentity),
        piece: PieceIndex,
    ) -> Verdict {
        self.asked = self.asked.saturating_add(1);
        let Some(known) = self.files.get_mut(&version).filter(|known| known.identity == identity) else {
            return Verdict::Unknown;
        };
        known.asked = self.asked;
        known.age(now, limits.good_for / 2);
        if known.bad.contains(piece) {
            return if now.since(known.bad_at) < limits.bad_for { Verdict::Bad } else { Verdict::Unknown };
        }
        let good = known.good.contains(piece) || known.good_before.contains(piece);
        if good { Verdict::Good } else { Verdict::Unknown }
    }

    /// Returns the pieces of a file that were found bad and not found good since, however long ago.
    #[must_use]
    pub fn suspects(&self, (version, identity): (VersionId, FileIdentity)) -> Vec<PieceIndex> {
        let known = self.files.get(&version).filter(|known| known.identity == identity && !known.bad.is_empty());
        known.map_or_else(Vec::new, |known| known.bad.iter().collect())
    }

    /// Stores the verdict on a piece of a file with `pieces` pieces. Drops the verdicts on another file of that
    /// version.
    pub fn record(
        &mut self,
        limits: &Limits,
        now: Time,
        (version, identity, pieces): (VersionId, FileIdentity, u32),
        (piece, good): (PieceIndex, bool),
    ) {
        let same = |known: &Known| known.identity == identity && known.good.len() == pieces;
        if self.files.get(&version).is_some_and(|known| !same(known)) {
            self.forget(version);
        }
        self.make_room(limits, version, pieces);
        if !self.files.contains_key(&version) {
            self.pieces = self.pieces.saturating_add(u64::from(pieces));
        }
        let known = self.files.entry(version).or_insert_with(|| Known::new(identity, pieces, now));
        self.asked = self.asked.saturating_add(1);
        known.asked = self.asked;
        known.age(now, limits.good_for / 2);
        if good {
            known.good.insert(piece);
            known.bad.remove(piece);
        } else {
            known.good.remove(piece);
            known.good_before.remove(piece);
            known.bad.insert(piece);
            known.bad_at = now;
        }
    }

    /// Drops the verdicts on the least recently used files until a file with `pieces` pieces has room.
    fn make_room(&mut self, limits: &Limits, version: VersionId, pieces: u32) {
        let wanted = if self.files.contains_key(&version) { 0 } else { u64::from(pieces) };
        while self.pieces.saturating_add(wanted) > limits.pieces_max {
            let others = self.files.iter().filter(|(id, _)| **id != version);
            let Some(oldest) = others.min_by_key(|(_, known)| known.asked).map(|(id, _)| *id) else { return };
            self.forget(oldest);
        }
    }

    /// Drops all verdicts on a version.
    pub fn forget(&mut self, version: VersionId) {
        if let Some(known) = self.files.remove(&version) {
            self.pieces = self.pieces.saturating_sub(known.pieces());
        }
    }

    /// Asserts that all pieces are counted, none is both good and bad, and uses are numbered in order.
    pub fn check(&self) {
        assert!(self.pieces == self.files.values().map(Known::pieces).sum::<u64>(), "all pieces are counted");
        for known in self.files.values() {
            let both = |p: &u32| {
                let piece = PieceIndex(*p);
                known.bad.contains(piece) && (known.good.contains(piece) || known.good_before.contains(piece))
            };
            assert!(!(0..known.good.len()).any(|p| both(&p)), "no piece is good and bad");
            assert!(known.asked <= self.asked, "questions are numbered in order");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    const LIMITS: Limits =
        Limits { good_for: Duration::from_secs(100), bad_for: Duration::from_secs(10), pieces_max: 100 };
    const FILE: FileIdentity = FileIdentity([1; 7]);
    const OTHER: FileIdentity = FileIdentity([2; 7]);

    fn at(s: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(s))
    }

    fn record(v: &mut Verdicts, s: u64, n: u32, file: FileIdentity, (piece, good): (u32, bool)) {
        v.record(&LIMITS, at(s), (VersionId::numbered(n), file, 40), (PieceIndex(piece), good));
        v.check();
    }

    fn of(v: &mut Verdicts, s: u64, n: u32, file: FileIdentity, piece: u32) -> Verdict {
        let verdict = v.of(&LIMITS, at(s), (VersionId::numbered(n), file), PieceIndex(piece));
        v.check();
        verdict
    }

    #[test]
    fn a_verdict_counts_for_its_piece_of_its_file_alone() {
        let mut v = Verdicts::default();
        assert_eq!(of(&mut v, 0, 1, FILE, 7), Verdict::Unknown);
        record(&mut v, 0, 1, FILE, (7, true));
        assert_eq!(of(&mut v, 1, 1, FILE, 7), Verdict::Good);
        assert_eq!(of(&mut v, 1, 1, FILE, 8), Verdict::Unknown);
        assert_eq!(of(&mut v, 1, 2, FILE, 7), Verdict::Unknown);
        assert_eq!(of(&mut v, 1, 1, OTHER, 7), Verdict::Unknown, "it was written, or replaced");
        record(&mut v, 1, 1, OTHER, (8, true));
        assert_eq!(of(&mut v, 1, 1, FILE, 7), Verdict::Unknown, "forgotten with the former file");
    }

    #[test]
    fn a_good_piece_is_hashed_again_after_its_time_and_not_before_half_of_it() {
        for began in [0, 30, 49, 99] {
            let mut v = Verdicts::default();
            // an earlier piece fixes when the periods begin
            record(&mut v, 0, 1, FILE, (0, true));
            record(&mut v, began, 1, FILE, (7, true));
            assert_eq!(of(&mut v, began + 49, 1, FILE, 7), Verdict::Good, "{began}");
            assert_eq!(of(&mut v, began + 101, 1, FILE, 7), Verdict::Unknown, "{began}");
        }
        let mut v = Verdicts::default();
        record(&mut v, 0, 1, FILE, (7, true));
        assert_eq!((of(&mut v, 99, 1, FILE, 7), of(&mut v, 101, 1, FILE, 7)), (Verdict::Good, Verdict::Unknown));
        let mut v = Verdicts::default();
        record(&mut v, 0, 1, FILE, (7, true));
        for s in 1..50 {
            assert_eq!(of(&mut v, s, 1, FILE, 7), Verdict::Good, "{s}");
        }
        for s in 50..=101 {
            of(&mut v, s, 1, FILE, 7);
        }
        assert_eq!(of(&mut v, 101, 1, FILE, 7), Verdict::Unknown, "who asks does not lengthen it");
    }

    #[test]
    fn a_bad_piece_is_refused_then_hashed_again_and_may_be_good() {
        let mut v = Verdicts::default();
        record(&mut v, 0, 1, FILE, (7, true));
        record(&mut v, 1, 1, FILE, (7, false));
        assert_eq!((of(&mut v, 2, 1, FILE, 7), of(&mut v, 2, 1, FILE, 8)), (Verdict::Bad, Verdict::Unknown));
        assert_eq!(of(&mut v, 11, 1, FILE, 7), Verdict::Unknown);
        let suspects = |v: &Verdicts, file| v.suspects((VersionId::numbered(1), file));
        assert_eq!((suspects(&v, FILE), suspects(&v, OTHER)), (alloc::vec![PieceIndex(7)], Vec::new()));
        record(&mut v, 12, 1, FILE, (7, true));
        assert_eq!(of(&mut v, 12, 1, FILE, 7), Verdict::Good);
        assert_eq!(suspects(&v, FILE), []);
    }

    #[test]
    fn the_file_that_was_longest_not_asked_for_makes_room() {
        let mut v = Verdicts::default();
        record(&mut v, 0, 1, FILE, (7, true));
        record(&mut v, 0, 2, FILE, (7, true));
        assert_eq!(of(&mut v, 1, 1, FILE, 7), Verdict::Good);
        record(&mut v, 1, 3, FILE, (7, true));
        let verdicts = [1, 2, 3].map(|n| of(&mut v, 1, n, FILE, 7));
        assert_eq!(verdicts, [Verdict::Good, Verdict::Unknown, Verdict::Good]);
        v.record(&LIMITS, at(1), (VersionId::numbered(4), FILE, 500), (PieceIndex(499), true));
        v.check();
        assert_eq!(v.files.len(), 1, "one larger than all room is remembered alone");
    }

    #[test]
    fn each_clause_of_the_verdicts_finds_a_corruption() {
        let mut v = Verdicts::default();
        record(&mut v, 0, 1, FILE, (7, true));
        assert_each_clause_fires(
            &v,
            Verdicts::check,
            &[
                ("all pieces are counted", |v| v.pieces = 1),
                ("no piece is good and bad", |v| {
                    v.files.values_mut().for_each(|known| {
                        known.bad.insert(PieceIndex(7));
                    });
                }),
                ("questions are numbered in order", |v| v.asked = 0),
            ],
        );
    }
}
