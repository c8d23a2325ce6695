//! Output of commands. A closed pipe (`… | head -1`) is not an error and causes no panic, unlike with `println!`. What
//! is printed may hold text from elsewhere: no character of it acts on the terminal (see [`visible`]).

use super::visible::{visible, visible_json};
use crate::error::{Code, Error};
use std::fmt::Arguments;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

/// Pause before another write to a full pipe that its other end made non-blocking.
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(5);

/// Bytes of a file that are copied at a time.
const COPY_LEN: usize = 256 * 1024;

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
    say!("{}", visible_json(&text))
}

fn print(to: &mut impl io::Write, line: Arguments<'_>) -> io::Result<()> {
    writeln!(to, "{}", visible(&line.to_string())).and_then(|()| to.flush())
}

/// Prints a document, as it is where another program reads it.
pub fn print_document(text: &str) -> Result<(), Error> {
    let mut to = RetryingWriter(io::stdout().lock());
    let shown = if io::stdout().is_terminal() {
        // the lines of CSV end so (RFC 4180)
        visible(&text.replace("\r\n", "\n")).into_owned()
    } else {
        text.to_owned()
    };
    print_result(writeln!(to, "{shown}").and_then(|()| to.flush()))
}

/// Copies `len` bytes of a file to standard output as they are; fails if it is shorter. Returns whether all were taken:
/// a closed pipe is not an error.
pub fn print_bytes(file: impl io::Read, len: u64) -> Result<bool, Error> {
    copy(file, len, &mut RetryingWriter(io::stdout().lock()))
}

fn copy(mut file: impl io::Read, len: u64, to: &mut impl io::Write) -> Result<bool, Error> {
    let mut buffer = vec![0; COPY_LEN];
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).map_or(COPY_LEN, |left| left.min(COPY_LEN));
        file.read_exact(&mut buffer[..part]).map_err(|e| Error::io("read what was downloaded", &e))?;
        match to.write_all(&buffer[..part]).and_then(|()| to.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            written => print_result(written)?,
        }
        left -= part as u64;
    }
    Ok(true)
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
    /// Repeats an attempt until a full non-blocking pipe has room.
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
    fn text_from_elsewhere_does_not_act_on_the_terminal() {
        let mut to = Vec::new();
        print(&mut to, format_args!("{} and\nanother line", "a\u{202e}gnp.exe\u{1b}[2J")).expect("written");
        assert_eq!(String::from_utf8(to).expect("text"), "a\\u{202e}gnp.exe\\u{1b}[2J and\nanother line\n");
    }

    #[test]
    fn bytes_are_copied_as_they_are_and_a_shorter_file_is_an_error() {
        let bytes: Vec<u8> = (0..COPY_LEN + 7).map(|i| (i % 251).to_le_bytes()[0]).collect();
        let mut to = Vec::new();
        assert_eq!(copy(&bytes[..], bytes.len() as u64, &mut to), Ok(true));
        assert!(to == bytes);
        assert!(copy(&bytes[..], bytes.len() as u64 + 1, &mut Vec::new()).is_err());
        let (reader, mut writer) = io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(copy(&bytes[..], 5, &mut writer), Ok(false));
        let mut full = &mut [0; 2][..];
        assert_eq!(copy(&bytes[..], 5, &mut full).expect_err("no room").code(), Code::Disk);
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
