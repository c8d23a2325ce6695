//! The local API between the commands and the running client: one JSON request a line, answered by one or more JSON
//! lines, over a Unix domain socket in the state directory. Field names are stable; units stand last.

mod failure;
mod names;
mod why;

pub use failure::Failure;
pub use names::{
    download_named, downloads_named, edge_in_url, parse_url, parse_version, token_in_url, url, version_named,
};
pub use why::{AttemptLine, KeptWhy, MeetingLine, UploaderLine, WhyLine, WithoutPeers};

use serde::{Deserialize, Serialize};
use swarmedge_core::ids::Handle;
use swarmedge_core::role::client::io::{DownloadState, DownloadStatus, SourceName};
use swarmedge_core::wire::records::SignedCheckpoint;
use swarmedge_ground::edge_api::Token;
use swarmedge_ground::nat::NatLine;

/// Maximum length of a request line, its line feed included, in bytes. Answers come from our own process and are not
/// bounded.
pub const LINE_LEN_MAX: usize = 64 * 1024;

/// A request from a command to the running client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Download an object, or resume its download. Answers: [`Answer::Waiting`] while it waits for its turn,
    /// [`Answer::Accepted`], then those of [`Request::Watch`]; [`Answer::Over`] or [`Answer::Again`] if the client
    /// ends before.
    Get {
        /// The provider (CP code).
        provider: u32,
        /// The path within the provider, without a leading slash.
        path: String,
        /// The absolute path of the finished file; empty if the file is to be in the cache only.
        output: String,
        /// The permission bits of a newly created finished file; by default those of the client's umask.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// Whether to replace an existing file.
        #[serde(default)]
        force: bool,
        /// The edge that the user has named, `host:port`: refused if the deployment has no such edge.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        edge: Option<String>,
        /// The provider's token, if the object is not public. The client stores it, to resume the download later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Token>,
    },
    /// Withdraw the [`Request::Get`] sent on this connection. The download is paused if no other `get` waits for it,
    /// and the last [`Answer::Download`] says so; otherwise the answer is [`Answer::Left`].
    Leave,
    /// Pause a download and keep its pieces. Answered by [`Answer::Accepted`].
    Pause {
        /// The download's number, from [`DownloadLine::download`].
        download: u32,
    },
    /// Resume a paused download. Answered by [`Answer::Accepted`].
    Resume {
        /// The download's number, from [`DownloadLine::download`].
        download: u32,
    },
    /// Cancel a download and forget its pieces. Answered by [`Answer::Accepted`].
    Cancel {
        /// The download's number, from [`DownloadLine::download`].
        download: u32,
    },
    /// Allow or forbid uploads, at once. Answered by [`Answer::Accepted`].
    Uploads {
        /// Whether uploads are allowed from now on.
        on: bool,
    },
    /// List the cached versions. Answered by [`Answer::Cache`].
    CacheList,
    /// Stop sharing a version and delete the cached copy. Answered by [`Answer::Accepted`].
    CacheRemove {
        /// The version id, in hexadecimal.
        version: String,
    },
    /// Report the client's status and downloads. Answered by [`Answer::Status`].
    Status,
    /// Report the NAT and reachability observations. Answered by [`Answer::Nat`].
    Nat,
    /// Explain why downloads have or had peers or not. Answered by [`Answer::Why`].
    Why {
        /// The download's number; absent means all downloads.
        #[serde(default)]
        download: Option<u32>,
        /// Whether to name the addresses of the peers of running downloads.
        #[serde(default)]
        addresses: bool,
    },
    /// Report changes as [`Answer::Download`] and [`Answer::SourceDropped`] lines: of one download until it has ended
    /// or is paused, or of all downloads until the command disconnects.
    Watch {
        /// The download's number; absent means all downloads.
        #[serde(default)]
        download: Option<u32>,
    },
    /// Shut the client down; downloads continue at its next start. Answered by [`Answer::Accepted`].
    Shutdown,
}

impl Request {
    /// Returns whether the request changes nothing and has one answer, so that it may be sent twice.
    pub(super) const fn is_question(&self) -> bool {
        matches!(self, Self::CacheList | Self::Status | Self::Nat | Self::Why { .. })
    }
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The request was carried out.
    Accepted {
        /// The number of the download concerned, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        download: Option<u32>,
    },
    /// The current figures of a download.
    Download(DownloadLine),
    /// A download dropped one of its sources.
    SourceDropped {
        /// The number of the download that dropped the source.
        download: u32,
        /// The source: `edge`, or the upload key of a peer.
        source: String,
        /// The reason for dropping the source.
        why: String,
    },
    /// An edge request failed; the same or another edge is asked again.
    Trouble(Failure),
    /// The client restarts under another key: the command must repeat its request. Downloads continue.
    Again,
    /// The client ends: the command must use another client or start one, which continues the download.
    Over {
        /// Whether the client ran only for one `get`, now finished; false if somebody stopped the client.
        one_shot: bool,
    },
    /// The `get` waits in the queue, since other downloads go first.
    Waiting {
        /// A sentence for the user: what must finish first.
        reason: String,
    },
    /// The `get` was withdrawn; the download, if begun, continues for other `get` commands.
    Left,
    /// The status of the client and all its downloads.
    Status(StatusLine),
    /// The NAT and reachability observations.
    Nat {
        /// The observations; absent until the first round has ended.
        nat: Option<NatLine>,
    },
    /// The peers introduced to each download, and the outcome of each introduction.
    Why {
        /// The downloads with their introductions, oldest first.
        downloads: Vec<WhyLine>,
        /// Ended attempts to connect to downloaders as their uploader; empty if the request named a download.
        #[serde(default)]
        as_uploader: Vec<UploaderLine>,
    },
    /// The list of cached versions.
    Cache {
        /// The cached versions, one line each.
        versions: Vec<CachedLine>,
    },
    /// The request failed; the last line of an answer.
    Error(Failure),
}

/// The figures of a download, as `status` and `get` show them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DownloadLine {
    /// The download's number, for `pause`, `resume` and `cancel`.
    pub download: u32,
    /// The object's URL: `swarmedge://provider/path`.
    pub url: String,
    /// Id of the version in hexadecimal, once known.
    pub version: Option<String>,
    /// Id of the download at edges and in the ledger, in hexadecimal, once granted.
    pub download_id: Option<String>,
    /// The present state of the download.
    pub state: State,
    /// The reason and the next step, if the download failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The path of the finished file.
    pub output: String,
    /// Bytes of the version, once known.
    pub size_bytes: u64,
    /// Bytes of verified and durable pieces.
    pub durable_bytes: u64,
    /// Verified bytes from edges, each counted once.
    pub edge_bytes: u64,
    /// Verified bytes from peers, each counted once.
    pub peer_bytes: u64,
    /// Bytes received and thrown away.
    pub wasted_bytes: u64,
    /// Number of peers connected for this download.
    pub peers: u32,
    /// Verified bytes a second, smoothed over some seconds.
    pub rate_bytes_per_s: u64,
    /// Share of the verified bytes that came from peers, 0 to 1.
    pub peer_share: f64,
    /// Seconds until the end at the present rate, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<u64>,
}

/// The state of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The client asks an edge for a grant.
    Starting,
    /// The download is fetching its pieces.
    Running,
    /// The user has paused the download.
    Paused,
    /// All bytes are verified, and the file is at the user's path.
    Completed,
    /// The download has failed and is not retried.
    Failed,
}

impl State {
    /// Returns whether the download waits for the user or has ended.
    #[must_use]
    pub const fn is_at_rest(self) -> bool {
        matches!(self, Self::Paused | Self::Completed | Self::Failed)
    }

    /// Returns the state's name as displayed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// The client as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusLine {
    /// The installation's GUID, in hexadecimal.
    pub guid: String,
    /// The version of the client program.
    pub client_version: String,
    /// The async runtime: `tokio` or `smol`.
    pub runtime: String,
    /// Whether the client runs; otherwise the figures are those of its directory.
    #[serde(default)]
    pub running: bool,
    /// Seconds since the client's start.
    pub uptime_s: u64,
    /// The client's state directory.
    #[serde(default)]
    pub state_dir: String,
    /// Whether the client runs until it is stopped, not only for one `get`: its downloads wait for edges and for room
    /// on the disk.
    #[serde(default)]
    pub background: bool,
    /// A sentence for the user if the CNs refuse this version of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdated: Option<String>,
    /// Number of copies that the control plane does not offer to others, since it refuses their holder's tickets.
    #[serde(default)]
    pub copies_refused: usize,
    /// Whether the user allows uploads.
    pub uploads: bool,
    /// Whether the control plane is connected, which introduces peers.
    pub control_connected: bool,
    /// The URL of the proxy to edges and control plane, without user and password, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The UDP address of the QUIC socket as STUN servers see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_address: Option<String>,
    /// Bytes sent to peers, as far as they are in usage records that the client still stores.
    pub uploaded_bytes: u64,
    /// Number of usage records as downloader that the ledger has not acknowledged.
    pub usage_unreported: usize,
    /// The control plane's newest signed checkpoint of this client's usage log, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointLine>,
    /// All downloads that the client has not deleted, oldest first.
    pub downloads: Vec<DownloadLine>,
}

/// The newest checkpoint: a CN's signed statement that the head of this client's log, and its record, are durable in
/// the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointLine {
    /// Id of the log: the secondary GUID of the start that began it, in hexadecimal.
    pub start: String,
    /// Number of records in the log up to the newest one in the ledger.
    pub place: u64,
    /// The hash of all records up to `place`, in hexadecimal.
    pub digest: String,
    /// The time of signing, in Unix milliseconds.
    pub at_ms: u64,
    /// The name of the connection node that signed.
    pub cn: String,
}

impl From<&SignedCheckpoint> for CheckpointLine {
    fn from(signed: &SignedCheckpoint) -> Self {
        let head = &signed.checkpoint.head.head;
        Self {
            start: head.start.to_string(),
            place: head.place,
            digest: head.digest.to_string(),
            at_ms: signed.checkpoint.at_ms,
            cn: signed.cert.body.name.to_string(),
        }
    }
}

/// A version in the client's cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedLine {
    /// The version id, in hexadecimal.
    pub version: String,
    /// The object's URL, `swarmedge://provider/path`, if the manifest is stored.
    pub url: Option<String>,
    /// Bytes of the version.
    pub size_bytes: u64,
    /// Number of pieces in the cache.
    pub pieces: u32,
    /// Number of pieces of the whole version.
    pub pieces_total: u32,
    /// Whether the object has expired, so that the copy is no longer shared.
    #[serde(default)]
    pub expired: bool,
}

impl DownloadLine {
    /// Makes the line from the machine's figures; rate and ETA are computed by the shell, which has the clock.
    #[must_use]
    pub fn new(status: &DownloadStatus, output: &str, rate_bytes_per_s: u64) -> Self {
        let (state, failure) = match status.state {
            DownloadState::Starting => (State::Starting, None),
            DownloadState::Running => (State::Running, None),
            DownloadState::Paused => (State::Paused, None),
            DownloadState::Completed => (State::Completed, None),
            DownloadState::Failed(why) => (State::Failed, Some(why.into())),
        };
        let left = status.size.saturating_sub(status.edge_bytes.saturating_add(status.peer_bytes));
        Self {
            download: status.handle.0,
            url: url(&status.object),
            version: status.version.map(|v| v.to_string()),
            download_id: status.download.map(|d| d.to_string()),
            state,
            failure,
            output: output.to_owned(),
            size_bytes: status.size,
            durable_bytes: status.durable,
            edge_bytes: status.edge_bytes,
            peer_bytes: status.peer_bytes,
            wasted_bytes: status.wasted_bytes,
            peers: status.peers,
            rate_bytes_per_s,
            peer_share: share(status.peer_bytes, status.edge_bytes),
            eta_s: (state == State::Running).then(|| left.checked_div(rate_bytes_per_s)).flatten(),
        }
    }

    /// Returns the machine's handle for this download.
    #[must_use]
    pub const fn handle(&self) -> Handle {
        Handle(self.download)
    }
}

/// Returns `peer / (peer + edge)`; 0 if both are 0.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a share for display")]
pub fn share(peer: u64, edge: u64) -> f64 {
    match peer.saturating_add(edge) {
        0 => 0.0,
        all => peer as f64 / all as f64,
    }
}

/// Returns the name of a source as displayed.
#[must_use]
pub fn source_name(source: SourceName) -> String {
    match source {
        SourceName::Edge => "edge".to_owned(),
        SourceName::Peer(_, key) => key.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_tagged_lines_and_unknown_fields_are_refused() {
        let line = r#"{"request":"pause","download":3}"#;
        assert_eq!(serde_json::from_str::<Request>(line).expect("valid"), Request::Pause { download: 3 });
        assert_eq!(serde_json::to_string(&Request::Pause { download: 3 }).expect("serialises"), line);
        assert!(serde_json::from_str::<Request>(r#"{"request":"pause","download":3,"x":1}"#).is_err());
    }

    #[test]
    fn an_answer_reads_back() {
        let answer = Answer::Error(swarmedge_core::role::client::io::FailReason::NoSpace.into());
        let line = serde_json::to_string(&answer).expect("serialises");
        assert!(line.contains(r#""code":"disk""#), "{line}");
        assert_eq!(serde_json::from_str::<Answer>(&line).expect("reads"), answer);
    }
}
