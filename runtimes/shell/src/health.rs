//! Readiness: what keeps a process from doing all of its work, in plain sentences, as `/healthz` says it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Reasons why a process is not ready, by the part that has one. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, String>>>);

impl Health {
    /// Says why `part` cannot work and what to do, in one plain sentence. The last reason of a part counts.
    pub fn set(&self, part: &str, why: impl Into<String>) {
        // a reason takes one line, whatever an error's text contains
        let why = why.into().replace(char::is_control, " ");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part.to_owned(), why);
    }

    /// Says that `part` works.
    pub fn clear(&self, part: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// Every part that cannot work, and why: `part: why`, in the order of the parts.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.iter().map(|(part, why)| format!("{part}: {why}")).collect()
    }
}

/// What one part of a process has to say of its work: a reason while it fails, a line in the log when that begins and
/// when it ends, however often it is tried between.
#[derive(Debug)]
pub struct Condition {
    health: Health,
    part: String,
    /// Since when it fails, and how often it was tried in vain.
    failing: Option<(Instant, u64)>,
}

impl Condition {
    /// Of a part that works.
    #[must_use]
    pub fn new(health: &Health, part: impl Into<String>) -> Self {
        Self { health: health.clone(), part: part.into(), failing: None }
    }

    /// It has been tried in vain, and why, with what to do.
    pub fn failed(&mut self, why: impl fmt::Display) {
        let why = why.to_string();
        let (_, tried) = self.failing.get_or_insert_with(|| (Instant::now(), 0));
        if *tried == 0 {
            tracing::error!(part = self.part, "{why}; trying again");
        }
        *tried += 1;
        self.health.set(&self.part, why);
    }

    /// It has been tried, and was done.
    pub fn works(&mut self) {
        if let Some((since, tried)) = self.failing.take() {
            let after_s = since.elapsed().as_secs();
            tracing::warn!(part = self.part, after_s, tried, "works again");
            self.health.clear(&self.part);
        }
    }

    /// Whether the last trial was in vain.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.failing.is_some()
    }
}

/// At most one line of a kind is logged in so long.
const SELDOM: Duration = Duration::from_secs(10);

/// Lines of one kind in the log: the first, and then no more than one in a while.
#[derive(Debug, Default)]
pub struct Seldom(Cell<Option<Instant>>, Cell<u64>);

impl Seldom {
    /// Has a line written, unless the last was a moment ago; it is told how many were left out since.
    pub fn say(&self, line: impl FnOnce(u64)) {
        if self.0.get().is_some_and(|last| last.elapsed() < SELDOM) {
            return self.1.set(self.1.get() + 1);
        }
        self.0.set(Some(Instant::now()));
        line(self.1.take());
    }
}

/// Why a file cannot be used, and what to do. `doing` is what was tried: "write", "read".
#[must_use]
pub fn file_trouble(doing: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {doing} {}: {error} ({})", path.display(), mend(error))
}

/// What ends an I/O error.
fn mend(error: &io::Error) -> &'static str {
    /// Too many open files: of the system, of the process (errno(3), everywhere the same).
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
    fn a_part_that_fails_says_why_until_it_works() {
        let health = Health::default();
        let mut part = Condition::new(&health, "spool");
        part.works();
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
        part.works();
        assert!(!part.is_failing() && health.reasons().is_empty());
    }

    #[test]
    fn a_process_is_ready_when_every_part_has_cleared_its_reason() {
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
    fn lines_of_a_kind_are_counted_where_they_are_not_written() {
        let (seldom, written) = (Seldom::default(), Cell::new(0));
        for _ in 0..5 {
            seldom.say(|left_out| {
                assert_eq!(left_out, 0);
                written.set(written.get() + 1);
            });
        }
        assert_eq!(written.get(), 1);
        seldom.0.set(None);
        seldom.say(|left_out| assert_eq!(left_out, 4));
    }
}
