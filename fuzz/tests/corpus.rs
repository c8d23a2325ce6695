//! Replays every file of the fuzz corpora through its target, on stable Rust. A crash that the fuzzer finds is added
//! as one more file. To recreate the first files from the golden messages: `SWARMEDGE_BLESS=1 cargo test -p
//! swarmedge-core --test fuzz_corpus every_corpus_file`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use swarmedge_core::Rng as _;
use swarmedge_fuzz::TARGETS;
use swarmedge_models::rng::Seeded;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hexadecimal")).collect()
}

/// Returns the first inputs of each target: golden messages for decoders, noise of several lengths for machines.
fn first_inputs() -> BTreeMap<(&'static str, String), Vec<u8>> {
    let golden = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/golden.txt"))
        .expect("it is there");
    let mut files = BTreeMap::new();
    for line in golden.lines() {
        let [protocol, name, hex] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("a golden line: {line}") };
        let (target, skip) = match (protocol, name) {
            ("control", _) => ("decode_control", 4),
            ("directory", _) => ("decode_directory", 4),
            ("peer", _) => ("decode_peer", 4),
            ("ledger", _) => ("decode_ledger", 4),
            ("mux", _) => ("mux_inputs", 0),
            ("value", "Manifest") => ("decode_manifest", 0),
            ("value", "Notice" | "Terms") => ("decode_notice", 0),
            ("value", "PieceRequest" | "PieceAnswer") => ("decode_peer", 0),
            ("value", _) => ("decode_records", 0),
            _ => continue,
        };
        let mut body = bytes(hex)[skip..].to_vec();
        if protocol == "mux" {
            // the first byte sets how many bytes arrive at a time
            body.insert(0, u8::try_from(body.len()).expect("a short message"));
        }
        files.insert((target, format!("{protocol}-{name}")), body);
        if name == "Notice" && protocol == "control" {
            // after the length and the number of the message comes the signed notice
            files.insert(("decode_notice", "signed".to_owned()), bytes(hex)[5..].to_vec());
        }
        if protocol == "control" {
            files.insert(("decode_frame", name.to_owned()), bytes(hex));
        }
    }
    let mut noise = Seeded::new(1);
    for (target, _) in TARGETS {
        for i in 0..12 {
            let body = (0..32_u32 << (i % 6)).map(|_| u8::try_from(noise.below(256)).expect("a byte"));
            files.insert((target, format!("noise-{i:02}")), body.collect());
        }
    }
    // examples after RFC 6887 §11.1 and RFC 6886 §3.3
    let mapped = "028100000000".to_owned()
        + "0e1000010000"
        + &"00".repeat(12)
        + "7477656c7665206279746573"
        + "11000000"
        + "1388c351"
        + "00000000000000000000ffffcb007105";
    files.insert(("decode_mapping", "pcp-mapped".to_owned()), bytes(&mapped));
    files.insert(("decode_mapping", "natpmp-mapped".to_owned()), bytes("00810000000001001388c35100000e10"));
    files.insert(("decode_mapping", "natpmp-request".to_owned()), bytes("000100001388c35000001c20"));
    let binding = b"\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl";
    files.insert(("decode_stun", "binding-request".to_owned()), binding.to_vec());
    // RFC 5769 §2.2
    let signed = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643\
                  000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
    files.insert(("decode_stun", "binding-answer-signed".to_owned()), bytes(signed));
    files
}

#[test]
fn every_corpus_file_passes_its_target() {
    if std::env::var_os("SWARMEDGE_BLESS").is_some() {
        for ((target, name), body) in first_inputs() {
            fs::create_dir_all(corpora().join(target)).expect("a folder");
            fs::write(corpora().join(target).join(name), body).expect("a file");
        }
    }
    for (target, body) in TARGETS {
        let files = fs::read_dir(corpora().join(target)).unwrap_or_else(|e| panic!("{target} has no corpus: {e}"));
        let files: Vec<PathBuf> = files.map(|f| f.expect("a file").path()).collect();
        assert!(!files.is_empty(), "{target} has no corpus");
        for file in files {
            let input = fs::read(&file).expect("it can be read");
            let passed = std::panic::catch_unwind(|| body(&input));
            assert!(passed.is_ok(), "{} breaks {target}", file.display());
        }
    }
}

/// Runs mutations of the corpora, the same ones each time: a small fuzzer for every build.
#[test]
fn mutations_of_the_corpora_pass_too() {
    let mut rng = Seeded::new(2);
    for (target, body) in TARGETS {
        let mut files: Vec<_> =
            fs::read_dir(corpora().join(target)).expect("a corpus").map(|f| f.expect("a file").path()).collect();
        files.sort();
        let rounds = if target.starts_with("decode") { 200 } else { 40 };
        for file in files {
            let input = fs::read(&file).expect("it can be read");
            for _ in 0..rounds {
                let mut mutant = input.clone();
                for _ in 0..=rng.below(4) {
                    let n = u32::try_from(mutant.len()).expect("a small file");
                    if n == 0 {
                        break;
                    }
                    let at = rng.below(n) as usize;
                    match rng.below(3) {
                        0 => mutant[at] = u8::try_from(rng.below(256)).expect("a byte"),
                        1 => mutant.truncate(at),
                        _ => mutant.insert(at, u8::try_from(rng.below(256)).expect("a byte")),
                    }
                }
                let passed = std::panic::catch_unwind(|| body(&mutant));
                assert!(passed.is_ok(), "{target} breaks on {mutant:02x?}");
            }
        }
    }
}
