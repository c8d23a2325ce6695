//! What the fuzz targets do with bytes. A body fails by panicking; the stable tests replay every corpus through it.
#![expect(clippy::wildcard_enum_match_arm, reason = "of the many effects only those that can be answered are kept")]

use super::rule;
use super::scenario::{Name, Role};
use super::sim::{keys, rig::identity};
use super::world::{Action, Budget, System, World};
use super::{control_world, download_world, fuzz_books, fuzz_settling};
use crate::content::{Bitfield, Layout, Manifest, Policy};
use crate::ids::{ConnId, DownloadId, Handle, LineId, ProviderId, PublicKey, ReqId, VersionId, XferId};
use crate::limits::{MUX_STREAMS_MAX, MUX_UNREAD_MAX};
use crate::machine::{Cx, Machine, Time};
use crate::mux;
use crate::nat::NatDescriptor;
use crate::nat::connectivity::LineEvent;
use crate::nat::stun;
use crate::role::client::io::{
    Command, CommandKind, EdgeAnswer, EdgeError, FetchEnd, Granted, Input, ObjectRef, Output, StoreError,
};
use crate::role::client::{self, Client, Restore};
use crate::role::{cn, dn};
use crate::testing::rng::Seeded;
use crate::wire::control::ControlMsg;
use crate::wire::directory::DirectoryMsg;
use crate::wire::ledger::LedgerMsg;
use crate::wire::peer::{PeerMsg, PieceAnswer, PieceRequest, RefuseCode};
use crate::wire::records::{
    EdgeRecord, LedgerRecord, SealedGrant, ServedRecord, ServerRole, SignedGrant, SignedIntroduction, SignedReceipt,
    SignedRekey, UsageRecord,
};
use crate::wire::{Framed, Wire, frame_len};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;
use arbitrary::{Result, Unstructured};
use core::fmt::Debug;
use core::time::Duration;

/// What a target does with bytes.
pub type Body = fn(&[u8]);

/// Every target: its name, and what it does.
pub const TARGETS: &[(&str, Body)] = &[
    ("decode_control", framed::<ControlMsg>),
    ("decode_directory", framed::<DirectoryMsg>),
    ("decode_peer", decode_peer),
    ("decode_ledger", framed::<LedgerMsg>),
    ("decode_records", decode_records),
    ("decode_frame", decode_frame),
    ("decode_manifest", decode_manifest),
    ("decode_stun", decode_stun),
    ("client_inputs", client_inputs),
    ("cn_inputs", cn_inputs),
    ("dn_inputs", dn_inputs),
    ("world_control", world_control),
    ("world_download", world_download),
    ("discovery_inputs", discovery_inputs),
    ("connectivity_inputs", connectivity_inputs),
    ("mux_inputs", mux_inputs),
    ("audit_proofs", fuzz_books::audit_proofs),
    ("logs", fuzz_books::client_logs),
    ("decode_mapping", decode_mapping),
    ("mapping_inputs", mapping_inputs),
    ("audit_days", fuzz_books::audit_days),
    ("grants", fuzz_books::grants),
    ("receipts", fuzz_settling::receipts),
    ("ledger_inputs", fuzz_settling::ledger_inputs),
    ("edge_inputs", fuzz_settling::edge_inputs),
];

/// Runs the target of that name.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(n, _)| *n == name).expect("the target is in the list");
    (target.1)(bytes);
}

/// A frame's content: what decodes has that one encoding.
fn framed<M: Wire + Clone + PartialEq + Debug>(content: &[u8]) {
    if let Ok(Some(frame)) = Framed::<M>::decode(content) {
        let mut back = Vec::new();
        frame.encode(&mut back);
        assert_eq!(&back[4..], content, "another encoding of the same message");
    }
}

pub(super) fn value<T: Wire + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(v) = T::from_bytes(bytes) {
        assert_eq!(v.to_bytes(), bytes, "another encoding of the same value");
    }
}

fn decode_peer(bytes: &[u8]) {
    framed::<PeerMsg>(bytes);
    value::<PieceRequest>(bytes);
    value::<PieceAnswer>(bytes);
    if let (Ok(PeerMsg::HaveMap(map)), Some(&n)) = (PeerMsg::from_bytes(bytes), bytes.first()) {
        let _ = Bitfield::from_bytes(u32::from(n), &map.bits);
    }
}

fn decode_records(bytes: &[u8]) {
    value::<LedgerRecord>(bytes);
    value::<UsageRecord>(bytes);
    value::<SignedReceipt>(bytes);
    value::<EdgeRecord>(bytes);
    value::<ServedRecord>(bytes);
    value::<SignedGrant>(bytes);
    value::<SealedGrant>(bytes);
    value::<SignedIntroduction>(bytes);
    value::<SignedRekey>(bytes);
    value::<NatDescriptor>(bytes);
}

/// A stream of bytes, cut into frames as a reader does.
fn decode_frame(mut stream: &[u8]) {
    while let Ok(Some(n)) = frame_len(stream) {
        assert!(n > 4 && n <= stream.len(), "a frame of {n} bytes in {}", stream.len());
        framed::<ControlMsg>(&stream[4..n]);
        stream = &stream[n..];
    }
}

fn decode_manifest(bytes: &[u8]) {
    if let Ok(m) = Manifest::from_bytes(bytes) {
        assert_eq!(m.to_bytes(), bytes, "another encoding of the same manifest");
        assert_eq!(m.roots().len(), m.layout().pieces() as usize);
    }
}

fn decode_stun(bytes: &[u8]) {
    let _ = stun::integrity::check(bytes, b"key");
    if let Ok(mut m) = stun::Message::decode(bytes) {
        m.unknown.clear();
        let again = stun::Message::decode(&m.encode());
        assert_eq!(again.as_ref(), Ok(&m), "a message changed on its way through the codec");
    }
}

/// What gateways say and are asked.
fn decode_mapping(bytes: &[u8]) {
    use crate::nat::mapping::{natpmp, pcp};
    if let Ok(answer) = pcp::Answer::decode(bytes) {
        assert_eq!(pcp::Answer::decode(&answer.encode()), Ok(answer), "an answer changed on its way");
    }
    if let Ok(request) = pcp::decode_request(bytes) {
        assert_eq!(pcp::decode_request(&request.encode()), Ok(request), "a request changed on its way");
    }
    if let Ok(answer) = natpmp::Answer::decode(bytes) {
        assert_eq!(natpmp::Answer::decode(&answer.encode()), Ok(answer), "an answer changed on its way");
    }
    if let Ok(request) = natpmp::Request::decode(bytes) {
        assert_eq!(natpmp::Request::decode(&request.encode()), Ok(request), "a request changed on its way");
    }
}

fn mapping_inputs(bytes: &[u8]) {
    let _ = super::fuzz_mapping::play(&mut Unstructured::new(bytes));
}

fn connectivity_inputs(bytes: &[u8]) {
    let _ = super::fuzz_connectivity::play(&mut Unstructured::new(bytes));
}

/// A peer that sends whatever it likes to either side, which reads or not: what is held stays bounded.
fn mux_inputs(bytes: &[u8]) {
    for side in [mux::Side::Dials, mux::Side::Accepts] {
        let (mut m, mut bytes) = (mux::Mux::new(side), bytes);
        while let Some((&n, rest)) = bytes.split_first() {
            let (now, later) = rest.split_at(rest.len().min(usize::from(n)));
            bytes = later;
            if m.received(now).is_err() {
                m.close(n);
            }
            assert!(m.unread() <= MUX_UNREAD_MAX && m.open_streams() <= MUX_STREAMS_MAX, "more than allowed");
            let id = m.open().or_else(|| m.accept()).unwrap_or(u32::from(n & 3));
            let _ = m.write(id, &mut bytes::Bytes::copy_from_slice(now));
            match n % 8 {
                0 => m.stop(id, n),
                1 => m.reset(id, n),
                2 => _ = m.finish(id),
                3 => m.ping(),
                4 => _ = m.read(id),
                5 => _ = m.next_frame(),
                _ => {}
            }
        }
        m.close(0);
        assert!(
            m.next_frame().is_none_or(|frame| frame.len() == 6) && m.next_frame().is_none(),
            "more than a good-bye"
        );
    }
}

fn discovery_inputs(bytes: &[u8]) {
    let _ = play_discovery(&mut Unstructured::new(bytes));
}

/// Answers to what was asked, from right and wrong places, with all sorts of attributes; and noise.
fn play_discovery(u: &mut Unstructured<'_>) -> Result<()> {
    use crate::nat::discovery::io::{Config, Effect, Input, Network, Output, Socket};
    let addrs = [1, 2, 3, 4].map(|n| core::net::SocketAddr::new([198, 51, 100, n & 1].into(), 3478 + u16::from(n & 2)));
    let (mut m, cfg) = (crate::nat::discovery::Discovery::default(), Config::default());
    let (mut now, mut rng, mut asked) = (Time::ZERO, Seeded::new(1), Vec::new());
    let hosts = alloc::vec![keys::addr(1)];
    let network = |n: usize| Network { hosts: hosts.clone(), servers: addrs[..n].to_vec(), gateway: None };
    let mut input = Some(Input::Network(network(2)));
    while !u.is_empty() {
        for output in drive(&mut m, &cfg, now, &mut rng, input.take()) {
            if let Output::Effect(Effect::Send { to, bytes, .. }) = output {
                asked.push((to, stun::Message::decode(&bytes).expect("ours").id));
            }
        }
        step(u, &mut now)?;
        let from = *u.choose(&addrs)?;
        let socket = *u.choose(&[Socket::Main, Socket::Main, Socket::Silent, Socket::Asker])?;
        input = match u.int_in_range(0..=7_u8)? {
            0 => Some(Input::Network(network(u.int_in_range(0..=4)?))),
            1 => Some(Input::Tcp { server: from, answer: u.arbitrary()? }),
            2 => Some(Input::Datagram { socket, from, bytes: u.arbitrary()? }),
            3..=5 if !asked.is_empty() => {
                let recent = asked.len().saturating_sub(u.int_in_range(1..=4)?);
                let (to, id) = asked[recent];
                let from = if u.ratio(3, 4)? { to } else { from };
                let mapped = if u.ratio(1, 2)? { addrs[0] } else { *u.choose(&addrs)? };
                let attributes =
                    alloc::vec![stun::Attribute::XorMapped(mapped), stun::Attribute::OtherAddress(*u.choose(&addrs)?)];
                let class = *u.choose(&[stun::Class::Success, stun::Class::Error, stun::Class::Request])?;
                let bytes = stun::Message::new(class, id, attributes).encode();
                Some(Input::Datagram { socket, from, bytes })
            }
            _ => None,
        };
        assert!(!m.is_busy() || m.poll_timeout().is_some(), "a round without an end");
    }
    Ok(())
}

/// Time goes on by up to about a minute, in steps of all sizes.
pub(super) fn step(u: &mut Unstructured<'_>, now: &mut Time) -> Result<()> {
    let by = 1_u64 << u.int_in_range(0..=26_u32)?;
    *now = now.after(Duration::from_micros(by));
    Ok(())
}

/// No input may have more effects than this: an answer is not an amplifier.
const OUTPUTS_MAX: usize = 10_000;

/// One input or timeout; what the machine puts out.
pub(super) fn drive<M: Machine>(
    m: &mut M,
    cfg: &M::Config,
    now: Time,
    rng: &mut Seeded,
    input: Option<M::Input>,
) -> Vec<M::Output> {
    let mut out = Vec::new();
    let mut cx = Cx { now, cfg, rng, out: &mut out };
    match input {
        Some(input) => m.handle_input(&mut cx, input),
        None => m.handle_timeout(&mut cx),
    }
    assert!(out.len() <= OUTPUTS_MAX, "{} effects of one input", out.len());
    out
}

/// What a client has asked for and not been answered.
#[derive(Default)]
struct Open {
    reqs: Vec<ReqId>,
    saves: Vec<ReqId>,
    conns: Vec<ConnId>,
    xfers: Vec<XferId>,
}

fn one_of<T: Copy>(u: &mut Unstructured<'_>, all: &[T], other: T) -> Result<T> {
    if all.is_empty() { Ok(other) } else { Ok(*u.choose(all)?) }
}

fn client_inputs(bytes: &[u8]) {
    let _ = play_client(&mut Unstructured::new(bytes));
}

fn play_client(u: &mut Unstructured<'_>) -> Result<()> {
    let cfg = client::Config::new(identity(1, Name(Role::Client, 1), 0), keys::verify);
    let mut m = Client::restore(&cfg, Restore::default(), u.arbitrary()?);
    let (mut now, mut rng, mut open) = (Time::ZERO, Seeded::new(1), Open::default());
    while !u.is_empty() {
        step(u, &mut now)?;
        let input = if u.ratio(1, 4)? { None } else { Some(client_input(u, &open)?) };
        for output in drive(&mut m, &cfg, now, &mut rng, input) {
            match output {
                Output::EdgeAsk { req, .. } => open.reqs.push(req),
                Output::Save { req, .. } => open.saves.push(req),
                Output::ControlDial { conn, .. } | Output::PeerDial { conn, .. } => open.conns.push(conn),
                Output::Fetch { xfer, .. } => open.xfers.push(xfer),
                _ => {}
            }
        }
    }
    Ok(())
}

fn client_input(u: &mut Unstructured<'_>, open: &Open) -> Result<Input> {
    let conn = one_of(u, &open.conns, ConnId(1 << 63))?;
    let xfer = one_of(u, &open.xfers, XferId(u.len() as u64))?;
    Ok(match u.int_in_range(0..=18_u8)? {
        0 => Input::Command(Command { req: ReqId(1 << 40), kind: command(u)? }),
        1 | 2 => Input::Edge { req: one_of(u, &open.reqs, ReqId(0))?, answer: edge_answer(u)? },
        3 => Input::ControlOpened { conn },
        4 => Input::ControlClosed { conn },
        5 => Input::Control { conn, msg: u.arbitrary()? },
        6 => Input::PeerOpened { conn },
        7 => Input::PeerAccepted { conn: ConnId(1 << 63), key: u.arbitrary()?, from: keys::addr(2) },
        8 => Input::PeerClosed { conn },
        9 => Input::Peer { conn, msg: u.arbitrary()? },
        10 => Input::PeerRequest { conn, xfer, request: u.arbitrary()? },
        11 => Input::Progress { xfer, verified: u.arbitrary()? },
        12 => Input::FetchEnded { xfer, end: fetch_end(u)? },
        13 => {
            let result = if u.ratio(1, 8)? { Err(StoreError::NoSpace) } else { Ok(()) };
            Input::Saved { req: one_of(u, &open.saves, ReqId(0))?, result }
        }
        14 => Input::ServeEnded { xfer, bytes: u.arbitrary()? },
        15 => {
            let [quiet, round_trip] = [u.arbitrary::<u16>()?, u.arbitrary::<u16>()?];
            let [quiet, round_trip] = [quiet, round_trip].map(|ms| Duration::from_millis(ms.into()));
            Input::PeerQuiet { conn, quiet, round_trip }
        }
        16 => Input::Network(u.arbitrary()?),
        17 => Input::Line(LineEvent::Shown { line: LineId(1 << 63), from: keys::addr(2), bytes: u.arbitrary()? }),
        _ => {
            let version = VersionId::numbered(u.int_in_range(0..=3)?);
            let pieces = u.int_in_range(0..=9)?;
            let left = Bitfield::from_bytes(pieces, &[u.arbitrary()?, u.arbitrary()?]);
            Input::VersionLost {
                version,
                left: left.unwrap_or_else(|| Bitfield::full(pieces)),
                sources: BTreeMap::new(),
            }
        }
    })
}

fn command(u: &mut Unstructured<'_>) -> Result<CommandKind> {
    let handle = Handle(u.int_in_range(0..=2)?);
    Ok(match u.int_in_range(0..=6_u8)? {
        0 | 1 => {
            let object = ObjectRef { provider: ProviderId(1), path: u.int_in_range(0..=2_u8)?.to_string() };
            CommandKind::Get { object, output: "out".to_string(), replace: false }
        }
        2 => CommandKind::Pause(handle),
        3 => CommandKind::Resume(handle),
        4 => CommandKind::Cancel(handle),
        5 => CommandKind::Uploads(u.arbitrary()?),
        _ => CommandKind::RemoveCached(VersionId::numbered(u.int_in_range(0..=2)?)),
    })
}

fn edge_answer(u: &mut Unstructured<'_>) -> Result<core::result::Result<EdgeAnswer, EdgeError>> {
    let size = u64::from(u.int_in_range(0..=1_u32 << 20)?);
    Ok(match u.int_in_range(0..=4_u8)? {
        0 => Ok(EdgeAnswer::Bootstrap { cns: u.arbitrary()?, edges: u.int_in_range(0..=3)?, now_ms: u.arbitrary()? }),
        1 => Ok(EdgeAnswer::Granted(Granted {
            download: DownloadId::numbered(u.int_in_range(0..=3)?),
            download_key: PublicKey::numbered(1),
            version: VersionId::numbered(u.int_in_range(0..=3)?),
            size,
            policy: Policy::default(),
            order_seed: u.arbitrary()?,
            expires_ms: u.arbitrary()?,
            sealed: u.arbitrary()?,
        })),
        2 | 3 => Ok(EdgeAnswer::Manifest { layout: Layout::for_size(size).ok_or(arbitrary::Error::IncorrectFormat)? }),
        _ => Err(*u.choose(&[
            EdgeError::Unreachable,
            EdgeError::NotFound,
            EdgeError::Changed,
            EdgeError::GrantExpired,
            EdgeError::Invalid,
        ])?),
    })
}

fn fetch_end(u: &mut Unstructured<'_>) -> Result<FetchEnd> {
    Ok(match u.int_in_range(0..=7_u8)? {
        0..=2 => FetchEnd::Fetched,
        3 => FetchEnd::BadBlock { block: u.arbitrary()? },
        4 => FetchEnd::Refused(RefuseCode::from_code(u.arbitrary()?)),
        5 => FetchEnd::Broken,
        6 => FetchEnd::EdgeRefused(EdgeError::GrantExpired),
        _ => FetchEnd::Cancelled,
    })
}

fn cn_inputs(bytes: &[u8]) {
    let _ = play_cn(&mut Unstructured::new(bytes));
}

fn play_cn(u: &mut Unstructured<'_>) -> Result<()> {
    let cert = keys::cert(Name(Role::Cn, 0), ServerRole::Cn);
    let cfg = cn::Config { geolocation: true, ..cn::Config::new(keys::root(), keys::verify, cert) };
    let (mut m, mut now, mut rng) = (cn::Cn::default(), Time::ZERO, Seeded::new(1));
    let (mut dialled, mut reqs) = (alloc::vec![ConnId(0)], alloc::vec![ReqId(0)]);
    drive(&mut m, &cfg, now, &mut rng, Some(cn::Input::WallClock { unix_ms: keys::WALL_MS }));
    while !u.is_empty() {
        step(u, &mut now)?;
        let conn = ConnId(u.int_in_range(0..=3)?);
        let server = *u.choose(&dialled)?;
        let client = Name(Role::Client, u.int_in_range(0..=2)?);
        let input = match u.int_in_range(0..=13_u8)? {
            0 | 1 => Some(cn::Input::ClientAccepted { conn, key: keys::key(client), from: keys::addr(client.1) }),
            2 | 3 => {
                let mut msg: ControlMsg = u.arbitrary()?;
                if let ControlMsg::Hello(h) = &mut msg {
                    h.guid = crate::ids::Guid::of(&keys::key(client));
                }
                Some(cn::Input::Client { conn, msg })
            }
            4 => Some(cn::Input::ClientClosed { conn }),
            5 => Some(cn::Input::DirectoryOpened { conn: server }),
            6 => Some(cn::Input::DirectoryClosed { conn: server }),
            7 => Some(cn::Input::Directory { conn: server, msg: u.arbitrary()? }),
            8 => Some(cn::Input::Ledger { conn: server, msg: u.arbitrary()? }),
            9 => {
                let grant: Option<SignedGrant> = u.arbitrary()?;
                Some(cn::Input::GrantOpened { req: *u.choose(&reqs)?, grant: grant.map(Box::new) })
            }
            10 => Some(cn::Input::Signed { req: *u.choose(&reqs)?, signature: u.arbitrary()? }),
            11 => Some(cn::Input::Located { conn, place: u.arbitrary()? }),
            12 => Some(cn::Input::Saved { req: *u.choose(&reqs)?, ok: u.arbitrary()? }),
            _ => None,
        };
        for output in drive(&mut m, &cfg, now, &mut rng, input) {
            match output {
                cn::Output::DirectoryDial { conn, .. } | cn::Output::LedgerDial { conn } => dialled.push(conn),
                cn::Output::OpenGrant { req, .. } | cn::Output::Sign { req, .. } | cn::Output::Save { req, .. } => {
                    reqs.push(req);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn dn_inputs(bytes: &[u8]) {
    let _ = play_dn(&mut Unstructured::new(bytes));
}

fn play_dn(u: &mut Unstructured<'_>) -> Result<()> {
    let cfg = dn::Config::new(keys::root(), keys::verify, keys::cert(Name(Role::Dn, 0), ServerRole::Dn));
    let (mut m, mut now, mut rng) = (dn::Dn::default(), Time::ZERO, Seeded::new(1));
    while !u.is_empty() {
        step(u, &mut now)?;
        let conn = ConnId(u.int_in_range(0..=3)?);
        let name = Name(Role::Cn, u.int_in_range(0..=2)?);
        let input = match u.int_in_range(0..=7_u8)? {
            0 | 1 => Some(dn::Input::CnAccepted { conn, key: keys::key(name) }),
            2..=5 => {
                let mut msg: DirectoryMsg = u.arbitrary()?;
                if let DirectoryMsg::Hello(h) = &mut msg {
                    h.cert = keys::cert(name, ServerRole::Cn);
                }
                Some(dn::Input::Cn { conn, msg })
            }
            6 => Some(dn::Input::CnClosed { conn }),
            _ => None,
        };
        drive(&mut m, &cfg, now, &mut rng, input);
    }
    Ok(())
}

/// Walks through a world, an action a byte, and holds every state against the rules.
fn walk<S: System>(bytes: &[u8], cfg: &S::Cfg, mut world: World<S>, rules: &[rule::Rule<S>]) {
    for &byte in bytes.iter().take(400) {
        let mut actions: Vec<Action<S::Move>> = Vec::new();
        world.actions(cfg, &mut actions);
        if actions.is_empty() {
            return;
        }
        world = world.next(cfg, &actions[usize::from(byte) % actions.len()]);
        assert_eq!(rule::broken(rules, cfg, &world), None);
    }
}

const GENEROUS: Budget =
    Budget { drops: 3, duplicates: 0, crashes: 3, corruptions: 2, changes: 1, early: 3, fires: 40 };

fn world_control(bytes: &[u8]) {
    let cfg = control_world::cfg(None);
    walk(bytes, &cfg, control_world::world(&cfg, GENEROUS), control_world::RULES);
}

fn world_download(bytes: &[u8]) {
    let Some(layout) = Layout::new(5 * 64 * 1024 + 17, 64 * 1024) else { return };
    let has = Bitfield::full(layout.pieces());
    let peer = |corrupts| download_world::Peer { has: has.clone(), corrupts, visits: 3 };
    let cfg = download_world::Cfg {
        download: crate::swarm::download::Config::tiny(),
        layout,
        peers: alloc::vec![peer(true), peer(false), peer(false)],
        mutant: None,
    };
    walk(bytes, &cfg, download_world::world(&cfg, GENEROUS), download_world::RULES);
}
