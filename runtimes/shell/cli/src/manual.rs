//! `completions` and `man`: the command line as shells and the manual read it.

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::{Error, name_of};
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::fs;
use std::io;
use std::path::Path;
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::out::{print_json, say};

/// Runs the command `swarmedge completions`.
pub(super) fn completions<R: Start>(args: &CompletionsArgs, json: bool) -> Result<(), Error> {
    let script = script_for(args.shell, &name_of::<R>());
    if json {
        return print_json(&serde_json::json!({ "shell": args.shell.to_string(), "script": script }));
    }
    say!("{}", script.trim_end_matches('\n'))
}

/// Runs the command `swarmedge man`.
pub(super) fn man<R: Start>(args: &ManArgs, json: bool) -> Result<(), Error> {
    let dir = &args.dir;
    let pages = write_pages(dir, &name_of::<R>());
    let pages = pages.map_err(|e| Error::io(format!("write man pages to {}", dir.display()), &e))?;
    if json {
        return print_json(&serde_json::json!({ "dir": dir, "pages": pages }));
    }
    say!("wrote {pages} pages to {}", dir.display())
}

fn script_for(shell: Shell, name: &str) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes a page for the program and one for each command; returns their number.
fn write_pages(dir: &Path, name: &str) -> io::Result<usize> {
    let program = Cli::command().version(env!("CARGO_PKG_VERSION")).display_name(name).bin_name(name);
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(program.clone(), dir)?;
    Ok(pages_of(&program))
}

fn pages_of(command: &clap::Command) -> usize {
    1 + command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(pages_of).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let script = script_for(shell, "swarmedge-smol");
            for word in ["swarmedge-smol", "publish", "close-day", "edge-limit"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn bash_accepts_its_script() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("swarmedge");
        fs::write(&file, script_for(Shell::Bash, "swarmedge")).expect("written");
        let checked = Command::new("bash").arg("-n").arg(&file).output().expect("bash");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }

    #[test]
    fn the_manual_has_a_page_for_the_program_and_for_every_command() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("share/man1");
        let pages = write_pages(&place, "swarmedge").expect("written");
        let read = |name: &str| fs::read_to_string(place.join(format!("{name}.1"))).expect(name);
        let program = read("swarmedge");
        for sub in Cli::command().get_subcommands() {
            let name = format!("swarmedge-{}", sub.get_name());
            // a hyphen is escaped in roff
            assert!(program.contains(&name.replace('-', "\\-")), "{name}");
            assert!(read(&name).contains(".SH SYNOPSIS"), "{name}");
        }
        assert!(read("swarmedge-ledger-close-day").contains("force"));
        assert_eq!(fs::read_dir(&place).expect("there").count(), pages);
    }
}
