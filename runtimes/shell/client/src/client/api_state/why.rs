//! Explanations of why downloads have peers or none: as they are shown, and as they are stored on disk.

use super::{ApiState, Entry, Instant};
use crate::client::protocol::{Answer, DownloadLine, State, WhyLine, WithoutPeers};
use swarmedge_core::ids::Handle;
use swarmedge_core::role::client::io::DownloadState;

impl ApiState {
    /// Explains the peers of one download or of all; `addresses`: with the addresses of running downloads' peers.
    #[must_use]
    pub fn why(&self, download: Option<Handle>, addresses: bool) -> Answer {
        let state = self.lock();
        let asked = state.downloads.iter().filter(|(handle, _)| download.is_none_or(|d| d == **handle));
        let now = Instant::now();
        let line = |(handle, entry): (&Handle, &Entry)| {
            let line = entry.line(now, &state.client);
            let peers = state.meetings.of(*handle, addresses && line.state == State::Running);
            let without_peers = without_peers(&line, peers.is_empty(), state.meetings.why_none(*handle));
            WhyLine {
                download: line.download,
                url: line.url,
                state: line.state,
                control_connected: state.client.control_connected,
                outdated: state.client.outdated.clone(),
                without_peers,
                without_peers_because: without_peers.map(|why| why.in_words().into()),
                peers,
            }
        };
        let as_uploader = if download.is_none() { state.meetings.as_uploader() } else { Vec::new() };
        Answer::Why { downloads: asked.map(line).collect(), as_uploader }
    }

    /// Returns the explanation of a download to be stored on disk, as JSON; `None` for an unknown download, and if the
    /// explanation is unchanged since the last call.
    #[must_use]
    pub fn why_to_keep(&self, handle: Handle) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let known = state.downloads.contains_key(&handle);
        known.then(|| state.meetings.take_unkept(handle)).flatten().and_then(|kept| serde_json::to_vec(&kept).ok())
    }

    /// Restores the stored explanation of a download from an earlier start of the client.
    pub fn restored_why(&self, handle: Handle, kept: &[u8]) {
        // an unreadable explanation is ignored
        if let Ok(kept) = serde_json::from_slice(kept) {
            self.lock().meetings.restore(handle, kept);
        }
    }
}

impl super::State {
    /// Updates the state when a session with a CN opens: its absence is no reason any more, but for what is over.
    pub(super) fn session_opened(&mut self) {
        self.client.outdated = None;
        self.client.copies_refused = 0;
        let downloads = &self.downloads;
        let state = |handle: Handle| downloads.get(&handle).map(|entry| &entry.status.state);
        let is_over = |handle| matches!(state(handle), Some(DownloadState::Completed | DownloadState::Failed(_)));
        self.meetings.connected(is_over);
    }
}

/// Returns the reason why a download has no peers, or no more peers, if there is one to show: `recorded`, or else the
/// reason derived from the download's figures. `nobody`: no peer was introduced.
fn without_peers(line: &DownloadLine, nobody: bool, recorded: Option<WithoutPeers>) -> Option<WithoutPeers> {
    if !nobody {
        // finding no further peers is no problem
        return recorded.filter(|why| !matches!(why, WithoutPeers::AllKnown | WithoutPeers::NotShared));
    }
    let fetched = line.edge_bytes.saturating_add(line.peer_bytes);
    match line.state {
        State::Completed if fetched == 0 && line.size_bytes > 0 => Some(WithoutPeers::HereAlready),
        State::Completed | State::Failed | State::Paused => Some(recorded.unwrap_or(WithoutPeers::EndedBefore)),
        State::Starting => Some(recorded.unwrap_or(WithoutPeers::NotGranted)),
        State::Running => Some(recorded.unwrap_or(WithoutPeers::NotAnswered)),
    }
}
