//! Injects faults into the processes of the built binary on tokio.

#[path = "../../shell/tests/faults/mod.rs"]
mod faults;

type Rt = swarmedge_tokio::Tokio;
const BINARY: &str = env!("CARGO_BIN_EXE_swarmedge");
