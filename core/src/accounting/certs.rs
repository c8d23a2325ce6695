//! The chain of trust: the operator's root key signs a server's certificate, and the certified key signs grants,
//! introductions, checkpoints and log heads.

use crate::ids::{Digest, PublicKey, Signature};
use crate::wire::Wire;
use crate::wire::records::{ServerCert, ServerRole, SigningContext, Verify};
use alloc::collections::BTreeSet;
use sha2::{Digest as _, Sha256};

/// The operator's root key, from which all trust derives, with the function that checks signatures.
#[derive(Clone, Copy, Debug)]
pub struct Trust {
    /// The operator's root key.
    pub root: PublicKey,
    /// Function that checks a signature.
    pub verify: Verify,
}

/// Reason for not accepting a certificate or a signed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertError {
    /// The certificate is for another role.
    Role,
    /// The certificate is not valid yet, or has expired.
    Time,
    /// A signature is wrong.
    Signature,
}

/// Largest number of certificates that are remembered: more than a deployment's edges have in some years.
const KNOWN_CERTS_MAX: usize = 256;

/// Certificates whose signatures by the operator's root were verified, by their hashes. Only the operator can make such
/// certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KnownCerts(BTreeSet<Digest>);

impl KnownCerts {
    fn add(&mut self, cert: Digest) {
        if self.0.len() >= KNOWN_CERTS_MAX {
            self.0.pop_first();
        }
        self.0.insert(cert);
    }

    /// Asserts that the number of certificates is bounded.
    pub fn check(&self) {
        assert!(self.0.len() <= KNOWN_CERTS_MAX, "known certificates are bounded");
    }
}

impl Trust {
    /// Checks that the root certified this key for `role` at `now_ms`, Unix milliseconds.
    pub fn check_cert(&self, cert: &ServerCert, role: ServerRole, now_ms: u64) -> Result<(), CertError> {
        check_use(cert, role, now_ms)?;
        self.check_root(cert)
    }

    /// Checks a certificate as [`Self::check_cert`] does, its signature only if it is not known.
    pub fn check_cert_once(
        &self,
        known: &mut KnownCerts,
        cert: &ServerCert,
        role: ServerRole,
        now_ms: u64,
    ) -> Result<(), CertError> {
        check_use(cert, role, now_ms)?;
        let hash = Digest(Sha256::digest(cert.to_bytes()).into());
        if !known.0.contains(&hash) {
            self.check_root(cert)?;
            known.add(hash);
        }
        Ok(())
    }

    fn check_root(&self, cert: &ServerCert) -> Result<(), CertError> {
        self.check_signature(&self.root, SigningContext::Cert, &cert.body.to_bytes(), &cert.signature)
    }

    /// Checks that the certificate is valid for `role` at `now_ms` (Unix milliseconds) and that its key signed the
    /// message.
    pub fn check_signed(
        &self,
        cert: &ServerCert,
        role: ServerRole,
        now_ms: u64,
        (context, message, signature): (SigningContext, &[u8], &Signature),
    ) -> Result<(), CertError> {
        self.check_cert(cert, role, now_ms)?;
        self.check_signature(&cert.body.key, context, message, signature)
    }

    pub(super) fn check_signature(
        &self,
        key: &PublicKey,
        context: SigningContext,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), CertError> {
        if (self.verify)(key, context, message, signature) { Ok(()) } else { Err(CertError::Signature) }
    }
}

/// Checks that a certificate is for this role, and valid at `now_ms`, Unix milliseconds.
fn check_use(cert: &ServerCert, role: ServerRole, now_ms: u64) -> Result<(), CertError> {
    let body = &cert.body;
    if body.role != role {
        return Err(CertError::Role);
    }
    let is_valid = (body.not_before_ms..body.not_after_ms).contains(&now_ms);
    if is_valid { Ok(()) } else { Err(CertError::Time) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::Text;

    /// Returns a signature that only tests accept: a hash of key, context and message.
    pub(crate) fn fake_sign(key: &PublicKey, context: SigningContext, message: &[u8]) -> Signature {
        let mut h = sha2::Sha256::new();
        h.update(key.0);
        h.update(context.text());
        h.update(message);
        let digest: [u8; 32] = h.finalize().into();
        let mut s = [0; 64];
        s[..32].copy_from_slice(&digest);
        Signature(s)
    }

    pub(crate) fn fake_verify(key: &PublicKey, context: SigningContext, message: &[u8], signature: &Signature) -> bool {
        fake_sign(key, context, message) == *signature
    }

    pub(crate) const ROOT: PublicKey = PublicKey([7; 32]);

    pub(crate) fn trust() -> Trust {
        Trust { root: ROOT, verify: fake_verify }
    }

    /// Returns a certificate that is valid from 1,000 to 1,000,000,000 ms.
    pub(crate) fn cert(role: ServerRole, key: PublicKey) -> ServerCert {
        let body = crate::wire::records::CertBody {
            role,
            name: Text::new("test").expect("a short name"),
            key,
            not_before_ms: 1_000,
            not_after_ms: 1_000_000_000,
        };
        let signature = fake_sign(&ROOT, SigningContext::Cert, &body.to_bytes());
        ServerCert { body, signature }
    }

    #[test]
    fn a_certificate_is_valid_for_its_role_and_time_only() {
        let c = cert(ServerRole::Cn, PublicKey::numbered(1));
        assert_eq!(trust().check_cert(&c, ServerRole::Cn, 1_000), Ok(()));
        assert_eq!(trust().check_cert(&c, ServerRole::Edge, 1_000), Err(CertError::Role));
        assert_eq!(trust().check_cert(&c, ServerRole::Cn, 999), Err(CertError::Time));
        assert_eq!(trust().check_cert(&c, ServerRole::Cn, 1_000_000_000), Err(CertError::Time));
    }

    #[test]
    fn a_certificate_by_another_root_or_with_a_changed_body_is_refused() {
        let mut c = cert(ServerRole::Cn, PublicKey::numbered(1));
        let stranger = Trust { root: PublicKey::numbered(9), verify: fake_verify };
        assert_eq!(stranger.check_cert(&c, ServerRole::Cn, 5_000), Err(CertError::Signature));
        c.body.not_after_ms += 1;
        assert_eq!(trust().check_cert(&c, ServerRole::Cn, 5_000), Err(CertError::Signature));
    }

    #[test]
    fn a_known_certificate_is_checked_for_everything_but_its_signature() {
        let (c, mut known) = (cert(ServerRole::Cn, PublicKey::numbered(1)), KnownCerts::default());
        let mut check = |trust: Trust, c: &ServerCert, role, now_ms| trust.check_cert_once(&mut known, c, role, now_ms);
        let blind = Trust { root: ROOT, verify: |_, _, _, _| false };
        assert_eq!(check(blind, &c, ServerRole::Cn, 5_000), Err(CertError::Signature), "not known yet");
        assert_eq!(check(trust(), &c, ServerRole::Cn, 5_000), Ok(()));
        assert_eq!(check(blind, &c, ServerRole::Cn, 5_000), Ok(()), "the signature is not checked again");
        assert_eq!(check(trust(), &c, ServerRole::Edge, 5_000), Err(CertError::Role));
        assert_eq!(check(trust(), &c, ServerRole::Cn, 1_000_000_000), Err(CertError::Time));
        let mut forged = c;
        forged.body.not_after_ms += 1;
        assert_eq!(check(trust(), &forged, ServerRole::Cn, 5_000), Err(CertError::Signature));
    }

    #[test]
    fn known_certificates_are_bounded() {
        let mut known = KnownCerts::default();
        for n in 0..1_000 {
            let c = cert(ServerRole::Cn, PublicKey::numbered(n));
            assert_eq!(trust().check_cert_once(&mut known, &c, ServerRole::Cn, 5_000), Ok(()));
        }
        known.check();
    }

    #[test]
    fn a_signature_for_one_purpose_serves_no_other() {
        let key = PublicKey::numbered(1);
        let c = cert(ServerRole::Edge, key);
        let s = fake_sign(&key, SigningContext::Grant, b"m");
        let check = |context| trust().check_signed(&c, ServerRole::Edge, 5_000, (context, b"m", &s));
        assert_eq!(check(SigningContext::Grant), Ok(()));
        assert_eq!(check(SigningContext::Introductions), Err(CertError::Signature));
    }
}
