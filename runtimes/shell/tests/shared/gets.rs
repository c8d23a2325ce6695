//! Tests many `get` processes of one user at once: none ends or blocks another.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use swarmedge_cli::config::ServerConfig;
use swarmedge_cli::init::{self, Deployment, Ports};
use swarmedge_client::client::local::Call;
use swarmedge_client::client::protocol::{Answer, Request, State, StatusLine};
use swarmedge_core::content::Policy;
use swarmedge_core::ids::ProviderId;
use swarmedge_edge::Publish;

/// Time-out of each wait, generous for busy machines.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// Limit of the edge's rate over all downloads, in bytes a second.
const EDGE_RATE: u64 = 2_000_000;
/// Size of an object that takes some seconds at that rate.
pub(super) const LARGE: usize = 6_000_000;
pub(super) const SMALL: usize = 30_000;

/// Variables of the environment that would change what the binary does.
const UNSET: [&str; 7] = [
    "SWARMEDGE_CONFIG",
    "SWARMEDGE_STATE",
    "SWARMEDGE_BUNDLE",
    "SWARMEDGE_LOG",
    "RUST_LOG",
    "HTTPS_PROXY",
    "https_proxy",
];

/// A child process; dropping the value kills it.
pub(super) struct Process(pub(super) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // the process may be stopped, or may have ended
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub(super) fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("it runs").success());
    }

    /// Waits until the process has a handler for SIGTERM.
    pub(super) fn until_it_listens(&self) {
        const SIGTERM: u64 = 1 << (15 - 1);
        let until = Instant::now() + PATIENCE;
        loop {
            let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("Linux");
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask").trim();
            if u64::from_str_radix(caught, 16).expect("a mask") & SIGTERM != 0 {
                return;
            }
            assert!(Instant::now() < until, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the process to end; returns its exit code.
    pub(super) fn code(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().expect("it was started") {
                return status.code();
            }
            assert!(Instant::now() < until, "process {} hangs", self.0.id());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A deployment whose servers run in one process, with a user's directory.
pub(super) struct Cdn {
    dir: tempfile::TempDir,
    pub(super) made: Deployment,
    objects: PathBuf,
    pub(super) servers: Process,
}

impl Cdn {
    fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// Starts a deployment whose servers are reached by `host`.
    pub(super) fn start_at(host: &str) -> Self {
        Self::start_with(host, |config| config)
    }

    /// Starts a deployment whose configuration `edit` has changed.
    pub(super) fn start_with(host: &str, edit: impl FnOnce(String) -> String) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let made = init::make(&init::Plan {
            dir: dir.path().join("cdn"),
            host: host.into(),
            region: "local".into(),
            ports: Ports::free().expect("free ports"),
            provider: ProviderId(1),
            uploads: true,
        });
        let made = made.expect("a deployment");
        let text = fs::read_to_string(&made.config).expect("it was made");
        let slow = text.replace("rate_limit = 0", &format!("rate_limit = {EDGE_RATE}"));
        fs::write(&made.config, edit(slow)).expect("writes");
        let objects = ServerConfig::load(&made.config).expect("reads back").edge.expect("an edge").objects;
        let servers = serve(dir.path(), &made);
        Self { dir, made, objects, servers }
    }

    /// Starts the servers again, after they have ended.
    pub(super) fn serve_again(&mut self) {
        self.servers = serve(self.dir.path(), &self.made);
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Publishes an object of unique content under this name.
    pub(super) fn publish(&self, name: &str, len: usize) -> Vec<u8> {
        self.publish_under(name, len, None)
    }

    /// Publishes an object under a policy.
    pub(super) fn publish_under(&self, name: &str, len: usize, policy: Option<Policy>) -> Vec<u8> {
        let mut x = name.bytes().fold(len as u64 | 1, |x, b| x.wrapping_mul(31).wrapping_add(b.into()));
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()[0]
        };
        let bytes: Vec<u8> = (0..len).map(|_| next()).collect();
        let file = self.at(&format!("{name}.source"));
        fs::write(&file, &bytes).expect("writes");
        let policy = policy.map(Into::into);
        let what = Publish { file, provider: ProviderId(1), path: name.into(), access: None, policy };
        swarmedge_edge::publish(&self.objects, &what).expect("publishes");
        bytes
    }

    /// Returns the arguments of a `get`.
    fn args_of_get(&self, object: &str, output: &str) -> [String; 8] {
        let (bundle, state) = (self.made.bundle.to_str().expect("UTF-8"), self.at("state"));
        let (url, state) = (format!("swarmedge://1/{object}"), state.to_str().expect("UTF-8"));
        ["get", &url, "-o", output, "--bundle", bundle, "--state", state].map(str::to_owned)
    }

    /// Starts `get`; its output file also names its log.
    fn get(&self, object: &str, output: &str) -> Process {
        self.get_with(object, output, &[])
    }

    /// Starts `get` with more options.
    pub(super) fn get_with(&self, object: &str, output: &str, options: &[&str]) -> Process {
        let mut command = Command::new(crate::BINARY);
        start(self.dir.path(), output, command.args(self.args_of_get(object, output)).args(options))
    }

    /// Starts `get` with so many KiB of address space.
    fn get_in(&self, kib: u32, object: &str, output: &str) -> Process {
        let limited = format!("ulimit -v {kib} && exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        start(
            self.dir.path(),
            output,
            shell.args(["-c", &limited, crate::BINARY]).args(self.args_of_get(object, output)),
        )
    }

    fn client(&self) -> Process {
        self.client_with(&[])
    }

    /// Starts the background client with more options; its log is `client.log`.
    pub(super) fn client_with(&self, options: &[&str]) -> Process {
        let (bundle, state) = (self.made.bundle.to_str().expect("UTF-8"), self.at("state"));
        let args = ["client", "run", "--no-port-mapping", "--bundle", bundle, "--state"];
        let state = [state.to_str().expect("UTF-8")];
        let client = spawn(self.dir.path(), "client", &[&args[..], &state, options].concat());
        self.until("the client answers", |_| true);
        client
    }

    pub(super) fn until(&self, what: &str, goal: impl Fn(&StatusLine) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(Some(Answer::Status(line))) = Call::ask(&self.at("state"), &Request::Status)
                && goal(&line)
            {
                return;
            }
            assert!(Instant::now() < until, "not seen: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the object is being downloaded and its first bytes are durable.
    pub(super) fn until_under_way(&self, object: &str) {
        let name = format!("/{object}");
        self.until(object, |status| {
            let mut lines = status.downloads.iter().filter(|d| d.url.ends_with(&name));
            lines.any(|d| d.state == State::Running && d.durable_bytes > 0)
        });
    }

    /// Checks that a `get` succeeds and its file has these bytes.
    pub(super) fn ends_well(&self, get: &mut Process, output: &str, bytes: &[u8]) {
        let code = get.code();
        assert_eq!(code, Some(0), "{output}: {}", self.said(output));
        assert!(fs::read(self.at(output)).expect("it is there") == bytes, "{output} has other bytes");
    }

    /// Returns the log of a process.
    pub(super) fn said(&self, name: &str) -> String {
        fs::read_to_string(self.at(&format!("{name}.log"))).unwrap_or_default()
    }
}

/// Starts the servers of a deployment.
fn serve(dir: &Path, made: &Deployment) -> Process {
    spawn(dir, "servers", &["serve", "--config", made.config.to_str().expect("UTF-8")])
}

/// Starts the binary; its output goes to `NAME.log`.
fn spawn(dir: &Path, name: &str, args: &[&str]) -> Process {
    start(dir, name, Command::new(crate::BINARY).args(args))
}

fn start(dir: &Path, name: &str, command: &mut Command) -> Process {
    let log = fs::File::create(dir.join(format!("{name}.log"))).expect("made");
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    for name in UNSET {
        command.env_remove(name);
    }
    Process(command.spawn().expect("the binary starts"))
}

#[test]
fn a_get_continues_when_the_one_that_runs_its_client_completes() {
    let cdn = Cdn::start();
    let (first, second) = (cdn.publish("first", LARGE / 2), cdn.publish("second", LARGE));
    let mut starter = cdn.get("first", "a");
    cdn.until_under_way("first");
    let mut joined = cdn.get("second", "b");
    cdn.ends_well(&mut starter, "a", &first);
    cdn.ends_well(&mut joined, "b", &second);
}

#[test]
fn gets_continue_when_the_one_that_runs_their_client_is_killed() {
    for (signal, code, output) in [("-TERM", Some(130), "a"), ("-KILL", None, "b")] {
        let cdn = Cdn::start();
        let (first, second) = (cdn.publish("first", LARGE), cdn.publish("second", LARGE));
        let mut starter = cdn.get("first", "a");
        cdn.until_under_way("first");
        let mut same = cdn.get("first", output);
        let mut other = cdn.get("second", "c");
        cdn.until_under_way("second");
        starter.signal(signal);
        assert_eq!(starter.code(), code);
        cdn.ends_well(&mut same, output, &first);
        cdn.ends_well(&mut other, "c", &second);
    }
}

#[test]
fn the_same_get_many_times_at_once_makes_one_file() {
    let cdn = Cdn::start();
    let bytes = cdn.publish("object", LARGE / 2);
    let mut gets: Vec<_> = (0..12).map(|_| cdn.get("object", "out")).collect();
    gets.iter_mut().for_each(|get| cdn.ends_well(get, "out", &bytes));
}

#[test]
fn many_gets_at_once_succeed_with_and_without_background_client() {
    let cdn = Cdn::start();
    for in_background in [false, true] {
        let _client = in_background.then(|| cdn.client());
        let names: Vec<_> = (0..60).map(|n| format!("{in_background}-{n}")).collect();
        let bytes: Vec<_> = names.iter().map(|name| cdn.publish(name, SMALL)).collect();
        let mut gets: Vec<_> = names.iter().map(|name| cdn.get(name, name)).collect();
        for ((get, name), bytes) in gets.iter_mut().zip(&names).zip(&bytes) {
            cdn.ends_well(get, name, bytes);
        }
    }
}

#[test]
fn one_sigterm_ends_a_get_whatever_its_client_does() {
    let cdn = Cdn::start();
    cdn.publish("object", LARGE);
    let client = cdn.client();
    let mut follows = cdn.get("object", "a");
    cdn.until_under_way("object");
    client.signal("-STOP");
    follows.signal("-TERM");
    assert_eq!(follows.code(), Some(130), "get of a client that no longer answers");
    client.signal("-KILL");
    drop(client);

    let lock = fs::File::open(cdn.at("state/client.lock")).expect("it is there");
    lock.lock().expect("nobody else has it");
    let mut waits = cdn.get("object", "a");
    waits.until_it_listens();
    waits.signal("-TERM");
    assert_eq!(waits.code(), Some(130), "get of a client that is still starting");
}

#[test]
fn a_get_without_memory_for_threads_fails_and_says_why() {
    let cdn = Cdn::start();
    let bytes = cdn.publish("object", SMALL);
    for kib in (150_000..600_000).step_by(50_000) {
        let output = kib.to_string();
        let mut get = cdn.get_in(kib, "object", &output);
        let code = get.code();
        let said = fs::read_to_string(cdn.at(&format!("{output}.log"))).unwrap_or_default();
        match code {
            Some(0) => assert!(fs::read(cdn.at(&output)).expect("it is there") == bytes, "{output} has other bytes"),
            // where the heap, not a thread, has no room, Rust says so and aborts
            None if said.contains("memory allocation of") => {}
            _ => assert!(said.contains("swarmedge: "), "{kib} KiB: {code:?}: {said}"),
        }
    }
}
