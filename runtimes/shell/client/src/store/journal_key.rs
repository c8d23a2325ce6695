//! What names peers in the journal is sealed under a key of its own, so that it can be made unreadable: the database
//! never overwrites in place, and what was deleted from it stays in its free pages.
//!
//! The key is a file, `veil.<number>.key`, and the journal says which number holds. A new key is durable before a
//! commit seals everything anew and names it; then the old file is overwritten and removed. So at every moment one key
//! opens all rows, and nothing opens what a row held before.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use swarmedge_core::ids::IntroId;
use swarmedge_ground::database::bad;
use swarmedge_ground::disk::Disk;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 24;

/// One key. Its debug form shows the number alone.
pub(crate) struct JournalKey {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    number: u64,
    key: [u8; KEY_LEN],
}

impl std::fmt::Debug for JournalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JournalKey({})", self.number)
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(bytes)
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("veil.{number}.key"))
}

impl JournalKey {
    /// A new key, durable in its file.
    pub(crate) fn fresh(disk: Arc<dyn Disk>, dir: &Path, number: u64) -> io::Result<Self> {
        let path = path_of(dir, number);
        let key = random()?;
        let file = disk.open(&path)?;
        file.write_at(&key, 0)?;
        file.sync()?;
        disk.sync_dir(dir)?;
        Ok(Self { disk, path, number, key })
    }

    /// The key of this number; others, of changes that were cut short, are removed.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, number: u64) -> io::Result<Self> {
        let path = path_of(dir, number);
        let names = disk.list(dir)?;
        if !names.contains(&path) {
            return Err(bad(&format!("its key {} is missing", path.display())));
        }
        let mut key = [0; KEY_LEN];
        let short = |e: io::Error| {
            let short = e.kind() == io::ErrorKind::UnexpectedEof;
            if short { bad(&format!("its key {} is too short", path.display())) } else { e }
        };
        disk.open(&path)?.read_at(&mut key, 0).map_err(short)?;
        for other in names.iter().filter(|name| **name != path && is_key(name)) {
            erase(&*disk, other)?;
        }
        Ok(Self { disk, path, number, key })
    }

    /// Returns the key's number; later keys have higher ones.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.key.into())
    }

    /// The sealed value of a row, for that row alone.
    pub(crate) fn seal(&self, table: &str, row: &[u8], value: &[u8]) -> io::Result<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let aad = [table.as_bytes(), row].concat();
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), Payload { msg: value, aad: &aad });
        let sealed = sealed.map_err(|_| bad("a row is too long to be sealed"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Returns the plaintext given to [`Self::seal`].
    pub(crate) fn unseal(&self, table: &str, row: &[u8], sealed: &[u8]) -> io::Result<Vec<u8>> {
        let aad = [table.as_bytes(), row].concat();
        let opened = sealed.split_first_chunk::<NONCE_LEN>().and_then(|(nonce, sealed)| {
            self.cipher().decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad }).ok()
        });
        opened.ok_or_else(|| bad("a sealed row does not open with the key beside it"))
    }

    /// The row of a receipt: an introduction's id, seen by nobody who lacks the key.
    pub(crate) fn row(&self, intro: IntroId) -> [u8; 32] {
        Sha256::new().chain_update(self.key).chain_update(intro.0).finalize().into()
    }

    /// Deletes the key: nothing sealed with it can be read any more.
    pub(crate) fn destroy(self) -> io::Result<()> {
        erase(&*self.disk, &self.path)
    }
}

fn is_key(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("veil.") && name.ends_with(".key"))
}

/// Overwrites a key before its name goes: a name that is gone leaves the bytes where they were.
fn erase(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let file = disk.open(path)?;
    file.write_at(&[0; KEY_LEN], 0)?;
    file.sync()?;
    disk.remove(path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}
