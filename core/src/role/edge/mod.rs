//! The edge: decides who gets a grant and counts what it serves. Content itself never passes through here.

pub mod io;

pub use io::{Config, Input, Metric, Output};
