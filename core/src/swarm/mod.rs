//! Swarming: which piece comes from whom ([`picker`]), one download's transfers and sources ([`download`]), how fast a
//! source is ([`rate`]), receipts for what came ([`receipting`]), and serving other clients ([`upload`]). The words
//! they share with what is around them are in [`outcome`].

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
