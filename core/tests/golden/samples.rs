//! One sample of each message, in which every field has a different value.

use swarmedge_core::accounting::Spans;
use swarmedge_core::content::{Layout, Manifest, Policy};
use swarmedge_core::ids::{
    Digest, DownloadId, Guid, IntroId, PieceIndex, ProviderId, PublicKey, RecordId, SecondaryGuid, SessionId,
    Signature, VersionId,
};
use swarmedge_core::nat::connectivity::{Attempt, Failure, Rung, Ticket};
use swarmedge_core::nat::cookie::{Cookie, Proven};
use swarmedge_core::nat::{Candidate, CandidateKind, Ipv6Reach, NatBehaviour, NatDescriptor};
use swarmedge_core::notice::sign;
use swarmedge_core::wire::control::{self, *};
use swarmedge_core::wire::directory::Unreceipted;
use swarmedge_core::wire::directory::*;
use swarmedge_core::wire::geo_location::{Coordinates, GeoLocation, Locality};
use swarmedge_core::wire::ledger::{FromLedger, LedgerAck, QuarantinePage, ToLedger};
use swarmedge_core::wire::mux::{MuxMsg, StreamData, StreamEnd};
use swarmedge_core::wire::notice::{Known, Notice, SignedNotice, Subject, Terms};
use swarmedge_core::wire::peer::{Have, HaveMap, PeerHello, PeerMsg, PeerWelcome, PieceAnswer, PieceRequest};
use swarmedge_core::wire::records::*;
use swarmedge_core::wire::{Blob, List, Text};

fn text<const MAX: usize>(s: &str) -> Text<MAX> {
    Text::new(s).expect("a short text")
}

fn addr(s: &str) -> std::net::SocketAddr {
    s.parse().expect("an address")
}

fn nat() -> NatDescriptor {
    let candidate = |kind, s| Candidate { kind, addr: addr(s) };
    NatDescriptor {
        epoch: 0x0102_0304,
        udp: true,
        mapping: NatBehaviour::EndpointIndependent,
        filtering: NatBehaviour::AddressAndPortDependent,
        step: 0x0506,
        v4: true,
        v6: Ipv6Reach::Firewalled,
        hairpin: true,
        tcp443: false,
        tcp_out: true,
        birthday: true,
        candidates: List::truncated([
            candidate(CandidateKind::Host, "192.168.1.2:50000"),
            candidate(CandidateKind::ServerReflexive, "203.0.113.5:40001"),
            candidate(CandidateKind::Mapped, "[2001:db8::5]:443"),
        ]),
        proven: List::truncated([
            Proven {
                addr: addr("[2001:db8::5]:40002"),
                cookie: Some(Cookie { epoch: 0x0708_090a, issued_s: 0x0b0c_0d0e, mac: [15; 16] }),
            },
            Proven { addr: addr("203.0.113.6:40003"), cookie: None },
        ]),
        doors: List::truncated([addr("203.0.113.5:443")]),
        crossing: Some(addr("203.0.113.5:6000")),
    }
}

pub(crate) fn cert() -> ServerCert {
    ServerCert {
        body: CertBody {
            role: ServerRole::Cn,
            name: text("cn1.example"),
            key: PublicKey::numbered(1),
            not_before_ms: 2,
            not_after_ms: 0x0102_0304_0506_0708,
        },
        signature: Signature::numbered(3),
    }
}

pub(crate) fn policy() -> Policy {
    Policy {
        peer_download: true,
        peer_upload: false,
        uploads_max: 4,
        upload_rate_max: 5,
        rate_min: 6,
        edge_rate_max: 7,
        expires_ms: 8,
    }
}

pub(crate) fn signed_grant() -> SignedGrant {
    SignedGrant {
        grant: Grant {
            download: DownloadId::numbered(1),
            guid: Guid::numbered(2),
            download_key: PublicKey::numbered(3),
            version: VersionId::numbered(4),
            size: 5,
            provider: ProviderId(6),
            path: Text::new("a/b").expect("short"),
            policy: policy(),
            max_peer_bytes: 7,
            order_seed: 8,
            began_ms: 9,
            issued_ms: 9,
            expires_ms: 10,
            challenged: true,
        },
        signature: Signature::numbered(11),
        cert: cert(),
    }
}

pub(crate) fn sealed_grant() -> SealedGrant {
    SealedGrant { epoch: 1, nonce: [2; 24], sealed: Blob::new(vec![3, 4, 5]).expect("few bytes") }
}

pub(crate) fn introduction() -> SignedIntroduction {
    SignedIntroduction {
        intro: Introduction {
            id: IntroId::numbered(1),
            download: DownloadId::numbered(2),
            version: VersionId::numbered(3),
            downloader_key: PublicKey::numbered(4),
            uploader_key: PublicKey::numbered(5),
            connect_before_ms: 6,
            serve_until_ms: 7,
            cap_bytes: 8,
        },
        index: 1,
        path: List::truncated([Digest::numbered(9), Digest::numbered(10)]),
        signature: Signature::numbered(11),
        cert: cert(),
    }
}

pub(crate) fn checkpoint() -> SignedCheckpoint {
    SignedCheckpoint {
        checkpoint: Checkpoint { head: head(), at_ms: 12 },
        signature: Signature::numbered(13),
        cert: cert(),
    }
}

fn rekey() -> SignedRekey {
    let (old, new) = (PublicKey::numbered(1), PublicKey::numbered(2));
    SignedRekey {
        rekey: Rekey { old, new, start: SecondaryGuid::numbered(3) },
        by_old: Signature::numbered(4),
        by_new: Signature::numbered(5),
    }
}

pub(crate) fn head() -> SignedHead {
    SignedHead {
        head: Head {
            start: SecondaryGuid::numbered(1),
            place: 2,
            before: Digest::numbered(3),
            digest: Digest::numbered(4),
        },
        key: PublicKey::numbered(5),
        signature: Signature::numbered(6),
    }
}

pub(crate) fn usage() -> UsageRecord {
    let proof = |n: u32| ReceiptProof {
        uploader_key: PublicKey::numbered(n),
        seq: n + 1,
        bytes: u64::from(n) + 2,
        signature: Signature::numbered(n + 3),
    };
    let peer = |n: u32, receipt: Option<ReceiptProof>| PeerBytes {
        intro: IntroId::numbered(n),
        key: PublicKey::numbered(n + 1),
        bytes: u64::from(n),
        receipt,
    };
    UsageRecord {
        id: RecordId::numbered(1),
        reporter: Guid::numbered(2),
        side: Side::Downloader,
        download: DownloadId::numbered(3),
        version: VersionId::numbered(4),
        seq: 5,
        state: UsageState::Completed,
        edge_bytes: 6,
        peers: List::truncated([peer(7, None), peer(9, Some(proof(20)))]),
        elapsed_ms: 11,
        cause: None,
    }
}

pub(crate) fn receipt() -> SignedReceipt {
    SignedReceipt {
        receipt: Receipt {
            intro: IntroId::numbered(1),
            download: DownloadId::numbered(2),
            version: VersionId::numbered(3),
            uploader_key: PublicKey::numbered(4),
            seq: 5,
            bytes: 6,
        },
        signature: Signature::numbered(7),
    }
}

pub(crate) fn edge_record() -> EdgeRecord {
    EdgeRecord {
        id: RecordId::numbered(1),
        edge: PublicKey::numbered(2),
        download: Some(DownloadId::numbered(3)),
        guid: None,
        version: VersionId::numbered(4),
        provider: ProviderId(5),
        seq: 6,
        unique_bytes: 7,
        total_bytes: 8,
    }
}

pub(crate) fn served_record() -> ServedRecord {
    ServedRecord {
        id: RecordId::numbered(1),
        edge: PublicKey::numbered(2),
        download: DownloadId::numbered(3),
        guid: Guid::numbered(4),
        version: VersionId::numbered(5),
        provider: ProviderId(6),
        life: 7,
        seq: 8,
        sent: Spans::of([0..300, 1_000..70_000]).to_blob(),
        total_bytes: 9,
        unsure_bytes: 10,
    }
}

pub(crate) fn grant_record() -> GrantRecord {
    GrantRecord {
        id: RecordId::numbered(1),
        download: DownloadId::numbered(2),
        guid: Guid::numbered(3),
        download_key: PublicKey::numbered(8),
        version: VersionId::numbered(4),
        size: 5,
        provider: ProviderId(6),
        path: text("games/big.iso"),
        issued_ms: 7,
        max_peer_bytes: 8,
        challenged: true,
        proof: None,
    }
}

pub(crate) fn manifest() -> Manifest {
    let layout = Layout::new(100_000, 65_536).expect("a valid layout");
    let roots = vec![Digest::numbered(1), Digest::numbered(2)];
    Manifest::new(ProviderId(9), text("games/big.iso"), layout, roots).expect("a root a piece")
}

pub(crate) fn piece_request() -> PieceRequest {
    PieceRequest { piece: PieceIndex(1), first_block: 2, blocks: 3, want_leaves: true }
}

pub(crate) fn piece_answer() -> PieceAnswer {
    PieceAnswer { leaves: List::truncated([Digest::numbered(1), Digest::numbered(2)]) }
}

fn shares() -> [Shared; 2] {
    [
        Shared { version: VersionId::numbered(1), complete: true },
        Shared { version: VersionId::numbered(2), complete: false },
    ]
}

fn ticket() -> Ticket {
    Ticket { key: [0xa5; 16], observed: addr("203.0.113.5:50001") }
}

fn attempt() -> Attempt {
    Attempt { failure: Some(Failure::OneWay), rung: Rung::Reflexive, probes: 0x0102, took_ms: 0x0304_0506 }
}

pub(crate) fn notice(terms: &Terms) -> Notice {
    Notice::about_version(VersionId::numbered(1), 0x0203_0405_0607_0809, terms)
}

fn notice_list() -> NoticeList {
    let known = |n, serial| Known { subject: Subject::version(VersionId::numbered(n)), serial };
    NoticeList { notices: List::truncated([known(1, 2), known(3, 4)]) }
}

fn signed_notice() -> SignedNotice {
    sign(&notice(&Terms::Policy(policy())), edge_cert(), |_| Signature::numbered(5))
}

fn edge_cert() -> ServerCert {
    let mut cert = cert();
    cert.body.role = ServerRole::Edge;
    cert
}

pub(crate) fn holder_ticket() -> SignedHolderTicket {
    SignedHolderTicket {
        ticket: HolderTicket {
            guid: Guid::numbered(1),
            version: VersionId::numbered(2),
            provider: ProviderId(3),
            policy_serial: 4,
            issued_ms: 5,
            until_ms: 6,
        },
        signature: Signature::numbered(7),
        cert: edge_cert(),
    }
}

pub(crate) fn to_cn() -> Vec<ToCn> {
    vec![
        ToCn::Hello(Hello {
            protocol: 1,
            guid: Guid::numbered(2),
            secondary: List::truncated([SecondaryGuid::numbered(3), SecondaryGuid::numbered(4)]),
            incarnation: 5,
            upload_key: PublicKey::numbered(6),
            uploads: true,
            nat: nat(),
            client_version: 7,
            platform: text("linux-x86_64"),
            checkpoint: Some(checkpoint()),
        }),
        ToCn::Inventory(Inventory {
            seq: 1,
            reset: true,
            last: false,
            certs: List::truncated([edge_cert()]),
            add: List::truncated([Held::new(true, &holder_ticket(), 0)]),
            remove: List::truncated([VersionId::numbered(3)]),
        }),
        ToCn::Query(Query {
            query: 1,
            grant: sealed_grant(),
            want: 2,
            exclude: List::truncated([PublicKey::numbered(3)]),
        }),
        ToCn::Unreceipted(control::Unreceipted { intro: introduction(), owed: 1, receipted: 2 }),
        ToCn::Outcome(Outcome { intro: IntroId::numbered(1), attempt: attempt() }),
        ToCn::Usage(Logged { record: usage(), head: head() }),
        ToCn::Update(Update { uploads: false, nat: nat() }),
        ToCn::Ping,
        ToCn::Pong,
        ToCn::Opened(Opened { intro: IntroId::numbered(1) }),
        ToCn::Rekeyed(rekey()),
        ToCn::Blame(Blame { intro: IntroId::numbered(1), piece: PieceIndex(2), block: 3 }),
        ToCn::NoticesHeld(notice_list()),
    ]
}

pub(crate) fn to_client() -> Vec<ToClient> {
    let introduce = Introduce { intro: introduction(), nat: nat(), ticket: Some(ticket()) };
    vec![
        ToClient::Welcome(Welcome {
            protocol: 1,
            now_ms: 2,
            observed: addr("203.0.113.5:40001"),
            cert: cert(),
            ping_ms: 3,
            want_inventory: true,
        }),
        ToClient::ReaddRequest(ReaddRequest { spread_ms: 1 }),
        ToClient::Introductions(Introductions {
            query: 1,
            peers: List::truncated([IntroducedPeer { intro: introduction(), nat: nat(), ticket: None }]),
        }),
        ToClient::QueryFailed(QueryFailed { query: 1, why: QueryError::PeersForbidden, retry_after_ms: 2 }),
        ToClient::Introduce(introduce),
        ToClient::UsageAck(UsageAck {
            ids: List::truncated([RecordId::numbered(1), RecordId::numbered(2)]),
            checkpoint: Some(checkpoint()),
        }),
        ToClient::Drain(RetryAfter { retry_after_ms: 1 }),
        ToClient::Busy(RetryAfter { retry_after_ms: 2 }),
        ToClient::Ping,
        ToClient::Pong,
        ToClient::Refused(Refused { why: Refusal::Replaced }),
        ToClient::Refused(Refused { why: Refusal::Outdated }),
        ToClient::Go(Go { intro: IntroId::numbered(2) }),
        ToClient::Rekey,
        ToClient::Retired(Retired { new: Guid::numbered(4) }),
        ToClient::CheckCopy(CheckCopy { version: VersionId::numbered(1) }),
        ToClient::NoticesChanged(notice_list()),
        ToClient::Notice(signed_notice()),
        ToClient::TicketsRefused(TicketsRefused { versions: List::truncated([VersionId::numbered(1)]) }),
    ]
}

pub(crate) fn to_dn() -> Vec<ToDn> {
    let session = SessionId(7);
    let route = Route { link: 8, session };
    let introduce = Introduce { intro: introduction(), nat: nat(), ticket: Some(ticket()) };
    vec![
        ToDn::Hello(DirectoryHello { protocol: 1, cert: cert() }),
        ToDn::Peer(PeerEntry {
            session,
            guid: Guid::numbered(1),
            secondary: SecondaryGuid::numbered(2),
            incarnation: 3,
            observed: addr("[2001:db8::5]:443"),
            upload_key: PublicKey::numbered(4),
            uploads: true,
            nat: nat(),
            locality: locality(),
        }),
        ToDn::Shares(PeerShares {
            session,
            reset: false,
            add: List::truncated(shares()),
            remove: List::truncated([VersionId::numbered(3)]),
        }),
        ToDn::Gone(PeerGone { session }),
        ToDn::Select(Select {
            req: 1,
            session,
            download: DownloadId::numbered(5),
            version: VersionId::numbered(2),
            want: 3,
            exclude: List::truncated([PublicKey::numbered(4)]),
        }),
        ToDn::Unreceipted(Unreceipted {
            download: DownloadId::numbered(1),
            intro: IntroId::numbered(2),
            owed: 3,
            receipted: 4,
        }),
        ToDn::Relay(Relay { route, from: SessionId(9), introduce: introduce.clone() }),
        ToDn::Outcome(PairOutcome { session, route, attempt: attempt() }),
        ToDn::Ping,
        ToDn::Pong,
        ToDn::Signal(Signal { route, intro: IntroId::numbered(1), what: Step::Opened }),
        ToDn::Seen(Seen { session, guid: Guid::numbered(1), secondary: SecondaryGuid::numbered(2) }),
        ToDn::Alive(OfSession { session }),
        ToDn::Blame(BlamedCopy { session: SessionId(1), holder: Guid::numbered(2), version: VersionId::numbered(3) }),
        ToDn::Proven(ProvenCopy { holder: Guid::numbered(1), version: VersionId::numbered(2) }),
    ]
}

pub(crate) fn from_dn() -> Vec<FromDn> {
    let session = SessionId(7);
    let route = Route { link: 8, session };
    let introduce = Introduce { intro: introduction(), nat: nat(), ticket: Some(ticket()) };
    vec![
        FromDn::Welcome(DirectoryWelcome { protocol: 1, name: text("dn1.example") }),
        FromDn::Selected(Selected {
            req: 1,
            peers: List::truncated([SelectedPeer {
                route,
                upload_key: PublicKey::numbered(2),
                observed: addr("203.0.113.5:50001"),
                nat: nat(),
                guid: Guid::numbered(3),
            }]),
            edge_only_ms: Some(3),
        }),
        FromDn::Deliver(Deliver { session, from: Route { link: 10, session: SessionId(9) }, introduce }),
        FromDn::Ping,
        FromDn::Pong,
        FromDn::Signalled(Signalled { session, intro: IntroId::numbered(1), what: Step::Go }),
        FromDn::Challenge(OfSession { session }),
        FromDn::Cloned(OfSession { session }),
        FromDn::Nobody(Nobody { req: 1, why: WhyNobody::Unreachable }),
        FromDn::CheckCopy(DoubtedCopy { session, version: VersionId::numbered(1) }),
    ]
}

fn locality() -> Locality {
    Locality { asn: Some(64_500), country: Some(*b"DE"), region: Some(4) }
}

fn log(event: LogEvent) -> LogRecord {
    LogRecord { id: RecordId::numbered(1), at_ms: 2, guid: Guid::numbered(3), event }
}

pub(crate) fn to_ledger() -> Vec<ToLedger> {
    vec![
        ToLedger::Hello(cert()),
        ToLedger::Submit(LedgerRecord::Usage(Logged { record: usage(), head: head() })),
        ToLedger::Submit(LedgerRecord::Edge(edge_record())),
        ToLedger::Submit(LedgerRecord::Served(served_record())),
        ToLedger::Submit(LedgerRecord::Granted(grant_record())),
        ToLedger::Submit(LedgerRecord::Possession(PossessionRecord {
            id: RecordId::numbered(1),
            edge: PublicKey::numbered(2),
            download: DownloadId::numbered(3),
            guid: Guid::numbered(4),
            version: VersionId::numbered(5),
            outcome: PossessionOutcome::Failed,
            at_ms: 6,
        })),
        ToLedger::Submit(LedgerRecord::Log(log(LogEvent::Login(Login {
            observed: "192.0.2.1:5".parse().expect("an address"),
            secondary: List::truncated([SecondaryGuid::numbered(6), SecondaryGuid::numbered(7)]),
            upload_key: PublicKey::numbered(8),
            uploads: true,
            client_version: 9,
        })))),
        ToLedger::Submit(LedgerRecord::Log(log(LogEvent::Located(GeoLocation {
            locality: locality(),
            at: Some(Coordinates { latitude: 525, longitude: -134 }),
        })))),
        ToLedger::Submit(LedgerRecord::Log(log(LogEvent::Registered(Registered {
            versions: List::truncated([VersionId::numbered(6)]),
        })))),
        ToLedger::Submit(LedgerRecord::Log(log(LogEvent::Offered(Offered {
            download: DownloadId::numbered(6),
            version: VersionId::numbered(7),
            peers: List::truncated([OfferedPeer { intro: IntroId::numbered(8), upload_key: PublicKey::numbered(9) }]),
        })))),
        ToLedger::Submit(LedgerRecord::Log(log(LogEvent::Rekeyed(rekey())))),
        ToLedger::Submit(LedgerRecord::Log(log(LogEvent::Blamed(Blamed {
            intro: IntroId::numbered(6),
            holder: Guid::numbered(7),
            version: VersionId::numbered(8),
            piece: PieceIndex(9),
            block: 10,
        })))),
        ToLedger::Ping,
        ToLedger::Pong,
    ]
}

pub(crate) fn from_ledger() -> Vec<FromLedger> {
    vec![
        FromLedger::Ack(LedgerAck { ids: List::truncated([RecordId::numbered(1)]) }),
        FromLedger::Ping,
        FromLedger::Pong,
        FromLedger::Quarantine(QuarantinePage { guids: List::truncated([Guid::numbered(1)]), last: true }),
        FromLedger::Proven(ProvenCopy { holder: Guid::numbered(1), version: VersionId::numbered(2) }),
    ]
}

pub(crate) fn peer() -> Vec<PeerMsg> {
    vec![
        PeerMsg::Hello(PeerHello { protocol: 1, intro: introduction() }),
        PeerMsg::Welcome(PeerWelcome { protocol: 1, requests_max: 2 }),
        PeerMsg::HaveMap(HaveMap {
            first: PieceIndex(8),
            bits: Blob::new(vec![0b1010_0000]).expect("few bytes"),
            last: true,
        }),
        PeerMsg::Have(Have { pieces: List::truncated([PieceIndex(1), PieceIndex(2)]) }),
        PeerMsg::GoingAway,
        PeerMsg::Receipt(receipt()),
    ]
}

pub(crate) fn mux() -> Vec<MuxMsg> {
    let end = StreamEnd { stream: 0x0102_0304, code: 5 };
    vec![
        MuxMsg::Open(0x0102_0304),
        MuxMsg::Data(StreamData { stream: 6, bytes: Blob::new(vec![7, 8]).expect("few bytes") }),
        MuxMsg::Finish(9),
        MuxMsg::Reset(end.clone()),
        MuxMsg::Stop(end),
        MuxMsg::Taken(10),
        MuxMsg::Ping,
        MuxMsg::Pong,
        MuxMsg::Close(11),
    ]
}
