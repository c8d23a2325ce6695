//! Clean end of a running process: on SIGTERM, Ctrl-C, SIGHUP where that has no other meaning, or, with
//! `--exit-with-parent`, the end of standard input.

use super::{Code, Error};
use std::io::Read;
use swarmedge_ground::http::Signal;
use swarmedge_ground::mailbox::{Sender, mailbox};
use swarmedge_ground::rt::Rt;
use swarmedge_ground::terminal::ignores_hangup;

/// Returns a [`Signal`] that is set when the process must end. A second SIGTERM or Ctrl-C ends it at once. A process
/// with `hangup` is told there of SIGHUP; another ends by it as by SIGTERM, unless `nohup` has started it.
pub fn stop_signal<R: Rt>(rt: &R, exit_with_parent: bool, hangup: Option<Sender<()>>) -> Result<Signal, Error> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let heard = (hangup.is_some() || !ignores_hangup()).then_some(SIGHUP);
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM].into_iter().chain(heard))
        .map_err(|e| Error::io("take over the signals of this process", &e))?;
    let (tx, mut rx) = mailbox::<()>(4);
    let by_parent = exit_with_parent.then(|| tx.clone());
    std::thread::spawn(move || {
        let mut times = 0;
        for signal in signals.forever() {
            if let (SIGHUP, Some(hangup)) = (signal, &hangup) {
                // one that waits already is as good
                let _ = hangup.try_send(());
                continue;
            }
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
