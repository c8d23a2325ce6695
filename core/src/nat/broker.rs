//! Meetings of introduced peers, as their CN holds them: offered → both have opened their NATs, or had time to → go.
//! Soft state: a CN that crashes forgets its meetings, and its peers' attempts expire.

use crate::ids::IntroId;
use crate::machine::{Deadlines, Time};
use crate::nat::connectivity::Role;
use alloc::collections::BTreeMap;
use core::time::Duration;

/// How long a broker waits.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Who has not said "opened" by then is not waited for.
    pub open_within: Duration,
    /// A meeting is remembered for so long after "go", for its outcome.
    pub keep: Duration,
    /// Meetings at a time; more are not brokered.
    pub meetings_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { open_within: Duration::from_secs(1), keep: Duration::from_secs(30), meetings_max: 65_536 }
    }
}

/// Two peers and how far they are. `P` says how to reach one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Meeting<P> {
    peers: [P; 2],
    opened: [bool; 2],
    gone: bool,
}

/// All meetings of a CN.
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
    /// Both are being told of each other: downloader, uploader.
    pub fn offered(&mut self, now: Time, cfg: &Config, intro: IntroId, peers: [P; 2]) {
        if self.meetings.len() < cfg.meetings_max && !self.meetings.contains_key(&intro) {
            self.meetings.insert(intro, Meeting { peers, opened: [false; 2], gone: false });
            self.timers.set(intro, Some(now.after(cfg.open_within)));
        }
    }

    /// The peer of a meeting, if it is known.
    #[must_use]
    pub fn peer(&self, intro: IntroId, role: Role) -> Option<&P> {
        self.meetings.get(&intro).map(|m| &m.peers[index(role)])
    }

    /// One has opened its NAT. Both peers are to go if this was the second; once a meeting.
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

    /// The meeting is over: its outcome was told.
    pub fn done(&mut self, intro: IntroId) -> Option<[P; 2]> {
        self.timers.clear(intro);
        self.meetings.remove(&intro).map(|m| m.peers)
    }

    /// One meeting whose time has come, if any is due: who is to go, or nobody if it was only forgotten.
    pub fn pop_due(&mut self, now: Time, cfg: &Config) -> Option<(IntroId, Option<[P; 2]>)> {
        let intro = self.timers.pop_due(now)?;
        let peers = self.go(now, cfg, intro);
        if peers.is_none() {
            self.meetings.remove(&intro);
        }
        Some((intro, peers))
    }

    /// When something is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Meetings at present.
    #[must_use]
    pub fn len(&self) -> usize {
        self.meetings.len()
    }

    /// Nobody meets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meetings.is_empty()
    }

    /// See [`crate::machine::Machine::rebase`].
    pub fn rebase(&mut self, by: Duration) {
        self.timers.rebase(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CFG: Config = Config { open_within: Duration::from_secs(1), keep: Duration::from_secs(5), meetings_max: 2 };
    const PEERS: [u8; 2] = [7, 8];

    fn id(n: u32) -> IntroId {
        IntroId::numbered(n)
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
