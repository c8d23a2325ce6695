//! A download's search for peers: the peers that it has tried, and its last request for more.

use super::PeerLink;
use super::end::{Again, End};
use crate::ids::PublicKey;
use crate::limits::{EXCLUDED_MAX, PEERS_PER_ANSWER_MAX};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Maximum number of tried peers. At [`EXCLUDED_MAX`] the download asks for no more, but an answer may be in flight.
const TRIED_MAX: usize = EXCLUDED_MAX + PEERS_PER_ANSWER_MAX;

/// A download's search for peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::role::client) struct Search {
    /// Keys K_u of connected peers, and of peers tried without success; CNs are asked not to introduce these.
    tried: Vec<PublicKey>,
    /// Keys K_u of peers of which one failed connection was forgiven; a second failure is final.
    forgiven: Vec<PublicKey>,
    /// Whether the control session must ask for peers at once, because the path to a peer was lost.
    at_once: bool,
    /// Last request for peers that the control session got: how many more, and the length of `tried` at that time.
    last_want: Option<(u8, usize)>,
}

impl Search {
    /// Returns whether a peer is connected, or was tried without success.
    pub(in crate::role::client) fn has_tried(&self, key: &PublicKey) -> bool {
        self.tried.contains(key)
    }

    pub(super) fn try_peer(&mut self, key: PublicKey) {
        debug_assert!(!self.has_tried(&key), "a tried peer is not tried again");
        self.tried.push(key);
    }

    /// Returns whether so many peers were tried that no more may be asked for.
    pub(in crate::role::client) const fn is_exhausted(&self) -> bool {
        self.tried.len() >= EXCLUDED_MAX
    }

    /// Returns the keys of peers to be excluded, and whether to ask at once; `None` if the last request was for as
    /// many peers and excluded the same.
    pub(in crate::role::client) fn want(&mut self, more: u8) -> Option<(Vec<PublicKey>, bool)> {
        let wanted = Some((more, self.tried.len()));
        if self.last_want == wanted && !self.at_once {
            return None;
        }
        self.last_want = wanted;
        Some((self.tried.clone(), core::mem::take(&mut self.at_once) && more > 0))
    }

    /// Forgets the last request for peers, because the control session was told to ask for none.
    pub(in crate::role::client) const fn stop(&mut self) {
        self.last_want = None;
    }

    /// Forgets all tried peers, since the download continues under another download id.
    pub(in crate::role::client) fn begin_anew(&mut self) {
        self.tried.clear();
        self.last_want = None;
    }

    /// Records that a link has ended, with the reason. `good`: the swarm has not banned the peer.
    pub(in crate::role::client) fn on_ended(&mut self, link: &PeerLink, why: End, good: bool) {
        let key = link.key();
        match why.again(link.stage()) {
            Again::Once if !self.forgiven.contains(key) && self.forgiven.len() < EXCLUDED_MAX => {
                self.forgiven.push(*key);
                self.tried.retain(|k| k != key);
            }
            Again::Always => self.tried.retain(|k| k != key),
            Again::IfGood if good => self.tried.retain(|k| k != key),
            Again::AtOnce if good => {
                self.tried.retain(|k| k != key);
                self.forgiven.retain(|k| k != key);
                self.at_once = true;
            }
            Again::Never | Again::Once | Again::IfGood | Again::AtOnce => {}
        }
    }

    /// Asserts that the lists are bounded, and that a download that is not `active` asks for no peers.
    pub(in crate::role::client) fn check(&self, active: bool) {
        let distinct = |keys: &[PublicKey]| keys.iter().collect::<BTreeSet<_>>().len() == keys.len();
        assert!(distinct(&self.tried) && self.tried.len() <= TRIED_MAX, "tried peers are distinct and few");
        let few = self.forgiven.len() <= EXCLUDED_MAX;
        assert!(distinct(&self.forgiven) && few, "forgiven peers are distinct and few");
        assert!(active || self.last_want.is_none(), "a download that is not active wants no peers");
    }
}

#[cfg(test)]
impl Search {
    /// Corruptions of a search that has tried a peer, each with the message of the assertion in `check` that it must
    /// break.
    pub(in crate::role::client) const CORRUPTIONS: [(&str, fn(&mut Self)); 2] = [
        ("tried peers are distinct and few", |search| search.tried = search.tried.repeat(2)),
        ("forgiven peers are distinct and few", |search| search.forgiven = search.tried.repeat(2)),
    ];
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::ids::{Handle, IntroId};
    use crate::swarm::outcome::CloseReason;

    const KEY: PublicKey = PublicKey([7; 32]);

    fn open() -> PeerLink {
        PeerLink { handle: Handle(1), intro: IntroId::numbered(1), key: KEY, met: true, state: State::Open }
    }

    /// Tries a peer and ends its link; returns whether the CN may introduce the peer again.
    fn may_meet_again(search: &mut Search, why: End, good: bool) -> bool {
        search.try_peer(KEY);
        assert_eq!(search.want(1).map(|(tried, _)| tried), Some(alloc::vec![KEY]), "not while it is connected");
        search.on_ended(&open(), why, good);
        search.check(true);
        let again = !search.has_tried(&KEY);
        assert_eq!(search.want(1).is_some_and(|(tried, _)| tried.is_empty()), again, "the CN is told");
        again
    }

    #[test]
    fn a_peer_to_which_no_path_was_found_is_met_once_more() {
        let mut search = Search::default();
        assert!(may_meet_again(&mut search, End::NoPath, true));
        assert!(!may_meet_again(&mut search, End::NoPath, true), "a second failure is final");
    }

    #[test]
    fn who_was_lost_by_no_fault_of_its_own_may_be_met_again() {
        let again = |why, good| may_meet_again(&mut Search::default(), why, good);
        assert!(again(End::Closed, true) && again(End::PathLost, true) && again(End::NotNeeded, true));
        assert!(!again(End::Closed, false) && !again(End::PathLost, false), "banned");
        assert!(!again(End::Left, true) && !again(End::Swarm(CloseReason::Stalled), true));
    }
}
