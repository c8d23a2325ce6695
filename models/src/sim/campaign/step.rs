//! Steps of a campaign: users' commands, operators' actions and faults. A step has a text form, so that the trace of a
//! run can be read, shortened and replayed.

use crate::rng::Seeded;
use crate::scenario::{ClientOptions, Command, HONEST, Name, Object, Rig as _, Role};
use crate::sim::Move;
use crate::sim::rig::SimRig;
use crate::world::NodeIx;
use std::fmt;
use std::str::FromStr;

/// Paths of the objects.
pub(super) const PATHS: [&str; 3] = ["one", "two", "three"];

/// A step of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A client starts for the first time.
    Start(u8, ClientOptions),
    /// A client's user gives a command.
    Tell(u8, Command),
    /// A node stops without warning.
    Crash(Name),
    /// A client loses its power, and the nodes that it is connected to do not notice.
    PowerLoss(u8),
    /// A node that is down starts, on its disk.
    Restart(Name),
    /// The disk of a client that is down loses some of its pieces: the share in thousandths, and the seed of the
    /// choice.
    Forget(u8, u32, u64),
    /// A connection breaks; its dialler and its acceptor.
    Break(Name, Name),
    /// A connection breaks, and only its dialler notices.
    HalfBreak(Name, Name),
    /// A transfer breaks; its receiver and its sender.
    StopTransfer(Name, Name),
    /// A transfer between two clients delivers a wrong block; its receiver and its sender.
    Corrupt(Name, Name),
    /// A client leaves its network and joins another.
    Rehome(u8),
    /// A backup of a running client's disk is made; it replaces the one before.
    Backup(u8),
    /// The client of the backup stops, and starts with the disk of the backup.
    SetBack,
    /// A client's installation is copied to another one that was never started, and both run.
    Copy(u8, u8),
    /// A client is put into quarantine or released.
    Quarantine(u8, bool),
    /// The keys that seal grants are rotated.
    RotateKeys,
    /// The spool of an edge refuses every write, or accepts writes again.
    SpoolRefuses(u8, bool),
    /// The next write of a node's disk or database fails.
    WriteFails(Name),
    /// An object is published, or published again: maximum rates of an edge and of an uploader, in bytes per second.
    Publish(&'static str, u64, u64),
    /// An object is withdrawn.
    Withdraw(&'static str),
}

impl Step {
    /// Returns the name of the kind of step, under which its occurrences are counted.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Start(..) => "start",
            Self::Tell(_, Command::Get(_)) => "get",
            Self::Tell(_, Command::Pause(_)) => "pause",
            Self::Tell(_, Command::Resume(_)) => "resume",
            Self::Tell(_, Command::Cancel(_)) => "cancel",
            Self::Tell(_, Command::Uploads(_)) => "uploads",
            Self::Crash(Name(Role::Client, _)) => "crash client",
            Self::Crash(Name(Role::Edge, _)) => "crash edge",
            Self::Crash(Name(Role::Cn, _)) => "crash cn",
            Self::Crash(Name(Role::Dn, _)) => "crash dn",
            Self::Crash(Name(Role::Ledger, _)) => "crash ledger",
            Self::PowerLoss(_) => "power-loss",
            Self::Restart(_) => "restart",
            Self::Forget(..) => "forget",
            Self::Break(..) => "break",
            Self::HalfBreak(..) => "half-break",
            Self::StopTransfer(..) => "stop-transfer",
            Self::Corrupt(..) => "corrupt",
            Self::Rehome(_) => "rehome",
            Self::Backup(_) => "backup",
            Self::SetBack => "set-back",
            Self::Copy(..) => "copy",
            Self::Quarantine(..) => "quarantine",
            Self::RotateKeys => "rotate-keys",
            Self::SpoolRefuses(..) => "spool-refuses",
            Self::WriteFails(Name(Role::Client, _)) => "write-fails client",
            Self::WriteFails(_) => "write-fails server",
            Self::Publish(..) => "publish",
            Self::Withdraw(_) => "withdraw",
        }
    }

    /// Returns whether the step is part of the plan of a campaign, not a fault or another disturbance.
    #[must_use]
    pub const fn is_usual(&self) -> bool {
        matches!(self, Self::Start(..) | Self::Tell(_, Command::Get(_)) | Self::Restart(_) | Self::Backup(_))
    }

    /// Returns whether a download may go on under another download id afterwards, because another grant or key is
    /// needed.
    #[must_use]
    pub const fn may_regrant(&self) -> bool {
        match self {
            Self::SetBack
            | Self::Copy(..)
            | Self::Quarantine(..)
            | Self::RotateKeys
            | Self::SpoolRefuses(..)
            | Self::WriteFails(_)
            | Self::Withdraw(_)
            | Self::Publish(..) => true,
            Self::Start(..)
            | Self::Tell(..)
            | Self::Crash(_)
            | Self::PowerLoss(_)
            | Self::Restart(_)
            | Self::Forget(..)
            | Self::Break(..)
            | Self::HalfBreak(..)
            | Self::StopTransfer(..)
            | Self::Corrupt(..)
            | Self::Rehome(_)
            | Self::Backup(_) => false,
        }
    }

    /// Returns whether a transfer runs that the step can disturb: of the step's client, edge or connection; for a step
    /// without one, any.
    #[must_use]
    pub fn meets_transfer(&self, rig: &SimRig) -> bool {
        let of = |name: Name| rig.cfg.find(name).is_some_and(|ix| is_busy(rig, ix));
        let client = |n| of(Name(Role::Client, n));
        match *self {
            Self::Start(n, _)
            | Self::Tell(n, Command::Uploads(_))
            | Self::PowerLoss(n)
            | Self::Forget(n, ..)
            | Self::Rehome(n)
            | Self::Backup(n)
            | Self::Copy(n, _)
            | Self::Quarantine(n, _) => client(n),
            Self::Tell(
                n,
                Command::Get(path) | Command::Pause(path) | Command::Resume(path) | Command::Cancel(path),
            ) => rig.is_running(n, path),
            Self::SpoolRefuses(n, _) => of(Name(Role::Edge, n)),
            Self::Crash(name) | Self::Restart(name) | Self::WriteFails(name) if has_transfers(name.0) => of(name),
            Self::Break(a, b) | Self::HalfBreak(a, b) => of(a) || has_transfers(b.0) && of(b),
            Self::StopTransfer(..) | Self::Corrupt(..) => true,
            Self::Publish(path, ..) | Self::Withdraw(path) => {
                let clients = rig.cfg.names.iter().filter(|name| name.0 == Role::Client);
                clients.into_iter().any(|name| rig.is_running(name.1, path))
            }
            Self::SetBack | Self::RotateKeys | Self::Crash(_) | Self::Restart(_) | Self::WriteFails(_) => {
                !rig.world.env.pulls.is_empty()
            }
        }
    }

    /// Lets the step happen; `None` if it is impossible now.
    pub fn happen(self, rig: &mut SimRig) -> Option<()> {
        match self {
            Self::Start(n, options) => {
                down(rig, client(n))?;
                rig.start_client(n, options);
            }
            Self::Tell(n, command) => {
                up(rig, client(n))?;
                rig.command(n, command);
            }
            Self::Crash(name) => {
                up(rig, name)?;
                rig.crash(name);
            }
            Self::PowerLoss(n) => rig.happen(Move::PowerLoss(up(rig, client(n))?)),
            Self::Restart(name) => {
                down(rig, name)?;
                rig.restart(name);
            }
            Self::Forget(n, share, seed) => forget(rig, down(rig, client(n))?, share, &mut Seeded::new(seed))?,
            Self::Break(from, to) => rig.happen(Move::Break(link(rig, from, to)?)),
            Self::HalfBreak(from, to) => rig.happen(Move::BreakHalf(link(rig, from, to)?)),
            Self::StopTransfer(to, from) => rig.happen(Move::StopTransfer(transfer(rig, to, from)?)),
            Self::Corrupt(to, from) => rig.happen(Move::Corrupt(transfer(rig, to, from)?)),
            Self::Rehome(n) => rig.happen(Move::Rehome(up(rig, client(n))?)),
            Self::Backup(n) => rig.happen(Move::Image(up(rig, client(n))?)),
            Self::SetBack => {
                let ix = rig.world.env.imaged()?;
                // the memory of the image is not kept: its writes and transfers have ended elsewhere
                [Move::SetBack, Move::Crash(ix), Move::Start(ix)].into_iter().for_each(|mv| rig.happen(mv));
            }
            Self::Copy(from, to) => copy(rig, from, to)?,
            Self::Quarantine(n, on) => {
                up(rig, client(n))?;
                rig.order_quarantine(n, on);
            }
            Self::RotateKeys => rig.rotate_keys(),
            Self::SpoolRefuses(n, on) => {
                rig.cfg.find(Name(Role::Edge, n))?;
                rig.spool_refuses(n, on);
            }
            Self::WriteFails(name) => {
                let ix = up(rig, name)?;
                rig.world.env.write_fails.insert(ix);
            }
            Self::Publish(path, edge_rate, upload_rate) => {
                let size = rig.world.env.objects.get(path)?.layout.size();
                rig.publish(&Object { path, size, edge_rate, upload_rate, uploads_max: 0 });
            }
            Self::Withdraw(path) => rig.unpublish(path),
        }
        Some(())
    }
}

const fn client(n: u8) -> Name {
    Name(Role::Client, n)
}

/// Copies the installation of a running client to one that was never started, and starts both.
fn copy(rig: &mut SimRig, from: u8, to: u8) -> Option<()> {
    up(rig, client(from))?;
    down(rig, client(to)).filter(|_| rig.never_ran(to))?;
    rig.crash(client(from));
    rig.copy_client(from, to);
    [from, to].into_iter().for_each(|n| rig.restart(client(n)));
    Some(())
}

/// Returns whether nodes of this role send or receive blocks.
const fn has_transfers(role: Role) -> bool {
    matches!(role, Role::Client | Role::Edge)
}

/// Returns whether a node sends or receives blocks now.
pub(super) fn is_busy(rig: &SimRig, ix: NodeIx) -> bool {
    rig.world.env.pulls.values().any(|p| p.to.0 == ix || p.from == ix)
}

fn up(rig: &SimRig, name: Name) -> Option<NodeIx> {
    rig.cfg.find(name).filter(|ix| rig.world.node(*ix).is_some())
}

fn down(rig: &SimRig, name: Name) -> Option<NodeIx> {
    rig.cfg.find(name).filter(|ix| rig.world.node(*ix).is_none())
}

/// Returns the oldest open connection of two nodes.
fn link(rig: &SimRig, from: Name, to: Name) -> Option<u64> {
    let (from, to) = (rig.cfg.find(from)?, rig.cfg.find(to)?);
    let mut links = rig.world.env.links.iter();
    links.find(|(_, l)| l.open && !l.half && (l.from.0, l.to.0) == (from, to)).map(|(&id, _)| id)
}

/// Returns the oldest transfer of two nodes whose bytes are being sent.
fn transfer(rig: &SimRig, to: Name, from: Name) -> Option<u64> {
    let (to, from) = (rig.cfg.find(to)?, rig.cfg.find(from)?);
    let mut pulls = rig.world.env.pulls.iter();
    pulls.find(|(_, p)| p.serving && (p.to.0, p.from) == (to, from)).map(|(&id, _)| id)
}

/// Makes the disk of a stopped client lose some of its pieces, at random; `None` if it loses none.
fn forget(rig: &mut SimRig, ix: NodeIx, share: u32, dice: &mut Seeded) -> Option<()> {
    let pieces = rig.world.env.disks.get(&ix).into_iter().flat_map(|disk| &disk.pieces);
    let pieces: Vec<_> = pieces.flat_map(|(version, of_it)| of_it.keys().map(|piece| (*version, *piece))).collect();
    let lost: Vec<_> = pieces.into_iter().filter(|_| dice.chance(share)).collect();
    for (version, piece) in &lost {
        rig.happen(Move::Forget(ix, *version, *piece));
    }
    (!lost.is_empty()).then_some(())
}

const fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // the first word of the kind; what follows it says more
        let word = self.kind().split(' ').next().unwrap_or_default();
        match *self {
            Self::Start(n, o) => write!(f, "{word} {n} {} {}", switch(o.uploads), switch(o.corrupts)),
            Self::Tell(n, Command::Uploads(on)) | Self::Quarantine(n, on) | Self::SpoolRefuses(n, on) => {
                write!(f, "{word} {n} {}", switch(on))
            }
            Self::Tell(
                n,
                Command::Get(path) | Command::Pause(path) | Command::Resume(path) | Command::Cancel(path),
            ) => {
                write!(f, "{word} {n} {path}")
            }
            Self::Crash(name) | Self::Restart(name) | Self::WriteFails(name) => write!(f, "{word} {name}"),
            Self::PowerLoss(n) | Self::Rehome(n) | Self::Backup(n) => write!(f, "{word} {n}"),
            Self::Forget(n, share, seed) => write!(f, "{word} {n} {share} {seed}"),
            Self::Break(a, b) | Self::HalfBreak(a, b) | Self::StopTransfer(a, b) | Self::Corrupt(a, b) => {
                write!(f, "{word} {a} {b}")
            }
            Self::SetBack | Self::RotateKeys => f.write_str(word),
            Self::Copy(from, to) => write!(f, "{word} {from} {to}"),
            Self::Publish(path, edge_rate, upload_rate) => write!(f, "{word} {path} {edge_rate} {upload_rate}"),
            Self::Withdraw(path) => write!(f, "{word} {path}"),
        }
    }
}

/// Returns the object path of that name.
pub(super) fn path(word: &str) -> Option<&'static str> {
    PATHS.into_iter().find(|path| *path == word)
}

fn number<T: FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

fn name(word: &str) -> Option<Name> {
    let at = word.find(|c: char| c.is_ascii_digit())?;
    let (role, n) = word.split_at(at);
    let roles = [Role::Edge, Role::Cn, Role::Dn, Role::Ledger, Role::Client];
    let role = roles.into_iter().find(|r| Name(*r, 0).to_string().trim_end_matches('0') == role)?;
    Some(Name(role, number(n)?))
}

fn switched(word: &str) -> Option<bool> {
    [true, false].into_iter().find(|on| switch(*on) == word)
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        read(&words).ok_or_else(|| format!("no step of a campaign: {line}"))
    }
}

fn read(words: &[&str]) -> Option<Step> {
    Some(match *words {
        ["start", n, uploads, corrupts] => {
            let (uploads, corrupts) = (switched(uploads)?, switched(corrupts)?);
            Step::Start(number(n)?, ClientOptions { uploads, corrupts, ..HONEST })
        }
        ["get", n, p] => Step::Tell(number(n)?, Command::Get(path(p)?)),
        ["pause", n, p] => Step::Tell(number(n)?, Command::Pause(path(p)?)),
        ["resume", n, p] => Step::Tell(number(n)?, Command::Resume(path(p)?)),
        ["cancel", n, p] => Step::Tell(number(n)?, Command::Cancel(path(p)?)),
        ["uploads", n, on] => Step::Tell(number(n)?, Command::Uploads(switched(on)?)),
        ["crash", who] => Step::Crash(name(who)?),
        ["restart", who] => Step::Restart(name(who)?),
        ["power-loss", n] => Step::PowerLoss(number(n)?),
        ["forget", n, share, seed] => Step::Forget(number(n)?, number(share)?, number(seed)?),
        ["break", a, b] => Step::Break(name(a)?, name(b)?),
        ["half-break", a, b] => Step::HalfBreak(name(a)?, name(b)?),
        ["stop-transfer", a, b] => Step::StopTransfer(name(a)?, name(b)?),
        ["corrupt", a, b] => Step::Corrupt(name(a)?, name(b)?),
        ["rehome", n] => Step::Rehome(number(n)?),
        ["backup", n] => Step::Backup(number(n)?),
        ["set-back"] => Step::SetBack,
        ["copy", from, to] => Step::Copy(number(from)?, number(to)?),
        ["quarantine", n, on] => Step::Quarantine(number(n)?, switched(on)?),
        ["rotate-keys"] => Step::RotateKeys,
        ["spool-refuses", n, on] => Step::SpoolRefuses(number(n)?, switched(on)?),
        ["write-fails", who] => Step::WriteFails(name(who)?),
        ["publish", p, edge_rate, upload_rate] => Step::Publish(path(p)?, number(edge_rate)?, number(upload_rate)?),
        ["withdraw", p] => Step::Withdraw(path(p)?),
        _ => return None,
    })
}
