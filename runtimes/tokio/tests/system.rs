//! Runs the shared system tests on tokio.

#[path = "../../shell/tests/shared/mod.rs"]
mod shared;

type Rt = swarmedge_tokio::Tokio;
const BINARY: &str = env!("CARGO_BIN_EXE_swarmedge");
