//! What commands print. Whoever closes the other end (`… | head -1`) has seen enough: that is no error, and nothing
//! panics on it, as `println!` would.

use crate::error::Error;
use std::fmt::Arguments;
use std::io;

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
    judge(print(&mut io::stdout().lock(), line))
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

fn judge(printed: io::Result<()>) -> Result<(), Error> {
    match printed {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("write to standard output", &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        assert_eq!(judge(Err(io::ErrorKind::BrokenPipe.into())), Ok(()));
        assert_eq!(judge(Ok(())), Ok(()));
        let full = judge(Err(io::Error::from_raw_os_error(28))).expect_err("lost");
        assert_eq!(full.code(), Code::Disk);
    }
}
