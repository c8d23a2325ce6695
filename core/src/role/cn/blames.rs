//! Blames of clients: a downloader says that a peer has sent it a wrong block. A blame is passed on only if this CN has
//! introduced the peer to the client, so that the introduction is on record, and the two have connected; once for each
//! introduction. The DNs count it.

use super::sessions::{Client, Sessions};
use super::{Cn, Context, Metric, Output};
use crate::holdings::{Amount, Holding, Holdings, Limits, Room};
use crate::ids::{ConnId, Guid, IntroId};
use crate::machine::Time;
use crate::selection::blames::CopyId;
use crate::selection::locality::prefix;
use crate::wire::control::{Blame, CheckCopy, ToClient};
use crate::wire::directory::{BlamedCopy, DoubtedCopy, ToDn};
use crate::wire::records::{Blamed, LogEvent};
use alloc::collections::BTreeMap;
use core::net::IpAddr;
use core::time::Duration;

/// Memory of one connected pair, bytes: rounded up.
const PAIR_BYTES: u64 = 512;
/// Largest number of connected pairs that are remembered: 32 MiB of memory.
const PAIRS_MAX: u64 = 64 << 10;
/// Largest number of connected pairs of one downloader that are remembered.
const DOWNLOADER_PAIRS_MAX: u64 = 256;
const LIMITS: Limits = Limits {
    total: Amount::of(PAIRS_MAX, PAIR_BYTES),
    prefix: Amount::of(PAIRS_MAX / 4, PAIR_BYTES),
    key: Amount::of(DOWNLOADER_PAIRS_MAX, PAIR_BYTES),
};

/// Introduced pair that has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    downloader: Guid,
    /// Copy of the uploader.
    copy: CopyId,
    since: Time,
}

/// Introduced pairs that have connected, and whose downloaders may blame their uploaders. In a full table the oldest
/// pair of the network with most goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Connected {
    pairs: BTreeMap<IntroId, Pair>,
    places: Holdings<IntroId, Guid>,
}

impl Connected {
    /// Remembers that a client of this CN has connected to an introduced peer.
    pub(super) fn note(&mut self, now: Time, client: &Client, intro: IntroId, copy: CopyId) {
        if let Some(guid) = client.session().map(|session| session.guid) {
            self.add(now, intro, (guid, client.from.ip()), copy);
        }
    }

    fn add(&mut self, now: Time, intro: IntroId, (downloader, from): (Guid, IpAddr), copy: CopyId) {
        let prefix = prefix(from);
        loop {
            match self.places.ask(&LIMITS, (prefix, downloader), Amount::one(PAIR_BYTES)) {
                Room::Free => break,
                Room::Full(_) => return,
                Room::InPlaceOf(oldest) => self.remove(oldest),
            }
        }
        self.pairs.insert(intro, Pair { downloader, copy, since: now });
        let holding = Holding { prefix, key: downloader, bytes: PAIR_BYTES, turn: (0, now), kept: false };
        self.places.put(intro, holding);
    }

    fn remove(&mut self, intro: IntroId) {
        self.pairs.remove(&intro);
        self.places.take(intro);
    }

    /// Removes a pair and returns its uploader's copy, if this client is the downloader and connected lately.
    fn take(&mut self, now: Time, lately: Duration, intro: IntroId, downloader: Guid) -> Option<CopyId> {
        let pair = *self.pairs.get(&intro).filter(|pair| pair.downloader == downloader)?;
        self.remove(intro);
        (now.since(pair.since) <= lately).then_some(pair.copy)
    }

    /// Shifts all times, as [`crate::machine::Machine::rebase`] does.
    pub(super) fn rebase(&mut self, by: Duration) {
        self.places.rebase(by);
        self.pairs.values_mut().for_each(|pair| pair.since = pair.since.rebased(by));
    }

    /// Asserts that exactly the remembered pairs are counted, and that they are bounded.
    pub(super) fn check(&self) {
        self.places.check();
        assert!(self.pairs.len() as u64 <= PAIRS_MAX, "connected pairs are bounded");
        let is_counted = |(intro, pair): (&IntroId, &Pair)| {
            self.places.get(*intro).is_some_and(|place| place.key == pair.downloader)
        };
        let all = self.places.all().items == self.pairs.len() as u64;
        assert!(all && self.pairs.iter().all(is_counted), "each connected pair is counted");
    }
}

impl Cn {
    /// Passes a client's blame on to the DNs and to the ledger.
    pub(super) fn on_blame(&mut self, cx: &mut Context<'_>, conn: ConnId, blame: &Blame) {
        let Some((session, guid)) = self.sessions.get(conn).map(|s| (s.id, s.guid)) else { return };
        let Some(CopyId { holder, version }) =
            self.meetings.connected.take(cx.now, cx.cfg.serve_for, blame.intro, guid)
        else {
            return cx.push(Output::Count(Metric::BlameIgnored));
        };
        cx.push(Output::Count(Metric::Blamed));
        self.dns.tell(cx, &ToDn::Blame(BlamedCopy { session, holder, version }));
        let Blame { intro, piece, block } = *blame;
        self.recording.log(cx, &self.common, guid, LogEvent::Blamed(Blamed { intro, holder, version, piece, block }));
    }
}

impl Sessions {
    /// Tells a blamed client to check its copy.
    pub(super) fn on_check_copy(&self, cx: &mut Context<'_>, doubted: &DoubtedCopy) {
        let DoubtedCopy { session, version } = *doubted;
        if let Some(conn) = self.conn(session) {
            cx.push(Output::ClientSend { conn, msg: ToClient::CheckCopy(CheckCopy { version }) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;
    use crate::ids::VersionId;

    fn intro(n: u32) -> IntroId {
        IntroId::numbered(n)
    }

    fn copy() -> CopyId {
        CopyId { holder: Guid::numbered(9), version: VersionId::numbered(1) }
    }

    fn of(n: u32) -> (Guid, IpAddr) {
        (Guid::numbered(n), IpAddr::from([20, 0, 0, 1]))
    }

    #[test]
    fn only_the_downloader_of_a_pair_blames_once_and_lately() {
        let mut c = Connected::default();
        c.add(Time::ZERO, intro(1), of(1), copy());
        c.add(Time::ZERO, intro(2), of(1), copy());
        let at = |s| Time::ZERO.after(Duration::from_secs(s));
        let lately = Duration::from_secs(60);
        assert_eq!(c.take(at(1), lately, intro(1), Guid::numbered(2)), None, "another client's introduction");
        assert_eq!(c.take(at(1), lately, intro(1), Guid::numbered(1)), Some(copy()));
        assert_eq!(c.take(at(1), lately, intro(1), Guid::numbered(1)), None, "once");
        assert_eq!(c.take(at(61), lately, intro(2), Guid::numbered(1)), None, "too late");
        assert_eq!(c, Connected::default());
    }

    #[test]
    fn who_connects_most_displaces_its_own_pairs() {
        let mut c = Connected::default();
        c.add(Time::ZERO, intro(0), (Guid::numbered(7), IpAddr::from([21, 0, 0, 1])), copy());
        for n in 1..=1_000 {
            c.add(Time(u64::from(n)), intro(n), of(1), copy());
        }
        c.check();
        assert_eq!(c.pairs.len() as u64, DOWNLOADER_PAIRS_MAX + 1);
        assert!(c.pairs.contains_key(&intro(0)) && c.pairs.contains_key(&intro(1_000)));
    }

    #[test]
    fn each_clause_about_connected_pairs_fires() {
        let mut healthy = Connected::default();
        healthy.add(Time::ZERO, intro(1), of(1), copy());
        assert_each_clause_fires(
            &healthy,
            Connected::check,
            &[
                ("each connected pair is counted", |c| c.pairs.clear()),
                ("connected pairs are bounded", |c| {
                    let pair = Pair { downloader: Guid::numbered(1), copy: copy(), since: Time::ZERO };
                    c.pairs = (0..=u32::try_from(PAIRS_MAX).expect("few")).map(|n| (intro(n), pair)).collect();
                }),
            ],
        );
    }
}
