//! Tests where `get` puts an object, how it treats the user's own files, and what it reports about them, with and
//! without a background client.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use swarmedge_cli::init::{self, Ports};

/// Time-out of each wait, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);
const LEN: usize = 4 << 20;

/// A deployment with running servers and one published object.
pub(super) struct Cdn {
    pub(super) dir: tempfile::TempDir,
    running: Vec<Child>,
    pub(super) bytes: Vec<u8>,
}

impl Drop for Cdn {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) fn command(at: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(crate::BINARY);
    command.args(args).current_dir(at).stdin(Stdio::null());
    for name in ["SWARMEDGE_CONFIG", "SWARMEDGE_STATE", "SWARMEDGE_BUNDLE", "SWARMEDGE_LOG", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

/// Returns a command for a shell, in which `"$0"` is the binary.
pub(super) fn in_shell(at: &Path, line: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", line, crate::BINARY]).current_dir(at).stdin(Stdio::null());
    for name in ["SWARMEDGE_CONFIG", "SWARMEDGE_STATE", "SWARMEDGE_BUNDLE", "SWARMEDGE_LOG", "RUST_LOG"] {
        shell.env_remove(name);
    }
    shell
}

impl Cdn {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Starts a deployment whose configuration file is changed first.
    pub(super) fn with(change: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ports = Ports::free().expect("free ports");
        init::make(&init::Plan {
            dir: dir.path().join("cdn"),
            host: "127.0.0.1".into(),
            region: "local".into(),
            ports,
            provider: swarmedge_core::ids::ProviderId(1),
            uploads: true,
        })
        .expect("a deployment");
        change(&dir.path().join("cdn/server.toml"));
        let bytes: Vec<u8> = (0..LEN).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
        let mut cdn = Self { dir, running: Vec::new(), bytes };
        fs::write(cdn.at("object"), &cdn.bytes).expect("writes");
        let publish = ["publish", "object", "--provider", "1", "--path", "o", "--config", "cdn/server.toml"];
        assert!(command(cdn.dir.path(), &publish).output().expect("starts").status.success());
        cdn.start(&["serve", "--config", "cdn/server.toml"]);
        cdn
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self, args: &[&str]) {
        let child = command(self.dir.path(), args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.running.push(child.expect("starts"));
    }

    /// Ends the servers.
    pub(super) fn stop(&mut self) {
        for mut child in self.running.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Returns the process id of the servers.
    pub(super) fn servers(&self) -> u32 {
        self.running[0].id()
    }

    fn background_client(&mut self) {
        self.start(&["client", "run", "--state", "state", "--bundle", "cdn/install/bundle.toml", "--no-port-mapping"]);
        self.until_the_client_answers();
    }

    /// Starts a background client by a shell's line.
    fn start_in_shell(&mut self, line: &str) {
        let child = in_shell(self.dir.path(), line).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.running.push(child.expect("starts"));
        self.until_the_client_answers();
    }

    fn until_the_client_answers(&self) {
        let until = Instant::now() + PATIENCE;
        let status = ["status", "--state", "state"];
        while !command(self.dir.path(), &status).output().expect("starts").status.success() {
            assert!(Instant::now() < until, "the client does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs `get`; returns its exit code and its error output.
    fn get(&self, output: &str, more: &[&str]) -> (Option<i32>, String) {
        let get = ["get", "1/o", "-o", output, "--state", "state", "--bundle", "cdn/install/bundle.toml"];
        let out = command(self.dir.path(), &[&get, more].concat()).output().expect("starts");
        let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.code(), said)
    }

    fn is_right(&self, output: &str) -> bool {
        fs::read(self.at(output)).is_ok_and(|bytes| bytes == self.bytes)
    }

    /// Changes the contents of the data files.
    fn damage(&self, change: impl Fn(&fs::File)) {
        for file in fs::read_dir(self.at("state/pieces")).expect("there").flatten() {
            change(&fs::File::options().write(true).open(file.path()).expect("opens"));
        }
    }
}

fn users_files_are_kept(background: bool) {
    let mut cdn = Cdn::new();
    if background {
        cdn.background_client();
    }
    let (code, said) = cdn.get("out", &[]);
    assert!(code == Some(0) && cdn.is_right("out"), "{said}");
    let (code, said) = cdn.get("out", &[]);
    assert!(code == Some(0) && said.contains("was all here already, every piece verified"), "{said}");

    let mut edited = cdn.bytes.clone();
    edited.extend(b"my own line");
    fs::File::options()
        .append(true)
        .open(cdn.at("out"))
        .and_then(|f| f.write_all_at(b"my own line", LEN as u64))
        .expect("edited");
    let (code, said) = cdn.get("out", &[]);
    assert!(code == Some(2) && said.contains("--force") && !said.contains("verified"), "{code:?}: {said}");
    assert_eq!(fs::read(cdn.at("out")).expect("there"), edited);
    let (code, said) = cdn.get("out", &["--force"]);
    assert!(code == Some(0) && cdn.is_right("out"), "{said}");

    fs::write(cdn.at("mine"), "mine").expect("writes");
    std::os::unix::fs::symlink("/dev/null", cdn.at("null")).expect("made");
    for (output, more) in
        [("mine", &[][..]), ("null", &[]), ("null", &["--force"]), ("new/", &[]), ("new/", &["--force"])]
    {
        let (code, said) = cdn.get(output, more);
        let last = said.trim_end().lines().last();
        assert!(code == Some(2) && last.is_some_and(|l| l.starts_with("swarmedge: ")), "{output}: {code:?} {said}");
    }
    assert_eq!(fs::read(cdn.at("mine")).expect("there"), b"mine");
    let long = "n".repeat(255);
    let (code, said) = cdn.get(&long, &[]);
    assert!(code == Some(0) && cdn.is_right(&long), "{said}");
}

#[test]
fn the_users_own_files_are_kept() {
    users_files_are_kept(false);
}

#[test]
fn the_users_own_files_are_kept_by_a_background_client() {
    users_files_are_kept(true);
}

/// A damaged data file is never reported as verified unless its pieces were fetched again.
#[test]
fn damaged_data_is_not_reported_as_verified() {
    let cdn = Cdn::new();
    let damages: [&dyn Fn(&fs::File); 4] = [
        &|file| file.set_len(0).expect("set"),
        &|file| file.set_len(LEN as u64 / 2).expect("set"),
        &|file| file.write_all_at(&[0; 100_000], 70_000).expect("written"),
        &|file| file.set_len(LEN as u64 + 1).expect("set"),
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        let (first, second) = (format!("first-{n}"), format!("second-{n}"));
        assert_eq!(cdn.get(&first, &[]).0, Some(0));
        cdn.damage(damage);
        let (code, said) = cdn.get(&second, &[]);
        assert!(code == Some(0) && said.contains("every piece verified"), "{said}");
        assert!(cdn.is_right(&second), "damage {n}: {said}");
    }
}

/// Runs `get` with its output to a pipe; everything else is on standard error.
fn printed(cdn: &Cdn, more: &[&str]) -> Output {
    let get = ["get", "1/o", "-o", "-", "--state", "state", "--bundle", "cdn/install/bundle.toml"];
    command(cdn.dir.path(), &[&get, more].concat()).output().expect("starts")
}

fn an_object_goes_to_standard_output(background: bool) {
    let mut cdn = Cdn::new();
    if background {
        cdn.background_client();
    }
    for again in [false, true] {
        let out = printed(&cdn, &[]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{said}");
        assert!(out.stdout == cdn.bytes, "{} bytes: {said}", out.stdout.len());
        assert!(said.contains("every piece verified") && said.contains("all here already") == again, "{said}");
    }
    // a file is as good as ever, and the other way round
    let (code, said) = cdn.get("out", &[]);
    assert!(code == Some(0) && cdn.is_right("out"), "{said}");
    assert!(printed(&cdn, &["--force"]).stdout == cdn.bytes);
    assert!(!cdn.at("-").exists(), "no file of that name");
    let (code, said) = cdn.get("./-", &[]);
    assert!(code == Some(0) && cdn.is_right("-"), "unless it is asked for: {said}");

    let out = printed(&cdn, &["--json"]);
    let json = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.code() == Some(2) && json.contains("--json and -o -") && out.stderr.is_empty(), "{json}");
    let line = "(\"$0\" get 1/o -o - --state state; echo $? >code) | head -c 10";
    let out = in_shell(cdn.dir.path(), line).output().expect("starts");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.stdout == cdn.bytes[..10], "{said}");
    let code = fs::read_to_string(cdn.at("code")).expect("written");
    assert!(
        code == "0\n" && !said.contains("swarmedge: ") && !said.contains("verified"),
        "a closed pipe: {code} {said}"
    );
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux");
    let get = ["get", "1/o", "-o", "-", "--state", "state"];
    let out = command(cdn.dir.path(), &get).stdout(full).stderr(Stdio::piped()).spawn().expect("starts");
    let out = out.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(6) && said.contains("standard output"), "a full disk: {said}");
}

#[test]
fn an_object_goes_to_standard_output_whole_and_alone() {
    an_object_goes_to_standard_output(false);
}

#[test]
fn a_background_client_fetches_for_standard_output() {
    an_object_goes_to_standard_output(true);
}

/// SIGTERM ends a `get` whose reader does not read.
#[test]
fn a_reader_that_stops_reading_does_not_hold_a_get() {
    let cdn = Cdn::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let get = ["get", "1/o", "-o", "-", "--state", "state", "--bundle", "cdn/install/bundle.toml"];
    let mut get = command(cdn.dir.path(), &get).stdout(writer).stderr(Stdio::null()).spawn().expect("starts");
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut &reader, &mut first).expect("it has begun to print");
    assert_eq!(first[0], cdn.bytes[0]);
    let id = get.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("it runs").success());
    assert_eq!(get.wait().expect("it ends").code(), Some(130));
    drop(reader);
}

/// The umask of whoever runs `get` decides, whatever the one of the client that fetches.
#[test]
fn a_file_has_the_mode_of_the_umask_of_its_get() {
    for background in [false, true] {
        let mut cdn = Cdn::new();
        if background {
            let client = "umask 077 && exec \"$0\" client run --state state --bundle cdn/install/bundle.toml \
                          --no-port-mapping";
            cdn.start_in_shell(client);
        }
        for umask in ["022", "027", "002", "077"] {
            let get = format!(
                "umask {umask} && exec \"$0\" get 1/o -o {umask} --state state \
                               --bundle cdn/install/bundle.toml"
            );
            let out = in_shell(cdn.dir.path(), &get).output().expect("starts");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            let mode = fs::metadata(cdn.at(umask)).expect("there").permissions().mode() & 0o7777;
            let umask = u32::from_str_radix(umask, 8).expect("octal");
            assert_eq!(mode, 0o666 & !umask, "background client: {background}, umask {umask:03o}");
        }
        let (code, said) = cdn.get("022", &[]);
        assert!(code == Some(0) && cdn.is_right("022"), "{said}");
    }
}
