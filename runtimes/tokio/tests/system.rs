//! The whole system on tokio.

#[path = "../src/rt.rs"]
mod rt;
#[path = "../../shell/tests/shared/mod.rs"]
mod shared;

type Rt = rt::Tokio;
const BINARY: &str = env!("CARGO_BIN_EXE_swarmedge");
