//! What edges say of possession challenges: see [`crate::accounting::possession`].

use crate::ids::{DownloadId, Guid, PublicKey, RecordId, VersionId};

crate::wire! {
    /// Outcomes of a possession challenge.
    pub enum PossessionOutcome {
        /// The client holds the parts that it was asked for, or could get them.
        Passed = 1,
        /// Client gave a wrong answer.
        Failed = 2,
        /// Client did not answer in time; it may be switched off.
        Unanswered = 3,
        /// Edge was too busy to send the challenge.
        Waived = 4,
    }
}
impl Copy for PossessionOutcome {}

crate::wire! {
    /// What became of a download's possession challenge: at most one a download, see
    /// [`record_id`](crate::accounting::possession::record_id).
    pub struct PossessionRecord {
        /// Record's unique id.
        pub id: RecordId,
        /// The edge's signing key.
        pub edge: PublicKey,
        /// Download that was challenged.
        pub download: DownloadId,
        /// Client that was challenged.
        pub guid: Guid,
        /// Version of the challenged download.
        pub version: VersionId,
        /// Outcome of the challenge.
        pub outcome: PossessionOutcome,
        /// Time of the outcome, Unix milliseconds.
        pub at_ms: u64,
    }
}
