//! Holder's tickets: an edge's statement that it has granted a version to a client, which stays with the client's copy.

use super::{Grant, ServerCert};
use crate::ids::{Guid, ProviderId, Signature, VersionId};

crate::wire! {
    /// Edge's statement that it has granted a version to a client, given with each grant. A client shows it to its CN
    /// when it offers its copy of the version. It does not end with the grant, but with the policy. Signed under
    /// [`super::SigningContext::HolderTicket`]; [`crate::accounting::tickets`] has the rules.
    pub struct HolderTicket {
        /// Client that was granted the version.
        pub guid: Guid,
        /// Version that was granted.
        pub version: VersionId,
        /// Provider of the object.
        pub provider: ProviderId,
        /// Serial number of the newest notice about the version at the time of issue; 0: there was none.
        pub policy_serial: u64,
        /// Time of issue, Unix milliseconds.
        pub issued_ms: u64,
        /// Expiry of the object by its policy at the time of issue, Unix milliseconds; 0: none.
        pub until_ms: u64,
    }

    /// Holder's ticket with its edge's signature.
    pub struct SignedHolderTicket {
        /// Ticket that the edge issued.
        pub ticket: HolderTicket,
        /// Edge's signature over the encoding of `ticket`.
        pub signature: Signature,
        /// Certificate of the signing edge.
        pub cert: ServerCert,
    }
}

impl HolderTicket {
    /// Returns the ticket that goes with a grant. `policy_serial`: serial number of the newest notice about the
    /// version; 0: there is none.
    #[must_use]
    pub const fn of(grant: &Grant, policy_serial: u64) -> Self {
        Self {
            guid: grant.guid,
            version: grant.version,
            provider: grant.provider,
            policy_serial,
            issued_ms: grant.issued_ms,
            until_ms: grant.policy.expires_ms,
        }
    }
}

impl SignedHolderTicket {
    /// Returns whether the ticket names this client and this version.
    #[must_use]
    pub fn is_of(&self, guid: Guid, version: VersionId) -> bool {
        (self.ticket.guid, self.ticket.version) == (guid, version)
    }
}
