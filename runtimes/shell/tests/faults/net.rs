//! One deployment of real processes. Each role is a process of its own, with a control file by which its calls fail.

use super::kinds::Role;
use super::preload::{Control, VARIABLE};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use swarmedge_cli::bench::crash::compare::Delivered;
use swarmedge_cli::demo::file;
use swarmedge_cli::demo::network::{Client, Network, Server};
use swarmedge_client::client::protocol::{DownloadLine, State};
use swarmedge_core::content::Policy;
use swarmedge_core::ids::{Digest, ProviderId};
use swarmedge_edge::{Publish, publish};
use swarmedge_ground::error::Error;
use swarmedge_ground::terminal::Interrupt;

/// Time-out of each wait, generous for busy machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
/// Interval at which processes are asked.
pub(crate) const POLL_EVERY: Duration = Duration::from_millis(100);
/// Time that a new client may take to reach the control plane, before it downloads without.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// Size of the object, and the rates of the edge for one download and of one uploader, in bytes (a second): a download
/// takes some seconds, so that faults hit it.
const SIZE: u64 = 3_000_000;
const EDGE_RATE: u64 = 600_000;
const UPLOAD_RATE: u64 = 1_500_000;
const PROVIDER: u32 = 1;
const OBJECT: &str = "object.bin";
/// Last lines of each log that a failure shows.
const TAIL_LINES: usize = 15;

/// Server roles in their starting order, with their processes.
pub(crate) const SERVERS: [(Role, Server); 5] = [
    (Role::Ledger, Server::Ledger),
    (Role::Edge, Server::EdgeAlone),
    (Role::Dn, Server::Dn),
    (Role::Cn, Server::Cn),
    (Role::Stun, Server::Stun),
];

/// A running deployment with one client that has the object.
pub(crate) struct Net {
    pub(crate) network: Network,
    pub(crate) seeder: Client,
    pub(crate) interrupt: Interrupt,
    /// Starts the binary with the preload library and the control file of its process.
    pub(crate) program: PathBuf,
    controls: BTreeMap<String, Control>,
    sha256: Digest,
    clients: u32,
    /// How often the object was published.
    published: u64,
}

/// Reaction of the harness to a failed download of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// The test fails: the client itself meets no fault.
    Fails,
    /// The client waits by itself until its disk has room again.
    Waits,
    /// The client's files could not be used: its user asks for the same download again.
    AsksAgain,
}

/// A client that downloads the object into an empty directory.
pub(crate) struct Download {
    pub(crate) client: Client,
    output: PathBuf,
    /// Whether the download has ended with an error of the client's own disk and was asked for again.
    pub(crate) asked_again: bool,
}

impl Net {
    /// Starts the servers and the seeder of a new deployment in `dir`, and lets the seeder download the object.
    pub(crate) fn start(dir: &Path, library: &Path) -> Result<Self, Error> {
        let program = dir.join("program");
        fs::create_dir_all(dir.join("control")).expect("made");
        fs::write(&program, script(dir, library)).expect("writes");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its own file");
        let mut network = Network::make(dir, &program)?;
        let source = dir.join("object");
        file::generate(&source, SIZE, 1)?;
        let (_, sha256) = file::sha256(&source)?;
        let names = Role::ALL.map(Role::name).into_iter().filter(|name| *name != Role::Downloader.name());
        let controls = names.map(|name| (name.to_owned(), Control::make(&dir.join("control").join(name)))).collect();
        let interrupt = Interrupt::never();
        put(dir, 0)?;
        for (_, server) in SERVERS {
            network.start(server, &interrupt)?;
        }
        let seeder = network.client(Role::Seeder.name(), &program, &interrupt)?;
        let mut net = Self { network, seeder, interrupt, program, controls, sha256, clients: 0, published: 1 };
        net.connect_seeder()?;
        net.seeder.get(PROVIDER, OBJECT, &dir.join("out/seeder"))?;
        let until = Instant::now() + PATIENCE;
        while net.seeder.download()?.state != State::Completed {
            if Instant::now() > until {
                return Err(net.seeder.error("is too slow"));
            }
            sleep(POLL_EVERY);
        }
        Ok(net)
    }

    /// Waits until the seeder is connected to the control plane.
    pub(crate) fn connect_seeder(&mut self) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        while !self.seeder.status()?.control_connected {
            if Instant::now() > until {
                return Err(self.seeder.error("does not reach the control plane"));
            }
            sleep(POLL_EVERY);
        }
        Ok(())
    }

    /// Publishes the object again, so that a running edge reads its catalogue again.
    pub(crate) fn publish_again(&mut self) -> Result<(), Error> {
        self.published += 1;
        put(&self.network.dir, self.published)
    }

    /// Returns the control file of a process, by the name of its role or client.
    pub(crate) fn control(&self, name: &str) -> &Control {
        &self.controls[name]
    }

    /// Starts a new client and its download of the object. Calls of a victim can be made to fail.
    pub(crate) fn begin(&mut self, is_victim: bool) -> Result<Download, Error> {
        self.clients += 1;
        let name = format!("client-{}", self.clients);
        if is_victim {
            let control = Control::make(&self.network.dir.join("control").join(&name));
            self.controls.insert(name.clone(), control);
        }
        let mut client = self.network.client(&name, &self.program, &self.interrupt)?;
        let until = Instant::now() + CONNECTS_WITHIN;
        while !client.status()?.control_connected && Instant::now() < until {
            sleep(POLL_EVERY);
        }
        let output = self.network.dir.join("out").join(&name);
        client.get(PROVIDER, OBJECT, &output)?;
        Ok(Download { client, output, asked_again: false })
    }

    /// Waits for the end of a download, and checks its file.
    pub(crate) fn finish(&self, download: &mut Download, on_failure: OnFailure) -> Result<Delivered, Error> {
        let until = Instant::now() + PATIENCE;
        let line = loop {
            let line = download.newest()?;
            match line.state {
                State::Completed => break line,
                State::Failed if on_failure == OnFailure::AsksAgain => {
                    download.asked_again = true;
                    download.client.get(PROVIDER, OBJECT, &download.output)?;
                }
                State::Failed if on_failure == OnFailure::Fails => {
                    let why = line.failure.map(|failure| Error::from(failure).to_string()).unwrap_or_default();
                    return Err(download.client.error(&format!("failed: {why}")));
                }
                _ if Instant::now() > until => {
                    return Err(download.client.error(&format!("does not complete: {line:?}")));
                }
                State::Starting | State::Running | State::Paused | State::Failed => {}
            }
            sleep(POLL_EVERY);
        };
        let (size, sha256) = file::sha256(&download.output)?;
        let matches = size == SIZE && sha256 == self.sha256;
        if !matches {
            return Err(download.client.error("has a file that is not what was published"));
        }
        let (edge_bytes, peer_bytes) = (line.edge_bytes, line.peer_bytes);
        let download = line.download_id.unwrap_or_default();
        Ok(Delivered { download, size: SIZE, edge_bytes, peer_bytes, matches, ..Delivered::default() })
    }

    /// Ends a client and deletes its files.
    pub(crate) fn forget(&mut self, mut download: Download) {
        download.client.stop();
        let _ = fs::remove_file(&download.output);
        let _ = fs::remove_dir_all(self.network.dir.join("clients").join(&download.client.name));
        self.controls.remove(&download.client.name);
    }

    /// Returns a server's answer on its `ops` address; `None` if it does not answer.
    pub(crate) fn ask(&self, role: Role, path: &str) -> Option<String> {
        let [cn, dn, stun, ledger, edge] = self.network.made.ports.ops;
        let port = match role {
            Role::Cn => cn,
            Role::Dn => dn,
            Role::Stun => stun,
            Role::Ledger => ledger,
            Role::Edge => edge,
            Role::Seeder | Role::Downloader => return None,
        };
        let wait = Duration::from_secs(2);
        let mut tcp = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), wait).ok()?;
        tcp.set_read_timeout(Some(wait)).ok()?;
        tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Returns what `/healthz` of a server says against it, without the state of the disk of this machine.
    pub(crate) fn reasons(&self, role: Role) -> Option<Vec<String>> {
        let answer = self.ask(role, "/healthz")?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let own = |line: &&str| *line != "ok" && !line.contains("'s disk: it is ");
        Some(body.lines().filter(own).map(str::to_owned).collect())
    }

    /// Returns the bytes that the edge has sent without counting them, since its start.
    pub(crate) fn given_away(&self) -> Option<u64> {
        let metrics = self.ask(Role::Edge, "/metrics")?;
        let mut lines = metrics.lines();
        let figure = lines.find_map(|line| line.strip_prefix("swarmedge_edge_given_away_bytes_total "));
        Some(figure.and_then(|n| n.trim().parse().ok()).unwrap_or(0))
    }

    /// Returns the last lines of every log.
    pub(crate) fn tails(&self) -> String {
        let mut shown = String::new();
        let logs = fs::read_dir(self.network.logs()).into_iter().flatten().flatten();
        for log in logs.map(|entry| entry.path()) {
            let text = fs::read(&log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            shown += &format!("--- {}\n{}\n", log.display(), tail.join("\n"));
        }
        shown
    }

    /// Ends every process; returns a sentence for each that does not end cleanly.
    pub(crate) fn stop(&mut self) -> Vec<String> {
        self.seeder.stop();
        self.network.stop()
    }
}

impl Download {
    /// Returns the figures of the client's newest download.
    pub(crate) fn newest(&mut self) -> Result<DownloadLine, Error> {
        let line = self.client.status()?.downloads.pop();
        line.ok_or_else(|| self.client.error("has lost its download"))
    }
}

/// Publishes the object; `number` makes the policy, and so the catalogue, another one.
fn put(dir: &Path, number: u64) -> Result<(), Error> {
    let policy = Policy { edge_rate_max: EDGE_RATE, upload_rate_max: UPLOAD_RATE + number, ..Policy::default() };
    let what = Publish {
        file: dir.join("object"),
        provider: ProviderId(PROVIDER),
        path: OBJECT.into(),
        access: None,
        policy: Some(policy.into()),
    };
    publish(&dir.join("edge/objects"), &what)?;
    Ok(())
}

/// Returns a shell script that starts the binary; it finds the name of the process behind `--roles` or `--state`.
fn script(dir: &Path, library: &Path) -> String {
    let (dir, library, binary) = (dir.display(), library.display(), crate::BINARY);
    format!(
        "#!/bin/sh\nfor word; do\n  case $last in --roles | --state) name=${{word##*/}} ;; esac\n  last=$word\ndone\n\
         exec env {VARIABLE}='{dir}/control/'\"$name\" LD_PRELOAD='{library}' '{binary}' \"$@\"\n"
    )
}

/// Sends a signal to a process.
pub(crate) fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").args([name, &id.to_string()]).status();
    assert!(sent.expect("kill is there").success(), "{name} to {id}");
}
