//! The log, written to standard error by a thread of its own, so that logging never waits for a slow or stuck reader.

use super::out::RetryingWriter;
use super::visible::visible_log;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

/// Most lines in the queue; further lines are dropped and counted.
const LINES_MAX: usize = 4096;
/// Longest wait for the last lines at the end of the process.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);
const DRAIN_CHECK_EVERY: Duration = Duration::from_millis(2);

/// Queue of the process's log; `None` if its thread could not be started.
static QUEUE: LazyLock<Option<Queue>> = LazyLock::new(|| Queue::start(standard_error()?));

/// Writer that queues each write as one line of the log; never fails.
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shown = visible_log(line);
        match &*QUEUE {
            Some(queue) => queue.push(&shown),
            // without a thread: write directly, and ignore failures
            None => drop(io::stderr().write_all(&shown)),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until all logged lines are written, for at most a second.
pub fn drain() {
    if let Some(queue) = LazyLock::get(&QUEUE).and_then(Option::as_ref) {
        queue.drain(DRAIN_WITHIN);
    }
}

/// Returns standard error without Rust's lock, which would be held for as long as a write blocks.
fn standard_error() -> Option<impl Write + Send + 'static> {
    #[cfg(unix)]
    {
        let own = std::os::fd::AsFd::as_fd(&io::stderr()).try_clone_to_owned().ok()?;
        Some(std::fs::File::from(own))
    }
    #[cfg(not(unix))]
    Some(io::stderr())
}

struct Queue {
    lines: SyncSender<Vec<u8>>,
    /// Lines that are queued or being written.
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
}

impl Queue {
    fn start(to: impl Write + Send + 'static) -> Option<Self> {
        let (lines, queued) = sync_channel::<Vec<u8>>(LINES_MAX);
        let (waiting, lost) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (written, lost_lines) = (Arc::clone(&waiting), Arc::clone(&lost));
        let write = move || {
            let mut to = RetryingWriter(to);
            for line in queued {
                // a line that cannot be written is lost without further effect
                let _ = to.write_all(&line);
                let n = lost_lines.swap(0, Ordering::Relaxed);
                if n > 0 {
                    let _ = writeln!(to, "{n} lines of log were lost here: nobody read them");
                }
                written.fetch_sub(1, Ordering::Release);
            }
        };
        thread::Builder::new().name("log".into()).spawn(write).ok()?;
        Some(Self { lines, waiting, lost })
    }

    fn push(&self, line: &[u8]) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.lines.try_send(line.to_vec()) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for the queue to be written; false if `within` passed before.
    fn drain(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.waiting.load(Ordering::Acquire) > 0 {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(DRAIN_CHECK_EVERY);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    /// Writer that blocks until the other end of its channel is dropped.
    struct Stalled(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().expect("nobody has panicked").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn logging_never_waits_for_a_reader_and_lost_lines_are_counted() {
        let (free, freed) = channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let queue = Queue::start(Stalled(freed, Arc::clone(&written))).expect("a thread");
        let more = 100;
        for n in 0..LINES_MAX + more {
            queue.push(format!("{n}\n").as_bytes());
        }
        assert!(!queue.drain(Duration::ZERO), "nothing is written");
        drop(free);
        assert!(queue.drain(Duration::from_secs(120)));
        let text = String::from_utf8(written.lock().expect("nobody has panicked").clone()).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        // the writer may have taken one line out of the queue before it filled up
        let lost: usize = lines[1].split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
        assert!(lines[0] == "0" && lines[1].ends_with("nobody read them"), "{lines:?}");
        assert!(lost == more || lost + 1 == more, "{lost}");
        assert_eq!(lines.len(), LINES_MAX + more - lost + 1, "all others are there");
    }
}
