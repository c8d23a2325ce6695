//! Clean end of a running process: on SIGTERM, Ctrl-C or, with `--exit-with-parent`, the end of standard input.

use super::{Code, Error};
use std::io::Read;
use swarmedge_ground::http::Signal;
use swarmedge_ground::mailbox::mailbox;
use swarmedge_ground::rt::Rt;

/// Returns a [`Signal`] that is set when the process must end. A second SIGTERM or Ctrl-C ends it at once.
pub fn stop_signal<R: Rt>(rt: &R, exit_with_parent: bool) -> Result<Signal, Error> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
        .map_err(|e| Error::io("take over the signals of this process", &e))?;
    let (tx, mut rx) = mailbox::<()>(4);
    let by_parent = exit_with_parent.then(|| tx.clone());
    std::thread::spawn(move || {
        let mut times = 0;
        for _ in signals.forever() {
            times += 1;
            // a full or closed mailbox means that the end has begun
            let _ = tx.try_send(());
            if times > 1 {
                std::process::exit(i32::from(Code::Interrupted as u8));
            }
        }
    });
    if let Some(tx) = by_parent {
        std::thread::spawn(move || {
            wait_for_end(std::io::stdin().lock());
            let _ = tx.try_send(());
        });
    }
    let signal = Signal::default();
    let set = signal.clone();
    rt.spawn(async move {
        if rx.recv().await.is_some() {
            set.set();
        }
    });
    Ok(signal)
}

/// Reads `input` until its end or an error.
fn wait_for_end(mut input: impl Read) {
    let mut buf = [0; 256];
    while matches!(input.read(&mut buf), Ok(n) if n > 0) {}
}
