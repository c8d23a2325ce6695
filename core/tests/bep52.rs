//! Compares our piece roots with those of libtorrent, an independent implementation of BitTorrent v2 (BEP 52).

use std::io::Write as _;
use std::process::{Command, Stdio};
use swarmedge_core::content::{Layout, merkle};
use swarmedge_core::ids::Digest;

/// Python program that reads `size piece_len` lines. For each it creates the file, lets libtorrent hash it, and prints
/// `file root|piece layer` in hex.
const PEER: &str = r#"
import os, sys, tempfile, libtorrent as lt
def content(n):
    x, out = 1, bytearray(n)
    for i in range(n):
        x = (x * 1103515245 + 12345) & 0x7fffffff
        out[i] = x >> 16 & 0xff
    return bytes(out)
for line in sys.stdin:
    size, piece = map(int, line.split())
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "f")
        with open(path, "wb") as f: f.write(content(size))
        fs = lt.file_storage()
        lt.add_files(fs, path)
        t = lt.create_torrent(fs, piece, lt.create_torrent.v2_only)
        lt.set_piece_hashes(t, d)
        g = t.generate()
        root = g[b"info"][b"file tree"][b"f"][b""].get(b"pieces root", b"")
        layer = g.get(b"piece layers", {}).get(root, b"")
        print(root.hex() + "|" + layer.hex(), flush=True)
"#;

/// Returns `len` bytes, the same as those of `content` in the Python program.
fn content(len: usize) -> Vec<u8> {
    let mut x: u64 = 1;
    (0..len)
        .map(|_| {
            x = (x * 1_103_515_245 + 12345) & 0x7fff_ffff;
            u8::try_from(x >> 16 & 0xff).expect("one byte")
        })
        .collect()
}

fn hex(digests: &[Digest]) -> String {
    digests.iter().map(Digest::to_string).collect()
}

fn ours(size: usize, piece_len: u32) -> String {
    let layout = Layout::new(size as u64, piece_len).expect("a valid layout");
    let bytes = content(size);
    let roots: Vec<_> = layout
        .iter()
        .zip(bytes.chunks(piece_len as usize))
        .map(|(p, piece)| merkle::piece_root(&layout, p, &merkle::leaves(piece)))
        .collect();
    let file_root = merkle::file_root(&layout, &roots);
    // BEP 52 lists a piece layer only for files of more than one piece
    let layer = if roots.len() > 1 { hex(&roots) } else { String::new() };
    format!("{}|{}", file_root.map_or(String::new(), |r| r.to_string()), layer)
}

#[test]
fn piece_roots_equal_those_of_libtorrent() {
    let python = "/usr/bin/python3";
    let present = Command::new(python).args(["-c", "import libtorrent"]).stderr(Stdio::null()).status();
    if !present.is_ok_and(|s| s.success()) {
        return swarmedge_seeds::skip("python3-libtorrent is not installed, nothing was compared");
    }
    let (block, piece) = (16 * 1024, 64 * 1024);
    let sizes = [
        1,
        block - 1,
        block,
        block + 1,
        piece - 1,
        piece,
        piece + 1,
        2 * piece,
        3 * piece,
        3 * piece + 1,
        5 * piece - block,
        7 * piece + 5 * block + 3,
        1_000_003,
    ];
    let cases: Vec<(usize, u32)> = sizes.iter().flat_map(|&s| [(s, 64 * 1024), (s, 128 * 1024)]).collect();
    let mut child = Command::new(python)
        .args(["-c", PEER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let input: String = cases.iter().map(|(s, p)| format!("{s} {p}\n")).collect();
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("python reads");
    let out = child.wait_with_output().expect("python ends");
    let theirs: Vec<String> = String::from_utf8(out.stdout).expect("hex").lines().map(str::to_owned).collect();
    assert_eq!(theirs.len(), cases.len(), "libtorrent answered every case");
    for ((size, piece_len), theirs) in cases.into_iter().zip(theirs) {
        assert_eq!(ours(size, piece_len), theirs, "{size} bytes in pieces of {piece_len}");
    }
    // libtorrent makes no torrent of an empty file; by BEP 52 an empty file has no pieces root
    assert_eq!(ours(0, 64 * 1024), "|");
}
