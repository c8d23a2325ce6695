//! Audit: signed statements of the traffic of each closed day (a day after which the ledger changes its figures no
//! more), which a provider checks against its invoice with public keys and exported files alone.
//!
//! The settled downloads of a day are the leaves of a Merkle tree ([`tree`]): each provider's leaves are adjacent and
//! end with the provider's sum. The days' roots are the leaves of a second Merkle tree, the log of days; the ledger
//! signs its root each time a day is closed. A provider's export holds all its leaves of a day and three proofs: the
//! leaves are exactly one range of the day's tree; the day is in the log; the log still begins with the log that was
//! signed before.

pub mod settled;
pub mod tree;

use super::{CertError, Trust};
use crate::ids::{Digest, DownloadId, ProviderId, PublicKey, Signature, VersionId};
use crate::limits;
use crate::wire::records::{ServerCert, ServerRole, SigningContext};
use crate::wire::{Text, Wire};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

crate::wire! {
    /// State of a download when the ledger closed the day on which it is billed.
    pub enum Outcome {
        /// The edge issued a grant, but the client never reported.
        Unreported = 1,
        /// The client's last report said that the download was still running.
        Unfinished = 2,
        /// The client verified all bytes and stored them durably.
        Completed = 3,
        /// The user cancelled the download.
        Cancelled = 4,
        /// The client ended the download because of an error.
        Failed = 5,
    }
}
impl Copy for Outcome {}

crate::wire! {
    /// Figures of one download after settlement, as its provider is billed for them.
    pub struct DownloadStatement {
        /// The provider that pays for the download.
        pub provider: ProviderId,
        /// The billing day, counted from 1970-01-01 (UTC).
        pub day: u32,
        /// The download's unique id.
        pub download: DownloadId,
        /// The object's path, without the provider's id.
        pub path: Text<{ limits::PATH_LEN_MAX }>,
        /// The version that was downloaded.
        pub version: VersionId,
        /// Size of the version in bytes.
        pub size: u64,
        /// The download's state when the day was closed.
        pub outcome: Outcome,
        /// Bytes of the version that edges sent, each byte counted once even if several edges sent it.
        pub edge_bytes: u64,
        /// Bytes from peers that are billed.
        pub peer_bytes: u64,
        /// Bytes that downloader or uploader claimed to have exchanged and that are not billed.
        pub flagged_bytes: u64,
        /// SHA-256 over the usage and server records from which these figures were computed
        /// ([`digest_of`](super::evidence::digest_of)).
        pub evidence: Digest,
        /// Maximum of bytes from peers that may be billed, as the download's first grant sets it.
        pub max_peer_bytes: u64,
    }

    /// Bytes of a version that one edge sent on one day to HTTP clients without a grant, such as curl.
    pub struct PlainStatement {
        /// The provider that pays for the traffic.
        pub provider: ProviderId,
        /// The billing day, counted from 1970-01-01 (UTC).
        pub day: u32,
        /// The version that was sent.
        pub version: VersionId,
        /// The public key of the edge.
        pub edge: PublicKey,
        /// Bytes that the edge sent.
        pub bytes: u64,
    }

    /// A provider's billable totals, summed over its statements.
    #[derive(Default)]
    pub struct Totals {
        /// Number of downloads with a grant.
        pub downloads: u64,
        /// Number of those downloads that completed.
        pub completed: u64,
        /// Bytes sent by edges to clients with a grant.
        pub edge_bytes: u64,
        /// Bytes from peers that are billed.
        pub peer_bytes: u64,
        /// Bytes of plain HTTP traffic.
        pub plain_bytes: u64,
    }

    /// Sum of a provider's statements of one day, the last of its leaves in the day's Merkle tree. Each day from the
    /// provider's first one on has a sum, which is zero without traffic.
    pub struct SumStatement {
        /// The provider that pays the sum.
        pub provider: ProviderId,
        /// The billing day, counted from 1970-01-01 (UTC).
        pub day: u32,
        /// Number of statements before this one, of the same provider and day.
        pub statements: u64,
        /// Totals over the statements before this one.
        pub totals: Totals,
        /// The provider's first day with a statement, counted from 1970-01-01. Every later day has a sum, so all
        /// statements of a day cannot be removed unnoticed.
        pub since: u32,
    }

    /// One closed day, a leaf of the ledger's Merkle tree of days (the log).
    pub struct DayLeaf {
        /// The day, counted from 1970-01-01 (UTC).
        pub day: u32,
        /// Number of leaves of the day's tree.
        pub leaves: u64,
        /// Root of the day's Merkle tree.
        pub root: Digest,
    }

    /// State of the ledger's Merkle tree of days (the log) after a day was closed.
    pub struct Head {
        /// Number of days in the log.
        pub days: u64,
        /// Root of the log's Merkle tree.
        pub root: Digest,
        /// The last day in the log, counted from 1970-01-01 (UTC).
        pub day: u32,
        /// Time at which the last day was closed, Unix milliseconds.
        pub closed_ms: u64,
    }

    /// Size and root of the ledger's tree of days with the ledger's signature ([`SigningContext::LedgerHead`]).
    pub struct SignedHead {
        /// The head that is signed.
        pub head: Head,
        /// The ledger's signature over the encoding of `head`.
        pub signature: Signature,
        /// The ledger's certificate, signed by the operator's root key.
        pub cert: ServerCert,
    }
}

crate::wire! {
    /// A leaf of a day's tree.
    pub enum Leaf {
        /// A settled download.
        Download(DownloadStatement) = 1,
        /// Plain HTTP traffic of one version from one edge.
        Plain(PlainStatement) = 2,
        /// A provider's sum.
        Sum(SumStatement) = 3,
    }
}

impl Totals {
    /// Adds the figures of one statement to the totals. Does nothing for a [`SumStatement`].
    pub fn add(&mut self, leaf: &Leaf) {
        if let Leaf::Download(d) = leaf {
            self.downloads = self.downloads.saturating_add(1);
            self.completed = self.completed.saturating_add(u64::from(d.outcome == Outcome::Completed));
            self.edge_bytes = self.edge_bytes.saturating_add(d.edge_bytes);
            self.peer_bytes = self.peer_bytes.saturating_add(d.peer_bytes);
        }
        if let Leaf::Plain(p) = leaf {
            self.plain_bytes = self.plain_bytes.saturating_add(p.bytes);
        }
    }

    /// Adds other totals to these, for instance those of another day.
    pub fn join(&mut self, other: &Self) {
        self.downloads = self.downloads.saturating_add(other.downloads);
        self.completed = self.completed.saturating_add(other.completed);
        self.edge_bytes = self.edge_bytes.saturating_add(other.edge_bytes);
        self.peer_bytes = self.peer_bytes.saturating_add(other.peer_bytes);
        self.plain_bytes = self.plain_bytes.saturating_add(other.plain_bytes);
    }
}

impl Leaf {
    /// Returns the leaf's hash in the Merkle tree of its day.
    #[must_use]
    pub fn hash(&self) -> Digest {
        tree::leaf_hash(&self.to_bytes())
    }

    /// Returns the provider and the day that the leaf belongs to.
    #[must_use]
    pub const fn of(&self) -> (ProviderId, u32) {
        match self {
            Self::Download(s) => (s.provider, s.day),
            Self::Plain(s) => (s.provider, s.day),
            Self::Sum(s) => (s.provider, s.day),
        }
    }

    /// Returns the provider's sum if the leaf is one; else `None`.
    #[must_use]
    pub const fn sum(&self) -> Option<&SumStatement> {
        match self {
            Self::Sum(s) => Some(s),
            Self::Download(_) | Self::Plain(_) => None,
        }
    }

    /// Returns a download's figures; `None` if the leaf is not a download.
    #[must_use]
    pub const fn download(&self) -> Option<&DownloadStatement> {
        match self {
            Self::Download(s) => Some(s),
            Self::Plain(_) | Self::Sum(_) => None,
        }
    }
}

impl DayLeaf {
    /// Returns the day's leaf hash in the ledger's Merkle tree of days.
    #[must_use]
    pub fn hash(&self) -> Digest {
        tree::leaf_hash(&self.to_bytes())
    }
}

/// A provider's statements of a closed day, with the proofs for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderDay {
    /// The provider that the export belongs to.
    pub provider: ProviderId,
    /// The closed day, as a leaf of the log.
    pub day: DayLeaf,
    /// Index of the first statement in the day's tree.
    pub first: u64,
    /// The provider's statements, their sum last; empty before the provider's first day.
    pub leaves: Vec<Leaf>,
    /// Proof that `leaves` are one range of the day's tree ([`tree::range`]).
    pub range: Vec<Digest>,
    /// Audit path of the day in the log of `head`, where the day is the last leaf.
    pub inclusion: Vec<Digest>,
    /// Log head before this day was closed; `None` for the first day of the log.
    pub previous: Option<SignedHead>,
    /// Proof that the log of `head` begins with the log of `previous`.
    pub consistency: Vec<Digest>,
    /// Log head after this day was closed.
    pub head: SignedHead,
}

/// A defect that an audit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// A signed head has a wrong signature, or the certificate of its ledger is not valid.
    Signature(CertError),
    /// The day is not the last leaf of the signed log.
    NotInLog,
    /// The signed tree of days does not begin with the tree that was signed before: an earlier day was changed.
    Rewritten,
    /// A statement belongs to another provider or day.
    Foreign,
    /// The number of statements differs from the number in their sum: some were dropped or added.
    Count {
        /// Number of statements according to the sum; 0 if there is no sum.
        expected: u64,
        /// Number of statements in the export, the last leaf not counted.
        found: u64,
    },
    /// The totals over the statements differ from those in the provider's sum.
    Sum,
    /// The statements do not match the day's tree: one was changed, or all were replaced.
    Changed,
    /// A download's billed bytes from peers exceed the grant's maximum, or the version's size less the edges' bytes.
    OverBilled(DownloadId),
    /// Two statements bill the same download.
    BilledTwice(DownloadId),
    /// The ledger signed two heads that contradict each other: the day was replaced by another.
    Replaced,
    /// The preceding day is missing from the export, so its traffic may be hidden.
    Gap,
    /// The day has no statement, not even a sum of zero, although the provider had statements before.
    Emptied,
    /// A day's sum names a first day that is after the day itself or differs from the other sums' first day.
    TooEarly,
    /// No day has a statement, so nothing proves that there was no traffic.
    Nothing,
}

impl ProviderDay {
    /// Checks all signatures, proofs and sums of the day and returns its totals, or the first defect.
    pub fn check(&self, trust: &Trust) -> Result<Totals, Finding> {
        self.check_log(trust)?;
        if self.leaves.is_empty() {
            return Ok(Totals::default());
        }
        let totals = self.check_statements()?;
        let hashes: Vec<Digest> = self.leaves.iter().map(Leaf::hash).collect();
        if !tree::is_range(self.first, &hashes, self.day.leaves, &self.range, &self.day.root) {
            return Err(Finding::Changed);
        }
        Ok(totals)
    }

    /// Checks the signatures of both heads, that the day is the last one of the log of `head`, and that this log
    /// continues the log of `previous`.
    fn check_log(&self, trust: &Trust) -> Result<(), Finding> {
        let signed = |h: &SignedHead| {
            let by = (SigningContext::LedgerHead, &h.head.to_bytes()[..], &h.signature);
            trust.check_signed(&h.cert, ServerRole::Ledger, h.head.closed_ms, by).map_err(Finding::Signature)
        };
        signed(&self.head)?;
        let head = &self.head.head;
        let last = head.days.checked_sub(1).ok_or(Finding::NotInLog)?;
        let leaf = self.day.hash();
        if head.day != self.day.day || !tree::is_included(&leaf, last, head.days, &self.inclusion, &head.root) {
            return Err(Finding::NotInLog);
        }
        let Some(previous) = &self.previous else {
            return if last == 0 { Ok(()) } else { Err(Finding::Rewritten) };
        };
        signed(previous)?;
        let previous = &previous.head;
        let follows = previous.days == last && previous.day.checked_add(1) == Some(head.day);
        let consistent =
            tree::is_consistent((previous.days, &previous.root), (head.days, &head.root), &self.consistency);
        if follows && consistent { Ok(()) } else { Err(Finding::Rewritten) }
    }

    /// Checks that the statements add up to their sum and that no download is billed above its limits.
    fn check_statements(&self) -> Result<Totals, Finding> {
        if self.leaves.iter().any(|leaf| leaf.of() != (self.provider, self.day.day)) {
            return Err(Finding::Foreign);
        }
        let found = self.leaves.len() as u64 - 1;
        let last = self.leaves.split_last().and_then(|(last, others)| Some((last.sum()?, others)));
        let Some((sum, statements)) = last else {
            return Err(Finding::Count { expected: 0, found });
        };
        if sum.statements != found {
            return Err(Finding::Count { expected: sum.statements, found });
        }
        let mut totals = Totals::default();
        for leaf in statements {
            totals.add(leaf);
            if let Leaf::Download(d) = leaf
                && d.peer_bytes > d.size.saturating_sub(d.edge_bytes).min(d.max_peer_bytes)
            {
                return Err(Finding::OverBilled(d.download));
            }
        }
        if totals == sum.totals { Ok(totals) } else { Err(Finding::Sum) }
    }
}

/// Checks a provider's days, which must be consecutive, and returns their totals, or the index of the first wrong day
/// and its defect.
pub fn check_days(trust: &Trust, days: &[ProviderDay]) -> Result<Totals, (usize, Finding)> {
    let mut totals = Totals::default();
    let mut billed: BTreeSet<DownloadId> = BTreeSet::new();
    let mut before: Option<&ProviderDay> = None;
    for (at, day) in days.iter().enumerate() {
        let found = |finding| (at, finding);
        totals.join(&day.check(trust).map_err(found)?);
        if let Some(before) = before {
            follows(before, day).map_err(found)?;
        }
        for leaf in &day.leaves {
            if let Leaf::Download(d) = leaf
                && !billed.insert(d.download)
            {
                return Err(found(Finding::BilledTwice(d.download)));
            }
        }
        before = Some(day);
    }
    check_begun(days)?;
    Ok(totals)
}

/// Checks that each day from the provider's first day with a statement on has a sum, and that all sums name that
/// first day.
fn check_begun(days: &[ProviderDay]) -> Result<(), (usize, Finding)> {
    let sum = |day: &ProviderDay| day.leaves.last().and_then(Leaf::sum).map(|sum| sum.since);
    let Some(first) = days.iter().filter_map(sum).min() else {
        return if days.is_empty() { Ok(()) } else { Err((0, Finding::Nothing)) };
    };
    for (at, day) in days.iter().enumerate() {
        if sum(day).is_some_and(|since| since > day.day.day || since != first) {
            return Err((at, Finding::TooEarly));
        }
        if day.leaves.is_empty() && day.day.day >= first {
            return Err((at, Finding::Emptied));
        }
    }
    Ok(())
}

fn follows(before: &ProviderDay, day: &ProviderDay) -> Result<(), Finding> {
    if day.provider != before.provider {
        return Err(Finding::Foreign);
    }
    if Some(day.day.day) != before.day.day.checked_add(1) {
        let same = day.day.day == before.day.day && day.head != before.head;
        return Err(if same { Finding::Replaced } else { Finding::Gap });
    }
    let previous = day.previous.as_ref().map(|p| &p.head);
    if previous == Some(&before.head.head) { Ok(()) } else { Err(Finding::Replaced) }
}

#[cfg(test)]
mod tests;
