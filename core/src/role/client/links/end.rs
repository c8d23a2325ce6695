//! Ends of links: who is told, and whether the CN may introduce the peer again.

use crate::swarm::outcome::CloseReason;

/// Reason for which a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::role::client) enum End {
    /// The connection could not be opened, or the peer has ended it.
    Closed,
    /// The connection has not opened, or the peer has not answered, in time.
    TimedOut,
    /// Connectivity checks have found no path.
    NoPath,
    /// The path to a connected peer is lost, but the peer itself has done no wrong.
    PathLost,
    /// The peer leaves.
    Left,
    /// The peer has broken the protocol.
    Violation,
    /// The download's swarm has dropped the peer.
    Swarm(CloseReason),
    /// The download needs no peers now.
    NotNeeded,
    /// The introduction was used before.
    Reused,
    /// The connection was closed, since the key that signs receipts is gone.
    Unsigned,
}

/// Stage of a link, as its end depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::role::client) enum Stage {
    /// Connectivity checks seek a path, or have found one that is being dialled.
    Sought,
    /// The peer is dialled directly.
    Direct,
    /// `Hello` is sent on the open connection.
    Greeting,
    /// The peer serves.
    Open,
}

/// Permission for the CN to introduce a peer again whose link has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The peer is not to be introduced again.
    Never,
    /// The first such end is forgiven.
    Once,
    /// The peer may be introduced again.
    Always,
    /// The peer is wanted back, unless the swarm has banned it.
    IfGood,
    /// The peer is wanted back at once, unless the swarm has banned it.
    AtOnce,
}

impl End {
    /// Returns the reason to close the connection for; `None` if it is closed already.
    pub(in crate::role::client) const fn close(self) -> Option<CloseReason> {
        match self {
            Self::Closed | Self::Unsigned => None,
            Self::TimedOut | Self::NoPath | Self::PathLost => Some(CloseReason::Stalled),
            Self::Left | Self::NotNeeded | Self::Reused => Some(CloseReason::Done),
            Self::Violation => Some(CloseReason::Violation),
            Self::Swarm(why) => Some(why),
        }
    }

    /// Returns the reason to tell the user for; `None` if the user is not told.
    pub(in crate::role::client) const fn notice(self) -> Option<CloseReason> {
        match self {
            Self::Swarm(CloseReason::Done) => None,
            Self::PathLost | Self::Violation | Self::Swarm(_) => self.close(),
            Self::Closed | Self::TimedOut | Self::NoPath => None,
            Self::Left | Self::NotNeeded | Self::Reused | Self::Unsigned => None,
        }
    }

    /// Returns whether the peer or the path has failed; else this client or the peer has decided so.
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
