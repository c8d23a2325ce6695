//! A bounded log of introductions: why each introduced peer was or was not connected. One part is for introductions
//! of this client as downloader, one as uploader.

use super::protocol::{AttemptLine, KeptWhy, MeetingLine, UploaderLine, WithoutPeers};
use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};
use swarmedge_core::ids::{Handle, IntroId};
use swarmedge_core::nat::connectivity::{Attempt, Failure, Rung};
use swarmedge_core::nat::{CandidateKind, NatBehaviour, NatDescriptor, Transport};
use swarmedge_core::role::client::io::{CloseReason, Meeting, NotTried, SourceName};

/// Maximum number of introductions kept per download, and of those as uploader; the oldest is dropped first.
pub(super) const KEPT_MAX: usize = 64;

impl AttemptLine {
    /// Returns the line of an attempt that begins, or of a peer that is not tried.
    fn begun(not_tried: Option<NotTried>) -> Self {
        let reason = not_tried.map(|why| match why {
            NotTried::NotFetching => "the download had ended or paused meanwhile",
            NotTried::EnoughPeers => "as many peers as wanted were connected or being tried",
            NotTried::SameClient => "it is this client itself",
            NotTried::NoAddress => "it names no address that may be tried",
            NotTried::AlreadyTried => "it was tried for this download already",
        });
        let outcome = if not_tried.is_some() { "not_tried" } else { "trying" }.into();
        Self { outcome, reason: reason.map(str::to_owned), rung: None, probes: 0, took_ms: 0 }
    }

    /// Returns the line of an attempt that has ended.
    fn ended(attempt: &Attempt) -> Self {
        Self {
            outcome: if attempt.failure.is_none() { "connected" } else { "failed" }.into(),
            reason: attempt.failure.map(|f| in_words(f).to_owned()),
            rung: (attempt.rung != Rung::None).then(|| rung(attempt.rung).to_owned()),
            probes: attempt.probes,
            took_ms: attempt.took_ms,
        }
    }
}

/// The outcomes of introductions: as downloader by download, and as uploader.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    by_download: BTreeMap<Handle, VecDeque<(IntroId, MeetingLine)>>,
    /// The last reason why a download was without peers, or without more of them.
    without_peers: BTreeMap<Handle, WithoutPeers>,
    /// The record of each download that the store was given last.
    kept: BTreeMap<Handle, KeptWhy>,
    as_uploader: VecDeque<UploaderLine>,
}

impl Meetings {
    /// Records an event of an introduction. If no download knows the introduction, this client was its uploader, and
    /// only its end is recorded.
    pub(super) fn take(&mut self, intro: IntroId, meeting: Meeting) {
        match meeting {
            Meeting::Introduced { handle, peer, nat, not_tried } => {
                let log = self.by_download.entry(handle).or_default();
                keep(log, (intro, introduced(peer.to_string(), &nat, not_tried)));
            }
            Meeting::Path(addr, over) => {
                let over = if over == Transport::Tcp { "TCP " } else { "" };
                self.change(intro, |line| line.path = Some(format!("{over}{addr}")));
            }
            Meeting::Ended(attempt) => {
                let ended = AttemptLine::ended(&attempt);
                if !self.change(intro, |line| line.attempt = ended.clone()) {
                    keep(&mut self.as_uploader, UploaderLine { ended_ms: now_ms(), attempt: ended });
                }
            }
        }
    }

    /// Returns the newest ended introductions of this client as uploader, oldest first.
    pub(super) fn as_uploader(&self) -> Vec<UploaderLine> {
        self.as_uploader.iter().cloned().collect()
    }

    /// Records why the connection to a peer was closed.
    pub(super) fn dropped(&mut self, source: SourceName, why: CloseReason) {
        if let SourceName::Peer(intro, _) = source {
            self.change(intro, |line| line.dropped = Some(left(why).into()));
        }
    }

    pub(super) fn forget(&mut self, handle: Handle) {
        self.by_download.remove(&handle);
        self.without_peers.remove(&handle);
        self.kept.remove(&handle);
    }

    /// Records why a download is without peers.
    pub(super) fn without_peers(&mut self, handle: Handle, why: WithoutPeers) {
        self.without_peers.insert(handle, why);
    }

    /// Records that the control plane is connected, so that its absence is no reason any more for a download that is
    /// not over.
    pub(super) fn connected(&mut self, is_over: impl Fn(Handle) -> bool) {
        let was_absent = |why| matches!(why, WithoutPeers::NotConnected | WithoutPeers::VersionRefused);
        self.without_peers.retain(|handle, why| is_over(*handle) || !was_absent(*why));
    }

    /// Returns the last recorded reason why a download was without peers.
    pub(super) fn why_none(&self, handle: Handle) -> Option<WithoutPeers> {
        self.without_peers.get(&handle).copied()
    }

    /// Deletes the addresses of a download's peers, since it is over.
    pub(super) fn ended(&mut self, handle: Handle) {
        for (_, line) in self.by_download.get_mut(&handle).into_iter().flatten() {
            line.without_addresses();
        }
    }

    /// Returns the introductions of a download, oldest first, with the peers' addresses if these are asked for.
    pub(super) fn of(&self, handle: Handle, addresses: bool) -> Vec<MeetingLine> {
        let mut lines: Vec<_> =
            self.by_download.get(&handle).into_iter().flatten().map(|(_, line)| line.clone()).collect();
        if !addresses {
            lines.iter_mut().for_each(MeetingLine::without_addresses);
        }
        lines
    }

    /// Returns a download's record to be kept on disk; `None` if the store was given it already.
    pub(super) fn take_unkept(&mut self, handle: Handle) -> Option<KeptWhy> {
        let mut peers = self.of(handle, false);
        peers.iter_mut().for_each(|line| line.peer.clear());
        let kept = KeptWhy { without_peers: self.why_none(handle), peers };
        let before = self.kept.insert(handle, kept.clone());
        (before.as_ref() != Some(&kept)).then_some(kept)
    }

    /// Restores the record that an earlier start of the client has kept of a download.
    pub(super) fn restore(&mut self, handle: Handle, kept: KeptWhy) {
        if let Some(why) = kept.without_peers {
            self.without_peers.insert(handle, why);
        }
        // no introduction outlives the client that got it
        let lines = kept.peers.into_iter().take(KEPT_MAX).map(|line| (IntroId([0; IntroId::LEN]), line));
        let log: VecDeque<_> = lines.collect();
        if !log.is_empty() {
            self.by_download.insert(handle, log);
        }
    }

    /// Applies `change` to the line of an introduction; returns whether a download knows this introduction.
    fn change(&mut self, intro: IntroId, change: impl FnOnce(&mut MeetingLine)) -> bool {
        let known = self.by_download.values_mut().flatten().find(|(of, _)| *of == intro);
        known.map(|(_, line)| change(line)).is_some()
    }
}

fn keep<T>(log: &mut VecDeque<T>, line: T) {
    log.push_back(line);
    if log.len() > KEPT_MAX {
        log.pop_front();
    }
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl MeetingLine {
    /// Deletes the peer's addresses.
    fn without_addresses(&mut self) {
        self.addresses.clear();
        self.path = None;
    }
}

/// Returns the line of a peer that was introduced just now.
fn introduced(peer: String, nat: &NatDescriptor, not_tried: Option<NotTried>) -> MeetingLine {
    MeetingLine {
        peer,
        introduced_ms: now_ms(),
        mapping: behaviour(nat.mapping).into(),
        filtering: behaviour(nat.filtering).into(),
        addresses: addresses(nat),
        attempt: AttemptLine::begun(not_tried),
        path: None,
        dropped: None,
    }
}

fn addresses(nat: &NatDescriptor) -> Vec<String> {
    let udp = nat.candidates.iter().map(|c| format!("{} {}", kind(c.kind), c.addr));
    udp.chain(nat.doors.iter().chain(&nat.crossing).map(|at| format!("TCP {at}"))).collect()
}

/// Returns the name of a NAT's behaviour (RFC 4787).
const fn behaviour(b: NatBehaviour) -> &'static str {
    match b {
        NatBehaviour::Unknown => "unknown",
        NatBehaviour::EndpointIndependent => "endpoint-independent",
        NatBehaviour::AddressDependent => "address-dependent",
        NatBehaviour::AddressAndPortDependent => "address-and-port-dependent",
    }
}

fn kind(kind: CandidateKind) -> String {
    match kind {
        CandidateKind::Host => "its own".into(),
        CandidateKind::ServerReflexive => "reflexive".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Returns the kind of address on which the peer was tried, in words.
const fn rung(rung: Rung) -> &'static str {
    match rung {
        Rung::None => "none",
        Rung::Lan => "an address of its own, with no NAT between",
        Rung::Ipv6 => "IPv6",
        Rung::Mapped => "a port that its router forwards",
        Rung::Reflexive => "its reflexive address",
        Rung::Predicted => "a predicted port of its NAT",
        Rung::PeerReflexive => "an address learned from its own checks",
        Rung::Direct => "an address of its introduction, without checks",
        Rung::Birthday => "one of many ports that were tried",
        Rung::Tcp => "a TCP port on which it listens",
        Rung::Crossed => "a TCP connection that both opened at once",
        Rung::Called => "a TCP port on which the downloader listens, where the uploader came",
    }
}

/// Returns the reason why an attempt failed, in words.
const fn in_words(failure: Failure) -> &'static str {
    match failure {
        Failure::NoCandidates => "it names no address that may be tried",
        Failure::Busy => "as many attempts as allowed were under way",
        Failure::NoGo => "the connection node never said \"go\": the peer may be gone",
        Failure::Silence => {
            "nothing was heard of it: its NAT or firewall, or ours, lets nothing through, or it is gone"
        }
        Failure::OneWay => "it was heard, but does not hear us: its NAT or firewall keeps us out",
        Failure::NoHandshake => "it was reached, but no connection came to be",
        Failure::Dropped => "it was no longer wanted",
    }
}

/// Returns the reason for closing a peer's connection, in words.
pub(super) const fn left(why: CloseReason) -> &'static str {
    match why {
        CloseReason::Done => "it is no longer needed",
        CloseReason::BadBlock => "it sent wrong bytes",
        CloseReason::Violation => "it broke the protocol",
        CloseReason::NotIntroduced => "its introduction was not valid",
        CloseReason::Full => "there was no room for more peers",
        CloseReason::UploadsOff => "it uploads no more",
        CloseReason::Stalled => {
            "nothing came from it for too long: a network on the way has changed, or it has gone; it may be introduced \
             again"
        }
        CloseReason::Shutdown => "it was shut down",
    }
}
