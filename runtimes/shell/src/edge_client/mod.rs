//! The client's side of the edge: bootstrap, grants, manifests, content.

mod directory;

pub use directory::Directory;
