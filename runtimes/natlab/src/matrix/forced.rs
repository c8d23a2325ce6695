//! Measures pairs that cannot connect but are introduced all the same: both peers discover other, better NATs, which
//! are replaced before the download begins.

use super::Try;
use super::bench::{BE_LISTED, Bench, OBJECT_LEN, SETTLE_WITHIN, disguise};
use crate::Kind;
use crate::run::Error;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Limit of the edge's rate for one download, in bytes per second: a download takes longer than a connection attempt.
const EDGE_RATE: u64 = 1024 * 1024;
/// Time that the edge alone takes to deliver the object.
pub(super) const NOMINAL: Duration = Duration::from_secs(OBJECT_LEN as u64 / EDGE_RATE);
/// Time-out of a try's download.
const WITHIN: Duration = Duration::from_secs(20);
/// Time after the download for a connection attempt that began late in it to end.
const LAST_ATTEMPT: Duration = Duration::from_secs(1);

/// Maximum number of tries until the pair is introduced: on a busy machine a peer may be listed at the DN too late.
const INTRODUCE_MAX: u32 = 3;

impl Bench {
    /// Repeats a try until the pair is introduced, at most [`INTRODUCE_MAX`] times.
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

    /// Performs one try with newly installed clients, since a client that keeps running would discover its real NAT.
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
