//! Readiness of a process: the reasons why a part of it cannot work, or soon cannot, as plain sentences for `/healthz`
//! and the log, and as words for programs and strangers.

use serde::Serialize;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Kind of trouble of a part of the process, in one word without private details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A file system has no space left, or a quota is used up.
    DiskFull,
    /// A file system has little space left.
    DiskNearlyFull,
    /// The process has too many open files.
    OpenFiles,
    /// A file cannot be read or written for another reason.
    File,
    /// Stored content is not what was published.
    ContentDamaged,
    /// There is no connection to another server.
    LinkDown,
    /// A certificate ends soon.
    CertificateEnds,
    /// A certificate has expired.
    CertificateExpired,
    /// The clocks of two servers differ.
    ClockWrong,
    /// None of the other causes.
    Other,
}

impl Cause {
    /// Returns the word for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::DiskFull => "disk-full",
            Self::DiskNearlyFull => "disk-nearly-full",
            Self::OpenFiles => "open-files",
            Self::File => "file",
            Self::ContentDamaged => "content-damaged",
            Self::LinkDown => "link-down",
            Self::CertificateEnds => "certificate-ends",
            Self::CertificateExpired => "certificate-expired",
            Self::ClockWrong => "clock-wrong",
            Self::Other => "other",
        }
    }

    /// Returns the words for strangers, without private details.
    const fn in_words(self) -> &'static str {
        match self {
            Self::DiskFull => "the disk is full",
            Self::DiskNearlyFull => "the disk is nearly full",
            Self::OpenFiles => "too many files are open",
            Self::File => "a file cannot be used",
            Self::ContentDamaged => "stored content is damaged",
            Self::LinkDown => "no connection",
            Self::CertificateEnds => "it ends soon",
            Self::CertificateExpired => "it has expired",
            Self::ClockWrong => "the clock differs",
            Self::Other => "it does not work",
        }
    }

    /// Returns the cause of an I/O error.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) {
            return Self::OpenFiles;
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows")]
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::File,
        }
    }
}

/// Reason why a part of the process cannot work, or soon cannot.
#[derive(Clone, Debug)]
struct Reason {
    /// Role of the server that is hindered; empty for the whole process.
    role: &'static str,
    cause: Cause,
    why: String,
    /// Whether the part cannot do its work; otherwise this is a warning.
    failing: bool,
    /// Time from which on the reason is reported.
    from: Instant,
}

/// A reason as `/healthz` reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The part that is hindered.
    pub part: String,
    /// Kind of trouble of the part.
    pub cause: Cause,
    /// Whether the part cannot do its work; otherwise this is a warning.
    pub failing: bool,
    /// The whole sentence, or as much of it as a stranger may know.
    pub why: String,
}

/// Audience of the reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The operator: everything about the process.
    Operator,
    /// Strangers: the reasons that hinder this handle's role, without paths, names and addresses.
    Strangers,
}

/// Reasons why a process is not ready, at most one per part. Clones share the same table.
#[derive(Clone, Debug, Default)]
pub struct Health {
    table: Arc<Mutex<BTreeMap<String, Reason>>>,
    role: &'static str,
}

impl Health {
    /// Returns a handle of the same table; reasons set through it hinder the server of this role.
    #[must_use]
    pub fn of(&self, role: &'static str) -> Self {
        Self { table: Arc::clone(&self.table), role }
    }

    /// Sets the reason why `part` cannot work, one sentence that says what to do; replaces an earlier reason.
    pub fn set(&self, part: &str, why: impl Into<String>) {
        self.fail(part, Cause::Other, why);
    }

    /// Sets the reason why `part` cannot work, and its cause.
    pub fn fail(&self, part: &str, cause: Cause, why: impl Into<String>) {
        self.put(part, cause, (true, why.into()), Duration::ZERO);
    }

    /// Sets the reason why `part` cannot work; the reason is reported once it has lasted for `patience`.
    pub fn fail_after(&self, patience: Duration, part: &str, cause: Cause, why: impl Into<String>) {
        self.put(part, cause, (true, why.into()), patience);
    }

    /// Sets a warning: `part` works, but may soon fail for this cause.
    pub fn warn(&self, part: &str, cause: Cause, why: impl Into<String>) {
        self.put(part, cause, (false, why.into()), Duration::ZERO);
    }

    /// Sets a warning about `part`, which works; the warning is reported once it has lasted for `patience`.
    pub fn warn_after(&self, patience: Duration, part: &str, cause: Cause, why: impl Into<String>) {
        self.put(part, cause, (false, why.into()), patience);
    }

    fn put(&self, part: &str, cause: Cause, (failing, why): (bool, String), patience: Duration) {
        // a reason must be one line, even if an error's text has line breaks
        let why = why.replace(char::is_control, " ");
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let later = Instant::now().checked_add(patience).unwrap_or_else(Instant::now);
        let from = table.get(part).map_or(later, |known| known.from.min(later));
        table.insert(part.to_owned(), Reason { role: self.role, cause, why, failing, from });
    }

    /// Removes the reason of `part`, which works again.
    pub fn clear(&self, part: &str) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// Returns whether this cause hinders the role of this handle, or the whole process.
    #[must_use]
    pub fn has(&self, cause: Cause) -> bool {
        let reasons = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.values().any(|r| r.cause == cause && self.concerns(r))
    }

    fn concerns(&self, reason: &Reason) -> bool {
        reason.role.is_empty() || reason.role == self.role
    }

    /// Returns the reasons: first the failures, then the warnings, each sorted by part.
    #[must_use]
    pub fn told(&self, view: View) -> Vec<Told> {
        let now = Instant::now();
        let reasons = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let due = reasons.iter().filter(|(_, r)| r.from <= now && (view == View::Operator || self.concerns(r)));
        let tell = |(part, r): (&String, &Reason)| Told {
            part: part.clone(),
            cause: r.cause,
            failing: r.failing,
            why: if view == View::Operator { r.why.clone() } else { r.cause.in_words().to_owned() },
        };
        let (failing, warnings): (Vec<_>, Vec<_>) = due.map(tell).partition(|told| told.failing);
        failing.into_iter().chain(warnings).collect()
    }

    /// Returns a line `part: why` for each part that cannot work, sorted by part.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let failing = self.told(View::Operator).into_iter().filter(|told| told.failing);
        failing.map(|told| format!("{}: {}", told.part, told.why)).collect()
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
    /// Creates the health of a part that works.
    #[must_use]
    pub fn new(health: &Health, part: impl Into<String>) -> Self {
        Self { health: health.clone(), part: part.into(), failing: None }
    }

    /// Records a failed attempt with its reason and what to do.
    pub fn failed(&mut self, why: impl fmt::Display) {
        self.failed_by(Cause::Other, why);
    }

    /// Records a failed attempt with its cause, its reason and what to do.
    pub fn failed_by(&mut self, cause: Cause, why: impl fmt::Display) {
        let why = why.to_string();
        let (_, tried) = self.failing.get_or_insert_with(|| (Instant::now(), 0));
        if *tried == 0 {
            tracing::error!(part = self.part, "{why}; trying again");
        }
        *tried += 1;
        self.health.fail(&self.part, cause, why);
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

/// "Too many open files" of the system and of the process (errno(3), the same on all systems).
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

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

    #[test]
    fn strangers_learn_what_hinders_their_role_and_no_more() {
        let process = Health::default();
        let (edge, cn) = (process.of("edge"), process.of("cn"));
        edge.warn("edge's disk", Cause::DiskFull, "/srv/secret has no space left");
        cn.fail("CN's link to the DN", Cause::LinkDown, "10.0.0.1:7 is away");
        process.fail("clock", Cause::ClockWrong, "by 7 s from 10.0.0.1");
        let strangers = edge.told(View::Strangers);
        let lines: Vec<_> = strangers.iter().map(|t| format!("{} {}: {}", t.failing, t.part, t.why)).collect();
        assert_eq!(lines, ["true clock: the clock differs", "false edge's disk: the disk is full"]);
        assert_eq!(edge.told(View::Operator).len(), 3);
        assert!(edge.has(Cause::DiskFull) && !cn.has(Cause::DiskFull) && !edge.has(Cause::LinkDown));
    }

    #[test]
    fn a_reason_that_may_pass_is_told_once_it_has_lasted() {
        let health = Health::default();
        let hour = Duration::from_secs(3600);
        health.warn_after(hour, "link", Cause::LinkDown, "away");
        assert_eq!(health.told(View::Operator), []);
        health.warn("link", Cause::LinkDown, "away");
        health.warn_after(hour, "link", Cause::LinkDown, "away still");
        assert_eq!(health.told(View::Operator)[0].why, "away still", "what was told stays told");
        assert_eq!(health.reasons(), [""; 0], "a warning hinders nothing");
        health.clear("link");
        health.fail_after(hour, "link", Cause::LinkDown, "away");
        assert_eq!(health.told(View::Operator), [], "it has begun anew");
    }

    #[test]
    fn an_error_of_the_disk_has_a_word_for_programs() {
        for (error, word) in [(28, "disk-full"), (122, "disk-full"), (24, "open-files"), (5, "file"), (13, "file")] {
            let cause = Cause::of(&io::Error::from_raw_os_error(error));
            assert_eq!((cause.word(), serde_json::json!(cause)), (word, serde_json::json!(word)));
        }
    }
}
