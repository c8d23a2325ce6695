//! Tests of the built binary, used as a user would.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time-out of each wait, generous for busy machines.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

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

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the single line of an error, and the exit code.
fn refusal(binary: &str, at: &Path, args: &[&str]) -> (String, Option<i32>) {
    let out = run(binary, at, args);
    let error = text(&out.stderr);
    assert_eq!(error.trim_end().lines().count(), 1, "one clear line: {error}");
    (error, out.status.code())
}

/// A deployment is made once and read by every server; an error in its configuration is reported with its line.
#[test]
fn a_configuration_error_is_reported_with_its_line() {
    let binary = crate::BINARY;
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

/// Each kind of failure has its own exit code; with `--json` the error is one object.
#[test]
fn failures_have_their_exit_codes() {
    let binary = crate::BINARY;
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
    let (error, code) = refusal(binary, at, &["nat", "--state", "zz"]);
    assert!(code == Some(2) && error.matches("--bundle").count() == 1, "the advice once: {error}");
    let out = run(binary, at, &["publish", "file", "--json"]);
    let json = text(&out.stdout);
    assert!(out.status.code() == Some(2) && json.contains("--provider") && json.contains("--path"), "{json}");
    let out = run(binary, at, &["report", "--provider", "1", "--format", "csv", "--json"]);
    let json = text(&out.stdout);
    assert!(out.status.code() == Some(2) && json.contains("--json and --format"), "{json}");
    let out = run(binary, at, &["status", "--state", "nobody", "--json"]);
    let json = text(&out.stdout);
    assert!(json.contains("\"exit_code\":4") && out.stderr.is_empty(), "{json}");
}

/// A mistyped command creates no ledger, closes no day, and does not quarantine without naming the GUID as unknown.
#[test]
fn a_mistyped_command_has_no_lasting_effect() {
    const NOBODY: &str = "0123456789abcdef0123456789abcdef";
    let binary = crate::BINARY;
    let dir = dir();
    let at = dir.path();
    assert!(run(binary, at, &["init", "cdn"]).status.success());
    let with = |args: &[&'static str]| [args, &["--config", "cdn/server.toml"]].concat();
    let quarantine = ["quarantine", "add", NOBODY, "--reason", "clique"];
    for missing in [&["ledger", "close-day"][..], &["ledger", "forks"], &["quarantine", "remove", NOBODY], &quarantine]
    {
        let (error, code) = refusal(binary, at, &with(missing));
        assert!(code == Some(3) && error.contains("there is no ledger"), "{missing:?}: {error}");
    }
    assert!(!at.join("cdn/ledger/ledger.sqlite").exists(), "nothing was made");

    let fill = ["bench", "ledger", "--records", "16", "--batch", "16", "--until", "2026-01-31", "--database"];
    assert!(run(binary, at, &[&fill[..], &["cdn/ledger/ledger.sqlite"]].concat()).status.success());
    let config = at.join("cdn/server.toml");
    let whole = fs::read_to_string(&config).expect("it was made");
    fs::write(&config, whole.replace("\nsettle_days = 2\n", "\nsettle_days = 100000\n")).expect("writes");
    let early = with(&["ledger", "close-day", "--day", "2026-01-31"]);
    let (error, code) = refusal(binary, at, &early);
    assert!(code == Some(2) && error.contains("settle_days") && error.contains("--force"), "{error}");
    let forced = run(binary, at, &[&early[..], &["--force"]].concat());
    assert!(text(&forced.stdout).contains("closed 2026-01-31"), "{}", text(&forced.stderr));

    let (error, code) = refusal(binary, at, &with(&["report", "--provider", "9"]));
    assert!(code == Some(3) && error.contains("nothing of provider 9"), "{error}");
    let empty = run(binary, at, &with(&["quarantine", "add", NOBODY, "--reason", " "]));
    assert!(empty.status.code() == Some(2) && text(&empty.stderr).contains("say why"), "{}", text(&empty.stderr));
    let unknown = run(binary, at, &with(&quarantine));
    assert!(text(&unknown.stderr).contains("no record names 0123456789abcdef"), "{}", text(&unknown.stderr));
    let again = run(binary, at, &with(&["quarantine", "add", NOBODY, "--reason", "another"]));
    assert!(text(&again.stdout).contains("keep the reason"), "{}", text(&again.stdout));
}

/// The keys of a provider's policy count for every object of the provider that does not set them itself.
#[test]
fn a_providers_policy_counts_below_that_of_each_object() {
    let binary = crate::BINARY;
    let dir = dir();
    let at = dir.path();
    assert!(run(binary, at, &["init", "cdn"]).status.success());
    fs::write(at.join("provider.toml"), "upload_rate_max = \"2MB/s\"\nuploads_max = 3\n").expect("writes");
    fs::write(at.join("object.toml"), "uploads_max = 0\n").expect("writes");
    fs::write(at.join("file"), "content").expect("writes");
    let say = |args: &[&str]| {
        let done = run(binary, at, &[args, &["--provider", "1", "--config", "cdn/server.toml"]].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    };
    say(&["publish", "file", "--path", "plain"]);
    say(&["publish", "file", "--path", "own", "--policy", "object.toml"]);
    assert_eq!(say(&["policy", "provider.toml"]), "provider 1: the policy of 2 objects has changed\n");
    let said = say(&["publish", "file", "--path", "plain"]);
    assert!(said.contains("policy upload_rate_max = 2000000, uploads_max = 3, as before\n"), "{said}");
    let said = say(&["publish", "file", "--path", "own"]);
    assert!(said.contains("policy upload_rate_max = 2000000, as before\n"), "{said}");
    assert_eq!(say(&["policy", "provider.toml"]), "provider 1: the policy of 0 objects has changed\n");
}

/// The URLs that `publish` prints can be copied, and a policy stays in force until another is given.
#[test]
fn publishing_again_keeps_the_policy_and_prints_it() {
    let binary = crate::BINARY;
    let dir = dir();
    let at = dir.path();
    assert!(run(binary, at, &["init", "cdn"]).status.success());
    fs::write(at.join("policy.toml"), "peer_upload = false\n").expect("writes");
    let publish = |args: &[&'static str]| {
        fs::write(at.join("file"), args.len().to_string()).expect("writes");
        let put = ["publish", "file", "--provider", "1", "--path", "a b/\u{fc}?.iso", "--config", "cdn/server.toml"];
        let done = run(binary, at, &[&put[..], args].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    };
    assert!(publish(&[]).contains("policy default\n"));
    let said = publish(&["--policy", "policy.toml"]);
    assert!(said.contains("policy peer_upload = false\n") && said.contains("/1/a%20b/%C3%BC%3F.iso"), "{said}");
    let said = publish(&[]);
    assert!(said.contains("policy peer_upload = false, as before\n"), "{said}");
    let listed = text(&run(binary, at, &["objects", "--config", "cdn/server.toml"]).stdout);
    assert!(listed.contains("/1/a%20b/%C3%BC%3F.iso"), "{listed}");
    let help = text(&run(binary, at, &["publish", "--help"]).stdout);
    for key in ["peer_download", "upload_rate_max", "expires_ms", "bytes a second", "milliseconds"] {
        assert!(help.contains(key), "{key}");
    }
}

/// Returns an exported day without its statements.
fn emptied(day: &str) -> String {
    let (begin, end) = day.split_once('\n').expect("a day's line");
    let end = end.find("{\"format\"").map_or("", |n| &end[n..]);
    let (before, after) = begin.split_once("\"range\":[").expect("its proof");
    let (_, after) = after.split_once(']').expect("a list");
    let (head, n) = before.split_once("\"statements\":").expect("announced");
    let (_, n) = n.split_once(',').expect("a number");
    format!("{head}\"statements\":0,{n}\"range\":[]{after}\n{end}")
}

/// With exported days and the operator's root key, a provider's auditor detects every kind of changed export, and
/// accepts the honest one.
#[test]
fn an_auditor_detects_changed_exports_and_accepts_honest_ones() {
    let binary = crate::BINARY;
    let (operator, auditor) = (dir(), dir());
    let root = closed_and_exported(binary, operator.path(), "800", &auditor.path().join("honest"));
    // the same operator, but other records of the same days
    let other = dir();
    fs::create_dir(other.path().join("cdn")).expect("made");
    let files = fs::read_dir(operator.path().join("cdn")).expect("there").flatten().map(|f| f.path());
    for file in files.filter(|f| f.is_file()) {
        fs::copy(&file, other.path().join("cdn").join(file.file_name().expect("named"))).expect("copied");
    }
    for part in ["ledger", "install"] {
        copy_dir(&operator.path().join("cdn").join(part), &other.path().join("cdn").join(part));
    }
    closed_and_exported(binary, other.path(), "1600", &auditor.path().join("other"));

    let honest = fs::read_to_string(auditor.path().join("honest")).expect("exported");
    let lines: Vec<&str> = honest.lines().collect();
    let at = lines.iter().position(|l| l.starts_with("{\"download\"")).expect("a download was settled");
    let announced = |text: &str, by: i64| {
        let (before, n) = text.split_once("\"statements\":").expect("announced");
        let (n, after) = n.split_once(',').expect("a number");
        format!("{before}\"statements\":{},{after}", n.parse::<i64>().expect("a number") + by)
    };
    let without = [&lines[..at], &lines[at + 1..]].concat();
    let bend = |line: &str, field: &str| {
        let at = line.find(field).expect("there") + field.len();
        let other = if line[at..].starts_with('1') { "2" } else { "1" };
        line[..at].to_owned() + other + &line[at + 1..]
    };
    let added = bend(lines[at], "\"download\":\"");
    let with = [&lines[..at], &[&added[..]], &lines[at..]].concat();
    let other = fs::read_to_string(auditor.path().join("other")).expect("exported");
    let second = |text: &str| text[1..].find("{\"format\"").map(|n| n + 1).expect("two days");
    let replaced = other[..second(&other)].to_owned() + &honest[second(&honest)..];
    let (empty_first, empty_last) =
        (emptied(&honest), honest[..second(&honest)].to_owned() + &emptied(&honest[second(&honest)..]));
    let changed = honest.replacen(lines[at], &bend(lines[at], "\"peer_bytes\":"), 1);
    let bent = [
        ("changed", changed, "a record was changed"),
        ("dropped", without.join("\n"), "a record was dropped"),
        ("dropped-well", announced(&without.join("\n"), -1), "a record was dropped"),
        ("added", with.join("\n"), "a record was added"),
        ("added-well", announced(&with.join("\n"), 1), "a record was added"),
        ("replaced", replaced, "the day was replaced"),
        ("emptied-first", empty_first, "the day was emptied"),
        ("emptied-last", empty_last, "the day was emptied"),
    ];
    let at = auditor.path();
    for (name, text, found) in bent {
        fs::write(at.join(name), text).expect("writes");
        let (error, code) = refusal(binary, at, &["audit", name, "--root", &root]);
        assert!(code == Some(7) && error.contains(found) && error.contains("evidence"), "{name}: {error}");
    }
    let said = run(binary, at, &["audit", "honest", "--root", &root, "--seen", "heads"]);
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert!(text(&said.stdout).contains("nothing is missing"), "{}", text(&said.stdout));
    let (error, _) = refusal(binary, at, &["audit", "other", "--root", &root, "--seen", "heads"]);
    assert!(error.contains("replaced"), "whole in itself, and not what was seen before: {error}");
    let (error, code) = refusal(binary, at, &["audit", "honest", "--root", &"0".repeat(64)]);
    assert!(code == Some(7) && error.contains("not signed by a ledger of this operator"), "{error}");
    assert!(error.contains("root key this operator's?"), "{error}");
}

/// An auditor's mistake is not reported as fraud, and neither is an invoice that disagrees.
#[test]
fn an_audit_distinguishes_mistakes_fraud_and_wrong_invoices() {
    let binary = crate::BINARY;
    let dir = dir();
    let at = dir.path();
    let root = closed_and_exported(binary, at, "800", &at.join("honest"));
    let export = |provider: &'static str, format: &'static str, to: &'static str| {
        let what = ["ledger", "export", "--provider", provider, "--from", "2026-01-30", "--format", format];
        [&what[..], &["-o", to, "--config", "cdn/server.toml"]].concat()
    };
    let (error, code) = refusal(binary, at, &export("1", "jsonl", "honest"));
    assert!(code == Some(2) && error.contains("--force"), "{error}");
    for made in [export("2", "jsonl", "second"), export("1", "parquet", "table")] {
        assert!(run(binary, at, &made).status.success(), "{made:?}");
    }
    let kept = fs::read(at.join("second")).expect("exported");
    let slips: [(&[&str], &str); 5] = [
        (&["honest", "second"], "of provider"),
        (&["honest", "honest"], "given twice"),
        (&["table"], "--format jsonl"),
        (&["honest", "--seen", "second"], "second:1: "),
        (&["honest", "--invoice", "short.json"], "no peer_bytes"),
    ];
    fs::write(at.join("short.json"), r#"{"edge_bytes":1,"peers_bytes":1,"plain_bytes":1}"#).expect("writes");
    let audit = |args: &[&str]| refusal(binary, at, &[&["audit", "--root", &root], args].concat());
    for (args, found) in slips {
        let (error, code) = audit(args);
        assert!(code == Some(2) && error.contains(found), "{args:?}: {error}");
    }
    assert_eq!(fs::read(at.join("second")).expect("exported"), kept, "--seen has not touched what is not its own");

    let days = ["--from", "2026-01-30", "--to", "2026-01-31", "--format", "json", "-o", "invoice.json"];
    let report = [&["report", "--provider", "1", "--config", "cdn/server.toml"], &days[..]].concat();
    assert!(run(binary, at, &report).status.success());
    let said = run(binary, at, &["audit", "honest", "--root", &root, "--invoice", "invoice.json"]);
    assert!(text(&said.stdout).contains("to the byte: provider, from, to, "), "{}", text(&said.stderr));
    let invoice = fs::read_to_string(at.join("invoice.json")).expect("written");
    fs::write(at.join("other.json"), invoice.replacen("\"provider\":1", "\"provider\":2", 1)).expect("writes");
    let (error, code) = audit(&["honest", "--invoice", "other.json"]);
    assert!(code == Some(8) && error.contains("provider is 2 in the invoice"), "{error}");
}

/// With the records of every download the auditor computes the figures again, and detects records that do not prove
/// them.
#[test]
fn an_auditor_recomputes_the_bill_from_receipts() {
    let binary = crate::BINARY;
    let (operator, auditor) = (dir(), dir());
    let at = auditor.path();
    let root = closed_and_exported(binary, operator.path(), "400", &at.join("days"));
    let out = at.join("records");
    let range = ["--from", "2026-01-30", "--to", "2026-01-31", "--config", "cdn/server.toml"];
    let export = ["ledger", "export", "--provider", "1", "--evidence", "-o", out.to_str().expect("UTF-8")];
    let done = run(binary, operator.path(), &[&export[..], &range].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let audit = |records: &str| ["audit", "days", "--root", &root, "--evidence", records].map(str::to_owned);
    let args = audit("records");
    let said = run(binary, at, &args.each_ref().map(String::as_str));
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert!(text(&said.stdout).contains("receipts that its key has signed prove"), "{}", text(&said.stdout));

    let honest = fs::read_to_string(&out).expect("exported");
    let (first, others) = honest.split_once('\n').expect("more than one download");
    let id = first.split_once("\"download\":\"").and_then(|(_, id)| id.split('"').next()).expect("it has an id");
    let record = first.find("{\"came_ms\"").expect("it has records");
    let next = first[record + 1..].find("{\"came_ms\"").expect("more than one") + record + 1;
    let (without, later) =
        (first[..record].to_owned() + &first[next..], first.replacen("{\"came_ms\":1", "{\"came_ms\":2", 1));
    let bent = [
        ("dropped", others.to_owned(), "is billed, and its records are not here"),
        ("record-dropped", format!("{without}\n{others}"), "one was changed, dropped or added"),
        ("record-changed", format!("{later}\n{others}"), "one was changed, dropped or added"),
        ("twice", format!("{first}\n{honest}"), "its records came before in this file"),
    ];
    for (name, text, found) in bent {
        fs::write(at.join(name), text).expect("writes");
        let (error, code) = refusal(binary, at, &audit(name).each_ref().map(String::as_str));
        assert!(code == Some(7) && error.contains(found) && error.contains(id), "{name}: {error}");
    }
}

/// Fills a deployment's ledger (making the deployment first if needed), closes its days and exports two of them;
/// returns the operator's root key.
fn closed_and_exported(binary: &str, at: &Path, records: &str, to: &Path) -> String {
    if !at.join("cdn").exists() {
        assert!(run(binary, at, &["init", "cdn"]).status.success());
    }
    let (config, to) = (["--config", "cdn/server.toml"], to.to_str().expect("UTF-8"));
    let database = "cdn/ledger/ledger.sqlite";
    let day = "2026-01-31";
    let steps: [&[&str]; 3] = [
        &["bench", "ledger", "--records", records, "--batch", "16", "--until", day, "--database", database],
        &[&["ledger", "close-day", "--day", "2026-02-02"], &config[..]].concat(),
        &[&["ledger", "export", "--provider", "1", "--from", "2026-01-30", "--to", day, "-o", to], &config[..]]
            .concat(),
    ];
    for step in steps {
        let done = run(binary, at, step);
        assert!(done.status.success(), "{step:?}: {}", text(&done.stderr));
    }
    let bundle = fs::read_to_string(at.join("cdn/install/bundle.toml")).expect("made");
    let root = bundle.lines().find_map(|l| l.strip_prefix("root = ")).expect("it names the root key");
    root.trim_matches('"').to_owned()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for file in fs::read_dir(from).expect("there").flatten().filter(|f| f.path().is_file()) {
        // copies keys and certificates, but not the databases
        if !file.file_name().to_string_lossy().contains("sqlite") {
            fs::copy(file.path(), to.join(file.file_name())).expect("copied");
        }
    }
}

/// The demo delivers its file and reports success in one JSON object.
#[test]
fn a_small_demo_succeeds() {
    let binary = crate::BINARY;
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

/// After a few kills of random processes the ledger is right; the nightly run has many more.
#[test]
fn a_short_crash_loop_bills_the_delivered_bytes() {
    let binary = crate::BINARY;
    let dir = dir();
    let dir_arg = dir.path().to_str().expect("UTF-8");
    let out = run(binary, dir.path(), &["bench", "crash", "--kills", "5", "--json", "--dir", dir_arg]);
    let json = text(&out.stdout);
    assert!(out.status.success() && json.contains("\"ok\":true"), "{json}{}", text(&out.stderr));
}

/// When the demo is killed, its processes end too.
#[test]
fn a_killed_demo_leaves_no_process() {
    let binary = crate::BINARY;
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

pub(super) fn wait_for(mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Returns the number of processes with a path below `dir` on their command line.
fn processes_of(dir: &Path) -> usize {
    let dir = dir.to_str().expect("UTF-8");
    let all = fs::read_dir("/proc").expect("Linux");
    all.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| text(line).contains(dir))
        .count()
}
