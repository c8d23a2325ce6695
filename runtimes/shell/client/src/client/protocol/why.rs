//! Lines of the answer to `why`: the reason why a download is without peers, and the outcome of each introduction.

use super::State;
use serde::{Deserialize, Serialize};
use swarmedge_core::role::client::io::NoPeers;
use swarmedge_core::wire::control::QueryError;

/// A download and the peers it was introduced to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyLine {
    /// The number of the download.
    pub download: u32,
    /// The URL of the downloaded object.
    pub url: String,
    /// The present state of the download.
    pub state: State,
    /// Whether the client is connected to a CN, which makes introductions.
    pub control_connected: bool,
    /// A sentence for the user if the CNs refuse this version of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdated: Option<String>,
    /// The reason why the download is or was without peers, or without more of them, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_peers: Option<WithoutPeers>,
    /// The reason of `without_peers` as a sentence for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_peers_because: Option<String>,
    /// The last peers that were introduced, oldest first.
    pub peers: Vec<MeetingLine>,
}

/// The reason why a download is or was without peers, or without more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutPeers {
    /// No edge has granted the download yet.
    NotGranted,
    /// Every piece was in the cache already.
    HereAlready,
    /// The download ended before a question for peers was answered.
    EndedBefore,
    /// The question for peers is not answered yet.
    NotAnswered,
    /// The provider's policy forbids peers for the object.
    Policy,
    /// The edges serve the rest of the download without peers, since they cannot count its bytes any more.
    EdgesAlone,
    /// The control plane was not connected.
    NotConnected,
    /// The CNs refuse this version of the client.
    VersionRefused,
    /// The grant was refused: it is void, or another client's.
    GrantRefused,
    /// The client has asked more often than it may.
    QueryLimit,
    /// No directory of copies (DN) could be asked.
    DirectoryAway,
    /// The download gave its uploaders no receipts.
    NoReceipts,
    /// The operator has limited peering for this installation.
    Limited,
    /// The object is no longer published.
    Withdrawn,
    /// No other client shares the version.
    NotShared,
    /// Other clients share the version, but none of them can be reached.
    Unreachable,
    /// All clients that share the version and can be reached are known already.
    AllKnown,
    /// The download has been offered as many peers as it may be for now.
    OffersSpent,
}

impl WithoutPeers {
    /// Returns the reason as a sentence for the user.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::NotGranted => "no edge has granted the download yet",
            Self::HereAlready => "everything was in the cache already",
            Self::EndedBefore => "it ended before the control plane had named anybody",
            Self::NotAnswered => "the control plane has not answered yet",
            Self::Policy => "its provider's policy allows no peers",
            Self::EdgesAlone => "the edges could not count its bytes any more, and served the rest alone",
            Self::NotConnected => "the connection node, which introduces peers, could not be reached",
            Self::VersionRefused => {
                "the operator refuses this version of the client, which is below `client_version_min`: update it"
            }
            Self::GrantRefused => "the connection node did not take its grant",
            Self::QueryLimit => "this client has asked for peers more often than it may; it asks again",
            Self::DirectoryAway => "no database node could be asked who has it; the client asks again",
            Self::NoReceipts => "its uploaders got no receipts from this client, so for a time it is given nobody",
            Self::Limited => "the operator has limited peering for this installation",
            Self::Withdrawn => "it is no longer published, so nobody shares it",
            Self::NotShared => "nobody else shares it: no other client has it, or their uploads are off",
            Self::Unreachable => {
                "others share it, but none of them can be reached from here: the NATs do not go together (`swarmedge nat`)"
            }
            Self::AllKnown => "all who share it and can be reached have been named",
            Self::OffersSpent => "it has been offered as many peers as one download may be for now",
        }
    }
}

impl From<NoPeers> for WithoutPeers {
    fn from(why: NoPeers) -> Self {
        match why {
            NoPeers::Policy => Self::Policy,
            NoPeers::EdgesAlone => Self::EdgesAlone,
            NoPeers::NotConnected => Self::NotConnected,
            NoPeers::VersionRefused => Self::VersionRefused,
            NoPeers::Refused(why) => match why {
                QueryError::Regrant | QueryError::NotYours => Self::GrantRefused,
                QueryError::PeersForbidden => Self::Policy,
                QueryError::TooMany => Self::QueryLimit,
                QueryError::Unavailable => Self::DirectoryAway,
                QueryError::Unreceipted => Self::NoReceipts,
                QueryError::Limited => Self::Limited,
                QueryError::Withdrawn => Self::Withdrawn,
                QueryError::NotShared => Self::NotShared,
                QueryError::Unreachable => Self::Unreachable,
                QueryError::AllKnown => Self::AllKnown,
                QueryError::OffersSpent => Self::OffersSpent,
            },
        }
    }
}

/// The record of a download's peers on disk, to explain it later; contains no address and no key of a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptWhy {
    /// The reason why the download was without peers, or without more of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_peers: Option<WithoutPeers>,
    /// The introductions and their outcomes, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<MeetingLine>,
}

/// An introduction and its outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeetingLine {
    /// The peer's upload key, which changes daily; empty once the client has restarted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// The time of the introduction, in Unix milliseconds.
    pub introduced_ms: u64,
    /// The mapping behaviour of the peer's NAT, as the peer reports it.
    pub mapping: String,
    /// The filtering behaviour of the peer's NAT, as the peer reports it.
    pub filtering: String,
    /// The peer's candidate addresses, as `KIND ADDRESS`; only of a running download, and on request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The progress of the connection attempt.
    #[serde(flatten)]
    pub attempt: AttemptLine,
    /// The address on which connectivity checks succeeded, if any; only of a running download, and on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The reason for closing the connection, if it was open and is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
}

/// An attempt to connect to an introduced peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptLine {
    /// `trying`, `connected`, `failed` or `not_tried`.
    pub outcome: String,
    /// The reason for failing or for not trying, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The kind of address over which the peer was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<String>,
    /// Number of datagrams sent to find a path to the peer.
    pub probes: u16,
    /// Milliseconds from the CN's "go" to the outcome, or from the introduction if no "go" came.
    pub took_ms: u32,
}

/// An attempt to connect to a downloader that was introduced to this client as its uploader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploaderLine {
    /// The time when the attempt ended, in Unix milliseconds.
    pub ended_ms: u64,
    /// The outcome of the attempt.
    #[serde(flatten)]
    pub attempt: AttemptLine,
}
