//! Recovery of soft state: clients, two CNs and a DN on ordered links that break, with CNs and the DN that crash. Once
//! the faults end, the directory lists exactly what clients share.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use swarmedge_core::codec::List;
use swarmedge_core::ids::{ConnId, Guid, PublicKey, SecondaryGuid, Signature, VersionId};
use swarmedge_core::nat::{Candidate, CandidateKind, NatDescriptor};
use swarmedge_core::role::{cn, dn};
use swarmedge_core::session::{ClientSession, client};
use swarmedge_core::wire::Text;
use swarmedge_core::wire::control::{ToClient, ToCn};
use swarmedge_core::wire::directory::{FromDn, ToDn};
use swarmedge_core::wire::records::{CertBody, ServerCert, ServerRole, SigningContext};
use swarmedge_models::bench::Bench;
use swarmedge_models::sim::keys;

const CLIENTS: usize = 3;
const CNS: usize = 2;

fn believe(_: &PublicKey, _: SigningContext, _: &[u8], _: &Signature) -> bool {
    true
}

fn key(n: u32) -> PublicKey {
    PublicKey::numbered(n)
}

fn cert(role: ServerRole, n: u32) -> ServerCert {
    let (name, not_after_ms) = (Text::default(), u64::MAX);
    let body = CertBody { role, name, key: key(n), not_before_ms: 0, not_after_ms };
    ServerCert { body, signature: Signature::numbered(0) }
}

fn client(n: u32) -> Bench<ClientSession> {
    let id = (Guid::of(&key(n)), vec![SecondaryGuid::numbered(n)], key(100 + n));
    let mut b = Bench::new(ClientSession::new(true), client::Config::new(key(0), believe, id.0, id.1, id.2));
    // a DN lists only clients that can be connected to
    let candidate =
        Candidate { kind: CandidateKind::Host, addr: format!("10.0.0.{}:1", n - 9).parse().expect("an address") };
    let candidates = List::truncated([candidate]);
    b.input(client::Input::Network(NatDescriptor { udp: true, candidates, ..NatDescriptor::default() }));
    b.input(client::Input::Servers { cns: u32::try_from(CNS).expect("few"), now_ms: 1 });
    b
}

fn cn(n: u32) -> Bench<cn::Cn> {
    let mut cfg = cn::Config::new(key(0), believe, cert(ServerRole::Cn, n));
    cfg.ledger = false;
    let mut b = Bench::new(cn::Cn::default(), cfg);
    b.input(cn::Input::WallClock { unix_ms: 1 });
    b
}

fn dn() -> Bench<dn::Dn> {
    let mut b = Bench::new(dn::Dn::default(), dn::Config::new(key(0), believe, cert(ServerRole::Dn, 50)));
    b.input(dn::Input::WallClock { unix_ms: 1 });
    b
}

/// Connection with the number that each side has for it, and its messages under way.
struct Link<Up, Down> {
    from: (usize, ConnId),
    to: (usize, ConnId),
    up: VecDeque<Up>,
    down: VecDeque<Down>,
}

struct Net {
    clients: Vec<Bench<ClientSession>>,
    cns: Vec<Bench<cn::Cn>>,
    dn: Bench<dn::Dn>,
    control: Vec<Link<ToCn, ToClient>>,
    directory: Vec<Link<ToDn, FromDn>>,
    conns: u64,
    truth: Vec<BTreeSet<VersionId>>,
}

impl Net {
    fn new() -> Self {
        let few = |n: usize| u32::try_from(n).expect("few");
        let clients = (0..CLIENTS).map(|n| client(10 + few(n))).collect();
        let cns = (0..CNS).map(|n| cn(1 + few(n))).collect();
        let truth = vec![BTreeSet::new(); CLIENTS];
        Self { clients, cns, dn: dn(), control: vec![], directory: vec![], conns: 1 << 63, truth }
    }

    fn client_did(&mut self, n: usize, out: Vec<client::Output>) {
        for o in out {
            match o {
                client::Output::Dial { conn, cn } => {
                    let (cn, theirs) = (cn as usize, self.accept());
                    let link = Link { from: (n, conn), to: (cn, theirs), up: VecDeque::new(), down: VecDeque::new() };
                    self.control.push(link);
                    let from = format!("10.0.0.{}:1", n + 1).parse().expect("an address");
                    let key = key(10 + u32::try_from(n).expect("few"));
                    let out = self.cns[cn].input(cn::Input::ClientAccepted { conn: theirs, key, from });
                    self.cn_did(cn, out);
                    let out = self.clients[n].input(client::Input::Opened { conn });
                    self.client_did(n, out);
                }
                client::Output::Send { conn, msg } => {
                    if let Some(l) = self.control.iter_mut().find(|l| l.from == (n, conn)) {
                        l.up.push_back(msg);
                    }
                }
                client::Output::Close { conn } => {
                    let at = self.control.iter().position(|l| l.from == (n, conn));
                    self.end_control(at, false, true);
                }
                client::Output::Connected
                | client::Output::Disconnected
                | client::Output::NoServers
                | client::Output::Introduced { .. }
                | client::Output::Regrant { .. }
                | client::Output::NoPeers { .. }
                | client::Output::PeersForbidden { .. }
                | client::Output::PeerComing(_)
                | client::Output::Checkpoint(_)
                | client::Output::RekeyOrdered
                | client::Output::Retired
                | client::Output::Go(_)
                | client::Output::TicketsRefused(_)
                | client::Output::Outdated
                | client::Output::NoticesChanged(_)
                | client::Output::Notice(_)
                | client::Output::CheckCopy(_)
                | client::Output::UsageDone { .. } => {}
            }
        }
    }

    fn cn_did(&mut self, n: usize, out: Vec<cn::Output>) {
        for o in out {
            match o {
                cn::Output::ClientSend { conn, msg } => {
                    if let Some(l) = self.control.iter_mut().find(|l| l.to == (n, conn)) {
                        l.down.push_back(msg);
                    }
                }
                cn::Output::ClientClose { conn } => {
                    let at = self.control.iter().position(|l| l.to == (n, conn));
                    self.end_control(at, true, false);
                }
                cn::Output::DirectoryDial { conn, .. } => {
                    let theirs = self.accept();
                    let link = Link { from: (n, conn), to: (0, theirs), up: VecDeque::new(), down: VecDeque::new() };
                    self.directory.push(link);
                    let key = key(1 + u32::try_from(n).expect("few"));
                    let out = self.dn.input(dn::Input::CnAccepted { conn: theirs, key });
                    self.dn_did(out);
                    let out = self.cns[n].input(cn::Input::DirectoryOpened { conn });
                    self.cn_did(n, out);
                }
                cn::Output::DirectorySend { conn, msg } => {
                    if let Some(l) = self.directory.iter_mut().find(|l| l.from == (n, conn)) {
                        l.up.push_back(msg);
                    }
                }
                cn::Output::DirectoryClose { conn } => {
                    let at = self.directory.iter().position(|l| l.from == (n, conn));
                    self.end_directory(at, false, true);
                }
                cn::Output::LedgerDial { .. }
                | cn::Output::LedgerSend { .. }
                | cn::Output::LedgerClose { .. }
                | cn::Output::OpenGrant { .. }
                | cn::Output::Locate { .. }
                | cn::Output::Save { .. }
                | cn::Output::Sign { .. }
                | cn::Output::Count(_)
                | cn::Output::Stopped => {}
            }
        }
    }

    fn dn_did(&mut self, out: Vec<dn::Output>) {
        for o in out {
            match o {
                dn::Output::CnSend { conn, msg } => {
                    if let Some(l) = self.directory.iter_mut().find(|l| l.to.1 == conn) {
                        l.down.push_back(msg);
                    }
                }
                dn::Output::CnClose { conn } => {
                    let at = self.directory.iter().position(|l| l.to.1 == conn);
                    self.end_directory(at, true, false);
                }
                dn::Output::Count(_) => {}
            }
        }
    }

    fn accept(&mut self) -> ConnId {
        self.conns += 1;
        ConnId(self.conns)
    }

    /// Ends a control connection; messages under way are lost.
    fn end_control(&mut self, at: Option<usize>, tell_client: bool, tell_cn: bool) {
        let Some(l) = at.map(|i| self.control.remove(i)) else { return };
        if tell_client {
            let out = self.clients[l.from.0].input(client::Input::Closed { conn: l.from.1 });
            self.client_did(l.from.0, out);
        }
        if tell_cn {
            let out = self.cns[l.to.0].input(cn::Input::ClientClosed { conn: l.to.1 });
            self.cn_did(l.to.0, out);
        }
    }

    fn end_directory(&mut self, at: Option<usize>, tell_cn: bool, tell_dn: bool) {
        let Some(l) = at.map(|i| self.directory.remove(i)) else { return };
        if tell_cn {
            let out = self.cns[l.from.0].input(cn::Input::DirectoryClosed { conn: l.from.1 });
            self.cn_did(l.from.0, out);
        }
        if tell_dn {
            let out = self.dn.input(dn::Input::CnClosed { conn: l.to.1 });
            self.dn_did(out);
        }
    }

    /// Delivers the next message of a non-empty queue; returns false if all are empty.
    fn deliver(&mut self, pick: usize) -> bool {
        let queues = 2 * (self.control.len() + self.directory.len());
        for i in (0..queues).map(|i| (pick + i) % queues.max(1)) {
            let (l, up) = (i / 2, i % 2 == 0);
            if let Some(link) = self.control.get_mut(l) {
                let (from, to) = (link.from, link.to);
                if up {
                    let Some(msg) = link.up.pop_front() else { continue };
                    let out = self.cns[to.0].input(cn::Input::Client { conn: to.1, msg });
                    self.cn_did(to.0, out);
                } else {
                    let Some(msg) = link.down.pop_front() else { continue };
                    let out = self.clients[from.0].input(client::Input::Message { conn: from.1, msg });
                    self.client_did(from.0, out);
                }
                return true;
            }
            let Some(link) = self.directory.get_mut(l - self.control.len()) else { continue };
            let (from, to) = (link.from, link.to);
            if up {
                let Some(msg) = link.up.pop_front() else { continue };
                let out = self.dn.input(dn::Input::Cn { conn: to.1, msg });
                self.dn_did(out);
            } else {
                let Some(msg) = link.down.pop_front() else { continue };
                let out = self.cns[from.0].input(cn::Input::Directory { conn: from.1, msg });
                self.cn_did(from.0, out);
            }
            return true;
        }
        false
    }

    fn wait(&mut self, by: Duration) {
        for n in 0..CLIENTS {
            let out = self.clients[n].wait(by);
            self.client_did(n, out);
        }
        for n in 0..CNS {
            let out = self.cns[n].wait(by);
            self.cn_did(n, out);
        }
        let out = self.dn.wait(by);
        self.dn_did(out);
    }

    fn share(&mut self, n: usize, version: u32, on: bool) {
        let version = VersionId::numbered(version);
        let input = if on {
            self.truth[n].insert(version);
            let ticket = keys::ticket(&key(10 + u32::try_from(n).expect("few")), version);
            client::Input::Share { version, complete: true, ticket }
        } else {
            self.truth[n].remove(&version);
            client::Input::Unshare { version }
        };
        let out = self.clients[n].input(input);
        self.client_did(n, out);
    }

    fn crash_cn(&mut self, n: usize) {
        while let Some(at) = self.control.iter().position(|l| l.to.0 == n) {
            self.end_control(Some(at), true, false);
        }
        while let Some(at) = self.directory.iter().position(|l| l.from.0 == n) {
            self.end_directory(Some(at), false, true);
        }
        let now = self.cns[n].now;
        self.cns[n] = cn(1 + u32::try_from(n).expect("few"));
        self.cns[n].now = now;
    }

    fn crash_dn(&mut self) {
        let now = self.dn.now;
        self.dn = dn();
        self.dn.now = now;
        while !self.directory.is_empty() {
            self.end_directory(Some(0), true, false);
        }
    }

    fn step(&mut self, (op, a, b): (u8, usize, u32)) {
        match op {
            0..=4 => drop(self.deliver(a)),
            5 => self.share(a % CLIENTS, b % 4, b.is_multiple_of(2)),
            6 => self.wait(Duration::from_millis(u64::from(b % 3_000))),
            7 => self.end_control((!self.control.is_empty()).then(|| a % self.control.len()), true, true),
            8 => self.end_directory((!self.directory.is_empty()).then(|| a % self.directory.len()), true, true),
            9 => self.crash_cn(a % CNS),
            _ => self.crash_dn(),
        }
    }

    /// Returns the listed clients of a version, by upload key, and how often each is listed.
    fn listed(&self, version: VersionId) -> BTreeMap<PublicKey, usize> {
        let directory = self.dn.machine.directory();
        let mut all = BTreeMap::new();
        for key in directory.listed(version).filter_map(|k| directory.get(k)).map(|e| e.upload_key) {
            *all.entry(key).or_default() += 1;
        }
        all
    }
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(192))]

    #[test]
    fn after_faults_the_directory_lists_what_clients_share(
        steps in prop::collection::vec((0..11_u8, 0..64_usize, 0..4_096_u32), 0..160)
    ) {
        let mut net = Net::new();
        steps.into_iter().for_each(|s| net.step(s));
        for _ in 0..60 {
            net.wait(Duration::from_millis(500));
            while net.deliver(0) {}
        }
        for version in (0..4).map(VersionId::numbered) {
            let sharing = |n: &usize| net.truth[*n].contains(&version);
            let expected: BTreeMap<PublicKey, usize> =
                (0..CLIENTS).filter(sharing).map(|n| (key(110 + u32::try_from(n).expect("few")), 1)).collect();
            prop_assert_eq!(net.listed(version), expected);
        }
    }
}

#[test]
fn without_faults_every_client_has_a_session_and_is_registered_once() {
    let mut net = Net::new();
    for _ in 0..4 {
        net.wait(Duration::from_millis(500));
        while net.deliver(0) {}
    }
    assert!(net.clients.iter().all(|c| c.machine.is_open()));
    assert_eq!((net.dn.machine.cns(), net.dn.machine.directory().len()), (CNS, CLIENTS));
}
