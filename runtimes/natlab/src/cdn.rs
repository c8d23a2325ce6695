//! A whole deployment of real binaries inside a lab: edge, ledger, connection node (CN) and database node (DN) in the
//! node `edge`, a STUN server at both addresses of the node `stun`, and clients at any peer.

use crate::lab::Lab;
use crate::run::{Error, run};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use swarmedge_cli::config::Bundle;
use swarmedge_cli::init::{self, Deployment, Ports};
use swarmedge_cli::process::Process;
use swarmedge_client::client::local::Call;
use swarmedge_client::client::protocol::{Answer, DownloadLine, Request, State, StatusLine};
use swarmedge_client::client::protocol::{AttemptLine, MeetingLine, UploaderLine};
use swarmedge_core::ids::ProviderId;
use swarmedge_ground::nat::NatLine;
use swarmedge_ground::terminal::Interrupt;

/// Provider id that publishes all objects.
const PROVIDER: &str = "1";
/// Time-out for a process to become ready.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Port of the STUN server.
const STUN_PORT: u16 = 3478;
/// Log filter of clients, which includes the outcome of each introduction.
const LOG: &str = "info,swarmedge_client::client=debug";

/// Running servers in a lab; dropping the value kills them.
#[derive(Debug)]
pub struct Cdn {
    dir: PathBuf,
    program: PathBuf,
    made: Deployment,
    servers: Vec<Process>,
    /// Lock held while an object is published, since all publications write the same files.
    publishing: Mutex<()>,
    client_options: Vec<String>,
}

impl Cdn {
    /// Starts the servers of the binary `program` in `lab`; all files are written below `dir`.
    pub fn start(lab: &Lab, dir: &Path, program: &Path) -> Result<Self, Error> {
        let host = lab.address("edge")?.to_string();
        let stun: Vec<IpAddr> = lab.node("stun")?.addresses.iter().copied().filter(IpAddr::is_ipv4).collect();
        let plan = init::Plan {
            dir: dir.join("cdn"),
            host: host.clone(),
            region: "lab".into(),
            ports: Ports::free()?,
            provider: ProviderId(1),
            uploads: true,
        };
        let made = init::make(&plan)?;
        let logs = dir.join("logs");
        fs::create_dir_all(&logs).map_err(|e| Error::new(format!("make {}: {e}", logs.display())))?;
        let config = made.config.clone();
        let listed: Vec<_> = stun.iter().take(1).map(|ip| format!("\"{ip}:{STUN_PORT}\"")).collect();
        let port = made.ports.stun;
        replace(&config, &format!("stun = [\"{host}:{port}\"]"), &format!("stun = [{}]", listed.join(", ")))?;
        let mut cdn = Self {
            dir: dir.to_owned(),
            program: program.to_owned(),
            made,
            servers: Vec::new(),
            publishing: Mutex::new(()),
            client_options: Vec::new(),
        };
        cdn.serve(lab, "edge", "edge,ledger,cn,dn", &config)?;
        let first = stun.first().ok_or_else(|| Error::new("the node stun has no address"))?;
        let other = stun.last().filter(|ip| *ip != first).map(|ip| format!("\nalternate = \"{ip}:{}\"", STUN_PORT + 1));
        // next to the main configuration, whose relative paths it shares
        let own = config.with_file_name("stun.toml");
        fs::copy(&config, &own).map_err(|e| Error::new(format!("write {}: {e}", own.display())))?;
        // port 443 over TCP, so that clients without UDP find the server too
        let also = format!("\nalso = [\"{first}:443\"]");
        let listen = format!("listen = \"{first}:{STUN_PORT}\"{}{also}", other.unwrap_or_default());
        replace(&own, &format!("listen = \"[::]:{port}\""), &listen)?;
        cdn.serve(lab, "stun", "stun", &own)?;
        let ports = cdn.made.ports;
        for (node, proto, port) in
            [("edge", "t", ports.edge), ("edge", "t", ports.cn), ("edge", "t", ports.dn), ("stun", "u", STUN_PORT)]
        {
            cdn.wait(|| Ok(!lab.script(node, &format!("ss -Hln{proto} sport = :{port}\n"))?.trim().is_empty()))?;
        }
        Ok(cdn)
    }

    fn serve(&mut self, lab: &Lab, node: &str, roles: &str, config: &Path) -> Result<(), Error> {
        let name = format!("{node}-{}", self.servers.len());
        let args = ["serve", "--roles", roles, "--config", text(config)?];
        let process = spawn((lab, node), &name, &self.program, &self.dir.join("logs"), &args)?;
        self.servers.push(process);
        Ok(())
    }

    fn wait(&mut self, mut ready: impl FnMut() -> Result<bool, Error>) -> Result<(), Error> {
        let until = Instant::now() + READY_WITHIN;
        while !ready()? {
            self.servers.iter_mut().try_for_each(Process::expect_running)?;
            if Instant::now() > until {
                return Err(Error::new("the servers are not ready in time"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Publishes an object, or publishes it again with another limit of the edge's rate for one download, in bytes
    /// per second (0: no limit).
    pub fn publish(&self, path: &str, bytes: &[u8], edge_rate_max: u64) -> Result<(), Error> {
        let _turn = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, policy) = (self.dir.join("published"), self.dir.join("policy.toml"));
        let written =
            fs::write(&file, bytes).and_then(|()| fs::write(&policy, format!("edge_rate_max = {edge_rate_max}\n")));
        written.map_err(|e| Error::new(format!("write below {}: {e}", self.dir.display())))?;
        let (file, policy, config) = (text(&file)?, text(&policy)?, text(&self.made.config)?);
        let args = ["--provider", PROVIDER, "--path", path, "--policy", policy, "--config", config];
        run(text(&self.program)?, &[&["publish", file], &args[..]].concat(), "").map(drop)
    }

    /// Starts a client of the binary `program` at a peer, with a directory of its own, and waits until it answers
    /// commands.
    pub fn client(&self, lab: &Lab, node: &str, program: &Path, uploads: bool) -> Result<Client, Error> {
        let state = self.dir.join("clients").join(node);
        drop(fs::remove_dir_all(&state));
        fs::create_dir_all(&state).map_err(|e| Error::new(format!("make {}: {e}", state.display())))?;
        let bundle = Bundle { uploads, ..Bundle::load(&self.made.bundle)? };
        let file = self.dir.join("clients").join(format!("{node}.toml"));
        fs::write(&file, bundle.to_toml()).map_err(|e| Error::new(format!("write {}: {e}", file.display())))?;
        let args = ["client", "run", "--bundle", text(&file)?, "--state", text(&state)?, "--log", LOG];
        let args: Vec<&str> = args.into_iter().chain(self.client_options.iter().map(String::as_str)).collect();
        let (name, logs) = (format!("client-{node}"), self.dir.join("logs"));
        let mut process = spawn((lab, node), &name, program, &logs, &args)?;
        let ready = || matches!(Call::ask(&state, &Request::Status), Ok(Some(_)));
        process.wait_ready(&Interrupt::never(), READY_WITHIN, ready)?;
        Ok(Client { state, process })
    }

    /// Sets options of `client run` for clients started from now on.
    pub fn client_options(&mut self, options: &[&str]) {
        self.client_options = options.iter().map(|o| (*o).to_owned()).collect();
    }

    /// Returns the ledger's record of downloads of `path`, as `ledger show --json` prints it.
    pub fn ledger(&self, path: &str) -> Result<serde_json::Value, Error> {
        let args = ["ledger", "show", "--json", "--path", path, "--config", text(&self.made.config)?];
        serde_json::from_str(&run(text(&self.program)?, &args, "")?).map_err(|e| Error::new(e.to_string()))
    }

    /// Returns the address at which clients connect to the CN.
    pub fn cn(&self, lab: &Lab) -> Result<SocketAddr, Error> {
        Ok(SocketAddr::new(lab.address("edge")?, self.made.ports.cn))
    }

    /// Returns the first address of the STUN server, in the form of the option `--stun`.
    pub fn stun(lab: &Lab) -> Result<String, Error> {
        Ok(format!("{}:{STUN_PORT}", lab.address("stun")?))
    }
}

/// A client running at a peer; dropping the value kills it.
#[derive(Debug)]
pub struct Client {
    state: PathBuf,
    process: Process,
}

impl Client {
    /// Returns the client's status.
    pub fn status(&mut self) -> Result<StatusLine, Error> {
        match Call::ask(&self.state, &Request::Status) {
            Ok(Some(Answer::Status(status))) => Ok(status),
            Ok(other) => Err(self.process.error(&format!("answers {other:?}")).into()),
            Err(error) => Err(self.process.error(&format!("does not answer: {error}")).into()),
        }
    }

    /// Waits until the client has a session at the CN and has finished discovering its NAT.
    pub fn settle(&mut self, within: Duration) -> Result<(), Error> {
        let until = Instant::now() + within;
        loop {
            if self.nat()?.is_some() && self.status()?.control_connected || Instant::now() > until {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns what the client has found out about its NAT, or `None` if discovery has not finished.
    pub fn nat(&mut self) -> Result<Option<NatLine>, Error> {
        match Call::ask(&self.state, &Request::Nat) {
            Ok(Some(Answer::Nat { nat })) => Ok(nat),
            Ok(other) => Err(self.process.error(&format!("answers {other:?}")).into()),
            Err(error) => Err(self.process.error(&format!("does not answer: {error}")).into()),
        }
    }

    /// Returns the outcome of each introduction, as the command `swarmedge why` shows it.
    pub fn meetings(&mut self) -> Result<Vec<MeetingLine>, Error> {
        self.why(None).map(|(met, _)| met)
    }

    /// Returns the outcome of each introduction of one download.
    pub fn meetings_of(&mut self, download: u32) -> Result<Vec<MeetingLine>, Error> {
        self.why(Some(download)).map(|(met, _)| met)
    }

    /// Asks the client for its attempts to connect to peers, as downloader and as uploader.
    fn why(&mut self, download: Option<u32>) -> Result<(Vec<MeetingLine>, Vec<UploaderLine>), Error> {
        match Call::ask(&self.state, &Request::Why { download, addresses: true }) {
            Ok(Some(Answer::Why { downloads, as_uploader })) => {
                Ok((downloads.into_iter().flat_map(|d| d.peers).collect(), as_uploader))
            }
            Ok(other) => Err(self.process.error(&format!("answers {other:?}")).into()),
            Err(error) => Err(self.process.error(&format!("does not answer: {error}")).into()),
        }
    }

    /// Returns how each connection attempt ended: those as downloader, then those as uploader.
    pub fn ends(&mut self) -> Result<Vec<AttemptLine>, Error> {
        let (met, as_uploader) = self.why(None)?;
        let ended = |a: &AttemptLine| ["connected", "failed"].contains(&a.outcome.as_str());
        let all = met.into_iter().map(|m| m.attempt).chain(as_uploader.into_iter().map(|u| u.attempt));
        Ok(all.filter(ended).collect())
    }

    /// Downloads an object and reports each change of its state, until the download ends or `within` has passed.
    pub fn get(
        &mut self,
        path: &str,
        within: Duration,
        mut tell: impl FnMut(&DownloadLine),
    ) -> Result<Option<DownloadLine>, Error> {
        self.get_until(path, within, |line| {
            tell(line);
            false
        })
    }

    /// Downloads an object like [`Client::get`], but returns as soon as `enough` returns true; the download
    /// continues.
    pub fn get_until(
        &mut self,
        path: &str,
        within: Duration,
        mut enough: impl FnMut(&DownloadLine) -> bool,
    ) -> Result<Option<DownloadLine>, Error> {
        let output = self.state.join("out").display().to_string();
        let request = format!(
            "{{\"request\":\"get\",\"provider\":{PROVIDER},\"path\":{path:?},\"output\":{output:?},\"force\":true}}"
        );
        let request = serde_json::from_str(&request).map_err(|e| Error::new(e.to_string()))?;
        let until = Instant::now() + within;
        let mut call =
            Call::open(&self.state, &request)?.ok_or_else(|| Error::from(self.process.error("does not answer")))?;
        let mut last = None;
        while Instant::now() < until {
            match call.next(Duration::from_millis(100)) {
                Ok(Some(Answer::Download(line))) => {
                    let ended = matches!(line.state, State::Completed | State::Failed) || enough(&line);
                    last = Some(line);
                    if ended {
                        return Ok(last);
                    }
                }
                Ok(Some(Answer::Error(failure))) => return Err(swarmedge_ground::error::Error::from(failure).into()),
                Ok(Some(_)) | Err(None) => {}
                Ok(None) => return Ok(last),
                Err(Some(error)) => return Err(error.into()),
            }
        }
        Ok(last)
    }

    /// Builds an error with the end of the client's log.
    #[must_use]
    pub fn error(&self, what: &str) -> Error {
        self.process.error(what).into()
    }
}

/// Starts a program inside a node. The program ends with this process or with the lab.
fn spawn((lab, node): (&Lab, &str), name: &str, program: &Path, logs: &Path, args: &[&str]) -> Result<Process, Error> {
    let inside = lab.inside(node, text(program)?)?;
    let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
    Ok(Process::start(name, Path::new("ip"), logs, &[&inside[..], args].concat())?)
}

/// Replaces one line of a configuration file.
fn replace(file: &Path, from: &str, to: &str) -> Result<(), Error> {
    let wrong = |why: &str| Error::new(format!("{}: {why}", file.display()));
    let text = fs::read_to_string(file).map_err(|e| wrong(&e.to_string()))?;
    if text.matches(from).count() != 1 {
        return Err(wrong(&format!("`{from}` does not stand there once")));
    }
    fs::write(file, text.replacen(from, to, 1)).map_err(|e| wrong(&e.to_string()))
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::new(format!("{} is not UTF-8", path.display())))
}
