//! Interruption of commands by Ctrl-C, SIGTERM or SIGHUP.

use crate::error::{Code, Error};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Flag set by Ctrl-C, SIGTERM and SIGHUP; waiting commands check it. Clones share the flag.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Installs the signal handlers: the first signal sets the flag, a second one ends the process at once.
    pub fn listen() -> Result<Self, Error> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let flag = Arc::new(AtomicBool::new(false));
        let hangup = (!ignores_hangup()).then_some(SIGHUP);
        for signal in [SIGINT, SIGTERM].into_iter().chain(hangup) {
            let code = i32::from(Code::Interrupted as u8);
            // order matters: the first signal runs the shutdown check before it sets the flag, so only a second one
            // exits
            signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .map_err(|e| Error::io("take over the signals of this process", &e))?;
        }
        Ok(Self(flag))
    }

    /// Makes a flag that no signal sets.
    #[must_use]
    pub fn never() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// Fails with [`Code::Interrupted`] if the flag is set.
    pub fn check(&self) -> Result<(), Error> {
        let set = self.0.load(Ordering::Relaxed);
        if set { Err(Error::new(Code::Interrupted, "interrupted")) } else { Ok(()) }
    }

    /// Sleeps for `time`; fails within 50 ms of an interruption.
    pub fn sleep(&self, time: Duration) -> Result<(), Error> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// Whether this process was started to outlive its terminal, as by `nohup`: it ignores SIGHUP.
#[must_use]
pub fn ignores_hangup() -> bool {
    // elsewhere than on Linux this cannot be seen
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status))
}

fn ignores(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // the lowest bit is of signal 1, SIGHUP
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_tells_of_hangup() {
        assert!(ignores("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"));
        assert!(!ignores("SigIgn:\t0000000000001000\nSigCgt:\t1\n") && !ignores(""));
    }
}
