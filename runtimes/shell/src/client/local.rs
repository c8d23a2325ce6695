//! The local API over a Unix domain socket in the state directory: one request a connection, answered by a few threads
//! that block. Only the directory's owner can connect.

use super::desk::Desk;
use super::protocol::{Answer, CachedLine, Failure, LINE_LEN_MAX, Request, parse_version};
use crate::edge_client::tokens::Tokens;
use crate::error::{Code, Error, reason};
use serde::Serialize;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use swarmedge_core::ids::{Handle, ProviderId};
use swarmedge_core::role::client::io::{CommandKind, DownloadState, DownloadStatus, ObjectRef};

/// Name of the socket in the state directory.
pub const SOCKET: &str = "control.sock";
/// Connections at once, each with a thread.
const CONNECTIONS_MAX: usize = 32;
/// How long a command may take to send its line or to read ours.
const IO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a command that names an edge waits for a bootstrap to name them all.
const EDGES_WITHIN: Duration = Duration::from_secs(3);
/// How often a watching thread looks whether its command has gone away.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the API answers from.
#[derive(Clone)]
pub struct Api {
    /// Figures and commands.
    pub desk: Desk,
    /// Keeps the providers' tokens.
    pub tokens: Tokens,
    /// Lists the cache.
    pub cache: Arc<dyn Fn() -> Result<Vec<CachedLine>, Failure> + Send + Sync>,
}

/// The listening socket. Dropping it ends the API and removes the socket.
pub struct Server {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds the socket in `state`. The caller holds the directory's lock, so a socket that is there is stale.
    pub fn start(state: &Path, api: Api) -> Result<Self, Error> {
        let path = state.join(SOCKET);
        let doing = || format!("listen on {}", path.display());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(doing(), &error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path).map_err(|error| {
            let shorter = "choose a shorter state directory: a socket's path has room for about 100 bytes";
            let failed = Error::io(doing(), &error);
            if error.kind() == io::ErrorKind::InvalidInput { failed.next(shorter) } else { failed }
        })?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| Error::io(doing(), &error))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("local-api".into())
            .spawn(move || accept(&listener, &api, &stopped))
            .map_err(|error| Error::io("start a thread", &error))?;
        Ok(Self { path, stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // wakes the thread out of accept
        let woken = UnixStream::connect(&self.path).is_ok();
        let _ = std::fs::remove_file(&self.path);
        if let (true, Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &UnixListener, api: &Api, stop: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else {
            // out of descriptors or memory: give others time to free some
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        let place = Place::take(&open);
        let api = api.clone();
        let work = move || match place {
            Some(_place) => serve(stream, &api),
            None => drop(say(&stream, &Answer::Error(busy()))),
        };
        if let Err(error) = std::thread::Builder::new().name("local-api-call".into()).spawn(work) {
            tracing::warn!(%error, "no thread for a local API call");
        }
    }
}

/// One of the [`CONNECTIONS_MAX`] places.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(open));
        (open.fetch_add(1, Ordering::AcqRel) < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn busy() -> Failure {
    Failure::new(Code::Unreachable, "the client serves too many commands", "wait until some of them have ended")
}

fn serve(stream: UnixStream, api: &Api) {
    let ready = stream.set_read_timeout(Some(IO_TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(IO_TIMEOUT)));
    let mut lines = Lines::new(&stream);
    let answered = ready.and_then(|()| lines.next_line()).and_then(|line| match line {
        // connected and gone: somebody looked whether we are here
        None => Ok(()),
        Some(line) => match serde_json::from_str::<Request>(&line) {
            Ok(request) => answer(&stream, api, request),
            Err(error) => say(&stream, &Answer::Error(Failure::new(Code::Usage, format!("bad request: {error}"), ""))),
        },
    });
    if let Err(error) = answered {
        tracing::debug!(%error, "a local API call broke off");
    }
}

fn answer(stream: &UnixStream, api: &Api, request: Request) -> io::Result<()> {
    let accepted = |kind| match api.desk.command(kind) {
        Ok(handle) => Answer::Accepted { download: handle.map(|h| h.0) },
        Err(failure) => Answer::Error(failure),
    };
    let one = match request {
        Request::Get { provider, path, output, force, edge, token } => {
            if let Some(Err(failure)) = edge.map(|edge| api.desk.expect_edge(&edge, EDGES_WITHIN)) {
                return say(stream, &Answer::Error(failure));
            }
            let object = ObjectRef { provider: ProviderId(provider), path };
            if let Some(token) = token
                && let Err(error) = api.tokens.put(&object, token)
            {
                return say(stream, &Answer::Error(Failure::new(Code::Disk, error.to_string(), "")));
            }
            return get(stream, api, object, output, force);
        }
        Request::Pause { download } => accepted(CommandKind::Pause(Handle(download))),
        Request::Resume { download } => accepted(CommandKind::Resume(Handle(download))),
        Request::Cancel { download } => accepted(CommandKind::Cancel(Handle(download))),
        Request::Uploads { on } => accepted(CommandKind::Uploads(on)),
        Request::CacheList => (api.cache)().map_or_else(Answer::Error, |versions| Answer::Cache { versions }),
        Request::CacheRemove { version } => {
            parse_version(&version).map_or_else(Answer::Error, |version| accepted(CommandKind::RemoveCached(version)))
        }
        Request::Status => Answer::Status(api.desk.status()),
        Request::Nat => Answer::Nat { nat: api.desk.observed() },
        Request::Why { download } => api.desk.why(download.map(Handle)),
        Request::Watch { download } => return watch(stream, &api.desk, 0, download.map(Handle)),
        Request::Shutdown => accepted(CommandKind::Shutdown),
    };
    say(stream, &one)
}

fn get(stream: &UnixStream, api: &Api, object: ObjectRef, output: String, force: bool) -> io::Result<()> {
    if let Err(failure) = may_write(&api.desk, &object, &output, force) {
        return say(stream, &Answer::Error(failure));
    }
    // what is older than the command would show the end of an earlier try
    let seen = api.desk.changes(0, None, Duration::ZERO).revision;
    match api.desk.command(CommandKind::Get { object, output }) {
        Err(failure) => say(stream, &Answer::Error(failure)),
        Ok(None) => say(stream, &Answer::Accepted { download: None }),
        Ok(Some(handle)) => {
            say(stream, &Answer::Accepted { download: Some(handle.0) })?;
            watch(stream, &api.desk, seen, Some(handle))
        }
    }
}

/// A file that stands where the download would go is only replaced on demand, or by the download that put it there.
fn may_write(desk: &Desk, object: &ObjectRef, output: &str, force: bool) -> Result<(), Failure> {
    let bad = |reason: String, next: &str| Err(Failure::new(Code::Usage, reason, next));
    let path = Path::new(output);
    if !path.is_absolute() {
        return bad(format!("{output:?} is not an absolute path"), "name the file by its full path");
    }
    if path.is_dir() {
        return bad(format!("{output} is a directory"), "name the file with -o");
    }
    if !path.parent().is_some_and(Path::is_dir) {
        return bad(format!("there is no directory for {output}"), "make the directory first");
    }
    let known: Vec<_> = desk.downloads().into_iter().filter(|(status, _)| status.object == *object).collect();
    let running = |status: &DownloadStatus| matches!(status.state, DownloadState::Starting | DownloadState::Running);
    if let Some((_, elsewhere)) = known.iter().find(|(status, theirs)| running(status) && theirs != output) {
        return bad(format!("this object is on its way to {elsewhere}"), "wait for it, or cancel that download");
    }
    if !force && path.exists() && !known.iter().any(|(_, theirs)| theirs == output) {
        return bad(format!("{output} is there already"), "use --force to replace it, or another name with -o");
    }
    path.parent().map_or(Ok(()), may_make_files)
}

/// Better said before anything is fetched than when all of it is to be put there.
fn may_make_files(dir: &Path) -> Result<(), Failure> {
    let probe = dir.join(format!(".swarmedge-{}", std::process::id()));
    let made = match fs::File::create_new(&probe) {
        Ok(_) => fs::remove_file(&probe),
        // left behind when this could be done
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    };
    made.map_err(|e| {
        let reason = format!("no file can be made in {}: {}", dir.display(), reason(&e));
        Failure::new(Error::io("", &e).code(), reason, "name a file elsewhere with -o")
    })
}

/// Sends lines until the download is at rest, the command goes away, or the client ends.
fn watch(stream: &UnixStream, desk: &Desk, mut seen: u64, only: Option<Handle>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    loop {
        let changes = desk.changes(seen, only, LOOK_EVERY);
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
        if changes.over && desk.begins_anew() {
            return say(stream, &Answer::Again);
        }
        if changes.over {
            let next = "run the same get again: it goes on where it was";
            return say(stream, &Answer::Error(Failure::new(Code::Unreachable, "the client has stopped", next)));
        }
        if changes.lines.is_empty() && has_gone(stream)? {
            return Ok(());
        }
    }
}

/// Whether the other side has closed: it sends nothing after its request.
fn has_gone(mut stream: &UnixStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let read = stream.read(&mut [0]);
    stream.set_nonblocking(false)?;
    match read {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn say(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Lines of at most [`LINE_LEN_MAX`] bytes. A timeout loses nothing: the next call goes on.
pub(super) struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
    limit: usize,
}

impl<R: Read> Lines<R> {
    pub(super) const fn new(from: R) -> Self {
        Self { from, buffer: Vec::new(), limit: LINE_LEN_MAX }
    }

    /// The next line without its end; `None` at the end of the stream.
    pub(super) fn next_line(&mut self) -> io::Result<Option<String>> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|&b| b == b'\n') {
                let rest = self.buffer.split_off(searched + end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return String::from_utf8(line).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
            }
            searched = self.buffer.len();
            if searched >= self.limit {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            let mut chunk = [0; 4096];
            let n = self.from.read(&mut chunk)?;
            if n == 0 {
                return Ok(None);
            }
            self.buffer.extend_from_slice(&chunk[..n]);
        }
    }
}

/// A command's connection to the running client.
pub struct Call {
    lines: Lines<UnixStream>,
}

impl Call {
    /// Sends `request` to the client of `state`. `Ok(None)` if none runs there.
    pub fn open(state: &Path, request: &Request) -> Result<Option<Self>, Error> {
        let path = state.join(SOCKET);
        let failed = |error: &io::Error| Error::io(format!("speak to the client at {}", path.display()), error);
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(&error)),
        };
        stream.set_write_timeout(Some(IO_TIMEOUT)).map_err(|e| failed(&e))?;
        say(&stream, request).map_err(|e| failed(&e))?;
        // answers come from our own process and may be long: a full status
        Ok(Some(Self { lines: Lines { limit: usize::MAX, ..Lines::new(stream) } }))
    }

    /// The next line of the answer within `patience`: `Ok(None)` at the end, `Err(None)` if none has come yet.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Answer>, Option<Error>> {
        let failed = |error: &io::Error| Error::io("read the client's answer", error);
        self.lines.from.set_read_timeout(Some(patience)).map_err(|e| Some(failed(&e)))?;
        match self.lines.next_line() {
            Ok(None) => Ok(None),
            Ok(Some(line)) => serde_json::from_str(&line).map(Some).map_err(|error| {
                let next = "the client may be of another version: restart it";
                Some(Error::failed(format!("the client's answer makes no sense: {error}")).next(next))
            }),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Err(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(None),
            Err(error) => Err(Some(failed(&error))),
        }
    }

    /// Sends `request` and waits for its one answer. `Ok(None)` if no client runs.
    pub fn ask(state: &Path, request: &Request) -> Result<Option<Answer>, Error> {
        let Some(mut call) = Self::open(state, request)? else { return Ok(None) };
        match call.next(Duration::from_secs(40)) {
            Ok(Some(Answer::Error(failure))) => Err(failure.into()),
            Ok(Some(answer)) => Ok(Some(answer)),
            Ok(None) | Err(None) => {
                let next = "look at its log, or start it again";
                Err(Error::new(Code::Unreachable, "the client does not answer").next(next))
            }
            Err(Some(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
