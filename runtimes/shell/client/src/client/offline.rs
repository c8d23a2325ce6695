//! Answers to commands while no client runs, from the state directory, which is locked meanwhile.

use super::api_state::ApiState;
use super::config::{installed_uploads, make_private};
use super::identity::guid_of;
use super::local::Call;
use super::process::{cached_lines, open_failed, show_restored};
use super::protocol::{Answer, Failure, Request, StatusLine};
use crate::store::{self, Restored, Store};
use std::path::Path;
use std::sync::mpsc;
use swarmedge_core::ids::Handle;
use swarmedge_core::role::client::io::Save;
use swarmedge_ground::error::{Code, Error};

/// Asks the running client for one answer. If no client runs, answers from the state directory, if that suffices.
pub(super) fn ask(state: &Path, request: &Request) -> Result<Answer, Error> {
    match Call::ask(state, request)? {
        Some(answer) => Ok(answer),
        None => answer(state, request)?.ok_or_else(no_client),
    }
}

/// Returns the error of a command that needs a client while none runs.
pub(super) fn no_client() -> Error {
    Error::new(Code::Unreachable, "no client runs here").next("start one with `client run`, or name its --state")
}

/// Answers a request from the state directory; `None` if only a running client can, or if no client has run there.
fn answer(state: &Path, request: &Request) -> Result<Option<Answer>, Error> {
    let reads = matches!(request, Request::Status | Request::CacheList | Request::Why { .. });
    let sets = matches!(request, Request::Uploads { .. });
    if !(sets || reads && state.join(store::JOURNAL).exists()) {
        return Ok(None);
    }
    if sets {
        make_private(state)?;
    }
    let (store, restored) = match Store::open(state) {
        Ok(opened) => opened,
        // a client that starts or ends has the directory locked
        Err(store::Error::InUse { .. }) if reads => return Ok(None),
        Err(error) => return Err(open_failed(&error)),
    };
    if let Request::Uploads { on } = request {
        save(&store, Save::Uploads(*on))?;
        return Ok(Some(Answer::Accepted { download: None }));
    }
    if let Request::Why { download, addresses } = request {
        return Ok(Some(shown(state, &restored).why(download.map(Handle), *addresses)));
    }
    let shown = shown(state, &restored);
    let lists = *request == Request::CacheList;
    Ok(Some(if lists {
        Answer::Cache { versions: cached_lines(&store, &shown) }
    } else {
        Answer::Status(shown.status())
    }))
}

/// Returns the state that the local API would show before the first step of a client on this directory.
fn shown(state: &Path, restored: &Restored) -> ApiState {
    let client = StatusLine {
        guid: guid_of(state).map(|guid| guid.to_string()).unwrap_or_default(),
        client_version: env!("CARGO_PKG_VERSION").into(),
        state_dir: state.display().to_string(),
        uploads: restored.uploads.or_else(|| installed_uploads(state)).unwrap_or(true),
        ..StatusLine::default()
    };
    let api_state = ApiState::new(client, |_| false);
    show_restored(&api_state, restored);
    api_state
}

fn save(store: &Store, what: Save) -> Result<(), Error> {
    let (done, saved) = mpsc::channel();
    // the receiver below takes the result
    store.save(what, move |result| {
        let _ = done.send(result);
    });
    let saved = saved.recv().map_err(|_| Error::failed("the client's store has ended"))?;
    saved.map_err(|why| Failure::from(why).into())
}
