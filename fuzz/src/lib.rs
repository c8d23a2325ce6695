//! Bodies of the fuzz targets. A body fails by panicking; the stable tests replay every corpus through it, and the
//! targets in `fuzz_targets/` pass it libFuzzer's inputs.
#![expect(clippy::wildcard_enum_match_arm, reason = "of the many effects only those that can be answered are kept")]

mod books;
mod connectivity;
mod decoders;
mod machines;
mod mapping;
mod play;
mod settling;

use swarmedge_core::wire::control::{ToClient, ToCn};
use swarmedge_core::wire::directory::{FromDn, ToDn};
use swarmedge_core::wire::ledger::{FromLedger, ToLedger};

/// Body of a fuzz target: a function of the input bytes.
pub type Body = fn(&[u8]);

/// All targets, each with its name and body.
pub const TARGETS: &[(&str, Body)] = &[
    ("decode_control", decoders::both_ways::<ToCn, ToClient>),
    ("decode_directory", decoders::both_ways::<ToDn, FromDn>),
    ("decode_peer", decoders::decode_peer),
    ("decode_ledger", decoders::both_ways::<ToLedger, FromLedger>),
    ("decode_records", decoders::decode_records),
    ("decode_frame", decoders::decode_frame),
    ("decode_manifest", decoders::decode_manifest),
    ("decode_notice", decoders::decode_notice),
    ("decode_stun", decoders::decode_stun),
    ("client_inputs", machines::client_inputs),
    ("cn_inputs", machines::cn_inputs),
    ("dn_inputs", machines::dn_inputs),
    ("world_control", machines::world_control),
    ("world_download", machines::world_download),
    ("discovery_inputs", machines::discovery_inputs),
    ("connectivity_inputs", machines::connectivity_inputs),
    ("mux_inputs", machines::mux_inputs),
    ("audit_proofs", books::audit_proofs),
    ("logs", books::client_logs),
    ("decode_mapping", decoders::decode_mapping),
    ("mapping_inputs", machines::mapping_inputs),
    ("audit_days", books::audit_days),
    ("grants", books::grants),
    ("receipts", settling::receipts),
    ("ledger_inputs", settling::ledger_inputs),
    ("edge_inputs", settling::edge_inputs),
];

/// Runs the target of this name on the bytes.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(n, _)| *n == name).expect("the target is in the list");
    (target.1)(bytes);
}
