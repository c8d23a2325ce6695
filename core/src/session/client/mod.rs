//! Client's side of the session with a CN: chooses a CN, reports changes to it, and verifies what it sends.

mod invariants;
mod inventory;
pub mod io;
mod queries;
mod usage;

#[cfg(test)]
mod tests;

pub use io::{Config, Input, Output, Want};

use super::backoff::{Backoff, jittered};
use super::wall::Wall;
use crate::accounting::{Trust, introductions};
use crate::ids::{ConnId, DownloadId, Guid};
use crate::limits::NOTICES_PAGE_MAX;
use crate::machine::{Cx, Deadlines, Machine, Time};
use crate::nat::NatDescriptor;
use crate::wire::List;
use crate::wire::control::{
    Blame, Hello, NoticeList, Opened, Outcome, Refusal, ToClient, ToCn, Unreceipted, Update, Welcome,
};
use crate::wire::records::{ServerRole, SignedCheckpoint, SignedRekey};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use inventory::{Inventory, Offer};
use queries::Queries;
use usage::Outbox;

/// Maximum time for which a CN can tell a client not to connect again.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Client's session with one CN at a time. It dials a CN, sends `Hello`, and after `Welcome` the list of shared
/// versions, unacknowledged usage records, and queries of downloads that want peers. When the CN is lost it dials the
/// next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientSession {
    phase: Phase,
    /// Number of CNs that the bootstrap named.
    cns: u32,
    /// Index of the CN to be dialled next.
    next_cn: u32,
    /// Number of CNs that have failed consecutively.
    failed: u32,
    backoff: Backoff,
    /// CNs that refused the client, and when each may be dialled again.
    not_before: BTreeMap<u32, Time>,
    conns: u64,
    incarnation: u64,
    wall: Wall,
    uploads: bool,
    nat: NatDescriptor,
    /// Address and port of this client as the last CN saw them.
    observed: Option<SocketAddr>,
    /// IP address of `observed` if it is, or was, among this host's candidate addresses. If it no longer is, the
    /// connection from it is dead.
    control_local_ip: Option<IpAddr>,
    /// Whether the network path to the CN may be broken, so that a missing answer is not the CN's fault.
    path_in_doubt: bool,
    /// Whether `uploads` or `nat` has changed since the `Hello` of this session.
    outdated: bool,
    /// Whether a CN has refused this version of the client, and none has accepted it since.
    version_refused: bool,
    inventory: Inventory,
    queries: Queries,
    usage: Outbox,
    /// Newest stored checkpoint of the client's log.
    checkpoint: Option<Box<SignedCheckpoint>>,
    /// Change to a new key, sent to each CN until one has answered.
    rekey: Option<Box<SignedRekey>>,
    timers: Deadlines<Timer>,
}

/// Phase of the session, from dialling a CN to the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    /// No CN is known, or the session waits before it dials the next one.
    #[default]
    Down,
    /// A connection is being opened.
    Dialing(Link),
    /// `Hello` was sent; the CN has not answered it yet.
    Greeting(Link),
    /// `Welcome` came: the session is open.
    Open(Link),
    /// The session has ended for good.
    Stopped,
}

/// Connection to a CN, with the CN's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Link {
    conn: ConnId,
    cn: u32,
    /// Interval of pings, set by `Welcome`.
    ping: Duration,
}

/// Purpose of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// Dial the next CN.
    Dial,
    /// Time-out for opening the connection, or for the answer to `Hello`.
    Welcome,
    /// Send the next ping.
    Ping,
    /// Time-out for any message from the CN after a ping.
    Pong,
    /// Disconnect from the CN, which is about to stop.
    Leave,
    /// Send changes to the list of shared versions.
    Inventory,
    /// Query for peers of this download, or stop waiting for the answer to its query.
    Query(DownloadId),
    /// Send usage records again.
    Usage,
}

type Context<'a> = Cx<'a, ClientSession>;

impl ClientSession {
    /// Creates a session that knows no CN yet; it starts with [`Input::Servers`].
    #[must_use]
    pub fn new(uploads: bool) -> Self {
        Self { uploads, ..Self::default() }
    }

    /// Sets the signed checkpoint of the client's log that the client has stored.
    #[must_use]
    pub fn with_checkpoint(self, checkpoint: Option<Box<SignedCheckpoint>>) -> Self {
        Self { checkpoint, ..self }
    }

    /// Returns the Unix clock as set by the CN, or before that by the bootstrap document.
    #[must_use]
    pub const fn wall(&self) -> Wall {
        self.wall
    }

    /// Returns whether the session with a CN is open.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Returns whether a CN has refused this version of the client, and none has accepted it since.
    #[must_use]
    pub const fn is_version_refused(&self) -> bool {
        self.version_refused
    }

    /// Returns the client's source address as the last CN saw it.
    #[must_use]
    pub const fn observed(&self) -> Option<SocketAddr> {
        self.observed
    }

    /// Returns whether the user allows uploads.
    #[must_use]
    pub const fn uploads(&self) -> bool {
        self.uploads
    }

    const fn link(&self) -> Option<Link> {
        match self.phase {
            Phase::Dialing(l) | Phase::Greeting(l) | Phase::Open(l) => Some(l),
            Phase::Down | Phase::Stopped => None,
        }
    }

    /// Sends a message if the session is open.
    fn send(&self, cx: &mut Context<'_>, msg: ToCn) {
        if let Phase::Open(link) = self.phase {
            cx.push(Output::Send { conn: link.conn, msg });
        }
    }

    fn servers(&mut self, cx: &mut Context<'_>, cns: u32, now_ms: u64) {
        if !self.is_open() {
            self.wall = Wall::showing(now_ms, cx.now);
        }
        if cns != self.cns {
            self.cns = cns;
            self.next_cn = 0;
            self.not_before.clear();
        }
        if self.phase == Phase::Down && self.timers.get(Timer::Dial).is_none() {
            self.timers.set(Timer::Dial, Some(cx.now));
        }
    }

    /// Dials the next CN, in order, that has not asked the client to wait, or waits until one may be dialled.
    fn dial(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Down || self.cns == 0 {
            return;
        }
        self.not_before.retain(|_, at| *at > cx.now);
        let in_order = (0..self.cns).map(|i| (self.next_cn % self.cns + i) % self.cns);
        let Some(cn) = in_order.into_iter().find(|cn| !self.not_before.contains_key(cn)) else {
            self.timers.set(Timer::Dial, self.not_before.values().min().copied());
            return;
        };
        let conn = ConnId(ConnId::CONTROL.0 | self.conns);
        self.conns = (self.conns + 1) % ConnId::CONTROL.0;
        self.next_cn = cn;
        debug_assert!(cn < self.cns, "a CN that the bootstrap named is dialled");
        self.phase = Phase::Dialing(Link { conn, cn, ping: Duration::ZERO });
        self.timers.clear(Timer::Dial);
        self.timers.set(Timer::Welcome, Some(cx.now.after(cx.cfg.welcome_within)));
        cx.push(Output::Dial { conn, cn });
    }

    fn opened(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Phase::Dialing(link) = self.phase else { return };
        if link.conn != conn {
            return;
        }
        self.phase = Phase::Greeting(link);
        self.outdated = false;
        self.incarnation += 1;
        let hello = Hello {
            protocol: crate::wire::PROTOCOL,
            guid: cx.cfg.guid,
            secondary: List::truncated(cx.cfg.secondary.iter().copied()),
            incarnation: self.incarnation,
            upload_key: cx.cfg.upload_key,
            uploads: self.uploads,
            nat: self.nat.clone(),
            client_version: cx.cfg.client_version,
            platform: cx.cfg.platform.clone(),
            checkpoint: self.checkpoint.as_deref().cloned(),
        };
        cx.push(Output::Send { conn, msg: ToCn::Hello(hello) });
    }

    fn welcome(&mut self, cx: &mut Context<'_>, link: Link, w: &Welcome) {
        let trust = Trust { root: cx.cfg.root, verify: cx.cfg.verify };
        let believed = trust.check_cert(&w.cert, ServerRole::Cn, w.now_ms).is_ok();
        if !believed || w.protocol != crate::wire::PROTOCOL {
            return self.hang_up(cx);
        }
        let ping = Duration::from_millis(u64::from(w.ping_ms)).clamp(Duration::from_secs(1), RETRY_MAX);
        self.phase = Phase::Open(Link { ping, ..link });
        self.wall = Wall::showing(w.now_ms, cx.now);
        self.observed = Some(w.observed);
        self.failed = 0;
        self.version_refused = false;
        self.backoff.succeeded();
        self.timers.clear(Timer::Welcome);
        self.timers.set(Timer::Ping, Some(cx.now.after(ping)));
        cx.push(Output::Connected);
        if self.outdated {
            self.update(cx);
        }
        self.inventory.connected(w.want_inventory);
        self.tell_inventory(cx);
        self.tell_rekey(cx);
        self.usage.disconnected();
        self.send_usage(cx);
        self.ask_for_all(cx);
    }

    fn tell_rekey(&self, cx: &mut Context<'_>) {
        if let Some(rekey) = &self.rekey {
            self.send(cx, ToCn::Rekeyed((**rekey).clone()));
        }
    }

    /// Returns whether the ledger has acknowledged every usage record that the session was given.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        self.usage.is_empty()
    }

    /// Closes the connection and goes on to the next CN.
    fn hang_up(&mut self, cx: &mut Context<'_>) {
        if let Some(link) = self.link() {
            cx.push(Output::Close { conn: link.conn });
            self.lost(cx, link);
        }
    }

    /// Replaces a broken connection: dials the same CN again, since the CN is not at fault.
    fn dial_again(&mut self, cx: &mut Context<'_>) {
        if let Some(link) = self.link() {
            cx.push(Output::Close { conn: link.conn });
            self.lost(cx, link);
            self.next_cn = link.cn;
            self.failed = 0;
        }
    }

    /// Pings the CN with a short time-out, to find out whether the network path still works.
    fn probe_path(&mut self, cx: &mut Context<'_>) {
        if let Phase::Open(link) = self.phase {
            self.path_in_doubt = true;
            cx.push(Output::Send { conn: link.conn, msg: ToCn::Ping });
            let due = cx.now.after(cx.cfg.probe_within);
            let due = self.timers.get(Timer::Pong).map_or(due, |earlier| earlier.min(due));
            self.timers.set(Timer::Pong, Some(due));
        }
    }

    /// Handles a change of network. A connection from an address that the host no longer has is dead, though no error
    /// reports it.
    fn network(&mut self, cx: &mut Context<'_>, nat: NatDescriptor) {
        let has = |nat: &NatDescriptor, ip: IpAddr| nat.candidates.iter().any(|c| c.addr.ip().to_canonical() == ip);
        let came_from = self.observed.map(|a| a.ip().to_canonical());
        self.control_local_ip = came_from.filter(|ip| has(&self.nat, *ip) || self.control_local_ip == Some(*ip));
        let left = nat.udp && self.control_local_ip.is_some_and(|ip| !has(&nat, ip));
        let news = nat.epoch != self.nat.epoch && nat.udp;
        let before = core::mem::replace(&mut self.nat, nat);
        self.nat.renew(&before.proven);
        if left {
            (self.observed, self.control_local_ip) = (None, None);
            self.dial_again(cx);
        } else {
            self.update(cx);
        }
        if self.phase == Phase::Down && (news || left) && self.timers.get(Timer::Dial).is_some() {
            // earlier attempts may have failed for want of a network; other clients do not dial at this moment
            self.timers.set(Timer::Dial, Some(cx.now));
        }
        if news {
            self.ask_who_found_nobody(cx);
        }
    }

    /// Handles the loss of a connection. An open session soon continues at another CN; a failed attempt is followed by
    /// the next CN at once until each has failed, then by growing delays.
    fn lost(&mut self, cx: &mut Context<'_>, link: Link) {
        let was_open = self.is_open();
        self.phase = Phase::Down;
        self.path_in_doubt = false;
        for t in [Timer::Welcome, Timer::Ping, Timer::Pong, Timer::Leave, Timer::Inventory, Timer::Usage] {
            self.timers.clear(t);
        }
        self.queries.disconnected(&mut self.timers);
        self.usage.disconnected();
        self.next_cn = link.cn.wrapping_add(1) % self.cns.max(1);
        let wait = if was_open {
            cx.push(Output::Disconnected);
            jittered(cx.cfg.backoff.0, cx.rng)
        } else {
            self.failed += 1;
            if self.failed < self.cns {
                Duration::ZERO
            } else {
                self.failed = 0;
                cx.push(Output::NoServers);
                self.backoff.failed(cx.cfg.backoff, cx.rng)
            }
        };
        self.timers.set(Timer::Dial, Some(cx.now.after(wait)));
    }

    fn message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: ToClient) {
        let Some(link) = self.link().filter(|l| l.conn == conn) else { return };
        self.timers.clear(Timer::Pong);
        self.path_in_doubt = false;
        let at_any_time = matches!(msg, ToClient::Busy(_) | ToClient::Refused(_));
        let greeting = matches!(self.phase, Phase::Greeting(_));
        let in_turn = if matches!(msg, ToClient::Welcome(_)) { greeting } else { self.is_open() };
        if !at_any_time && !in_turn {
            return self.hang_up(cx);
        }
        match msg {
            ToClient::Welcome(w) => self.welcome(cx, link, &w),
            ToClient::Busy(r) => {
                let retry = Duration::from_millis(u64::from(r.retry_after_ms)).min(RETRY_MAX);
                self.not_before.insert(link.cn, cx.now.after(retry));
                self.hang_up(cx);
            }
            ToClient::Drain(r) => {
                let retry = Duration::from_millis(u64::from(r.retry_after_ms)).min(RETRY_MAX);
                self.not_before.insert(link.cn, cx.now.after(retry).after(cx.cfg.backoff.0));
                self.timers.set(Timer::Leave, Some(cx.now.after(retry)));
            }
            ToClient::ReaddRequest(r) => {
                let spread = Duration::from_millis(u64::from(r.spread_ms)).min(RETRY_MAX);
                self.readd(cx, spread);
            }
            ToClient::Introductions(i) => self.introductions(cx, i),
            ToClient::QueryFailed(f) => self.query_failed(cx, &f),
            ToClient::Introduce(i) => {
                let trust = Trust { root: cx.cfg.root, verify: cx.cfg.verify };
                let ours = i.intro.intro.uploader_key == cx.cfg.upload_key;
                if ours && self.uploads && introductions::check(&trust, &i.intro, self.wall.at(cx.now)).is_ok() {
                    cx.push(Output::PeerComing(i));
                }
            }
            ToClient::Go(go) => cx.push(Output::Go(go.intro)),
            ToClient::NoticesChanged(list) => cx.push(Output::NoticesChanged(list.notices.into_vec())),
            ToClient::Notice(signed) => cx.push(Output::Notice(Box::new(signed))),
            ToClient::TicketsRefused(refused) => self.on_tickets_refused(cx, &refused.versions),
            ToClient::CheckCopy(check) => cx.push(Output::CheckCopy(check.version)),
            ToClient::UsageAck(a) => self.usage_acked(cx, a),
            ToClient::Rekey => cx.push(Output::RekeyOrdered),
            ToClient::Retired(r) => {
                let new = |rekey: &SignedRekey| Guid::of(&rekey.rekey.new) == r.new;
                if self.rekey.take_if(|rekey| new(rekey)).is_some() {
                    cx.push(Output::Retired);
                }
            }
            ToClient::Ping => self.send(cx, ToCn::Pong),
            ToClient::Pong => {}
            ToClient::Refused(refused) => {
                if refused.why == Refusal::Outdated {
                    // the other CNs ask for the same version, and an update begins a new session
                    self.not_before.insert(link.cn, cx.now.after(RETRY_MAX));
                    self.version_refused = true;
                    cx.push(Output::Outdated);
                }
                self.hang_up(cx);
            }
        }
    }

    /// Sends a change of the upload setting or the NAT descriptor to the CN. A change between `Hello` and `Welcome`
    /// is sent after `Welcome`.
    fn update(&mut self, cx: &mut Context<'_>) {
        self.outdated = !self.is_open();
        self.send(cx, ToCn::Update(Update { uploads: self.uploads, nat: self.nat.clone() }));
    }

    fn stop(&mut self, cx: &mut Context<'_>) {
        if let Some(link) = self.link() {
            cx.push(Output::Close { conn: link.conn });
        }
        self.phase = Phase::Stopped;
        self.timers = Deadlines::default();
    }

    fn due(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Dial => self.dial(cx),
            // with a delay, since all clients of a CN that was only slow would dial it at once
            Timer::Pong if self.path_in_doubt => self.dial_again(cx),
            Timer::Welcome | Timer::Pong | Timer::Leave => self.hang_up(cx),
            Timer::Ping => {
                if let Phase::Open(link) = self.phase {
                    cx.push(Output::Send { conn: link.conn, msg: ToCn::Ping });
                    self.timers.set(Timer::Ping, Some(cx.now.after(link.ping)));
                    if self.timers.get(Timer::Pong).is_none() {
                        self.timers.set(Timer::Pong, Some(cx.now.after(cx.cfg.pong_within)));
                    }
                }
            }
            Timer::Inventory => self.tell_inventory(cx),
            Timer::Query(download) => self.query_due(cx, download),
            Timer::Usage => {
                self.usage.disconnected();
                self.send_usage(cx);
            }
        }
    }
}

impl Machine for ClientSession {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        if self.phase == Phase::Stopped {
            return;
        }
        match input {
            Input::Servers { cns, now_ms } => self.servers(cx, cns, now_ms),
            Input::Opened { conn } => self.opened(cx, conn),
            Input::Closed { conn } => {
                if let Some(link) = self.link().filter(|l| l.conn == conn) {
                    self.lost(cx, link);
                }
            }
            Input::Message { conn, msg } => self.message(cx, conn, msg),
            Input::Uploads(on) if on == self.uploads => {}
            Input::Uploads(on) => {
                self.uploads = on;
                self.update(cx);
            }
            Input::Network(nat) if nat == self.nat => {}
            Input::Network(nat) => self.network(cx, nat),
            Input::Proven(proven) => self.nat.renew(&proven),
            Input::ProbePath => self.probe_path(cx),
            Input::Share { version, complete, ticket } => self.share(cx, version, Some(Offer { complete, ticket })),
            Input::Unshare { version } => self.share(cx, version, None),
            Input::Want(want) => self.want(cx, want),
            Input::Unwant { download } => {
                self.queries.forget(download);
                self.timers.clear(Timer::Query(download));
            }
            Input::NatOpened(intro) => self.send(cx, ToCn::Opened(Opened { intro })),
            Input::Outcome { intro, attempt } => {
                self.send(cx, ToCn::Outcome(Outcome { intro, attempt }));
            }
            Input::Unreceipted { intro, end } => {
                let (owed, receipted) = (end.owed, end.receipted);
                self.send(cx, ToCn::Unreceipted(Unreceipted { intro: *intro, owed, receipted }));
            }
            Input::Blame { intro, piece, block } => self.send(cx, ToCn::Blame(Blame { intro, piece, block })),
            Input::Usage(record) => {
                self.usage.add(record, cx.out);
                self.send_usage(cx);
            }
            Input::Checkpoint(kept) => self.checkpoint = Some(kept),
            Input::NoticesHeld(held) => {
                for page in held.chunks(NOTICES_PAGE_MAX) {
                    let list = NoticeList { notices: List::truncated(page.iter().copied()) };
                    self.send(cx, ToCn::NoticesHeld(list));
                }
            }
            Input::Rekey(rekey) => {
                self.rekey = Some(rekey);
                self.tell_rekey(cx);
            }
            Input::Shutdown => self.stop(cx),
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        // a timer that is set again for this same moment waits for the next call
        let mut due = alloc::vec::Vec::new();
        while let Some(timer) = self.timers.pop_due(cx.now) {
            due.push(timer);
        }
        for timer in due {
            self.due(cx, timer);
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    fn rebase(&mut self, by: Duration) {
        self.timers.rebase(by);
        self.queries.rebase(by);
        self.not_before.values_mut().for_each(|at| *at = at.rebased(by));
    }

    fn check(&self) {
        self.check_phase();
        self.inventory.check(self.is_open(), &self.timers);
        self.queries.check(self.is_open(), &self.timers);
        self.usage.check(self.is_open(), &self.timers);
    }
}
