//! Compiles `preload.c`, and steers it in a running process through the process's control file.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Environment variable that names a process's control file.
pub(crate) const VARIABLE: &str = "SWARMEDGE_PRELOAD";
/// Bytes of a control file.
const LEN: usize = 512;
/// Offset of the path in a control file, and its longest length.
const PATH_AT: u64 = 64;
const PATH_LEN_MAX: usize = LEN - 64 - 1;

/// Errors of the operating system (errno(3)).
pub(crate) const EIO: u64 = 5;
pub(crate) const EMFILE: u64 = 24;
pub(crate) const ENOSPC: u64 = 28;
/// In place of an error: only half of the bytes are written.
pub(crate) const SHORT: u64 = 0;
/// Number of a call that is never reached.
pub(crate) const NEVER: u64 = u64::MAX;

/// Kinds of system calls that can fail; the numbers are those of `preload.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Write = 1,
    Sync = 2,
    Rename = 4,
    Open = 8,
    Socket = 16,
}

/// The calls of a process that shall fail.
#[derive(Clone, Debug)]
pub(crate) struct Order<'a> {
    pub(crate) calls: &'a [Call],
    /// The error, or [`SHORT`].
    pub(crate) error: u64,
    /// The calls that fail, by their number from now on.
    pub(crate) numbers: std::ops::Range<u64>,
    /// Text that the path of a file contains if its calls are to fail; sockets have no path.
    pub(crate) path: &'a str,
}

/// Compiles `preload.c` in a directory; returns `None` if there is no C compiler.
pub(crate) fn compiled(dir: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shell/tests/faults/preload.c");
    let library = dir.join("preload.so");
    let made =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).arg("-ldl").status();
    match made {
        Ok(status) => assert!(status.success(), "preload.c does not compile"),
        Err(error) => {
            swarmedge_natlab::require::skip(&format!("the C compiler cc cannot be used: {error}"));
            return None;
        }
    }
    Some(library)
}

/// The control file of a process: its order, and counters.
#[derive(Debug)]
pub(crate) struct Control(File);

impl Control {
    /// Makes a control file without an order.
    pub(crate) fn make(path: &Path) -> Self {
        fs::write(path, [0; LEN]).expect("writes");
        Self(OpenOptions::new().read(true).write(true).open(path).expect("made"))
    }

    fn get(&self, field: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 8 * field).expect("reads");
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, field: u64, value: u64) {
        self.0.write_all_at(&value.to_ne_bytes(), 8 * field).expect("writes");
    }

    /// Makes calls fail until [`Self::disarm`]; the counters begin at zero.
    pub(crate) fn arm(&self, order: &Order<'_>) {
        self.set(0, 0);
        for (field, value) in [(1, order.error), (2, order.numbers.start), (3, order.numbers.end), (4, 0), (5, 0)] {
            self.set(field, value);
        }
        assert!(order.path.len() <= PATH_LEN_MAX, "{}", order.path);
        let mut path = [0; PATH_LEN_MAX + 1];
        path[..order.path.len()].copy_from_slice(order.path.as_bytes());
        self.0.write_all_at(&path, PATH_AT).expect("writes");
        self.set(0, order.calls.iter().map(|call| *call as u64).sum());
    }

    /// Makes the wall clock of the process wrong by so many milliseconds, from now on.
    pub(crate) fn shift_clock(&self, by_ms: i64) {
        self.set(7, by_ms.cast_unsigned());
    }

    /// Ends every fault.
    pub(crate) fn disarm(&self) {
        self.set(0, 0);
        self.set(7, 0);
    }

    /// Returns the number of calls that the order concerns, since it was given.
    pub(crate) fn seen(&self) -> u64 {
        self.get(4)
    }

    /// Returns the number of calls that have failed since the order was given.
    pub(crate) fn failed(&self) -> u64 {
        self.get(5)
    }

    /// Returns how often a wrong wall clock was read.
    pub(crate) fn clock_reads(&self) -> u64 {
        self.get(6)
    }
}
