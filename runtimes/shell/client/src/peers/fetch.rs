//! Fetching blocks from a peer.

use super::Peers;
use super::conn::{Conn, NoFrame, read_frame};
use super::link::{NotRead, RecvStream};
use super::util::{Cancel, Stall};
use super::watch::Busy;
use crate::store::Sink;
use bytes::Bytes;
use futures_lite::future;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};
use swarmedge_core::ids::{Digest, PieceIndex, VersionId, XferId};
use swarmedge_core::limits::FRAME_LEN_MAX;
use swarmedge_core::role::client::io::{FetchEnd, Input, StoreError};
use swarmedge_core::wire::peer::{PieceAnswer, PieceRequest, REQUEST_STREAM, RefuseCode};
use swarmedge_core::wire::{Framed, frame};
use swarmedge_ground::mailbox::Permit;
use swarmedge_ground::rt::Rt;

/// Time without received bytes after which a transfer fails.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Number of bytes after which progress is reported, unless [`PROGRESS_TIME`] passes first.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Time after which progress is reported, unless [`PROGRESS_BYTES`] come first.
const PROGRESS_TIME: Duration = Duration::from_millis(100);
/// Maximum number of chunks taken from a stream at a time.
const CHUNKS: usize = 32;

pub(super) struct Want {
    pub(super) xfer: XferId,
    pub(super) version: VersionId,
    pub(super) piece: PieceIndex,
    pub(super) blocks: Range<u32>,
}

pub(super) fn start<R: Rt>(peers: &Peers<R>, conn: &Rc<Conn>, want: Want, permit: Permit<Input>) {
    let cancel = Cancel::default();
    peers.0.state.borrow_mut().fetches.insert(want.xfer, cancel.clone());
    let (peers, conn) = (peers.clone(), Rc::clone(conn));
    let rt = peers.0.rt.clone();
    let busy = Busy::on(&conn);
    rt.spawn(async move {
        let _busy = busy;
        let xfer = want.xfer;
        let end = future::or(
            async {
                cancel.cancelled().await;
                FetchEnd::Cancelled
            },
            fetch(&peers, &conn, want),
        )
        .await;
        peers.0.state.borrow_mut().fetches.remove(&xfer);
        permit.send(Input::FetchEnded { xfer, end });
    });
}

/// Fetches blocks, with a time-out for silence. If it ends early, dropping the stream makes the peer stop sending.
async fn fetch<R: Rt>(peers: &Peers<R>, conn: &Conn, want: Want) -> FetchEnd {
    let rt = &peers.0.rt;
    let stall = Stall::new(rt.now(), STALL_TIMEOUT);
    let stalled = async {
        stall.stalled(rt).await;
        FetchEnd::Broken
    };
    let work = async { receive(peers, conn, want, &stall).await.unwrap_or_else(|end| end) };
    future::or(work, stalled).await
}

/// Converts an error of reading to the end of the transfer.
fn broken(error: NotRead) -> FetchEnd {
    match error {
        NotRead::Reset(code) => FetchEnd::Refused(RefuseCode::from_code(code)),
        NotRead::Broken => FetchEnd::Broken,
    }
}

async fn receive<R: Rt>(peers: &Peers<R>, conn: &Conn, want: Want, stall: &Stall) -> Result<FetchEnd, FetchEnd> {
    let rt = &peers.0.rt;
    let mut recv = request(conn, &want).await?;
    let leaves = answer(&mut recv).await?;
    stall.alive(rt.now());
    let Some(_place) = conn.sinks.take().await else { return Err(FetchEnd::Broken) };
    let Want { xfer, version, piece, blocks, .. } = want;
    let mut sink = Sink::new(rt.clone(), &peers.0.store, version, (piece, blocks), Some(leaves))?;
    let mut progress = Progress { xfer, told: 0, at: rt.now() };
    let mut chunks: [Bytes; CHUNKS] = Default::default();
    loop {
        let n = match recv.read_chunks(&mut chunks).await {
            Ok(Some(n)) => n,
            Ok(None) if sink.remaining() == 0 => break,
            // fewer bytes than were asked for
            Ok(None) => return Err(FetchEnd::BadBlock { block: sink.next_block() }),
            Err(e) => return Err(broken(e)),
        };
        for chunk in &mut chunks[..n] {
            sink.push(std::mem::take(chunk)).await?;
        }
        let now = rt.now();
        stall.alive(now);
        progress.report(peers, sink.verified(), now).await;
    }
    Ok(sink.finish().await)
}

/// Opens a stream and sends the request for the blocks on it.
async fn request(conn: &Conn, want: &Want) -> Result<RecvStream, FetchEnd> {
    let (mut send, recv) = conn.link.open_bi().await.ok_or(FetchEnd::Broken)?;
    let own_fault = |_| FetchEnd::Store(StoreError::Io);
    let request = PieceRequest {
        piece: want.piece,
        first_block: u16::try_from(want.blocks.start).map_err(own_fault)?,
        blocks: u16::try_from(want.blocks.len()).map_err(own_fault)?,
        want_leaves: true,
    };
    let mut bytes = vec![REQUEST_STREAM];
    bytes.extend(frame(&request));
    // a refusal may come before the request is written: then it is read
    if send.write_all(&bytes).await.is_ok() {
        let _ = send.finish();
    }
    Ok(recv)
}

/// Reads the leaf hashes, which precede the blocks in an answer. An invalid message counts as a bad block.
async fn answer(recv: &mut RecvStream) -> Result<Vec<Digest>, FetchEnd> {
    let bad = FetchEnd::BadBlock { block: 0 };
    let content = read_frame(recv, FRAME_LEN_MAX).await.map_err(|e| match e {
        NoFrame::Invalid => bad,
        NoFrame::Read(e) => broken(e),
    })?;
    let answer = Framed::<PieceAnswer>::decode(&content).ok().flatten().ok_or(bad)?;
    Ok(answer.msg.leaves.into_vec())
}

/// The number of bytes of a transfer that was reported last, and when.
struct Progress {
    xfer: XferId,
    told: u64,
    at: Instant,
}

impl Progress {
    async fn report<R: Rt>(&mut self, peers: &Peers<R>, verified: u64, now: Instant) {
        let due = verified >= self.told + PROGRESS_BYTES || now >= self.at + PROGRESS_TIME;
        if verified > self.told && due {
            (self.told, self.at) = (verified, now);
            // without a machine there is nobody to tell
            let _ = peers.0.inbox.send(Input::Progress { xfer: self.xfer, verified }).await;
        }
    }
}
