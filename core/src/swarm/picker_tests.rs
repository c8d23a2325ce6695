//! Property tests of the piece picker, with random sequences of events.

use super::picker::{Picker, Span};
use crate::content::{Bitfield, Layout};
use crate::ids::{IntroId, PieceIndex, PublicKey, XferId};
use crate::seeded::Seeded;
use crate::swarm::outcome::SourceName;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use proptest::prelude::*;

/// A random event of the test.
#[derive(Clone, Debug)]
enum Step {
    /// The picker chooses at most `longest` blocks for a source (0: the edge), whose transfer begins.
    Pick { source: usize, longest: u32 },
    /// A transfer has delivered `part` quarters of its blocks, and ends if `ends`.
    Deliver { which: usize, part: u32, ends: bool },
    /// A transfer ends without delivering further blocks.
    End { which: usize },
    /// A complete piece becomes durable, or could not be saved.
    Save { durable: bool },
    /// A peer now has every piece.
    Fill { peer: usize },
    /// The download gets another id: incomplete pieces of peers are missing again.
    NewBooks,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_usize..3, 1_u32..80).prop_map(|(source, longest)| Step::Pick { source, longest }),
        4 => (0_usize..8, 0_u32..5, any::<bool>()).prop_map(|(which, part, ends)| Step::Deliver { which, part, ends }),
        1 => (0_usize..8).prop_map(|which| Step::End { which }),
        2 => any::<bool>().prop_map(|durable| Step::Save { durable }),
        1 => (0_usize..2).prop_map(|peer| Step::Fill { peer }),
        1 => Just(Step::NewBooks),
    ];
    proptest::collection::vec(step, 0..120)
}

fn name(source: usize) -> SourceName {
    match u32::try_from(source).expect("small") {
        0 => SourceName::Edge,
        n => SourceName::Peer(IntroId::numbered(n), PublicKey::numbered(n)),
    }
}

/// A picker under test, with a simple model of its expected state.
struct Lab {
    picker: Picker,
    layout: Layout,
    rng: Seeded,
    peers: [Bitfield; 2],
    under_way: BTreeMap<XferId, (usize, Span)>,
    next: u64,
    /// Bytes of each piece that were counted as verified since the piece was last missing.
    counted: BTreeMap<PieceIndex, u64>,
    /// Incomplete pieces of which a peer has delivered blocks.
    of_peers: BTreeSet<PieceIndex>,
    saving: Vec<PieceIndex>,
}

impl Lab {
    fn new(layout: Layout, seed: u64) -> Self {
        let pieces = layout.pieces();
        let mut odd = Bitfield::empty(pieces);
        (0..pieces).filter(|p| p % 2 == 1).for_each(|p| {
            odd.insert(PieceIndex(p));
        });
        let mut picker = Picker::new(layout, Bitfield::empty(pieces), seed);
        picker.add_holder(odd.iter());
        Self {
            picker,
            layout,
            rng: Seeded::new(seed),
            peers: [odd, Bitfield::empty(pieces)],
            under_way: BTreeMap::new(),
            next: 0,
            counted: BTreeMap::new(),
            of_peers: BTreeSet::new(),
            saving: Vec::new(),
        }
    }

    fn pick(&mut self, source: usize, longest: u32) {
        let span = match source {
            0 => self.picker.pick_for_edge(longest, false),
            n => self.picker.pick_for_peer(&self.peers[n - 1], longest, &mut self.rng),
        };
        let Some((piece, blocks)) = span else { return };
        assert!(!blocks.is_empty() && blocks.end <= self.layout.blocks(piece), "within the piece");
        assert!(!self.picker.have().contains(piece) && !self.saving.contains(&piece), "nothing is fetched twice");
        assert!(source == 0 || self.peers[source - 1].contains(piece), "a peer is asked for what it has");
        assert!(source == 0 || blocks.end - blocks.start <= longest);
        let overlaps = |(p, b): &Span| *p == piece && b.start < blocks.end && blocks.start < b.end;
        assert!(!self.under_way.values().any(|(_, span)| overlaps(span)), "nothing is under way twice");
        let xfer = XferId(self.next);
        self.next += 1;
        self.picker.begin(xfer, (piece, blocks.clone()), source == 0);
        self.under_way.insert(xfer, (source, (piece, blocks)));
    }

    fn nth(&self, which: usize) -> Option<XferId> {
        self.under_way.keys().nth(which % self.under_way.len().max(1)).copied()
    }

    fn end(&mut self, xfer: XferId) {
        if let Some((_, (piece, _))) = self.under_way.remove(&xfer) {
            self.picker.end(xfer, piece);
        }
    }

    fn deliver(&mut self, which: usize, part: u32, ends: bool) {
        let Some(xfer) = self.nth(which) else { return };
        let (source, (piece, blocks)) = self.under_way[&xfer].clone();
        let len = blocks.end - blocks.start;
        // an edge's piece without leaf hashes is verified whole or not at all
        let len = if source == 0 { if part > 2 { len } else { 0 } } else { len * part / 4 };
        let bytes = self.picker.verified((piece, blocks.start..blocks.start + len), name(source));
        *self.counted.entry(piece).or_default() += bytes;
        if source != 0 && bytes > 0 {
            self.of_peers.insert(piece);
        }
        assert!(self.counted[&piece] <= u64::from(self.layout.piece_size(piece)), "a byte is counted once");
        if ends {
            self.end(xfer);
        }
        if let Some(complete) = self.picker.take_complete(piece) {
            let sum: u64 = complete.from.iter().map(|(_, b)| u64::from(*b)).sum();
            assert_eq!(sum, u64::from(self.layout.piece_size(piece)));
            complete.needless.into_iter().for_each(|x| self.end(x));
            self.of_peers.remove(&piece);
            self.saving.push(piece);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pick { source, longest } => self.pick(source, longest),
            Step::Deliver { which, part, ends } => self.deliver(which, part, ends),
            Step::End { which } => {
                if let Some(xfer) = self.nth(which) {
                    self.end(xfer);
                }
            }
            Step::Save { durable } => {
                let Some(piece) = self.saving.pop() else { return };
                if durable {
                    self.picker.saved(piece);
                    assert!(self.picker.have().contains(piece));
                } else {
                    self.picker.not_saved(piece);
                    self.counted.remove(&piece);
                }
            }
            Step::NewBooks => {
                let gone = core::mem::take(&mut self.of_peers);
                let bytes: u64 = gone.iter().filter_map(|piece| self.counted.remove(piece)).sum();
                assert_eq!(self.picker.forget_incomplete_of_peers(), bytes, "all of them, and nothing else");
            }
            Step::Fill { peer } => {
                let all = Bitfield::full(self.layout.pieces());
                self.picker.add_holder(all.iter().filter(|p| !self.peers[peer].contains(*p)));
                self.peers[peer] = all;
            }
        }
        self.picker.check();
        let durable: u64 = self.picker.have().iter().map(|p| u64::from(self.layout.piece_size(p))).sum();
        assert_eq!(self.picker.durable_bytes(), durable);
    }

    /// Checks that the edge alone can complete the version from any state.
    fn complete(&mut self) {
        let all: Vec<_> = self.under_way.keys().copied().collect();
        all.into_iter().for_each(|x| self.end(x));
        for _ in 0..10_000 {
            if self.picker.have().is_full() {
                return;
            }
            self.pick(0, 64);
            self.deliver(0, 4, true);
            self.step(Step::Save { durable: true });
        }
        panic!("a piece is stuck: {:?}", self.picker);
    }
}

#[test]
fn an_edge_gets_a_part_of_a_piece_only_once_its_leaf_hashes_are_known() {
    let layout = Layout::new(1 << 20, 1 << 20).expect("one piece of 64 blocks");
    let mut picker = Picker::new(layout, Bitfield::empty(1), 1);
    let (piece, xfer) = (PieceIndex(0), XferId(0));
    picker.begin(xfer, (piece, 0..16), false);
    assert_eq!(picker.pick_for_edge(64, false), None, "nobody could check the rest");
    picker.verified((piece, 0..1), name(1));
    assert_eq!(picker.pick_for_edge(64, false), Some((piece, 16..64)));
    picker.end(xfer, piece);
    assert_eq!(picker.pick_for_edge(64, false), Some((piece, 1..64)));
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(256))]

    #[test]
    fn no_sequence_of_events_loses_doubles_or_blocks_a_piece(
        size in 1_u64..3_000_000, large in any::<bool>(), seed in any::<u64>(), steps in steps(),
    ) {
        let layout = Layout::new(size, if large { 2 << 20 } else { 65_536 }).expect("a layout");
        let mut lab = Lab::new(layout, seed);
        steps.into_iter().for_each(|s| lab.step(s));
        lab.complete();
    }

    #[test]
    fn a_peer_is_asked_for_the_rarest_piece_that_it_has(
        holders in proptest::collection::vec(0_usize..4, 16), seed in any::<u64>(),
    ) {
        let layout = Layout::new(16 * 65_536, 65_536).expect("a layout");
        let mut picker = Picker::new(layout, Bitfield::empty(16), 0);
        for (piece, n) in (0_u32..).map(PieceIndex).zip(&holders) {
            (0..*n).for_each(|_| picker.add_holder([piece].into_iter()));
        }
        let mut theirs = Bitfield::empty(16);
        (4..12).for_each(|p| { theirs.insert(PieceIndex(p)); });
        let (piece, _) = picker.pick_for_peer(&theirs, 4, &mut Seeded::new(seed)).expect("something");
        prop_assert!(theirs.contains(piece));
        prop_assert_eq!(Some(&holders[piece.0 as usize]), holders[4..12].iter().min());
    }
}

#[test]
fn ties_are_broken_at_random() {
    let layout = Layout::new(16 * 65_536, 65_536).expect("a layout");
    let picker = Picker::new(layout, Bitfield::empty(16), 0);
    let mut rng = Seeded::new(1);
    let all = Bitfield::full(16);
    let mut seen = Bitfield::empty(16);
    (0..200).for_each(|_| {
        seen.insert(picker.pick_for_peer(&all, 4, &mut rng).expect("something").0);
    });
    assert!(seen.is_full());
}

#[test]
fn the_edge_gets_pieces_that_no_peer_has_first() {
    let layout = Layout::new(16 * 65_536, 65_536).expect("a layout");
    let mut picker = Picker::new(layout, Bitfield::empty(16), 5);
    picker.add_holder((0..16).filter(|p| *p != 3 && *p != 9).map(PieceIndex));
    let mut order = Vec::new();
    while let Some(span) = picker.pick_for_edge(64, false) {
        order.push(span.0.0);
        picker.begin(XferId(u64::from(span.0.0)), span, true);
    }
    assert_eq!(order[..3], [9, 3, 4]);
    assert_eq!(order.len(), 16);
    let mut picker = Picker::new(layout, Bitfield::empty(16), 5);
    picker.add_holder(layout.iter());
    assert_eq!(picker.pick_for_edge(64, true), None);
}
