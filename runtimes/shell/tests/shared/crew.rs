//! Tests of servers in one process, each on its own thread, and of processes whose log cannot be written.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use swarmedge_cli::config::ServerConfig;
use swarmedge_cli::init::{self, Deployment, Ports};
use swarmedge_cli::process::is_healthy;
use swarmedge_control::stun;
use swarmedge_core::ids::ProviderId;
use swarmedge_edge::Publish;
use swarmedge_ground::health::Health;
use swarmedge_ground::host::crew::{self, Member};
use swarmedge_ground::http::{Body, Client, Origin, Signal};
use swarmedge_ground::mailbox::mailbox;
use swarmedge_ground::rt::Start;
use swarmedge_ground::tls::client_config;
use tempfile::TempDir;

/// Time-out of each wait, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn deployment() -> (TempDir, Deployment) {
    let dir = tempfile::tempdir().expect("a directory");
    let made = init::make(&init::Plan {
        dir: dir.path().join("cdn"),
        host: "127.0.0.1".into(),
        region: "local".into(),
        ports: Ports::free().expect("free ports"),
        provider: ProviderId(1),
        uploads: true,
    });
    (dir, made.expect("a deployment"))
}

/// Returns the edge's answer to a request for `path`.
async fn ask<R: Start>(rt: &R, made: &Deployment, path: &str) -> Vec<u8> {
    let ca = fs::read_to_string(&made.ca).expect("made");
    let client = Client::new(rt.clone(), client_config(&ca, None).expect("a CA"));
    let origin = Origin::parse(&made.edge_url).expect("a URL");
    let request = || hyper::Request::get(path).body(Body::empty()).expect("a request");
    let answer = client.send(&origin, request).await.unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!(answer.head.status, 200, "{path}");
    answer.collect(1 << 20).await.expect("whole").to_vec()
}

/// A server whose thread is blocked delays neither health checks nor content of another server.
fn check_that_a_stuck_role_delays_no_other<R: Start>() {
    let (dir, made) = deployment();
    let config = ServerConfig::load(&made.config).expect("reads back");
    let (edge_config, stun_config) = (config.edge.expect("an edge"), config.stun.expect("a STUN server"));
    let file = dir.path().join("file");
    fs::write(&file, "content").expect("written");
    let what = Publish { file, provider: ProviderId(1), path: "a".into(), access: None, policy: None };
    swarmedge_edge::publish(&edge_config.objects, &what).expect("published");

    let (stuck, is_stuck) = mpsc::channel();
    let (free, freed) = mpsc::channel::<()>();
    let (tell, mut tells) = mailbox::<()>(1);
    let servers = thread::spawn(move || {
        let stuck_one = Member::new("stun", async move |rt: R, stop: Signal| {
            let server = stun::open(&rt, &stun_config, &stop, &Health::default())?;
            let told = stop.clone();
            rt.spawn(async move {
                stuck.send(()).expect("somebody waits");
                // blocks the whole thread, as an endless computation would
                let _ = freed.recv();
                drop(told);
            });
            Ok(server)
        });
        let edge = Member::new("edge", async move |rt: R, stop: Signal| {
            swarmedge_edge::open(&rt, &edge_config, &stop, &Health::default())
        });
        R::block_on(move |rt: R| async move {
            let told = Signal::default();
            let set = told.clone();
            rt.spawn(async move {
                let _ = tells.recv().await;
                set.set();
            });
            crew::run(vec![edge, stuck_one], told).await
        })
    });
    is_stuck.recv_timeout(PATIENCE).expect("it gets stuck");
    let (health, content) =
        R::block_on(move |rt: R| async move { (ask(&rt, &made, "/healthz").await, ask(&rt, &made, "/1/a").await) });
    // a warning may follow, of a nearly full disk
    assert!(health.starts_with(b"ok\n") && content == b"content");
    drop(tell);
    drop(free);
    assert_eq!(servers.join().expect("no panic"), Ok(()));
}

#[test]
fn a_stuck_role_delays_neither_health_nor_content_of_the_edge() {
    check_that_a_stuck_role_delays_no_other::<crate::Rt>();
}

/// A running `swarmedge`. It stops when its standard input closes; dropping the value kills it.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(args: &[&str], log: Stdio) -> Self {
        let mut command = Command::new(crate::BINARY);
        command.args(args).arg("--exit-with-parent").env_remove("SWARMEDGE_LOG").env_remove("RUST_LOG");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn();
        Self(child.expect("the binary starts"))
    }

    pub(crate) fn wait_until(&mut self, mut ready: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !ready() {
            assert_eq!(self.0.try_wait().expect("asked"), None, "it ended by itself");
            assert!(Instant::now() < until, "it does not get ready");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn stop(mut self) -> ExitStatus {
        drop(self.0.stdin.take());
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().expect("asked") {
                return status;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // the process has usually ended already
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns standard-error handles that accept no writes, each with a socket that must live as long.
fn deaf_logs() -> Vec<(&'static str, Stdio, Option<UnixStream>)> {
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let (gone, reader) = UnixStream::pair().expect("a pair");
    drop(reader);
    let (busy, silent) = UnixStream::pair().expect("a pair");
    busy.set_nonblocking(true).expect("set");
    fill(&busy);
    let (asleep, sleeper) = UnixStream::pair().expect("a pair");
    asleep.set_nonblocking(true).expect("set");
    fill(&asleep);
    asleep.set_nonblocking(false).expect("set");
    vec![
        ("a full disk", full.into(), None),
        ("a reader that has gone", OwnedFd::from(gone).into(), None),
        ("a full pipe that does not wait", OwnedFd::from(busy).into(), Some(silent)),
        ("a reader that sleeps", OwnedFd::from(asleep).into(), Some(sleeper)),
    ]
}

fn fill(mut pipe: &UnixStream) {
    for size in [4096, 1] {
        while pipe.write(&vec![b'x'; size]).is_ok() {}
    }
}

#[test]
fn servers_and_clients_work_when_their_log_cannot_be_written() {
    let (dir, made) = deployment();
    let (config, bundle) = (text(&made.config), text(&made.bundle));
    for (what, log, silent) in deaf_logs() {
        let mut servers = Running::start(&["serve", "--config", &config], log);
        servers.wait_until(|| made.ports.ops.iter().all(|port| is_healthy(([127, 0, 0, 1], *port).into())));
        // a failed TLS handshake makes the CN's thread write a log line
        let _ =
            std::net::TcpStream::connect(("127.0.0.1", made.ports.cn)).and_then(|mut tcp| tcp.write_all(b"\x16\x03"));
        assert_eq!(servers.stop().code(), Some(0), "{what}");
        drop(silent);
    }
    for (n, (what, log, silent)) in deaf_logs().into_iter().enumerate() {
        let state = text(&dir.path().join(format!("state{n}")));
        let args = ["client", "run", "--bundle", &bundle, "--state", &state, "--no-port-mapping"];
        let mut client = Running::start(&args, log);
        let status = || Command::new(crate::BINARY).args(["status", "--state", &state]).output().expect("starts");
        client.wait_until(|| status().status.success());
        assert_eq!(client.stop().code(), Some(0), "{what}");
        drop(silent);
    }
}

#[test]
fn printing_to_a_full_disk_is_a_disk_error_of_every_command() {
    let (_dir, made) = deployment();
    let config = text(&made.config);
    for args in [&["objects", "--config", &config][..], &["certificates", "list", "--config", &config], &["--help"]] {
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let out = Command::new(crate::BINARY).args(args).stdout(full).output().expect("starts");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(6), "{args:?}: {said}");
        assert!(said.contains("standard output") && !said.contains("panicked"), "{said}");
    }
}

pub(crate) fn text(path: &Path) -> String {
    PathBuf::from(path).into_os_string().into_string().expect("plain")
}
