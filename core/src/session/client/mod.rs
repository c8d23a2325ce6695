//! The client's side of the control session: which CN to dial and when, what to tell it, whom to believe.

pub mod io;

pub use io::{Config, Input, Output, Want};

/// The client's session with whichever CN it has. Its life: `Servers` → `Dial` → `Hello` → `Welcome` → the whole
/// inventory, unacknowledged usage records, queries of downloads that want peers; when the CN is lost, the next one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientSession {}
