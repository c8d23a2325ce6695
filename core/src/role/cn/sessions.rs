//! The connected clients and their sessions, which are found by connection, by GUID and by id. The three maps change
//! only here, so that they agree.

use super::io::Config;
use super::prices::{Budgets, DnView};
use crate::holdings::{Amount, Bound, Holding, Holdings, Limits, Room};
use crate::ids::{ConnId, Guid, PublicKey, RecordId, SecondaryGuid, SessionId};
use crate::limits::QUARANTINED_MAX;
use crate::machine::Time;
use crate::nat::NatDescriptor;
use crate::selection::locality::prefix;
use crate::wire::directory::{PeerEntry, Seen};
use crate::wire::geo_location::GeoLocation;
use crate::wire::records::SignedHead;
use alloc::collections::{BTreeMap, BTreeSet};
use core::net::SocketAddr;
use core::time::Duration;

/// Classes of connections in the order in which they go when the CN is full: without session, with a session that has
/// asked for nothing yet, with one that has.
const STRANGER: u8 = 0;
const NEW: u8 = 1;
const WORKING: u8 = 2;
/// Maximum number of sessions of one GUID. More are a flood, or many machines made from one image, which then get
/// their new keys a few at a time.
pub(super) const COPIES_MAX: usize = 8;
/// Time without any message but pings after which a session goes for a client of its own network.
const QUIET_AFTER: Duration = Duration::from_secs(60);
/// Most connections of one key: for each possible session one that may replace it.
const KEY_CONNECTIONS_MAX: u64 = 2 * COPIES_MAX as u64;

/// Returns the bounds of connections.
fn limits(sessions_max: u32, prefix_max: u32) -> Limits {
    let of = |n: u64| Amount::of(n, 1);
    Limits { total: of(sessions_max.into()), prefix: of(prefix_max.into()), key: of(KEY_CONNECTIONS_MAX) }
}

/// A client's connection, with its session once `Hello` has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client {
    /// Public key that the client proved in its TLS handshake.
    pub(super) key: PublicKey,
    /// Client's address as this CN sees it.
    pub(super) from: SocketAddr,
    /// Country and network; unknown until geolocation has answered.
    pub(super) location: GeoLocation,
    session: Option<Session>,
}

/// Session of a logged-in client: its `Hello`, and what came after.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Session {
    /// Number that [`Sessions::open`] gives.
    pub(super) id: SessionId,
    pub(super) guid: Guid,
    pub(super) secondary: SecondaryGuid,
    pub(super) incarnation: u64,
    pub(super) upload_key: PublicKey,
    /// Whether the user allows uploads.
    pub(super) uploads: bool,
    /// Whether the GUID is in quarantine: see [`super::quarantine`].
    pub(super) quarantined: bool,
    /// NAT type and addresses that other clients and DNs are told.
    pub(super) nat: NatDescriptor,
    /// Sequence number of the last inventory page.
    pub(super) seq: u64,
    /// Newest head of its record log that the client has shown.
    pub(super) log: Option<SignedHead>,
    pub(super) challenge: Challenge,
    pub(super) rekey: Option<PendingRekey>,
    pub(super) budgets: Budgets,
    pub(super) dn_view: DnView,
}

/// Challenge of a session: a ping that shows whether its client still answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Challenge {
    /// Whether a ping is unanswered.
    pub(super) open: bool,
    /// Whether the client has answered the last challenge.
    pub(super) answered: bool,
    /// Connection of the DN that waits for the answer.
    pub(super) by: Option<ConnId>,
}

/// Rekey of a session's client: its new key's GUID, and whether the ledger has the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRekey {
    /// Record that retires the old GUID.
    pub(super) record: RecordId,
    /// GUID of the new key.
    pub(super) new: Guid,
    /// Whether the record is durable in the ledger.
    pub(super) durable: bool,
}

impl Challenge {
    /// Asserts that exactly an open challenge has a time-out, and that a DN waits for an open one only.
    pub(super) fn check(&self, has_timeout: bool) {
        assert!(self.open == has_timeout, "exactly the open challenges have a time-out");
        assert!(!self.open || !self.answered, "an answered challenge is not open");
        assert!(self.open || self.by.is_none(), "a DN waits for an open challenge only");
    }
}

impl Session {
    /// Returns whether the client may be offered to others as a peer.
    pub(super) const fn may_upload(&self) -> bool {
        self.uploads && !self.quarantined
    }
}

impl Client {
    /// Returns a client that has connected, and has no session yet.
    pub(super) const fn new(key: PublicKey, from: SocketAddr) -> Self {
        Self { key, from, location: GeoLocation::UNKNOWN, session: None }
    }

    /// Returns the session, once `Hello` has come.
    pub(super) const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Returns the client's entry for the DNs.
    fn entry(&self) -> Option<PeerEntry> {
        let s = self.session.as_ref()?;
        Some(PeerEntry {
            session: s.id,
            guid: s.guid,
            secondary: s.secondary,
            incarnation: s.incarnation,
            observed: self.from,
            upload_key: s.upload_key,
            uploads: s.may_upload(),
            nat: s.nat.clone(),
            locality: self.location.locality,
        })
    }
}

/// All connected clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sessions {
    /// Clients by connection; a client has a session once its `Hello` has come.
    clients: BTreeMap<ConnId, Client>,
    /// Sessions by GUID: more than one for copies of an installation, or while a broken connection is not yet noticed.
    by_guid: BTreeMap<Guid, BTreeSet<ConnId>>,
    by_id: BTreeMap<SessionId, ConnId>,
    next: SessionId,
    /// Networks and keys of the connections, and which goes first.
    places: Holdings<ConnId, PublicKey>,
    /// GUIDs in quarantine: they get no peers and are offered as peers to nobody.
    pub(super) quarantined: BTreeSet<Guid>,
}

impl Sessions {
    /// Returns the number of connections, with or without session.
    pub(super) fn connections(&self) -> usize {
        self.clients.len()
    }

    /// Returns the number of sessions.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Returns whether a client is connected.
    pub(super) fn is_connected(&self, conn: ConnId) -> bool {
        self.clients.contains_key(&conn)
    }

    pub(super) fn client(&self, conn: ConnId) -> Option<&Client> {
        self.clients.get(&conn)
    }

    /// Stores where geolocation has found a client.
    pub(super) fn on_located(&mut self, conn: ConnId, location: GeoLocation) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.location = location;
        }
    }

    /// Returns the session of a connection, once `Hello` has come.
    pub(super) fn get(&self, conn: ConnId) -> Option<&Session> {
        self.clients.get(&conn)?.session.as_ref()
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.clients.get_mut(&conn)?.session.as_mut()
    }

    /// Returns the connection of a session.
    pub(super) fn conn(&self, id: SessionId) -> Option<ConnId> {
        self.by_id.get(&id).copied()
    }

    /// Returns the sessions of a GUID.
    pub(super) fn of_guid(&self, guid: Guid) -> impl Iterator<Item = (ConnId, &Session)> {
        let conns = self.by_guid.get(&guid).into_iter().flatten();
        conns.filter_map(|conn| Some((*conn, self.get(*conn)?)))
    }

    /// Returns the sessions from this id on, by id.
    pub(super) fn from(&self, id: SessionId) -> impl Iterator<Item = (SessionId, ConnId)> {
        self.by_id.range(id..).map(|(id, conn)| (*id, *conn))
    }

    /// Returns the clients by connection.
    pub(super) fn clients(&self) -> impl Iterator<Item = (ConnId, &Client)> {
        self.clients.iter().map(|(conn, client)| (*conn, client))
    }

    pub(super) fn is_quarantined(&self, guid: Guid) -> bool {
        self.quarantined.contains(&guid)
    }

    /// Returns a session's entry for the DNs.
    pub(super) fn entry(&self, conn: ConnId) -> Option<PeerEntry> {
        self.clients.get(&conn)?.entry()
    }

    /// Returns a session's report to the home DN of its GUID.
    pub(super) fn seen(&self, conn: ConnId) -> Option<Seen> {
        self.get(conn).map(|s| Seen { session: s.id, guid: s.guid, secondary: s.secondary })
    }

    /// Returns whether there is room for a client's connection, and which one must go for it. A working session goes
    /// only if it has been quiet, or if its network keeps more places than the client's then has.
    pub(super) fn room_for(&self, cfg: &Config, now: Time, (key, from): (PublicKey, SocketAddr)) -> Room<ConnId> {
        let net = prefix(from.ip());
        let room = self.places.ask(&limits(cfg.sessions_max, cfg.prefix_sessions_max), (net, key), Amount::one(1));
        let Room::InPlaceOf(conn) = room else { return room };
        let may_go = self.places.get(conn).is_some_and(|place| {
            let (class, since) = place.turn;
            let richer = self.places.of_prefix(place.prefix).items > self.places.of_prefix(net).items + 1;
            class < WORKING || now.since(since) >= QUIET_AFTER || place.prefix != net && richer
        });
        if may_go { room } else { Room::Full(Bound::Total) }
    }

    /// Notes that the client of a session has asked for something.
    pub(super) fn note_work(&mut self, conn: ConnId, now: Time) {
        self.places.change(conn, |place| place.turn = (WORKING, now));
    }

    /// Adds a connection without session.
    pub(super) fn connect(&mut self, conn: ConnId, client: Client, now: Time) {
        let turn = (STRANGER, now);
        let place = Holding { prefix: prefix(client.from.ip()), key: client.key, bytes: 1, turn, kept: false };
        self.places.put(conn, place);
        let before = self.clients.insert(conn, client);
        debug_assert!(before.is_none(), "a connection's number is given once");
    }

    /// Opens the session of a connection, and gives it its id.
    pub(super) fn open(&mut self, conn: ConnId, mut session: Session) {
        let Some(client) = self.clients.get_mut(&conn) else {
            return debug_assert!(false, "only the connected have sessions");
        };
        session.id = self.next.step();
        self.places.change(conn, |place| place.turn.0 = NEW);
        self.by_guid.entry(session.guid).or_default().insert(conn);
        self.by_id.insert(session.id, conn);
        let before = client.session.replace(session);
        debug_assert!(before.is_none(), "a connection has one session");
    }

    /// Removes a connection, and returns its session.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Session> {
        self.places.take(conn);
        let session = self.clients.remove(&conn)?.session?;
        if let Some(conns) = self.by_guid.get_mut(&session.guid) {
            conns.remove(&conn);
            if conns.is_empty() {
                self.by_guid.remove(&session.guid);
            }
        }
        let of_id = self.by_id.remove(&session.id);
        debug_assert!(of_id == Some(conn), "each session is found by its id");
        Some(session)
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        let sessions = self.clients.values_mut().filter_map(|client| client.session.as_mut());
        sessions.for_each(|session| session.budgets.rebase(by));
        self.places.rebase(by);
    }

    /// Asserts that the three maps agree about one connection, without a walk.
    pub(super) fn check_one(&self, conn: ConnId) {
        let Some(session) = self.get(conn) else { return };
        assert!(self.by_id.get(&session.id) == Some(&conn), "each session is found by its id");
        let of_guid = self.by_guid.get(&session.guid);
        assert!(of_guid.is_some_and(|conns| conns.contains(&conn)), "each session is found by its GUID");
        assert!(session.id < self.next, "each session has an id that was given");
        assert!(session.quarantined == self.is_quarantined(session.guid), "a session is in quarantine as its GUID is");
    }

    /// Asserts that the three maps agree, as [`crate::Machine::check`] does.
    pub(super) fn check(&self) {
        self.places.check();
        let has_place = |conn: &ConnId| self.places.get(*conn).is_some();
        let all = self.clients.keys().all(has_place) && self.places.all().items == self.clients.len() as u64;
        assert!(all, "each connection has a place, and no other");
        self.clients.keys().for_each(|conn| self.check_one(*conn));
        let open = self.clients.values().filter(|client| client.session.is_some()).count();
        assert!(self.by_id.len() == open, "each id is of a session");
        assert!(self.by_guid.values().map(BTreeSet::len).sum::<usize>() == open, "each GUID is of a session");
        let is_bounded = |conns: &BTreeSet<ConnId>| (1..=COPIES_MAX).contains(&conns.len());
        assert!(self.by_guid.values().all(is_bounded), "each GUID has a session, and not too many");
        assert!(self.quarantined.len() <= QUARANTINED_MAX, "the list of quarantined clients is bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    const CONN: ConnId = ConnId(1);

    /// Returns one client with a session.
    fn healthy() -> Sessions {
        let mut sessions = Sessions::default();
        let key = PublicKey::numbered(1);
        let from = "192.0.2.1:4000".parse().expect("an address");
        sessions.connect(CONN, Client::new(key, from), Time::ZERO);
        let session = Session {
            id: SessionId(0),
            guid: Guid::of(&key),
            secondary: SecondaryGuid::numbered(1),
            incarnation: 1,
            upload_key: key,
            uploads: true,
            quarantined: false,
            nat: NatDescriptor::default(),
            seq: 0,
            log: None,
            challenge: Challenge::default(),
            rekey: None,
            budgets: Budgets::default(),
            dn_view: DnView::default(),
        };
        sessions.open(CONN, session);
        sessions
    }

    #[test]
    fn each_clause_about_the_maps_of_sessions_fires() {
        assert_each_clause_fires(
            &healthy(),
            Sessions::check,
            &[
                ("each connection has a place, and no other", |s| _ = s.places.take(CONN)),
                ("each session is found by its id", |s| _ = s.by_id.insert(SessionId(0), ConnId(77))),
                ("each session is found by its GUID", |s| s.by_guid.clear()),
                ("each session has an id that was given", |s| s.next = SessionId(0)),
                ("each id is of a session", |s| _ = s.by_id.insert(SessionId(5), CONN)),
                ("each GUID is of a session", |s| _ = s.by_guid.insert(Guid::numbered(9), [CONN].into())),
                ("each GUID has a session, and not too many", |s| {
                    s.by_guid.insert(Guid::numbered(9), BTreeSet::new());
                }),
            ],
        );
    }

    #[test]
    fn a_removed_connection_leaves_nothing_behind() {
        let mut sessions = healthy();
        assert_eq!(sessions.remove(CONN).map(|s| s.id), Some(SessionId(0)));
        assert_eq!(sessions, Sessions { next: SessionId(1), ..Sessions::default() });
    }
}
