//! A deployment on this machine with its processes: servers and clients, each running this binary or its sibling of the
//! other runtime. The demo and the bench commands use it.

use crate::init::{self, Deployment, Plan, Ports};
use crate::process::{Process, is_healthy};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use swarmedge_client::client::local::Call;
use swarmedge_client::client::protocol::{Answer, DownloadLine, Request, State, StatusLine};
use swarmedge_core::ids::ProviderId;
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::terminal::Interrupt;

/// Time limit for a process to get ready, generous for a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Time limit for a process to end cleanly.
const END_WITHIN: Duration = Duration::from_secs(60);

/// A server process of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Edge and ledger in one process.
    Edge,
    /// The edge in a process of its own.
    EdgeAlone,
    /// The ledger in a process of its own.
    Ledger,
    /// The connection node (CN).
    Cn,
    /// The database node (DN).
    Dn,
    /// The STUN server's process.
    Stun,
}

impl Server {
    /// Server processes of a network in their starting order, edge and ledger in one.
    pub const ALL: [Self; 4] = [Self::Edge, Self::Dn, Self::Cn, Self::Stun];
    /// Server processes with one process per role, in their starting order.
    pub const SPLIT: [Self; 5] = [Self::Ledger, Self::EdgeAlone, Self::Dn, Self::Cn, Self::Stun];

    /// Returns the server's name in messages and log files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edge | Self::EdgeAlone => "edge",
            Self::Ledger => "ledger",
            Self::Cn => "cn",
            Self::Dn => "dn",
            Self::Stun => "stun",
        }
    }

    /// Returns the roles of the server process, as `serve --roles` takes them.
    const fn roles(self) -> &'static str {
        match self {
            Self::Edge => "edge,ledger",
            Self::EdgeAlone | Self::Ledger | Self::Cn | Self::Dn | Self::Stun => self.name(),
        }
    }

    fn is_ready(self, ports: &Ports) -> bool {
        let [cn, dn, stun, ledger, edge] = ports.ops;
        match self {
            Self::Edge => is_healthy(local(edge)) && is_healthy(local(ledger)),
            Self::EdgeAlone => is_healthy(local(edge)),
            Self::Ledger => is_healthy(local(ledger)),
            Self::Cn => is_healthy(local(cn)),
            Self::Dn => is_healthy(local(dn)),
            Self::Stun => is_healthy(local(stun)),
        }
    }
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The network's directory, deployment and server processes.
#[derive(Debug)]
pub struct Network {
    /// Directory with all files of the network.
    pub dir: PathBuf,
    /// Deployment: paths of keys and configuration, addresses, ports.
    pub made: Deployment,
    /// The program that runs the servers.
    program: PathBuf,
    servers: Vec<(Server, Process)>,
}

impl Network {
    /// Makes a deployment in `dir` without starting anything.
    pub fn make(dir: &Path, program: &Path) -> Result<Self, Error> {
        let plan = Plan {
            dir: dir.to_path_buf(),
            host: "127.0.0.1".into(),
            region: "local".into(),
            ports: Ports::free()?,
            provider: ProviderId(1),
            uploads: true,
        };
        let made = init::make(&plan)?;
        for sub in ["logs", "out"] {
            make_dir(&dir.join(sub))?;
        }
        Ok(Self { dir: dir.to_path_buf(), made, program: program.to_path_buf(), servers: Vec::new() })
    }

    /// Returns the directory of the processes' log files.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Starts a server and waits until it is ready.
    pub fn start(&mut self, server: Server, interrupt: &Interrupt) -> Result<(), Error> {
        let config = text(&self.made.config)?;
        let args = ["serve", "--roles", server.roles(), "--config", &config];
        let mut process = Process::start(server.name(), &self.program, &self.logs(), &args)?;
        let ports = self.made.ports;
        process.wait_ready(interrupt, READY_WITHIN, || server.is_ready(&ports))?;
        self.servers.push((server, process));
        Ok(())
    }

    /// Kills a server with SIGKILL.
    pub fn kill(&mut self, server: Server) {
        self.servers.retain_mut(|(s, process)| {
            let hit = *s == server;
            if hit {
                process.kill();
            }
            !hit
        });
    }

    /// Returns the process id of a running server.
    #[must_use]
    pub fn id_of(&self, server: Server) -> Option<u32> {
        self.servers.iter().find(|(s, _)| *s == server).map(|(_, p)| p.id())
    }

    /// Fails if a server has ended by itself.
    pub fn expect_running(&mut self) -> Result<(), Error> {
        self.servers.iter_mut().try_for_each(|(_, p)| p.expect_running())
    }

    /// Ends every server cleanly; returns a sentence for each that failed or took too long.
    pub fn stop(&mut self) -> Vec<String> {
        let ends = self.servers.drain(..).rev().filter_map(|(server, mut p)| match p.stop(END_WITHIN) {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("{} ended with {status}", server.name())),
            None => Some(format!("{} did not end when it was told to", server.name())),
        });
        ends.collect()
    }

    /// Starts a background client with its own state directory and waits until it answers.
    pub fn client(&self, name: &str, program: &Path, interrupt: &Interrupt) -> Result<Client, Error> {
        let state = self.dir.join("clients").join(name);
        make_dir(&state)?;
        let (bundle, dir) = (text(&self.made.bundle)?, text(&state)?);
        let args = ["client", "run", "--proxy", "off", "--bundle", &bundle, "--state", &dir];
        let mut process = Process::start(name, program, &self.logs(), &args)?;
        process.wait_ready(interrupt, READY_WITHIN, || status(&state).is_ok_and(|s| s.is_some()))?;
        Ok(Client { name: name.to_owned(), state, process, download: None })
    }
}

/// A background client that this process has started.
#[derive(Debug)]
pub struct Client {
    /// Name of the client in messages and paths.
    pub name: String,
    state: PathBuf,
    process: Process,
    download: Option<u32>,
}

impl Client {
    /// Starts the download of an object to `output`.
    pub fn get(&mut self, provider: u32, path: &str, output: &Path) -> Result<(), Error> {
        let request = Request::Get {
            provider,
            path: path.into(),
            output: text(output)?,
            mode: None,
            force: false,
            edge: None,
            token: None,
        };
        match Call::ask(&self.state, &request)? {
            Some(Answer::Accepted { download }) => self.download = download,
            Some(Answer::Download(line)) => self.download = Some(line.download),
            Some(other) => return Err(Error::failed(format!("{} answers {other:?}", self.name))),
            None => return Err(self.process.error("does not answer")),
        }
        Ok(())
    }

    /// Asks the client for its status.
    pub fn status(&mut self) -> Result<StatusLine, Error> {
        match status(&self.state) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(self.process.error("does not answer")),
            Err(error) => Err(self.process.error(&format!("does not answer: {error}"))),
        }
    }

    /// Asks for the state of the client's download; a failed download is an error.
    pub fn download(&mut self) -> Result<DownloadLine, Error> {
        let status = self.status()?;
        let line = status.downloads.into_iter().find(|d| Some(d.download) == self.download);
        let line = line.ok_or_else(|| self.process.error("has lost its download"))?;
        match &line.failure {
            Some(failure) if line.state == State::Failed => {
                Err(self.process.error(&format!("failed: {}", Error::from(failure.clone()))))
            }
            Some(_) | None => Ok(line),
        }
    }

    /// Makes an error about the client, with the tail of its log.
    #[must_use]
    pub fn error(&self, what: &str) -> Error {
        self.process.error(what)
    }

    /// Returns the process id of the client.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills the client with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the client if it runs and starts it again; the download goes on from its state directory.
    pub fn restart(&mut self, network: &Network, program: &Path, interrupt: &Interrupt) -> Result<(), Error> {
        self.kill();
        let again = network.client(&self.name, program, interrupt)?;
        self.process = again.process;
        Ok(())
    }

    /// Ends the client cleanly, or kills it after a minute.
    pub fn stop(&mut self) {
        self.process.stop(END_WITHIN);
    }
}

/// Asks a client for its status; `None` if it does not run.
fn status(state: &Path) -> Result<Option<StatusLine>, Error> {
    match Call::ask(state, &Request::Status)? {
        Some(Answer::Status(status)) => Ok(Some(status)),
        Some(other) => Err(Error::failed(format!("unexpected answer {other:?}"))),
        None => Ok(None),
    }
}

/// Returns the path of the other runtime's binary beside `this`; the error says how to build it.
pub fn sibling(this: &Path) -> Result<PathBuf, Error> {
    let stem = this.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let other = if stem.ends_with("-smol") { "swarmedge" } else { "swarmedge-smol" };
    let path = this.with_file_name(other).with_extension(std::env::consts::EXE_EXTENSION);
    if path.exists() {
        return Ok(path);
    }
    let profile = match this.parent().and_then(Path::file_name).and_then(|p| p.to_str()) {
        Some("debug") | None => String::new(),
        Some("release") => " --release".into(),
        Some(other) => format!(" --profile {other}"),
    };
    Err(Error::new(Code::Usage, format!("--mixed needs {}, which is not there", path.display()))
        .next(format!("build it with: cargo build{profile} --bin {other}")))
}

pub(crate) fn make_dir(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|e| Error::io(format_args!("make the directory {}", dir.display()), &e))
}

/// Converts a path to text for a command line or JSON; fails if it is not UTF-8.
pub(crate) fn text(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::usage(format!("{} is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_sibling_is_named_with_the_command_that_builds_it() {
        for (this, command) in [
            ("/no/target/debug/swarmedge", "cargo build --bin swarmedge-smol"),
            ("/no/target/release/swarmedge-smol", "cargo build --release --bin swarmedge"),
            ("/no/target/ci/swarmedge", "cargo build --profile ci --bin swarmedge-smol"),
        ] {
            let error = sibling(Path::new(this)).expect_err("not there");
            assert_eq!(error.code(), Code::Usage);
            assert!(error.to_string().ends_with(&format!("{command})")), "{error}");
        }
    }
}
