//! The key that encrypts the journal's records which name peers. The database never overwrites in place: deleted
//! records stay in its free pages, and become unreadable only when this key is destroyed.
//!
//! The key is a file, `veil.<number>.key`; the journal has the number of the current one. To replace a key, a new one
//! is made durable, and one commit re-encrypts all rows with it and stores its number; then the old file is
//! overwritten and removed. So at every moment one key decrypts all rows, and none decrypts what was deleted before.

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

/// A key that encrypts records of the journal. Its debug output shows only the number.
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
    /// Makes a random key and writes it durably to its file.
    pub(crate) fn fresh(disk: Arc<dyn Disk>, dir: &Path, number: u64) -> io::Result<Self> {
        let path = path_of(dir, number);
        let key = random()?;
        let file = disk.open(&path)?;
        file.write_at(&key, 0)?;
        file.sync()?;
        disk.sync_dir(dir)?;
        Ok(Self { disk, path, number, key })
    }

    /// Reads the key with this number. Key files with other numbers, left by interrupted changes of the key, are
    /// destroyed.
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

    /// Encrypts a value; it can be decrypted only as the value of this row of this table.
    pub(crate) fn seal(&self, table: &str, row: &[u8], value: &[u8]) -> io::Result<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let aad = [table.as_bytes(), row].concat();
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), Payload { msg: value, aad: &aad });
        let sealed = sealed.map_err(|_| bad("a row is too long to be sealed"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what [`Self::seal`] has returned.
    pub(crate) fn unseal(&self, table: &str, row: &[u8], sealed: &[u8]) -> io::Result<Vec<u8>> {
        let aad = [table.as_bytes(), row].concat();
        let opened = sealed.split_first_chunk::<NONCE_LEN>().and_then(|(nonce, sealed)| {
            self.cipher().decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad }).ok()
        });
        opened.ok_or_else(|| bad("a sealed row does not open with the key beside it"))
    }

    /// Returns the row key of a receipt: a hash of this key and the introduction's id, which reveals nothing without
    /// the key.
    pub(crate) fn row(&self, intro: IntroId) -> [u8; 32] {
        Sha256::new().chain_update(self.key).chain_update(intro.0).finalize().into()
    }

    /// Destroys the key's file: nothing encrypted with it can be read any more.
    pub(crate) fn destroy(self) -> io::Result<()> {
        erase(&*self.disk, &self.path)
    }
}

fn is_key(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("veil.") && name.ends_with(".key"))
}

/// Overwrites a key file before removing it, since removing a file leaves its bytes on the disk.
fn erase(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let file = disk.open(path)?;
    file.write_at(&[0; KEY_LEN], 0)?;
    file.sync()?;
    disk.remove(path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}
