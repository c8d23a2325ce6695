//! Clients of the built binary on tokio whose way to the Internet changes.

#[path = "../../shell/tests/shared/mobility.rs"]
mod shared;

#[test]
fn a_transfer_goes_on_when_a_way_changes() {
    shared::a_transfer_goes_on_when_a_way_changes(env!("CARGO_BIN_EXE_swarmedge"));
}
