//! Lines of the answer to `why`: the outcome of each introduction.

use super::State;
use serde::{Deserialize, Serialize};

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
    /// The peers introduced since the client's start, oldest first.
    pub peers: Vec<MeetingLine>,
}

/// An introduction and its outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeetingLine {
    /// The peer's upload key, which changes daily.
    pub peer: String,
    /// The time of the introduction, in Unix milliseconds.
    pub introduced_ms: u64,
    /// The mapping behaviour of the peer's NAT, as the peer reports it.
    pub mapping: String,
    /// The filtering behaviour of the peer's NAT, as the peer reports it.
    pub filtering: String,
    /// The peer's candidate addresses, as `KIND ADDRESS`.
    pub addresses: Vec<String>,
    /// The progress of the connection attempt.
    #[serde(flatten)]
    pub attempt: AttemptLine,
    /// The address on which connectivity checks succeeded, if any.
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
