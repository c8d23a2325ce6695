//! Results of possession challenges ([`crate::accounting::possession`]), as edges report them.

use crate::ids::{DownloadId, Guid, PublicKey, RecordId, VersionId};

crate::wire! {
    /// Outcomes of a possession challenge.
    pub enum PossessionOutcome {
        /// Client answered correctly: it holds the requested parts of the version, or could fetch them.
        Passed = 1,
        /// Client gave a wrong answer.
        Failed = 2,
        /// Client did not answer in time; it may be switched off.
        Unanswered = 3,
        /// Edge dropped the challenge: it was too busy to send or check it, or could not read its own content.
        Waived = 4,
        /// Client answered correctly after peers had blamed its copy: it holds the requested parts, or could fetch
        /// them.
        Rechecked = 5,
    }
}
impl Copy for PossessionOutcome {}

crate::wire! {
    /// Edge's report of the outcome of a possession challenge. The id is derived from the download
    /// ([`record_id`](crate::accounting::possession::record_id)), so the ledger stores one report for each download.
    pub struct PossessionRecord {
        /// Record's unique id.
        pub id: RecordId,
        /// Signing key of the reporting edge.
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
