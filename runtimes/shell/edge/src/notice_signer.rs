//! The key with which an edge signs notices and holder's tickets.

use swarmedge_core::notice::sign;
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::notice::{Notice, SignedNotice};
use swarmedge_core::wire::records::{HolderTicket, ServerCert, SignedHolderTicket, SigningContext};
use swarmedge_ground::keys::Key;

/// The edge's key and certificate, with which it signs notices (statements about a version's policy) and holder's
/// tickets (statements that a client was granted a version).
#[derive(Clone, Debug)]
pub struct NoticeSigner {
    /// The edge's signing key.
    pub key: Key,
    /// The operator's certificate of the key.
    pub cert: ServerCert,
}

impl NoticeSigner {
    /// Returns the notice with the edge's signature.
    #[must_use]
    pub fn sign(&self, notice: &Notice) -> SignedNotice {
        sign(notice, self.cert.clone(), |bytes| self.key.sign(SigningContext::Notice, bytes))
    }

    /// Returns the holder's ticket with the edge's signature.
    #[must_use]
    pub fn sign_ticket(&self, ticket: HolderTicket) -> SignedHolderTicket {
        let signature = self.key.sign(SigningContext::HolderTicket, &ticket.to_bytes());
        SignedHolderTicket { ticket, signature, cert: self.cert.clone() }
    }
}
