//! Terminal input and output of commands: printed lines, progress bars, the log, figures with units, and Ctrl-C.

pub mod bar;
mod interrupt;
pub mod log;
pub mod out;
pub mod units;
pub mod visible;

pub use interrupt::{Interrupt, ignores_hangup};
