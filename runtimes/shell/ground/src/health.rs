//! Readiness of a process: the reasons why a part of it cannot work, as plain sentences for `/healthz` and the log.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Reasons why a process is not ready, at most one per part. Clones share the same table.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, String>>>);

impl Health {
    /// Sets the reason why `part` cannot work, one sentence that says what to do; replaces an earlier reason.
    pub fn set(&self, part: &str, why: impl Into<String>) {
        // a reason must be one line, even if an error's text has line breaks
        let why = why.into().replace(char::is_control, " ");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part.to_owned(), why);
    }

    /// Removes the reason of `part`, which works again.
    pub fn clear(&self, part: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// Returns a line `part: why` for each part that cannot work, sorted by part.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.iter().map(|(part, why)| format!("{part}: {why}")).collect()
    }
}

/// Health of one part of a process. While the part fails, its reason is in [`Health`]; the log gets one line when the
/// failure begins and one when it ends, however many attempts lie between.
#[derive(Debug)]
pub struct Condition {
    health: Health,
    part: String,
    /// Start of the present failure and number of failed attempts; `None` while the part works.
    failing: Option<(Instant, u64)>,
}

impl Condition {
    /// Makes the condition of a part that works.
    #[must_use]
    pub fn new(health: &Health, part: impl Into<String>) -> Self {
        Self { health: health.clone(), part: part.into(), failing: None }
    }

    /// Records a failed attempt with its reason and what to do.
    pub fn failed(&mut self, why: impl fmt::Display) {
        let why = why.to_string();
        let (_, tried) = self.failing.get_or_insert_with(|| (Instant::now(), 0));
        if *tried == 0 {
            tracing::error!(part = self.part, "{why}; trying again");
        }
        *tried += 1;
        self.health.set(&self.part, why);
    }

    /// Records a successful attempt.
    pub fn succeeded(&mut self) {
        if let Some((since, tried)) = self.failing.take() {
            let after_s = since.elapsed().as_secs();
            tracing::warn!(part = self.part, after_s, tried, "works again");
            self.health.clear(&self.part);
        }
    }

    /// Returns whether the last attempt failed.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.failing.is_some()
    }
}

/// Minimum time between two log lines of one kind.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Rate limiter for log lines of one kind: the first is written, then at most one every ten seconds.
#[derive(Debug, Default)]
pub struct LogLimiter(Cell<Option<Instant>>, Cell<u64>);

impl LogLimiter {
    /// Calls `line` to write a log line unless the last was too recent; `line` gets the number of lines left out since.
    pub fn say(&self, line: impl FnOnce(u64)) {
        if self.0.get().is_some_and(|last| last.elapsed() < LINE_EVERY) {
            return self.1.set(self.1.get() + 1);
        }
        self.0.set(Some(Instant::now()));
        line(self.1.take());
    }
}

/// Returns a sentence that says why a file cannot be used and what to do. `doing` is a verb: "write", "read".
#[must_use]
pub fn file_trouble(doing: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {doing} {}: {error} ({})", path.display(), advice(error))
}

/// Returns the advice that ends an I/O error.
fn advice(error: &io::Error) -> &'static str {
    /// "Too many open files" of the system and of the process (errno(3), the same on all systems).
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) {
        return "raise the limit of open files: LimitNOFILE= of the service, or `ulimit -n`";
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows")]
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space on that file system",
        io::ErrorKind::NotFound => "put the file back where it was",
        io::ErrorKind::PermissionDenied => "give the file to the user that the servers run as",
        io::ErrorKind::ReadOnlyFilesystem => "mount that file system for writing",
        io::ErrorKind::InvalidData | io::ErrorKind::Other | io::ErrorKind::UnexpectedEof => {
            "the file is damaged: put back a good copy of it"
        }
        _ => "check the disk and the system's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_part_has_a_reason_until_it_works_again() {
        let health = Health::default();
        let mut part = Condition::new(&health, "spool");
        part.succeeded();
        assert_eq!(health.reasons(), [""; 0]);
        part.failed("full");
        part.failed(file_trouble("write", Path::new("/x"), &io::Error::from_raw_os_error(28)));
        assert!(part.is_failing());
        let reasons = health.reasons();
        assert!(
            reasons[0].starts_with("spool: cannot write /x: ") && reasons[0].contains("os error 28"),
            "{reasons:?}"
        );
        assert!(reasons[0].contains("free some space"), "{reasons:?}");
        part.succeeded();
        assert!(!part.is_failing() && health.reasons().is_empty());
    }

    #[test]
    fn a_process_is_ready_once_every_part_has_cleared_its_reason() {
        let health = Health::default();
        let part = health.clone();
        part.set("b", "the disk is full");
        part.set("a", "two\nlines");
        part.set("b", "the disk is broken");
        assert_eq!(health.reasons(), ["a: two lines", "b: the disk is broken"]);
        part.clear("a");
        part.clear("c");
        assert_eq!(health.reasons(), ["b: the disk is broken"]);
        part.clear("b");
        assert_eq!(health.reasons(), [""; 0]);
    }

    #[test]
    fn log_lines_left_out_are_counted() {
        let (limiter, written) = (LogLimiter::default(), Cell::new(0));
        for _ in 0..5 {
            limiter.say(|left_out| {
                assert_eq!(left_out, 0);
                written.set(written.get() + 1);
            });
        }
        assert_eq!(written.get(), 1);
        limiter.0.set(None);
        limiter.say(|left_out| assert_eq!(left_out, 4));
    }
}
