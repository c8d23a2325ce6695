//! The key with which an edge signs notices.

use swarmedge_core::notice::sign;
use swarmedge_core::wire::notice::{Notice, SignedNotice};
use swarmedge_core::wire::records::{ServerCert, SigningContext};
use swarmedge_ground::keys::Key;

/// The edge's key for notices, with its certificate.
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
}
