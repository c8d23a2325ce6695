//! Runs system programs and shell scripts.

use std::fmt;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// An error, in words for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub String);

impl Error {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<swarmedge_ground::error::Error> for Error {
    fn from(error: swarmedge_ground::error::Error) -> Self {
        Self(error.to_string())
    }
}

/// Runs a program with `input` on its standard input and returns its standard output. If the exit code is not 0, the
/// error names the command and its error output.
pub(crate) fn run(program: &str, args: &[&str], input: &str) -> Result<String, Error> {
    let shown = || format!("{program} {}", args.join(" "));
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| {
        let package = match program {
            "nft" => "nftables",
            "conntrack" => "conntrack",
            "ip" | "tc" => "iproute2",
            other => other,
        };
        Error(format!("cannot run {program}: {e}; install the package {package}"))
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // a program that reads no input may have closed the pipe; its exit code decides
        let _ = stdin.write_all(input.as_bytes());
    }
    let out = child.wait_with_output().map_err(|e| Error(format!("{}: {e}", shown())))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let (err, said) = (String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout));
    let said = if err.trim().is_empty() { said } else { err };
    let said: String = said.trim().chars().take(800).collect();
    Err(Error(format!("`{}` failed ({}): {said}", shown(), out.status)))
}

/// Runs a shell script inside a network namespace; the script ends at its first failing command.
pub(crate) fn script(namespace: &str, text: &str) -> Result<String, Error> {
    run("ip", &["netns", "exec", namespace, "sh", "-e"], text)
        .map_err(|e| Error(format!("in the namespace {namespace}: {e}")))
}
