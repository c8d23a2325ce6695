//! Runs the shared system tests on smol.

#[path = "../../shell/tests/shared/mod.rs"]
mod shared;

type Rt = swarmedge_smol::Smol;
const BINARY: &str = env!("CARGO_BIN_EXE_swarmedge-smol");
