//! The primitives of the mailbox: those of std, or under `swarmedge_loom` those whose schedules loom explores.

#[cfg(swarmedge_loom)]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(not(swarmedge_loom))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
