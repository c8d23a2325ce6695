//! Tests `publish` on odd files and paths, and by another user than the servers'.

use super::outputs::{Cdn, command, in_shell};
use super::skip;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time-out of each wait, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);
/// User and group of the servers where root runs the tests.
const NOBODY: u32 = 65_534;

/// Runs `publish`; returns its exit code, what it said, and that it ended in time.
fn publish(at: &Path, file: &str, path: &str) -> (Option<i32>, String) {
    let args = ["publish", file, "--provider", "1", "--path", path, "--config", "cdn/server.toml"];
    let mut child = command(at, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let until = Instant::now() + PATIENCE;
    while child.try_wait().expect("it was started").is_none() {
        if Instant::now() >= until {
            let _ = child.kill();
            panic!("publish {file} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let out = child.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code(), said)
}

fn staged(cdn: &Cdn) -> usize {
    fs::read_dir(cdn.at("cdn/edge/objects/staging")).map_or(0, Iterator::count)
}

#[test]
fn publish_takes_regular_files_only_and_never_waits() {
    let cdn = Cdn::new();
    let at = cdn.dir.path();
    assert!(Command::new("mkfifo").arg(cdn.at("fifo")).status().expect("it runs").success());
    let _socket = std::os::unix::net::UnixListener::bind(cdn.at("socket")).expect("bound");
    for (name, to) in [("to-fifo", "fifo"), ("to-zero", "/dev/zero"), ("to-object", "object"), ("dangling", "none")] {
        symlink(to, cdn.at(name)).expect("linked");
    }
    for (file, why) in [
        ("fifo", "is a FIFO"),
        ("to-fifo", "is a FIFO"),
        ("socket", "is a socket"),
        ("/dev/zero", "is a device"),
        ("to-zero", "is a device"),
        ("cdn", "is a directory"),
    ] {
        let (code, said) = publish(at, file, "odd");
        assert!(code == Some(2) && said.contains(why) && said.contains("publish"), "{file}: {code:?} {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(publish(at, "dangling", "odd").0, Some(3));
    let (code, said) = publish(at, "to-object", "linked");
    assert_eq!(code, Some(0), "{said}");
    for path in
        ["a\u{202e}gnp.exe", "a\u{2066}b", "a\u{200f}", "\u{61c}a", "a\u{1b}[2Jb", "a\u{9b}b", "a\tb", "a\u{7f}"]
    {
        let (code, said) = publish(at, "object", path);
        assert!(code == Some(2) && said.contains("nobody sees"), "{path:?}: {said:?}");
        let raw = said.contains(|c: char| !c.is_ascii() || c.is_control() && c != '\n');
        assert!(!raw, "printed raw: {said:?}");
    }
    assert_eq!(staged(&cdn), 0, "nothing is left of refused files");
    let list = command(at, &["objects", "--config", "cdn/server.toml"]).output().expect("starts");
    assert!(!String::from_utf8_lossy(&list.stdout).contains("odd"), "nothing odd was published");
}

/// Names with hidden characters in catalogues of older versions are shown as escapes.
#[test]
fn hidden_characters_of_old_catalogues_are_never_printed_raw() {
    let cdn = Cdn::new();
    let catalogue = cdn.at("cdn/edge/objects/catalogue.json");
    let text = fs::read_to_string(&catalogue).expect("there");
    let name = "a\u{202e}gnp.exe";
    let old = text.replace("\"path\": \"o\"", &format!("\"path\": \"{name}\""));
    assert_ne!(old, text);
    fs::write(&catalogue, old).expect("written");
    let url = "swarmedge://1/a%E2%80%AEgnp.exe";
    let named = ["-o", "named"];
    let (bundle, state) = (["--bundle", "cdn/install/bundle.toml"], ["--state", "state"]);
    let commands: [(&[&str], bool); 6] = [
        (&["objects", "--config", "cdn/server.toml"], true),
        (&["objects", "--config", "cdn/server.toml", "--json"], true),
        (&[&["get", url], &bundle[..], &state[..]].concat(), false),
        (&[&["get", url, "--json"], &named[..], &bundle[..], &state[..]].concat(), true),
        (&[&["get", url], &["-o", name], &bundle[..], &state[..]].concat(), true),
        (&["unpublish", "--provider", "1", "--path", name, "--config", "cdn/server.toml"], true),
    ];
    for (args, succeeds) in commands {
        let out = command(cdn.dir.path(), args).output().expect("starts");
        let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.success(), succeeds, "{args:?}: {said:?}");
        let raw = said.contains(['\u{202e}', '\u{1b}']);
        assert!(!raw && said.contains("gnp"), "{args:?}: {said:?}");
    }
    assert!(fs::read(cdn.at("named")).expect("there") == cdn.bytes);
}

/// A process that is killed in the end.
struct Servers(Child);

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the servers of a deployment and fetches an object from them.
fn serves(cdn: &Cdn, objects: &[&str], user: Option<u32>) {
    let mut serve = command(cdn.dir.path(), &["serve", "--config", "cdn/server.toml"]);
    let log = fs::File::create(cdn.at("serve.log")).expect("made");
    serve.stdout(Stdio::null()).stderr(log);
    if let Some(user) = user {
        serve.uid(user).gid(user);
    }
    let _servers = Servers(serve.spawn().expect("starts"));
    for object in objects {
        let output = format!("{object}.out");
        let _ = fs::remove_file(cdn.at(&output));
        let url = format!("1/{object}");
        let get = ["get", &url, "-o", &output, "--state", "state", "--bundle", "cdn/install/bundle.toml"];
        let out = command(cdn.dir.path(), &get).output().expect("starts");
        let log = || fs::read_to_string(cdn.at("serve.log")).unwrap_or_default();
        assert!(out.status.success(), "{}\n{}", String::from_utf8_lossy(&out.stderr), log());
        assert!(fs::read(cdn.at(&output)).expect("there") == cdn.bytes, "{object}");
    }
}

/// Gives a directory and all in it to a user; `None` if only root could.
fn give_away(path: &Path, user: u32) -> Option<()> {
    chown(path, Some(user), Some(user)).ok()?;
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory").flatten() {
            give_away(&entry.path(), user)?;
        }
    }
    Some(())
}

fn publish_strictly(cdn: &Cdn, path: &str) {
    let line = format!("umask 077 && exec \"$0\" publish object --provider 1 --path {path} --config cdn/server.toml");
    let out = in_shell(cdn.dir.path(), &line).output().expect("starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Modes of the catalogue and of everything published, each once.
fn modes(cdn: &Cdn) -> Vec<u32> {
    let objects = cdn.at("cdn/edge/objects");
    let all = ["content", "manifests"].map(|dir| fs::read_dir(objects.join(dir)).expect("there").flatten());
    let files = all.into_iter().flatten().map(|f| f.path()).chain([objects.join("catalogue.json")]);
    let mut modes: Vec<_> = files.map(|f| fs::metadata(f).expect("there").mode() & 0o777).collect();
    modes.sort_unstable();
    modes.dedup();
    modes
}

#[test]
fn a_strict_umask_keeps_nothing_published_from_its_readers() {
    let mut cdn = Cdn::new();
    for mode in [0o644, 0o640] {
        let catalogue = cdn.at("cdn/edge/objects/catalogue.json");
        for dir in ["content", "manifests", ""] {
            for file in fs::read_dir(cdn.at("cdn/edge/objects").join(dir)).expect("there").flatten() {
                if file.path().is_file() {
                    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).expect("set");
                }
            }
        }
        publish_strictly(&cdn, &format!("strict-{mode:o}"));
        assert_eq!(modes(&cdn), [mode]);
        assert_eq!(fs::metadata(catalogue).expect("there").mode() & 0o777, mode);
    }
    cdn.stop();
    serves(&cdn, &["strict-644", "strict-640", "o"], None);
}

/// Root publishes for servers of another user: everything goes on to be theirs, also after a restart, and what an
/// earlier command has left to root alone is mended by the next.
#[test]
fn what_root_publishes_can_be_served_by_the_servers_user() {
    let mut cdn = Cdn::new();
    cdn.stop();
    let can_run = || Command::new(crate::BINARY).arg("-V").uid(NOBODY).gid(NOBODY).stdout(Stdio::null()).status();
    if give_away(cdn.dir.path(), NOBODY).is_none() || can_run().is_err() {
        return skip("it needs root, and a place of the binary that everybody can reach");
    }
    publish_strictly(&cdn, "strict");
    serves(&cdn, &["o", "strict"], Some(NOBODY));
    let catalogue = cdn.at("cdn/edge/objects/catalogue.json");
    chown(&catalogue, Some(0), Some(0)).expect("root");
    fs::set_permissions(&catalogue, fs::Permissions::from_mode(0o600)).expect("set");
    publish_strictly(&cdn, "mended");
    serves(&cdn, &["mended"], Some(NOBODY));
    // the first publication of all makes the directories too
    fs::remove_dir_all(cdn.at("cdn/edge/objects")).expect("removed");
    publish_strictly(&cdn, "first");
    serves(&cdn, &["first"], Some(NOBODY));
    for keys in ["provider-keys rotate --provider 1", "keys rotate"] {
        let line = format!("umask 077 && exec \"$0\" {keys} --config cdn/server.toml");
        assert!(in_shell(cdn.dir.path(), &line).output().expect("starts").status.success(), "{keys}");
    }
    serves(&cdn, &["first"], Some(NOBODY));
}
