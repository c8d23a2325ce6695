//! Child processes of a command (`demo`, `bench`), each with a log file; none outlives the command.

use super::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use swarmedge_ground::terminal::Interrupt;

/// Last lines of a child's log that an error shows.
const TAIL_LINES: usize = 12;

/// A child process. Our programs end when their standard input closes, so at the latest when this process ends in any
/// way. Dropping the value kills the child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with `--exit-with-parent`; appends its output to `logs/{name}.log`.
    pub fn start(name: &str, program: &Path, logs: &Path, args: &[&str]) -> Result<Self, Error> {
        Self::foreign(name, program, logs, &[args, &["--exit-with-parent"]].concat())
    }

    /// Starts a foreign program without `--exit-with-parent`: it may outlive this process if that is killed.
    pub fn foreign(name: &str, program: &Path, logs: &Path, args: &[&str]) -> Result<Self, Error> {
        let log = logs.join(format!("{name}.log"));
        let doing = || format!("start {name} ({})", program.display());
        let out = fs::File::options().create(true).append(true).open(&log);
        let out = out.map_err(|e| Error::io(format_args!("write {}", log.display()), &e))?;
        let err = out.try_clone().map_err(|e| Error::io(doing(), &e))?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(out).stderr(err);
        let child = command.spawn().map_err(|e| Error::io(doing(), &e))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Returns the name of the child in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id of the child.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the exit status if the child has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails with the tail of the log if the child has ended.
    pub fn expect_running(&mut self) -> Result<(), Error> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(self.error(&format!("ended by itself ({status})"))),
        }
    }

    /// Kills the child with SIGKILL, as a crash would.
    pub fn kill(&mut self) {
        // fails only if the child has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Closes the child's standard input, which asks it to end; kills it after `within` and returns `None`.
    pub fn stop(&mut self, within: Duration) -> Option<ExitStatus> {
        drop(self.child.stdin.take());
        let until = Instant::now() + within;
        while Instant::now() < until {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        None
    }

    /// Makes an error about the child, with the tail of its log on the lines below.
    #[must_use]
    pub fn error(&self, what: &str) -> Error {
        let tail = tail(&self.log);
        let shown = if tail.is_empty() { "its log is empty".into() } else { format!("its log ends with\n{tail}") };
        Error::failed(format!("{} {what}; {shown}", self.name))
    }

    /// Calls `ready` every 20 ms until it is true. Fails if the child ends, after `within`, or on an interrupt.
    pub fn wait_ready(
        &mut self,
        interrupt: &Interrupt,
        within: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        let until = Instant::now() + within;
        while !ready() {
            self.expect_running()?;
            if Instant::now() > until {
                return Err(self.error(&format!("is not ready after {} s", within.as_secs())));
            }
            interrupt.sleep(Duration::from_millis(20))?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines[from..].iter().map(|l| format!("    {l}")).collect::<Vec<_>>().join("\n")
}

/// Returns whether a server's `/healthz`, over plain HTTP, answers with status 200.
#[must_use]
pub fn is_healthy(ops: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut tcp = TcpStream::connect_timeout(&ops, Duration::from_secs(1))?;
        tcp.set_read_timeout(Some(Duration::from_secs(2)))?;
        tcp.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        tcp.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> Process {
        // `--exit-with-parent` becomes $0 of the script, which ignores it
        Process::start("child", Path::new("/bin/sh"), dir, &["-c", script]).expect("starts")
    }

    #[test]
    fn a_child_that_fails_is_reported_with_the_end_of_its_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = shell(dir.path(), "echo one; echo two >&2; exit 7");
        let error = child.wait_ready(&Interrupt::never(), Duration::from_secs(30), || false).expect_err("ended");
        let text = error.to_string();
        assert!(text.contains("child ended by itself (exit status: 7)") && text.contains("two"), "{text}");
    }

    #[test]
    fn a_child_ends_with_its_standard_input() {
        let dir = tempfile::tempdir().expect("a directory");
        let status = shell(dir.path(), "cat; exit 3").stop(Duration::from_secs(30));
        assert_eq!(status.and_then(|s| s.code()), Some(3));
    }

    #[test]
    fn a_dropped_child_is_dead() {
        let dir = tempfile::tempdir().expect("a directory");
        let child = shell(dir.path(), "sleep 600");
        let id = child.id();
        drop(child);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
