//! TLS configurations for rustls. Servers present X.509 certificates of the operator's CA ([`CertAuthority`]). Clients
//! and peers present raw Ed25519 public keys (RFC 7250): this module verifies the handshake signature, and the core
//! decides whether the key is the right one.

mod stream;
pub mod x509;

pub use stream::TlsStream;

use crate::error::Error;
use crate::keys::{Key, key_of_spki, spki};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName as Dn, PeerMisbehaved, RootCertStore,
    ServerConfig, SignatureScheme,
};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use swarmedge_core::ids::PublicKey;
use swarmedge_core::nat::Transport;
use swarmedge_core::wire::{mux, peer};

/// A server's certificate with its key, which can be replaced while the server runs.
#[derive(Debug)]
pub struct LiveCert(RwLock<Arc<CertifiedKey>>);

impl LiveCert {
    /// Reads a certificate chain and its key (both PEM).
    pub fn new(cert_pem: &str, key_pem: &str) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self(RwLock::new(Arc::new(certified_pem(cert_pem, key_pem)?)))))
    }

    /// Replaces both for new connections. Returns whether the certificate is another; an error leaves the old one.
    pub fn replace(&self, cert_pem: &str, key_pem: &str) -> Result<bool, Error> {
        let new = certified_pem(cert_pem, key_pem)?;
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let differs = now.cert != new.cert;
        if differs {
            *now = Arc::new(new);
        }
        Ok(differs)
    }
}

impl ResolvesServerCert for LiveCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn certified_pem(cert_pem: &str, key_pem: &str) -> Result<CertifiedKey, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(cert_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| Error::usage(format!("the TLS certificate is not PEM: {e}")))?;
    if chain.is_empty() {
        return Err(Error::usage("the TLS certificate's file holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|e| Error::usage(format!("the TLS key is not PEM: {e}")))?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|e| Error::usage(format!("the TLS certificate and its key do not fit: {e}")))
}

/// Makes a server's configuration with a certificate that stays, as [`live_server_config`].
pub fn server_config(cert_pem: &str, key_pem: &str, ask_client_key: bool) -> Result<Arc<ServerConfig>, Error> {
    live_server_config(LiveCert::new(cert_pem, key_pem)?, ask_client_key)
}

/// Makes a server's configuration. With `ask_client_key` a client must prove an Ed25519 key in a TLS 1.3 handshake (CN,
/// DN, ledger); without it the server speaks HTTP/1.1 to any client, over TLS 1.2 too (edge).
pub fn live_server_config(cert: Arc<LiveCert>, ask_client_key: bool) -> Result<Arc<ServerConfig>, Error> {
    let versions: &[_] = if ask_client_key { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|e| Error::failed(format!("TLS: {e}")))?;
    let builder = if ask_client_key {
        builder.with_client_cert_verifier(Arc::new(RawKey::any()))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(cert);
    if ask_client_key {
        // control connections live for hours, and a resumed one would skip the proof of the key
        config.send_tls13_tickets = 0;
    } else {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    Ok(Arc::new(config))
}

/// Makes the configuration of a client of servers whose certificates the CAs in `ca_pem` issued. `client_key` must be
/// given for servers that ask for one and `None` for the others, which would refuse the offer.
pub fn client_config(ca_pem: &str, client_key: Option<&Key>) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let cert = cert.map_err(|e| Error::usage(format!("the CA certificate is not PEM: {e}")))?;
        roots.add(cert).map_err(|e| Error::usage(format!("the CA certificate is not usable: {e}")))?;
    }
    if roots.is_empty() {
        return Err(Error::usage("the CA file holds no certificate"));
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| Error::failed(format!("TLS: {e}")))?
        .with_root_certificates(roots);
    Ok(Arc::new(match client_key {
        None => builder.with_no_client_auth(),
        Some(key) => {
            let resolver = AlwaysResolvesClientRawPublicKeys::new(certified(key)?);
            builder.with_client_cert_resolver(Arc::new(resolver))
        }
    }))
}

/// Makes the configuration for dialling a peer: the peer must prove `expect`, and `own` is proven to it.
pub fn peer_client_config(own: &Key, expect: PublicKey, over: Transport) -> Result<Arc<ClientConfig>, Error> {
    let resolver = AlwaysResolvesClientRawPublicKeys::new(certified(own)?);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| Error::failed(format!("TLS: {e}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RawKey::only(expect)))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![alpn(over)];
    // a resumed session would skip the proof of the key
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Makes the configuration for accepting peers: `own` is proven to them, and each must prove a key, which the core
/// checks.
pub fn peer_server_config(own: &Key, over: Transport) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| Error::failed(format!("TLS: {e}")))?
        .with_client_cert_verifier(Arc::new(RawKey::any()))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(own)?)));
    config.alpn_protocols = vec![alpn(over)];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Returns the ALPN id of the peer protocol over this transport.
fn alpn(over: Transport) -> Vec<u8> {
    match over {
        Transport::Udp => peer::ALPN.to_vec(),
        Transport::Tcp => mux::ALPN.to_vec(),
    }
}

/// Returns the raw key that the other side has proven; `None` for a certificate or another kind of key.
#[must_use]
pub fn peer_key(certs: &[CertificateDer<'_>]) -> Option<PublicKey> {
    let [only] = certs else { return None };
    key_of_spki(only)
}

/// Returns the rustls cryptography provider; always passed explicitly, never set as the process default.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Makes the raw public key (RFC 7250) with which this side identifies itself.
fn certified(key: &Key) -> Result<Arc<CertifiedKey>, Error> {
    let signer = provider()
        .key_provider
        .load_private_key(key.to_private_der())
        .map_err(|e| Error::failed(format!("the key cannot be used for TLS: {e}")))?;
    Ok(Arc::new(CertifiedKey::new(vec![spki(&key.public())], signer)))
}

/// Certificate verifier: the other side must prove an Ed25519 key, either any or only the expected one.
#[derive(Debug)]
struct RawKey {
    expect: Option<PublicKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl RawKey {
    fn any() -> Self {
        Self { expect: None, algorithms: provider().signature_verification_algorithms }
    }

    fn only(key: PublicKey) -> Self {
        Self { expect: Some(key), ..Self::any() }
    }

    fn check(&self, spki: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let key = key_of_spki(spki).filter(|_| more.is_empty());
        let key = key.ok_or(rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if self.expect.is_none_or(|expect| expect == key) {
            Ok(())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

/// Signature checks for raw public keys, the same in the verifier of clients and in the verifier of servers.
macro_rules! raw_key_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            // raw keys are used with TLS 1.3 only
            Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            spki: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.check_signature(message, spki, signature)
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ClientCertVerifier for RawKey {
    fn root_hint_subjects(&self) -> &[Dn] {
        &[]
    }
    fn verify_client_cert(
        &self,
        spki: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(spki, more).map(|()| ClientCertVerified::assertion())
    }
    raw_key_signatures!();
}

impl ServerCertVerifier for RawKey {
    fn verify_server_cert(
        &self,
        spki: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(spki, more).map(|()| ServerCertVerified::assertion())
    }
    raw_key_signatures!();
}

/// The operator's certificate authority for the servers' X.509 certificates (P-256).
#[derive(Debug)]
pub struct CertAuthority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

impl CertAuthority {
    /// Makes a new authority, valid for ten years.
    pub fn new() -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(unissued)?;
        let params = Self::params()?;
        let cert_pem = params.self_signed(&key).map_err(unissued)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), cert_pem })
    }

    /// Loads an authority from the text of its certificate and key files (PEM).
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key_pem).map_err(|e| Error::usage(format!("the CA's key is not usable: {e}")))?;
        // issued certificates name the CA by subject and key, which do not change
        Ok(Self { issuer: Issuer::new(Self::params()?, key), cert_pem: cert_pem.to_owned() })
    }

    fn params() -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::new(Vec::new()).map_err(unissued)?;
        params.distinguished_name = named("Swarmedge operator CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, 3650);
        Ok(params)
    }

    /// Returns the CA certificate (PEM), for clients, curl and browsers.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Returns the CA's private key (PEM).
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Returns whether this authority's key signed the first certificate of a chain (PEM).
    pub fn has_issued(&self, cert_pem: &str) -> Result<bool, Error> {
        // the CA file may hold other certificates too, so the own one is derived from the key
        let own = Self::params()?.self_signed(self.issuer.key()).map_err(unissued)?;
        Ok(x509::is_issued_by(cert_pem, &own.pem()))
    }

    /// Issues a certificate with a new key (both PEM) for these DNS names and IP addresses, valid for a year.
    pub fn issue(&self, names: &[impl AsRef<str>]) -> Result<(String, String), Error> {
        let key = KeyPair::generate().map_err(unissued)?;
        let names: Vec<String> = names.iter().map(|n| n.as_ref().to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).map_err(unissued)?;
        params.distinguished_name = named(names.first().map_or("server", String::as_str));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, 365);
        let cert = params.signed_by(&key, &self.issuer).map_err(unissued)?;
        Ok((cert.pem(), key.serialize_pem()))
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

fn valid_for(params: &mut CertificateParams, days: u64) {
    let day = Duration::from_secs(24 * 60 * 60);
    let now = SystemTime::now();
    // valid from yesterday, since clocks differ
    params.not_before = (now - day).into();
    params.not_after = (now + day * u32::try_from(days).unwrap_or(u32::MAX)).into();
}

#[expect(clippy::needless_pass_by_value, reason = "shaped for map_err")]
fn unissued(e: rcgen::Error) -> Error {
    Error::failed(format!("cannot make a certificate: {e}"))
}

#[cfg(test)]
mod tests;
