//! Selection of peers in the DN: how near peers are ([`locality`]), learned success rates of connecting
//! ([`learned`]), reports of wrong blocks ([`blames`]), and the directory that chooses peers ([`directory`]).

pub mod blames;
pub mod directory;
pub mod learned;
pub mod locality;

pub use blames::Blames;
pub use directory::{Directory, PeerKey};
pub use learned::Learned;
pub use locality::{Locality, Set};
