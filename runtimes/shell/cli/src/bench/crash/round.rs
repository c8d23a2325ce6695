//! One round of `bench crash`: a download, kills at random times, the download's end, and the check of the ledger.

use super::books::{Outcome, Tally};
use super::compare::{Delivered, LedgerFigures};
use super::{Crash, OBJECT, POLL_EVERY, PROVIDER, STEP_WITHIN, Victim};
use crate::Error;
use crate::demo::file;
use crate::demo::network::Client;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use swarmedge_client::client::protocol::{DownloadLine, State};
use swarmedge_ground::rt::Start;

/// Time in ms from the download's start within which kills happen: during the transfer, or while records are
/// reported.
const WITHIN_MS: u64 = 3_000;
/// Longest time in ms before a killed process is restarted.
const AWAY_MS: u64 = 400;

/// A running download and the kills that are planned for it.
pub(super) struct Round {
    downloader: Client,
    output: PathBuf,
    began: Instant,
    /// Planned kills, each with its time after `began`; sorted so that the next one is last.
    plan: Vec<(Duration, Victim)>,
    killed: Vec<Victim>,
}

impl Round {
    /// Starts a new client, waits until all clients have a control connection, plans the kills, and starts the
    /// download.
    pub(super) fn begin<R: Start>(crash: &mut Crash<R>) -> Result<Self, Error> {
        let name = format!("downloader-{}", crash.rounds);
        let output = crash.network.dir.join("out").join(&name);
        let mut downloader = crash.network.client(&name, &crash.program, &crash.interrupt)?;
        let until = Instant::now() + STEP_WITHIN;
        for client in crash.uploaders.iter_mut().chain([&mut downloader]) {
            while !client.status()?.control_connected {
                if Instant::now() > until {
                    return Err(client.error("has not reached the control plane"));
                }
                crash.interrupt.sleep(POLL_EVERY)?;
            }
        }
        // sometimes a second kill: another victim, or the same one about when it was restarted
        let mut plan = Vec::new();
        let first = (Duration::from_millis(crash.below(WITHIN_MS)), crash.victim());
        match crash.below(8) {
            0 => plan.push((Duration::from_millis(crash.below(WITHIN_MS)), crash.victim())),
            1 => plan.push((first.0 + Duration::from_millis(crash.below(2 * AWAY_MS)), first.1)),
            _ => {}
        }
        plan.push(first);
        plan.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        downloader.get(PROVIDER, OBJECT, &output)?;
        Ok(Self { downloader, output, began: Instant::now(), plan, killed: Vec::new() })
    }

    /// Kills processes as planned, waits for the end of the download, then compares the ledger with it.
    pub(super) fn run<R: Start>(mut self, crash: &mut Crash<R>, tally: &mut Tally) -> Result<Outcome, Error> {
        let until = Instant::now() + STEP_WITHIN;
        let line = loop {
            if let Some((at, victim)) = self.plan.last().copied()
                && self.began.elapsed() >= at
            {
                self.plan.pop();
                self.kill(crash, victim)?;
                tally.killed(victim);
                self.killed.push(victim);
            }
            let line = self.downloader.download()?;
            if line.state == State::Completed && self.plan.is_empty() {
                break line;
            }
            if Instant::now() > until {
                return Err(self.downloader.error(&format!("is too slow, after the kill of {:?}", self.killed)));
            }
            crash.network.expect_running()?;
            crash.interrupt.sleep(POLL_EVERY)?;
        };
        self.settle(crash, &line)
    }

    /// Kills one process and restarts it after a short random time.
    fn kill<R: Start>(&mut self, crash: &mut Crash<R>, victim: Victim) -> Result<(), Error> {
        let away = Duration::from_millis(crash.below(AWAY_MS));
        let (network, program, interrupt) = (&mut crash.network, &crash.program, &crash.interrupt);
        match victim {
            Victim::Server(role) => {
                network.kill(role.server());
                interrupt.sleep(away)?;
                network.start(role.server(), interrupt)
            }
            Victim::Uploader(n) => {
                crash.uploaders[n].kill();
                interrupt.sleep(away)?;
                crash.uploaders[n].restart(network, program, interrupt)
            }
            Victim::Downloader => {
                self.downloader.kill();
                interrupt.sleep(away)?;
                self.downloader.restart(network, program, interrupt)
            }
        }
    }

    /// Waits until all clients have reported their usage and the ledger is within its bounds, or [`STEP_WITHIN`] has
    /// passed.
    fn settle<R: Start>(mut self, crash: &mut Crash<R>, line: &DownloadLine) -> Result<Outcome, Error> {
        let (len, sha256) = file::sha256(&self.output).map_err(|e| self.downloader.error(&e.to_string()))?;
        let mut delivered = Delivered {
            download: line.download_id.clone().unwrap_or_default(),
            size: crash.size,
            edge_bytes: line.edge_bytes,
            peer_bytes: line.peer_bytes,
            matches: len == crash.size && sha256 == crash.sha256,
            downloader_cut: self.killed.contains(&Victim::Downloader),
            ..Delivered::default()
        };
        for victim in &self.killed {
            if let Victim::Uploader(n) = victim {
                delivered.cut_uploaders.push(crash.uploaders[*n].status()?.guid);
            }
        }
        let mut outcome = Outcome {
            number: crash.rounds,
            killed: std::mem::take(&mut self.killed),
            delivered,
            in_ledger: LedgerFigures::default(),
            wrong: Vec::new(),
        };
        let until = Instant::now() + STEP_WITHIN;
        loop {
            let mut drained = true;
            for client in crash.uploaders.iter_mut().chain([&mut self.downloader]) {
                let status = client.status()?;
                drained &= status.control_connected && status.usage_unreported == 0;
            }
            crash.books.compare(&mut outcome)?;
            if drained && outcome.wrong.is_empty() || Instant::now() > until {
                break;
            }
            crash.network.expect_running()?;
            crash.interrupt.sleep(POLL_EVERY * 5)?;
        }
        self.downloader.stop();
        // free the disk space of this round
        let _ = std::fs::remove_file(&self.output);
        let _ = std::fs::remove_dir_all(crash.network.dir.join("clients").join(&self.downloader.name));
        Ok(outcome)
    }
}
