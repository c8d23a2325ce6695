//! Requests for content: transfers of adjacent blocks are merged into one HTTP range request, and at most
//! [`REQUESTS_MAX`] requests run on an edge at a time.

use super::request::{JSON_LEN_MAX, failure, refusal};
use super::{EdgeClient, News, Trouble};
use crate::store::Sink;
use bytes::Bytes;
use futures_lite::future::{or, poll_fn, zip};
use hyper::header::{CONTENT_RANGE, RANGE};
use hyper::{Request, StatusCode};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use swarmedge_core::ids::{PieceIndex, VersionId, XferId};
use swarmedge_core::role::client::io::{EdgeError, FetchEnd, Input};
use swarmedge_core::wire::records::SealedGrant;
use swarmedge_ground::edge_api::{CONTENT_DAMAGED, GRANT, grant_text};
use swarmedge_ground::http::client::Answer;
use swarmedge_ground::http::{Body, Origin, Problem};
use swarmedge_ground::mailbox::{Permit, Sender};
use swarmedge_ground::rt::Rt;

/// Maximum number of requests that run on one edge at a time.
const REQUESTS_MAX: usize = 3;
/// Maximum length of one range request in bytes, unless a single transfer is longer.
const REQUEST_LEN_MAX: u64 = 16 << 20;
/// Number of bytes after which a transfer's progress is reported, unless [`PROGRESS_TIME`] passes first.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Time after which a transfer's progress is reported.
const PROGRESS_TIME: Duration = Duration::from_millis(100);

/// A transfer of blocks of one piece from an edge, queued or running.
pub(super) struct Job {
    pub(super) xfer: XferId,
    pub(super) version: VersionId,
    pub(super) grant: SealedGrant,
    pub(super) piece: PieceIndex,
    pub(super) blocks: Range<u32>,
    /// The blocks' byte range within the version.
    pub(super) bytes: Range<u64>,
    pub(super) permit: Permit<Input>,
    pub(super) turn: Turn,
}

/// Order and grouping of a transfer's request. An edge refuses a request if one of its pieces is damaged there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Grouped with transfers of adjacent blocks.
    Together,
    /// In a request of its own, since the grouped request contained a damaged piece.
    Alone,
    /// After all other transfers, since the edge refused it in a request of its own.
    Last,
}

impl Job {
    fn end(self, end: FetchEnd) {
        self.permit.send(Input::FetchEnded { xfer: self.xfer, end });
    }
}

/// Queued transfers of one edge, and the number of range requests that run on it.
#[derive(Default)]
pub(super) struct EdgeQueue {
    queue: VecDeque<Job>,
    running: usize,
}

/// Cancellation flag of a transfer; setting the flag wakes the transfer's task.
#[derive(Clone, Default)]
pub(super) struct Cancel(Rc<(Cell<bool>, RefCell<Option<Waker>>)>);

impl Cancel {
    fn cancel(&self) {
        self.0.0.set(true);
        if let Some(waker) = self.0.1.take() {
            waker.wake();
        }
    }

    fn is_cancelled(&self) -> bool {
        self.0.0.get()
    }

    async fn cancelled(&self) {
        poll_fn(|cx| {
            if self.is_cancelled() {
                return Poll::Ready(());
            }
            self.0.1.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

pub(super) fn fetch<R: Rt>(edges: &EdgeClient<R>, origin: Origin, job: Job) {
    edges.0.fetches.borrow_mut().insert(job.xfer, Cancel::default());
    let mut queues = edges.0.queues.borrow_mut();
    let edge_queue = queues.entry(origin.clone()).or_default();
    edge_queue.queue.push_back(job);
    if edge_queue.running == REQUESTS_MAX {
        return;
    }
    edge_queue.running += 1;
    let (edges, rt) = (edges.clone(), edges.0.rt.clone());
    // the task starts after the machine has pushed all its outputs, so that adjacent transfers can be merged
    rt.spawn(async move {
        while let Some(jobs) = next_jobs(&edges, &origin) {
            run_request(&edges, &origin, jobs).await;
        }
    });
}

pub(super) fn cancel<R: Rt>(edges: &EdgeClient<R>, xfer: XferId) {
    if let Some(cancel) = edges.0.fetches.borrow().get(&xfer) {
        cancel.cancel();
    }
}

/// Takes the oldest job and the queued jobs for the blocks that follow it. `None` if the queue is empty: then the
/// caller's task ends.
fn next_jobs<R: Rt>(edges: &EdgeClient<R>, origin: &Origin) -> Option<VecDeque<Job>> {
    let mut queues = edges.0.queues.borrow_mut();
    let edge_queue = queues.get_mut(origin)?;
    loop {
        let Some(first) = edge_queue.queue.pop_front() else {
            edge_queue.running -= 1;
            return None;
        };
        if forget_if_cancelled(edges, first.xfer) {
            first.end(FetchEnd::Cancelled);
            continue;
        }
        let (version, turn, start, mut end) = (first.version, first.turn, first.bytes.start, first.bytes.end);
        let mut jobs = VecDeque::from([first]);
        while let Some(next) = edge_queue.queue.front() {
            let fits = next.version == version && next.bytes.start == end && next.bytes.end - start <= REQUEST_LEN_MAX;
            let fits = fits && [turn, next.turn] == [Turn::Together; 2];
            if !fits || is_cancelled(edges, next.xfer) {
                break;
            }
            end = next.bytes.end;
            jobs.extend(edge_queue.queue.pop_front());
        }
        return Some(jobs);
    }
}

fn is_cancelled<R: Rt>(edges: &EdgeClient<R>, xfer: XferId) -> bool {
    edges.0.fetches.borrow().get(&xfer).is_some_and(Cancel::is_cancelled)
}

fn forget_if_cancelled<R: Rt>(edges: &EdgeClient<R>, xfer: XferId) -> bool {
    let cancelled = is_cancelled(edges, xfer);
    if cancelled {
        edges.0.fetches.borrow_mut().remove(&xfer);
    }
    cancelled
}

/// Runs one range request for adjacent jobs. Each job ends exactly once, or is put back into the queue.
async fn run_request<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, mut jobs: VecDeque<Job>) {
    let opened = {
        let all = jobs.iter().map(|job| cancel_of(edges, job.xfer)).collect::<Vec<_>>();
        or(open(edges, origin, &jobs), async {
            for cancel in &all {
                cancel.cancelled().await;
            }
            Err(Refusal::of(FetchEnd::Cancelled))
        })
        .await
    };
    let mut body = match opened {
        Ok(answer) => Content { answer, rest: Bytes::new() },
        Err(Refusal { damaged: true, .. }) if jobs.iter().all(|job| job.turn != Turn::Last) => {
            // a failure of one transfer ends the edge's other transfers, so the undamaged pieces are fetched first
            return ask_singly(edges, origin, jobs);
        }
        Err(Refusal { end, .. }) => {
            for job in jobs {
                let cancelled = is_cancelled(edges, job.xfer);
                finish(edges, origin, job, if cancelled { FetchEnd::Cancelled } else { end });
            }
            return;
        }
    };
    // a job's last bytes are hashed and written while the next job's bytes arrive
    let mut finishing: Option<(Job, Sink<R>)> = None;
    while let Some(job) = jobs.pop_front() {
        let cancel = cancel_of(edges, job.xfer);
        let received = or(receive(edges, origin, &job, &mut body), async {
            cancel.cancelled().await;
            Err(FetchEnd::Cancelled)
        });
        match zip(finish_sink(edges, origin, finishing.take()), received).await.1 {
            Ok(sink) => finishing = Some((job, sink)),
            Err(end) => {
                finish(edges, origin, job, end);
                // the stream stopped within this job: request the following jobs anew
                requeue(edges, origin, jobs);
                return;
            }
        }
    }
    zip(finish_sink(edges, origin, finishing), body.drain()).await;
}

/// Waits until all bytes of a job are written, then ends the job.
async fn finish_sink<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, received: Option<(Job, Sink<R>)>) {
    if let Some((job, sink)) = received {
        let end = sink.finish().await;
        finish(edges, origin, job, end);
    }
}

fn finish<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, job: Job, end: FetchEnd) {
    if let FetchEnd::BadBlock { block } = end {
        tracing::warn!(edge = %origin.authority(), version = %job.version, piece = %job.piece, block, "wrong bytes");
        edges.tell(News::Trouble(Trouble::wrong_bytes(origin, job.piece)));
    }
    edges.0.fetches.borrow_mut().remove(&job.xfer);
    job.end(end);
}

fn cancel_of<R: Rt>(edges: &EdgeClient<R>, xfer: XferId) -> Cancel {
    edges.0.fetches.borrow().get(&xfer).cloned().unwrap_or_default()
}

/// Puts jobs whose bytes had not begun to arrive back to the head of the queue.
fn requeue<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, jobs: VecDeque<Job>) {
    let mut queues = edges.0.queues.borrow_mut();
    let edge_queue = queues.entry(origin.clone()).or_default();
    for job in jobs.into_iter().rev() {
        edge_queue.queue.push_front(job);
    }
}

/// Queues jobs of a request that was refused for a damaged piece: several each by itself, a single one as the last.
fn ask_singly<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, mut jobs: VecDeque<Job>) {
    if jobs.len() > 1 {
        jobs.iter_mut().for_each(|job| job.turn = Turn::Alone);
        return requeue(edges, origin, jobs);
    }
    jobs.iter_mut().for_each(|job| job.turn = Turn::Last);
    edges.0.queues.borrow_mut().entry(origin.clone()).or_default().queue.extend(jobs);
}

/// Reason that a range request was not answered with content.
struct Refusal {
    end: FetchEnd,
    /// Whether a piece of the range is damaged at the edge.
    damaged: bool,
}

impl Refusal {
    const fn of(end: FetchEnd) -> Self {
        Self { end, damaged: false }
    }
}

async fn open<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, jobs: &VecDeque<Job>) -> Result<Answer<R>, Refusal> {
    let (Some(first), Some(last)) = (jobs.front(), jobs.back()) else { return Err(Refusal::of(FetchEnd::Broken)) };
    let (start, end) = (first.bytes.start, last.bytes.end);
    let path = format!("/v1/content/{}", first.version);
    // the last job has the newest grant, which expires last
    let grant = grant_text(&last.grant);
    let range = format!("bytes={start}-{}", end.saturating_sub(1));
    let request = || {
        let request = Request::get(&path).header(GRANT, &grant).header(RANGE, &range);
        request.body(Body::empty()).expect("hexadecimal, base64 and numbers")
    };
    let sent = edges.0.http.send(origin, request).await;
    let refused = |why| Refusal::of(FetchEnd::EdgeRefused(why));
    let answer = sent.map_err(|e| refused(failure(edges, origin, &e)))?;
    match answer.head.status {
        StatusCode::PARTIAL_CONTENT => {
            let field = answer.head.headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let expected = format!("bytes {start}-{}/", end.saturating_sub(1));
            if field.starts_with(&expected) { Ok(answer) } else { Err(refused(EdgeError::Invalid)) }
        }
        status if status.is_success() => Err(refused(EdgeError::Invalid)),
        status => {
            let why = refusal(status);
            let body = answer.collect(JSON_LEN_MAX).await.unwrap_or_default();
            let name = serde_json::from_slice::<Problem>(&body).map_or_else(|_| String::new(), |p| p.name().to_owned());
            tracing::info!(edge = %origin.authority(), %status, name, "content refused");
            if why == EdgeError::Unavailable {
                edges.tell(News::Trouble(Trouble::status(origin, status, &body)));
            }
            Err(Refusal { damaged: name == CONTENT_DAMAGED, ..refused(why) })
        }
    }
}

/// The body of a range request's answer, of which each job takes its part.
struct Content<R> {
    answer: Answer<R>,
    rest: Bytes,
}

impl<R: Rt> Content<R> {
    /// Returns the next bytes of the body, at most `max`; `None` at its end.
    async fn next(&mut self, max: u64) -> Option<Result<Bytes, swarmedge_ground::http::client::Error>> {
        if self.rest.is_empty() {
            match self.answer.chunk().await? {
                Ok(chunk) => self.rest = chunk,
                Err(e) => return Some(Err(e)),
            }
        }
        let n = usize::try_from(max).unwrap_or(usize::MAX).min(self.rest.len());
        Some(Ok(self.rest.split_to(n)))
    }

    /// Reads up to the end of the body, so that the HTTP connection can be reused.
    async fn drain(mut self) {
        if self.rest.is_empty() {
            drop(self.answer.chunk().await);
        }
    }
}

/// Receives all bytes of a job. When it returns, the last ones may not be written to the disk yet.
async fn receive<R: Rt>(
    edges: &EdgeClient<R>,
    origin: &Origin,
    job: &Job,
    body: &mut Content<R>,
) -> Result<Sink<R>, FetchEnd> {
    let rt = &edges.0.rt;
    let mut sink = Sink::new(rt.clone(), &edges.0.store, job.version, (job.piece, job.blocks.clone()), None)?;
    let mut progress = Progress { xfer: job.xfer, reported: 0, at: rt.now() };
    while sink.remaining() > 0 {
        match body.next(sink.remaining()).await {
            Some(Ok(bytes)) => sink.push(bytes).await?,
            Some(Err(error)) => {
                tracing::info!(edge = %origin.authority(), %error, "the content ended early");
                return Err(FetchEnd::Broken);
            }
            None => return Err(FetchEnd::Broken),
        }
        progress.report(&edges.0.inbox, sink.verified(), rt.now()).await;
    }
    Ok(sink)
}

/// Reports a transfer's progress to the machine at intervals.
struct Progress {
    xfer: XferId,
    reported: u64,
    at: Instant,
}

impl Progress {
    async fn report(&mut self, inbox: &Sender<Input>, verified: u64, now: Instant) {
        let due = verified >= self.reported + PROGRESS_BYTES || now >= self.at + PROGRESS_TIME;
        if verified > self.reported && due {
            (self.reported, self.at) = (verified, now);
            // the machine may have ended
            let _ = inbox.send(Input::Progress { xfer: self.xfer, verified }).await;
        }
    }
}
