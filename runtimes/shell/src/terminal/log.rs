//! The log goes to standard error from a thread of its own: nobody who logs waits for whoever reads, or does not.

use super::out::Patient;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait to be written; what comes while there is no room is lost, and counted.
const LINES_MAX: usize = 4096;
/// At the end of the process so long is waited for the last lines.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);
const DRAIN_LOOK: Duration = Duration::from_millis(2);

/// None where the system gives no thread.
static QUEUE: LazyLock<Option<Queue>> = LazyLock::new(|| Queue::start(standard_error()?));

/// The log as a writer: takes a line at a time, and never fails.
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &*QUEUE {
            Some(queue) => queue.push(line),
            // there is no other place to complain
            None => drop(io::stderr().write_all(line)),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until what was logged is written, or for a second.
pub fn drain() {
    if let Some(queue) = LazyLock::get(&QUEUE).and_then(Option::as_ref) {
        queue.drain(DRAIN_WITHIN);
    }
}

/// Standard error without its lock, which would be held as long as a write takes.
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
    /// Lines that were taken and are not written yet.
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
}

impl Queue {
    fn start(to: impl Write + Send + 'static) -> Option<Self> {
        let (lines, taken) = sync_channel::<Vec<u8>>(LINES_MAX);
        let (waiting, lost) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (written, missed) = (Arc::clone(&waiting), Arc::clone(&lost));
        let write = move || {
            let mut to = Patient(to);
            for line in taken {
                // a line that cannot be written is lost, and nothing else
                let _ = to.write_all(&line);
                let n = missed.swap(0, Ordering::Relaxed);
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

    /// Whether all is written.
    fn drain(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.waiting.load(Ordering::Acquire) > 0 {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(DRAIN_LOOK);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    /// Takes nothing until it is let go.
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
    fn who_logs_does_not_wait_for_who_reads_and_what_was_lost_is_told() {
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
        // one of them may be on its way out of the queue when it is full
        let lost: usize = lines[1].split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
        assert!(lines[0] == "0" && lines[1].ends_with("nobody read them"), "{lines:?}");
        assert!(lost == more || lost + 1 == more, "{lost}");
        assert_eq!(lines.len(), LINES_MAX + more - lost + 1, "all others are there");
    }
}
