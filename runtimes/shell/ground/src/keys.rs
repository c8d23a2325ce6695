//! Ed25519 keys, the operator's certificates for servers, and the seal of grants.
//!
//! Files hold private keys as PKCS#8 PEM (RFC 8410), as `openssl genpkey -algorithm ed25519` writes them; server
//! certificates as one line of base64; sealing keys as lines of `epoch hex`. [`Key`] is a private key, [`SealKey`] the
//! symmetric key of one epoch, [`SealRing`] the sealing keys that a server holds.

use crate::error::Error;
pub use crate::files::replace_secret;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::fmt;
use std::io::Write;
use std::path::Path;
use swarmedge_core::accounting::epochs::Epochs;
use swarmedge_core::ids::{PublicKey, Signature};
use swarmedge_core::nat::cookie::CookieKeys;
use swarmedge_core::wire::records::{CertBody, SealedGrant, ServerCert, SignedGrant, SigningContext};
use swarmedge_core::wire::{Blob, Wire};

/// DER bytes before the 32 bytes of a private key in PKCS#8 (RFC 8410 §7, version 1).
const PKCS8_HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// DER bytes before the 32 bytes of a public key in a SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// An Ed25519 private key. Its debug form shows the public key only.
#[derive(Clone)]
pub struct Key(SigningKey);

impl Key {
    /// Generates a random key.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_seed(random())
    }

    /// Makes the key of a 32-byte seed, for tests and for keys derived from others.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// Returns the 32 secret bytes, for a store that keeps many keys in one file.
    #[must_use]
    pub fn to_seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Reads a PKCS#8 PEM file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let pem = std::fs::read(path).map_err(|e| Error::io(format!("read key {}", path.display()), &e))?;
        Self::from_pem(&pem)
            .ok_or_else(|| Error::usage(format!("{} is not an Ed25519 private key in PKCS#8 PEM", path.display())))
    }

    /// Parses PKCS#8 PEM; `None` if it holds no Ed25519 key.
    #[must_use]
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
        let seed = der.secret_pkcs8_der().strip_prefix(&PKCS8_HEAD)?;
        Some(Self::from_seed(seed.try_into().ok()?))
    }

    /// Writes a new file that only its owner may read; an existing file is left alone and is an error.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        save_secret(path, self.to_pem().as_bytes())
    }

    /// Returns the key as PKCS#8 PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let der = self.to_pkcs8();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(der.secret_pkcs8_der()))
    }

    /// Returns the public key of this private key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `context.text() ‖ message`.
    #[must_use]
    pub fn sign(&self, context: SigningContext, message: &[u8]) -> Signature {
        Signature(self.0.sign(&in_context(context, message)).to_bytes())
    }

    /// Returns the key as PKCS#8 DER.
    #[must_use]
    pub fn to_pkcs8(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from([&PKCS8_HEAD[..], self.0.as_bytes()].concat())
    }

    /// Returns the key in the type that rustls takes.
    #[must_use]
    pub fn to_private_der(&self) -> PrivateKeyDer<'static> {
        self.to_pkcs8().into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.public())
    }
}

fn in_context(context: SigningContext, message: &[u8]) -> Vec<u8> {
    [context.text(), message].concat()
}

/// The production [`swarmedge_core::wire::records::Verify`]: strict (no small-order keys, no malleable signatures).
#[must_use]
pub fn verify(key: &PublicKey, context: SigningContext, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    VerifyingKey::from_bytes(&key.0)
        .is_ok_and(|key| key.verify_strict(&in_context(context, message), &signature).is_ok())
}

/// Signs a server certificate with the operator's root key.
#[must_use]
pub fn certify(root: &Key, body: CertBody) -> ServerCert {
    let signature = root.sign(SigningContext::Cert, &body.to_bytes());
    ServerCert { body, signature }
}

/// Reads a server's certificate: one line of base64.
pub fn load_cert(path: &Path) -> Result<ServerCert, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Error::io(format!("read certificate {}", path.display()), &e))?;
    let bytes = BASE64.decode(text.trim().as_bytes()).ok();
    bytes
        .and_then(|bytes| ServerCert::from_bytes(&bytes).ok())
        .ok_or_else(|| Error::usage(format!("{} is not a server certificate", path.display())))
}

/// Writes a server's certificate as [`load_cert`] reads it.
pub fn save_cert(path: &Path, cert: &ServerCert) -> Result<(), Error> {
    let line = BASE64.encode(&cert.to_bytes()) + "\n";
    std::fs::write(path, line).map_err(|e| Error::io(format!("write certificate {}", path.display()), &e))
}

/// Returns the SubjectPublicKeyInfo of a key, sent in place of a certificate (RFC 7250).
#[must_use]
pub fn spki(key: &PublicKey) -> CertificateDer<'static> {
    CertificateDer::from([&SPKI_HEAD[..], &key.0].concat())
}

/// Returns the key in an Ed25519 SubjectPublicKeyInfo; `None` for another kind, or a weak key for which anybody can
/// sign.
#[must_use]
pub fn key_of_spki(spki: &[u8]) -> Option<PublicKey> {
    let key: [u8; 32] = spki.strip_prefix(&SPKI_HEAD)?.try_into().ok()?;
    VerifyingKey::from_bytes(&key).ok().filter(|k| !k.is_weak()).map(|_| PublicKey(key))
}

/// Symmetric key with which edges seal grants and CNs open them, for one epoch.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey {
    /// Number of the epoch, which rises by one at each rotation.
    pub epoch: u32,
    key: [u8; 32],
}

impl SealKey {
    /// Generates a random key for an epoch.
    #[must_use]
    pub fn generate(epoch: u32) -> Self {
        Self { epoch, key: random() }
    }

    /// Seals a grant so that only the control plane can read it (XChaCha20-Poly1305).
    #[must_use]
    pub fn seal(&self, grant: &SignedGrant) -> SealedGrant {
        let nonce: [u8; 24] = random();
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), Payload { msg: &grant.to_bytes(), aad: &self.epoch.to_be_bytes() })
            .expect("a grant is far below the cipher's limit");
        let sealed = Blob::new(sealed).expect("a grant's bounds keep it below the limit");
        SealedGrant { epoch: self.epoch, nonce, sealed }
    }

    /// Opens a sealed grant; `None` if it is of another epoch or was altered. The signature inside is not checked.
    #[must_use]
    pub fn open(&self, grant: &SealedGrant) -> Option<SignedGrant> {
        if grant.epoch != self.epoch {
            return None;
        }
        let payload = Payload { msg: &grant.sealed, aad: &grant.epoch.to_be_bytes() };
        let bytes = self.cipher().decrypt(&XNonce::from(grant.nonce), payload).ok()?;
        SignedGrant::from_bytes(&bytes).ok()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.key.into())
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey(epoch {})", self.epoch)
    }
}

/// The sealing keys that a server holds: of the current epoch and of those beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealRing {
    epochs: Epochs,
    /// The sealing keys, one per epoch, in the order of the file: current epoch, next, previous.
    keys: Vec<SealKey>,
}

impl SealRing {
    /// Makes a ring of one key only.
    #[must_use]
    pub fn of(key: SealKey) -> Self {
        Self { epochs: Epochs { previous: None, current: key.epoch, next: None }, keys: vec![key] }
    }

    /// Generates the keys of a new deployment.
    #[must_use]
    pub fn fresh() -> Self {
        Self::for_epochs(Epochs::FIRST, &[])
    }

    /// Returns the keys after a rotation, with a new key for the next epoch; see [`Epochs::rotated`].
    #[must_use]
    pub fn rotated(&self) -> Self {
        Self::for_epochs(self.epochs.rotated(), &self.keys)
    }

    /// Makes the ring of `epochs`: takes keys from `known` and generates those that are missing.
    fn for_epochs(epochs: Epochs, known: &[SealKey]) -> Self {
        let all = [Some(epochs.current), epochs.next, epochs.previous];
        let key = |epoch| known.iter().find(|k| k.epoch == epoch).cloned().unwrap_or_else(|| SealKey::generate(epoch));
        Self { epochs, keys: all.into_iter().flatten().map(key).collect() }
    }

    /// Returns the epochs whose keys the ring holds.
    #[must_use]
    pub const fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// Reads a file of lines `epoch hex`, the current epoch first.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(format!("read seal {}", path.display()), &e))?;
        let wrong = || Error::usage(format!("{} is not a file of sealing keys", path.display()));
        let keys: Vec<_> = text.lines().map(parse_seal_key).collect::<Option<_>>().ok_or_else(wrong)?;
        let current = keys.first().map(|k| k.epoch).ok_or_else(wrong)?;
        let next = keys.iter().map(|k| k.epoch).find(|e| *e > current);
        let previous = keys.iter().map(|k| k.epoch).find(|e| *e < current);
        Ok(Self::for_epochs(Epochs { previous, current, next }, &keys))
    }

    /// Writes a new file that only its owner may read.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        save_secret(path, self.lines().as_bytes())
    }

    /// Replaces the file atomically and durably.
    pub fn replace(&self, path: &Path) -> Result<(), Error> {
        replace_secret(path, self.lines().as_bytes())
            .map_err(|e| Error::io(format!("write seal {}", path.display()), &e))
    }

    /// Derives the keys with which STUN servers and CNs make and check cookies.
    #[must_use]
    pub fn cookie_keys(&self) -> CookieKeys {
        CookieKeys::derived(self.keys.iter().map(|k| (k.epoch, &k.key)))
    }

    fn lines(&self) -> String {
        self.keys.iter().map(|k| format!("{} {}\n", k.epoch, HEXLOWER.encode(&k.key))).collect()
    }

    /// Seals a grant with the key of the current epoch.
    #[must_use]
    pub fn seal(&self, grant: &SignedGrant) -> SealedGrant {
        self.keys[0].seal(grant)
    }

    /// Opens a grant that was sealed with any key of the ring.
    #[must_use]
    pub fn open(&self, grant: &SealedGrant) -> Option<SignedGrant> {
        self.keys.iter().find_map(|key| key.open(grant))
    }
}

fn parse_seal_key(line: &str) -> Option<SealKey> {
    let (epoch, key) = line.split_once(' ')?;
    let key = HEXLOWER.decode(key.trim().as_bytes()).ok()?;
    Some(SealKey { epoch: epoch.parse().ok()?, key: key.try_into().ok()? })
}

/// Writes a new file with mode 0600; fails if it exists.
pub fn save_secret(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|e| Error::io(format!("write secret {}", path.display()), &e))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::content::Policy;
    use swarmedge_core::ids::{DownloadId, Guid, ProviderId, VersionId};
    use swarmedge_core::wire::Text;
    use swarmedge_core::wire::records::{Grant, ServerRole};

    fn signed_grant() -> SignedGrant {
        let (root, edge) = (Key::from_seed([1; 32]), Key::from_seed([2; 32]));
        let cert = certify(
            &root,
            CertBody {
                role: ServerRole::Edge,
                name: Text::new("edge").expect("short"),
                key: edge.public(),
                not_before_ms: 0,
                not_after_ms: u64::MAX,
            },
        );
        let grant = Grant {
            download: DownloadId::numbered(1),
            guid: Guid::numbered(2),
            download_key: PublicKey::numbered(3),
            version: VersionId::numbered(4),
            size: 5,
            provider: ProviderId(6),
            path: Text::new("a").expect("short"),
            policy: Policy::default(),
            max_peer_bytes: 7,
            order_seed: 8,
            began_ms: 9,
            issued_ms: 9,
            expires_ms: 10,
            challenged: false,
        };
        SignedGrant { signature: edge.sign(SigningContext::Grant, &grant.to_bytes()), grant, cert }
    }

    #[test]
    fn a_signature_holds_for_its_key_context_and_message_only() {
        let (key, other) = (Key::generate(), Key::generate());
        let signature = key.sign(SigningContext::Grant, b"m");
        assert!(verify(&key.public(), SigningContext::Grant, b"m", &signature));
        assert!(!verify(&other.public(), SigningContext::Grant, b"m", &signature));
        assert!(!verify(&key.public(), SigningContext::Cert, b"m", &signature));
        assert!(!verify(&key.public(), SigningContext::Grant, b"n", &signature));
        let mut flipped = signature;
        flipped.0[40] ^= 1;
        assert!(!verify(&key.public(), SigningContext::Grant, b"m", &flipped));
    }

    #[test]
    fn a_weak_key_verifies_nothing_and_is_refused() {
        // the neutral point: with lenient verification the zero signature fits every message
        let mut weak = PublicKey([0; 32]);
        weak.0[0] = 1;
        let mut signature = Signature([0; 64]);
        signature.0[0] = 1;
        assert!(!verify(&weak, SigningContext::Grant, b"anything", &signature));
        assert_eq!(key_of_spki(&spki(&weak)), None);
    }

    #[test]
    fn a_key_reads_back_from_a_file_that_only_its_owner_can_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.key");
        let key = Key::generate();
        key.save(&path).expect("written");
        assert_eq!(Key::load(&path).expect("read").public(), key.public());
        assert!(key.save(&path).is_err(), "an existing key is never overwritten");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(dir.path().join("b.key"), "garbage").expect("written");
        assert!(Key::load(&dir.path().join("b.key")).is_err());
    }

    #[test]
    fn a_seal_opens_only_with_its_key_and_unaltered() {
        let ring = SealRing::of(SealKey::generate(3));
        let grant = signed_grant();
        let sealed = ring.seal(&grant);
        assert_eq!(ring.open(&sealed), Some(grant));

        assert_eq!(SealKey::generate(3).open(&sealed), None, "another key");
        let renamed = SealKey { epoch: 4, key: ring.keys[0].key };
        assert_eq!(renamed.open(&SealedGrant { epoch: 4, ..sealed.clone() }), None, "the epoch is authenticated");
        for bit in [0, 7, sealed.sealed.len() * 8 - 1] {
            let mut bytes = sealed.sealed.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = SealedGrant { sealed: Blob::new(bytes).expect("as long"), ..sealed.clone() };
            assert_eq!(ring.open(&flipped), None, "bit {bit}");
        }
    }

    /// Rule: a sealed grant can be opened until the second rotation after its sealing; a server that has missed one
    /// rotation can open newer grants.
    #[test]
    fn a_seal_opens_at_servers_one_rotation_behind_or_ahead() {
        let (before, grant) = (SealRing::fresh(), signed_grant());
        let after = before.rotated();
        let (old, new) = (before.seal(&grant), after.seal(&grant));
        assert_eq!((old.epoch, new.epoch), (1, 2));
        assert_eq!(after.open(&old), Some(grant.clone()), "the previous key");
        assert_eq!(before.open(&new), Some(grant.clone()), "the next key, by a server that has not heard yet");
        assert_eq!(after.rotated().open(&new), Some(grant));
        assert_eq!(after.rotated().open(&old), None);
    }

    #[test]
    fn sealing_keys_and_certificates_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let ring = SealRing::fresh().rotated();
        ring.save(&dir.path().join("seal")).expect("written");
        assert_eq!(SealRing::load(&dir.path().join("seal")).expect("read"), ring);
        let cert = signed_grant().cert;
        save_cert(&dir.path().join("cert"), &cert).expect("written");
        assert_eq!(load_cert(&dir.path().join("cert")).expect("read"), cert);
        assert!(load_cert(&dir.path().join("seal")).is_err());
    }
}
