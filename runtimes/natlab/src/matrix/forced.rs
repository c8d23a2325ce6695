//! Pairs that cannot connect and are introduced all the same: both peers find out about other, better NATs, which are
//! replaced before the download begins.

use super::Try;
use super::bench::{BE_LISTED, Bench, OBJECT_LEN, SETTLE_WITHIN};
use crate::Kind;
use crate::run::Error;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// What the edge sends to one download, bytes a second: it takes longer than an attempt may.
const EDGE_RATE: u64 = 1024 * 1024;
/// What it takes by itself.
pub(super) const NOMINAL: Duration = Duration::from_secs(OBJECT_LEN as u64 / EDGE_RATE);
/// How long a download may last until it is given up.
const WITHIN: Duration = Duration::from_secs(20);
/// The last attempt may have begun late.
const LAST_ATTEMPT: Duration = Duration::from_secs(1);

/// What a site of this kind is taken for at first.
pub(super) fn disguise(kind: Kind) -> Kind {
    match kind {
        Kind::Symmetric | Kind::SymmetricSequential | Kind::UdpBlocked => Kind::PortRestricted,
        Kind::CgnatSymmetric => Kind::Cgnat,
        Kind::Public
        | Kind::FullCone
        | Kind::Restricted
        | Kind::PortRestricted
        | Kind::PortRestrictedRandom
        | Kind::Firewall
        | Kind::Cgnat
        | Kind::MasqueradeOpen => kind,
    }
}

/// Tries until the two are introduced: a busy machine may keep a peer from being listed in time.
const INTRODUCE_MAX: u32 = 3;

impl Bench {
    /// One try in which the two are introduced, if that can be had.
    pub(super) fn force_until_introduced(&self, program: &Path, seeder: Kind, downloader: Kind) -> Result<Try, Error> {
        let mut tried = self.force(program, seeder, downloader)?;
        for _ in 1..INTRODUCE_MAX {
            if tried.outcome.is_some() {
                break;
            }
            tried = self.force(program, seeder, downloader)?;
        }
        Ok(tried)
    }

    /// One try: both are installed anew, since who is left alone finds out in time.
    fn force(&self, program: &Path, seeder: Kind, downloader: Kind) -> Result<Try, Error> {
        let sites = [(format!("s-{seeder}"), seeder), (format!("d-{downloader}"), downloader)];
        let turn = |truly: bool| {
            let changes = sites.iter().filter(|(_, kind)| disguise(*kind) != *kind);
            changes.into_iter().try_for_each(|(site, k)| self.lab.act_as(site, if truly { *k } else { disguise(*k) }))
        };
        turn(false)?;
        self.lab.separate(&sites[0].0, &sites[1].0)?;
        let mut uploader = Self::seeder((&self.lab, &self.cdn), seeder, program, EDGE_RATE)?;
        let mut client = self.cdn.client(&self.lab, &sites[1].0, program, false)?;
        client.settle(SETTLE_WITHIN)?;
        thread::sleep(BE_LISTED);
        turn(true)?;
        let began = Instant::now();
        let line = client.get(seeder.name(), WITHIN, |_| {})?;
        let took = began.elapsed();
        let line = line.ok_or_else(|| client.error("tells nothing of its download"))?;
        thread::sleep(LAST_ATTEMPT);
        let ends = [client.ends()?, uploader.ends()?];
        let met = client.meetings()?;
        let last = met.last();
        Ok(Try {
            connected: line.peer_bytes > 0 || met.iter().any(|m| m.attempt.outcome == "connected"),
            after_go_ms: None,
            outcome: last.map(|m| m.attempt.reason.clone().unwrap_or_else(|| m.attempt.outcome.clone())),
            probes: met.iter().map(|m| m.attempt.probes).max().unwrap_or(0),
            done_ms: (line.durable_bytes == OBJECT_LEN as u64).then_some(took.as_secs_f64() * 1000.0),
            peer_bytes: line.peer_bytes,
            edge_bytes: line.edge_bytes,
            ends,
        })
    }
}
