//! The cn role.
