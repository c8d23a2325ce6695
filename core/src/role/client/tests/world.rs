//! One client and a fake shell that answers its outputs on virtual time: edges, a CN, peers, and a store that survives
//! crashes.

use super::super::io::{
    CloseReason, Command, CommandKind, ControlOutput, DownloadRecord, DownloadState, DownloadStatus, EdgeAnswer,
    EdgeAsk, EdgeError, EdgeOutput, FetchEnd, Granted, Identity, KeyOutput, Notice, ObjectRef, PeerOutput, SourceName,
    StoreError,
};
use super::super::{Client, Config, Input, KeptServers, Output, Restore};
use super::disk::Disk;
use crate::accounting::certs::tests::{ROOT, cert, fake_sign, fake_verify};
use crate::accounting::possession::Challenge;
use crate::accounting::tickets::tests::ticket_of;
use crate::accounting::{introductions, logs};
use crate::content::{Bitfield, Layout, Policy};
use crate::ids::{
    ConnId, DownloadId, Guid, Handle, IntroId, PieceIndex, ProviderId, PublicKey, ReqId, SecondaryGuid, VersionId,
};
use crate::nat::{Candidate, CandidateKind, NatDescriptor};
use crate::seeded::Seeded;
use crate::swarm::download::Source;
use crate::wire::control::{IntroducedPeer, Introductions, Query, Retired, ToClient, ToCn, UsageAck, Welcome};
use crate::wire::peer::{HaveMap, PeerMsg, PeerWelcome};
use crate::wire::records::{
    Checkpoint, Introduction, Logged, Rekey, SealedGrant, ServerRole, SignedCheckpoint, SignedHead, SignedIntroduction,
    SignedRekey, SigningContext,
};
use crate::wire::{Blob, List, PROTOCOL, Wire as _};
use crate::{Cx, Machine, Time};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

pub(super) const MIB: u64 = 1 << 20;
/// Unix time in milliseconds at which the client starts.
pub(super) const START_MS: u64 = 5_000_000;
const CN_KEY: PublicKey = PublicKey([0xc; 32]);
pub(super) const OWN_KEY: PublicKey = PublicKey([0xa; 32]);
/// Key that the client takes when it is ordered to rekey.
pub(super) const NEW_KEY: PublicKey = PublicKey([0xb; 32]);
/// Time between an output of the client and the fake shell's answer.
const LATENCY: Duration = Duration::from_millis(10);

/// A fake peer and its behaviour.
#[derive(Clone, Debug)]
pub(super) struct FakePeer {
    pub(super) rate: u64,
    /// Whether the peer sends wrong blocks.
    pub(super) corrupt: bool,
    /// Whether connections to the peer succeed.
    pub(super) up: bool,
}

pub(super) struct World {
    pub(super) client: Client,
    pub(super) cfg: Config,
    pub(super) now: Time,
    rng: Seeded,
    events: BTreeMap<(Time, u64), Input>,
    event_seq: u64,
    pub(super) disk: Disk,
    pub(super) disk_says: Result<(), StoreError>,
    /// Current version of the object.
    pub(super) version: VersionId,
    pub(super) layouts: BTreeMap<VersionId, Layout>,
    pub(super) policy: Policy,
    pub(super) edge_up: bool,
    /// Challenge with which the edge answers the report of a completed download.
    pub(super) challenge: Option<Challenge>,
    pub(super) edge_rate: u64,
    pub(super) edge_says: Option<EdgeError>,
    /// Refusal of every request for a grant that is no renewal.
    pub(super) grants_say: Option<EdgeError>,
    /// Servers of the last bootstrap, as the store has kept them.
    pub(super) servers: Option<KeptServers>,
    pub(super) grant_ms: u64,
    /// Whether the edge gives holder's tickets.
    pub(super) gives_tickets: bool,
    pub(super) renewals: u32,
    grants: u32,
    pub(super) cns: u32,
    pub(super) cn_up: bool,
    pub(super) peers: BTreeMap<u32, FakePeer>,
    conns: BTreeMap<ConnId, u32>,
    intros: u32,
    busy_until: BTreeMap<Option<ConnId>, Time>,
    pub(super) fetched: Vec<(Source, PieceIndex)>,
    fetching: BTreeMap<crate::ids::XferId, Source>,
    pub(super) sent: Vec<ToCn>,
    /// Control connection of the last message to the CN.
    pub(super) sent_on: Option<ConnId>,
    pub(super) notices: Vec<Notice>,
    pub(super) outputs: Vec<Output>,
    commands: u64,
    /// Whether the CN acknowledges usage records.
    pub(super) acks: bool,
    /// Number of times that the client asked the shell to adopt the new key.
    pub(super) adopted: u32,
}

fn identity() -> Identity {
    let key = PublicKey::numbered(1);
    Identity { guid: Guid::of(&key), key, secondary: vec![SecondaryGuid::numbered(1)], upload_key: OWN_KEY, root: ROOT }
}

fn rekey(own: &Identity) -> SignedRekey {
    let rekey = Rekey { old: own.key, new: NEW_KEY, start: own.secondary[0] };
    let by = |key| fake_sign(key, SigningContext::Rekey, &rekey.to_bytes());
    SignedRekey { by_old: by(&own.key), by_new: by(&NEW_KEY), rekey }
}

pub(super) fn object() -> ObjectRef {
    ObjectRef { provider: ProviderId(9), path: "a/b.bin".to_string() }
}

impl World {
    /// Returns a world with a client, an edge that sends 20 MB/s, and an object of `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        let cfg = Config::new(identity(), fake_verify);
        let version = VersionId::numbered(1);
        let layout = Layout::for_size(size).expect("a layout");
        Self {
            client: Client::restore(&cfg, Restore::default(), true),
            cfg,
            now: Time::ZERO,
            rng: Seeded::new(7),
            events: BTreeMap::new(),
            event_seq: 0,
            disk: Disk::default(),
            disk_says: Ok(()),
            version,
            layouts: [(version, layout)].into(),
            policy: Policy::default(),
            edge_up: true,
            challenge: None,
            edge_rate: 20_000_000,
            edge_says: None,
            grants_say: None,
            servers: None,
            grant_ms: 900_000,
            renewals: 0,
            grants: 0,
            cns: 0,
            cn_up: true,
            peers: BTreeMap::new(),
            conns: BTreeMap::new(),
            intros: 0,
            busy_until: BTreeMap::new(),
            fetched: Vec::new(),
            fetching: BTreeMap::new(),
            sent: Vec::new(),
            sent_on: None,
            notices: Vec::new(),
            outputs: Vec::new(),
            commands: 0,
            acks: true,
            adopted: 0,
            gives_tickets: true,
        }
    }

    pub(super) fn with_peers(size: u64, peers: &[FakePeer]) -> Self {
        let mut world = Self::new(size);
        world.cns = 1;
        world.peers = (100..).zip(peers.iter().cloned()).collect();
        world
    }

    /// Crashes the client and restarts it from its store.
    pub(super) fn crash(&mut self) {
        let have = |disk: &Disk, v: VersionId, layout: &Layout| {
            let mut b = Bitfield::empty(layout.pieces());
            disk.pieces.get(&v).into_iter().flatten().for_each(|p| {
                b.insert(*p);
            });
            b
        };
        let disk = &self.disk;
        let of = |r: &DownloadRecord| {
            let known = r.granted.as_ref().and_then(|g| Some((g.version, self.layouts.get(&g.version)?)));
            known.map_or_else(|| Bitfield::empty(0), |(v, layout)| have(disk, v, layout))
        };
        let restore = Restore {
            downloads: disk.downloads.values().map(|r| (r.clone(), of(r))).collect(),
            sources: disk.sources.clone(),
            usage: disk.usage.clone(),
            receipts: disk.receipts.clone(),
            cached: disk.cached.iter().map(|v| (*v, self.layouts[v], have(disk, *v, &self.layouts[v]))).collect(),
            terms: disk.terms.clone(),
            servers: self.servers,
            notices: disk.notices.values().cloned().collect(),
            checkpoint: disk.checkpoint.clone(),
            owner: disk.owner,
            new_key: disk.new_key.clone(),
            uploads: disk.uploads,
        };
        self.client = Client::restore(&self.cfg, restore, true);
        self.events.clear();
        self.conns.clear();
        self.busy_until.clear();
        self.fetching.clear();
        self.now = Time::ZERO;
    }

    /// Restarts the client with the new key that was made.
    pub(super) fn adopt(&mut self) {
        let old = &self.cfg.identity;
        let guid = Guid::of(&NEW_KEY);
        let identity = Identity { guid, key: NEW_KEY, secondary: vec![SecondaryGuid::numbered(9)], ..old.clone() };
        self.cfg = Config::new(identity, fake_verify);
        self.disk.new_key = None;
        self.crash();
    }

    fn later(&mut self, at: Time, input: Input) {
        self.event_seq += 1;
        self.events.insert((at, self.event_seq), input);
    }

    fn soon(&mut self, input: Input) {
        self.later(self.now.after(LATENCY), input);
    }

    pub(super) fn command(&mut self, kind: CommandKind) -> ReqId {
        self.commands += 1;
        let req = ReqId(1 << 32 | self.commands);
        self.input(Input::Command(Command { req, kind }));
        req
    }

    /// Starts a download, the client's only one.
    pub(super) fn get(&mut self) -> Handle {
        self.command(CommandKind::Get { object: object(), output: "out".to_string(), replace: false });
        self.client.downloads().last().expect("a download").0
    }

    pub(super) fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        let mut cx = Cx { now: self.now, cfg: &self.cfg, rng: &mut self.rng, out: &mut out };
        self.client.handle_input(&mut cx, input);
        self.client.check();
        out.into_iter().for_each(|o| self.perform(o));
    }

    /// Performs the next event; returns `false` if none is due before `until`.
    fn step(&mut self, until: Time) -> bool {
        let event = self.events.keys().next().copied();
        let timer = self.client.poll_timeout();
        let at = event.map(|(at, _)| at).into_iter().chain(timer).min();
        let Some(at) = at.filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        if let Some(key) = event.filter(|(event, _)| *event <= at) {
            let input = self.events.remove(&key).expect("it is there");
            self.input(input);
        } else {
            let mut out = Vec::new();
            let mut cx = Cx { now: self.now, cfg: &self.cfg, rng: &mut self.rng, out: &mut out };
            self.client.handle_timeout(&mut cx);
            self.client.check();
            out.into_iter().for_each(|o| self.perform(o));
        }
        true
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now.after(time);
        while self.step(until) {}
    }

    /// Runs until the download is in `state`.
    pub(super) fn run_until(&mut self, handle: Handle, state: DownloadState) {
        let until = self.now.after(Duration::from_secs(3600));
        while self.state(handle) != Some(state) {
            assert!(self.step(until), "it never gets to {state:?}: {:?}", self.state(handle));
        }
        self.run_for(Duration::from_millis(100));
    }

    pub(super) fn state(&self, handle: Handle) -> Option<DownloadState> {
        self.client.downloads().find(|(h, _)| *h == handle).map(|(_, state)| state)
    }

    pub(super) fn status(&self) -> DownloadStatus {
        let status = |n: &Notice| if let Notice::Download(status) = n { Some(status.clone()) } else { None };
        let newest = self.notices.iter().rev().find_map(status);
        newest.expect("a status was reported")
    }

    pub(super) fn answer_to(&self, req: ReqId) -> Option<Result<Option<Handle>, super::super::io::CommandError>> {
        let done = |n: &Notice| if let Notice::Done { req, result } = n { Some((*req, *result)) } else { None };
        self.notices.iter().filter_map(done).find(|(of, _)| *of == req).map(|(_, result)| result)
    }

    // --- the shell ------------------------------------------------------------------------------------------------

    fn perform(&mut self, output: Output) {
        self.outputs.push(output.clone());
        match output {
            Output::Edge(EdgeOutput::Ask { req, ask, .. }) => {
                let answer = self.edge(ask);
                self.soon(Input::Edge { req, answer });
            }
            Output::Control(ControlOutput::Dial { conn, .. }) if self.cn_up => self.soon(Input::ControlOpened { conn }),
            Output::Control(ControlOutput::Dial { conn, .. }) => self.soon(Input::ControlClosed { conn }),
            Output::Control(ControlOutput::Send { conn, msg }) => self.control(conn, msg),
            Output::Peer(PeerOutput::Dial { conn, key, .. }) => {
                let n = u32::from_be_bytes(key.0[28..].try_into().expect("four bytes"));
                let up = self.peers.get(&n).is_some_and(|p| p.up);
                self.conns.insert(conn, n);
                self.soon(if up { Input::PeerOpened { conn } } else { Input::PeerClosed { conn } });
            }
            Output::Peer(PeerOutput::Send { conn, msg: PeerMsg::Hello(hello) }) => self.greet(conn, &hello.intro.intro),
            Output::Peer(PeerOutput::Close { conn, .. }) => {
                self.conns.remove(&conn);
                self.break_fetches(Source::Peer(conn));
            }
            Output::Edge(EdgeOutput::Fetch { xfer, version, edge, piece, blocks, .. }) => {
                let range = self.layouts[&version].block_range(piece, blocks);
                self.fetch(xfer, Source::Edge(edge), piece, range.end - range.start);
            }
            Output::Peer(PeerOutput::Fetch { xfer, version, conn, piece, blocks }) => {
                let range = self.layouts[&version].block_range(piece, blocks);
                self.fetch(xfer, Source::Peer(conn), piece, range.end - range.start);
            }
            Output::Edge(EdgeOutput::CancelFetch { xfer }) | Output::Peer(PeerOutput::CancelFetch { xfer }) => {
                if self.fetching.remove(&xfer).is_some() {
                    self.soon(Input::FetchEnded { xfer, end: FetchEnd::Cancelled });
                }
            }
            Output::Key(KeyOutput::SignReceipt { req, .. }) => {
                self.soon(Input::Signed { req, signature: Some(crate::ids::Signature([0; 64])) })
            }
            Output::Key(KeyOutput::SignHead { req, head }) => {
                let signature = fake_sign(&self.cfg.identity.key, SigningContext::LogHead, &head.to_bytes());
                self.soon(Input::HeadSigned { req, signature });
            }
            Output::Key(KeyOutput::Make { req }) => {
                let made = Some(self.disk.new_key.get_or_insert_with(|| Box::new(rekey(&self.cfg.identity))).clone());
                self.soon(Input::KeyMade { req, made });
            }
            Output::Key(KeyOutput::Adopt) => self.adopted += 1,
            Output::Save { req, what } => {
                if self.disk_says.is_ok() {
                    self.disk.keep(what, &self.layouts);
                }
                self.soon(Input::Saved { req, result: self.disk_says });
            }
            Output::Peer(PeerOutput::Serve { xfer, .. }) => self.soon(Input::ServeEnded { xfer, bytes: 65_536 }),
            Output::Notice(notice) => self.notices.push(notice),
            Output::Peer(
                PeerOutput::Expect { .. }
                | PeerOutput::RawTcp(_)
                | PeerOutput::Probe { .. }
                | PeerOutput::Send { .. }
                | PeerOutput::Scatter(_)
                | PeerOutput::Refuse { .. }
                | PeerOutput::ProbePaths,
            )
            | Output::Edge(EdgeOutput::DropConnections)
            | Output::Control(ControlOutput::Close { .. })
            | Output::CheckCopy { .. }
            | Output::ProbeNetwork => {}
        }
    }

    fn fetch(&mut self, xfer: crate::ids::XferId, source: Source, piece: PieceIndex, bytes: u64) {
        let peer = match &source {
            Source::Edge(_) => None,
            Source::Peer(conn) => Some(*conn),
        };
        self.fetched.push((source, piece));
        let behind = peer.map(|conn| self.peers[&self.conns[&conn]].clone());
        let end = match (&behind, self.edge_says) {
            (Some(p), _) if p.corrupt => FetchEnd::BadBlock { block: 0 },
            (None, Some(why)) => FetchEnd::EdgeRefused(why),
            (None, None) if !self.edge_up => FetchEnd::Broken,
            (Some(_) | None, _) => FetchEnd::Fetched,
        };
        let rate = behind.map_or(self.edge_rate, |p| p.rate);
        let takes = Duration::from_micros(bytes * 1_000_000 / rate);
        let free = self.busy_until.entry(peer).or_default();
        *free = (*free).max(self.now).after(takes);
        let at = if end == FetchEnd::Fetched { *free } else { self.now.after(LATENCY) };
        self.fetching.insert(xfer, source);
        self.later(at, Input::FetchEnded { xfer, end });
    }

    /// Ends all transfers from a source as `Broken`.
    pub(super) fn break_fetches(&mut self, source: Source) {
        let from_source: Vec<_> = self.fetching.iter().filter(|(_, s)| same(**s, source)).map(|(x, _)| *x).collect();
        for xfer in from_source {
            self.fetching.remove(&xfer);
            self.events.retain(|_, e| !matches!(e, Input::FetchEnded { xfer: of, .. } if *of == xfer));
            self.soon(Input::FetchEnded { xfer, end: FetchEnd::Broken });
        }
    }

    pub(super) fn edge_goes_down(&mut self) {
        self.edge_up = false;
        self.break_fetches(Source::Edge(0));
    }

    fn edge(&mut self, ask: EdgeAsk) -> Result<EdgeAnswer, EdgeError> {
        let kept = |v: &VersionId| self.disk.pieces.contains_key(v);
        if !self.edge_up && !matches!(&ask, EdgeAsk::Manifest { version, .. } if kept(version)) {
            return Err(EdgeError::Unreachable);
        }
        let now_ms = START_MS + self.now.0 / 1000;
        match ask {
            EdgeAsk::Bootstrap => Ok(EdgeAnswer::Bootstrap { cns: self.cns, edges: 1, now_ms }),
            EdgeAsk::Grant { version, .. } if version.is_some_and(|v| v != self.version) => Err(EdgeError::Changed),
            EdgeAsk::Grant { object: of, renew, download, .. } => {
                if of != object() {
                    return Err(EdgeError::NotFound);
                }
                self.renewals += u32::from(renew.is_some());
                if let Some(why) = self.grants_say.filter(|_| renew.is_none()) {
                    return Err(why);
                }
                if renew.is_some() && self.edge_says == Some(EdgeError::GrantExpired) {
                    return Err(EdgeError::GrantExpired);
                }
                self.grants += 1;
                self.edge_says = None;
                Ok(EdgeAnswer::Granted(Granted {
                    download: download.unwrap_or(DownloadId::numbered(self.grants)),
                    download_key: PublicKey::numbered(50),
                    version: self.version,
                    size: self.layouts[&self.version].size(),
                    policy: self.policy.clone(),
                    order_seed: 0,
                    expires_ms: now_ms + self.grant_ms,
                    sealed: sealed(self.grants),
                    ticket: self
                        .gives_tickets
                        .then(|| Box::new(ticket_of(self.cfg.identity.guid, self.version, now_ms))),
                }))
            }
            EdgeAsk::Completed { .. } => Ok(EdgeAnswer::Challenged(self.challenge.clone())),
            EdgeAsk::Prove { .. } => Ok(EdgeAnswer::ProofTaken),
            EdgeAsk::Manifest { version, .. } => Ok(EdgeAnswer::Manifest { layout: self.layouts[&version] }),
        }
    }

    fn control(&mut self, conn: ConnId, msg: ToCn) {
        self.sent.push(msg.clone());
        self.sent_on = Some(conn);
        let answer = if let ToCn::Hello(_) = msg {
            ToClient::Welcome(Welcome {
                protocol: PROTOCOL,
                now_ms: START_MS + self.now.0 / 1000,
                observed: "127.0.0.1:1".parse().expect("an address"),
                cert: cert(ServerRole::Cn, CN_KEY),
                ping_ms: 60_000,
                want_inventory: true,
            })
        } else if let ToCn::Query(query) = msg {
            ToClient::Introductions(self.introduce(&query))
        } else if let ToCn::Rekeyed(signed) = msg {
            ToClient::Retired(Retired { new: Guid::of(&signed.rekey.new) })
        } else if let ToCn::Usage(Logged { record, head }) = msg {
            assert_eq!(logs::check(fake_verify, &Logged { record: record.clone(), head: head.clone() }), Ok(()));
            let durable = self.disk.usage.contains(&record);
            assert!(durable, "a usage record was sent before it was durable");
            if !self.acks {
                return;
            }
            ToClient::UsageAck(UsageAck { ids: List::truncated([record.id]), checkpoint: Some(self.sign(head)) })
        } else {
            return;
        };
        self.soon(Input::Control { conn, msg: answer });
    }

    /// Returns the CN's checkpoint of a log head.
    fn sign(&self, head: SignedHead) -> SignedCheckpoint {
        let checkpoint = Checkpoint { head, at_ms: START_MS + self.now.0 / 1000 };
        let signature = fake_sign(&CN_KEY, SigningContext::Checkpoint, &checkpoint.to_bytes());
        SignedCheckpoint { checkpoint, signature, cert: cert(ServerRole::Cn, CN_KEY) }
    }

    fn introduce(&mut self, query: &Query) -> Introductions {
        let offered: Vec<_> =
            self.peers.keys().copied().filter(|n| !query.exclude.contains(&PublicKey::numbered(*n))).collect();
        let intros = offered.iter().map(|n| {
            self.intros += 1;
            self.intro_for(self.intros, PublicKey::numbered(50), PublicKey::numbered(*n))
        });
        let signed = sign(intros.collect());
        let candidate = Candidate { kind: CandidateKind::Host, addr: "127.0.0.1:9".parse().expect("an address") };
        let nat = NatDescriptor { udp: true, candidates: List::truncated([candidate]), ..NatDescriptor::default() };
        let peers = signed.into_iter().map(|intro| IntroducedPeer { intro, nat: nat.clone(), ticket: None });
        Introductions { query: query.query, peers: List::truncated(peers) }
    }

    /// Returns an introduction for the newest download of the newest version.
    pub(super) fn intro_for(&self, n: u32, downloader: PublicKey, uploader: PublicKey) -> Introduction {
        let now_ms = START_MS + self.now.0 / 1000;
        Introduction {
            id: IntroId::numbered(n),
            download: DownloadId::numbered(self.grants),
            version: self.version,
            downloader_key: downloader,
            uploader_key: uploader,
            connect_before_ms: now_ms + 60_000,
            serve_until_ms: now_ms + 3_600_000,
            cap_bytes: u64::MAX,
        }
    }

    fn greet(&mut self, conn: ConnId, intro: &Introduction) {
        let welcome = PeerWelcome { protocol: PROTOCOL, requests_max: 64 };
        self.soon(Input::Peer { conn, msg: PeerMsg::Welcome(welcome) });
        let bits = Bitfield::full(self.layouts[&intro.version].pieces()).as_bytes().to_vec();
        let map = HaveMap { first: PieceIndex(0), bits: Blob::new(bits).expect("one page"), last: true };
        self.soon(Input::Peer { conn, msg: PeerMsg::HaveMap(map) });
    }

    /// Reports to the client that the store has lost all pieces of the current version, because the user changed the
    /// file.
    pub(super) fn lose(&mut self) {
        self.disk.cached.remove(&self.version);
        self.disk.pieces.remove(&self.version);
        self.input(Input::VersionLost { version: self.version, left: Bitfield::empty(0), sources: BTreeMap::new() });
    }

    /// Reports to the client that pieces of the current version are damaged; all bytes came from the edge. Returns
    /// the bytes of the remaining pieces.
    pub(super) fn damage(&mut self, handle: Handle, damaged: &[PieceIndex]) -> u64 {
        let layout = self.layouts[&self.version];
        let kept = self.disk.pieces.get_mut(&self.version).expect("something is there");
        kept.retain(|piece| !damaged.contains(piece));
        let mut left = Bitfield::empty(layout.pieces());
        let bytes = kept.iter().map(|piece| u64::from(layout.piece_size(*piece))).sum();
        for piece in kept.iter() {
            left.insert(*piece);
        }
        let sources = BTreeMap::from([(handle, BTreeMap::from([(SourceName::Edge, bytes)]))]);
        self.disk.sources.clone_from(&sources);
        self.input(Input::VersionLost { version: self.version, left, sources });
        bytes
    }

    /// Breaks the connections to a peer.
    pub(super) fn kill_peer(&mut self, n: u32) {
        self.peers.get_mut(&n).expect("a peer").up = false;
        let conns: Vec<_> = self.conns.iter().filter(|(_, p)| **p == n).map(|(conn, _)| *conn).collect();
        for conn in conns {
            self.break_fetches(Source::Peer(conn));
            self.soon(Input::PeerClosed { conn });
        }
    }

    pub(super) fn closed_with(&self, why: CloseReason) -> usize {
        self.outputs.iter().filter(|o| matches!(o, Output::Peer(PeerOutput::Close { why: w, .. }) if *w == why)).count()
    }
}

/// Returns whether two sources are the same place; all edges count as one.
fn same(a: Source, b: Source) -> bool {
    match (a, b) {
        (Source::Edge(_), Source::Edge(_)) => true,
        (Source::Peer(a), Source::Peer(b)) => a == b,
        (Source::Edge(_), Source::Peer(_)) | (Source::Peer(_), Source::Edge(_)) => false,
    }
}

fn sealed(n: u32) -> SealedGrant {
    SealedGrant { epoch: n, nonce: [0; 24], sealed: Blob::default() }
}

/// Signs introductions with the CN's key.
pub(super) fn sign(intros: Vec<Introduction>) -> Vec<SignedIntroduction> {
    let signature = fake_sign(&CN_KEY, SigningContext::Introductions, &introductions::root(&intros).0);
    introductions::sign(intros, signature, &cert(ServerRole::Cn, CN_KEY))
}
