//! The database node (DN): a soft-state directory of which client holds which version and how it can be reached, and
//! the selection of peers from it.
//!
//! Registrations belong to a CN's connection and end with it. A DN has no signing key. [`Dn`] is the machine,
//! [`Directory`] the index of clients by version and class, and `copies` the detection of copied installations.

mod blames;
mod copies;
mod invariants;

use crate::accounting::Trust;
use crate::accounting::conduct::{Conduct, End, FORGIVEN_AFTER};
use crate::accounting::receipts::CreditRule;
use crate::holdings::Limits;
use crate::ids::{ConnId, DownloadId, PublicKey};
use crate::machine::{Cx, Deadlines, Machine, Time};
use crate::selection::blames::Rules;
use crate::selection::directory::{self, Choice};
use crate::selection::{Blames, Directory, PeerKey};
use crate::session::Wall;
use crate::wire::List;
use crate::wire::directory::{
    Deliver, DirectoryHello, DirectoryWelcome, FromDn, Nobody, PairOutcome, Relay, Route, Select, Selected,
    SelectedPeer, Signal, Signalled, ToDn, Unreceipted, WhyNobody,
};
use crate::wire::records::{ServerCert, ServerRole, Verify};
use alloc::collections::{BTreeMap, BTreeSet};
use copies::Copies;
use core::time::Duration;

/// Maximum number of downloads of which missing receipts are remembered.
const CONDUCT_MAX: usize = 65_536;
/// Largest number of downloads whose offered peers are counted: more than a DN serves in [`OFFERS_WITHIN`].
const OFFERED_MAX: usize = 1 << 20;
/// Usual number of copies for which a DN has room: 2 GiB of memory.
pub const COPIES_MAX: u64 = 4 << 20;
/// Pause between two steps of deleting stale registrations.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);
/// Period in which a download is offered at most [`Config::offers_max`] peers.
pub const OFFERS_WITHIN: Duration = FORGIVEN_AFTER;

/// Event that the shell reports to the DN machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Current time of the wall clock; the first of all inputs, repeated whenever the clock may have been set.
    WallClock {
        /// Time as Unix milliseconds.
        unix_ms: u64,
    },
    /// A server has connected and proven a key in the TLS handshake; its first message shows the CN's certificate.
    CnAccepted {
        /// Number that the shell gave the connection.
        conn: ConnId,
        /// Public key that the server proved.
        key: PublicKey,
    },
    /// A CN's message has arrived.
    Cn {
        /// Connection of the CN.
        conn: ConnId,
        /// Message as decoded by the shell.
        msg: ToDn,
    },
    /// A CN's connection has ended (or its send queue overflowed).
    CnClosed {
        /// Connection that is closed.
        conn: ConnId,
    },
}

impl Input {
    const fn conn(&self) -> Option<ConnId> {
        match self {
            Self::WallClock { .. } => None,
            Self::CnAccepted { conn, .. } | Self::Cn { conn, .. } | Self::CnClosed { conn } => Some(*conn),
        }
    }
}

/// Command of the machine to the shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a message to a CN.
    CnSend {
        /// Connection of the CN.
        conn: ConnId,
        /// Message to be sent.
        msg: FromDn,
    },
    /// Close a CN's connection; no `CnClosed` follows.
    CnClose {
        /// Connection to be closed.
        conn: ConnId,
    },
    /// Add one to a counter of the metrics.
    Count(Metric),
}

/// Counter in the metrics of a DN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Queries for which peers were found.
    Selection,
    /// Queries for which no peer was found.
    NobodyFound,
    /// Introductions forwarded to the uploader's CN.
    Relayed,
    /// Introductions not forwarded because the uploader has left.
    RelayLost,
    /// Introduced pairs that have connected.
    Connected,
    /// Introduced pairs that could not connect.
    NotConnected,
    /// Reports of uploaders that an introduction ended with bytes that no receipt covers.
    Unreceipted,
    /// Queries refused because too many introductions of the download ended without receipts.
    EdgeOnly,
    /// Blames of copies that count.
    Blamed,
    /// Blames that do not count: of a client or network that has voted about the copy before.
    BlameIgnored,
    /// Blamed copies that are offered to nobody from now on.
    Unlisted,
    /// Blamed copies that are offered again since their holders have proven that they have the right bytes.
    Cleared,
    /// Installations of which two copies were found running.
    Cloned,
    /// Connections closed because the server broke the protocol or is no CN.
    Violation,
}

impl Metric {
    /// Returns the counter's name for Prometheus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Selection => "swarmedge_dn_selections_total",
            Self::NobodyFound => "swarmedge_dn_selections_empty_total",
            Self::Relayed => "swarmedge_dn_relayed_total",
            Self::RelayLost => "swarmedge_dn_relay_lost_total",
            Self::Connected => "swarmedge_dn_introductions_connected_total",
            Self::NotConnected => "swarmedge_dn_introductions_failed_total",
            Self::Unreceipted => "swarmedge_dn_introductions_unreceipted_total",
            Self::EdgeOnly => "swarmedge_dn_selections_edge_only_total",
            Self::Blamed => "swarmedge_dn_blames_total",
            Self::BlameIgnored => "swarmedge_dn_blames_ignored_total",
            Self::Unlisted => "swarmedge_dn_copies_unlisted_total",
            Self::Cleared => "swarmedge_dn_copies_cleared_total",
            Self::Cloned => "swarmedge_dn_clones_total",
            Self::Violation => "swarmedge_dn_violations_total",
        }
    }
}

/// Limits, intervals and identity of a DN.
#[derive(Clone, Debug)]
pub struct Config {
    /// The operator's root key.
    pub root: PublicKey,
    /// Function that checks signatures; models use a fake.
    pub verify: Verify,
    /// Certificate of this DN, which carries its name.
    pub cert: ServerCert,
    /// Largest number of CN connections.
    pub cns_max: u32,
    /// Time-out of a connection's first message, `Hello`.
    pub hello_within: Duration,
    /// Silence after which a CN's connection is closed.
    pub idle_after: Duration,
    /// Bounds of the memory for copies, see [`crate::selection::directory::limits`].
    pub copies: Limits,
    /// Parameters of peer selection.
    pub choice: Choice,
    /// Maximum number of peers that one download is offered within [`OFFERS_WITHIN`], over all CNs and sessions: each
    /// peer may send bytes on credit before anybody knows that the download signs no receipts. `None` for no limit.
    pub offers_max: Option<u16>,
    /// Numbers of blames from which consequences follow.
    pub blames: Rules,
}

impl Config {
    /// Returns the limits for production, for this identity.
    #[must_use]
    pub fn new(root: PublicKey, verify: Verify, cert: ServerCert) -> Self {
        Self {
            root,
            verify,
            cert,
            cns_max: 256,
            hello_within: Duration::from_secs(5),
            idle_after: Duration::from_secs(30),
            copies: directory::limits(COPIES_MAX),
            choice: Choice::default(),
            offers_max: Some(256),
            blames: Rules::USUAL,
        }
    }

    /// Returns limits for models: no random draws, and no offers counted.
    #[must_use]
    pub fn tiny(root: PublicKey, verify: Verify, cert: ServerCert) -> Self {
        let choice = Choice { diversity: 0, ..Choice::default() };
        Self { cns_max: 4, choice, offers_max: None, ..Self::new(root, verify, cert) }
    }
}

/// State machine of the DN role. Each connection of a CN that has shown its certificate gets a link number, by which
/// the registrations received over it are found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dn {
    wall: Wall,
    conns: BTreeMap<ConnId, Cn>,
    by_link: BTreeMap<u64, ConnId>,
    links: u64,
    directory: Directory,
    /// Reports of missing receipts, by download; forgotten after a while without new ones.
    conduct: BTreeMap<DownloadId, Conduct>,
    /// Number of peers offered to each download in its current period of [`OFFERS_WITHIN`].
    offered: BTreeMap<DownloadId, u16>,
    copies: Copies,
    /// Votes of downloaders about copies.
    blames: Blames,
    timers: Deadlines<Timer>,
}

/// Connection of a server that is, or claims to be, a CN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Cn {
    /// Public key that the server proved in the TLS handshake.
    key: PublicKey,
    /// Link number of the connection; `None` until the server has shown a CN's certificate for `key`.
    link: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// Close a connection that sent no `Hello` in time, or has been silent too long.
    Silent(ConnId),
    /// Forget a download's reports of missing receipts.
    Forgive(DownloadId),
    /// Begin a new count of the peers offered to a download.
    Offer(DownloadId),
    /// Remove the blames that have expired, and end suspensions.
    Blames,
    /// Do the next batch of delayed work in the directory: forget registrations of closed connections, and update the
    /// lists after a change of a client that shares many versions.
    Sweep,
}

impl Dn {
    /// Returns the directory, for checks and reports.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Returns the number of connected CNs with a valid certificate.
    #[must_use]
    pub fn cns(&self) -> usize {
        self.by_link.len()
    }

    /// Removes a connection. The registrations received over it are void at once, and deleted in batches.
    fn remove_conn(&mut self, conn: ConnId) {
        self.timers.clear(Timer::Silent(conn));
        if let Some(link) = self.conns.remove(&conn).and_then(|c| c.link) {
            let of_link = self.by_link.remove(&link);
            debug_assert!(of_link == Some(conn), "each CN is found by its link");
            self.directory.remove_link(link);
            self.copies.remove_link(link);
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        self.directory.sweep();
        self.copies.sweep();
    }

    /// Schedules the next batch of delayed work in the directory, if any is left.
    fn schedule_sweep(&mut self, now: Time) {
        if (self.directory.is_behind() || self.copies.is_behind()) && self.timers.get(Timer::Sweep).is_none() {
            self.timers.set(Timer::Sweep, Some(now.after(SWEEP_PAUSE)));
        }
    }

    fn close(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId) {
        cx.push(Output::CnClose { conn });
        self.remove_conn(conn);
    }

    fn on_violation(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId) {
        cx.push(Output::Count(Metric::Violation));
        self.close(cx, conn);
    }

    fn on_cn_accepted(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, key: PublicKey) {
        if self.conns.len() >= cx.cfg.cns_max as usize {
            cx.push(Output::CnClose { conn });
            return;
        }
        // the shell never gives a number twice; if it did, the older connection would be the one that has ended
        self.remove_conn(conn);
        self.conns.insert(conn, Cn { key, link: None });
        self.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.hello_within)));
    }

    /// Checks a CN's certificate. An older connection of the same CN is closed, since it can only be half open.
    fn on_hello(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, hello: &DirectoryHello) {
        let trust = Trust { root: cx.cfg.root, verify: cx.cfg.verify };
        let Some(&Cn { key, link: None }) = self.conns.get(&conn) else { return self.on_violation(cx, conn) };
        let certified = trust.check_cert(&hello.cert, ServerRole::Cn, self.wall.at(cx.now)).is_ok();
        if !certified || hello.cert.body.key != key || hello.protocol < crate::wire::PROTOCOL {
            return self.on_violation(cx, conn);
        }
        let older = self.conns.iter().find(|(_, c)| c.key == key && c.link.is_some()).map(|(c, _)| *c);
        if let Some(older) = older {
            self.close(cx, older);
        }
        self.links += 1;
        self.conns.insert(conn, Cn { key, link: Some(self.links) });
        self.by_link.insert(self.links, conn);
        let welcome = DirectoryWelcome { protocol: crate::wire::PROTOCOL, name: cx.cfg.cert.body.name.clone() };
        cx.push(Output::CnSend { conn, msg: FromDn::Welcome(welcome) });
    }

    fn on_message(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, msg: ToDn) {
        let Some(cn) = self.conns.get(&conn) else { return };
        if let ToDn::Hello(hello) = &msg {
            self.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.idle_after)));
            return self.on_hello(cx, conn, hello);
        }
        let Some(link) = cn.link else { return self.on_violation(cx, conn) };
        self.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.idle_after)));
        match msg {
            ToDn::Peer(entry) => self.directory.register(link, entry),
            ToDn::Shares(s) => {
                let key = PeerKey { link, session: s.session };
                self.directory.share_within(&cx.cfg.copies, key, s.reset, &s.add, &s.remove);
            }
            ToDn::Gone(g) => {
                self.directory.remove(PeerKey { link, session: g.session });
                self.copies.remove(PeerKey { link, session: g.session });
            }
            ToDn::Seen(seen) => self.on_seen(cx, link, &seen),
            ToDn::Alive(of) => self.on_alive(cx, PeerKey { link, session: of.session }),
            ToDn::Select(select) => self.on_select(cx, conn, link, &select),
            ToDn::Relay(relay) => self.on_relay(cx, link, relay),
            ToDn::Signal(signal) => self.on_signal(cx, &signal),
            ToDn::Outcome(o) => self.on_outcome(cx, link, &o),
            ToDn::Unreceipted(u) => self.on_unreceipted(cx, &u),
            ToDn::Blame(blamed) => self.on_blame(cx, link, &blamed),
            ToDn::Proven(proven) => self.on_proven(cx, proven),
            ToDn::Ping => cx.push(Output::CnSend { conn, msg: FromDn::Pong }),
            ToDn::Pong => {}
            ToDn::Hello(_) => debug_assert!(false, "a hello is handled above"),
        }
    }

    fn on_select(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, link: u64, select: &Select) {
        if self.conduct.get(&select.download).is_some_and(|c| c.is_edge_only(&CreditRule::PROTOCOL)) {
            cx.push(Output::Count(Metric::EdgeOnly));
            let forgiven = self.timers.get(Timer::Forgive(select.download)).map(|at| at.since(cx.now).as_millis());
            let edge_only_ms = Some(forgiven.and_then(|ms| u32::try_from(ms).ok()).unwrap_or(u32::MAX));
            let selected = Selected { req: select.req, peers: List::default(), edge_only_ms };
            return cx.push(Output::CnSend { conn, msg: FromDn::Selected(selected) });
        }
        let querier = PeerKey { link, session: select.session };
        let exclude: BTreeSet<PublicKey> = select.exclude.iter().copied().collect();
        let want = usize::from(select.want).min(crate::limits::PEERS_PER_ANSWER_MAX);
        let want = want.min(self.offers_left(cx.cfg, select.download));
        let chosen =
            self.directory.select(querier, select.version, (want, &exclude), cx.cfg.choice, cx.rng).unwrap_or_default();
        if chosen.is_empty() {
            cx.push(Output::Count(Metric::NobodyFound));
            let why = if want == 0 {
                WhyNobody::OffersSpent
            } else {
                self.directory.why_nobody(querier, select.version, &exclude)
            };
            return cx.push(Output::CnSend { conn, msg: FromDn::Nobody(Nobody { req: select.req, why }) });
        }
        self.count_offers(cx, select.download, chosen.len());
        cx.push(Output::Count(Metric::Selection));
        let peer = |key: &PeerKey| {
            let entry = self.directory.get(*key)?;
            let route = Route { link: key.link, session: key.session };
            let (upload_key, observed, nat) = (entry.upload_key, entry.observed, entry.nat.clone());
            Some(SelectedPeer { route, upload_key, observed, nat, guid: entry.guid })
        };
        let peers = List::truncated(chosen.iter().filter_map(peer));
        cx.push(Output::CnSend {
            conn,
            msg: FromDn::Selected(Selected { req: select.req, peers, edge_only_ms: None }),
        });
    }

    fn offers_left(&self, cfg: &Config, download: DownloadId) -> usize {
        let given = self.offered.get(&download).copied().unwrap_or(0);
        cfg.offers_max.map_or(usize::MAX, |max| usize::from(max.saturating_sub(given)))
    }

    fn count_offers(&mut self, cx: &Cx<'_, Self>, download: DownloadId, more: usize) {
        let known = self.offered.contains_key(&download);
        if cx.cfg.offers_max.is_none() || more == 0 || !known && self.offered.len() >= OFFERED_MAX {
            return;
        }
        let given = self.offered.entry(download).or_default();
        *given = given.saturating_add(u16::try_from(more).unwrap_or(u16::MAX));
        debug_assert!(
            cx.cfg.offers_max.is_none_or(|max| *given <= max),
            "a download is offered no more than its share"
        );
        if !known {
            self.timers.set(Timer::Offer(download), Some(cx.now.after(OFFERS_WITHIN)));
        }
    }

    /// Notes an uploader's report that an introduction of the download ended without receipts.
    fn on_unreceipted(&mut self, cx: &mut Cx<'_, Self>, report: &Unreceipted) {
        let Unreceipted { download, intro, owed, receipted } = *report;
        if self.conduct.len() >= CONDUCT_MAX && !self.conduct.contains_key(&download) {
            return;
        }
        cx.push(Output::Count(Metric::Unreceipted));
        let conduct = self.conduct.entry(download).or_default();
        let news = conduct.ended(&CreditRule::PROTOCOL, cx.now, intro, End { owed, receipted });
        if news || self.timers.get(Timer::Forgive(download)).is_none() {
            self.timers.set(Timer::Forgive(download), Some(cx.now.after(FORGIVEN_AFTER)));
        }
    }

    /// Returns the connection of the CN at which a registered client has its session; `None` if the client has left.
    fn conn_of(&self, Route { link, session }: Route) -> Option<ConnId> {
        self.directory.get(PeerKey { link, session })?;
        self.by_link.get(&link).copied()
    }

    fn on_relay(&self, cx: &mut Cx<'_, Self>, link: u64, relay: Relay) {
        let Some(conn) = self.conn_of(relay.route) else {
            return cx.push(Output::Count(Metric::RelayLost));
        };
        cx.push(Output::Count(Metric::Relayed));
        let from = Route { link, session: relay.from };
        let deliver = Deliver { session: relay.route.session, from, introduce: relay.introduce };
        cx.push(Output::CnSend { conn, msg: FromDn::Deliver(deliver) });
    }

    /// Forwards a signal between two introduced clients ("opened" or "go") to the other client's CN.
    fn on_signal(&self, cx: &mut Cx<'_, Self>, signal: &Signal) {
        if let Some(conn) = self.conn_of(signal.route) {
            let Signal { route, intro, what } = *signal;
            let signalled = Signalled { session: route.session, intro, what };
            cx.push(Output::CnSend { conn, msg: FromDn::Signalled(signalled) });
        }
    }

    /// Tells the directory how a connection attempt between two registered clients ended.
    fn on_outcome(&mut self, cx: &mut Cx<'_, Self>, link: u64, outcome: &PairOutcome) {
        let uploader = PeerKey { link: outcome.route.link, session: outcome.route.session };
        self.directory.learn(PeerKey { link, session: outcome.session }, uploader, &outcome.attempt);
        let connected = outcome.attempt.failure.is_none();
        cx.push(Output::Count(if connected { Metric::Connected } else { Metric::NotConnected }));
    }
}

impl Machine for Dn {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Cx<'_, Self>, input: Input) {
        let conn = input.conn();
        match input {
            Input::WallClock { unix_ms } => self.wall = Wall::showing(unix_ms, cx.now),
            Input::CnAccepted { conn, key } => self.on_cn_accepted(cx, conn, key),
            Input::Cn { conn, msg } => self.on_message(cx, conn, msg),
            Input::CnClosed { conn } => self.remove_conn(conn),
        }
        self.schedule_sweep(cx.now);
        if let Some(conn) = conn.filter(|_| cfg!(debug_assertions)) {
            self.check_conn(conn);
        }
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, Self>) {
        while let Some(timer) = self.timers.pop_due(cx.now) {
            match timer {
                Timer::Silent(conn) => self.close(cx, conn),
                Timer::Forgive(download) => {
                    self.conduct.remove(&download);
                }
                Timer::Offer(download) => {
                    self.offered.remove(&download);
                }
                Timer::Blames => self.on_blames_timer(cx),
                Timer::Sweep => self.sweep(),
            }
        }
        self.schedule_sweep(cx.now);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    fn rebase(&mut self, by: Duration) {
        self.timers.rebase(by);
        self.conduct.values_mut().for_each(|c| c.rebase(by));
        self.blames.rebase(by);
        self.directory.renumber();
    }

    fn check(&self) {
        self.check_state();
    }
}

#[cfg(test)]
mod tests;
