//! Chooses the next piece. The picker is a pure value: it knows which pieces are durable, which are being fetched, and
//! how rare each is among the connected peers. It does not know time, rates or connections.

use super::Blocks;
use crate::Rng;
use crate::content::{Bitfield, Layout};
use crate::ids::{PieceIndex, XferId};
use crate::limits::BLOCK_LEN;
use crate::swarm::outcome::SourceName;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// A piece and a range of its blocks.
pub type Span = (PieceIndex, Range<u32>);

/// A piece of which some blocks are verified or being fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Partial {
    /// Blocks that are verified and written.
    verified: Blocks,
    /// Running transfers with their blocks. Two overlap only in the endgame.
    active: Vec<(XferId, Range<u32>)>,
    /// Bytes of `verified` by the source that delivered them.
    from: Vec<(SourceName, u32)>,
    /// Whether the store has the piece's leaf hashes, so that any range of blocks can be checked.
    leaves: bool,
}

/// A piece whose blocks are all verified, to be made durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Complete {
    /// Bytes of the piece by source.
    pub from: Vec<(SourceName, u32)>,
    /// Running transfers of the piece that can be cancelled.
    pub needless: Vec<XferId>,
}

/// The picker of one download. Each piece is missing, partial, complete (not yet durable) or durable; a block counts
/// as verified once, even if several sources deliver it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Picker {
    layout: Layout,
    /// Pieces that are on disk durably.
    have: Bitfield,
    /// Durable, complete and partial pieces; all others are untouched.
    touched: Bitfield,
    partial: BTreeMap<PieceIndex, Partial>,
    /// Number of connected peers that have each piece, by piece index.
    holders: Vec<u16>,
    /// Next piece to request from the edge: contiguous pieces, so that the shell can request them in one HTTP range.
    edge_next: PieceIndex,
}

impl Picker {
    /// Creates the picker of a version; the pieces in `have` are durable. `order_seed` sets the first piece to
    /// request from the edge.
    #[must_use]
    pub fn new(layout: Layout, have: Bitfield, order_seed: u64) -> Self {
        let pieces = layout.pieces();
        let have = if have.len() == pieces { have } else { Bitfield::empty(pieces) };
        let start = u32::try_from(order_seed % u64::from(pieces.max(1))).unwrap_or(0);
        Self {
            layout,
            touched: have.clone(),
            have,
            partial: BTreeMap::new(),
            holders: alloc::vec![0; pieces as usize],
            edge_next: PieceIndex(start),
        }
    }

    /// Returns the piece and block layout of the version.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the durable pieces.
    #[must_use]
    pub const fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Returns the bytes of all durable pieces.
    #[must_use]
    pub fn durable_bytes(&self) -> u64 {
        let last = PieceIndex(self.layout.pieces().saturating_sub(1));
        let whole = u64::from(self.have.count()) * u64::from(self.layout.piece_len());
        let short = u64::from(self.layout.piece_len()) - u64::from(self.layout.piece_size(last));
        if self.have.contains(last) { whole - short } else { whole }
    }

    /// Returns the number of bytes in a range of blocks.
    #[must_use]
    pub fn bytes(&self, (piece, blocks): &Span) -> u64 {
        let r = self.layout.block_range(*piece, blocks.clone());
        r.end - r.start
    }

    /// Counts one more connected peer that has each of these pieces, to know how rare each piece is.
    pub fn add_holder(&mut self, pieces: impl Iterator<Item = PieceIndex>) {
        self.count_holders(pieces, |n| n.saturating_add(1));
    }

    /// Counts one connected peer fewer that has each of these pieces.
    pub fn remove_holder(&mut self, pieces: impl Iterator<Item = PieceIndex>) {
        self.count_holders(pieces, |n| {
            debug_assert!(n > 0, "a peer's piece was counted before");
            n.saturating_sub(1)
        });
    }

    fn count_holders(&mut self, pieces: impl Iterator<Item = PieceIndex>, change: fn(u16) -> u16) {
        for piece in pieces {
            if let Some(n) = self.holders.get_mut(piece.0 as usize) {
                *n = change(*n);
            }
        }
    }

    /// Picks the next blocks to request from a peer that has `theirs`: the rest of a partial piece, else the rarest
    /// untouched piece, ties at random. Picks at most `longest` blocks and draws at most one random number.
    pub fn pick_for_peer(&self, theirs: &Bitfield, longest: u32, rng: &mut dyn Rng) -> Option<Span> {
        let under_way = self.partial.keys().filter(|&&p| theirs.contains(p)).find_map(|&p| self.gap(p, longest));
        under_way.or_else(|| {
            let candidates = || untouched(theirs, &self.touched);
            let rarity = |p: PieceIndex| self.holders.get(p.0 as usize).copied().unwrap_or(0);
            let rarest = candidates().map(rarity).min()?;
            let ties = candidates().filter(|&p| rarity(p) == rarest).count();
            let ties = u32::try_from(ties).unwrap_or(u32::MAX);
            let drawn = if ties > 1 { rng.below(ties) } else { 0 };
            let piece = candidates().filter(|&p| rarity(p) == rarest).nth(drawn as usize)?;
            Some((piece, 0..longest.min(self.layout.blocks(piece))))
        })
    }

    /// Picks the next blocks to request from an edge: first those of pieces that no peer has, then (unless
    /// `only_those`) the rest of partial pieces, then untouched pieces in ascending order after the last piece picked
    /// for an edge. A piece without known leaf hashes is picked whole, since only a whole piece can be checked.
    #[must_use]
    pub fn pick_for_edge(&self, longest: u32, only_those: bool) -> Option<Span> {
        let no_peer_has = |p: &PieceIndex| self.holders.get(p.0 as usize).is_none_or(|&n| n == 0);
        let of_partial = |p: &PieceIndex| self.edge_gap(*p, longest);
        let partial_lacking = || self.partial.keys().filter(|p| no_peer_has(p)).find_map(of_partial);
        let whole = |p: PieceIndex| (p, 0..self.layout.blocks(p));
        let lacking = partial_lacking().or_else(|| self.in_order().find(no_peer_has).map(whole));
        if lacking.is_some() || only_those {
            return lacking;
        }
        self.partial.keys().find_map(of_partial).or_else(|| self.in_order().next().map(whole))
    }

    /// Returns the untouched pieces in order, beginning at `edge_next` and wrapping around.
    fn in_order(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        let (n, from) = (self.layout.pieces(), self.edge_next.0);
        (from..n).chain(0..from.min(n)).map(PieceIndex).filter(|&p| !self.touched.contains(p))
    }

    /// Returns whether every block is verified or being fetched: the endgame begins.
    #[must_use]
    pub fn all_under_way(&self) -> bool {
        self.touched.is_full() && self.partial.keys().all(|&p| self.gap(p, 1).is_none())
    }

    fn gap(&self, piece: PieceIndex, longest: u32) -> Option<Span> {
        let partial = self.partial.get(&piece)?;
        let mut busy = partial.verified.clone();
        for (_, blocks) in &partial.active {
            busy.insert(blocks.clone());
        }
        Some((piece, busy.gap(self.layout.blocks(piece), longest)?))
    }

    fn edge_gap(&self, piece: PieceIndex, longest: u32) -> Option<Span> {
        let partial = self.partial.get(&piece)?;
        if partial.leaves {
            return self.gap(piece, longest);
        }
        partial.active.is_empty().then(|| (piece, 0..self.layout.blocks(piece)))
    }

    /// Picks which blocks of `span`, those of a running transfer, a second source fetches too in the endgame: the
    /// last run of at most `longest` blocks that are neither verified nor fetched twice, since a source delivers its
    /// blocks in order.
    #[must_use]
    pub fn duplicate_of(&self, (piece, blocks): &Span, for_edge: bool, longest: u32) -> Option<Span> {
        let partial = self.partial.get(piece)?;
        if for_edge && !partial.leaves {
            return (partial.active.len() == 1).then(|| (*piece, 0..self.layout.blocks(*piece)));
        }
        let fetched_by = |b: u32| partial.active.iter().filter(|(_, blocks)| blocks.contains(&b)).count();
        let single = |b: &u32| !partial.verified.contains(*b) && fetched_by(*b) == 1;
        let last = blocks.clone().rev().find(single)?;
        let least = blocks.start.max((last + 1).saturating_sub(longest));
        let first = (least..last).rev().take_while(single).last().unwrap_or(last);
        Some((*piece, first..last + 1))
    }

    /// Records that a transfer of these blocks has begun; `for_edge`: an edge is their source.
    pub fn begin(&mut self, xfer: XferId, (piece, blocks): Span, for_edge: bool) {
        if for_edge && !self.touched.contains(piece) {
            self.edge_next = PieceIndex(piece.0.saturating_add(1) % self.layout.pieces().max(1));
        }
        self.touched.insert(piece);
        self.partial.entry(piece).or_default().active.push((xfer, blocks));
        self.check_touched(piece);
    }

    /// Marks blocks that the source `by` delivered as verified. Returns the bytes of those that were not verified
    /// before.
    pub fn verified(&mut self, (piece, blocks): Span, by: SourceName) -> u64 {
        let Some(partial) = self.partial.get_mut(&piece) else { return 0 };
        let mut bytes = 0;
        for block in blocks.start..blocks.end.min(self.layout.blocks(piece)) {
            if partial.verified.insert(block..block + 1) == 1 {
                let r = self.layout.block_range(piece, block..block + 1);
                bytes += r.end - r.start;
            }
        }
        partial.leaves |= by != SourceName::Edge && !partial.verified.is_empty();
        let counted = u32::try_from(bytes).unwrap_or(u32::MAX);
        match partial.from.iter_mut().find(|(name, _)| *name == by) {
            Some((_, n)) => *n = n.saturating_add(counted),
            None if counted > 0 => partial.from.push((by, counted)),
            None => {}
        }
        self.check_touched(piece);
        bytes
    }

    /// Removes a transfer that ended or was cancelled; its undelivered blocks can be picked again.
    pub fn end(&mut self, xfer: XferId, piece: PieceIndex) {
        let Some(partial) = self.partial.get_mut(&piece) else { return };
        partial.active.retain(|(x, _)| *x != xfer);
        if partial.active.is_empty() && partial.verified.is_empty() {
            self.partial.remove(&piece);
            self.touched.remove(piece);
        }
        self.check_touched(piece);
    }

    /// Returns the running transfers of a piece that fetch only blocks which other sources have delivered already.
    #[must_use]
    pub fn needless(&self, piece: PieceIndex) -> Vec<XferId> {
        let Some(partial) = self.partial.get(&piece).filter(|p| p.active.len() > 1) else { return Vec::new() };
        let done = |blocks: &Range<u32>| blocks.clone().all(|b| partial.verified.contains(b));
        partial.active.iter().filter(|(_, blocks)| done(blocks)).map(|(x, _)| *x).collect()
    }

    /// If every block of a piece is verified, removes it from the incomplete pieces and returns it, so that it can be
    /// saved.
    pub fn take_complete(&mut self, piece: PieceIndex) -> Option<Complete> {
        let partial = self.partial.get(&piece)?;
        if partial.verified.count() < self.layout.blocks(piece) {
            return None;
        }
        let Partial { from, active, .. } = self.partial.remove(&piece)?;
        Some(Complete { from, needless: active.into_iter().map(|(x, _)| x).collect() })
    }

    /// Discards all blocks of incomplete pieces to which peers have contributed; these pieces are missing again.
    /// Returns the number of bytes discarded.
    pub fn forget_incomplete_of_peers(&mut self) -> u64 {
        let mut lost = 0;
        for partial in self.partial.values_mut().filter(|p| p.from.iter().any(|(by, _)| *by != SourceName::Edge)) {
            lost += partial.from.iter().map(|(_, bytes)| u64::from(*bytes)).sum::<u64>();
            (partial.verified, partial.from) = (Blocks::default(), Vec::new());
        }
        self.partial.retain(|piece, partial| {
            let kept = !(partial.active.is_empty() && partial.verified.is_empty());
            if !kept {
                self.touched.remove(*piece);
            }
            kept
        });
        lost
    }

    /// Marks a complete piece as durable.
    pub fn saved(&mut self, piece: PieceIndex) {
        if self.touched.contains(piece) {
            self.have.insert(piece);
        }
    }

    /// Marks a complete piece as missing again, because the store could not save it.
    pub fn not_saved(&mut self, piece: PieceIndex) {
        if !self.have.contains(piece) && !self.partial.contains_key(&piece) {
            self.touched.remove(piece);
        }
    }

    /// Returns the number of running transfers.
    pub(super) fn transfers(&self) -> usize {
        self.partial.values().map(|partial| partial.active.len()).sum()
    }

    /// Returns whether a transfer of these blocks is running.
    pub(super) fn is_fetching(&self, xfer: XferId, (piece, blocks): &Span) -> bool {
        self.partial.get(piece).is_some_and(|partial| partial.active.iter().any(|a| a.0 == xfer && a.1 == *blocks))
    }

    /// Returns the number of pieces that are complete and not durable.
    pub(super) fn complete(&self) -> usize {
        (self.touched.count() as usize).saturating_sub(self.have.count() as usize + self.partial.len())
    }

    /// Returns whether a piece is complete and not durable.
    pub(super) fn is_complete(&self, piece: PieceIndex) -> bool {
        self.touched.contains(piece) && !self.have.contains(piece) && !self.partial.contains_key(&piece)
    }

    /// Returns the number of pairs of a connected peer and a piece that it has.
    pub(super) fn copies(&self) -> u64 {
        self.holders.iter().map(|n| u64::from(*n)).sum()
    }

    /// Asserts the invariants of all pieces and counts.
    pub fn check(&self) {
        let pieces = self.layout.pieces();
        let sized = self.have.len() == pieces && self.touched.len() == pieces && self.holders.len() == pieces as usize;
        assert!(sized, "the picker knows each piece of the layout");
        assert!(self.edge_next.0 < pieces.max(1), "the edge's next piece is one of the version");
        self.have.check();
        self.touched.check();
        let mut bytes = self.have.as_bytes().iter().zip(self.touched.as_bytes());
        assert!(bytes.all(|(have, touched)| have & !touched == 0), "a durable piece is touched");
        self.partial.iter().for_each(|(piece, partial)| self.check_partial(*piece, partial));
    }

    /// Asserts the invariants of one piece in a debug build.
    fn check_touched(&self, piece: PieceIndex) {
        if cfg!(debug_assertions)
            && let Some(partial) = self.partial.get(&piece)
        {
            self.check_partial(piece, partial);
        }
    }

    fn check_partial(&self, piece: PieceIndex, Partial { verified, active, from, leaves }: &Partial) {
        let (blocks, size) = (self.layout.blocks(piece), u64::from(self.layout.piece_size(piece)));
        let missing = self.touched.contains(piece) && !self.have.contains(piece);
        assert!(missing, "a partial piece is touched and not durable");
        assert!(!active.is_empty() || !verified.is_empty(), "a partial piece has a transfer or a verified block");
        let within = |range: &Range<u32>| !range.is_empty() && range.end <= blocks;
        assert!(active.iter().all(|(_, range)| within(range)), "the blocks of a transfer lie within its piece");
        verified.check();
        assert!(verified.end() <= blocks, "a verified block lies within its piece");
        let whole = u64::from(verified.count()) * u64::from(BLOCK_LEN);
        let short = u64::from(blocks) * u64::from(BLOCK_LEN) - size;
        let bytes = if verified.end() == blocks { whole - short } else { whole };
        assert!(from.iter().map(|(_, n)| u64::from(*n)).sum::<u64>() == bytes, "a verified byte is counted once");
        let of_edge = from.iter().all(|(by, _)| *by == SourceName::Edge);
        assert!(*leaves || of_edge, "a block of a peer comes with leaf hashes");
    }
}

/// Returns the pieces of `theirs` that are not in `touched`, in order.
fn untouched<'a>(theirs: &'a Bitfield, touched: &'a Bitfield) -> impl Iterator<Item = PieceIndex> + 'a {
    let bytes = theirs.as_bytes().iter().zip(touched.as_bytes()).map(|(t, o)| t & !o);
    (0_u32..)
        .zip(bytes)
        .filter(|&(_, b)| b != 0)
        .flat_map(|(i, b)| (0..8_u32).filter(move |bit| b & (0x80 >> bit) != 0).map(move |bit| PieceIndex(i * 8 + bit)))
}

/// Returns the number of blocks in a transfer of at most `bytes`, at least one.
#[must_use]
pub const fn blocks_in(bytes: u32) -> u32 {
    if bytes < BLOCK_LEN { 1 } else { bytes / BLOCK_LEN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;
    use crate::ids::{IntroId, PublicKey};

    const FIRST: PieceIndex = PieceIndex(0);

    fn first(picker: &mut Picker) -> &mut Partial {
        picker.partial.get_mut(&FIRST).expect("a partial piece")
    }

    /// Returns a picker of three pieces: one partial, one durable, one untouched.
    fn healthy() -> Picker {
        let layout = Layout::new(150_000, 65_536).expect("a layout");
        let mut have = Bitfield::empty(3);
        have.insert(PieceIndex(1));
        let mut picker = Picker::new(layout, have, 0);
        picker.begin(XferId(1), (FIRST, 0..4), false);
        picker.verified((FIRST, 0..2), SourceName::Peer(IntroId::numbered(1), PublicKey::numbered(1)));
        picker
    }

    #[test]
    fn each_clause_about_the_picker_fires() {
        assert_each_clause_fires(
            &healthy(),
            Picker::check,
            &[
                ("the picker knows each piece of the layout", |p| p.holders.push(0)),
                ("the edge's next piece is one of the version", |p| p.edge_next = PieceIndex(3)),
                ("a durable piece is touched", |p| _ = p.touched.remove(PieceIndex(1))),
                ("a partial piece is touched and not durable", |p| _ = p.have.insert(FIRST)),
                ("a partial piece has a transfer or a verified block", |p| *first(p) = Partial::default()),
                ("the blocks of a transfer lie within its piece", |p| first(p).active[0].1 = 0..5),
                ("a verified block lies within its piece", |p| _ = first(p).verified.insert(4..5)),
                ("a verified byte is counted once", |p| first(p).from[0].1 += 1),
                ("a block of a peer comes with leaf hashes", |p| first(p).leaves = false),
            ],
        );
    }
}
