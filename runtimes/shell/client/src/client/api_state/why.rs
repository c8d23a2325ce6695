//! What explains the peers of downloads, or their absence: as it is shown, and as it is kept on disk.

use super::{ApiState, Entry, Instant};
use crate::client::protocol::{Answer, DownloadLine, State, WhyLine, WithoutPeers};
use swarmedge_core::ids::Handle;

impl ApiState {
    /// Explains the peers of one download, or of all downloads; the addresses of peers of running ones if asked for.
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

    /// Returns what is to be kept on disk to explain a download later, as JSON; `None` for an unknown download, and if
    /// it was returned before.
    #[must_use]
    pub fn why_to_keep(&self, handle: Handle) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let known = state.downloads.contains_key(&handle);
        known.then(|| state.meetings.take_unkept(handle)).flatten().and_then(|kept| serde_json::to_vec(&kept).ok())
    }

    /// Takes what an earlier start has kept to explain a download.
    pub fn restored_why(&self, handle: Handle, kept: &[u8]) {
        // what cannot be read explains nothing
        if let Ok(kept) = serde_json::from_slice(kept) {
            self.lock().meetings.restore(handle, kept);
        }
    }
}

/// Returns the reason why a download is without peers, or without more of them, if one is to be told: the `recorded`
/// one, else what the download's figures show.
fn without_peers(line: &DownloadLine, nobody: bool, recorded: Option<WithoutPeers>) -> Option<WithoutPeers> {
    if !nobody {
        // that no more are found is no trouble
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
