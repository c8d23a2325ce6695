//! `demo`: runs a whole network on this machine, delivers a file to clients, and compares the ledger with the result.

pub mod file;
pub mod network;
pub mod progress;
pub mod report;

use super::args::DemoArgs;
use super::{Code, Error};
use network::{Client, Network, Server, sibling};
use progress::{Progress, Show};
use report::{Outcome, Row, Verdict};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use swarmedge_client::client::protocol::{DownloadLine, State};
use swarmedge_core::content::Policy;
use swarmedge_core::ids::{Digest, DownloadId, ProviderId};
use swarmedge_edge::{Publish, publish};
use swarmedge_ground::terminal::Interrupt;
use swarmedge_ground::terminal::out::say;
use swarmedge_ground::terminal::units::{Size, bytes};
use swarmedge_ledger::{Database, DownloadUsage};

/// Provider of the published object.
const PROVIDER: u32 = 1;
/// Rough duration in seconds of downloads with `--chaos`, set by rate limits.
const CHAOS_LASTS_S: u64 = 5;
/// Interval at which clients are asked for their progress.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// Time limit for clients to open their control connections.
const CONNECTED_WITHIN: Duration = Duration::from_secs(120);
/// Time limit for the last records to reach the ledger.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// Function that reads the usage of one download from the ledger's database.
pub type AskLedger<'a> = &'a dyn Fn(&Database, DownloadId) -> Result<Option<DownloadUsage>, Error>;

/// The published file that is delivered.
struct Object {
    file: PathBuf,
    path: String,
    size: u64,
    sha256: Digest,
}

/// Runs the command `swarmedge demo`.
pub fn run(args: &DemoArgs, json: bool, ledger: AskLedger<'_>) -> Result<(), Error> {
    let this = std::env::current_exe().map_err(|e| Error::io("find this program's file", &e))?;
    let other = if args.mixed { sibling(&this)? } else { this.clone() };
    if let Some(file) = &args.file {
        fs::File::open(file).map_err(|e| Error::io(format_args!("read {}", file.display()), &e))?;
    }
    let interrupt = Interrupt::listen()?;
    let dir = WorkDir::make(args.dir.as_deref(), "swarmedge-demo", args.keep)?;
    let show = Show::for_terminal(json);
    let network = Network::make(&dir.path, &this)?;
    let mut demo = Demo { args, show, interrupt, programs: [this, other], network, clients: Vec::new(), ledger };
    let rows = demo.run()?;
    let clean = demo.end();
    demo.print(&rows, json, &clean)?;
    let wrong = rows.iter().find(|(o, _, v)| !o.matches || !v.agrees());
    match wrong {
        None if clean.is_empty() => Ok(()),
        None => Err(Error::failed(clean.join("; "))),
        Some((o, ..)) if !o.matches => Err(Error::failed(format!("the file of {} is not what was published", o.name))),
        Some((o, ..)) => Err(Error::failed(format!("the ledger disagrees about {}", o.name))),
    }
}

struct Demo<'a> {
    args: &'a DemoArgs,
    show: Show,
    interrupt: Interrupt,
    /// Programs of the clients, used in turn: this binary, and with `--mixed` the other runtime's.
    programs: [PathBuf; 2],
    network: Network,
    /// Running clients: the seeders, then the downloaders.
    clients: Vec<Client>,
    ledger: AskLedger<'a>,
}

impl Demo<'_> {
    fn run(&mut self) -> Result<Vec<Row>, Error> {
        let object = self.object()?;
        let (edge_limit, upload_limit) = self.limits(object.size);
        // no edge limit while the seeders download
        self.publish(&object, 0, upload_limit)?;
        for server in Server::ALL {
            self.network.start(server, &self.interrupt)?;
        }
        self.show.say(&format!(
            "Swarmedge demo in {}\n  file     {} ({})\n  servers  edge and ledger, connection node (cn), database node (dn), STUN",
            self.network.dir.display(),
            object.path,
            bytes(object.size)
        ));
        let seeders = self.args.peers as usize;
        for i in 1..=seeders {
            self.start_client(&format!("seeder-{i}"))?;
        }
        let mut rows = self.deliver(&object, 0..seeders, false)?;
        if edge_limit > 0 {
            self.publish(&object, edge_limit, upload_limit)?;
        }
        for i in 1..=self.args.downloads {
            self.start_client(&format!("download-{i}"))?;
        }
        self.wait_connected()?;
        rows.extend(self.deliver(&object, seeders..self.clients.len(), self.args.chaos)?);
        if self.args.chaos {
            self.restart()?;
        }
        self.settle(rows)
    }

    /// Chooses or generates the file to deliver, and hashes it.
    fn object(&self) -> Result<Object, Error> {
        let file = match &self.args.file {
            Some(file) => file.clone(),
            None => {
                let Size(size) = self.args.size;
                let file = self.network.dir.join("file.bin");
                self.show.say(&format!("generating {}", bytes(size)));
                file::generate(&file, size, u64::from(std::process::id()))?;
                file
            }
        };
        let (size, sha256) = file::sha256(&file)?;
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or("file").to_owned();
        Ok(Object { file, path: format!("demo/{name}"), size, sha256 })
    }

    /// Returns the limits of the edge for one download and of one client's uploads, in bytes per second; 0 is no limit.
    /// With `--chaos` the limits make downloads last long enough for the kills, on any machine.
    fn limits(&self, size: u64) -> (u64, u64) {
        let asked = self.args.edge_limit.map(|rate| rate.0);
        if !self.args.chaos {
            return (asked.unwrap_or(0), 0);
        }
        let per_download = (size / CHAOS_LASTS_S).max(1 << 20);
        let all = per_download.saturating_mul(u64::from(self.args.downloads));
        (asked.unwrap_or(per_download / 2), all / u64::from(self.args.peers.max(1)))
    }

    /// Publishes the object with these rate limits, or changes the limits of the published one.
    fn publish(&self, object: &Object, edge_rate_max: u64, upload_rate_max: u64) -> Result<(), Error> {
        let policy = Policy { edge_rate_max, upload_rate_max, ..Policy::default() };
        let (file, path) = (object.file.clone(), object.path.clone());
        publish(
            &self.network.dir.join("edge/objects"),
            &Publish { file, provider: ProviderId(PROVIDER), path, access: None, policy: Some(policy.into()) },
        )?;
        Ok(())
    }

    fn start_client(&mut self, name: &str) -> Result<(), Error> {
        let program = &self.programs[self.clients.len() % 2];
        self.clients.push(self.network.client(name, program, &self.interrupt)?);
        Ok(())
    }

    fn wait_connected(&mut self) -> Result<(), Error> {
        let until = Instant::now() + CONNECTED_WITHIN;
        for client in &mut self.clients {
            while !client.status()?.control_connected {
                if Instant::now() > until {
                    return Err(client.error("has not reached the control plane"));
                }
                self.interrupt.sleep(POLL_EVERY)?;
            }
        }
        Ok(())
    }

    /// Downloads the object on the clients of a range at once. With `chaos`, kills servers and a seeder half way.
    fn deliver(&mut self, object: &Object, range: std::ops::Range<usize>, chaos: bool) -> Result<Vec<Row>, Error> {
        let out = |name: &str| self.network.dir.join("out").join(name);
        let names: Vec<String> = self.clients[range.clone()].iter().map(|c| c.name.clone()).collect();
        let outputs: Vec<PathBuf> = names.iter().map(|n| out(n)).collect();
        let began = Instant::now();
        for (client, output) in self.clients[range.clone()].iter_mut().zip(&outputs) {
            client.get(PROVIDER, &object.path, output)?;
        }
        let mut progress = Progress::new(self.show, &names, object.size);
        let mut times = vec![None; names.len()];
        let mut killed = !chaos;
        let lines = loop {
            let lines: Vec<DownloadLine> =
                self.clients[range.clone()].iter_mut().map(Client::download).collect::<Result<_, _>>()?;
            progress.update(&lines);
            for (time, line) in times.iter_mut().zip(&lines) {
                if time.is_none() && line.state == State::Completed {
                    *time = Some(began.elapsed());
                }
            }
            if !killed && half_way(&lines, object.size) {
                self.kill_half(&progress);
                killed = true;
            }
            if times.iter().all(Option::is_some) {
                break lines;
            }
            self.network.expect_running()?;
            if began.elapsed() > Duration::from_secs(self.args.timeout) {
                let slow = times.iter().position(Option::is_none).unwrap_or(0);
                return Err(self.clients[range.start + slow].error("is too slow: --timeout has passed"));
            }
            self.interrupt.sleep(POLL_EVERY)?;
        };
        drop(progress);
        let mut rows = Vec::new();
        for (i, line) in lines.iter().enumerate() {
            let runtime = self.clients[range.start + i].status()?.runtime;
            // if the file of a complete download is missing, the error shows the client's log
            let (len, sha256) =
                file::sha256(&outputs[i]).map_err(|e| self.clients[range.start + i].error(&e.to_string()))?;
            rows.push((
                Outcome {
                    name: names[i].clone(),
                    runtime,
                    id: line.download_id.clone().unwrap_or_default(),
                    size: object.size,
                    edge_bytes: line.edge_bytes,
                    peer_bytes: line.peer_bytes,
                    wasted_bytes: line.wasted_bytes,
                    time: times[i].unwrap_or_default(),
                    matches: len == object.size && sha256 == object.sha256,
                },
                None,
                Verdict::default(),
            ));
        }
        Ok(rows)
    }

    /// Kills the CN, the DN and the first seeder with SIGKILL.
    fn kill_half(&mut self, progress: &Progress) {
        progress.say("  half way: killing cn, dn and seeder-1");
        self.network.kill(Server::Cn);
        self.network.kill(Server::Dn);
        if self.args.peers > 0 {
            self.clients[0].kill();
        }
    }

    /// Restarts the killed processes, so that clients can send their usage records.
    fn restart(&mut self) -> Result<(), Error> {
        self.show.say("  starting cn, dn and seeder-1 again, so that usage records reach the ledger");
        self.network.start(Server::Dn, &self.interrupt)?;
        self.network.start(Server::Cn, &self.interrupt)?;
        if self.args.peers > 0 {
            self.clients[0] = self.network.client("seeder-1", &self.programs[0], &self.interrupt)?;
        }
        Ok(())
    }

    /// Returns whether every client has reported all its usage and the ledger has recorded it.
    fn all_reported(&mut self, rows: &[Row]) -> Result<bool, Error> {
        for client in &mut self.clients {
            let status = client.status()?;
            let uploaders = rows.iter().filter_map(|(_, bill, _)| bill.as_ref()).flat_map(|bill| &bill.uploaders);
            let recorded: u64 = uploaders.filter(|u| u.guid == status.guid).map(|u| u.sent).sum();
            if !status.control_connected || status.usage_unreported > 0 || recorded != status.uploaded_bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until the ledger agrees with the clients, or [`SETTLED_WITHIN`] has passed.
    fn settle(&mut self, mut rows: Vec<Row>) -> Result<Vec<Row>, Error> {
        let database = self.network.dir.join("ledger/ledger.sqlite").into();
        let silenced = (self.args.chaos && self.args.peers > 0).then_some("seeder-1");
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            for (outcome, bill, verdict) in &mut rows {
                let id = outcome.id.parse().map_err(|_| Error::failed(format!("{} has no download", outcome.name)))?;
                *bill = (self.ledger)(&database, id)?;
                *verdict = Verdict::of(outcome, bill.as_ref(), silenced);
            }
            // bytes that a killed seeder did not report are known as lost only when all others have reported
            let settled =
                rows.iter().all(|(_, _, v)| v.agrees()) && (silenced.is_none() || self.all_reported(&rows)?);
            if settled || Instant::now() > until {
                return Ok(rows);
            }
            self.network.expect_running()?;
            self.interrupt.sleep(Duration::from_millis(200))?;
        }
    }

    /// Ends every process cleanly; returns a sentence for each server that failed to end so.
    fn end(&mut self) -> Vec<String> {
        self.clients.iter_mut().for_each(Client::stop);
        self.network.stop()
    }

    fn print(&self, rows: &[Row], json: bool, unclean: &[String]) -> Result<(), Error> {
        let kept = self.args.keep.then(|| self.network.dir.display().to_string());
        if json {
            let ok = unclean.is_empty() && rows.iter().all(|(o, _, v)| o.matches && v.agrees());
            let downloads: Vec<_> = rows.iter().map(report::json).collect();
            let all = serde_json::json!({"ok": ok, "downloads": downloads, "dir": kept, "unclean_ends": unclean});
            return say!("{all}");
        }
        let seeders = self.args.peers as usize;
        say!("\n{}\n{}", report::table(rows, seeders), report::words(rows, seeders))?;
        let program = std::env::args().next().unwrap_or_else(|| "swarmedge".into());
        kept.as_ref().map_or(Ok(()), |dir| say!("kept: {dir}"))?;
        say!("{}", report::next(&program, kept.as_deref()))
    }
}

fn half_way(lines: &[DownloadLine], size: u64) -> bool {
    let done: u64 = lines.iter().map(|l| l.edge_bytes.saturating_add(l.peer_bytes)).sum();
    done >= size.saturating_mul(lines.len() as u64) / 2
}

/// Working directory that is deleted when the value is dropped, unless `keep` is set.
pub(crate) struct WorkDir {
    pub(crate) path: PathBuf,
    keep: bool,
}

impl WorkDir {
    /// Makes a new directory in `parent`, or in the system's directory for temporary files.
    pub(crate) fn make(parent: Option<&Path>, name: &str, keep: bool) -> Result<Self, Error> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let path = parent.join(format!("{name}-{}", std::process::id()));
        if path.exists() {
            return Err(Error::new(Code::Failed, format!("{} is there already", path.display())).next("remove it"));
        }
        network::make_dir(&path)?;
        let path = path.canonicalize().map_err(|e| Error::io(format_args!("use {}", path.display()), &e))?;
        Ok(Self { path, keep })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if !self.keep {
            // a directory that cannot be deleted stays among the temporary files
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
