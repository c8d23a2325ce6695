//! What commands print. Whoever closes the other end (`… | head -1`) has seen enough: that is no error, and nothing
//! panics on it, as `println!` would.

use crate::error::{Code, Error};
use std::fmt::Arguments;
use std::io;
use std::time::Duration;

/// How long it is waited before a pipe that is full, and whose other end made it one that does not wait, is tried
/// again.
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(5);

/// `say!("{x}")?` prints a line on standard output.
macro_rules! say {
    ($($arg:tt)*) => { $crate::terminal::out::print_line(format_args!($($arg)*)) };
}

/// `note!("{x}")` prints a line on standard error.
macro_rules! note {
    ($($arg:tt)*) => { $crate::terminal::out::note_line(format_args!($($arg)*)) };
}

pub(crate) use {note, say};

/// Prints a line on standard output, at once. Only a failure that loses what somebody wants to read is an error.
pub fn print_line(line: Arguments<'_>) -> Result<(), Error> {
    judge(print(&mut Patient(io::stdout().lock()), line))
}

/// Prints a line on standard error: narration, which nothing depends on.
pub fn note_line(line: Arguments<'_>) {
    // there is no other place to complain
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

/// What printing on standard output comes to: words that somebody wants to read and that are lost are [`Code::Disk`].
pub fn judge(printed: io::Result<()>) -> Result<(), Error> {
    match printed {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to standard output", &e).of_code(Code::Disk))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits where its writer would rather be asked again.
pub(super) struct Patient<W>(pub(super) W);

impl<W: io::Write> Patient<W> {
    fn until_done<T>(&mut self, mut attempt: impl FnMut(&mut W) -> io::Result<T>) -> io::Result<T> {
        loop {
            match attempt(&mut self.0) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL_PIPE_PAUSE),
                done => return done,
            }
        }
    }
}

impl<W: io::Write> io::Write for Patient<W> {
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

    /// Takes a byte at every second try.
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
    fn a_pipe_that_does_not_wait_is_waited_for_and_loses_nothing() {
        let mut to = Patient(Reluctant(Vec::new(), false));
        print(&mut to, format_args!("every byte")).expect("written");
        assert_eq!(to.0.0, b"every byte\n");
        to.flush().expect("flushed");
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        assert_eq!(judge(Err(io::ErrorKind::BrokenPipe.into())), Ok(()));
        assert_eq!(judge(Ok(())), Ok(()));
        let full = judge(Err(io::Error::from_raw_os_error(28))).expect_err("lost");
        assert_eq!(full.code(), Code::Disk);
        assert_eq!(judge(Err(io::Error::from_raw_os_error(5))).expect_err("lost").code(), Code::Disk);
    }
}
