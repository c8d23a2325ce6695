//! The file that the demo delivers: generation of test data, and SHA-256 of files.

use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use swarmedge_core::ids::Digest;
use swarmedge_ground::error::Error;

/// Writes a file of `size` incompressible bytes: SplitMix64 in counter mode from `seed`.
pub fn generate(path: &Path, size: u64, seed: u64) -> Result<(), Error> {
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let mut left = size;
        for n in 0.. {
            let word = splitmix(seed.wrapping_add(n)).to_le_bytes();
            let take = usize::try_from(left.min(8)).unwrap_or(8);
            if take == 0 {
                break;
            }
            out.write_all(&word[..take])?;
            left -= take as u64;
        }
        out.flush()
    };
    write().map_err(|e| Error::io(format_args!("write {}", path.display()), &e))
}

const fn splitmix(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Reads a file and returns its length and SHA-256.
pub fn sha256(path: &Path) -> Result<(u64, Digest), Error> {
    let read = || -> std::io::Result<(u64, Digest)> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let mut buf = vec![0; 1 << 20];
        let mut len = 0;
        loop {
            let n = file.read(&mut buf)?;
            if n == 0 {
                return Ok((len, Digest(hash.finalize().into())));
            }
            hash.update(&buf[..n]);
            len += n as u64;
        }
    };
    read().map_err(|e| Error::io(format_args!("read {}", path.display()), &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_file_has_its_size_and_depends_on_its_seed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        generate(&a, 100_003, 1).expect("writes");
        generate(&b, 100_003, 2).expect("writes");
        let (len, hash) = sha256(&a).expect("reads");
        assert_eq!(len, 100_003);
        assert_ne!(hash, sha256(&b).expect("reads").1);
        generate(&b, 100_003, 1).expect("writes");
        assert_eq!(hash, sha256(&b).expect("reads").1);
    }
}
