//! The local API over a Unix domain socket in the state directory: one request a connection, answered by a thread of
//! its own. Only the directory's owner can connect. Connections beyond the limit wait in the kernel's queue.

mod call;

pub use call::Call;

use super::api_state::ApiState;
use super::output;
use super::protocol::{Answer, CachedLine, Failure, Request, parse_version, url};
use super::turns::{QueueSlot, Turn};
use crate::edge_client::tokens::Tokens;
use crate::store::{Modes, PutThere};
use call::Lines;
use serde::Serialize;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use swarmedge_core::ids::{Handle, ProviderId};
use swarmedge_core::role::client::io::{CommandKind, DownloadState, DownloadStatus, ObjectRef};
use swarmedge_ground::error::{Code, Error};

/// Name of the socket in the state directory.
pub const SOCKET: &str = "control.sock";
/// Maximum number of connections served at once, each by a thread; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Stack size of such a thread, bytes. All of them together fit into a small machine's address space.
const STACK_LEN: usize = 256 * 1024;
/// Time-out for a command to send its request or to read a line of the answer.
const IO_TIMEOUT: Duration = Duration::from_secs(10);
/// Time-out for the bootstrap answer that names the edges, if a command names one.
const EDGES_WITHIN: Duration = Duration::from_secs(3);
/// Interval at which a watching thread checks whether its command has disconnected.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time of waiting after which a `get` is informed that it waits.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// Interval of checks that the socket file still exists: a program that cleans the directory may have deleted it.
const SOCKET_EVERY: Duration = Duration::from_secs(2);
/// Time that shutdown waits for the API's threads to inform their commands.
const TELLS_WITHIN: Duration = Duration::from_millis(300);

/// The parts of the client that the local API uses.
#[derive(Clone)]
pub struct Api {
    /// Current figures of downloads, and the means to send commands to the machine.
    pub api_state: ApiState,
    /// The store of the providers' tokens.
    pub tokens: Tokens,
    /// The function that lists the cached versions.
    pub cache: Arc<dyn Fn() -> Result<Vec<CachedLine>, Failure> + Send + Sync>,
    /// The function that checks whether a file was put in place by an earlier download.
    pub put_there: PutThere,
    /// The permission bits of files that are to be made.
    pub modes: Modes,
    /// Whether the client runs only for one `get` and those that join it.
    pub one_shot: bool,
}

/// The listening socket. Dropping it ends the API and removes the socket.
pub struct Server {
    path: PathBuf,
    seats: Arc<Seats>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds the socket in the directory `state`. The caller holds the directory's lock, so an existing socket file
    /// was left by a client that is gone, and is replaced.
    pub fn start(state: &Path, api: Api) -> Result<Self, Error> {
        let path = state.join(SOCKET);
        let doing = || format!("listen on {}", path.display());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(doing(), &error)),
            Ok(()) | Err(_) => {}
        }
        let listener = bind(&path).map_err(|error| {
            let shorter = "choose a shorter state directory: a socket's path has room for about 100 bytes";
            let failed = Error::io(doing(), &error);
            if error.kind() == io::ErrorKind::InvalidInput { failed.next(shorter) } else { failed }
        })?;
        let seats = Arc::new(Seats::default());
        let (theirs, at) = (Arc::clone(&seats), path.clone());
        let thread = std::thread::Builder::new()
            .name("local-api".into())
            .spawn(move || accept(listener, &at, &api, &theirs))
            .map_err(|error| Error::io("start a thread", &error))?;
        Ok(Self { path, seats, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.seats.close();
        // wakes the thread out of accept
        let woken = UnixStream::connect(&self.path).is_ok();
        let _ = std::fs::remove_file(&self.path);
        if let (true, Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
        self.seats.wait_until_empty(TELLS_WITHIN);
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket2::SockRef::from(&listener).set_read_timeout(Some(SOCKET_EVERY))?;
    Ok(listener)
}

/// Accepts commands' connections while there are seats; binds the socket again if somebody has removed it.
fn accept(mut listener: UnixListener, path: &Path, api: &Api, seats: &Arc<Seats>) {
    while let Some(seat) = Seat::take(seats) {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !seats.are_closed()
                    && path.symlink_metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
                    && let Ok(another) = bind(path)
                {
                    tracing::warn!(path = %path.display(), "the client's socket was removed: it is there again");
                    listener = another;
                }
                continue;
            }
            Err(_) => {
                // out of descriptors or memory: give others time to free some
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        if seats.are_closed() {
            return;
        }
        let stream = Arc::new(stream);
        let (theirs, api) = (Arc::clone(&stream), api.clone());
        let work = move || {
            let _seat = seat;
            serve(&theirs, &api);
        };
        let thread = std::thread::Builder::new().name("local-api-call".into()).stack_size(STACK_LEN);
        if let Err(error) = thread.spawn(work) {
            tracing::warn!(%error, "no thread for a local API call");
            refuse(&stream, &error);
        }
    }
}

/// A counting semaphore: it limits the connections served at once to [`CONNECTIONS_MAX`].
#[derive(Default)]
struct Seats {
    state: Mutex<SeatsTaken>,
    changed: Condvar,
}

#[derive(Default)]
struct SeatsTaken {
    taken: usize,
    closed: bool,
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, SeatsTaken> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn are_closed(&self) -> bool {
        self.lock().closed
    }

    fn wait_until_empty(&self, patience: Duration) {
        drop(self.changed.wait_timeout_while(self.lock(), patience, |state| state.taken > 0));
    }
}

/// A permit to serve one connection, returned when dropped.
struct Seat(Arc<Seats>);

impl Seat {
    /// Waits for a free permit; `None` once the semaphore is closed.
    fn take(seats: &Arc<Seats>) -> Option<Self> {
        let full = |state: &mut SeatsTaken| state.taken >= CONNECTIONS_MAX && !state.closed;
        let waited = seats.changed.wait_while(seats.lock(), full);
        let mut state = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.closed {
            return None;
        }
        state.taken += 1;
        Some(Self(Arc::clone(seats)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.changed.notify_all();
    }
}

/// Answers a connection for which no thread can be started. Without an answer the command would retry for ever.
fn refuse(stream: &UnixStream, error: &io::Error) {
    let reason = format!("the client cannot start a thread: {error}");
    let failure = Failure::new(Code::Failed, reason, "allow more memory and threads, then run the same command again");
    // the request is read first: the command must have sent it before the connection ends
    let ready = stream.set_read_timeout(Some(LOOK_EVERY)).and_then(|()| stream.set_write_timeout(Some(LOOK_EVERY)));
    let asked = ready.and_then(|()| Lines::new(stream).next_line());
    if let Err(error) = asked.and_then(|_| say(stream, &Answer::Error(failure))) {
        tracing::debug!(%error, "a local API call broke off");
    }
}

fn serve(stream: &UnixStream, api: &Api) {
    let ready = stream.set_read_timeout(Some(IO_TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(IO_TIMEOUT)));
    let mut lines = Lines::new(stream);
    let answered = ready.and_then(|()| lines.next_line()).and_then(|line| match line {
        // connected and gone: somebody looked whether we are here
        None => Ok(()),
        Some(line) => match serde_json::from_str::<Request>(&line) {
            Ok(request) => answer(&mut lines, api, request),
            Err(error) => say(stream, &Answer::Error(Failure::new(Code::Usage, format!("bad request: {error}"), ""))),
        },
    });
    if let Err(error) = answered {
        tracing::debug!(%error, "a local API call broke off");
    }
}

fn answer(lines: &mut Lines<&UnixStream>, api: &Api, request: Request) -> io::Result<()> {
    let stream = lines.source();
    let accepted = |kind| match api.api_state.command(kind) {
        Ok(handle) => Answer::Accepted { download: handle.map(|h| h.0) },
        Err(failure) => Answer::Error(failure),
    };
    let one = match request {
        Request::Get { provider, path, output, mode, force, edge, token } => {
            if let Some(Err(failure)) = edge.map(|edge| api.api_state.expect_edge(&edge, EDGES_WITHIN)) {
                return say(stream, &Answer::Error(failure));
            }
            let object = ObjectRef { provider: ProviderId(provider), path };
            if let Some(token) = token
                && let Err(error) = api.tokens.put(&object, token)
            {
                return say(stream, &Answer::Error(Failure::new(Code::Disk, error.to_string(), "")));
            }
            if let Some(mode) = mode {
                api.modes.set(Path::new(&output), mode);
            }
            return get(lines, api, object, output, force);
        }
        Request::Pause { download } => accepted(CommandKind::Pause(Handle(download))),
        Request::Resume { download } => accepted(CommandKind::Resume(Handle(download))),
        Request::Cancel { download } => accepted(CommandKind::Cancel(Handle(download))),
        Request::Uploads { on } => accepted(CommandKind::Uploads(on)),
        Request::CacheList => (api.cache)().map_or_else(Answer::Error, |versions| Answer::Cache { versions }),
        Request::CacheRemove { version } => {
            parse_version(&version).map_or_else(Answer::Error, |version| accepted(CommandKind::RemoveCached(version)))
        }
        Request::Status => Answer::Status(api.api_state.status()),
        Request::Nat => Answer::Nat { nat: api.api_state.observed() },
        Request::Why { download, addresses } => api.api_state.why(download.map(Handle), addresses),
        Request::Watch { download } => return watch(lines, &api.api_state, 0, download.map(Handle), None),
        Request::Leave => Answer::Error(Failure::new(Code::Usage, "only a get can be left", "")),
        Request::Shutdown => accepted(CommandKind::Shutdown),
    };
    say(stream, &one)
}

/// The queue slot of a `get`: it waits for its turn, then for its download.
type Follower = QueueSlot<ObjectRef, String>;

/// A `get` being answered: its queue slot, and the answer it gets if the client ends.
struct Following<'a> {
    slot: &'a mut Follower,
    over: Answer,
}

fn get(lines: &mut Lines<&UnixStream>, api: &Api, object: ObjectRef, output: String, force: bool) -> io::Result<()> {
    let (stream, api_state) = (lines.source(), &api.api_state);
    if let Err(failure) = output::may_write(&api.api_state, &api.put_there, &object, &output, force) {
        return say(stream, &Answer::Error(failure));
    }
    let mut slot = api_state.turns().ask(object.clone(), output.clone());
    let mut following = Following { slot: &mut slot, over: Answer::Over { one_shot: api.one_shot } };
    match turn(lines, api_state, &mut following, (&object, &output))? {
        Came::Gone => return Ok(()),
        // what was there before may have changed meanwhile
        Came::Later => {
            if let Err(failure) = output::may_write(&api.api_state, &api.put_there, &object, &output, force) {
                return say(stream, &Answer::Error(failure));
            }
        }
        Came::AtOnce => {}
    }
    // what is older than the command would show the end of an earlier try
    let seen = api_state.changes(0, None, Duration::ZERO).revision;
    match api_state.command(CommandKind::Get { object, output, replace: force }) {
        Err(_) if api_state.is_over() => say(stream, &following.end(api_state)),
        Err(failure) => say(stream, &Answer::Error(failure)),
        Ok(None) => say(stream, &Answer::Accepted { download: None }),
        Ok(Some(handle)) => {
            say(stream, &Answer::Accepted { download: Some(handle.0) })?;
            watch(lines, api_state, seen, Some(handle), Some(following))
        }
    }
}

impl Following<'_> {
    /// Returns the last answer to a `get` when the client ends or restarts.
    fn end(&self, api_state: &ApiState) -> Answer {
        if api_state.begins_anew() { Answer::Again } else { self.over.clone() }
    }
}

/// How the wait for a `get`'s turn ended.
enum Came {
    AtOnce,
    Later,
    /// The command has disconnected, or was informed that the client ends.
    Gone,
}

/// Waits for the turn of a `get`: until fewer than the maximum number of objects are being downloaded, and this
/// object to no other path.
fn turn(
    lines: &mut Lines<&UnixStream>,
    api_state: &ApiState,
    following: &mut Following<'_>,
    (object, output): (&ObjectRef, &str),
) -> io::Result<Came> {
    let stream = lines.source();
    let (began, mut told, mut came) = (Instant::now(), None, Came::AtOnce);
    loop {
        match (hear(lines)?, &came) {
            (Heard::Leave, _) => return say(stream, &Answer::Left).map(|()| Came::Gone),
            (Heard::Gone, Came::Later) => return Ok(Came::Gone),
            // who has only asked and gone wants the download all the same
            (Heard::Gone | Heard::Nothing, _) => {}
        }
        let (stands, seen) = following.slot.look();
        // a download that nobody follows may be under way too
        let elsewhere = on_its_way_elsewhere(api_state, object, output);
        let place = match (stands, elsewhere) {
            (Turn::Come, None) => return Ok(came),
            (Turn::Come, Some(place)) => {
                following.slot.let_pass(place.clone());
                Some(place)
            }
            (Turn::Elsewhere(place), None) => {
                following.slot.come_back();
                Some(place)
            }
            (Turn::Elsewhere(place), Some(_)) => Some(place),
            (Turn::Behind, _) => None,
        };
        let reason = match place {
            Some(place) => format!("{} is on its way to {}, and then comes here", url(object), shown(&place)),
            None => "other downloads go first: the client works on as many as it may".to_owned(),
        };
        came = Came::Later;
        if api_state.is_over() {
            return say(stream, &following.end(api_state)).map(|()| Came::Gone);
        }
        if began.elapsed() >= SILENT_FOR && told.as_ref() != Some(&reason) {
            say(stream, &Answer::Waiting { reason: reason.clone() })?;
            told = Some(reason);
        }
        following.slot.wait(seen, LOOK_EVERY);
    }
}

/// The place of an output in a sentence.
fn shown(output: &str) -> &str {
    if output.is_empty() { "standard output" } else { output }
}

/// Where else an object is on its way to.
fn on_its_way_elsewhere(api_state: &ApiState, object: &ObjectRef, output: &str) -> Option<String> {
    let running = |status: &DownloadStatus| matches!(status.state, DownloadState::Starting | DownloadState::Running);
    let mut others =
        api_state.downloads().into_iter().filter(|(s, to)| s.object == *object && running(s) && to != output);
    others.next().map(|(_, to)| to)
}

/// Sends progress lines until the download ends or is paused, the command disconnects, or the client ends. When a
/// `get` leaves, the download is paused if no other command waits for it.
fn watch(
    lines: &mut Lines<&UnixStream>,
    api_state: &ApiState,
    mut seen: u64,
    only: Option<Handle>,
    mut following: Option<Following<'_>>,
) -> io::Result<()> {
    let stream = lines.source();
    loop {
        let changes = api_state.changes(seen, only, LOOK_EVERY);
        seen = changes.revision;
        for line in &changes.lines {
            say(stream, line)?;
            if let (Some(_), Answer::Download(figures)) = (only, line)
                && figures.state.is_at_rest()
            {
                return Ok(());
            }
        }
        if changes.forgotten {
            let next = "run get again to begin anew";
            return say(stream, &Answer::Error(Failure::new(Code::NotFound, "no such download, or cancelled", next)));
        }
        if changes.over {
            let next = "run the same get again: it goes on where it was";
            let stopped = || Answer::Error(Failure::new(Code::Unreachable, "the client has stopped", next));
            return say(stream, &following.map_or_else(stopped, |following| following.end(api_state)));
        }
        match (hear(lines)?, only, &mut following) {
            (Heard::Nothing, ..) => {}
            (Heard::Leave, Some(handle), Some(following)) => {
                let paused = following.slot.leave(|| api_state.begin(CommandKind::Pause(handle)));
                let Some(req) = paused else { return say(stream, &Answer::Left) };
                // its last line follows: paused, or completed just before
                if let Some(Err(failure)) = req.map(|req| api_state.end(req)) {
                    return say(stream, &Answer::Error(failure));
                }
            }
            (Heard::Gone | Heard::Leave, ..) => return Ok(()),
        }
    }
}

/// Message of a command while its request is being answered.
enum Heard {
    Nothing,
    /// The command withdraws its `get`.
    Leave,
    /// The command closed its connection.
    Gone,
}

fn hear(lines: &mut Lines<&UnixStream>) -> io::Result<Heard> {
    let stream = lines.source();
    stream.set_nonblocking(true)?;
    let line = lines.next_line();
    stream.set_nonblocking(false)?;
    match line {
        Ok(Some(line)) => {
            let leaves = matches!(serde_json::from_str(&line), Ok(Request::Leave));
            Ok(if leaves { Heard::Leave } else { Heard::Gone })
        }
        Ok(None) => Ok(Heard::Gone),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
        Err(error) => Err(error),
    }
}

fn say(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
mod tests;
