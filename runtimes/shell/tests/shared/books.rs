//! Tests that an operator cannot lose records unnoticed: files of the ledger and of spools, backups, certificates.

use super::crew::{Running, deployment, text};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use swarmedge_cli::init::Deployment;
use swarmedge_cli::process::is_healthy;
use swarmedge_ground::tls::CertAuthority;

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

/// Runs a command with the deployment's configuration.
fn run_command(made: &Deployment, args: &[&str]) -> Output {
    let config = text(&made.config);
    Command::new(crate::BINARY).args(args).args(["--config", &config]).output().expect("the binary starts")
}

fn serve(made: &Deployment) -> Running {
    let config = text(&made.config);
    let log = fs::File::options().create(true).append(true).open(made.config.with_extension("log")).expect("opens");
    let mut servers = Running::start(&["serve", "--config", &config], log.into());
    let ops = made.ports.ops.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    servers.wait_until(|| ops.iter().all(|at| is_healthy(*at)));
    servers
}

fn stop(servers: Running) {
    assert_eq!(servers.stop().code(), Some(0));
}

/// Returns the error text of servers that refuse to start.
fn refusal(made: &Deployment) -> String {
    let config = text(&made.config);
    let out = Command::new(crate::BINARY).args(["serve", "--config", &config]).stdin(Stdio::null()).output();
    let out = out.expect("the binary starts");
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    said(&out)
}

/// Inserts generated records into the ledger.
fn fill(made: &Deployment, database: &Path) {
    let database = text(database);
    let fill =
        ["bench", "ledger", "--records", "16", "--batch", "16", "--until", "2026-01-31", "--database", &database];
    let out = Command::new(crate::BINARY).args(fill).output().expect("the binary starts");
    assert!(out.status.success(), "{}", said(&out));
    assert!(downloads(made) > 0);
}

/// Returns the number of downloads that the ledger shows.
fn downloads(made: &Deployment) -> usize {
    let out = run_command(made, &["ledger", "show", "--json"]);
    assert!(out.status.success(), "{}", said(&out));
    said(&out).matches("\"download\":").count()
}

#[test]
fn a_lost_database_stops_the_start_until_the_loss_is_accepted() {
    let (dir, mut made) = deployment();
    // servers start without further commands if the deployment has never run, or was moved
    stop(serve(&made));
    let moved = dir.path().join("moved");
    fs::rename(made.config.parent().expect("a folder"), &moved).expect("moved");
    made.config = moved.join("server.toml");
    stop(serve(&made));
    for (keeper, file) in [("ledger", "ledger/ledger.sqlite"), ("edge", "edge/spool.redb"), ("cn", "cn/spool.redb")] {
        let at = moved.join(file);
        let kept = fs::read(&at).expect("there");
        let nothing = run_command(&made, &["accept-loss", keeper]);
        assert!(nothing.status.success() && said(&nothing).contains("nothing is lost"), "{}", said(&nothing));
        for is_emptied in [false, true] {
            if is_emptied { fs::write(&at, "") } else { fs::remove_file(&at) }.expect("lost");
            let error = refusal(&made);
            assert!(error.contains(file) && error.contains(&format!("accept-loss {keeper}")), "{error}");
        }
        fs::write(&at, &kept).expect("put back");
        stop(serve(&made));
        fs::remove_file(&at).expect("lost");
        let accepted = run_command(&made, &["accept-loss", keeper]);
        assert!(accepted.status.success() && said(&accepted).contains("is gone"), "{}", said(&accepted));
        stop(serve(&made));
        assert!(at.exists(), "created anew");
        fs::remove_file(&at).expect("lost again");
        assert!(refusal(&made).contains("accept-loss"), "the new one is missed as well");
        fs::write(&at, &kept).expect("put back");
        if keeper == "ledger" {
            assert!(run_command(&made, &["accept-loss", keeper]).status.success());
        }
    }
}

#[test]
fn a_ledger_is_backed_up_while_running_and_one_file_after_a_stop() {
    let (dir, made) = deployment();
    let database = made.config.with_file_name("ledger").join("ledger.sqlite");
    let copy = dir.path().join("copy.sqlite");
    let servers = serve(&made);
    fill(&made, &database);
    let all = downloads(&made);
    let out = run_command(&made, &["ledger", "backup", &text(&copy)]);
    assert!(out.status.success() && said(&out).contains("15 records"), "{}", said(&out));
    assert_eq!(run_command(&made, &["ledger", "backup", &text(&copy)]).status.code(), Some(2), "never written over");
    stop(servers);
    let whole = fs::read(&database).expect("there");
    let log = fs::metadata(database.with_extension("sqlite-wal")).map_or(0, |meta| meta.len());
    assert_eq!(log, 0, "nothing is left beside the file");
    for put_back in [whole, fs::read(&copy).expect("there")] {
        fs::write(&database, put_back).expect("put back");
        assert_eq!(downloads(&made), all);
        let servers = serve(&made);
        assert_eq!(downloads(&made), all);
        stop(servers);
    }
}

#[test]
fn a_ledger_whose_log_is_lost_after_a_crash_is_refused() {
    let (_dir, made) = deployment();
    let database = made.config.with_file_name("ledger").join("ledger.sqlite");
    let servers = serve(&made);
    fill(&made, &database);
    // kills the servers, as in a crash
    drop(servers);
    let log = database.with_extension("sqlite-wal");
    assert!(fs::metadata(&log).expect("there").len() > 0);
    fs::remove_file(&log).expect("lost");
    let error = refusal(&made);
    assert!(error.contains("lacks") && error.contains("accept-loss ledger"), "{error}");
    assert_eq!(run_command(&made, &["ledger", "show"]).status.code(), Some(3));
    let accepted = run_command(&made, &["accept-loss", "ledger", "--json"]);
    assert!(accepted.status.success() && said(&accepted).contains("lacks"), "{}", said(&accepted));
    stop(serve(&made));
}

#[test]
fn renewing_keeps_foreign_certificates_and_says_so() {
    let (_dir, made) = deployment();
    let edge = made.config.with_file_name("edge");
    let (cert, key) = CertAuthority::new().and_then(|ca| ca.issue(&["127.0.0.1"])).expect("issued");
    fs::write(edge.join("tls.pem"), &cert).expect("writes");
    fs::write(edge.join("tls.key.pem"), &key).expect("writes");
    let out = run_command(&made, &["certificates", "renew"]);
    let told = said(&out);
    assert!(out.status.success() && told.contains("left alone") && told.contains("edge/tls.pem"), "{told}");
    assert_eq!(fs::read_to_string(edge.join("tls.pem")).expect("there"), cert);
    assert_eq!(fs::read_to_string(edge.join("tls.key.pem")).expect("there"), key);
    let listed = said(&run_command(&made, &["certificates", "list", "--json"]));
    assert_eq!((listed.matches("\"own\":false").count(), listed.matches("\"own\":true").count()), (1, 7), "{listed}");
}
