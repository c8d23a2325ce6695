//! Injects faults into the processes of the built binary on smol.

#[path = "../../shell/tests/faults/mod.rs"]
mod faults;

type Rt = swarmedge_smol::Smol;
const BINARY: &str = env!("CARGO_BIN_EXE_swarmedge-smol");
