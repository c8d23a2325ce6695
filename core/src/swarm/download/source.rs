//! State of one source of a download (a peer or the edges), and of one transfer.

use super::io::{Source, Window};
use crate::Time;
use crate::content::Bitfield;
use crate::ids::PieceIndex;
use crate::swarm::outcome::SourceName;
use crate::swarm::picker::Span;
use crate::swarm::rate::Rate;
use core::time::Duration;

/// State of one source: a peer, or all edges together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SourceState {
    /// Name of the source in usage records.
    pub(super) name: SourceName,
    /// Pieces that the source has; `None` for the edge, which has every piece.
    pub(super) has: Option<Bitfield>,
    /// Measured speed of the source.
    pub(super) rate: Rate,
    /// Number of bytes requested from the source and not yet verified.
    pub(super) in_flight: u64,
    /// Number of the source's running transfers.
    pub(super) fetches: u32,
    /// Maximum of transfers that the source accepts at a time.
    pub(super) fetches_max: u32,
    /// Number of failed transfers since the last delivered byte, without proof that the source is at fault.
    pub(super) strikes: u8,
    /// Whether the source has delivered a verified block. Until then it gets one transfer, which limits what a peer
    /// with wrong bytes can waste.
    pub(super) proven: bool,
    /// When the source last verified a block, or got work after being idle.
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

    /// Returns whether `window`, the limit of bytes and transfers in flight, allows one more transfer from this
    /// source.
    pub(super) fn has_room(&self, window: &Window) -> bool {
        let bytes = self.rate.bytes_in(window.time).clamp(window.least, window.most);
        self.fetches == 0
            || (self.proven && self.fetches < self.fetches_max.min(window.fetches) && self.in_flight < bytes)
    }

    /// Returns the time until all running transfers are delivered: estimated by rate, but at least as long as the
    /// source has been quiet.
    pub(super) fn time_left(&self, now: Time) -> Duration {
        let quiet = if self.fetches > 0 { now.since(self.quiet_since) } else { Duration::ZERO };
        self.rate.time_for(self.in_flight).unwrap_or(Duration::ZERO).max(quiet)
    }

    /// Returns whether the source has a piece.
    pub(super) fn has(&self, piece: PieceIndex) -> bool {
        self.has.as_ref().is_none_or(|b| b.contains(piece))
    }
}

/// A transfer that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Xfer {
    /// The edge or peer that is asked.
    pub(super) source: Source,
    /// Name of the source in usage records, kept after the source has gone.
    pub(super) name: SourceName,
    /// The piece and blocks requested.
    pub(super) span: Span,
    /// Number of bytes of the transfer that are verified so far.
    pub(super) verified: u64,
    /// Whether the transfer was cancelled; only its end is still to be reported.
    pub(super) cancelled: bool,
}
