//! The built binary, as a user runs it. The same for every runtime.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a wait may take on a busy machine; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(120);

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn run(binary: &str, at: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary);
    command.args(args).current_dir(at).stdin(Stdio::null());
    for name in ["SWARMEDGE_CONFIG", "SWARMEDGE_STATE", "SWARMEDGE_BUNDLE", "SWARMEDGE_LOG", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The one line of an error, and the exit code.
fn refusal(binary: &str, at: &Path, args: &[&str]) -> (String, Option<i32>) {
    let out = run(binary, at, args);
    let error = text(&out.stderr);
    assert_eq!(error.trim_end().lines().count(), 1, "one clear line: {error}");
    (error, out.status.code())
}

/// A deployment is made once, read by every server, and a slip in it is named with its line.
pub(crate) fn a_deployment_is_made_and_a_slip_in_it_is_named(binary: &str) {
    let dir = dir();
    let made = run(binary, dir.path(), &["init", "cdn"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let said = text(&made.stdout);
    for part in ["publish FILE", "serve --roles", "client run", "ledger show", "curl --cacert"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (error, code) = refusal(binary, dir.path(), &["init", "cdn"]);
    assert!(code == Some(2) && error.contains("--force"), "{error}");

    let config = dir.path().join("cdn/server.toml");
    let whole = fs::read_to_string(&config).expect("it was made");
    let line = whole.lines().position(|l| l.starts_with("dns = ")).expect("a CN has DNs") + 1;
    fs::write(&config, whole.replace("\ndns = ", "\ndsn = ")).expect("writes");
    let (error, code) = refusal(binary, dir.path(), &["cn", "--config", "cdn/server.toml"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains(&format!("cdn/server.toml:{line}:1: unknown key \"dsn\" in [cn]")), "{error}");

    let (error, code) = refusal(binary, dir.path(), &["edge", "--config", "none.toml"]);
    assert!(code == Some(2) && error.contains("none.toml"), "{error}");
}

/// Each kind of failure has its own exit code, and `--json` says the same in one object.
pub(crate) fn failures_have_their_exit_codes(binary: &str) {
    let dir = dir();
    assert!(run(binary, dir.path(), &["init", "cdn"]).status.success());
    let config = ["--config", "cdn/server.toml"];
    let with = |args: &[&'static str]| [args, &config].concat();
    let at = dir.path();
    let (error, code) = refusal(binary, at, &with(&["publish", "none.iso", "--provider", "1", "--path", "a"]));
    assert!(code == Some(3) && error.contains("none.iso"), "{error}");
    assert_eq!(refusal(binary, at, &with(&["unpublish", "--provider", "1", "--path", "a"])).1, Some(3));
    assert_eq!(refusal(binary, at, &with(&["ledger", "show"])).1, Some(3));
    assert_eq!(refusal(binary, at, &["status", "--state", "nobody"]).1, Some(4));
    let (error, code) = refusal(binary, at, &["nat", "--stun", "nonsense"]);
    assert!(code == Some(2) && error.contains("HOST:PORT"), "{error}");
    let (error, code) = refusal(binary, at, &["nat", "--stun", "127.0.0.1:1"]);
    assert!(code == Some(4) && error.contains("no STUN server answers"), "{error}");
    let out = run(binary, at, &["status", "--state", "nobody", "--json"]);
    let json = text(&out.stdout);
    assert!(json.contains("\"exit_code\":4") && out.stderr.is_empty(), "{json}");
}

/// The demo delivers, and says so in one JSON object.
pub(crate) fn a_small_demo_ends_well(binary: &str) {
    let dir = dir();
    let dir_arg = dir.path().to_str().expect("UTF-8");
    let args = ["demo", "--size", "2MiB", "--peers", "1", "--downloads", "1", "--json", "--dir", dir_arg];
    let out = run(binary, dir.path(), &args);
    let json = text(&out.stdout);
    assert!(out.status.success(), "{json}{}", text(&out.stderr));
    assert!(json.contains("\"ok\":true") && json.contains("\"sha256_match\":true"), "{json}");
    assert_eq!(json.trim_end().lines().count(), 1, "{json}");
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0, "nothing is left behind");
}

/// A few kills of whoever, and the books are right; many more in the nightly run.
pub(crate) fn a_short_crash_loop_bills_what_was_delivered(binary: &str) {
    let dir = dir();
    let dir_arg = dir.path().to_str().expect("UTF-8");
    let out = run(binary, dir.path(), &["bench", "crash", "--kills", "5", "--json", "--dir", dir_arg]);
    let json = text(&out.stdout);
    assert!(out.status.success() && json.contains("\"ok\":true"), "{json}{}", text(&out.stderr));
}

/// However the demo ends, its processes end too.
pub(crate) fn a_killed_demo_leaves_no_process(binary: &str) {
    let dir = dir();
    let dir_arg = dir.path().to_str().expect("UTF-8");
    let mut demo = Command::new(binary)
        .args(["demo", "--size", "32MiB", "--peers", "0", "--downloads", "1", "--edge-limit", "100KB/s"])
        .args(["--dir", dir_arg])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let work = dir.path().join(format!("swarmedge-demo-{}", demo.id()));
    let running = work.join("clients/download-1/control.sock");
    let seen = wait_for(|| running.exists() && processes_of(&work) >= 5);
    kill(&mut demo);
    assert!(seen, "four servers and a client were started");
    assert!(wait_for(|| processes_of(&work) == 0), "processes are left");
}

fn kill(child: &mut Child) {
    child.kill().expect("it runs");
    child.wait().expect("it was started");
}

fn wait_for(mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// How many processes were started with something below `dir` on their command line.
fn processes_of(dir: &Path) -> usize {
    let dir = dir.to_str().expect("UTF-8");
    let all = fs::read_dir("/proc").expect("Linux");
    all.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| text(line).contains(dir))
        .count()
}
