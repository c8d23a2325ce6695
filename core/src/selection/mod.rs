//! Selection: who is near whom ([`locality`]), and the directory that chooses peers ([`directory`]).

pub mod directory;
pub mod locality;

pub use directory::{Directory, PeerKey};
pub use locality::{Locality, Set};
