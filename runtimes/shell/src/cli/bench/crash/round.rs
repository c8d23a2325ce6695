//! A round: one download, kills at random times, the end of the download, and the books.

use super::books::{Outcome, Tally};
use super::{Crash, LOOK_EVERY, OBJECT, PATIENCE, PROVIDER, Victim};
use crate::cli::Error;
use crate::cli::demo::file;
use crate::cli::demo::network::Client;
use crate::client::protocol::{DownloadLine, State};
use crate::rt::Start;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Kills come within this after the download's start: before, in the middle, and when records are under way.
const WITHIN_MS: u64 = 3_000;
/// Who was killed stays away this long at most.
const AWAY_MS: u64 = 400;

/// A download and what is planned against it.
pub(super) struct Round {
    downloader: Client,
    output: PathBuf,
    began: Instant,
    /// When who is killed, soonest last.
    plan: Vec<(Duration, Victim)>,
    killed: Vec<Victim>,
}

impl Round {
    /// A new client begins to download; everybody is connected.
    pub(super) fn begin<R: Start>(crash: &mut Crash<R>) -> Result<Self, Error> {
        let name = format!("downloader-{}", crash.rounds);
        let output = crash.network.dir.join("out").join(&name);
        let mut downloader = crash.network.client(&name, &crash.program, &crash.interrupt)?;
        let until = Instant::now() + PATIENCE;
        for client in crash.uploaders.iter_mut().chain([&mut downloader]) {
            while !client.status()?.control_connected {
                if Instant::now() > until {
                    return Err(client.error("has not reached the control plane"));
                }
                crash.interrupt.sleep(LOOK_EVERY)?;
            }
        }
        // two at once, or the same again when it has only just come back
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

    /// Kills as planned, lets the download end, and waits until the books are right.
    pub(super) fn play<R: Start>(mut self, crash: &mut Crash<R>, tally: &mut Tally) -> Result<Outcome, Error> {
        let until = Instant::now() + PATIENCE;
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
            crash.interrupt.sleep(LOOK_EVERY)?;
        };
        self.settle(crash, &line)
    }

    /// Kills one and starts it again a little later.
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

    /// Waits until everybody has reported and the ledger is within its bounds, or long enough.
    fn settle<R: Start>(mut self, crash: &mut Crash<R>, line: &DownloadLine) -> Result<Outcome, Error> {
        let (len, sha256) = file::sha256(&self.output).map_err(|e| self.downloader.error(&e.to_string()))?;
        let mut outcome = Outcome {
            number: crash.rounds,
            killed: std::mem::take(&mut self.killed),
            download: line.download_id.clone().unwrap_or_default(),
            // whose introductions a kill has cut
            cut: Vec::new(),
            size: crash.size,
            edge_bytes: line.edge_bytes,
            peer_bytes: line.peer_bytes,
            matches: len == crash.size && sha256 == crash.sha256,
            held: super::books::Held::default(),
            wrong: Vec::new(),
        };
        for victim in &outcome.killed {
            if let Victim::Uploader(n) = victim {
                outcome.cut.push(crash.uploaders[*n].status()?.guid);
            }
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let mut drained = true;
            for client in crash.uploaders.iter_mut().chain([&mut self.downloader]) {
                let status = client.status()?;
                drained &= status.control_connected && status.usage_unreported == 0;
            }
            crash.books.hold(&mut outcome)?;
            if drained && outcome.wrong.is_empty() || Instant::now() > until {
                break;
            }
            crash.network.expect_running()?;
            crash.interrupt.sleep(LOOK_EVERY * 5)?;
        }
        self.downloader.stop();
        // neither is needed any more
        let _ = std::fs::remove_file(&self.output);
        let _ = std::fs::remove_dir_all(crash.network.dir.join("clients").join(&self.downloader.name));
        Ok(outcome)
    }
}
