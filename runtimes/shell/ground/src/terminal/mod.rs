//! Terminal input and output of commands: printed lines, the log, figures with units, and Ctrl-C.

mod interrupt;
pub mod log;
pub mod out;
pub mod units;
pub mod visible;

pub use interrupt::{Interrupt, ignores_hangup};
