//! Swarming, the client's exchange of pieces. [`picker`] chooses the next piece, [`download`] runs one download's
//! transfers and sources, [`rate`] measures a source's speed, [`receipting`] signs receipts for received bytes, and
//! [`upload`] serves other clients. [`outcome`] has the error and reason types that all of these and their callers
//! share.

pub mod blocks;
pub mod download;
pub mod outcome;
pub mod picker;
#[cfg(test)]
mod picker_tests;
pub mod rate;
pub mod receipting;
pub mod upload;

pub use blocks::Blocks;
pub use download::Download;
pub use picker::Picker;
pub use receipting::Receipts;
pub use upload::Uploads;
