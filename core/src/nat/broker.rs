//! Coordination of hole punching by a CN: it learns from each of two introduced peers that it has opened its NAT, and
//! then signals both to start connectivity checks ("go"). Soft state: if the CN crashes, the peers' attempts expire.

use crate::ids::IntroId;
use crate::machine::{Deadlines, Time};
use crate::nat::connectivity::Role;
use alloc::collections::BTreeMap;
use core::time::Duration;

/// Time-outs and limits of a broker.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time-out for the peers' reports that their NATs are open, after which they are signalled to start checks
    /// anyway.
    pub open_within: Duration,
    /// Time for which an introduction is kept after the signal to start, so that the outcome can be assigned to it.
    pub keep: Duration,
    /// Maximum number of introductions coordinated at a time; the peers of further ones get no signal.
    pub meetings_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { open_within: Duration::from_secs(1), keep: Duration::from_secs(30), meetings_max: 65_536 }
    }
}

/// Two introduced peers (downloader, uploader) and their progress. `P` identifies a peer's session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Meeting<P> {
    peers: [P; 2],
    opened: [bool; 2],
    gone: bool,
}

/// Table of a CN's introductions whose peers are connecting by hole punching. `P` identifies a peer's session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broker<P> {
    meetings: BTreeMap<IntroId, Meeting<P>>,
    timers: Deadlines<IntroId>,
}

impl<P> Default for Broker<P> {
    fn default() -> Self {
        Self { meetings: BTreeMap::new(), timers: Deadlines::default() }
    }
}

const fn index(role: Role) -> usize {
    match role {
        Role::Downloader => 0,
        Role::Uploader => 1,
    }
}

impl<P: Clone> Broker<P> {
    /// Adds an introduction, which is being sent to its two peers (downloader, uploader).
    pub fn offered(&mut self, now: Time, cfg: &Config, intro: IntroId, peers: [P; 2]) {
        if self.meetings.len() < cfg.meetings_max && !self.meetings.contains_key(&intro) {
            self.meetings.insert(intro, Meeting { peers, opened: [false; 2], gone: false });
            self.timers.set(intro, Some(now.after(cfg.open_within)));
        }
    }

    /// Returns the session of the peer in this role; `None` for an unknown introduction.
    #[must_use]
    pub fn peer(&self, intro: IntroId, role: Role) -> Option<&P> {
        self.meetings.get(&intro).map(|m| &m.peers[index(role)])
    }

    /// Records that one peer has opened its NAT. If both have, returns the two peers, which are to be signalled to
    /// start checks; at most once for each introduction.
    pub fn opened(&mut self, now: Time, cfg: &Config, intro: IntroId, role: Role) -> Option<[P; 2]> {
        let meeting = self.meetings.get_mut(&intro)?;
        meeting.opened[index(role)] = true;
        if meeting.opened == [true; 2] { self.go(now, cfg, intro) } else { None }
    }

    fn go(&mut self, now: Time, cfg: &Config, intro: IntroId) -> Option<[P; 2]> {
        let meeting = self.meetings.get_mut(&intro).filter(|m| !m.gone)?;
        meeting.gone = true;
        self.timers.set(intro, Some(now.after(cfg.keep)));
        Some(meeting.peers.clone())
    }

    /// Removes an introduction whose outcome was reported, and returns its peers; `None` if it is unknown.
    pub fn done(&mut self, intro: IntroId) -> Option<[P; 2]> {
        self.timers.clear(intro);
        self.meetings.remove(&intro).map(|m| m.peers)
    }

    /// Handles one time-out that is due at `now`. Returns its introduction, with the peers to be signalled to start
    /// checks, or without peers if the introduction was only removed.
    pub fn pop_due(&mut self, now: Time, cfg: &Config) -> Option<(IntroId, Option<[P; 2]>)> {
        let intro = self.timers.pop_due(now)?;
        let peers = self.go(now, cfg, intro);
        if peers.is_none() {
            self.meetings.remove(&intro);
        }
        Some((intro, peers))
    }

    /// Returns the time of the next time-out; `None` without one.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Returns the number of introductions whose peers are connecting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.meetings.len()
    }

    /// Returns whether no introduction is being coordinated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meetings.is_empty()
    }

    /// Asserts that each introduction has a time-out, and that its peers were signalled if both have opened their
    /// NATs.
    pub fn check(&self) {
        self.timers.check();
        assert!(self.timers.keys().count() == self.meetings.len(), "only a meeting has a timer");
        for (intro, meeting) in &self.meetings {
            assert!(self.timers.get(*intro).is_some(), "each meeting ends at some time");
            assert!(meeting.gone || meeting.opened != [true; 2], "two peers that have opened their NATs go");
        }
    }

    /// Shifts all timers, as [`crate::machine::Machine::rebase`] does.
    pub fn rebase(&mut self, by: Duration) {
        self.timers.rebase(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    const CFG: Config = Config { open_within: Duration::from_secs(1), keep: Duration::from_secs(5), meetings_max: 2 };
    const PEERS: [u8; 2] = [7, 8];

    fn id(n: u32) -> IntroId {
        IntroId::numbered(n)
    }

    #[test]
    fn each_clause_about_a_broker_fires() {
        const INTRO: IntroId = IntroId([1; 16]);
        let mut healthy = Broker::default();
        healthy.offered(Time(1), &CFG, INTRO, PEERS);
        assert_each_clause_fires(
            &healthy,
            Broker::check,
            &[
                ("only a meeting has a timer", |b| b.meetings.clear()),
                ("each meeting ends at some time", |b| {
                    b.timers.clear(INTRO);
                    b.timers.set(IntroId([2; 16]), Some(Time(1)));
                }),
                ("two peers that have opened their NATs go", |b| {
                    b.meetings.values_mut().for_each(|m| m.opened = [true; 2]);
                }),
            ],
        );
    }

    #[test]
    fn both_go_when_both_are_open_and_only_once() {
        let mut b = Broker::default();
        b.offered(Time(0), &CFG, id(1), PEERS);
        assert_eq!(b.opened(Time(1), &CFG, id(1), Role::Uploader), None);
        assert_eq!(b.opened(Time(2), &CFG, id(1), Role::Uploader), None, "the same one twice is one");
        assert_eq!(b.opened(Time(3), &CFG, id(1), Role::Downloader), Some(PEERS));
        assert_eq!(b.opened(Time(4), &CFG, id(1), Role::Downloader), None);
        assert_eq!(b.opened(Time(4), &CFG, id(2), Role::Downloader), None, "an unknown meeting");
    }

    #[test]
    fn who_does_not_open_is_not_waited_for_and_every_meeting_is_forgotten() {
        let mut b = Broker::default();
        b.offered(Time(0), &CFG, id(1), PEERS);
        b.opened(Time(1), &CFG, id(1), Role::Downloader);
        assert_eq!(b.pop_due(Time(999_999), &CFG), None);
        assert_eq!(b.pop_due(Time(1_000_000), &CFG), Some((id(1), Some(PEERS))));
        assert_eq!(b.opened(Time(1_000_001), &CFG, id(1), Role::Uploader), None, "late, and they have gone");
        assert_eq!(b.pop_due(Time(6_000_000), &CFG), Some((id(1), None)));
        assert!(b.is_empty() && b.poll_timeout().is_none());
    }

    #[test]
    fn more_meetings_than_allowed_are_not_brokered() {
        let mut b = Broker::default();
        (1..=3).for_each(|n| b.offered(Time(0), &CFG, id(n), PEERS));
        assert_eq!(b.len(), 2);
        assert_eq!(b.done(id(1)), Some(PEERS));
        assert_eq!(b.done(id(3)), None);
    }
}
