//! `bench receipts`: measures the cost of receipts for a transfer between peers, in bytes on the wire and in CPU.

use super::Bench;
use super::measure::Sample;
use crate::Error;
use crate::args::BenchReceiptsArgs;
use crate::demo::WorkDir;
use std::time::{Duration, Instant};
use swarmedge_core::accounting::receipts::{CreditRule, is_signed};
use swarmedge_core::ids::{DownloadId, IntroId, Signature, VersionId};
use swarmedge_core::wire::peer::PeerMsg;
use swarmedge_core::wire::records::{Receipt, SignedReceipt, SigningContext};
use swarmedge_core::wire::{Wire as _, frame};
use swarmedge_ground::keys::{Key, verify};
use swarmedge_ground::terminal::Interrupt;
use swarmedge_ground::terminal::out::{print_json, say};
use swarmedge_ground::terminal::units::bytes;

/// Header bytes of a datagram with only a receipt: IPv6, UDP, QUIC with AEAD tag. In practice most receipts share one.
const DATAGRAM: u64 = 40 + 8 + 20 + 16;
/// Number of signatures that are timed.
const ROUNDS: u32 = 500;
/// Largest permitted share of receipts in the bytes, in parts per million.
const WIRE_PPM_MAX: u64 = 200;
/// Largest permitted share of receipts in the transfer's CPU time, in parts per million.
const CPU_PPM_MAX: u64 = 20_000;

/// Cost of all receipts for a transfer.
#[derive(Clone, Copy, Debug)]
struct Cost {
    count: u32,
    /// Bytes of all receipts on the wire, if each receipt has its own datagram.
    wire_bytes: u64,
    /// Time to sign and to verify one receipt.
    each: Duration,
}

/// Runs the command `swarmedge bench receipts`.
pub(crate) fn run(args: &BenchReceiptsArgs, json: bool) -> Result<(), Error> {
    let size = args.size.0;
    let cost = cost(size)?;
    let (cpu, transfer) = (cost.each * cost.count, transfer(args)?);
    let transfer_cpu = transfer.client_cpu + transfer.server_cpu;
    let from_peers = transfer.peer_bytes;
    let (wire_ppm, cpu_ppm) = (per_million(cost.wire_bytes, size), per_million(micros(cpu), micros(transfer_cpu)));
    if json {
        print_json(&serde_json::json!({
            "size_bytes": size, "receipts": cost.count, "wire_bytes": cost.wire_bytes, "wire_ppm": wire_ppm,
            "sign_and_verify_us": micros(cost.each), "cpu_us": micros(cpu), "from_peers_bytes": from_peers,
            "transfer_cpu_us": micros(transfer_cpu), "cpu_ppm": cpu_ppm,
        }))?;
    } else {
        say!("{} from one peer: {} receipts", bytes(size), cost.count)?;
        say!(
            "  wire  {} bytes with a datagram each, {wire_ppm} parts a million of what they receipt (limit {WIRE_PPM_MAX})",
            cost.wire_bytes
        )?;
        say!(
            "  CPU   {} us to sign and verify one, {} us in all: {cpu_ppm} parts a million (limit {CPU_PPM_MAX}) of the {} ms \
             that both peers used for the transfer",
            micros(cost.each),
            micros(cpu),
            transfer_cpu.as_millis()
        )?;
    }
    if from_peers < size {
        return Err(Error::failed("not all bytes came from the peer, so this says little; try again"));
    }
    if wire_ppm > WIRE_PPM_MAX {
        return Err(Error::failed("receipts cost more than 0.02 % of the bytes"));
    }
    if cpu_ppm > CPU_PPM_MAX { Err(Error::failed("receipts cost more than 2 % of the CPU")) } else { Ok(()) }
}

/// Computes the cost of signing and verifying all receipts that the credit rule demands for `size` bytes. Not
/// included: the ledger verifies the last receipt of each introduction again.
fn cost(size: u64) -> Result<Cost, Error> {
    let (key, uploader) = (Key::from_seed([1; 32]), Key::from_seed([2; 32]));
    let receipt = |seq, bytes| Receipt {
        intro: IntroId::numbered(1),
        download: DownloadId::numbered(2),
        version: VersionId::numbered(3),
        uploader_key: uploader.public(),
        seq,
        bytes,
    };
    let (mut count, mut receipted, mut wire_bytes) = (0, 0, 0);
    while receipted < size {
        count += 1;
        receipted += CreditRule::PROTOCOL.due(receipted).min(size - receipted);
        let signed = SignedReceipt { receipt: receipt(count, receipted), signature: Signature([0; 64]) };
        wire_bytes += frame(&PeerMsg::Receipt(signed)).len() as u64 + DATAGRAM;
    }
    let began = Instant::now();
    for seq in 0..ROUNDS {
        let r = receipt(seq, size);
        let signature = key.sign(SigningContext::Receipt, &r.to_bytes());
        if !is_signed(verify, &key.public(), &r, &signature) {
            return Err(Error::failed("a receipt does not verify"));
        }
    }
    Ok(Cost { count, wire_bytes, each: began.elapsed() / ROUNDS })
}

/// Measures a transfer between two clients that run this binary.
fn transfer(args: &BenchReceiptsArgs) -> Result<Sample, Error> {
    let program = std::env::current_exe().map_err(|e| Error::io("find this program's file", &e))?;
    let interrupt = Interrupt::listen()?;
    let dir = WorkDir::make(args.dir.as_deref(), "swarmedge-bench", false)?;
    Bench::prepare(args.size.0, &dir.path, program, interrupt)?.peer_transfer()
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

const fn per_million(part: u64, whole: u64) -> u64 {
    let whole = if whole == 0 { 1 } else { whole };
    part.saturating_mul(1_000_000) / whole
}
