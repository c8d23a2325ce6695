//! What stands between a command and the person who runs it: lines, figures with their units, Ctrl-C.

mod interrupt;
pub mod log;
pub mod out;
pub mod units;

pub use interrupt::Interrupt;
