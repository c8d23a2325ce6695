//! Why each introduced peer was or was not connected, as downloader and as uploader: a bounded log, and how it reads.

use super::protocol::{Answer, Request, State};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use swarmedge_core::ids::{Handle, IntroId};
use swarmedge_core::nat::connectivity::{Attempt, Failure, Rung};
use swarmedge_core::nat::{CandidateKind, NatBehaviour, NatDescriptor, Transport};
use swarmedge_core::role::client::io::{CloseReason, Meeting, NotTried, SourceName};
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::terminal::out::{print_json, say};

/// Maximum number of introductions remembered per download, and as uploader; the oldest is dropped first.
const KEPT_MAX: usize = 64;

/// A download and the peers it was introduced to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyLine {
    /// The number of the download.
    pub download: u32,
    /// The URL of the downloaded object.
    pub url: String,
    /// The present state of the download.
    pub state: State,
    /// Whether the CN, which introduces, is connected now.
    pub control_connected: bool,
    /// The peers introduced since the client's start, oldest first.
    pub peers: Vec<MeetingLine>,
}

/// An introduction and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeetingLine {
    /// The peer's key for this day.
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
    /// By what sort of address it was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<String>,
    /// Datagrams sent to find it.
    pub probes: u16,
    /// Milliseconds from the CN's "go" to the outcome, or from the introduction if no "go" came.
    pub took_ms: u32,
}

impl AttemptLine {
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

    fn ended(attempt: &Attempt) -> Self {
        Self {
            outcome: if attempt.failure.is_none() { "connected" } else { "failed" }.into(),
            reason: attempt.failure.map(|f| in_words(f).to_owned()),
            rung: (attempt.rung != Rung::None).then(|| rung(attempt.rung).to_owned()),
            probes: attempt.probes,
            took_ms: attempt.took_ms,
        }
    }

    /// Returns the attempt as the user reads it.
    fn shown(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        let (ms, probes) = (self.took_ms, self.probes);
        match self.outcome.as_str() {
            "connected" => {
                let rung = self.rung.as_deref().unwrap_or("an unknown way");
                format!("connected by {rung} in {ms} ms ({probes} probes)")
            }
            "failed" => format!("not connected: {reason} ({ms} ms, {probes} probes)"),
            "not_tried" => format!("not tried: {reason}"),
            _ => "being tried".into(),
        }
    }
}

/// An attempt to meet a downloader that was introduced to this client as uploader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploaderLine {
    /// The time when the attempt ended, in Unix milliseconds.
    pub ended_ms: u64,
    /// The outcome of the attempt.
    #[serde(flatten)]
    pub attempt: AttemptLine,
}

/// The outcomes of introductions, by download and as uploader.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    by_download: BTreeMap<Handle, VecDeque<(IntroId, MeetingLine)>>,
    as_uploader: VecDeque<UploaderLine>,
}

impl Meetings {
    /// Records an event of an introduction. The end of an introduction that no download lists is recorded as one of
    /// this client as uploader.
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

    /// The newest that have ended as uploader, oldest first.
    pub(super) fn as_uploader(&self) -> Vec<UploaderLine> {
        self.as_uploader.iter().cloned().collect()
    }

    /// A connected peer was let go.
    pub(super) fn dropped(&mut self, source: SourceName, why: CloseReason) {
        if let SourceName::Peer(intro, _) = source {
            self.change(intro, |line| line.dropped = Some(left(why).into()));
        }
    }

    pub(super) fn forget(&mut self, handle: Handle) {
        self.by_download.remove(&handle);
    }

    pub(super) fn of(&self, handle: Handle) -> Vec<MeetingLine> {
        self.by_download.get(&handle).into_iter().flatten().map(|(_, line)| line.clone()).collect()
    }

    /// Whether a download was introduced by it.
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

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

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

const fn rung(rung: Rung) -> &'static str {
    match rung {
        Rung::None => "none",
        Rung::Lan => "the LAN that both share",
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
const fn left(why: CloseReason) -> &'static str {
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

/// Runs the command `swarmedge why`.
pub fn why(state: &Path, download: Option<u32>, json: bool) -> Result<(), Error> {
    let request = Request::Why { download };
    let answer = super::commands::ask(state, &request)?;
    let Answer::Why { downloads, as_uploader } = &answer else {
        return Err(Error::failed("the client answers something else"));
    };
    if json {
        return print_json(&answer);
    }
    if downloads.is_empty() && as_uploader.is_empty() {
        let error = match download {
            Some(_) => Error::new(Code::NotFound, "no such download").next("`swarmedge status` lists them"),
            None => Error::new(Code::NotFound, "there are no downloads").next("begin one with `swarmedge get`"),
        };
        return Err(error);
    }
    downloads.iter().try_for_each(|line| say!("{}", shown(line)))?;
    if !as_uploader.is_empty() {
        say!("as uploader, the last that were to be met:")?;
    }
    let now = now_ms();
    as_uploader.iter().try_for_each(|line| {
        let ago = Duration::from_millis(now.saturating_sub(line.ended_ms)).as_secs();
        say!("     {ago} s ago  {}", line.attempt.shown())
    })
}

/// Returns the known reason why no peer was introduced. The client is not told who has an object, nor what its provider
/// allows.
const fn why_nobody(state: State, control_connected: bool) -> &'static str {
    match state {
        State::Starting => "no edge has granted the download yet",
        State::Paused => "it is paused",
        State::Completed => "it was here already, or ended before anybody was",
        State::Failed => "it ended before anybody was; `swarmedge status` says why it failed",
        State::Running if control_connected => {
            "nobody else may have it at present or be reachable from here, or its provider allows no peers"
        }
        State::Running => "the connection node cannot be reached, so the edge alone delivers",
    }
}

/// A download as the user reads it.
fn shown(line: &WhyLine) -> String {
    let mut text = format!("{:>3}  {} ({})", line.download, line.url, line.state.name());
    if line.peers.is_empty() {
        text.push_str("\n     no peer was introduced since the client's start: ");
        text.push_str(why_nobody(line.state, line.control_connected));
    }
    for p in &line.peers {
        let name = p.peer.get(..12).unwrap_or(&p.peer);
        text.push_str(&format!("\n     {name}  {}", p.attempt.shown()));
        if let Some(path) = &p.path {
            text.push_str(&format!("\n         reached at {path}"));
        }
        if let Some(why) = &p.dropped {
            text.push_str(&format!("\n         dropped later: {why}"));
        }
        let addresses = if p.addresses.is_empty() { "none".into() } else { p.addresses.join(", ") };
        text.push_str(&format!(
            "\n         its NAT maps {}, filters {}; addresses: {addresses}",
            p.mapping, p.filtering
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::ids::PublicKey;

    fn log(meetings: impl IntoIterator<Item = (u8, Meeting)>) -> Meetings {
        let mut log = Meetings::default();
        meetings.into_iter().for_each(|(n, m)| log.take(IntroId([n; 16]), m));
        log
    }

    fn named(n: u8, not_tried: Option<NotTried>) -> (u8, Meeting) {
        let (handle, peer) = (Handle(1), PublicKey::numbered(n.into()));
        (n, Meeting::Introduced { handle, peer, nat: NatDescriptor::default(), not_tried })
    }

    #[test]
    fn each_peer_has_its_outcome_and_its_reason() {
        let ended = |failure| Meeting::Ended(Attempt { failure, rung: Rung::Reflexive, probes: 9, took_ms: 80 });
        let log = log([
            named(1, None),
            named(2, None),
            named(3, Some(NotTried::EnoughPeers)),
            named(4, None),
            (1, Meeting::Path("203.0.113.1:4000".parse().expect("an address"), Transport::Udp)),
            (1, ended(None)),
            (2, ended(Some(Failure::Silence))),
            (99, ended(None)),
        ]);
        let peers = log.of(Handle(1));
        let outcomes: Vec<_> = peers.iter().map(|p| p.attempt.outcome.as_str()).collect();
        assert_eq!(outcomes, ["connected", "failed", "not_tried", "trying"]);
        let [served] = &log.as_uploader()[..] else { panic!("one came that no download was introduced to") };
        assert_eq!(served.attempt.shown(), "connected by its reflexive address in 80 ms (9 probes)");
        let line = WhyLine {
            download: 1,
            url: "swarmedge://1/x".into(),
            state: State::Running,
            control_connected: true,
            peers,
        };
        let text = shown(&line);
        for part in ["connected by its reflexive address in 80 ms (9 probes)", "nothing was heard of it", "being tried"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn where_nobody_was_introduced_no_cause_is_stated_that_is_not_known() {
        let text = |state, control_connected| {
            let url = "swarmedge://1/x".into();
            shown(&WhyLine { download: 1, url, state, control_connected, peers: Vec::new() })
        };
        for connected in [true, false] {
            for ended in [State::Completed, State::Failed, State::Paused, State::Starting] {
                let text = text(ended, connected);
                assert!(!text.contains("provider") && !text.contains("connection node"), "{text}");
            }
        }
        assert!(text(State::Completed, true).contains("ended before"));
        assert!(text(State::Running, true).contains("nobody else may have it"));
        assert!(text(State::Running, false).contains("connection node cannot be reached"));
    }

    #[test]
    fn the_log_is_bounded_and_goes_with_its_download() {
        let mut log = log((0..200).map(|n| named(n, None)));
        assert_eq!(log.of(Handle(1)).len(), KEPT_MAX);
        log.forget(Handle(1));
        assert!(log.of(Handle(1)).is_empty());
        let attempt = Attempt { failure: None, rung: Rung::Lan, probes: 1, took_ms: 1 };
        (0..200).for_each(|n| log.take(IntroId([n; 16]), Meeting::Ended(attempt.clone())));
        assert_eq!(log.as_uploader().len(), KEPT_MAX);
    }
}
