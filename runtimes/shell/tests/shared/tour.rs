//! Types the commands of the README's tour, as they stand there, in one directory.

use super::commands::{text, wait_for};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A newcomer's directory and processes; the program is on the path under the name of the README.
struct Newcomer {
    dir: tempfile::TempDir,
    running: Vec<Child>,
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Newcomer {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("bin")).expect("made");
        std::os::unix::fs::symlink(crate::BINARY, dir.path().join("bin/swarmedge")).expect("linked");
        Self { dir, running: Vec::new() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn shell(&self, line: &str) -> Command {
        let path = format!("{}:{}", self.at("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("bash");
        shell.args(["-c", line]).current_dir(self.dir.path()).stdin(Stdio::null());
        shell.env("PATH", path).env("HOME", self.at("home")).env_remove("XDG_STATE_HOME");
        for name in ["SWARMEDGE_CONFIG", "SWARMEDGE_STATE", "SWARMEDGE_BUNDLE", "SWARMEDGE_LOG", "RUST_LOG"] {
            shell.env_remove(name);
        }
        shell
    }

    /// Types one line; one that ends with `&` runs on.
    fn types(&mut self, line: &str) -> Option<Output> {
        let Some(command) = line.strip_suffix('&') else {
            return Some(self.shell(line).output().expect("a shell"));
        };
        let log = fs::File::create(self.at("background.log")).expect("made");
        // the shell's place is taken by the command, so that ending the child ends it
        let (program, rest) = command.split_once("swarmedge").expect("one of ours");
        let started = self.shell(&format!("{program}exec swarmedge{rest}")).stdout(Stdio::null()).stderr(log).spawn();
        self.running.push(started.expect("a shell"));
        if line.contains("client run") {
            // a person types the next command later
            let up = || self.shell("swarmedge status").output().is_ok_and(|out| out.status.success());
            assert!(wait_for(up), "{line}: {}", fs::read_to_string(self.at("background.log")).unwrap_or_default());
        }
        None
    }
}

/// Returns the commands of the tour, without the comments behind them.
fn tour() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).expect("it is there");
    let tour = readme.split("## A short tour").nth(1).expect("a tour");
    let tour = tour.split("What stands behind it").next().expect("its beginning");
    let blocks = tour.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let command = |line: &str| line.split("  #").next().unwrap_or_default().trim().to_owned();
    blocks.flat_map(str::lines).map(command).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_tour_of_the_readme_works_as_it_is_typed() {
    let mut newcomer = Newcomer::new();
    let lines = tour();
    assert!(lines.len() > 10, "{lines:?}");
    for line in lines.iter().filter(|line| !line.starts_with("cargo ") && !line.starts_with("export PATH")) {
        if let Some(out) = newcomer.types(line) {
            let said = format!("{}{}", text(&out.stdout), text(&out.stderr));
            assert!(out.status.success(), "$ {line}\n{said}");
            if line.contains(" why ") {
                assert!(
                    said.contains("had no peers: nobody else shares it") || said.contains("it ended before"),
                    "{said}"
                );
            }
        }
    }
    let read = |name: &str| fs::read(newcomer.at(name)).expect(name);
    assert!(read("downloads/movie.iso") == read("movie.iso"));
}
