//! HTTP/1.1 over TLS on any [`Rt`](crate::rt::Rt): hyper with our own adapters.

pub mod body;
pub mod client;
pub mod io;
pub mod path;
pub mod problem;
pub mod seats;
pub mod server;
pub mod signal;

pub use body::Body;
pub use client::{Client, Origin};
pub use path::normal_path;
pub use problem::Problem;
pub use server::{Limits, Service, Site, serve};
pub use signal::Signal;
