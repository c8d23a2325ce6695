//! What the ledger is told of clients beside their usage (the paper's section 4.1): logins, registrations, offers.
//! Logins and registrations wait in memory only, and a CN that dies takes a few of these with it. Offers do not: see
//! [`super::spool`]. A CN without a spool keeps them in memory too, and waits a little until the ledger has them.

use super::usage::place_id;
use super::{Cn, Context, Metric, Output};
use crate::ids::{Guid, RecordId};
use crate::session::ledger_link;
use crate::wire::List;
use crate::wire::control::{Hello, Inventory};
use crate::wire::place::Place;
use crate::wire::records::{
    GrantRecord, Introduction, LedgerRecord, LogEvent, LogRecord, Login, Offered, OfferedPeer, Registered, SignedGrant,
    SignedHead,
};
use core::net::SocketAddr;

/// What has become of an offer.
pub(super) enum Offering {
    /// Nobody keeps such records.
    Unkept,
    /// It is being recorded, under this id.
    Under(RecordId),
    /// There is no room for it: nobody is to be introduced.
    Refused,
}

impl Cn {
    fn log(&mut self, cx: &mut Context<'_>, guid: Guid, event: LogEvent) {
        if !cx.cfg.ledger || !cx.cfg.logs {
            return;
        }
        // half of the room is left to offers and usage records
        if self.ledger.waiting() >= cx.cfg.usage_max as usize / 2 {
            return cx.push(Output::Count(Metric::LogDropped));
        }
        let id = RecordId(cx.rng.nonce());
        let record = LogRecord { id, at_ms: self.now_ms(cx.now), guid, event };
        self.with_ledger(cx, ledger_link::Input::Submit(LedgerRecord::Log(record)));
    }

    /// Under one name however often it comes: the ledger keeps each head once. It is never dropped, since what forks
    /// is proven by it.
    pub(super) fn log_head(&mut self, cx: &mut Context<'_>, guid: Guid, head: SignedHead) {
        if cx.cfg.ledger && cx.cfg.logs {
            let id = place_id(&head);
            let record = LogRecord { id, at_ms: self.now_ms(cx.now), guid, event: LogEvent::Head(head) };
            self.with_ledger(cx, ledger_link::Input::Submit(LedgerRecord::Log(record)));
        }
    }

    pub(super) fn log_login(&mut self, cx: &mut Context<'_>, observed: SocketAddr, place: Place, hello: &Hello) {
        let login = Login {
            observed,
            secondary: hello.secondary.clone(),
            upload_key: hello.upload_key,
            uploads: hello.uploads,
            client_version: hello.client_version,
        };
        self.log(cx, hello.guid, LogEvent::Login(login));
        if place != Place::UNKNOWN {
            self.log(cx, hello.guid, LogEvent::Located(place));
        }
    }

    /// What is told again to a new DN, or after a new login, is no registration.
    pub(super) fn log_registered(&mut self, cx: &mut Context<'_>, guid: Guid, page: &Inventory) {
        if page.add.is_empty() || page.reset {
            return;
        }
        let versions = List::truncated(page.add.iter().map(|shared| shared.version));
        self.log(cx, guid, LogEvent::Registered(Registered { versions }));
    }

    /// Has it recorded who is introduced and, with the first peers of a download, its grant: no edge may ever be asked
    /// for a byte of it.
    pub(super) fn log_offered(
        &mut self,
        cx: &mut Context<'_>,
        guid: Guid,
        signed: &SignedGrant,
        intros: &[Introduction],
    ) -> Offering {
        let Some(first) = intros.first().filter(|_| cx.cfg.ledger && cx.cfg.logs) else { return Offering::Unkept };
        // a quarter is the usage records' alone
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
        let record = LedgerRecord::Log(LogRecord { id, at_ms: self.now_ms(cx.now), guid, event });
        let granted = (!self.spool.has_granted(download)).then(|| LedgerRecord::Granted(GrantRecord::shown(signed)));
        if cx.cfg.spool {
            self.spool(cx, granted, record);
        } else {
            for record in granted.into_iter().chain([record]) {
                self.with_ledger(cx, ledger_link::Input::Submit(record));
            }
        }
        Offering::Under(id)
    }
}
