//! Queries for peers: open and check the grant, have a DN select peers, sign and record the introductions, then answer
//! the client and notify the selected peers.
//!
//! A CN handles the queries of its own clients. An introduction to an uploader on the same CN also goes through the DN
//! and comes back, like any other.

use super::logs::Offering;
use super::meetings::{IntroducedUploader, Meetings, Party};
use super::sessions::{Session, Sessions};
use super::{Cn, Common, Context, Metric, Output, Timer};
use crate::accounting::grants::{self, ShownError};
use crate::accounting::introductions;
use crate::ids::{ConnId, IntroId, PublicKey, RecordId, ReqId, SessionId, Signature};
use crate::limits::EXCLUDED_MAX;
use crate::nat::connectivity::Ticket;
use crate::selection::blames::CopyId;
use crate::wire::List;
use crate::wire::control::{Introduce, IntroducedPeer, Introductions, Query, QueryError, QueryFailed, ToClient};
use crate::wire::directory::{Deliver, Nobody, Relay, Select, Selected, SelectedPeer, ToDn, WhyNobody};
use crate::wire::records::{Introduction, SignedGrant, SignedIntroduction, SigningContext};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

/// Delay in milliseconds before a client repeats a query that failed because no DN was up or its record could not be
/// stored.
const UNAVAILABLE_RETRY_MS: u32 = 2_000;

/// A query in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    /// Connection of the client.
    client: ConnId,
    /// Number that the client gave the query.
    query: u32,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// The shell is opening the sealed grant.
    Opening { want: u8, exclude: List<PublicKey, EXCLUDED_MAX> },
    /// A DN is selecting peers.
    Selecting(Selecting),
    /// The shell is signing the introductions.
    Signing { dn: ConnId, grant: Box<SignedGrant>, intros: Vec<Introduction>, peers: Vec<SelectedPeer> },
    /// The record of the introductions is being made durable.
    Recording { record: RecordId, offer: Offer },
}

/// Selection of peers by a DN: its connection, and the grant for which the peers are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Selecting {
    dn: ConnId,
    grant: Box<SignedGrant>,
}

/// Signed introductions that answer a query; neither side has been told of them yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Offer {
    dn: ConnId,
    intros: Vec<SignedIntroduction>,
    peers: Vec<SelectedPeer>,
}

/// Answer to a query, which is not sent yet.
struct Answer {
    client: ConnId,
    query: u32,
    offer: Offer,
}

impl Pending {
    /// Returns the connection of the DN that selects the peers, or that forwards the introductions to them.
    const fn dn(&self) -> Option<ConnId> {
        match &self.step {
            Step::Opening { .. } => None,
            Step::Selecting(Selecting { dn, .. }) | Step::Signing { dn, .. } => Some(*dn),
            Step::Recording { offer, .. } => Some(offer.dn),
        }
    }

    /// Returns the id of the record of introductions that must be durable before the query is answered.
    const fn record(&self) -> Option<RecordId> {
        if let Step::Recording { record, .. } = &self.step { Some(*record) } else { None }
    }
}

/// The queries in progress. Each step of a query removes it from here and inserts it again for the next step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Queries {
    pending: BTreeMap<ReqId, Pending>,
    /// Queries whose answers wait until the record of their introductions is durable.
    recording: BTreeMap<RecordId, ReqId>,
}

impl Queries {
    fn insert(&mut self, req: ReqId, pending: Pending) {
        if let Some(record) = pending.record() {
            self.recording.insert(record, req);
        }
        let before = self.pending.insert(req, pending);
        debug_assert!(before.is_none(), "each query has a number of its own");
    }

    fn take(&mut self, req: ReqId) -> Option<Pending> {
        let pending = self.pending.remove(&req)?;
        if let Some(record) = pending.record() {
            let of_record = self.recording.remove(&record);
            debug_assert!(of_record == Some(req), "each query that is recorded is found by its record");
        }
        Some(pending)
    }

    /// Removes and returns a query if it is in the step that an answer belongs to.
    fn take_in(&mut self, req: ReqId, is_in: impl FnOnce(&Step) -> bool) -> Option<Pending> {
        if self.pending.get(&req).is_some_and(|pending| is_in(&pending.step)) { self.take(req) } else { None }
    }

    /// Ends a query in progress; its client may be gone already.
    fn end(&mut self, common: &mut Common, req: ReqId) -> Option<Pending> {
        common.timers.clear(Timer::Query(req));
        self.take(req)
    }

    /// Returns whether a query has this number.
    pub(super) fn contains(&self, req: ReqId) -> bool {
        self.pending.contains_key(&req)
    }

    /// Asserts that queries and their records refer to each other, and that each query's DN is up; `is_up` tells
    /// whether a connection is that of a DN that is up.
    pub(super) fn check(&self, is_up: impl Fn(ConnId) -> bool) {
        for (req, pending) in &self.pending {
            assert!(pending.dn().is_none_or(&is_up), "each query waits for a DN that is up");
            let found = pending.record().is_none_or(|id| self.recording.get(&id) == Some(req));
            assert!(found, "each query that is recorded is found by its record");
        }
        let recording = self.pending.values().filter(|pending| pending.record().is_some()).count();
        assert!(self.recording.len() == recording, "each record of an offer is of a query");
    }

    /// Returns the numbers of all queries.
    pub(super) fn reqs(&self) -> impl Iterator<Item = ReqId> {
        self.pending.keys().copied()
    }

    /// Begins a query: has its grant opened.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, common: &mut Common, client: ConnId, query: Query) {
        let req = common.next_req.step();
        let step = Step::Opening { want: query.want, exclude: query.exclude };
        self.insert(req, Pending { client, query: query.query, step });
        common.timers.set(Timer::Query(req), Some(cx.now.after(cx.cfg.select_within)));
        cx.push(Output::OpenGrant { req, sealed: query.grant });
    }

    /// Returns the client of a query whose grant is being opened.
    fn opening(&self, req: ReqId) -> Option<ConnId> {
        let pending = self.pending.get(&req)?;
        matches!(pending.step, Step::Opening { .. }).then_some(pending.client)
    }

    /// Has a DN select the peers for a query, whose grant is opened and checked.
    fn select(&mut self, cx: &mut Context<'_>, req: ReqId, session: SessionId, by: Selecting) {
        let asked = self.take_in(req, |step| matches!(step, Step::Opening { .. }));
        let Some(Pending { client, query, step: Step::Opening { want, exclude } }) = asked else { return };
        let Selecting { dn, grant } = by;
        let select = Select {
            req: req.0,
            session,
            download: grant.grant.download,
            version: grant.grant.version,
            want: want.min(cx.cfg.peers_max),
            exclude,
        };
        cx.push(Output::DirectorySend { conn: dn, msg: ToDn::Select(select) });
        self.insert(req, Pending { client, query, step: Step::Selecting(Selecting { dn, grant }) });
    }

    /// Has the introductions to the selected peers signed, or answers the query if there is none.
    pub(super) fn on_selected(
        &mut self,
        cx: &mut Context<'_>,
        common: &mut Common,
        sessions: &Sessions,
        conn: ConnId,
        selected: Selected,
    ) {
        let req = ReqId(selected.req);
        let asked = self.take_in(req, |step| matches!(step, Step::Selecting(by) if by.dn == conn));
        let Some(Pending { client, query, step: Step::Selecting(Selecting { dn, grant }) }) = asked else { return };
        let is_connected = sessions.is_connected(client);
        if let Some(retry_after_ms) = selected.edge_only_ms {
            common.timers.clear(Timer::Query(req));
            if is_connected {
                fail(cx, client, query, QueryError::Unreceipted, retry_after_ms);
            }
            return;
        }
        if selected.peers.is_empty() || !is_connected {
            common.timers.clear(Timer::Query(req));
            if is_connected {
                answer(cx, client, query, Vec::new());
            }
            return;
        }
        let peers = selected.peers.into_vec();
        let now_ms = common.now_ms(cx.now);
        let until = |d: Duration| now_ms.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        let intros: Vec<Introduction> = peers
            .iter()
            .map(|p| Introduction {
                id: IntroId(cx.rng.nonce()),
                download: grant.grant.download,
                version: grant.grant.version,
                downloader_key: grant.grant.download_key,
                uploader_key: p.upload_key,
                connect_before_ms: until(cx.cfg.connect_within),
                serve_until_ms: until(cx.cfg.serve_for),
                cap_bytes: grant.grant.max_peer_bytes,
            })
            .collect();
        let message = introductions::root(&intros).0.to_vec();
        self.insert(req, Pending { client, query, step: Step::Signing { dn, grant, intros, peers } });
        cx.push(Output::Sign { req, context: SigningContext::Introductions, message });
    }

    /// Tells the client of a query why the DN has chosen nobody.
    pub(super) fn on_nobody(
        &mut self,
        cx: &mut Context<'_>,
        common: &mut Common,
        sessions: &Sessions,
        conn: ConnId,
        nobody: Nobody,
    ) {
        let req = ReqId(nobody.req);
        let asked = self.take_in(req, |step| matches!(step, Step::Selecting(by) if by.dn == conn));
        let Some(Pending { client, query, .. }) = asked else { return };
        common.timers.clear(Timer::Query(req));
        if sessions.is_connected(client) {
            let why = match nobody.why {
                WhyNobody::NotShared => QueryError::NotShared,
                WhyNobody::Unreachable => QueryError::Unreachable,
                WhyNobody::AllKnown => QueryError::AllKnown,
                WhyNobody::OffersSpent => QueryError::OffersSpent,
            };
            cx.push(Output::Count(Metric::QueryAnswered));
            cx.push(Output::ClientSend { conn: client, msg: failed(query, why, 0) });
        }
    }

    /// Has an answer wait until the record of its introductions is durable.
    fn record(&mut self, cx: &Context<'_>, common: &mut Common, req: ReqId, record: RecordId, answer: Answer) {
        let Answer { client, query, offer } = answer;
        self.insert(req, Pending { client, query, step: Step::Recording { record, offer } });
        let within = if cx.cfg.spool { cx.cfg.select_within } else { cx.cfg.record_within };
        common.timers.set(Timer::Query(req), Some(cx.now.after(within)));
    }

    /// Returns the record that a query waits for.
    fn record_of(&self, req: ReqId) -> Option<RecordId> {
        self.pending.get(&req).and_then(Pending::record)
    }

    /// Ends the query whose introductions this record names, and returns its answer.
    fn take_recorded(&mut self, common: &mut Common, id: RecordId) -> Option<Answer> {
        let &req = self.recording.get(&id)?;
        let Pending { client, query, step: Step::Recording { offer, .. } } = self.end(common, req)? else {
            return None;
        };
        Some(Answer { client, query, offer })
    }

    /// Fails the query whose introductions could not be recorded; nobody is told of them.
    pub(super) fn fail_recorded(
        &mut self,
        cx: &mut Context<'_>,
        common: &mut Common,
        sessions: &Sessions,
        id: RecordId,
    ) {
        if let Some(&req) = self.recording.get(&id) {
            self.fail(cx, common, sessions, req);
        }
    }

    /// Fails a query as `Unavailable`, for lack of a DN or of a durable record.
    fn fail(&mut self, cx: &mut Context<'_>, common: &mut Common, sessions: &Sessions, req: ReqId) {
        let Some(pending) = self.end(common, req) else { return };
        if sessions.is_connected(pending.client) {
            fail(cx, pending.client, pending.query, QueryError::Unavailable, UNAVAILABLE_RETRY_MS);
        }
    }

    /// Fails the queries that depend on a DN whose connection is lost, since the DN can neither select peers nor
    /// forward introductions.
    pub(super) fn fail_of_dn(&mut self, cx: &mut Context<'_>, common: &mut Common, sessions: &Sessions, conn: ConnId) {
        let queries = self.pending.iter().filter(|(_, pending)| pending.dn() == Some(conn));
        let lost: Vec<ReqId> = queries.map(|(req, _)| *req).collect();
        for req in lost {
            self.fail(cx, common, sessions, req);
        }
    }
}

impl Meetings {
    /// Sends the introductions to both sides of each pair.
    fn send_introductions(&mut self, cx: &mut Context<'_>, sessions: &Sessions, to: Answer) {
        let Answer { client, query, offer: Offer { dn, intros, peers } } = to;
        let Some(asking) = sessions.client(client) else { return };
        let Some((from, nat)) = asking.session().map(|s| (s.id, s.nat.clone())) else { return };
        let observed = asking.from;
        let mut introduced = Vec::new();
        for (intro, peer) in intros.into_iter().zip(peers) {
            cx.push(Output::Count(Metric::Introduced));
            let key = cx.rng.nonce();
            let copy = CopyId { holder: peer.guid, version: intro.intro.version };
            let parties = [Party::Local(client), Party::ViaDn { dn, route: peer.route, copy }];
            self.begin(cx, intro.intro.id, parties);
            let ticket = Some(Ticket { key, observed });
            let introduce = Introduce { intro: intro.clone(), nat: nat.clone(), ticket };
            let relay = Relay { route: peer.route, from, introduce };
            cx.push(Output::DirectorySend { conn: dn, msg: ToDn::Relay(relay) });
            let ticket = Some(Ticket { key, observed: peer.observed });
            introduced.push(IntroducedPeer { intro, nat: peer.nat, ticket });
        }
        answer(cx, client, query, introduced);
    }

    /// Delivers an introduction to the uploader, a client of this CN.
    pub(super) fn on_deliver(
        &mut self,
        cx: &mut Context<'_>,
        common: &mut Common,
        sessions: &Sessions,
        dn: ConnId,
        deliver: Deliver,
    ) {
        let Some(conn) = sessions.conn(deliver.session) else { return };
        if sessions.get(conn).is_some_and(Session::may_upload) {
            let uploader = IntroducedUploader { client: conn, dn, back: deliver.from };
            self.add_uploader(cx, common, deliver.introduce.intro.intro.id, uploader);
            cx.push(Output::ClientSend { conn, msg: ToClient::Introduce(deliver.introduce) });
        }
    }
}

impl Cn {
    /// Begins a query, unless its client is edge-only.
    pub(super) fn on_query(&mut self, cx: &mut Context<'_>, conn: ConnId, query: Query) {
        cx.push(Output::Count(Metric::Query));
        if self.sessions.is_edge_only(conn) {
            cx.push(Output::Count(Metric::EdgeOnly));
            return fail(cx, conn, query.query, QueryError::Limited, 0);
        }
        self.queries.begin(cx, &mut self.common, conn, query);
    }

    /// Checks the opened grant of a query, and has the first DN that is up select peers.
    pub(super) fn on_grant_opened(&mut self, cx: &mut Context<'_>, req: ReqId, grant: Option<Box<SignedGrant>>) {
        let Some(client) = self.queries.opening(req) else { return };
        let Some(session) = self.sessions.get(client) else {
            self.queries.end(&mut self.common, req);
            return;
        };
        let checked = grant.ok_or(QueryError::Regrant).and_then(|g| {
            match grants::check_shown(&cx.cfg.trust(), &g, session.guid, self.common.now_ms(cx.now)) {
                Err(ShownError::Invalid(_)) => Err(QueryError::Regrant),
                Err(ShownError::NotYours) => Err(QueryError::NotYours),
                Err(ShownError::NoPeers) => Err(QueryError::PeersForbidden),
                Ok(()) if self.notices.is_withdrawn(g.grant.version) => Err(QueryError::Withdrawn),
                Ok(()) if !self.notices.may_have_peers(g.grant.version) => Err(QueryError::PeersForbidden),
                Ok(()) => Ok(g),
            }
        });
        let dn = self.dns.first_up().ok_or(QueryError::Unavailable);
        match checked.and_then(|grant| Ok(Selecting { dn: dn?, grant })) {
            Ok(by) => self.queries.select(cx, req, session.id, by),
            Err(why) => {
                let Some(Pending { query, .. }) = self.queries.end(&mut self.common, req) else { return };
                fail(cx, client, query, why, UNAVAILABLE_RETRY_MS);
            }
        }
    }

    pub(super) fn on_introductions_signed(&mut self, cx: &mut Context<'_>, req: ReqId, signature: Signature) {
        let asked = self.queries.take_in(req, |step| matches!(step, Step::Signing { .. }));
        let Some(Pending { client, query, step: Step::Signing { dn, grant, intros, peers } }) = asked else { return };
        self.common.timers.clear(Timer::Query(req));
        let Some(guid) = self.sessions.get(client).map(|s| s.guid) else { return };
        let offering = self.recording.log_offered(cx, &mut self.common, guid, &grant, &intros);
        let offer = Offer { dn, intros: introductions::sign(intros, signature, &cx.cfg.cert), peers };
        let answer = Answer { client, query, offer };
        match offering {
            Offering::NotKept => self.meetings.send_introductions(cx, &self.sessions, answer),
            Offering::Refused => fail(cx, client, query, QueryError::Unavailable, UNAVAILABLE_RETRY_MS),
            Offering::Recording(record) => self.queries.record(cx, &mut self.common, req, record, answer),
        }
    }

    /// Answers the query whose introductions are now durably recorded.
    pub(super) fn on_offer_recorded(&mut self, cx: &mut Context<'_>, id: RecordId) {
        if let Some(answer) = self.queries.take_recorded(&mut self.common, id) {
            self.meetings.send_introductions(cx, &self.sessions, answer);
        }
    }

    /// Handles the time-out of a query: fails it, or answers it if only the ledger without a spool is slow.
    pub(super) fn on_query_timeout(&mut self, cx: &mut Context<'_>, req: ReqId) {
        match self.queries.record_of(req) {
            // no spool: the ledger may be away and will get the record when it is back, so the client is answered now
            Some(record) if !cx.cfg.spool => self.on_offer_recorded(cx, record),
            Some(_) | None => self.queries.fail(cx, &mut self.common, &self.sessions, req),
        }
    }
}

fn answer(cx: &mut Context<'_>, conn: ConnId, query: u32, peers: Vec<IntroducedPeer>) {
    cx.push(Output::Count(Metric::QueryAnswered));
    let peers = List::truncated(peers);
    cx.push(Output::ClientSend { conn, msg: ToClient::Introductions(Introductions { query, peers }) });
}

pub(super) fn fail(cx: &mut Context<'_>, conn: ConnId, query: u32, why: QueryError, retry_after_ms: u32) {
    cx.push(Output::Count(Metric::QueryRefused));
    cx.push(Output::ClientSend { conn, msg: failed(query, why, retry_after_ms) });
}

const fn failed(query: u32, why: QueryError, retry_after_ms: u32) -> ToClient {
    ToClient::QueryFailed(QueryFailed { query, why, retry_after_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    /// Returns the queries of a CN with one query whose introductions are being recorded.
    fn healthy() -> Queries {
        let mut queries = Queries::default();
        let offer = Offer { dn: ConnId(1), intros: Vec::new(), peers: Vec::new() };
        let step = Step::Recording { record: RecordId::numbered(1), offer };
        queries.insert(ReqId(1), Pending { client: ConnId(2), query: 3, step });
        queries
    }

    #[test]
    fn each_clause_about_queries_fires() {
        assert_each_clause_fires(
            &healthy(),
            |queries| queries.check(|dn| dn == ConnId(1)),
            &[
                ("each query waits for a DN that is up", |q| {
                    let step = Step::Opening { want: 1, exclude: List::default() };
                    let Some(asked) = q.pending.get_mut(&ReqId(1)) else { return };
                    let Step::Recording { offer, .. } = core::mem::replace(&mut asked.step, step) else { return };
                    asked.step =
                        Step::Recording { record: RecordId::numbered(1), offer: Offer { dn: ConnId(9), ..offer } };
                }),
                ("each query that is recorded is found by its record", |q| q.recording.clear()),
                ("each record of an offer is of a query", |q| {
                    q.recording.insert(RecordId::numbered(99), ReqId(1));
                }),
            ],
        );
    }

    #[test]
    fn a_query_is_taken_in_its_step_only_and_leaves_nothing_behind() {
        let mut queries = healthy();
        assert!(queries.take_in(ReqId(1), |step| matches!(step, Step::Opening { .. })).is_none());
        assert!(queries.take_in(ReqId(1), |step| matches!(step, Step::Recording { .. })).is_some());
        assert_eq!(queries, Queries::default());
    }
}
