//! Sending blocks to a peer.

use super::conn::Conn;
use super::link::SendStream;
use super::util::Cancel;
use super::watch::Busy;
use super::{Peers, RefuseSlot};
use crate::store::JOB_LEN;
use bytes::Bytes;
use futures_lite::future;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};
use swarmedge_core::ids::{ConnId, PieceIndex, VersionId, XferId};
use swarmedge_core::limits::BLOCK_LEN;
use swarmedge_core::role::client::io::{Input, StoreError};
use swarmedge_core::wire::List;
use swarmedge_core::wire::frame;
use swarmedge_core::wire::peer::{PieceAnswer, RefuseCode};
use swarmedge_ground::mailbox::Permit;
use swarmedge_ground::rt::Rt;

/// Number of blocks read from the store at a time: as many as it writes at a time.
const READ_BLOCKS: u32 = 16;

const _: () = assert!(READ_BLOCKS as usize * BLOCK_LEN as usize == JOB_LEN);

/// A transfer with a rate limit sends in portions: the bytes that its rate allows in this time.
const RATE_STEP: Duration = Duration::from_millis(250);

/// A peer's request that the machine has neither granted nor refused yet.
pub(super) struct Request {
    pub(super) conn: ConnId,
    pub(super) slots: Rc<Conn>,
    pub(super) send: SendStream,
}

impl Request {
    pub(super) fn refuse(mut self, why: RefuseCode) {
        self.send.reset(why as u8);
    }
}

pub(super) struct What {
    pub(super) version: VersionId,
    pub(super) piece: PieceIndex,
    pub(super) blocks: Range<u32>,
    pub(super) leaves: bool,
    /// Limit in bytes a second over all transfers of the version, as the newest one of them says; 0: no limit.
    pub(super) rate_max: Rc<Cell<u64>>,
}

/// The time when the next bytes of a version may be sent, over all transfers of this version.
#[derive(Clone, Copy)]
pub(super) struct Rate {
    next: Instant,
}

pub(super) fn start<R: Rt>(peers: &Peers<R>, xfer: XferId, request: Request, what: What, permit: Permit<Input>) {
    let cancel = Cancel::default();
    let why = RefuseSlot::new(RefCell::new(RefuseCode::Failed));
    peers.0.state.borrow_mut().serves.insert(xfer, (cancel.clone(), Rc::clone(&why)));
    let peers = peers.clone();
    let rt = peers.0.rt.clone();
    rt.spawn(async move {
        let Request { slots: conn, mut send, .. } = request;
        let _busy = Busy::on(&conn);
        let mut sent = 0;
        let work = serve(&peers, &conn, &mut send, &what, &mut sent);
        let cancelled = async {
            cancel.cancelled().await;
            Err(*why.borrow())
        };
        if let Err(code) = future::or(cancelled, work).await {
            send.reset(code as u8);
        }
        peers.0.state.borrow_mut().serves.remove(&xfer);
        permit.send(Input::ServeEnded { xfer, bytes: sent });
    });
}

type Read = Pin<Box<dyn Future<Output = Result<Bytes, StoreError>>>>;

/// Starts reading the blocks from `at` on; `None` after the last. Polls once, since some thread pools begin only
/// then.
async fn read_ahead<R: Rt>(peers: &Peers<R>, what: &What, at: u32) -> Option<Read> {
    let blocks = at..what.blocks.end.min(at.saturating_add(READ_BLOCKS));
    if blocks.is_empty() {
        return None;
    }
    let (store, version, piece) = (peers.0.store.clone(), what.version, what.piece);
    let mut read: Read = Box::pin(peers.0.rt.blocking(move || store.read_blocks(version, piece, blocks)));
    match future::poll_once(&mut read).await {
        Some(done) => Some(Box::pin(async { done })),
        None => Some(read),
    }
}

/// Sends the blocks that a downloader has requested; counts them in `sent`.
async fn serve<R: Rt>(
    peers: &Peers<R>,
    conn: &Conn,
    send: &mut SendStream,
    what: &What,
    sent: &mut u64,
) -> Result<(), RefuseCode> {
    let _place = conn.serves.take().await.ok_or(RefuseCode::Failed)?;
    let mut at = what.blocks.start;
    let mut next = read_ahead(peers, what, at).await;
    let mut leaves = Vec::new();
    if what.leaves {
        let (store, version, piece) = (peers.0.store.clone(), what.version, what.piece);
        let read = peers.0.rt.blocking(move || store.leaves(version, piece)).await;
        leaves = read.map_err(|_| RefuseCode::Failed)?;
    }
    let head = PieceAnswer { leaves: List::new(leaves).map_err(|_| RefuseCode::Failed)? };
    send.write_all(&frame(&head)).await.map_err(|_| RefuseCode::Failed)?;
    while let Some(read) = next {
        let mut data = read.await.map_err(|_| RefuseCode::Failed)?;
        at = at.saturating_add(READ_BLOCKS);
        next = read_ahead(peers, what, at).await;
        while !data.is_empty() {
            let part = data.split_to(step(what.rate_max.get(), data.len()));
            pace(peers, what, part.len()).await;
            let len = part.len() as u64;
            send.write_chunk(part).await.map_err(|_| RefuseCode::Failed)?;
            *sent += len;
        }
    }
    send.finish().map_err(|_| RefuseCode::Failed)
}

/// Returns how many of `len` bytes are sent as one portion under a rate limit in bytes a second; 0 is no limit.
fn step(rate_max: u64, len: usize) -> usize {
    if rate_max == 0 {
        return len;
    }
    let allowed = u128::from(rate_max) * RATE_STEP.as_millis() / 1000;
    usize::try_from(allowed).unwrap_or(usize::MAX).max(BLOCK_LEN as usize).min(len)
}

/// Waits until `len` more bytes of the version may be sent under its rate limit.
async fn pace<R: Rt>(peers: &Peers<R>, what: &What, len: usize) {
    let rate_max = what.rate_max.get();
    if rate_max == 0 {
        return;
    }
    let now = peers.0.rt.now();
    let start = {
        let mut state = peers.0.state.borrow_mut();
        // what has been idle owes and is owed nothing
        state.rates.retain(|_, rate| rate.next > now);
        let rate = state.rates.entry(what.version).or_insert(Rate { next: now });
        let start = rate.next;
        let nanos = len as u128 * 1_000_000_000 / u128::from(rate_max);
        rate.next += Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        start
    };
    if start > now {
        peers.0.rt.sleep_until(start).await;
    }
}
