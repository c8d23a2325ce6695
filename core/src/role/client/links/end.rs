//! Reasons for which links end: what peer and user are told, and whether the CN may introduce the peer again.

use crate::swarm::outcome::CloseReason;

/// Reason for which a link to a peer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::role::client) enum End {
    /// The connection could not be opened, or the peer has ended it.
    Closed,
    /// The connection did not open in time, or the peer did not answer in time.
    TimedOut,
    /// Connectivity checks have found no path.
    NoPath,
    /// The path to a connected peer is lost, by no fault of the peer.
    PathLost,
    /// The peer has said that it leaves.
    Left,
    /// The peer has broken the protocol.
    Violation,
    /// The download's swarm has dropped the peer.
    Swarm(CloseReason),
    /// The download needs no peers now.
    NotNeeded,
    /// The introduction was already used for a connection attempt.
    Reused,
    /// The connection is closed already, since the key that signs receipts is gone.
    Unsigned,
}

/// Stage that a link has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::role::client) enum Stage {
    /// A path is sought by connectivity checks, or was found and is being dialled.
    Sought,
    /// The peer is being dialled at its reported addresses, without connectivity checks.
    Direct,
    /// `Hello` is sent on the open connection, and not answered yet.
    Greeting,
    /// The peer serves requests.
    Open,
}

/// Whether the CN may introduce a peer again after its link has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The peer must not be introduced again.
    Never,
    /// The peer may be introduced again after the first such end, not after a second one.
    Once,
    /// The peer may be introduced again.
    Always,
    /// The peer may be introduced again, unless the swarm has banned it.
    IfGood,
    /// The peer is wanted back at once, unless the swarm has banned it.
    AtOnce,
}

impl End {
    /// Returns the reason with which the connection is to be closed; `None` if it is closed already.
    pub(in crate::role::client) const fn close(self) -> Option<CloseReason> {
        match self {
            Self::Closed | Self::Unsigned => None,
            Self::TimedOut | Self::NoPath | Self::PathLost => Some(CloseReason::Stalled),
            Self::Left | Self::NotNeeded | Self::Reused => Some(CloseReason::Done),
            Self::Violation => Some(CloseReason::Violation),
            Self::Swarm(why) => Some(why),
        }
    }

    /// Returns the reason that the user is told; `None` if the user is told nothing.
    pub(in crate::role::client) const fn notice(self) -> Option<CloseReason> {
        match self {
            Self::Swarm(CloseReason::Done) => None,
            Self::PathLost | Self::Violation | Self::Swarm(_) => self.close(),
            Self::Closed | Self::TimedOut | Self::NoPath => None,
            Self::Left | Self::NotNeeded | Self::Reused | Self::Unsigned => None,
        }
    }

    /// Returns whether the peer or the path has failed, rather than either side ended the link on purpose.
    pub(in crate::role::client) const fn is_failure(self) -> bool {
        match self {
            Self::Closed | Self::TimedOut | Self::NoPath | Self::PathLost => true,
            Self::Left | Self::Violation | Self::Swarm(_) | Self::NotNeeded | Self::Reused | Self::Unsigned => false,
        }
    }

    /// Returns whether the CN may introduce the peer again.
    pub(super) const fn again(self, stage: Stage) -> Again {
        match (self, stage) {
            (Self::Closed, Stage::Sought) | (Self::NoPath, _) => Again::Once,
            (Self::Closed, Stage::Open) => Again::IfGood,
            (Self::PathLost, _) => Again::AtOnce,
            (Self::Swarm(CloseReason::Done) | Self::NotNeeded, _) => Again::Always,
            (Self::Closed, Stage::Direct | Stage::Greeting) => Again::Never,
            (Self::TimedOut | Self::Left | Self::Violation | Self::Swarm(_) | Self::Reused | Self::Unsigned, _) => {
                Again::Never
            }
        }
    }
}
