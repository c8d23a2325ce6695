//! Ctrl-C.

use crate::error::{Code, Error};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set by Ctrl-C and SIGTERM while a command waits.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on signals set the flag; a second one ends the process at once.
    pub fn listen() -> Result<Self, Error> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let code = i32::from(Code::Interrupted as u8);
            // the order counts: the second signal finds the flag that the first has set
            signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .map_err(|e| Error::io("take over the signals of this process", &e))?;
        }
        Ok(Self(flag))
    }

    /// A flag that nothing sets.
    #[must_use]
    pub fn never() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// Fails if the user wants to stop.
    pub fn check(&self) -> Result<(), Error> {
        let set = self.0.load(Ordering::Relaxed);
        if set { Err(Error::new(Code::Interrupted, "interrupted")) } else { Ok(()) }
    }

    /// Sleeps, unless interrupted.
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
