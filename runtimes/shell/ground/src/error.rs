//! Errors of commands: one clear line, the next step for the user, and an exit code.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// Exit code of a failed command; scripts may rely on the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Code {
    /// The command was tried and failed.
    Failed = 1,
    /// The command line or a configuration file is wrong; nothing was tried.
    Usage = 2,
    /// The named object, download or file does not exist.
    NotFound = 3,
    /// A server or the background client does not answer.
    Unreachable = 4,
    /// A server refuses the request, or file permissions do.
    Forbidden = 5,
    /// The disk is full, read-only or failing.
    Disk = 6,
    /// An exported ledger fails its own proofs: it was altered or is incomplete.
    Unproven = 7,
    /// An invoice differs from the exported ledger that it is based on.
    Disagrees = 8,
    /// The user pressed Ctrl-C: the work is paused and nothing is lost.
    Interrupted = 130,
}

impl Code {
    /// Returns the stable word for this code in `--json` output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Unreachable => "unreachable",
            Self::Forbidden => "forbidden",
            Self::Disk => "disk",
            Self::Unproven => "unproven",
            Self::Disagrees => "disagrees",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The reason why a command failed, worded for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    message: String,
    next: Option<String>,
    code: Code,
    /// Whether the command has told the user already, so that nothing more is printed.
    told: bool,
}

impl Error {
    /// Makes an error with its exit code. `message` is a clause without a full stop that names the thing concerned.
    #[must_use]
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), next: None, code, told: false }
    }

    /// Makes an error with [`Code::Failed`].
    #[must_use]
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Code::Failed, message)
    }

    /// Makes an error with [`Code::Usage`].
    #[must_use]
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Makes the error of a failed file operation; `doing` names operation and file, as in "read /etc/x".
    #[must_use]
    pub fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        let message = format!("cannot {doing}: {}", reason(error));
        let error = Self::new(code_of(error), message);
        if error.code == Code::Disk { error.next("free some space, then run the same command again") } else { error }
    }

    /// Adds the next step for the user: an imperative clause, best a command to copy.
    #[must_use]
    pub fn next(mut self, step: impl fmt::Display) -> Self {
        self.next = Some(step.to_string());
        self
    }

    /// Replaces the exit code of this error.
    #[must_use]
    pub const fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// Makes an error that the command has told the user already: only its exit code remains.
    #[must_use]
    pub fn told(code: Code) -> Self {
        Self { told: true, ..Self::new(code, "") }
    }

    /// Returns whether the command has told the user already.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.told
    }

    /// Returns the exit code of this error.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Returns the error as JSON: RFC 9457 members `title` and `detail`, the code's name and the exit code.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": self.code.name(),
            "title": self.message,
            "detail": self.next,
            "exit_code": self.code as u8,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.next.as_ref().map_or(Ok(()), |next| write!(f, " ({next})"))
    }
}

impl std::error::Error for Error {}

/// Returns the operating system's message without the error number, beginning in lower case.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// Returns the exit code for an I/O error.
fn code_of(error: &io::Error) -> Code {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows")]
    match error.kind() {
        io::ErrorKind::NotFound => Code::NotFound,
        io::ErrorKind::PermissionDenied => Code::Forbidden,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => Code::Disk,
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut => {
            Code::Unreachable
        }
        _ => Code::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_is_one_line_that_names_the_file_and_has_its_own_exit_code() {
        let e = Error::io("read /no/such", &io::Error::from_raw_os_error(2));
        assert_eq!(e.to_string(), "cannot read /no/such: no such file or directory");
        assert_eq!(e.code(), Code::NotFound);
        let full = Error::io("write /x", &io::Error::from_raw_os_error(28));
        assert_eq!(full.code(), Code::Disk);
        assert!(!full.to_string().contains('\n'));
    }

    #[test]
    fn the_json_form_carries_the_next_step_and_the_exit_code() {
        let json = Error::usage("no such role \"cm\"").next("roles are edge, cn, dn, stun, ledger").to_json();
        assert_eq!(json["exit_code"], 2);
        assert_eq!(json["detail"], "roles are edge, cn, dn, stun, ledger");
    }
}
