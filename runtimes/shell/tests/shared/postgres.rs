//! A PostgreSQL server for a test, in its own directory and on a free loopback port.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time-out for the server to accept connections, including recovery after a kill.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// User that runs the server when tests run as root, which PostgreSQL refuses.
const UNPRIVILEGED: &str = "postgres";

/// A running server; dropping the value stops it.
pub(crate) struct Postgres {
    bin: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    tls: bool,
    server: Option<Child>,
}

impl Postgres {
    /// Starts a server. Where PostgreSQL is not installed, prints so and returns `None`.
    pub(crate) fn start() -> Option<Self> {
        let Some(bin) = installed() else {
            swarmedge_seeds::skip("PostgreSQL is not installed (Debian package postgresql)");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).expect("ours");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let mut postgres = Self { bin, dir, port, tls: false, server: None };
        let data = postgres.dir.path().join("data");
        let mut init = postgres.unprivileged("initdb");
        init.args(["--no-sync", "--auth=trust", "--username=ledger", "--encoding=UTF8", "--locale=C", "--pgdata"]);
        let made = init.arg(&data).output().expect("initdb starts");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        postgres.run();
        Some(postgres)
    }

    /// Returns the URL of a database made by `create`, or of `postgres`.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://ledger@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Creates an empty database and returns its URL.
    pub(crate) fn create(&self, database: &str) -> String {
        self.psql(&format!("CREATE DATABASE {database}"));
        self.url(database)
    }

    /// Restarts the server with TLS, using this certificate and key.
    #[allow(dead_code, reason = "not every test asks for it")]
    pub(crate) fn restart_with_tls(&mut self, cert: &str, key: &str) {
        let data = self.dir.path().join("data");
        let owner = std::fs::metadata(&data).expect("made").uid();
        for (name, pem) in [("server.crt", cert), ("server.key", key)] {
            let path = data.join(name);
            std::fs::write(&path, pem).expect("written");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("ours");
            std::os::unix::fs::chown(&path, Some(owner), None).expect("ours");
        }
        self.tls = true;
        self.kill();
        self.run();
    }

    /// Kills the server as a crash would, without any further writes.
    pub(crate) fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        server.kill().expect("running");
        server.wait().expect("a child");
    }

    /// Starts the server again after a kill.
    pub(crate) fn run(&mut self) {
        let until = Instant::now() + READY_WITHIN;
        loop {
            let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log"));
            let mut server = self.unprivileged("postgres");
            // options without sync: a killed process loses nothing that it has written
            server.args(if self.tls { &["-c", "ssl=on"][..] } else { &[] });
            server.args(["-F", "-h", "127.0.0.1", "-k", "", "-p", &self.port.to_string(), "-D"]);
            let server = server.arg(self.dir.path().join("data")).stderr(log.expect("ours")).stdin(Stdio::null());
            let mut server = server.spawn().expect("postgres starts");
            while Instant::now() < until && server.try_wait().expect("a child").is_none() {
                if self.is_ready() {
                    self.server = Some(server);
                    return;
                }
                std::thread::sleep(Duration::from_millis(30));
            }
            // the memory of a killed server may still be locked for a moment
            assert!(Instant::now() < until, "postgres is not ready");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn is_ready(&self) -> bool {
        let open = TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        open && self.command("pg_isready").args(["-q", "-h", "127.0.0.1"]).status().is_ok_and(|s| s.success())
    }

    fn psql(&self, sql: &str) {
        let done = self.command("psql").args(["-q", "-X", "-c", sql, &self.url("postgres")]).output();
        let done = done.expect("psql starts");
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env("PGPORT", self.port.to_string()).current_dir(self.dir.path());
        command
    }

    /// Builds a command that runs as an unprivileged user if the tests run as root.
    fn unprivileged(&self, program: &str) -> Command {
        if !is_root() {
            return self.command(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED, "--clear-groups", "--"]);
        command.arg(self.bin.join(program)).current_dir(self.dir.path());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|s| s.lines().any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(2) == Some("0")))
}

/// Returns the directory of the newest installed server's programs, which Debian keeps out of the path.
fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten().flatten();
    let debian = versions.map(|v| v.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = debian.chain(std::env::split_paths(&path)).filter(|dir| has_all(dir)).collect();
    found.sort();
    found.into_iter().next_back()
}

fn has_all(dir: &Path) -> bool {
    ["initdb", "postgres", "psql", "pg_isready"].iter().all(|program| dir.join(program).exists())
}
