//! One source of a download, and the transfers under way.

use super::io::{Source, Window};
use crate::Time;
use crate::content::Bitfield;
use crate::ids::PieceIndex;
use crate::swarm::outcome::SourceName;
use crate::swarm::picker::Span;
use crate::swarm::rate::Rate;
use core::time::Duration;

/// The edges, as one, or a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SourceState {
    /// Its name in the books.
    pub(super) name: SourceName,
    /// What it has; the edge has everything, which is not written down.
    pub(super) has: Option<Bitfield>,
    /// How fast it is.
    pub(super) rate: Rate,
    /// Bytes asked for and not yet verified.
    pub(super) in_flight: u64,
    /// Transfers under way.
    pub(super) fetches: u32,
    /// Transfers that it takes at a time.
    pub(super) fetches_max: u32,
    /// Transfers that failed without its fault being proven, since it last delivered.
    pub(super) strikes: u8,
    /// It has delivered something that is right. Until then it gets one transfer, so that a peer with wrong bytes
    /// wastes no more than that.
    pub(super) proven: bool,
    /// Since when it has had work and verified nothing.
    pub(super) quiet_since: Time,
}

impl SourceState {
    pub(super) fn new(name: SourceName, has: Option<Bitfield>, fetches_max: u32) -> Self {
        Self {
            proven: name == SourceName::Edge,
            name,
            has,
            rate: Rate::new(),
            in_flight: 0,
            fetches: 0,
            fetches_max,
            strikes: 0,
            quiet_since: Time::ZERO,
        }
    }

    /// Whether one more transfer fits into the window.
    pub(super) fn has_room(&self, window: &Window) -> bool {
        let bytes = self.rate.bytes_in(window.time).clamp(window.least, window.most);
        self.fetches == 0
            || (self.proven && self.fetches < self.fetches_max.min(window.fetches) && self.in_flight < bytes)
    }

    /// When it will have delivered all that is under way: the longer of what its rate says and how long it has been
    /// quiet.
    pub(super) fn time_left(&self, now: Time) -> Duration {
        let quiet = if self.fetches > 0 { now.since(self.quiet_since) } else { Duration::ZERO };
        self.rate.time_for(self.in_flight).unwrap_or(Duration::ZERO).max(quiet)
    }

    /// Whether it has a piece.
    pub(super) fn has(&self, piece: PieceIndex) -> bool {
        self.has.as_ref().is_none_or(|b| b.contains(piece))
    }
}

/// A transfer under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Xfer {
    /// From whom.
    pub(super) source: Source,
    /// Its name in the books, also after it has gone.
    pub(super) name: SourceName,
    /// What.
    pub(super) span: Span,
    /// Bytes verified so far.
    pub(super) verified: u64,
    /// Not waited for any more: only its end is.
    pub(super) cancelled: bool,
}
