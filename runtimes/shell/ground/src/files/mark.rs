//! Marks: small files beside databases that record that the database existed, so that a lost one is not silently
//! replaced by a new, empty one. `swarmedge accept-loss` removes a mark.

use crate::error::{Code, Error};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Text of a mark, for people. All marks have the same length, so that a mark is overwritten in place.
const WORDS: &str = "remembers that the file of this name without `.mark` was there. Servers do not begin a new one while\n\
                     it is lost: see `swarmedge accept-loss --help`.\n";

/// The mark of a database: a file beside it that moves with it. It holds the last reported count of writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The database.
    of: PathBuf,
    /// The mark.
    mark: PathBuf,
}

impl Mark {
    /// Makes the mark of this file, without touching the disk.
    #[must_use]
    pub fn of(of: &Path) -> Self {
        Self { of: of.to_owned(), mark: beside(of, ".mark") }
    }

    /// Returns the count of writes when the mark was last written, 0 if unreadable; `None` if there is no mark.
    #[must_use]
    pub fn written(&self) -> Option<u64> {
        match fs::read_to_string(&self.mark) {
            Ok(text) => Some(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            // the mark exists, though it cannot be read
            Err(_) => Some(0),
        }
    }

    /// Returns a sentence if the file existed before and is gone or empty now; `None` if it is there or never was.
    #[must_use]
    pub fn loss(&self) -> Option<String> {
        let len = fs::metadata(&self.of).map(|meta| meta.len());
        let how = match len {
            Ok(0) => "is empty",
            Err(e) if e.kind() == io::ErrorKind::NotFound => "is gone",
            // opening the file will report other errors
            Ok(_) | Err(_) => return None,
        };
        self.written().map(|_| format!("{} {how}, and was there before", self.of.display()))
    }

    /// Fails if the file was lost. `whose` is the argument of `accept-loss` that the error advises.
    pub fn refuse_loss(&self, whose: &str) -> Result<(), Error> {
        self.loss().map_or(Ok(()), |what| Err(lost(whose, what, "begin a new one")))
    }

    /// Writes the mark: the file exists, and its count of writes is `written`. Only the first write of a mark is
    /// synced. Failure is only logged: an older mark protects less, and a mark is never ahead of its file.
    pub fn write(&self, written: u64) {
        let write = || {
            let is_new = self.written().is_none();
            let mut file = File::options().write(true).create(true).truncate(false).open(&self.mark)?;
            file.write_all(format!("{written:020} {WORDS}").as_bytes())?;
            if is_new {
                file.sync_all()?;
                if let Some(dir) = self.mark.parent().filter(|dir| !dir.as_os_str().is_empty()) {
                    File::open(dir)?.sync_all()?;
                }
            }
            Ok::<_, io::Error>(())
        };
        if let Err(error) = write() {
            tracing::warn!(file = %self.mark.display(), %error, "cannot write the mark of a database");
        }
    }

    /// Removes the mark, which says that the database existed: the next start opens the database if it is there, and
    /// creates an empty one otherwise.
    pub fn forget(&self) -> Result<(), Error> {
        match fs::remove_file(&self.mark) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format_args!("remove {}", self.mark.display()), &e))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Makes the error for a missing file. `whose` is the argument of `accept-loss`; `then` says what the next start does
/// after that command.
pub fn lost(whose: &str, what: String, then: &str) -> Error {
    Error::new(Code::NotFound, what).next(format_args!(
        "put it back; where it is lost for good, `swarmedge accept-loss {whose}` lets the next start {then}"
    ))
}

/// Returns the path with `end` appended to the file's name.
pub fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_file_is_reported_and_one_that_never_existed_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("spool.redb");
        let mark = Mark::of(&file);
        assert_eq!((mark.written(), mark.loss()), (None, None));
        fs::write(&file, "").expect("written");
        assert_eq!(mark.loss(), None, "an empty file that was never more");
        fs::write(&file, "records").expect("written");
        mark.write(7);
        assert_eq!((mark.written(), mark.loss()), (Some(7), None));
        fs::write(&file, "").expect("written");
        assert!(mark.loss().is_some_and(|what| what.contains("spool.redb is empty")));
        fs::remove_file(&file).expect("removed");
        let error = mark.refuse_loss("edge").expect_err("gone").to_string();
        assert!(
            error.contains("spool.redb is gone") && error.contains("accept-loss edge` lets the next start begin"),
            "{error}"
        );
        // an unreadable mark still says that the file existed
        fs::write(dir.path().join("spool.redb.mark"), "?").expect("written");
        assert!(mark.refuse_loss("edge").is_err());
        mark.forget().expect("removed");
        mark.forget().expect("nothing to remove");
        assert_eq!(mark.loss(), None);
    }

    #[test]
    fn a_mark_moves_with_its_folder_and_is_overwritten_in_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        fs::create_dir(&old).expect("made");
        let mark = Mark::of(&old.join("a"));
        mark.write(u64::MAX);
        mark.write(12);
        fs::rename(&old, &new).expect("moved");
        let mark = Mark::of(&new.join("a"));
        assert_eq!(mark.written(), Some(12));
        assert!(mark.loss().is_some());
    }
}
