//! Records that count exactly once: a server's link and the ledger over a connection that breaks, a ledger that
//! crashes, a store that refuses. Acknowledged means stored; once the faults end, all is stored and acknowledged.

use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use swarmedge_core::ids::{ConnId, ProviderId, PublicKey, RecordId, ReqId, Signature, VersionId};
use swarmedge_core::role::ledger::{self, Ledger};
use swarmedge_core::session::{LedgerLink, ledger_link};
use swarmedge_core::wire::Text;
use swarmedge_core::wire::ledger::{FromLedger, ToLedger};
use swarmedge_core::wire::records::{CertBody, EdgeRecord, LedgerRecord, ServerCert, ServerRole, SigningContext};
use swarmedge_models::bench::Bench;

const KEY: PublicKey = PublicKey([1; 32]);

fn believe(_: &PublicKey, _: SigningContext, _: &[u8], _: &Signature) -> bool {
    true
}

fn record(n: u32) -> LedgerRecord {
    LedgerRecord::Edge(EdgeRecord {
        id: RecordId::numbered(n),
        edge: KEY,
        download: None,
        guid: None,
        version: VersionId::numbered(1),
        provider: ProviderId(1),
        seq: n,
        unique_bytes: 0,
        total_bytes: 1,
    })
}

fn new_ledger() -> Bench<Ledger> {
    let mut b = Bench::new(Ledger::default(), ledger::Config::new(PublicKey::numbered(0), believe));
    b.input(ledger::Input::WallClock { unix_ms: 1 });
    b
}

struct Net {
    link: Bench<LedgerLink>,
    ledger: Bench<Ledger>,
    /// Connection with the numbers of the link and of the ledger; `None` if there is none.
    conn: Option<(ConnId, ConnId)>,
    conns: u64,
    up: VecDeque<ToLedger>,
    down: VecDeque<FromLedger>,
    storing: VecDeque<(ReqId, Vec<LedgerRecord>)>,
    stored: BTreeSet<RecordId>,
    acked: Vec<RecordId>,
    submitted: u32,
}

impl Net {
    fn new() -> Self {
        let body = CertBody {
            role: ServerRole::Edge,
            name: Text::default(),
            key: KEY,
            not_before_ms: 0,
            not_after_ms: u64::MAX,
        };
        let cert = ServerCert { body, signature: Signature::numbered(0) };
        let backoff = (Duration::from_millis(200), Duration::from_secs(2));
        let mut link = Bench::new(LedgerLink::default(), ledger_link::Config::new(cert, backoff));
        link.cfg.window = 3;
        link.input(ledger_link::Input::Start);
        Self {
            link,
            ledger: new_ledger(),
            conn: None,
            conns: 1 << 63,
            up: VecDeque::new(),
            down: VecDeque::new(),
            storing: VecDeque::new(),
            stored: BTreeSet::new(),
            acked: vec![],
            submitted: 0,
        }
    }

    fn link_did(&mut self, out: Vec<ledger_link::Output>) {
        for o in out {
            match o {
                ledger_link::Output::Dial(conn) => {
                    self.conns += 1;
                    let theirs = ConnId(self.conns);
                    self.conn = Some((conn, theirs));
                    let out = self.ledger.input(ledger::Input::Accepted { conn: theirs, key: KEY });
                    self.ledger_did(out);
                    let out = self.link.input(ledger_link::Input::Opened(conn));
                    self.link_did(out);
                }
                ledger_link::Output::Send(conn, msg) => {
                    if self.conn.is_some_and(|c| c.0 == conn) {
                        self.up.push_back(msg);
                    }
                }
                ledger_link::Output::Close(_) => self.end(false, true),
                ledger_link::Output::Quarantined(_) => panic!("an edge got a quarantine list"),
                ledger_link::Output::Proven(_) => panic!("an edge was told of a proof"),
                ledger_link::Output::Acked(ids) => {
                    for id in ids {
                        assert!(self.stored.contains(&id), "acknowledged and not stored");
                        assert!(!self.acked.contains(&id), "acknowledged twice");
                        self.acked.push(id);
                    }
                }
            }
        }
    }

    fn ledger_did(&mut self, out: Vec<ledger::Output>) {
        for o in out {
            match o {
                ledger::Output::Send { conn, msg } => {
                    if self.conn.is_some_and(|c| c.1 == conn) {
                        self.down.push_back(msg);
                    }
                }
                ledger::Output::Close { .. } => self.end(true, false),
                ledger::Output::Store { req, records } => self.storing.push_back((req, records)),
                ledger::Output::Count(_) | ledger::Output::Stopped => {}
            }
        }
    }

    /// Ends the connection; messages under way are lost.
    fn end(&mut self, tell_link: bool, tell_ledger: bool) {
        let Some((ours, theirs)) = self.conn.take() else { return };
        self.up.clear();
        self.down.clear();
        if tell_link {
            let out = self.link.input(ledger_link::Input::Closed(ours));
            self.link_did(out);
        }
        if tell_ledger {
            let out = self.ledger.input(ledger::Input::Closed { conn: theirs });
            self.ledger_did(out);
        }
    }

    fn deliver(&mut self) -> bool {
        let Some((ours, theirs)) = self.conn else { return false };
        if let Some(msg) = self.up.pop_front() {
            let out = self.ledger.input(ledger::Input::Server { conn: theirs, msg });
            self.ledger_did(out);
            return true;
        }
        let Some(msg) = self.down.pop_front() else { return false };
        let out = self.link.input(ledger_link::Input::Message(ours, msg));
        self.link_did(out);
        true
    }

    /// Completes or refuses a write of the store, which keeps each id once.
    fn store(&mut self, ok: bool) {
        let Some((req, records)) = self.storing.pop_front() else { return };
        if ok {
            self.stored.extend(records.iter().map(LedgerRecord::id));
        }
        let out = self.ledger.input(ledger::Input::Stored { req, ok });
        self.ledger_did(out);
    }

    /// Crashes the ledger; the store has carried out its pending writes or not.
    fn crash(&mut self, carried_out: bool) {
        for (_, records) in self.storing.drain(..).filter(|_| carried_out) {
            self.stored.extend(records.iter().map(LedgerRecord::id));
        }
        let now = self.ledger.now;
        self.ledger = new_ledger();
        self.ledger.now = now;
        self.end(true, false);
    }

    fn wait(&mut self, by: Duration) {
        let out = self.link.wait(by);
        self.link_did(out);
        let out = self.ledger.wait(by);
        self.ledger_did(out);
    }

    fn step(&mut self, (op, n): (u8, u16)) {
        match op {
            0 | 1 => {
                self.submitted += 1;
                let out = self.link.input(ledger_link::Input::Submit(record(self.submitted)));
                self.link_did(out);
            }
            2..=5 => drop(self.deliver()),
            6 => self.wait(Duration::from_millis(u64::from(n % 1_500))),
            7 | 8 => self.store(n % 4 != 0),
            9 => self.end(true, true),
            _ => self.crash(n % 2 == 0),
        }
    }
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(256))]

    #[test]
    fn every_record_is_stored_before_it_is_acknowledged(steps in prop::collection::vec((0..11_u8, any::<u16>()), 0..160)) {
        let mut net = Net::new();
        steps.into_iter().for_each(|s| net.step(s));
        for _ in 0..200 {
            net.wait(Duration::from_millis(200));
            while net.deliver() {}
            net.store(true);
            while net.deliver() {}
        }
        let all: BTreeSet<RecordId> = (1..=net.submitted).map(RecordId::numbered).collect();
        prop_assert_eq!(&net.stored, &all);
        prop_assert_eq!(net.acked.into_iter().collect::<BTreeSet<_>>(), all);
        prop_assert_eq!((net.link.machine.waiting(), net.ledger.machine.waiting()), (0, 0));
    }
}
