//! The command `why` and the text form of its answer.

use super::commands::ask;
use super::meetings::now_ms;
use super::protocol::{Answer, AttemptLine, Request, State, WhyLine};
use std::path::Path;
use std::time::Duration;
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::terminal::out::{print_json, say};

impl AttemptLine {
    /// Formats the outcome of a connection attempt for the user.
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

/// Runs the command `swarmedge why`.
pub fn why(state: &Path, download: Option<u32>, json: bool) -> Result<(), Error> {
    let request = Request::Why { download };
    let answer = ask(state, &request)?;
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

/// Returns the likely reason why no peer was introduced, as a sentence. The client does not know who has the object,
/// nor what its provider allows.
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

/// Formats a download and its introductions for the user.
fn shown(line: &WhyLine) -> String {
    let mut text = format!("{:>3}  {} ({})", line.download, line.url, line.state.name());
    if line.peers.is_empty() {
        text.push_str("\n     no peer was introduced since the client's start: ");
        let reason = line.outdated.as_deref().filter(|_| line.state == State::Running);
        text.push_str(reason.unwrap_or_else(|| why_nobody(line.state, line.control_connected)));
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
    use super::super::meetings::{KEPT_MAX, Meetings};
    use super::*;
    use swarmedge_core::ids::{Handle, IntroId, PublicKey};
    use swarmedge_core::nat::connectivity::{Attempt, Failure, Rung};
    use swarmedge_core::nat::{NatDescriptor, Transport};
    use swarmedge_core::role::client::io::{Meeting, NotTried};

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
            outdated: None,
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
            shown(&WhyLine { download: 1, url, state, control_connected, outdated: None, peers: Vec::new() })
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
        let outdated = Some("this client is too old".to_owned());
        let (url, state) = ("swarmedge://1/x".into(), State::Running);
        let line = WhyLine { download: 1, url, state, control_connected: false, outdated, peers: Vec::new() };
        assert!(shown(&line).contains("too old"));
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
