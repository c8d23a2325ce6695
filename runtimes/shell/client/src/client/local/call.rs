//! The local API as commands use it: they connect, send a request and read the answer.

use super::{IO_TIMEOUT, SOCKET, say};
use crate::client::protocol::{Answer, LINE_LEN_MAX, Request};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::terminal::Interrupt;

/// Time-out of a command that expects a single line as answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);
/// Interval of checks for Ctrl-C while the client's queue is full.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A reader of lines of at most [`LINE_LEN_MAX`] bytes. After a time-out the next call continues with the bytes
/// received.
pub(super) struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
    limit: usize,
}

impl<R> Lines<R> {
    pub(super) const fn new(from: R) -> Self {
        Self { from, buffer: Vec::new(), limit: LINE_LEN_MAX }
    }
}

impl<R: Copy> Lines<R> {
    /// Returns the stream that the lines are read from.
    pub(super) const fn source(&self) -> R {
        self.from
    }
}

impl<R: Read> Lines<R> {
    /// Returns the next line without its line feed; `None` at the end of the stream.
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
    /// Sends `request` to the client whose directory is `state`. `Ok(None)` if no client runs there.
    pub fn open(state: &Path, request: &Request) -> Result<Option<Self>, Error> {
        Self::reach(state, request, &Interrupt::never(), Instant::now() + ANSWER_WITHIN)
    }

    /// Sends a request like [`Self::open`], unless interrupted. Retries until `until` while the client's queue is full.
    pub(in crate::client) fn reach(
        state: &Path,
        request: &Request,
        interrupt: &Interrupt,
        until: Instant,
    ) -> Result<Option<Self>, Error> {
        let path = state.join(SOCKET);
        let failed = |error: &io::Error| Error::io(format!("speak to the client at {}", path.display()), error);
        let stream = loop {
            match connect(&path) {
                Ok(stream) => break stream,
                Err(e) if has_no_client(&e) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => interrupt.check()?,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(silent()),
                Err(error) => return Err(failed(&error)),
            }
        };
        stream.set_write_timeout(Some(IO_TIMEOUT)).map_err(|e| failed(&e))?;
        match say(&stream, request) {
            Ok(()) => {}
            // it has ended between the two
            Err(e) if has_no_client(&e) => return Ok(None),
            Err(error) => return Err(failed(&error)),
        }
        // answers come from our own process and may be long: a full status
        Ok(Some(Self { lines: Lines { limit: usize::MAX, ..Lines::new(stream) } }))
    }

    /// Withdraws this `get`; the client pauses its download unless another `get` waits for it.
    pub(in crate::client) fn leave(&self) {
        // a client that has gone ends the answer anyway
        let _ = say(&self.lines.from, &Request::Leave);
    }

    /// Waits up to `patience` for the next line of the answer: `Ok(None)` at the end, `Err(None)` if none has come in
    /// time.
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
            Err(e) if has_no_client(&e) => Ok(None),
            Err(error) => Err(Some(failed(&error))),
        }
    }

    /// Sends `request` and waits for its one answer. `Ok(None)` if no client runs. A question is sent again when a
    /// client that ends or restarts closes the connection without an answer.
    pub fn ask(state: &Path, request: &Request) -> Result<Option<Answer>, Error> {
        let until = Instant::now() + ANSWER_WITHIN;
        loop {
            let Some(mut call) = Self::open(state, request)? else { return Ok(None) };
            match call.next(ANSWER_WITHIN) {
                Ok(Some(Answer::Error(failure))) => return Err(failure.into()),
                Ok(Some(answer)) => return Ok(Some(answer)),
                Ok(None) if request.is_question() && Instant::now() < until => std::thread::sleep(LOOK_EVERY),
                Ok(None) | Err(None) => return Err(silent()),
                Err(Some(error)) => return Err(error),
            }
        }
    }
}

/// Connects to the client's socket; `WouldBlock` if the kernel's queue of unserved connections stays full.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(LOOK_EVERY))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// Returns whether a connection error means that no client runs, or that it has just ended.
fn has_no_client(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::NotFound | K::ConnectionRefused | K::BrokenPipe | K::ConnectionReset)
}

fn silent() -> Error {
    Error::new(Code::Unreachable, "the client does not answer").next("look at its log, or start it again")
}
