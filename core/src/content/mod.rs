//! Content: how an object's version is named, cut and verified. A [`Manifest`] names a version and holds the Merkle
//! root of each piece ([`merkle`], BEP 52); a [`Layout`] cuts it into pieces and blocks; a [`Bitfield`] says which
//! pieces a client has; a [`Policy`] is what the provider allows; [`Verdicts`] say which stored pieces are right.

pub mod bitfield;
pub mod layout;
pub mod manifest;
pub mod merkle;
pub mod policy;
pub mod verdicts;

pub use bitfield::Bitfield;
pub use layout::Layout;
pub use manifest::Manifest;
pub use policy::{Access, Policy};
pub use verdicts::Verdicts;
