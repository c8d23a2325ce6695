//! Fuzz bodies for machines on arbitrary inputs: none may panic, hang, or produce outputs without bound.

use crate::play::{START, drive, drive_shifted, one_of, step};
use arbitrary::{Result, Unstructured};
use std::collections::BTreeMap;
use std::time::Duration;
use swarmedge_core::content::{Bitfield, Layout, Policy};
use swarmedge_core::ids::{ConnId, DownloadId, Handle, ProviderId, PublicKey, RawTcpId, ReqId, VersionId, XferId};
use swarmedge_core::limits::{MUX_STREAMS_MAX, MUX_UNREAD_MAX};
use swarmedge_core::machine::{Machine, Time};
use swarmedge_core::mux;
use swarmedge_core::nat::connectivity::RawTcpEvent;
use swarmedge_core::nat::stun;
use swarmedge_core::role::client::io::{
    Command, CommandKind, ControlOutput, EdgeAnswer, EdgeError, EdgeOutput, FetchEnd, Granted, Input, ObjectRef,
    Output, PeerOutput, StoreError,
};
use swarmedge_core::role::client::{self, Client, Restore};
use swarmedge_core::role::{cn, dn};
use swarmedge_core::wire::control::ToCn;
use swarmedge_core::wire::directory::ToDn;
use swarmedge_core::wire::peer::RefuseCode;
use swarmedge_core::wire::records::{ServerRole, SignedGrant};
use swarmedge_models::rng::Seeded;
use swarmedge_models::rule;
use swarmedge_models::scenario::{Name, Role};
use swarmedge_models::sim::{keys, rig::identity};
use swarmedge_models::world::{Action, Budget, System, World};
use swarmedge_models::{control, download};

pub(crate) fn mapping_inputs(bytes: &[u8]) {
    let _ = crate::mapping::play(&mut Unstructured::new(bytes));
}

pub(crate) fn connectivity_inputs(bytes: &[u8]) {
    let _ = crate::connectivity::play(&mut Unstructured::new(bytes));
}

/// Checks the multiplexer of a TCP connection whose peer sends arbitrary bytes and may not read: memory use stays
/// bounded.
pub(crate) fn mux_inputs(bytes: &[u8]) {
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
            m.check();
        }
        m.close(0);
        assert!(
            m.next_frame().is_none_or(|frame| frame.len() == 6) && m.next_frame().is_none(),
            "more than a good-bye"
        );
    }
}

pub(crate) fn discovery_inputs(bytes: &[u8]) {
    let _ = play_discovery(&mut Unstructured::new(bytes));
}

/// Plays NAT discovery with noise, and with answers to its requests that come from right and wrong addresses and have
/// arbitrary attributes.
fn play_discovery(u: &mut Unstructured<'_>) -> Result<()> {
    use swarmedge_core::nat::discovery::io::{Config, Effect, Input, Network, Output, Socket};
    let addrs = [1, 2, 3, 4].map(|n| std::net::SocketAddr::new([198, 51, 100, n & 1].into(), 3478 + u16::from(n & 2)));
    let (mut m, cfg) = (swarmedge_core::nat::discovery::Discovery::default(), Config::default());
    let (mut now, mut rng, mut asked) = (START, Seeded::new(1), Vec::new());
    let hosts = std::vec![keys::addr(1)];
    let network = |n: usize| Network { hosts: hosts.clone(), servers: addrs[..n].to_vec(), gateway: None };
    let mut input = Some(Input::Network(network(2)));
    while !u.is_empty() {
        for output in drive_shifted(&mut m, &cfg, now, &mut rng, input.take()) {
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
                    std::vec![stun::Attribute::XorMapped(mapped), stun::Attribute::OtherAddress(*u.choose(&addrs)?)];
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

/// Numbers of a client machine's requests, writes, connections and transfers that are not answered yet.
#[derive(Default)]
struct Open {
    reqs: Vec<ReqId>,
    saves: Vec<ReqId>,
    conns: Vec<ConnId>,
    xfers: Vec<XferId>,
}

pub(crate) fn client_inputs(bytes: &[u8]) {
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
                Output::Edge(EdgeOutput::Ask { req, .. }) => open.reqs.push(req),
                Output::Save { req, .. } => open.saves.push(req),
                Output::Control(ControlOutput::Dial { conn, .. }) | Output::Peer(PeerOutput::Dial { conn, .. }) => {
                    open.conns.push(conn);
                }
                Output::Edge(EdgeOutput::Fetch { xfer, .. }) | Output::Peer(PeerOutput::Fetch { xfer, .. }) => {
                    open.xfers.push(xfer);
                }
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
        17 => Input::RawTcp(RawTcpEvent::Shown { id: RawTcpId(1 << 63), from: keys::addr(2), bytes: u.arbitrary()? }),
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

fn edge_answer(u: &mut Unstructured<'_>) -> Result<std::result::Result<EdgeAnswer, EdgeError>> {
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
            ticket: u.arbitrary()?,
        })),
        2 | 3 => Ok(EdgeAnswer::Manifest { layout: Layout::for_size(size).ok_or(arbitrary::Error::IncorrectFormat)? }),
        _ => Err(*u.choose(&[
            EdgeError::Unreachable,
            EdgeError::NotFound,
            EdgeError::Changed,
            EdgeError::GrantExpired,
            EdgeError::Invalid,
            EdgeError::Expired,
            EdgeError::Blocked,
            EdgeError::Forbidden,
        ])?),
    })
}

/// Draws the end of a transfer.
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

pub(crate) fn cn_inputs(bytes: &[u8]) {
    let _ = play_cn(&mut Unstructured::new(bytes));
}

fn play_cn(u: &mut Unstructured<'_>) -> Result<()> {
    let cert = keys::cert(Name(Role::Cn, 0), ServerRole::Cn);
    let cfg = cn::Config { geolocation: true, ..cn::Config::new(keys::root(), keys::verify, cert) };
    let (mut m, mut now, mut rng) = (cn::Cn::default(), Time::ZERO, Seeded::new(1));
    let (mut dialled, mut reqs) = (std::vec![ConnId(0)], std::vec![ReqId(0)]);
    drive(&mut m, &cfg, now, &mut rng, Some(cn::Input::WallClock { unix_ms: keys::WALL_MS }));
    while !u.is_empty() {
        step(u, &mut now)?;
        let conn = ConnId(u.int_in_range(0..=3)?);
        let server = *u.choose(&dialled)?;
        let client = Name(Role::Client, u.int_in_range(0..=2)?);
        let input = match u.int_in_range(0..=13_u8)? {
            0 | 1 => Some(cn::Input::ClientAccepted { conn, key: keys::key(client), from: keys::addr(client.1) }),
            2 | 3 => {
                let mut msg: ToCn = u.arbitrary()?;
                if let ToCn::Hello(h) = &mut msg {
                    h.guid = swarmedge_core::ids::Guid::of(&keys::key(client));
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
            11 => Some(cn::Input::Located { conn, location: u.arbitrary()? }),
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

pub(crate) fn dn_inputs(bytes: &[u8]) {
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
                let mut msg: ToDn = u.arbitrary()?;
                if let ToDn::Hello(h) = &mut msg {
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

/// Walks through a world's states, one action per byte, and checks the rules in each state.
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

pub(crate) fn world_control(bytes: &[u8]) {
    let cfg = control::cfg(None);
    walk(bytes, &cfg, control::world(&cfg, GENEROUS), control::RULES);
}

pub(crate) fn world_download(bytes: &[u8]) {
    let Some(layout) = Layout::new(5 * 64 * 1024 + 17, 64 * 1024) else { return };
    let has = Bitfield::full(layout.pieces());
    let peer = |corrupts| download::Peer { has: has.clone(), corrupts, visits: 3 };
    let cfg = download::Cfg {
        download: swarmedge_core::swarm::download::Config::tiny(),
        layout,
        peers: std::vec![peer(true), peer(false), peer(false)],
        mutant: None,
    };
    walk(bytes, &cfg, download::world(&cfg, GENEROUS), download::RULES);
}
