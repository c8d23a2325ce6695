//! Answers with content: status and header fields of RFC 9110, and bodies streamed from disk in bounded memory.
//!
//! [`plan`] decides the answer from the request alone; [`body`] streams it.

use super::conditional::{Validators, Verdict, evaluate, time};
use super::keeper::{Keeper, Refused};
use super::pace::Pacer;
use super::range::{Selection, content_range, select};
use super::stored::Stored;
use bytes::Bytes;
use data_encoding::BASE64;
use futures_lite::future::yield_now;
use headers::{HeaderMapExt as _, LastModified};
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, RANGE};
use hyper::{HeaderMap, Response, StatusCode};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use swarmedge_core::content::verdicts::FileIdentity;
use swarmedge_core::ids::{Digest, PieceIndex, VersionId};
use swarmedge_ground::files::read_cached;
use swarmedge_ground::http::{Body, Problem};
use swarmedge_ground::rt::Rt;

/// Maximum number of bytes of one read. A client that takes nothing occupies this much memory besides the buffers of
/// its connection; the operating system reads ahead.
const READ_LEN: usize = 64 * 1024;
/// Maximum number of bytes of one read while more than [`BODIES_WITH_LONG_READS`] bodies are sent: one TLS record, so
/// that many slow clients occupy little memory.
const SHORT_READ_LEN: usize = 16 * 1024;
/// Maximum number of bodies at once for which reads are long, which costs less CPU.
const BODIES_WITH_LONG_READS: usize = 16;
/// Maximum number of attempts to read a step while the file is being written.
const TRIES_MAX: u32 = 4;
/// Number of consecutive steps without waiting for the disk after which other connections have their turn.
const STEPS_IN_A_ROW: u32 = 16;

/// The version to send, with its HTTP metadata.
#[derive(Clone, Debug)]
pub struct Representation {
    /// The version, also the strong entity tag.
    pub version: VersionId,
    /// Size of the version, bytes.
    pub size: u64,
    /// SHA-256 of the whole content.
    pub sha256: Digest,
    /// Publication time, Unix milliseconds.
    pub published_ms: u64,
    /// Media type for `Content-Type`.
    pub media_type: &'static str,
    /// Further header fields of every 200, 206 and 304.
    pub fields: Vec<(HeaderName, String)>,
}

/// Observer of the bytes of an answer, before and after they are sent.
pub trait Meter: 'static {
    /// Announces the next `bytes`; they wait until the returned future ends, and its error ends the answer.
    fn next(&mut self, bytes: u64) -> Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>;
    /// Reports bytes of the representation that were handed to the connection.
    fn sent(&mut self, range: Range<u64>);
}

/// Context of a body that is being sent, besides the file.
pub struct Sending<R> {
    /// Runtime for disk reads and timers.
    pub rt: R,
    /// Rate limiters, all of which hold for the answer.
    pub pacers: Vec<Rc<RefCell<Pacer>>>,
    /// Counter of the sent bytes.
    pub meter: Box<dyn Meter>,
    /// Token whose clones count the bodies that are being sent: each body has one, and the server.
    pub bodies: Rc<()>,
    /// Keeper of the stored content, which checks each piece before it is sent.
    pub keeper: Keeper<R>,
    /// Called with the reason if a part of the file cannot be sent.
    pub on_refused: Box<dyn Fn(&Refused)>,
}

impl Representation {
    fn validators(&self) -> Validators {
        Validators { etag: format!("\"{}\"", self.version), modified_s: self.published_ms / 1000 }
    }

    fn head(&self, status: StatusCode, len: u64) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        let v = self.validators();
        set(&mut response, ETAG, &v.etag);
        response.headers_mut().typed_insert(LastModified::from(time(v.modified_s)));
        set(&mut response, ACCEPT_RANGES, "bytes");
        for (name, value) in &self.fields {
            set(&mut response, name.clone(), value);
        }
        if status != StatusCode::NOT_MODIFIED {
            set(&mut response, CONTENT_LENGTH, &len.to_string());
            set(&mut response, CONTENT_TYPE, self.media_type);
            let digest = format!("sha-256=:{}:", BASE64.encode(&self.sha256.0));
            set(&mut response, HeaderName::from_static("repr-digest"), &digest);
        }
        response
    }
}

/// Sets a header field; does nothing if the value is not a valid field value.
pub(crate) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The planned answer to a GET or HEAD.
#[derive(Debug)]
pub enum Plan {
    /// Answer without content: 304, 412, 416, or any HEAD.
    Done(Response<Body>),
    /// Answer whose body is made of these parts.
    Send(Response<Body>, VecDeque<Part>),
}

/// A part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text of `multipart/byteranges`: the head of a part, or the end.
    Text(Bytes),
    /// A byte range of the file.
    Content(Range<u64>),
}

/// Decides how a GET or HEAD is answered. `boundary` separates several ranges and must be unpredictable.
#[must_use]
pub fn plan(repr: &Representation, head_only: bool, fields: &HeaderMap, now_s: u64, boundary: &str) -> Plan {
    let selection = match evaluate(fields, &repr.validators(), now_s) {
        Verdict::NotModified => return Plan::Done(repr.head(StatusCode::NOT_MODIFIED, 0)),
        Verdict::Failed => {
            let problem = Problem::new(StatusCode::PRECONDITION_FAILED, "changed", "another version is current");
            let mut response = problem.response();
            set(&mut response, ETAG, &repr.validators().etag);
            return Plan::Done(response);
        }
        // RFC 9110 §14.2: `Range` is defined for GET only
        Verdict::Answer { range } if range && !head_only => selected_ranges(fields, repr.size),
        Verdict::Answer { .. } => Selection::Whole,
    };
    let (response, parts) = match selection {
        Selection::Whole => (repr.head(StatusCode::OK, repr.size), VecDeque::from([Part::Content(0..repr.size)])),
        Selection::Unsatisfiable => return Plan::Done(unsatisfiable(repr)),
        Selection::Parts(parts) => match parts.as_slice() {
            [only] => {
                let mut response = repr.head(StatusCode::PARTIAL_CONTENT, only.end - only.start);
                set(&mut response, CONTENT_RANGE, &content_range(only, repr.size));
                (response, VecDeque::from([Part::Content(only.clone())]))
            }
            many => multipart(repr, many, boundary),
        },
    };
    if head_only { Plan::Done(response) } else { Plan::Send(response, parts) }
}

fn selected_ranges(fields: &HeaderMap, size: u64) -> Selection {
    let mut all = fields.get_all(RANGE).iter();
    match (all.next().map(HeaderValue::to_str), all.next()) {
        (Some(Ok(value)), None) => select(value, size),
        _ => Selection::Whole,
    }
}

fn unsatisfiable(repr: &Representation) -> Response<Body> {
    let detail = format!("the representation has {} bytes", repr.size);
    let mut response = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range-not-satisfiable", detail).response();
    set(&mut response, CONTENT_RANGE, &format!("bytes */{}", repr.size));
    set(&mut response, ETAG, &repr.validators().etag);
    response
}

fn multipart(repr: &Representation, ranges: &[Range<u64>], boundary: &str) -> (Response<Body>, VecDeque<Part>) {
    let mut parts = VecDeque::new();
    let mut len = 0;
    for range in ranges {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
            repr.media_type,
            content_range(range, repr.size)
        );
        len += head.len() as u64 + (range.end - range.start);
        parts.push_back(Part::Text(head.into()));
        parts.push_back(Part::Content(range.clone()));
    }
    let end = format!("\r\n--{boundary}--\r\n");
    len += end.len() as u64;
    parts.push_back(Part::Text(end.into()));
    let mut response = repr.head(StatusCode::PARTIAL_CONTENT, len);
    set(&mut response, CONTENT_TYPE, &format!("multipart/byteranges; boundary={boundary}"));
    (response, parts)
}

/// Makes a body of `parts`, streamed from stored content. A piece is sent only after its hash was right; the body
/// breaks off before a wrong piece.
#[must_use]
pub fn body<R: Rt>(stored: Stored, parts: VecDeque<Part>, sending: Sending<R>) -> Body {
    let len = parts.iter().map(|p| match p {
        Part::Text(text) => text.len() as u64,
        Part::Content(range) => range.end - range.start,
    });
    let step = sending.pacers.iter().map(|p| p.borrow().step(READ_LEN)).min().unwrap_or(READ_LEN);
    let len = len.sum();
    let reader = Reader { sending, parts, stored, checked: None, step, ready: 0 };
    Body::stream(
        len,
        futures_lite::stream::unfold(reader, |mut reader| async move {
            let item = reader.next().await?;
            Some((item, reader))
        }),
    )
}

/// Reads the parts in order, one step at a time, so that a client that takes nothing occupies the memory of one step.
struct Reader<R> {
    sending: Sending<R>,
    parts: VecDeque<Part>,
    stored: Stored,
    /// The piece whose hash was last found right, and the state of the file then.
    checked: Option<(PieceIndex, FileIdentity)>,
    step: usize,
    /// Steps in a row that did not wait for the disk.
    ready: u32,
}

impl<R: Rt> Reader<R> {
    /// Returns the bytes to read next.
    fn step(&self) -> usize {
        // the server has a clone, too
        if Rc::strong_count(&self.sending.bodies) > BODIES_WITH_LONG_READS + 1 {
            self.step.min(SHORT_READ_LEN)
        } else {
            self.step
        }
    }

    /// Returns the next bytes of the body: text of the multipart frame, or content of the file.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            match self.parts.pop_front()? {
                Part::Text(text) => return Some(Ok(text)),
                Part::Content(range) if range.is_empty() => {}
                Part::Content(range) => return Some(self.content(range).await),
            }
        }
    }

    async fn content(&mut self, range: Range<u64>) -> io::Result<Bytes> {
        let piece = self.stored.piece_of(range.start);
        let piece_end = self.stored.manifest.layout().piece_range(piece).end;
        let this = range.start..range.end.min(range.start + self.step() as u64).min(piece_end);
        let bytes = self.read_right(piece, &this, range.end).await.map_err(|why| {
            (self.sending.on_refused)(&why);
            io::Error::other(format!("{why:?}"))
        })?;
        if this.end < range.end {
            self.parts.push_front(Part::Content(this.end..range.end));
        }
        if let Some(reserved) = self.sending.meter.next(this.end - this.start) {
            reserved.await?;
        }
        self.wait_for_turn(this.end - this.start).await;
        self.sending.meter.sent(this);
        Ok(bytes.into())
    }

    /// Reads a range within a piece whose hash is right. `end` is the end of the bytes that the client wants.
    async fn read_right(&mut self, piece: PieceIndex, range: &Range<u64>, end: u64) -> Result<Vec<u8>, Refused> {
        for _ in 0..TRIES_MAX {
            let state = match self.checked {
                Some((checked, state)) if checked == piece => state,
                _ => {
                    let state = self.sending.keeper.admit(&self.stored, piece).await?;
                    self.sending.keeper.look_ahead(&self.stored, piece, end);
                    self.checked = Some((piece, state));
                    state
                }
            };
            let bytes = self.read(range).await;
            // a write after the piece was found right changes the state of the file before its bytes
            if self.stored.identity().is_ok_and(|now| now == state) {
                return bytes.map_err(Refused::Busy);
            }
            self.checked = None;
        }
        Err(Refused::Busy(io::Error::other("somebody writes to the file")))
    }

    /// Reads a range: from the system's memory at once, from the disk on the blocking pool.
    async fn read(&mut self, range: &Range<u64>) -> io::Result<Vec<u8>> {
        if let Some(bytes) = read_cached(&self.stored.file, range) {
            self.ready += 1;
            if self.ready.is_multiple_of(STEPS_IN_A_ROW) {
                // a client on a fast network must not hold up the others of this thread
                yield_now().await;
            }
            return Ok(bytes);
        }
        let (file, range) = (Arc::clone(&self.stored.file), range.clone());
        self.sending.rt.blocking(move || read(&file, &range)).await
    }

    async fn wait_for_turn(&self, bytes: u64) {
        let rt = &self.sending.rt;
        for pacer in &self.sending.pacers {
            if pacer.borrow().is_limited() {
                let now = rt.now();
                let at = pacer.borrow_mut().reserve(now, bytes);
                if at > now {
                    rt.sleep_until(at).await;
                }
            }
        }
    }
}

fn read(file: &File, range: &Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(READ_LEN)];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

/// Returns the media type for a path's extension.
#[must_use]
pub fn media_type(path: &str) -> &'static str {
    let extension = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, e)| e);
    match extension.to_ascii_lowercase().as_str() {
        "txt" | "md" | "log" => "text/plain; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "xz" => "application/x-xz",
        "zst" => "application/zstd",
        "tar" => "application/x-tar",
        "iso" => "application/x-iso9660-image",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "mp4" => "video/mp4",
        "mkv" => "video/x-matroska",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        _ => "application/octet-stream",
    }
}

/// Returns a `Content-Disposition` that saves under the path's last segment (RFC 6266, RFC 8187).
#[must_use]
pub fn attachment(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ' | '+');
    if name.chars().all(plain) {
        return format!("attachment; filename=\"{name}\"");
    }
    let ascii: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}
