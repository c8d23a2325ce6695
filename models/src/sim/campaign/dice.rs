//! Draws the steps of a campaign. All draws come from one generator, so a seed determines them together with the state
//! of the deployment. Steps that affect transfers are aimed at running ones most of the time.

use super::step::{PATHS, Step, is_busy};
use crate::rng::Seeded;
use crate::scenario::{ClientOptions, Command, HONEST, Name, Role};
use crate::sim::links::Kind;
use crate::sim::rig::SimRig;
use std::time::Duration;
use swarmedge_core::machine::{Rng as _, Time};
use swarmedge_core::role::client::io::DownloadState;

/// Number of kinds of steps that any campaign may draw.
const USUAL: u32 = 14;
/// Number of all kinds. Those from `USUAL` on let downloads go on under other download ids, so only every fourth seed
/// has them: in the others each download must be billed under one id to the byte.
const ALL: u32 = 23;
/// Share of the draws, in thousandths, that are aimed at running transfers.
const AIMED: u32 = 800;
/// Maximum time for which a crashed node is down, in milliseconds.
const DOWN_MS: u32 = 5_000;
/// Limits of an edge's and an uploader's rate, from which an object's are drawn, in bytes per second.
const RATES: [u64; 4] = [1 << 16, 1 << 17, 1 << 18, 1 << 20];

/// State of the draws.
pub(super) struct Dice {
    dice: Seeded,
    /// Kinds of steps that this seed has, as bits.
    kinds: u32,
    /// Chance of a fault at each draw, in thousandths.
    chance: u32,
    /// Clients that were not started yet.
    starts: Vec<u8>,
    /// Crashed nodes, and when each is to start again.
    down: Vec<(Time, Name)>,
}

impl Dice {
    pub(super) fn new(seed: u64, clients: u8) -> Self {
        let mut dice = Seeded::new(seed ^ 0x0064_6963_6521);
        let any = if (seed / 2).is_multiple_of(4) { (1 << ALL) - 1 } else { (1 << USUAL) - 1 };
        let kinds = u32::try_from(dice.next() & any).unwrap_or(0);
        let chance = 20 + dice.below(300);
        Self { dice, kinds, chance, starts: (0..clients).collect(), down: Vec::new() }
    }

    /// Draws a rate limit for an object; 0: no limit.
    pub(super) fn rate(dice: &mut Seeded) -> u64 {
        if dice.chance(100) { 0 } else { RATES[dice.below(4) as usize] }
    }

    /// Draws the steps that happen now, in order.
    pub(super) fn draw(&mut self, rig: &SimRig) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.starts.is_empty() && self.dice.chance(50) {
            let client = self.starts.remove(0);
            let options = ClientOptions { uploads: self.dice.chance(800), corrupts: self.dice.chance(150), ..HONEST };
            steps.push(Step::Start(client, options));
        }
        if self.dice.chance(100)
            && let Some(Name(_, client)) = self.running(rig, Role::Client)
            && let Some(path) = self.pick(&PATHS)
        {
            steps.push(Step::Tell(client, Command::Get(path)));
        }
        steps.extend(self.come_back(rig));
        if self.dice.chance(self.chance) {
            let kind = self.dice.below(ALL);
            steps.extend((self.kinds & (1 << kind) != 0).then(|| self.fault(rig, kind)).flatten());
        }
        steps
    }

    /// Returns the starts of crashed nodes whose time is over; half of the clients have lost pieces by then.
    fn come_back(&mut self, rig: &SimRig) -> Vec<Step> {
        let now = rig.world.now;
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.down).into_iter().partition(|(at, _)| *at <= now);
        self.down = later;
        let mut steps = Vec::new();
        for (_, name) in due {
            if name.0 == Role::Client && self.dice.chance(500) {
                steps.push(Step::Forget(name.1, self.dice.below(1_000), self.dice.next()));
            }
            steps.push(Step::Restart(name));
        }
        steps
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let n = u32::try_from(all.len()).unwrap_or(0);
        if n == 0 { None } else { all.get(self.dice.below(n) as usize).copied() }
    }

    /// Picks one of `all`; most of the time one of those for which `aim` holds, if there is any.
    fn aim<T: Copy>(&mut self, all: &[T], aim: impl Fn(&T) -> bool) -> Option<T> {
        let aimed: Vec<T> = all.iter().filter(|one| aim(one)).copied().collect();
        let aimed = !aimed.is_empty() && self.dice.chance(AIMED);
        let chosen: Vec<T> = all.iter().filter(|one| !aimed || aim(one)).copied().collect();
        self.pick(&chosen)
    }

    /// Picks a running node of this role, most of the time one with a running transfer.
    fn running(&mut self, rig: &SimRig, role: Role) -> Option<Name> {
        let up = |name: &Name| rig.cfg.find(*name).is_some_and(|ix| rig.world.node(ix).is_some());
        let all: Vec<Name> = rig.cfg.names.iter().copied().filter(|n| n.0 == role && up(n)).collect();
        self.aim(&all, |name| rig.cfg.find(*name).is_some_and(|ix| is_busy(rig, ix)))
    }

    fn client(&mut self, rig: &SimRig) -> Option<u8> {
        self.running(rig, Role::Client).map(|Name(_, n)| n)
    }

    /// Picks a client and the path of one of its downloads in this state.
    fn download(&mut self, rig: &SimRig, state: DownloadState) -> Option<(u8, &'static str)> {
        let clients = rig.cfg.names.iter().filter(|name| name.0 == Role::Client);
        let all: Vec<_> = clients.flat_map(|name| PATHS.map(|path| (name.1, path))).collect();
        let all: Vec<_> = all.into_iter().filter(|(n, path)| rig.state(*n, path) == Some(state)).collect();
        self.pick(&all)
    }

    /// Draws a fault or another disturbance of this kind; `None` if nothing is there that it could affect.
    fn fault(&mut self, rig: &SimRig, kind: u32) -> Option<Step> {
        Some(match kind {
            0 => self.crash(rig, Role::Client)?,
            1 => self.crash(rig, Role::Edge)?,
            2 => self.crash(rig, Role::Cn)?,
            3 => self.crash(rig, Role::Dn)?,
            4 => self.crash(rig, Role::Ledger)?,
            5 | 6 => self.connection(rig, kind == 5)?,
            7 => {
                let pauses = self.dice.chance(500);
                let state = if pauses { DownloadState::Running } else { DownloadState::Paused };
                let (client, path) = self.download(rig, state)?;
                Step::Tell(client, if pauses { Command::Pause(path) } else { Command::Resume(path) })
            }
            8 => Step::Tell(self.client(rig)?, Command::Uploads(self.dice.chance(500))),
            9 => {
                let (client, path) = self.download(rig, DownloadState::Running)?;
                Step::Tell(client, Command::Cancel(path))
            }
            10 | 11 => self.transfer(rig, kind == 10)?,
            12 => Step::Rehome(self.client(rig)?),
            13 => {
                let name = self.running(rig, Role::Client)?;
                Step::PowerLoss(self.stop(name, rig).1)
            }
            _ => self.rare(rig, kind)?,
        })
    }

    /// Draws a disturbance after which a download may go on under another download id.
    fn rare(&mut self, rig: &SimRig, kind: u32) -> Option<Step> {
        Some(match kind {
            14 => Step::Backup(self.client(rig)?),
            15 => rig.world.env.imaged().map(|_| Step::SetBack)?,
            16 => {
                let to = self.starts.pop()?;
                Step::Copy(self.client(rig)?, to)
            }
            17 => Step::Quarantine(self.client(rig)?, self.dice.chance(600)),
            18 => Step::RotateKeys,
            19 => Step::SpoolRefuses(self.running(rig, Role::Edge)?.1, self.dice.chance(400)),
            20 => {
                let roles = [Role::Client, Role::Client, Role::Edge, Role::Cn, Role::Ledger];
                let role = self.pick(&roles)?;
                Step::WriteFails(self.running(rig, role)?)
            }
            21 => Step::Withdraw(self.pick(&PATHS)?),
            _ => Step::Publish(self.pick(&PATHS)?, Self::rate(&mut self.dice), Self::rate(&mut self.dice)),
        })
    }

    fn crash(&mut self, rig: &SimRig, role: Role) -> Option<Step> {
        let name = self.running(rig, role)?;
        Some(Step::Crash(self.stop(name, rig)))
    }

    /// Plans that a node which stops now starts again.
    fn stop(&mut self, name: Name, rig: &SimRig) -> Name {
        let away = Duration::from_millis(u64::from(self.dice.below(DOWN_MS)));
        self.down.push((rig.world.now.after(away), name));
        name
    }

    /// Draws a connection that breaks: most of the time one between clients. `both`: whether both ends notice.
    fn connection(&mut self, rig: &SimRig, both: bool) -> Option<Step> {
        let name = |ix: u8| rig.cfg.names.get(usize::from(ix)).copied();
        let open = rig.world.env.links.values().filter(|l| l.open && !l.half);
        let all: Vec<_> = open.filter_map(|l| Some((name(l.from.0)?, name(l.to.0)?, l.kind))).collect();
        let (from, to, _) = self.aim(&all, |(.., kind)| *kind == Kind::Peer)?;
        Some(if both { Step::Break(from, to) } else { Step::HalfBreak(from, to) })
    }

    /// Draws a running transfer, which breaks or delivers a wrong block. Only clients deliver wrong blocks.
    fn transfer(&mut self, rig: &SimRig, breaks: bool) -> Option<Step> {
        let name = |ix: u8| rig.cfg.names[usize::from(ix)];
        let sent = rig.world.env.pulls.values().filter(|p| p.serving && (breaks || p.link.is_some()));
        let all: Vec<_> = sent.map(|p| (name(p.to.0), name(p.from), p.half)).collect();
        let (to, from, _) = self.aim(&all, |(.., half)| *half)?;
        Some(if breaks { Step::StopTransfer(to, from) } else { Step::Corrupt(to, from) })
    }
}
