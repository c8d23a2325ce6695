//! The client's side of notices: the newest notice about each subject, and whether that notice is durable.

use super::{Known, NoticeError, check};
use crate::accounting::Trust;
use crate::wire::notice::{Notice, SignedNotice, Subject};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Serial numbers of the notices about one subject; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Serials {
    /// Serial number of the newest notice, which the client obeys.
    newest: u64,
    /// Serial number of the newest notice that is on disk, at most `newest`.
    durable: u64,
}

/// Result of [`Holder::receive`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Received {
    /// The notice is newer than all before: the client obeys it from now on, and must make it durable.
    Newer(Notice),
    /// The client obeys this notice already, but must still make it durable.
    NotDurable(Notice),
    /// The notice, or a newer one, is durable: acknowledge that again.
    Durable(Known),
    /// The notice has no effect.
    Refused(NoticeError),
}

/// Newest notices about the subjects that a client holds, that is, has registered with [`Self::hold`]. The serial
/// number of a held subject never falls; after a restart it is at least the acknowledged one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holder {
    held: BTreeMap<Subject, Serials>,
    /// Newest notices that are not known to be durable.
    unsaved: BTreeMap<Subject, Notice>,
}

impl Holder {
    /// Registers a subject as held. A notice about the subject with the serial number in `known` is durable (0: none).
    /// Returns whether the subject was not held before.
    pub fn hold(&mut self, known: Known) -> bool {
        let before = self.held.contains_key(&known.subject);
        let serials = self.held.entry(known.subject).or_default();
        serials.durable = serials.durable.max(known.serial);
        serials.newest = serials.newest.max(serials.durable);
        !before
    }

    /// Forgets a subject and its notices; the subject is no longer held.
    pub fn release(&mut self, subject: Subject) {
        self.held.remove(&subject);
        self.unsaved.remove(&subject);
    }

    /// Returns the serial number of the subject's newest notice; `None` if the subject is not held.
    #[must_use]
    pub fn serial(&self, subject: Subject) -> Option<u64> {
        self.held.get(&subject).map(|s| s.newest)
    }

    /// Returns every subject held, with the serial number of its newest durable notice: what a client reports after
    /// each login.
    #[must_use]
    pub fn durable(&self) -> Vec<Known> {
        self.held.iter().map(|(subject, s)| Known { subject: *subject, serial: s.durable }).collect()
    }

    /// Returns the held subjects of which a server has newer notices, with the serial numbers of the client's durable
    /// ones.
    #[must_use]
    pub fn outdated(&self, changed: &[Known]) -> Vec<Known> {
        let own = |k: &Known| {
            let serials = self.held.get(&k.subject).filter(|s| s.durable < k.serial)?;
            Some(Known { subject: k.subject, serial: serials.durable })
        };
        changed.iter().filter_map(own).collect()
    }

    /// Takes a notice if its signature is valid at `now_ms` (Unix milliseconds), its subject is held, and it is newer.
    pub fn receive(&mut self, trust: &Trust, now_ms: u64, signed: &SignedNotice) -> Received {
        let notice = match check(trust, now_ms, signed) {
            Ok(notice) => notice,
            Err(why) => return Received::Refused(why),
        };
        let Some(serials) = self.held.get_mut(&notice.subject) else {
            return Received::Refused(NoticeError::NotHeld);
        };
        if notice.serial > serials.newest {
            serials.newest = notice.serial;
            self.unsaved.insert(notice.subject, notice.clone());
            return Received::Newer(notice);
        }
        if notice.serial <= serials.durable {
            return Received::Durable(Known { subject: notice.subject, serial: serials.durable });
        }
        // an older notice gets the same answer: its sender repeats it until this client acknowledges that one or a
        // newer one
        self.unsaved
            .get(&notice.subject)
            .map_or(Received::Refused(NoticeError::Old), |n| Received::NotDurable(n.clone()))
    }

    /// Notes that a notice is durable; returns the acknowledgement.
    pub fn saved(&mut self, known: Known) -> Option<Known> {
        let serials = self.held.get_mut(&known.subject)?;
        serials.durable = serials.durable.max(known.serial);
        serials.newest = serials.newest.max(serials.durable);
        if serials.durable == serials.newest {
            self.unsaved.remove(&known.subject);
        }
        Some(Known { subject: known.subject, serial: serials.durable })
    }

    /// Asserts that no durable notice is newer than the newest known one, which is durable or in `unsaved`.
    pub fn check(&self) {
        assert!(self.held.values().all(|s| s.durable <= s.newest), "no newer notice is durable than counts");
        let is_unsaved = |(subject, s): (&Subject, &Serials)| {
            s.durable == s.newest || self.unsaved.get(subject).is_some_and(|n| n.serial == s.newest)
        };
        assert!(self.held.iter().all(is_unsaved), "a notice that counts is durable or at hand");
    }
}

#[cfg(test)]
impl Holder {
    /// Makes durable notices newer than the newest known ones, for a test of the check.
    pub(super) fn corrupt(&mut self) {
        self.held.values_mut().for_each(|s| s.newest = 0);
    }

    /// Forgets the notices that are not durable, for a test of the check.
    pub(super) fn forget_unsaved(&mut self) {
        self.held.values_mut().for_each(|s| s.newest = 9);
    }
}
