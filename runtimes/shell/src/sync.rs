//! The primitives of what loom explores: those of std, or under `swarmedge_loom` those whose schedules loom explores.

#[cfg(swarmedge_loom)]
pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
#[cfg(not(swarmedge_loom))]
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
