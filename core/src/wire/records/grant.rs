//! Record of a download's grant: which provider pays, and within which limits.

use super::{Grant, SignedGrant};
use crate::ids::{DownloadId, Guid, ProviderId, PublicKey, RecordId, VersionId};
use crate::limits;
use crate::wire::Text;
use sha2::{Digest as _, Sha256};

crate::wire! {
    /// Download's grant as servers report it to the ledger: an edge when it sends the first bytes, a CN when it makes
    /// the first introduction. The id is derived from the download, so the ledger stores the record once.
    pub struct GrantRecord {
        /// Record id, derived by [`GrantRecord::id_of`].
        pub id: RecordId,
        /// Download that the grant permits.
        pub download: DownloadId,
        /// Client that downloads.
        pub guid: Guid,
        /// The download's public key, which checks the signatures of its receipts.
        pub download_key: PublicKey,
        /// Version that may be downloaded.
        pub version: VersionId,
        /// Bytes of the version.
        pub size: u64,
        /// Provider that pays for the delivery.
        pub provider: ProviderId,
        /// Object's path within the provider.
        pub path: Text<{ limits::PATH_LEN_MAX }>,
        /// Time at which the download's first grant was issued, Unix milliseconds.
        pub issued_ms: u64,
        /// Maximum of bytes from peers that are billed for the download.
        pub max_peer_bytes: u64,
        /// Whether the client must answer a possession challenge when it completes ([`Grant::challenged`]). If the
        /// client completes the download and the ledger gets no [`PossessionRecord`](super::PossessionRecord), the
        /// client has not reported the completion to an edge.
        pub challenged: bool,
        /// Signed grant as proof, in a CN's record. The ledger verifies it and does not store it. `None` in an edge's
        /// record.
        pub proof: Option<SignedGrant>,
    }
}

/// Prefix of the hash input for a grant record's id.
const GRANT_RECORD_TEXT: &[u8] = b"swarmedge/1 grant record\0";

impl GrantRecord {
    /// Returns the grant record's id, the same for every server that writes it.
    #[must_use]
    pub fn id_of(download: DownloadId) -> RecordId {
        let hash = Sha256::new_with_prefix(GRANT_RECORD_TEXT).chain_update(download.0).finalize();
        let mut id = [0; RecordId::LEN];
        id.copy_from_slice(&hash[..RecordId::LEN]);
        RecordId(id)
    }

    /// Returns the record of a grant, whether first or renewed.
    #[must_use]
    pub fn of(grant: &Grant) -> Self {
        Self {
            id: Self::id_of(grant.download),
            download: grant.download,
            guid: grant.guid,
            download_key: grant.download_key,
            version: grant.version,
            size: grant.size,
            provider: grant.provider,
            path: grant.path.clone(),
            issued_ms: grant.began_ms,
            max_peer_bytes: grant.max_peer_bytes,
            challenged: grant.challenged,
            proof: None,
        }
    }

    /// Returns the record of a grant presented to a CN, with the signed grant as proof.
    #[must_use]
    pub fn shown(signed: &SignedGrant) -> Self {
        Self { proof: Some(signed.clone()), ..Self::of(&signed.grant) }
    }
}
