//! A pool of reusable buffers for hashing and writing: fresh memory costs a page fault every 4 KiB.

use super::version::lock;
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use swarmedge_core::limits::BLOCK_LEN;

/// Length of a buffer, bytes. Hashing and writing in smaller units doubles the processor time; larger ones only take
/// memory.
pub const JOB_LEN: usize = 256 << 10;

const _: () = assert!(JOB_LEN.is_multiple_of(BLOCK_LEN as usize));

/// Maximum number of unused buffers that the pool keeps.
const SPARE_MAX: usize = 32;

/// The pool of buffers. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// Returns an empty buffer with a capacity of [`JOB_LEN`].
    pub(crate) fn take(&self) -> Vec<u8> {
        let spare = lock(&self.0).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(JOB_LEN))
    }

    /// Returns a buffer to the pool.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut spare = lock(&self.0);
        if buffer.capacity() == JOB_LEN && spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    }

    /// Converts a buffer to `Bytes`; it returns to the pool when the last clone of these is dropped.
    pub(crate) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lease { buffer, home: self.clone() })
    }
}

struct Lease {
    buffer: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_comes_back_and_no_more_than_the_bound_is_kept() {
        let pool = Buffers::default();
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"abc");
        let at = buffer.as_ptr();
        let bytes = pool.lend(buffer);
        let rest = bytes.slice(1..);
        drop(bytes);
        assert_eq!(&rest[..], b"bc");
        drop(rest);
        let again = pool.take();
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), at);
        (0..2 * SPARE_MAX).map(|_| pool.take()).collect::<Vec<_>>().into_iter().for_each(|b| pool.give(b));
        assert_eq!(lock(&pool.0).len(), SPARE_MAX);
    }
}
