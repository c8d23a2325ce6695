//! The uploading side: checks introductions of connecting peers, decides on their requests, and limits what is sent
//! without receipt.

mod invariants;
pub mod io;
mod serve;
#[cfg(test)]
mod tests;

pub use io::{Config, Input, Output};

use crate::accounting::conduct::End;
use crate::accounting::introductions;
use crate::accounting::receipts::{self, Account};
use crate::content::{Bitfield, Layout, Policy};
use crate::ids::{ConnId, IntroId, PieceIndex, PublicKey, VersionId, XferId};
use crate::limits::{BLOCK_LEN, HAVE_PAGE_MAX};
use crate::session::Wall;
use crate::swarm::outcome::CloseReason;
use crate::wire::peer::{Have, HaveMap, PeerHello, PeerMsg, PeerWelcome, PieceRequest, RefuseCode};
use crate::wire::records::{Introduction, SignedIntroduction, SignedReceipt};
use crate::wire::{Blob, List, PROTOCOL};
use crate::{Cx, Deadlines, Machine, Time};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

/// Maximum number of introductions whose counts of sent and receipted bytes are kept after their connection has
/// ended.
const SPENT_MAX: usize = 4096;

/// A version that this client shares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Share {
    layout: Layout,
    have: Bitfield,
    policy: Policy,
    /// Bytes of this version sent or promised, which the provider's policy limits.
    spent: u64,
    /// Whether the rest of the policy's limit is too small: a request was refused for it, or any would be.
    used_up: bool,
}

impl Share {
    /// Returns the number of bytes that the provider's policy lets this client send of the version.
    fn cap(&self) -> u64 {
        match self.policy.uploads_max {
            0 => u64::MAX,
            n => self.layout.size().saturating_mul(u64::from(n)),
        }
    }

    /// Counts bytes as sent or promised; returns whether that leaves too few for any further request.
    fn spend(&mut self, bytes: u64) -> bool {
        self.spent = self.spent.saturating_add(bytes);
        self.cap().saturating_sub(self.spent) < u64::from(BLOCK_LEN).min(self.layout.size())
    }
}

/// State of one peer connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Conn {
    /// The peer has proven a key; its introduction is awaited.
    Waiting { key: PublicKey },
    /// The peer has shown a valid introduction.
    Serving {
        intro: Introduction,
        /// Number of requests being served.
        active: u16,
        /// Requests that wait for a receipt, oldest first.
        held: VecDeque<(XferId, PieceRequest)>,
    },
}

impl Conn {
    fn is_of(&self, id: IntroId) -> bool {
        matches!(self, Self::Serving { intro, .. } if intro.id == id)
    }
}

/// A request being served. The request outlives its connection, because its end is still reported.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Active {
    conn: ConnId,
    intro: Introduction,
    /// Bytes promised to the downloader.
    bytes: u64,
    /// Whether the shell was ordered to stop.
    stopping: bool,
}

/// The uploading side. Invariants: while uploads are off there are no connections and no requests. Each serving
/// connection has shown an introduction that names both keys, is signed by a certified CN, and was valid at the time.
/// Bytes promised stay within the introduction's cap and the provider's cap; bytes without receipt stay within
/// [`CreditRule`](crate::accounting::receipts::CreditRule).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Uploads {
    allowed: bool,
    wall: Option<Wall>,
    shares: BTreeMap<VersionId, Share>,
    conns: BTreeMap<ConnId, Conn>,
    active: BTreeMap<XferId, Active>,
    accounts: BTreeMap<IntroId, Spending>,
    hello_due: Deadlines<ConnId>,
    /// Deadlines of connections whose requests wait for a receipt.
    receipt_due: Deadlines<ConnId>,
}

/// Counts of the bytes sent over one introduction and of those that receipts cover.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Spending {
    account: Account,
    /// The signed introduction, as the downloader has shown it.
    shown: Box<SignedIntroduction>,
    /// Bytes without receipt that were last reported to the CN.
    reported: u64,
}

type Context<'a> = Cx<'a, Uploads>;

impl Uploads {
    /// Creates the uploading side without shared versions. `allowed`: the user allows uploads.
    #[must_use]
    pub fn new(allowed: bool) -> Self {
        Self { allowed, ..Self::default() }
    }

    /// Returns whether the user allows uploads.
    #[must_use]
    pub const fn allowed(&self) -> bool {
        self.allowed
    }

    /// Returns whether a version may be offered to further downloaders: it is shared, and its policy's limit of uploads
    /// is not reached.
    #[must_use]
    pub fn offers(&self, version: &VersionId) -> bool {
        self.shares.get(version).is_some_and(|share| !share.used_up)
    }

    /// Returns whether a version is shared.
    #[must_use]
    pub fn shares(&self, version: &VersionId) -> bool {
        self.shares.contains_key(version)
    }

    /// Returns the number of open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Returns whether `conn` is one of the uploading side's connections.
    #[must_use]
    pub fn knows(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn)
    }

    /// Returns the introduction that a connection has shown, once it was found valid.
    #[must_use]
    pub fn introduced(&self, conn: ConnId) -> Option<IntroId> {
        match self.conns.get(&conn)? {
            Conn::Serving { intro, .. } => Some(intro.id),
            Conn::Waiting { .. } => None,
        }
    }

    /// Returns the requests being served, except those ordered to stop.
    pub fn serving(&self) -> impl Iterator<Item = (XferId, &Introduction)> + '_ {
        self.active.iter().filter(|(_, a)| !a.stopping).map(|(x, a)| (*x, &a.intro))
    }

    fn on_accepted(&mut self, cx: &mut Context<'_>, conn: ConnId, key: PublicKey) {
        if !self.allowed {
            cx.push(Output::Close { conn, why: CloseReason::UploadsOff });
        } else if self.conns.len() >= cx.cfg.connections_max {
            cx.push(Output::Close { conn, why: CloseReason::Full });
        } else {
            self.conns.insert(conn, Conn::Waiting { key });
            self.hello_due.set(conn, Some(cx.now.after(cx.cfg.hello_within)));
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: PeerMsg) {
        match (self.conns.get(&conn), msg) {
            (None, _) => {}
            (Some(Conn::Waiting { key }), PeerMsg::Hello(hello)) => {
                let key = *key;
                self.on_hello(cx, conn, key, &hello);
            }
            (Some(_), PeerMsg::GoingAway) => self.close(cx, conn, CloseReason::Done),
            (Some(Conn::Serving { .. }), PeerMsg::Receipt(receipt)) => self.on_receipt(cx, conn, &receipt),
            (Some(_), _) => self.close(cx, conn, CloseReason::Violation),
        }
    }

    /// Checks the introduction against the peer's proven key, this client's own key, the CN's signature and the time.
    fn on_hello(&mut self, cx: &mut Context<'_>, conn: ConnId, key: PublicKey, hello: &PeerHello) {
        let intro = &hello.intro.intro;
        let in_time = |wall: Wall| introductions::check(&cx.cfg.trust, &hello.intro, wall.at(cx.now)).is_ok();
        let introduced =
            intro.downloader_key == key && intro.uploader_key == cx.cfg.upload_key && self.wall.is_some_and(in_time);
        if hello.protocol < PROTOCOL || !introduced {
            return self.close(cx, conn, CloseReason::NotIntroduced);
        }
        let Some(share) = self.shares.get(&intro.version) else {
            return self.close(cx, conn, CloseReason::Done);
        };
        // a downloader that lost its connection may connect again: its newest connection replaces the older one
        let older = self.conns.iter().find(|(_, c)| matches!(c, Conn::Serving { intro: i, .. } if i.id == intro.id));
        let older = older.map(|(older, _)| *older);
        let welcome = PeerWelcome { protocol: PROTOCOL, requests_max: cx.cfg.requests_max };
        cx.push(Output::Send { conn, msg: PeerMsg::Welcome(welcome) });
        for page in have_map(&share.have) {
            cx.push(Output::Send { conn, msg: PeerMsg::HaveMap(page) });
        }
        if let Some(older) = older {
            self.close(cx, older, CloseReason::Done);
        }
        self.hello_due.clear(conn);
        let now_ms = self.wall.map_or(0, |wall| wall.at(cx.now));
        let conns = &self.conns;
        let may_connect = |s: &Spending| s.shown.intro.connect_before_ms > now_ms;
        self.accounts.retain(|id, s| may_connect(s) || conns.values().any(|c| c.is_of(*id)));
        self.accounts.entry(intro.id).or_insert_with(|| Spending {
            account: Account::default(),
            shown: Box::new(hello.intro.clone()),
            reported: 0,
        });
        self.conns.insert(conn, Conn::Serving { intro: intro.clone(), active: 0, held: VecDeque::new() });
    }

    /// Handles a receipt. Accepts it only if it names this introduction, is signed with the introduction's downloader
    /// key, is newer than the last receipt, and covers no more bytes than were promised. Otherwise closes the
    /// connection.
    fn on_receipt(&mut self, cx: &mut Context<'_>, conn: ConnId, signed: &SignedReceipt) {
        let Some(Conn::Serving { intro, .. }) = self.conns.get(&conn) else { return };
        let Some(Spending { account, .. }) = self.accounts.get_mut(&intro.id) else { return };
        match receipts::check(cx.cfg.trust.verify, intro, account.taken, account.promised, signed) {
            Ok(proof) => {
                account.taken = (proof.seq, proof.bytes);
                let (download, version) = (intro.download, intro.version);
                let (intro, key) = (intro.id, intro.downloader_key);
                cx.push(Output::Receipted { download, version, intro, key, proof });
            }
            Err(_) => self.close(cx, conn, CloseReason::Violation),
        }
    }

    /// Raises the number of bytes that may be sent, after a receipt has become durable, and serves waiting requests
    /// within it.
    fn on_receipt_saved(&mut self, cx: &mut Context<'_>, intro: IntroId, bytes: u64) {
        let Some(Spending { account, .. }) = self.accounts.get_mut(&intro) else { return };
        account.kept = account.kept.max(bytes);
        let conn = self.conns.iter().find(|(_, c)| c.is_of(intro)).map(|(conn, _)| *conn);
        if let Some(conn) = conn {
            self.receipt_due.clear(conn);
            self.serve_held(cx, conn);
        }
    }

    fn on_piece_added(&mut self, cx: &mut Context<'_>, version: VersionId, piece: PieceIndex) {
        let Some(share) = self.shares.get_mut(&version) else { return };
        if !share.have.insert(piece) {
            return;
        }
        for (conn, state) in &self.conns {
            if matches!(state, Conn::Serving { intro, .. } if intro.version == version) {
                let msg = PeerMsg::Have(Have { pieces: List::truncated([piece]) });
                cx.push(Output::Send { conn: *conn, msg });
            }
        }
    }

    /// Closes a connection and stops serving its requests.
    fn close(&mut self, cx: &mut Context<'_>, conn: ConnId, why: CloseReason) {
        if !self.conns.contains_key(&conn) {
            return;
        }
        let affected: Vec<_> = self.active.iter().filter(|(_, a)| a.conn == conn).map(|(x, _)| *x).collect();
        for xfer in affected {
            self.stop(cx, xfer);
        }
        if let Some(Conn::Serving { held, .. }) = self.conns.get_mut(&conn) {
            let waiting = core::mem::take(held);
            waiting.into_iter().for_each(|(xfer, _)| cx.push(Output::Refuse { xfer, why: RefuseCode::NotAllowed }));
        }
        self.on_closed(cx, conn);
        cx.push(Output::Close { conn, why });
    }

    /// Removes a connection that has ended. Its last bytes are reported when its last request ends.
    fn on_closed(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        self.hello_due.clear(conn);
        self.receipt_due.clear(conn);
        let Some(Conn::Serving { intro, active, .. }) = self.conns.remove(&conn) else { return };
        if active == 0 {
            cx.push(serve::sent(&intro, 0, true));
            self.report_end(cx, intro.id);
        }
        if self.accounts.len() > SPENT_MAX && !self.conns.values().any(|c| c.is_of(intro.id)) {
            self.accounts.remove(&intro.id);
        }
    }

    /// Reports an introduction's bytes without receipt to the CN, if their number has changed since the last report.
    /// Does nothing while the downloader has another connection under the same introduction.
    fn report_end(&mut self, cx: &mut Context<'_>, intro: IntroId) {
        if self.conns.values().any(|c| c.is_of(intro)) {
            return;
        }
        let Some(Spending { account, shown, reported }) = self.accounts.get_mut(&intro) else { return };
        let end = End { owed: account.unreceipted(), receipted: account.taken.1 };
        if end.owed != core::mem::replace(reported, end.owed) {
            cx.push(Output::Ended { intro: shown.clone(), end });
        }
    }

    fn close_all(&mut self, cx: &mut Context<'_>, why: CloseReason, which: impl Fn(&Conn) -> bool) {
        let closing: Vec<_> = self.conns.iter().filter(|(_, c)| which(c)).map(|(id, _)| *id).collect();
        for conn in closing {
            self.close(cx, conn, why);
        }
    }

    fn on_input(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Allow(on) => {
                self.allowed = on;
                if !on {
                    self.close_all(cx, CloseReason::UploadsOff, |_| true);
                }
            }
            Input::Wall(wall) => self.wall = Some(wall),
            Input::Share { version, layout, have, policy, spent } => {
                let spent = self.shares.get(&version).map_or(spent, |old| old.spent.max(spent));
                let mut share = Share { layout, have, policy, spent, used_up: false };
                share.used_up = share.spend(0);
                self.shares.insert(version, share);
            }
            Input::Have { version, piece } => self.on_piece_added(cx, version, piece),
            Input::Unshare { version } => {
                self.shares.remove(&version);
                let affected = |c: &Conn| matches!(c, Conn::Serving { intro, .. } if intro.version == version);
                self.close_all(cx, CloseReason::Done, affected);
            }
            Input::Accepted { conn, key } => self.on_accepted(cx, conn, key),
            Input::Closed { conn } => self.on_closed(cx, conn),
            Input::Message { conn, msg } => self.on_message(cx, conn, msg),
            Input::Request { conn, xfer, request } => self.on_request(cx, conn, xfer, &request),
            Input::ReceiptKept { intro, bytes } => self.on_receipt_saved(cx, intro, bytes),
            Input::Served { xfer, bytes } => self.on_served(cx, xfer, bytes),
        }
    }
}

/// Splits a bitfield into the pages of a have-map.
fn have_map(have: &Bitfield) -> Vec<HaveMap> {
    let page = |first: u32, bytes: &[u8], last| HaveMap {
        first: PieceIndex(first),
        bits: Blob::new(bytes.to_vec()).unwrap_or_default(),
        last,
    };
    let bytes = have.as_bytes();
    if bytes.is_empty() {
        return alloc::vec![page(0, &[], true)];
    }
    let pages = bytes.chunks(HAVE_PAGE_MAX);
    let count = pages.len();
    let bits_a_page = u32::try_from(HAVE_PAGE_MAX * 8).unwrap_or(u32::MAX);
    (0_u32..).zip(pages).map(|(i, b)| page(i * bits_a_page, b, i as usize + 1 == count)).collect()
}

impl Machine for Uploads {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        let conn = self.conn_of(&input);
        self.on_input(cx, input);
        if cfg!(debug_assertions) {
            conn.into_iter().for_each(|conn| self.check_conn(conn));
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        while let Some(conn) = self.hello_due.pop_due(cx.now) {
            self.close(cx, conn, CloseReason::NotIntroduced);
        }
        while let Some(conn) = self.receipt_due.pop_due(cx.now) {
            self.close(cx, conn, CloseReason::Stalled);
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        [self.hello_due.next(), self.receipt_due.next()].into_iter().flatten().min()
    }

    fn rebase(&mut self, by: Duration) {
        self.hello_due.rebase(by);
        self.receipt_due.rebase(by);
    }

    fn check(&self) {
        self.check_all();
    }
}
