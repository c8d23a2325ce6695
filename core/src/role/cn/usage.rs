//! What clients say of bytes. That an uploader was left without receipts goes to the DNs, which choose peers. Usage
//! records go to the ledger, and the acknowledgement back once they are durable there. A record that does not fit is
//! set aside unacknowledged, so its client keeps it and sends it again.

use super::clients::Client;
use super::{Cn, Context, Metric, Output};
use crate::accounting::introductions;
use crate::ids::{ConnId, RecordId};
use crate::machine::Machine as _;
use crate::session::{LedgerLink, ledger_link};
use crate::wire::List;
use crate::wire::control::{ControlMsg, Unreceipted, UsageAck};
use crate::wire::directory::{self, DirectoryMsg};
use crate::wire::records::{LedgerRecord, Logged};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

impl Cn {
    /// An uploader was left without receipts. Only the one that the introduction names may say so.
    pub(super) fn unreceipted(&self, cx: &mut Context<'_>, conn: ConnId, told: &Unreceipted) {
        let i = &told.intro.intro;
        let named = self.clients.get(&conn).and_then(Client::session).is_some_and(|s| s.upload_key == i.uploader_key);
        if named && introductions::check_signed(&Self::trust(cx), &told.intro, self.now_ms(cx.now)).is_ok() {
            let (owed, receipted) = (told.owed, told.receipted);
            let told = directory::Unreceipted { download: i.download, intro: i.id, owed, receipted };
            self.tell_dns(cx, &DirectoryMsg::Unreceipted(told));
        }
    }

    pub(super) fn usage_from(&mut self, cx: &mut Context<'_>, conn: ConnId, logged: Logged) {
        let Logged { record, head } = logged;
        cx.push(Output::Count(Metric::UsageReceived));
        let id = record.id;
        let on_its_way = self.ledger.holds(id);
        if !on_its_way && self.ledger.waiting() >= cx.cfg.usage_max as usize {
            return cx.push(Output::Count(Metric::UsageDeferred));
        }
        self.usage.insert(id, conn);
        if !on_its_way {
            self.log_head(cx, record.reporter, head);
            self.with_ledger(cx, ledger_link::Input::Submit(LedgerRecord::Usage(record)));
        }
    }

    fn link_config(cx: &Context<'_>) -> ledger_link::Config {
        ledger_link::Config::new(cx.cfg.cert.clone(), cx.cfg.backoff)
    }

    pub(super) fn with_ledger(&mut self, cx: &mut Context<'_>, input: ledger_link::Input) {
        let cfg = Self::link_config(cx);
        let ledger = &mut self.ledger;
        let outputs = cx.child::<LedgerLink>(&cfg, |cx| ledger.handle_input(cx, input));
        self.ledger_did(cx, outputs);
    }

    pub(super) fn ledger_due(&mut self, cx: &mut Context<'_>) {
        let cfg = Self::link_config(cx);
        let ledger = &mut self.ledger;
        let outputs = cx.child::<LedgerLink>(&cfg, |cx| ledger.handle_timeout(cx));
        self.ledger_did(cx, outputs);
    }

    fn ledger_did(&mut self, cx: &mut Context<'_>, outputs: Vec<ledger_link::Output>) {
        for output in outputs {
            match output {
                ledger_link::Output::Dial(conn) => cx.push(Output::LedgerDial { conn }),
                ledger_link::Output::Send(conn, msg) => cx.push(Output::LedgerSend { conn, msg }),
                ledger_link::Output::Close(conn) => cx.push(Output::LedgerClose { conn }),
                ledger_link::Output::Acked(ids) => self.durable(cx, ids),
            }
        }
    }

    fn durable(&mut self, cx: &mut Context<'_>, ids: Vec<RecordId>) {
        let mut by_conn: BTreeMap<ConnId, Vec<RecordId>> = BTreeMap::new();
        for id in ids {
            cx.push(Output::Count(Metric::UsageStored));
            self.recorded(cx, id);
            if let Some(conn) = self.usage.remove(&id).filter(|c| self.clients.contains_key(c)) {
                by_conn.entry(conn).or_default().push(id);
            }
        }
        for (conn, ids) in by_conn {
            for page in ids.chunks(List::<RecordId, 256>::MAX) {
                let ids = List::truncated(page.iter().copied());
                cx.push(Output::ClientSend { conn, msg: ControlMsg::UsageAck(UsageAck { ids }) });
            }
        }
    }
}
