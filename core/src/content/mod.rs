//! Content: manifests, piece layout, Merkle trees, bitfields, the provider's policy.

pub mod bitfield;
pub mod layout;
pub mod manifest;
pub mod merkle;
pub mod policy;

pub use bitfield::Bitfield;
pub use layout::Layout;
pub use manifest::Manifest;
pub use policy::{Access, Policy};
