//! The permission bits that users want for files that a client makes for them: their own umask decides, not the one
//! that the client runs under.

use super::version::lock;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Files whose bits are kept; the oldest are forgotten first.
const FILES_MAX: usize = 1024;

/// The wanted permission bits by file; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Modes(Arc<Mutex<VecDeque<(PathBuf, u32)>>>);

impl Modes {
    /// Sets the bits of a file that is to be made. Bits beside those for reading, writing and executing are left out.
    pub fn set(&self, file: &Path, mode: u32) {
        let mut files = lock(&self.0);
        files.retain(|(known, _)| known != file);
        files.push_back((file.to_owned(), mode & 0o777));
        while files.len() > FILES_MAX {
            files.pop_front();
        }
    }

    /// Returns the bits of a file, if any were set.
    #[must_use]
    pub fn of(&self, file: &Path) -> Option<u32> {
        lock(&self.0).iter().find(|(known, _)| known == file).map(|(_, mode)| *mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bits_of_a_file_count_and_the_oldest_are_forgotten() {
        let (modes, file) = (Modes::default(), Path::new("/a"));
        modes.set(file, 0o644);
        modes.set(file, 0o104_600);
        assert_eq!((modes.of(file), modes.of(Path::new("/b"))), (Some(0o600), None));
        for n in 0..FILES_MAX {
            modes.set(Path::new(&n.to_string()), 0o640);
        }
        assert_eq!((modes.of(file), modes.of(Path::new("7"))), (None, Some(0o640)));
    }
}
