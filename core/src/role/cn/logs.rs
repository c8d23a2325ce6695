//! Log records for the ledger beside usage records (section 4.1 of the paper): logins, registrations, offers, and log
//! heads that contradict one another.
//!
//! Logins and registrations wait in memory only, and a crash loses those that wait. Offers are durable before clients
//! learn of them: see [`super::spool`]. A CN without spool keeps them in memory too, and delays the answer a little
//! until the ledger has them.

use super::recording::Recording;
use super::{Common, Context, Metric, Output};
use crate::accounting::logs::head_id;
use crate::ids::{Guid, RecordId};
use crate::wire::List;
use crate::wire::control::Hello;
use crate::wire::directory::PeerShares;
use crate::wire::geo_location::GeoLocation;
use crate::wire::records::{
    GrantRecord, Introduction, LedgerRecord, LogEvent, LogRecord, Login, Offered, OfferedPeer, Registered, SignedGrant,
    SignedHead,
};
use core::net::SocketAddr;

/// Result of recording an offer, which is the introductions that answer one query.
pub(super) enum Offering {
    /// The CN keeps no such records.
    NotKept,
    /// The record with this id is being made durable.
    Recording(RecordId),
    /// There is no room for the record, so nobody may be introduced.
    Refused,
}

impl Recording {
    /// Sends a record of an event to the ledger, if it keeps such records and there is room.
    pub(super) fn log(&mut self, cx: &mut Context<'_>, common: &Common, guid: Guid, event: LogEvent) {
        if !cx.cfg.ledger || !cx.cfg.logs {
            return;
        }
        // half of the room is reserved for offers and usage records
        if self.ledger.waiting() >= cx.cfg.usage_max as usize / 2 {
            return cx.push(Output::Count(Metric::LogDropped));
        }
        let id = RecordId(cx.rng.nonce());
        let record = LogRecord { id, at_ms: common.now_ms(cx.now), guid, event };
        self.submit(cx, LedgerRecord::Log(record));
    }

    /// Sends two contradicting log heads to the ledger, once for each GUID. Without room for both they are dropped, and
    /// the next fork is kept in their place.
    pub(super) fn keep_evidence(&mut self, cx: &mut Context<'_>, common: &Common, guid: Guid, heads: [SignedHead; 2]) {
        if !cx.cfg.ledger || !cx.cfg.logs || self.usage.has_forked(guid) {
            return;
        }
        if self.ledger.waiting() + heads.len() > cx.cfg.usage_max as usize {
            return cx.push(Output::Count(Metric::LogDropped));
        }
        self.usage.note_forked(guid);
        heads.into_iter().for_each(|head| self.log_head(cx, common, guid, head));
    }

    /// Sends a log head to the ledger without its usage record, since two contradictory heads prove a forked log. Its
    /// record id follows from the head, so the ledger stores each head once.
    fn log_head(&mut self, cx: &mut Context<'_>, common: &Common, guid: Guid, head: SignedHead) {
        let id = head_id(&head.head);
        let record = LogRecord { id, at_ms: common.now_ms(cx.now), guid, event: LogEvent::Head(head) };
        self.submit(cx, LedgerRecord::Log(record));
    }

    /// Records a client's login for the ledger, with its location if that is known.
    pub(super) fn log_login(
        &mut self,
        cx: &mut Context<'_>,
        common: &Common,
        observed: SocketAddr,
        location: GeoLocation,
        hello: &Hello,
    ) {
        let login = Login {
            observed,
            secondary: hello.secondary.clone(),
            upload_key: hello.upload_key,
            uploads: hello.uploads,
            client_version: hello.client_version,
        };
        self.log(cx, common, hello.guid, LogEvent::Login(login));
        if location != GeoLocation::UNKNOWN {
            self.log(cx, common, hello.guid, LogEvent::Located(location));
        }
    }

    /// Logs the versions that a client has newly registered. A page that begins a whole inventory again is not logged:
    /// its versions were registered before.
    pub(super) fn log_registered(&mut self, cx: &mut Context<'_>, common: &Common, guid: Guid, page: &PeerShares) {
        if page.add.is_empty() || page.reset {
            return;
        }
        let versions = List::truncated(page.add.iter().map(|shared| shared.version));
        self.log(cx, common, guid, LogEvent::Registered(Registered { versions }));
    }

    /// Records the introductions that answer a query. With the first peers of a download its grant is recorded too,
    /// since no edge may ever be asked for a byte of it.
    pub(super) fn log_offered(
        &mut self,
        cx: &mut Context<'_>,
        common: &mut Common,
        guid: Guid,
        signed: &SignedGrant,
        intros: &[Introduction],
    ) -> Offering {
        let Some(first) = intros.first().filter(|_| cx.cfg.ledger && cx.cfg.logs) else { return Offering::NotKept };
        // a quarter of the room is reserved for usage records
        let most = cx.cfg.usage_max - cx.cfg.usage_max / 4;
        if self.ledger.waiting() + self.spool.writing() >= most as usize {
            cx.push(Output::Count(Metric::LogDropped));
            return Offering::Refused;
        }
        let peer = |i: &Introduction| OfferedPeer { intro: i.id, upload_key: i.uploader_key };
        let (download, version) = (first.download, first.version);
        let peers = List::truncated(intros.iter().map(peer));
        let id = RecordId(cx.rng.nonce());
        let event = LogEvent::Offered(Offered { download, version, peers });
        let record = LedgerRecord::Log(LogRecord { id, at_ms: common.now_ms(cx.now), guid, event });
        let granted = (!self.spool.has_granted(download)).then(|| LedgerRecord::Granted(GrantRecord::shown(signed)));
        if cx.cfg.spool {
            self.spool.add(cx, common, granted, record);
        } else {
            for record in granted.into_iter().chain([record]) {
                self.submit(cx, record);
            }
        }
        Offering::Recording(id)
    }
}
