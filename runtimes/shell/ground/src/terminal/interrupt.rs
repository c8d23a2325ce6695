//! Interruption of commands by Ctrl-C or SIGTERM.

use crate::error::{Code, Error};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Flag set by Ctrl-C and SIGTERM; waiting commands check it. Clones share the flag.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Installs the signal handlers: the first signal sets the flag, a second one ends the process at once.
    pub fn listen() -> Result<Self, Error> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
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
