//! Tests a whole deployment on a failing disk: calls of the built binary fail at each write and sync of the spools and
//! the ledger, one after another, during a download with peers and a seeder. The servers are never restarted.
//!
//! With `SWARMEDGE_SPOOL_SWEEP=1` every operation of the spools fails with both errors, and recovery must take at most
//! 10 s. Without it only some operations fail, and times are not checked. The figures are printed.

use super::preload::{Call, Control, EIO, ENOSPC, NEVER, Order, VARIABLE, compiled};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use swarmedge_cli::init::{self, Deployment, Ports};
use swarmedge_core::ids::ProviderId;

/// Size of the object in bytes. With the edge limited to `EDGE_RATE` bytes a second, a download without peers takes
/// longer.
const SIZE: usize = 3_000_000;
const EDGE_RATE: &str = "1000000";
/// Maximum time after a fault until downloads with peers work again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(10);

/// Time-out of each wait, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// Database that fails.
#[derive(Clone, Copy, Debug)]
enum Failing {
    EdgeSpool,
    CnSpool,
    Ledger,
}

impl Failing {
    /// Returns the text of `/healthz` for this failure.
    const fn reason(self) -> &'static str {
        match self {
            Self::EdgeSpool => "\nedge's spool: cannot write ",
            Self::CnSpool => "\nCN's spool: cannot write ",
            Self::Ledger => "\nledger: cannot store records: ",
        }
    }

    /// Returns the end of the file's path.
    const fn path(self) -> &'static str {
        match self {
            Self::EdgeSpool => "/edge/spool.redb",
            Self::CnSpool => "/cn/spool.redb",
            Self::Ledger => "/ledger/ledger.sqlite",
        }
    }
}

/// Makes some operations of a database fail, counted from now.
fn arm(control: &Control, failing: Failing, numbers: Range<u64>, error: u64) {
    control.arm(&Order { calls: &[Call::Write, Call::Sync], error, numbers, path: failing.path() });
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until a condition holds; returns whether it does within [`PATIENCE`].
fn wait_for(mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A child process; dropping the value kills it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Net {
    dir: tempfile::TempDir,
    deployment: Deployment,
    control: Control,
    server: Process,
    _seeder: Process,
    clients: u32,
    /// Database whose faults are tested now.
    failing: Option<Failing>,
    /// Number of completed downloads that the ledger must know, of all clients.
    to_account: usize,
    /// State directories of the clients whose records the ledger had not acknowledged in time.
    unacknowledged: Vec<PathBuf>,
}

fn quiet(args: &[&str]) -> Command {
    let mut command = Command::new(crate::BINARY);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for name in ["SWARMEDGE_CONFIG", "SWARMEDGE_STATE", "SWARMEDGE_BUNDLE", "SWARMEDGE_LOG", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

fn str_of(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Starts a client that runs until it is killed.
fn run_client(deployment: &Deployment, state: &Path) -> Child {
    let run = ["client", "run", "--no-port-mapping", "--bundle", str_of(&deployment.bundle), "--state", str_of(state)];
    quiet(&run).spawn().expect("starts")
}

impl Net {
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let library = compiled(dir.path())?;
        let made = init::make(&init::Plan {
            dir: dir.path().join("cdn"),
            host: "127.0.0.1".into(),
            region: "local".into(),
            ports: Ports::free().expect("free ports"),
            provider: ProviderId(1),
            uploads: true,
        });
        let deployment = made.expect("a deployment");
        let config = fs::read_to_string(&deployment.config).expect("made");
        let limited = config.replace("rate_limit = 0", &format!("rate_limit = {EDGE_RATE}"));
        assert_ne!(config, limited, "the edge's rate is limited");
        fs::write(&deployment.config, limited).expect("writes");
        let bytes: Vec<u8> = (0..SIZE).map(|i| (i * i / 255).to_le_bytes()[0]).collect();
        fs::write(dir.path().join("object"), bytes).expect("writes");
        let (object, config) = (dir.path().join("object"), deployment.config.clone());
        let publish = ["publish", str_of(&object), "--provider", "1", "--path", "o", "--config", str_of(&config)];
        assert!(quiet(&publish).status().expect("starts").success());

        let (control, log) = (dir.path().join("control"), dir.path().join("serve.log"));
        let made = Control::make(&control);
        let server = quiet(&["serve", "--config", str_of(&config)])
            .env("LD_PRELOAD", &library)
            .env(VARIABLE, &control)
            .stderr(File::create(&log).expect("a log"))
            .spawn();
        let server = Process(server.expect("starts"));
        let state = dir.path().join("seeder");
        let seeder = Process(run_client(&deployment, &state));
        let mut net = Self {
            dir,
            deployment,
            control: made,
            server,
            _seeder: seeder,
            clients: 0,
            failing: None,
            to_account: 1,
            unacknowledged: vec![],
        };
        assert!(wait_for(|| net.health().is_some_and(|h| h.starts_with("HTTP/1.1 200"))), "the servers start");
        assert!(wait_for(|| quiet(&["status", "--state", str_of(&state)]).status().expect("starts").success()));
        let got = net.get(&state);
        assert!(got.is_some(), "the seeder has it: {}", net.log());
        assert!(wait_for(|| net.fresh()), "peers deliver: {}", net.log());
        Some(net)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("serve.log")).unwrap_or_default()
    }

    /// Returns the CN's answer to `/healthz`; `None` if it does not answer.
    fn health(&self) -> Option<String> {
        let mut tcp = TcpStream::connect(("127.0.0.1", self.deployment.ports.ops[0])).ok()?;
        tcp.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Downloads the object and checks it; returns whether peers sent some of it, or `None` if the download fails. A
    /// client that ends before the ledger acknowledges its record says so and is noted.
    fn get(&mut self, state: &Path) -> Option<bool> {
        let (url, out) = (format!("{}/1/o", self.deployment.edge_url), state.with_extension("out"));
        let args = ["get", &url, "--bundle", str_of(&self.deployment.bundle), "--state", str_of(state)];
        let mut command = quiet(&[&args[..], &["-o", str_of(&out)]].concat());
        let got = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("starts");
        if !got.status.success() {
            return None;
        }
        if text(&got.stderr).contains("the ledger has not acknowledged what was downloaded") {
            self.unacknowledged.push(state.to_owned());
        }
        assert!(fs::read(&out).expect("there") == fs::read(self.dir.path().join("object")).expect("there"));
        let said = text(&got.stdout);
        assert!(said.contains(" % from peers, every piece verified"), "{said}");
        Some(!said.contains(" 0.0 % from peers"))
    }

    /// Downloads the object as a new client; returns whether that succeeds and peers sent some of it.
    ///
    /// An edge that cannot write its spool gives bytes away: a download without peers may then be unknown to the
    /// ledger.
    fn fresh(&mut self) -> bool {
        self.clients += 1;
        let state = self.dir.path().join(format!("client{}", self.clients));
        let got = self.get(&state);
        let may_be_free = matches!(self.failing, Some(Failing::EdgeSpool)) && got == Some(false);
        self.to_account += usize::from(got.is_some() && !may_be_free);
        if !self.unacknowledged.contains(&state) {
            let _ = fs::remove_dir_all(&state);
        }
        let _ = fs::remove_file(state.with_extension("out"));
        got == Some(true)
    }

    /// Returns the number of a database's operations during one download.
    fn operations(&mut self, failing: Failing) -> u64 {
        arm(&self.control, failing, NEVER..NEVER, ENOSPC);
        assert!(self.fresh(), "peers deliver");
        // acknowledged records are removed from a spool a second later
        std::thread::sleep(Duration::from_millis(1500));
        self.control.seen()
    }

    /// Downloads until one gets bytes from peers; returns how long that took.
    fn wait_for_recovery(&mut self, what: &str) -> Duration {
        let began = Instant::now();
        while !self.fresh() {
            assert!(began.elapsed() < PATIENCE, "{what}: no download with peers: {:?}\n{}", self.health(), self.log());
        }
        assert!(self.server.0.try_wait().expect("it was started").is_none(), "{what}: the servers have ended");
        began.elapsed()
    }

    /// Lets one operation fail and checks that downloads continue, first perhaps without peers; returns the recovery
    /// time.
    fn once(&mut self, failing: Failing, at: u64, errno: u64) -> Duration {
        let what = format!("{failing:?}'s operation {at} fails once with {errno}");
        arm(&self.control, failing, at..at + 1, errno);
        let until = Instant::now() + PATIENCE;
        while self.control.failed() == 0 {
            assert!(Instant::now() < until, "{what}: it never happened");
            self.fresh();
        }
        assert_eq!(self.control.failed(), 1, "{what}");
        self.wait_for_recovery(&what)
    }

    /// Lets every operation from one on fail until `/healthz` reports it; returns the recovery time after that.
    fn lasting(&mut self, failing: Failing, at: u64, errno: u64) -> Duration {
        let what = format!("{failing:?}'s operations fail with {errno} from {at} on");
        arm(&self.control, failing, at..NEVER, errno);
        let until = Instant::now() + PATIENCE;
        while self.control.failed() < 2 {
            assert!(Instant::now() < until, "{what}: it never happened");
            self.fresh();
        }
        let says = |net: &Self| net.health().is_some_and(|h| h.contains("503") && h.contains(failing.reason()));
        assert!(wait_for(|| says(self)), "{what}: {:?}", self.health());
        self.control.disarm();
        let took = self.wait_for_recovery(&what);
        assert!(wait_for(|| self.health().is_some_and(|h| h.contains("\r\n\r\nok\n"))), "{what}: {:?}", self.health());
        took
    }
}

#[test]
fn downloads_with_peers_resume_after_disk_faults_of_servers() {
    let Some(mut net) = Net::start() else { return };
    let sweep = std::env::var_os("SWARMEDGE_SPOOL_SWEEP").is_some();
    for failing in [Failing::EdgeSpool, Failing::CnSpool, Failing::Ledger] {
        net.failing = Some(failing);
        let count = net.operations(failing);
        assert!(count >= 4, "{failing:?}: only {count} operations");
        // a client waits a while for a ledger that does not answer, so each fault of the ledger takes long
        let all = sweep && !matches!(failing, Failing::Ledger);
        let errors: &[u64] = if all { &[EIO, ENOSPC] } else { &[ENOSPC] };
        let step = if all { 1 } else { usize::try_from(count.div_ceil(2)).expect("few") };
        let (mut faults, mut worst) = (0, Duration::ZERO);
        for (at, errno) in (0..count).step_by(step).flat_map(|at| errors.iter().map(move |e| (at, *e))) {
            for took in [net.once(failing, at, errno), net.lasting(failing, at, errno)] {
                faults += 1;
                worst = worst.max(took);
            }
        }
        eprintln!("{}: {failing:?}: {count} operations, {faults} faults, worst {worst:.1?}", crate::BINARY);
        assert!(!sweep || worst <= RECOVERS_WITHIN, "{failing:?}: {worst:?}");
    }
    let log = net.log();
    assert!(!log.contains("Previous I/O error"), "{log}");
    // every counted download is in the ledger, once the clients that said so have started again
    let _restarted: Vec<Process> =
        net.unacknowledged.iter().map(|state| Process(run_client(&net.deployment, state))).collect();
    let known = || {
        let show = ["ledger", "show", "--json", "--config", str_of(&net.deployment.config)];
        let out = quiet(&show).stdout(Stdio::piped()).output().expect("starts");
        text(&out.stdout).matches("\"state\":\"completed\"").count()
    };
    assert!(
        wait_for(|| known() >= net.to_account),
        "{} of {} downloads are known; {} clients were started again",
        known(),
        net.to_account,
        net.unacknowledged.len()
    );
}
