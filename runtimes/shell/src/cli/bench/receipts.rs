//! `bench receipts`: what receipts cost over a transfer between peers, in bytes on the wire and in CPU.

use crate::cli::Error;
use crate::cli::args::BenchReceiptsArgs;
use crate::keys::{Key, verify};
use crate::terminal::out::{print_json, say};
use crate::terminal::units::bytes;
use sha2::{Digest as _, Sha256};
use std::hint::black_box;
use std::time::{Duration, Instant};
use swarmedge_core::accounting::receipts::{CreditRule, is_signed};
use swarmedge_core::ids::{DownloadId, IntroId, VersionId};
use swarmedge_core::wire::peer::PeerMsg;
use swarmedge_core::wire::records::{Context, Receipt, SignedReceipt};
use swarmedge_core::wire::{Wire as _, frame};

/// Headers of a datagram that carries a receipt alone: IPv6, UDP, QUIC with its AEAD tag. Most receipts share one.
const DATAGRAM: u64 = 40 + 8 + 20 + 16;
/// Signatures measured.
const ROUNDS: u32 = 500;
/// Bytes hashed at a time, as the store does.
const JOB: usize = 1 << 20;

/// `swarmedge bench receipts`.
pub(in crate::cli) fn run(args: &BenchReceiptsArgs, json: bool) -> Result<(), Error> {
    let size = args.size.0;
    let (key, uploader) = (Key::from_seed([1; 32]), Key::from_seed([2; 32]));
    let receipt = |seq, bytes| Receipt {
        intro: IntroId::numbered(1),
        download: DownloadId::numbered(2),
        version: VersionId::numbered(3),
        uploader_key: uploader.public(),
        seq,
        bytes,
    };
    let (mut count, mut receipted, mut wire) = (0, 0, 0);
    while receipted < size {
        count += 1;
        receipted += CreditRule::PROTOCOL.due(receipted).min(size - receipted);
        let signed =
            SignedReceipt { receipt: receipt(count, receipted), signature: swarmedge_core::ids::Signature([0; 64]) };
        wire += frame(&PeerMsg::Receipt(signed)).len() as u64 + DATAGRAM;
    }
    let began = Instant::now();
    for seq in 0..ROUNDS {
        let r = receipt(seq, size);
        let signature = key.sign(Context::Receipt, &r.to_bytes());
        if !is_signed(verify, &key.public(), &r, &signature) {
            return Err(Error::failed("a receipt does not verify"));
        }
    }
    let each = began.elapsed() / ROUNDS;
    let receipts_cpu = each * count;
    // both sides: the ledger verifies the last of them besides
    let hash_cpu = hashing(size);
    let (wire_ppm, cpu_ppm) = (per_million(wire, size), per_million(micros(receipts_cpu), micros(hash_cpu)));
    if json {
        print_json(&serde_json::json!({
            "size_bytes": size, "receipts": count, "wire_bytes": wire, "wire_ppm": wire_ppm,
            "sign_and_verify_us": micros(each), "cpu_us": micros(receipts_cpu), "hashing_cpu_us": micros(hash_cpu),
            "cpu_ppm_of_hashing": cpu_ppm,
        }))?;
    } else {
        say!("{} from one peer: {count} receipts", bytes(size))?;
        say!("  wire  {wire} bytes with a datagram each, {wire_ppm} parts a million of what they receipt (limit 200)")?;
        say!(
            "  CPU   {} us to sign and verify one, {} us in all: {cpu_ppm} parts a million of hashing the bytes once ({} ms), \
             which is a part of a transfer's CPU (limit 20000)",
            micros(each),
            micros(receipts_cpu),
            hash_cpu.as_millis()
        )?;
    }
    if wire_ppm > 200 { Err(Error::failed("receipts cost more than 0.02 % of the bytes")) } else { Ok(()) }
}

/// The time that it takes to hash so many bytes.
fn hashing(size: u64) -> Duration {
    let job = vec![7_u8; JOB];
    let began = Instant::now();
    for _ in 0..size.div_ceil(JOB as u64) {
        black_box(Sha256::digest(black_box(&job)));
    }
    began.elapsed()
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

const fn per_million(part: u64, whole: u64) -> u64 {
    let whole = if whole == 0 { 1 } else { whole };
    part.saturating_mul(1_000_000) / whole
}
