//! The destination of an incoming transfer's bytes: they are hashed and written in order, in jobs on the blocking
//! pool.

use super::Store;
use super::buffers::{Buffers, JOB_LEN};
use super::check::Damage;
use super::version::{Piece, Version};
use super::writer::Queue;
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use swarmedge_core::ids::{Digest, PieceIndex, VersionId};
use swarmedge_core::limits::BLOCK_LEN;
use swarmedge_core::role::client::io::{FetchEnd, StoreError};
use swarmedge_ground::rt::Rt;

/// Maximum number of running jobs of a sink.
const JOBS_MAX: usize = 2;

/// Maximum number of bytes that a sink holds in memory.
pub const SINK_BYTES_MAX: usize = JOB_LEN * (JOBS_MAX + 1);

type Job = Pin<Box<dyn Future<Output = Result<(), FetchEnd>>>>;

/// Receives the bytes of one transfer, a range of a piece's blocks, in order. The transfer ends with exactly one
/// [`FetchEnd`], from whichever call returns it first.
pub struct Sink<R: Rt> {
    rt: R,
    version: Arc<Version>,
    /// The piece being received; `None` if it is journalled already: then the bytes are discarded.
    piece: Option<Arc<Piece>>,
    first_block: u32,
    /// First block of the next job.
    next_block: u32,
    /// Number of bytes not received yet.
    left: u64,
    buffer: Vec<u8>,
    buffers: Buffers,
    queue: Arc<Queue>,
    jobs: VecDeque<(Job, u64)>,
    verified: u64,
}

impl<R: Rt> Sink<R> {
    /// Makes a sink for `part`: a range of blocks of a piece. `leaves` are the piece's leaf hashes if a peer has sent
    /// them: then every block is checked before it is written. Without `leaves`, blocks are checked on arrival if
    /// their leaf hashes are known from another transfer, else once the whole piece is there.
    pub fn new(
        rt: R,
        store: &Store,
        version: VersionId,
        part: (PieceIndex, Range<u32>),
        leaves: Option<Vec<Digest>>,
    ) -> Result<Self, FetchEnd> {
        let (piece, blocks) = part;
        let version = store.version(version).ok_or(FetchEnd::Store(StoreError::Io))?;
        let layout = version.manifest.layout();
        if blocks.start >= blocks.end || blocks.end > layout.blocks(piece) {
            return Err(FetchEnd::Store(StoreError::Io));
        }
        let range = layout.block_range(piece, blocks.clone());
        let piece = version.piece(piece);
        if let (Some(piece), Some(leaves)) = (&piece, leaves) {
            piece.expect(&version.manifest, leaves)?;
        }
        Ok(Self {
            rt,
            version,
            piece,
            first_block: blocks.start,
            next_block: blocks.start,
            left: range.end - range.start,
            buffer: Vec::new(),
            buffers: store.0.shared.buffers.clone(),
            queue: Arc::clone(&store.0.shared.queue),
            jobs: VecDeque::new(),
            verified: 0,
        })
    }

    /// Returns the number of bytes not received yet.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.left
    }

    /// Returns the first block that was not passed to a job yet, since not all of its bytes have come.
    #[must_use]
    pub const fn next_block(&self) -> u32 {
        self.next_block
    }

    /// Returns the number of bytes that are verified and written; without leaf hashes, hashed and written.
    #[must_use]
    pub const fn verified(&self) -> u64 {
        self.verified
    }

    /// Takes the next bytes; waits while too many jobs run. More bytes than the range has count as a bad block.
    pub async fn push(&mut self, mut bytes: Bytes) -> Result<(), FetchEnd> {
        if bytes.len() as u64 > self.left {
            return Err(FetchEnd::BadBlock { block: self.next_block });
        }
        self.left -= bytes.len() as u64;
        while !bytes.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer = self.buffers.take();
            }
            let room = JOB_LEN - self.buffer.len();
            self.buffer.extend_from_slice(&bytes.split_to(bytes.len().min(room)));
            if self.buffer.len() == JOB_LEN || (self.left == 0 && bytes.is_empty()) {
                self.submit().await?;
            }
        }
        Ok(())
    }

    async fn submit(&mut self) -> Result<(), FetchEnd> {
        while self.jobs.len() >= JOBS_MAX {
            self.wait_for_one().await?;
        }
        let data = std::mem::take(&mut self.buffer);
        let len = data.len() as u64;
        let first = self.next_block;
        self.next_block += u32::try_from(data.len().div_ceil(BLOCK_LEN as usize)).unwrap_or(u32::MAX);
        let (version, piece, buffers) = (Arc::clone(&self.version), self.piece.clone(), self.buffers.clone());
        let queue = Arc::clone(&self.queue);
        let mut job: Job = Box::pin(self.rt.blocking(move || {
            let result = piece.map_or(Ok(()), |piece| version.write(&piece, first, &data));
            buffers.give(data);
            if result == Err(FetchEnd::Broken) {
                // the bytes have nowhere to go: the file is not the one that it was
                queue.lose(version, Damage::Gone, || ());
            }
            result
        }));
        // a pool may start its work at the first poll only
        match futures_lite::future::poll_once(&mut job).await {
            Some(ended) => self.jobs.push_back((Box::pin(std::future::ready(ended)), len)),
            None => self.jobs.push_back((job, len)),
        }
        Ok(())
    }

    async fn wait_for_one(&mut self) -> Result<(), FetchEnd> {
        // the job stays in the queue while it is waited for, so that a caller may give up waiting and come back
        let Some((job, len)) = self.jobs.front_mut() else { return Ok(()) };
        let result = job.await;
        let len = *len;
        self.jobs.pop_front();
        result?;
        self.verified += len;
        Ok(())
    }

    /// Waits until all bytes are written and returns the transfer's end: [`FetchEnd::Broken`] if bytes are missing.
    pub async fn finish(mut self) -> FetchEnd {
        while !self.jobs.is_empty() {
            if let Err(end) = self.wait_for_one().await {
                return end;
            }
        }
        if self.left > 0 {
            return FetchEnd::Broken;
        }
        let Some(piece) = &self.piece else { return FetchEnd::Fetched };
        match piece.settle(&self.version.manifest, self.first_block) {
            Ok(()) => FetchEnd::Fetched,
            Err(end) => end,
        }
    }
}
