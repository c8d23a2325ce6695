//! Content by ranges: fetches of adjacent blocks become one request, a few requests an edge run at a time.

use super::ask::{failure, refusal};
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
use swarmedge_ground::edge_api::{GRANT, grant_text};
use swarmedge_ground::http::client::Answer;
use swarmedge_ground::http::{Body, Origin};
use swarmedge_ground::mailbox::{Permit, Sender};
use swarmedge_ground::rt::Rt;

/// Requests to one edge at a time.
const LANES_MAX: usize = 3;
/// Bytes of one request, unless a single fetch is longer.
const REQUEST_LEN_MAX: u64 = 16 << 20;
/// Progress is reported once in so many bytes, or once in so much time.
const PROGRESS_BYTES: u64 = 1 << 20;
/// See [`PROGRESS_BYTES`].
const PROGRESS_TIME: Duration = Duration::from_millis(100);

/// One fetch.
pub(super) struct Job {
    pub(super) xfer: XferId,
    pub(super) version: VersionId,
    pub(super) grant: SealedGrant,
    pub(super) piece: PieceIndex,
    pub(super) blocks: Range<u32>,
    /// Of the version.
    pub(super) bytes: Range<u64>,
    pub(super) permit: Permit<Input>,
}

impl Job {
    fn end(self, end: FetchEnd) {
        self.permit.send(Input::FetchEnded { xfer: self.xfer, end });
    }
}

/// What waits for one edge, and how many requests to it run.
#[derive(Default)]
pub(super) struct Lane {
    queue: VecDeque<Job>,
    running: usize,
}

/// Says once and for all that a fetch is to stop.
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
    let mut lanes = edges.0.lanes.borrow_mut();
    let lane = lanes.entry(origin.clone()).or_default();
    lane.queue.push_back(job);
    if lane.running == LANES_MAX {
        return;
    }
    lane.running += 1;
    let (edges, rt) = (edges.clone(), edges.0.rt.clone());
    // begins after the machine has said all that it wants now, so that neighbours meet
    rt.spawn(async move {
        while let Some(jobs) = next_run(&edges, &origin) {
            run(&edges, &origin, jobs).await;
        }
    });
}

pub(super) fn cancel<R: Rt>(edges: &EdgeClient<R>, xfer: XferId) {
    if let Some(cancel) = edges.0.fetches.borrow().get(&xfer) {
        cancel.cancel();
    }
}

/// The oldest job and those behind it that begin where it ends; `None` when nothing waits: then the lane is left.
fn next_run<R: Rt>(edges: &EdgeClient<R>, origin: &Origin) -> Option<VecDeque<Job>> {
    let mut lanes = edges.0.lanes.borrow_mut();
    let lane = lanes.get_mut(origin)?;
    loop {
        let Some(first) = lane.queue.pop_front() else {
            lane.running -= 1;
            return None;
        };
        if forget_if_cancelled(edges, first.xfer) {
            first.end(FetchEnd::Cancelled);
            continue;
        }
        let (version, start, mut end) = (first.version, first.bytes.start, first.bytes.end);
        let mut jobs = VecDeque::from([first]);
        while let Some(next) = lane.queue.front() {
            let fits = next.version == version && next.bytes.start == end && next.bytes.end - start <= REQUEST_LEN_MAX;
            if !fits || is_cancelled(edges, next.xfer) {
                break;
            }
            end = next.bytes.end;
            jobs.extend(lane.queue.pop_front());
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

/// One request for all jobs. Each ends once; those that could not be served end as the request did.
async fn run<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, mut jobs: VecDeque<Job>) {
    let opened = {
        let all = jobs.iter().map(|job| cancel_of(edges, job.xfer)).collect::<Vec<_>>();
        or(open(edges, origin, &jobs), async {
            for cancel in &all {
                cancel.cancelled().await;
            }
            Err(FetchEnd::Cancelled)
        })
        .await
    };
    let mut body = match opened {
        Ok(answer) => Content { answer, rest: Bytes::new() },
        Err(end) => {
            for job in jobs {
                let cancelled = is_cancelled(edges, job.xfer);
                finish(edges, origin, job, if cancelled { FetchEnd::Cancelled } else { end });
            }
            return;
        }
    };
    // a job's last bytes are hashed and written while the next one's come in
    let mut settling: Option<(Job, Sink<R>)> = None;
    while let Some(job) = jobs.pop_front() {
        let cancel = cancel_of(edges, job.xfer);
        let received = or(receive(edges, origin, &job, &mut body), async {
            cancel.cancelled().await;
            Err(FetchEnd::Cancelled)
        });
        match zip(settle(edges, origin, settling.take()), received).await.1 {
            Ok(sink) => settling = Some((job, sink)),
            Err(end) => {
                finish(edges, origin, job, end);
                // the stream stands somewhere within this job: what follows is asked for anew
                requeue(edges, origin, jobs);
                return;
            }
        }
    }
    zip(settle(edges, origin, settling), body.drain()).await;
}

/// Waits until all of a job's bytes are written, and ends it.
async fn settle<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, received: Option<(Job, Sink<R>)>) {
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

/// Jobs that were not reached go back to the head of the queue.
fn requeue<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, jobs: VecDeque<Job>) {
    let mut lanes = edges.0.lanes.borrow_mut();
    let lane = lanes.entry(origin.clone()).or_default();
    for job in jobs.into_iter().rev() {
        lane.queue.push_front(job);
    }
}

async fn open<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, jobs: &VecDeque<Job>) -> Result<Answer<R>, FetchEnd> {
    let (Some(first), Some(last)) = (jobs.front(), jobs.back()) else { return Err(FetchEnd::Broken) };
    let (start, end) = (first.bytes.start, last.bytes.end);
    let path = format!("/v1/content/{}", first.version);
    // the newest grant lasts longest
    let grant = grant_text(&last.grant);
    let range = format!("bytes={start}-{}", end.saturating_sub(1));
    let request = || {
        let request = Request::get(&path).header(GRANT, &grant).header(RANGE, &range);
        request.body(Body::empty()).expect("hexadecimal, base64 and numbers")
    };
    let sent = edges.0.http.send(origin, request).await;
    let answer = sent.map_err(|e| FetchEnd::EdgeRefused(failure(edges, origin, &e)))?;
    match answer.head.status {
        StatusCode::PARTIAL_CONTENT => {
            let field = answer.head.headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let expected = format!("bytes {start}-{}/", end.saturating_sub(1));
            if field.starts_with(&expected) { Ok(answer) } else { Err(FetchEnd::EdgeRefused(EdgeError::Invalid)) }
        }
        status if status.is_success() => Err(FetchEnd::EdgeRefused(EdgeError::Invalid)),
        status => {
            tracing::info!(edge = %origin.authority(), %status, "content refused");
            Err(FetchEnd::EdgeRefused(refusal(status)))
        }
    }
}

/// The body of an answer, cut where jobs end.
struct Content<R> {
    answer: Answer<R>,
    rest: Bytes,
}

impl<R: Rt> Content<R> {
    /// The next bytes, at most `max`.
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

    /// Reads the end of the body, so that the connection is kept.
    async fn drain(mut self) {
        if self.rest.is_empty() {
            drop(self.answer.chunk().await);
        }
    }
}

/// All of a job's bytes, of which the last may not be written yet.
async fn receive<R: Rt>(
    edges: &EdgeClient<R>,
    origin: &Origin,
    job: &Job,
    body: &mut Content<R>,
) -> Result<Sink<R>, FetchEnd> {
    let rt = &edges.0.rt;
    let mut sink = Sink::new(rt.clone(), &edges.0.store, job.version, job.piece, job.blocks.clone(), None)?;
    let mut progress = Progress { xfer: job.xfer, told: 0, at: rt.now() };
    while sink.remaining() > 0 {
        match body.next(sink.remaining()).await {
            Some(Ok(bytes)) => sink.push(bytes).await?,
            Some(Err(error)) => {
                tracing::info!(edge = %origin.authority(), %error, "content broke off");
                return Err(FetchEnd::Broken);
            }
            None => return Err(FetchEnd::Broken),
        }
        progress.report(&edges.0.inbox, sink.verified(), rt.now()).await;
    }
    Ok(sink)
}

/// See [`PROGRESS_BYTES`].
struct Progress {
    xfer: XferId,
    told: u64,
    at: Instant,
}

impl Progress {
    async fn report(&mut self, inbox: &Sender<Input>, verified: u64, now: Instant) {
        let due = verified >= self.told + PROGRESS_BYTES || now >= self.at + PROGRESS_TIME;
        if verified > self.told && due {
            (self.told, self.at) = (verified, now);
            // without a machine there is nobody to tell
            let _ = inbox.send(Input::Progress { xfer: self.xfer, verified }).await;
        }
    }
}
