//! The command `why` and the text form of its answer.

use super::meetings::now_ms;
use super::offline::ask;
use super::protocol::{Answer, AttemptLine, DownloadLine, Request, State, WhyLine, WithoutPeers, downloads_named};
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

/// Runs the command `swarmedge why` for the downloads named by `name`, or for all; with `addresses`, shows the
/// addresses of the peers of running downloads.
pub fn why(state: &Path, name: Option<&str>, addresses: bool, json: bool) -> Result<(), Error> {
    let only = name.map(|name| named(state, name)).transpose()?;
    let download = only.as_ref().and_then(|only| if let [one] = only[..] { Some(one) } else { None });
    let mut answer = ask(state, &Request::Why { download, addresses })?;
    let Answer::Why { downloads, as_uploader } = &mut answer else {
        return Err(Error::failed("the client answers something else"));
    };
    if let Some(only) = &only {
        downloads.retain(|line| only.contains(&line.download));
        as_uploader.clear();
    }
    if json {
        return print_json(&answer);
    }
    if downloads.is_empty() && as_uploader.is_empty() {
        return Err(Error::new(Code::NotFound, "there are no downloads").next("begin one with `swarmedge get`"));
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

/// Returns the numbers of the downloads named by `name`.
fn named(state: &Path, name: &str) -> Result<Vec<u32>, Error> {
    let Answer::Status(status) = ask(state, &Request::Status)? else {
        return Err(Error::failed("the client answers something else"));
    };
    Ok(downloads_named(name, &status.downloads)?.into_iter().map(|line: &DownloadLine| line.download).collect())
}

/// Formats a download and its introductions for the user.
fn shown(line: &WhyLine) -> String {
    let mut text = format!("{:>3}  {} ({})", line.download, line.url, line.state.name());
    // while the CNs refuse this client version, no other reason matters
    let outdated = line.outdated.as_deref().filter(|_| line.state == State::Running);
    let because = outdated.or(line.without_peers.map(WithoutPeers::in_words));
    match (because, line.peers.is_empty(), line.state) {
        (Some(why), true, State::Starting | State::Running) => text.push_str(&format!("\n     no peers so far: {why}")),
        (Some(why), true, _) => text.push_str(&format!("\n     had no peers: {why}")),
        (Some(why), false, _) => text.push_str(&format!("\n     no more peers: {why}")),
        (None, ..) => {}
    }
    for p in &line.peers {
        let name = p.peer.get(..12).filter(|_| !p.peer.is_empty()).unwrap_or("a peer");
        text.push_str(&format!("\n     {name:<12}  {}", p.attempt.shown()));
        if let Some(path) = &p.path {
            text.push_str(&format!("\n         reached at {path}"));
        }
        if let Some(why) = &p.dropped {
            text.push_str(&format!("\n         dropped later: {why}"));
        }
        text.push_str(&format!("\n         its NAT maps {}, filters {}", p.mapping, p.filtering));
        if !p.addresses.is_empty() {
            text.push_str(&format!("; addresses: {}", p.addresses.join(", ")));
        }
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
        let peers = log.of(Handle(1), true);
        let outcomes: Vec<_> = peers.iter().map(|p| p.attempt.outcome.as_str()).collect();
        assert_eq!(outcomes, ["connected", "failed", "not_tried", "trying"]);
        let [served] = &log.as_uploader()[..] else { panic!("one came that no download was introduced to") };
        assert_eq!(served.attempt.shown(), "connected by its reflexive address in 80 ms (9 probes)");
        let line = WhyLine { peers, ..nobody(State::Running, None) };
        let text = shown(&line);
        for part in ["connected by its reflexive address in 80 ms (9 probes)", "nothing was heard of it", "being tried"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    fn nobody(state: State, without_peers: Option<WithoutPeers>) -> WhyLine {
        WhyLine {
            download: 1,
            url: "swarmedge://1/x".into(),
            state,
            control_connected: true,
            outdated: None,
            without_peers,
            without_peers_because: None,
            peers: Vec::new(),
        }
    }

    #[test]
    fn who_had_no_peers_is_told_the_reason() {
        for (state, why, said) in [
            (State::Running, WithoutPeers::NotShared, "no peers so far: nobody else shares it"),
            (
                State::Completed,
                WithoutPeers::Limited,
                "had no peers: the operator has limited peering for this installation",
            ),
            (State::Paused, WithoutPeers::Policy, "had no peers: its provider's policy"),
        ] {
            let text = shown(&nobody(state, Some(why)));
            assert!(text.contains(said), "{text}");
        }
        let text = shown(&nobody(State::Completed, None));
        assert!(!text.contains("peers"), "{text}");
        let outdated = Some("this client is too old".to_owned());
        let line = WhyLine { outdated, ..nobody(State::Running, Some(WithoutPeers::NotConnected)) };
        assert!(shown(&line).contains("no peers so far: this client is too old"), "{}", shown(&line));
    }

    #[test]
    fn what_is_kept_names_no_peer_and_reads_back() {
        let mut log =
            log([named(1, None), (1, Meeting::Path("203.0.113.1:4000".parse().expect("an address"), Transport::Udp))]);
        let [line] = &log.of(Handle(1), true)[..] else { panic!("one") };
        assert!(line.path.is_some() && line.peer == PublicKey::numbered(1).to_string());
        log.without_peers(Handle(1), WithoutPeers::QueryLimit);
        let kept = log.take_unkept(Handle(1)).expect("new");
        assert_eq!(log.take_unkept(Handle(1)), None, "it is kept already");
        let text = serde_json::to_string(&kept).expect("JSON");
        let names = [PublicKey::numbered(1).to_string(), "203.0.113".into(), "4000".into()];
        assert!(names.iter().all(|name| !text.contains(name)), "{text}");
        let mut again = Meetings::default();
        again.restore(Handle(1), serde_json::from_str(&text).expect("reads"));
        assert_eq!(again.why_none(Handle(1)), Some(WithoutPeers::QueryLimit));
        assert_eq!(again.of(Handle(1), true).len(), 1);
        log.ended(Handle(1));
        assert_eq!(log.of(Handle(1), true)[0].path, None, "a download that is over has no addresses in memory either");
    }

    #[test]
    fn the_log_is_bounded_and_goes_with_its_download() {
        let mut log = log((0..200).map(|n| named(n, None)));
        assert_eq!(log.of(Handle(1), true).len(), KEPT_MAX);
        log.forget(Handle(1));
        assert!(log.of(Handle(1), true).is_empty());
        let attempt = Attempt { failure: None, rung: Rung::Lan, probes: 1, took_ms: 1 };
        (0..200).for_each(|n| log.take(IntroId([n; 16]), Meeting::Ended(attempt.clone())));
        assert_eq!(log.as_uploader().len(), KEPT_MAX);
    }
}
