//! The whole system on smol.

#[path = "../src/rt.rs"]
mod rt;
#[path = "../../shell/tests/shared/mod.rs"]
mod shared;

type Rt = rt::Smol;
const BINARY: &str = env!("CARGO_BIN_EXE_swarmedge-smol");
