//! What edges say of possession challenges: see [`crate::accounting::possession`].

use crate::ids::{DownloadId, Guid, PublicKey, RecordId, VersionId};

crate::wire! {
    /// What became of a possession challenge.
    pub enum PossessionOutcome {
        /// The client holds the parts that it was asked for, or could get them.
        Passed = 1,
        /// It answered wrongly.
        Failed = 2,
        /// It did not answer in time: it may have been switched off.
        Unanswered = 3,
        /// It was to be asked, and the edge had too much to do.
        Waived = 4,
    }
}
impl Copy for PossessionOutcome {}

crate::wire! {
    /// What became of a download's possession challenge: at most one a download, see
    /// [`record_id`](crate::accounting::possession::record_id).
    pub struct PossessionRecord {
        /// Its name.
        pub id: RecordId,
        /// The edge's signing key.
        pub edge: PublicKey,
        /// The download.
        pub download: DownloadId,
        /// Who was asked.
        pub guid: Guid,
        /// The version.
        pub version: VersionId,
        /// What became of it.
        pub outcome: PossessionOutcome,
        /// When, Unix milliseconds.
        pub at_ms: u64,
    }
}
