//! The client role.

pub mod io;
