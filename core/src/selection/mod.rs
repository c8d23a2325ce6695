//! Selection of peers in the DN: how near peers are ([`locality`]), learned success rates of connecting
//! ([`learned`]), and the directory that chooses peers ([`directory`]).

pub mod directory;
pub mod learned;
pub mod locality;

pub use directory::{Directory, PeerKey};
pub use learned::Learned;
pub use locality::{Locality, Set};
