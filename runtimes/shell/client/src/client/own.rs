//! The client that a `get` starts on a thread of its own process. Other `get`s may use it too; only the `get` that
//! started it stops it.

use super::api_state::ApiState;
use super::process::{CLOSE_WITHIN, STOP_WITHIN};
use super::{ClientConfig, process};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::Interrupt;
use swarmedge_ground::terminal::out::note;

/// Interval at which waiting loops check their conditions.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time that the client continues for the `get`s of other processes after its own `get`; then these start a client of
/// their own.
const OTHERS_WITHIN: Duration = Duration::from_secs(10);
/// Time to wait for the ledger to acknowledge usage records while a CN is connected.
const REPORT_WITHIN: Duration = Duration::from_secs(15);
/// Time to wait for a connection to a CN with usage records to send; some deployments have no CN.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);
/// Time of waiting after which a message to the user is printed.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// Time allowed for the async runtime to end after the client.
const SLACK: Duration = Duration::from_secs(1);

/// A client that runs on a thread of this process.
pub(super) struct OwnClient {
    thread: JoinHandle<Result<(), Error>>,
    hold: Hold,
}

/// The outcome of starting the client.
pub(super) enum Started {
    /// The client runs and takes commands.
    Ready(OwnClient),
    /// Another client has locked the state directory.
    Taken(Error),
    /// The user pressed Ctrl-C before the client was ready.
    Stopped,
}

/// Access to the running client's API state, which is replaced when the client restarts under a new key; and whether
/// it is to stop.
#[derive(Clone, Default)]
struct Hold(Arc<Mutex<(Option<ApiState>, bool)>>);

impl Hold {
    fn began(&self, api_state: &ApiState) {
        let mut hold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hold.0 = Some(api_state.clone());
        if hold.1 {
            api_state.shut_down();
        }
    }

    fn api_state(&self) -> Option<ApiState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Stops the client; one that is still starting stops as soon as it runs.
    fn stop(&self) {
        let mut hold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hold.1 = true;
        if let Some(api_state) = &hold.0 {
            api_state.shut_down();
        }
    }
}

impl OwnClient {
    /// Starts it, and waits until commands can be taken.
    pub(super) fn start<R: Start>(config: ClientConfig, interrupt: &Interrupt) -> Result<Started, Error> {
        let (ready, is_ready) = mpsc::channel();
        let hold = Hold::default();
        let theirs = hold.clone();
        let run = move || {
            let began = move |api_state: &ApiState| {
                theirs.began(api_state);
                // whoever waited has given up, or knows already
                let _ = ready.send(());
            };
            process::run_on::<R, _>(&config, began, |_| Ok(std::future::pending()))
        };
        let thread = std::thread::Builder::new().name("client".into()).spawn(run);
        let own = Self { thread: thread.map_err(|e| Error::io("start a thread", &e))?, hold };
        loop {
            match is_ready.recv_timeout(LOOK_EVERY) {
                Ok(()) => return Ok(Started::Ready(own)),
                // it could not start: the sender is gone
                Err(RecvTimeoutError::Disconnected) => {
                    return match own.stop() {
                        Err(error) if error.code() == Code::Unreachable => Ok(Started::Taken(error)),
                        other => other.map(|()| Started::Stopped),
                    };
                }
                Err(RecvTimeoutError::Timeout) if interrupt.check().is_err() => {
                    return match own.stop() {
                        // it waited for the directory
                        Err(error) if error.code() == Code::Unreachable => Ok(Started::Stopped),
                        other => other.map(|()| Started::Stopped),
                    };
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Returns whether the client's thread has ended, for whatever reason.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits, within limits, for `get`s of other processes to end and for the ledger to acknowledge usage records.
    /// Prints a message if this takes long.
    pub(super) fn settle(&self, json: bool, interrupt: &Interrupt) {
        let Some(api_state) = self.hold.api_state() else { return };
        let told = wait(json, interrupt, || {
            let gets = api_state.gets();
            let (s, are) =
                (OTHERS_WITHIN.as_secs(), if gets == 1 { "1 other get that uses" } else { "other gets that use" });
            (gets > 0)
                .then(|| (OTHERS_WITHIN, format!("waiting up to {s} s for {are} this client: then they go on alone")))
        });
        if !told || interrupt.check().is_err() {
            // the next client reports what this one has not
            return;
        }
        let told = wait(json, interrupt, || {
            let status = api_state.status();
            let within = if status.control_connected { REPORT_WITHIN } else { CONNECTED_WITHIN };
            let s = within.as_secs();
            (status.usage_unreported > 0)
                .then(|| (within, format!("waiting up to {s} s for the ledger to acknowledge what was downloaded")))
        });
        if !told && !json {
            note!("the ledger has not acknowledged what was downloaded: the next start of the client sends it");
        }
    }

    /// Stops the client and waits a bounded time for its end.
    pub(super) fn stop(self) -> Result<(), Error> {
        self.hold.stop();
        let until = Instant::now() + STOP_WITHIN + CLOSE_WITHIN + SLACK;
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                // it ends with the process
                tracing::warn!("the client does not end; what is durable stays");
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err(Error::failed("the client broke down").next("run the same get again")))
    }
}

/// Waits until `busy` returns `None`; returns false if the time limit that it returns has passed, or after Ctrl-C.
/// After [`SILENT_FOR`] the text that `busy` returns is printed once.
fn wait(json: bool, interrupt: &Interrupt, busy: impl Fn() -> Option<(Duration, String)>) -> bool {
    let (began, mut said) = (Instant::now(), json);
    while let Some((within, what)) = busy() {
        if began.elapsed() >= within || interrupt.check().is_err() {
            return false;
        }
        if began.elapsed() >= SILENT_FOR && !said {
            said = true;
            note!("{what}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}
