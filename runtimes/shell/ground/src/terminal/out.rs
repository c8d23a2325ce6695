//! Output of commands. A closed pipe (`… | head -1`) is not an error and causes no panic, unlike with `println!`.

use crate::error::{Code, Error};
use std::fmt::Arguments;
use std::io;
use std::time::Duration;

/// Pause before another write to a full pipe that its other end made non-blocking.
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(5);

/// `say!("{x}")?` prints a line on standard output.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => { $crate::terminal::out::print_line(format_args!($($arg)*)) };
}

/// `note!("{x}")` prints a line on standard error.
#[macro_export]
macro_rules! note {
    ($($arg:tt)*) => { $crate::terminal::out::note_line(format_args!($($arg)*)) };
}

pub use {crate::note, crate::say};

/// Prints a line on standard output and flushes it. A closed pipe is not an error.
pub fn print_line(line: Arguments<'_>) -> Result<(), Error> {
    print_result(print(&mut RetryingWriter(io::stdout().lock()), line))
}

/// Prints a line on standard error, for progress and remarks. Failures are ignored.
pub fn note_line(line: Arguments<'_>) {
    // there is no other place to report a failure
    let _ = print(&mut io::stderr().lock(), line);
}

/// Prints one JSON value as a line on standard output.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(value).map_err(|e| Error::failed(format!("cannot write this as JSON: {e}")))?;
    say!("{text}")
}

fn print(to: &mut impl io::Write, line: Arguments<'_>) -> io::Result<()> {
    writeln!(to, "{line}").and_then(|()| to.flush())
}

/// Converts the result of a print on standard output: a closed pipe is success, other failures are [`Code::Disk`].
pub fn print_result(printed: io::Result<()>) -> Result<(), Error> {
    match printed {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to standard output", &e).with_code(Code::Disk))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writer that retries while the inner writer returns `WouldBlock`, with pauses.
pub(super) struct RetryingWriter<W>(pub(super) W);

impl<W: io::Write> RetryingWriter<W> {
    fn until_done<T>(&mut self, mut attempt: impl FnMut(&mut W) -> io::Result<T>) -> io::Result<T> {
        loop {
            match attempt(&mut self.0) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL_PIPE_PAUSE),
                done => return done,
            }
        }
    }
}

impl<W: io::Write> io::Write for RetryingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.until_done(|to| to.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.until_done(io::Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// Writer that takes one byte at every second attempt and returns `WouldBlock` at the others.
    struct Reluctant(Vec<u8>, bool);

    impl io::Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.0.extend(bytes.first());
            Ok(bytes.len().min(1))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_non_blocking_pipe_is_retried_and_loses_nothing() {
        let mut to = RetryingWriter(Reluctant(Vec::new(), false));
        print(&mut to, format_args!("every byte")).expect("written");
        assert_eq!(to.0.0, b"every byte\n");
        to.flush().expect("flushed");
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        assert_eq!(print_result(Err(io::ErrorKind::BrokenPipe.into())), Ok(()));
        assert_eq!(print_result(Ok(())), Ok(()));
        let full = print_result(Err(io::Error::from_raw_os_error(28))).expect_err("lost");
        assert_eq!(full.code(), Code::Disk);
        assert_eq!(print_result(Err(io::Error::from_raw_os_error(5))).expect_err("lost").code(), Code::Disk);
    }
}
