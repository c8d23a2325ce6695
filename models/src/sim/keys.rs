//! Fake cryptography: keys are numbers, a signature is a checksum of key and message, and sealing changes nothing. It
//! is pure, fast, and equal in equal states; the machines cannot forge it.

use crate::scenario::{Name, Role};
use crate::world::NodeIx;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use swarmedge_core::accounting::epochs::Epochs;
use swarmedge_core::ids::{Guid, ProviderId, PublicKey, Signature, VersionId};
use swarmedge_core::nat::{Candidate, CandidateKind, NatBehaviour, NatDescriptor};
use swarmedge_core::wire::geo_location::{GeoLocation, Locality};
use swarmedge_core::wire::records::{
    CertBody, HolderTicket, SealedGrant, ServerCert, ServerRole, SignedGrant, SignedHolderTicket, SigningContext,
};
use swarmedge_core::wire::{Blob, List, Text, Wire};

/// Wall-clock time when a world begins, in Unix milliseconds.
pub const WALL_MS: u64 = 1_800_000_000_000;

/// Returns the operator's root key.
#[must_use]
pub fn root() -> PublicKey {
    PublicKey::numbered(0xffff_ffff)
}

/// Returns the key of a node.
#[must_use]
pub fn key(name: Name) -> PublicKey {
    let role = match name.0 {
        Role::Edge => 1,
        Role::Cn => 2,
        Role::Dn => 3,
        Role::Ledger => 4,
        Role::Client => 5,
    };
    PublicKey::numbered(role << 16 | u32::from(name.1))
}

/// Returns the key of a client after `generation` key changes; `first` is the key that it began with.
#[must_use]
pub fn client_key(first: PublicKey, node: NodeIx, generation: u8) -> PublicKey {
    if generation == 0 {
        return first;
    }
    PublicKey::numbered(8 << 24 | u32::from(generation) << 16 | u32::from(node))
}

/// Returns the key that a client shows to other clients.
#[must_use]
pub fn upload_key(client: NodeIx) -> PublicKey {
    PublicKey::numbered(6 << 16 | u32::from(client))
}

/// Returns the FNV-1a hash of key, context and message.
fn checksum(key: &PublicKey, context: SigningContext, message: &[u8]) -> u64 {
    let all = key.0.iter().chain(context.text()).chain(message);
    all.fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Signs a message as the owner of `key`.
#[must_use]
pub fn sign(key: &PublicKey, context: SigningContext, message: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(&checksum(key, context, message).to_be_bytes());
    Signature(bytes)
}

/// Verifies a signature; the [`swarmedge_core::wire::records::Verify`] of all test worlds.
#[must_use]
pub fn verify(key: &PublicKey, context: SigningContext, message: &[u8], signature: &Signature) -> bool {
    sign(key, context, message) == *signature
}

/// Verifies a signature, but believes every holder's ticket: a seeded defect.
#[must_use]
pub fn verify_all_but_tickets(key: &PublicKey, context: SigningContext, message: &[u8], signature: &Signature) -> bool {
    context == SigningContext::HolderTicket || verify(key, context, message, signature)
}

/// Returns a server's certificate, which is always valid.
#[must_use]
pub fn cert(name: Name, role: ServerRole) -> ServerCert {
    let body = CertBody {
        role,
        name: Text::new(name.to_string()).expect("a node's name is short"),
        key: key(name),
        not_before_ms: 0,
        not_after_ms: u64::MAX,
    };
    let signature = sign(&root(), SigningContext::Cert, &body.to_bytes());
    ServerCert { body, signature }
}

/// Seals a grant under the current epoch of the sealing keys.
#[must_use]
pub fn seal(grant: &SignedGrant, epochs: Epochs) -> SealedGrant {
    let sealed = Blob::new(grant.to_bytes()).expect("a grant fits in a sealed grant");
    SealedGrant { epoch: epochs.current, nonce: [0; 24], sealed }
}

/// Signs a holder's ticket as the edge of this certificate.
#[must_use]
pub fn signed_ticket(ticket: HolderTicket, cert: ServerCert) -> SignedHolderTicket {
    let signature = sign(&cert.body.key, SigningContext::HolderTicket, &ticket.to_bytes());
    SignedHolderTicket { ticket, signature, cert }
}

/// Returns the ticket by which the first edge has granted a version to the client with this key.
#[must_use]
pub fn ticket(client: &PublicKey, version: VersionId) -> Box<SignedHolderTicket> {
    let (guid, provider) = (Guid::of(client), ProviderId(1));
    let ticket = HolderTicket { guid, version, provider, policy_serial: 0, issued_ms: 0, until_ms: 0 };
    Box::new(signed_ticket(ticket, cert(Name(Role::Edge, 0), ServerRole::Edge)))
}

/// Opens a sealed grant; `None` if its epoch is neither the current one nor the one before or after it.
#[must_use]
pub fn open(sealed: &SealedGrant, epochs: Epochs) -> Option<SignedGrant> {
    epochs.opens(sealed.epoch).then(|| SignedGrant::from_bytes(&sealed.sealed).ok())?
}

/// Returns the address of a node's socket.
#[must_use]
pub fn addr(node: NodeIx) -> SocketAddr {
    addr_after(node, 0)
}

/// Returns the address of a node's socket after `moves` changes of its network.
#[must_use]
pub fn addr_after(node: NodeIx, moves: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, moves, 2, node)), 7000)
}

/// Returns the location of an address: even and odd nodes are in different networks of different countries.
#[must_use]
pub fn location(addr: IpAddr) -> GeoLocation {
    let odd = matches!(addr, IpAddr::V4(ip) if ip.octets()[3] % 2 == 1);
    let (asn, country) = if odd { (64_501, *b"FR") } else { (64_500, *b"DE") };
    GeoLocation { locality: Locality { asn: Some(asn), country: Some(country), region: Some(4) }, at: None }
}

/// Returns the node with that address.
#[must_use]
pub fn node_at(addr: SocketAddr) -> Option<NodeIx> {
    match addr.ip() {
        IpAddr::V4(ip) => Some(ip.octets()[3]),
        IpAddr::V6(_) => None,
    }
}

/// Returns the NAT descriptor of a client with a public address.
#[must_use]
pub fn nat(node: NodeIx) -> NatDescriptor {
    NatDescriptor {
        epoch: 1,
        udp: true,
        mapping: NatBehaviour::EndpointIndependent,
        filtering: NatBehaviour::EndpointIndependent,
        candidates: List::truncated([Candidate { kind: CandidateKind::Host, addr: addr(node) }]),
        ..NatDescriptor::default()
    }
}
