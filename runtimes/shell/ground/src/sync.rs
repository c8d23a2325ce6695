//! Synchronisation primitives of code that loom tests: loom's under the cfg `swarmedge_loom`, otherwise those of std.

#[cfg(swarmedge_loom)]
#[allow(unused_imports, reason = "each crate uses a part")]
pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
#[cfg(not(swarmedge_loom))]
#[allow(unused_imports, reason = "each crate uses a part")]
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
