//! Audit (DESIGN §10): commitments to the settled figures of each closed day, so that a provider can check its invoice
//! with public keys and exported files alone.
//!
//! The settled downloads of a day are the leaves ([`Leaf`]) of a Merkle tree ([`tree`]): each provider's statements are
//! adjacent, and their sum is the provider's last leaf. The days' roots ([`DayLeaf`]) are the leaves of a second tree,
//! the log; the ledger signs the log's root ([`Head`]) each time it closes a day. A provider's export ([`ProviderDay`])
//! contains all of its leaves of a day and proves that these and no others are that range of the day's tree, that the
//! day is in the log, and that the log still begins with the one signed before.

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
    /// State of a download when its day was closed.
    pub enum Outcome {
        /// The download was granted, and its client never reported.
        Unreported = 1,
        /// The client's last report was that the download is running.
        Unfinished = 2,
        /// All bytes were verified and durable.
        Completed = 3,
        /// The user gave the download up.
        Cancelled = 4,
        /// The client gave the download up because of an error.
        Failed = 5,
    }
}
impl Copy for Outcome {}

crate::wire! {
    /// The settled figures of one download.
    pub struct DownloadStatement {
        /// The provider that pays.
        pub provider: ProviderId,
        /// The day on which the download is billed, counted from 1970-01-01 (UTC).
        pub day: u32,
        /// Id of the download.
        pub download: DownloadId,
        /// The object's path within the provider.
        pub path: Text<{ limits::PATH_LEN_MAX }>,
        /// Id of the version.
        pub version: VersionId,
        /// Bytes of the version.
        pub size: u64,
        /// State of the download when the day was closed.
        pub outcome: Outcome,
        /// Bytes sent by edges, each counted once.
        pub edge_bytes: u64,
        /// Bytes from peers that are billed.
        pub peer_bytes: u64,
        /// Bytes claimed by the downloader or by peers and not billed.
        pub flagged_bytes: u64,
        /// SHA-256 over the records from which the download was settled.
        pub evidence: Digest,
    }

    /// The settled figures of one download and its ceiling.
    pub struct CappedStatement {
        /// The settled figures themselves.
        pub of: DownloadStatement,
        /// Most bytes from peers that may be billed, as the first grant says.
        pub max_peer_bytes: u64,
    }

    /// Plain HTTP traffic of a version from one edge on one day.
    pub struct PlainStatement {
        /// The provider that pays.
        pub provider: ProviderId,
        /// The day, counted from 1970-01-01 (UTC).
        pub day: u32,
        /// Id of the version.
        pub version: VersionId,
        /// Public key of the edge.
        pub edge: PublicKey,
        /// Bytes that the edge sent.
        pub bytes: u64,
    }

    /// Sums over a provider's statements: the figures that it owes for.
    #[derive(Default)]
    pub struct Totals {
        /// Number of downloads granted.
        pub downloads: u64,
        /// Number of granted downloads that completed.
        pub completed: u64,
        /// Bytes sent by edges to clients.
        pub edge_bytes: u64,
        /// Bytes from peers that are billed.
        pub peer_bytes: u64,
        /// Bytes of plain HTTP traffic.
        pub plain_bytes: u64,
    }

    /// The sum of a provider's statements of a day: its last leaf.
    pub struct TotalStatement {
        /// The provider that pays.
        pub provider: ProviderId,
        /// The day, counted from 1970-01-01 (UTC).
        pub day: u32,
        /// Number of the provider's statements of this day, this sum excluded.
        pub statements: u64,
        /// Sums over the statements.
        pub totals: Totals,
    }

    /// The sum of a provider's statements of a day, zero if there are none, with the first day that has a sum.
    pub struct SumStatement {
        /// The sum over the day's statements.
        pub of: TotalStatement,
        /// The provider's first day with a statement: each day from then on has a sum, so that no day can be emptied
        /// unnoticed.
        pub since: u32,
    }

    /// A day, as a leaf of the log.
    pub struct DayLeaf {
        /// The day, counted from 1970-01-01 (UTC).
        pub day: u32,
        /// Number of leaves in the day's tree.
        pub leaves: u64,
        /// The root of the day's tree.
        pub root: Digest,
    }

    /// The log's size and root after a day was closed.
    pub struct Head {
        /// Number of days in the log.
        pub days: u64,
        /// The root of the log.
        pub root: Digest,
        /// The last day in the log.
        pub day: u32,
        /// Time at which that day was closed, Unix milliseconds.
        pub closed_ms: u64,
    }

    /// A head under its ledger's signature ([`SigningContext::LedgerHead`]).
    pub struct SignedHead {
        /// The head that is signed.
        pub head: Head,
        /// The ledger's signature over the encoding of `head`.
        pub signature: Signature,
        /// The ledger's certificate, signed by the root.
        pub cert: ServerCert,
    }
}

crate::wire! {
    /// A leaf of a day's tree.
    pub enum Leaf {
        /// A download, on days closed before statements had a ceiling: the version's size was the ceiling.
        Download(DownloadStatement) = 1,
        /// Plain HTTP traffic from one edge.
        Plain(PlainStatement) = 2,
        /// A provider's sum, on days closed before sums named the provider's first day.
        Total(TotalStatement) = 3,
        /// A settled download with its ceiling.
        Capped(CappedStatement) = 4,
        /// A provider's sum of the day.
        Sum(SumStatement) = 5,
    }
}

impl Totals {
    /// Adds a statement to the totals. A sum is ignored.
    pub fn add(&mut self, leaf: &Leaf) {
        if let Some((d, _)) = leaf.download() {
            self.downloads = self.downloads.saturating_add(1);
            self.completed = self.completed.saturating_add(u64::from(d.outcome == Outcome::Completed));
            self.edge_bytes = self.edge_bytes.saturating_add(d.edge_bytes);
            self.peer_bytes = self.peer_bytes.saturating_add(d.peer_bytes);
        }
        if let Leaf::Plain(p) = leaf {
            self.plain_bytes = self.plain_bytes.saturating_add(p.bytes);
        }
    }

    /// Adds the totals of another day.
    pub fn join(&mut self, other: &Self) {
        self.downloads = self.downloads.saturating_add(other.downloads);
        self.completed = self.completed.saturating_add(other.completed);
        self.edge_bytes = self.edge_bytes.saturating_add(other.edge_bytes);
        self.peer_bytes = self.peer_bytes.saturating_add(other.peer_bytes);
        self.plain_bytes = self.plain_bytes.saturating_add(other.plain_bytes);
    }
}

impl Leaf {
    /// Returns the leaf's hash in the day's tree.
    #[must_use]
    pub fn hash(&self) -> Digest {
        tree::leaf_hash(&self.to_bytes())
    }

    /// Returns the leaf's provider and day.
    #[must_use]
    pub const fn of(&self) -> (ProviderId, u32) {
        match self {
            Self::Download(s) => (s.provider, s.day),
            Self::Plain(s) => (s.provider, s.day),
            Self::Total(s) => (s.provider, s.day),
            Self::Capped(s) => (s.of.provider, s.of.day),
            Self::Sum(s) => (s.of.provider, s.of.day),
        }
    }

    /// Returns the sum of a provider's statements, if this leaf is one.
    #[must_use]
    pub const fn sum(&self) -> Option<&TotalStatement> {
        match self {
            Self::Total(s) => Some(s),
            Self::Sum(s) => Some(&s.of),
            Self::Download(_) | Self::Plain(_) | Self::Capped(_) => None,
        }
    }

    /// Returns the settled figures and the ceiling on peers' bytes, if this leaf is a download's.
    #[must_use]
    pub fn download(&self) -> Option<(&DownloadStatement, u64)> {
        match self {
            Self::Download(s) => Some((s, s.size)),
            Self::Capped(s) => Some((&s.of, s.max_peer_bytes.min(s.of.size))),
            Self::Plain(_) | Self::Total(_) | Self::Sum(_) => None,
        }
    }
}

impl DayLeaf {
    /// Returns the day's hash in the log.
    #[must_use]
    pub fn hash(&self) -> Digest {
        tree::leaf_hash(&self.to_bytes())
    }
}

/// A provider's statements of a closed day, with their proofs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderDay {
    /// The provider that the statements belong to.
    pub provider: ProviderId,
    /// The day, counted from 1970-01-01 (UTC).
    pub day: DayLeaf,
    /// Index in the day's tree of the first statement.
    pub first: u64,
    /// The statements, their sum last; empty before the provider's first day.
    pub leaves: Vec<Leaf>,
    /// Proof ([`tree::range`]) that `leaves` are a range of the day's tree.
    pub range: Vec<Digest>,
    /// Audit path of the day in the log of `head`, where the day is the last leaf.
    pub inclusion: Vec<Digest>,
    /// The log's signed head before this day was closed; `None` for the first day.
    pub previous: Option<SignedHead>,
    /// Proof that the log of `head` begins with that of `previous`.
    pub consistency: Vec<Digest>,
    /// The log's signed head after this day was closed.
    pub head: SignedHead,
}

/// Faults that an audit can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// A head's signature or the ledger's certificate is invalid.
    Signature(CertError),
    /// The day is not the last in the signed log.
    NotInLog,
    /// The signed log does not begin with the one signed before: history was changed.
    Rewritten,
    /// A statement is of another provider or day.
    Foreign,
    /// Statements were dropped or added: there are `found` where the sum says `expected`.
    Count {
        /// Number of statements that the sum names.
        expected: u64,
        /// Number of statements in the export.
        found: u64,
    },
    /// The statements do not add up to the sum.
    Sum,
    /// The statements differ from those of the day's tree: one was changed, or all were replaced.
    Changed,
    /// More peer bytes are billed than the bytes that edges have not sent, or than the grant allowed.
    OverBilled(DownloadId),
    /// A download is billed more than once.
    BilledTwice(DownloadId),
    /// Two different signed histories of one ledger exist: the day was replaced.
    Replaced,
    /// The day before is missing, so something may be hidden.
    Gap,
    /// The day has no statement, not even a sum of zero, although the provider's first day was earlier.
    Emptied,
    /// The day has statements although it lies before the provider's first day.
    TooEarly,
    /// No day has a statement, so nothing shows that there was no traffic.
    Nothing,
}

impl ProviderDay {
    /// Checks all proofs of one day and returns its totals.
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

    /// Checks the signatures, the day's place in the log, and that the log extends the previous one.
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

    /// Checks that the statements agree with their sum and that none bills more than it may.
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
            if let Some((d, ceiling)) = leaf.download()
                && d.peer_bytes > d.size.saturating_sub(d.edge_bytes).min(ceiling)
            {
                return Err(Finding::OverBilled(d.download));
            }
        }
        if totals == sum.totals { Ok(totals) } else { Err(Finding::Sum) }
    }
}

/// Checks a provider's days, which must be consecutive, and returns their totals; or the index of the first faulty day
/// and its fault.
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
            if let Some((d, _)) = leaf.download()
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

/// Checks that every day from the provider's first on has a sum, and no day before has a statement.
fn check_begun(days: &[ProviderDay]) -> Result<(), (usize, Finding)> {
    let since = days.iter().filter_map(|day| match day.leaves.last()? {
        Leaf::Sum(sum) => Some(sum.since),
        Leaf::Total(_) | Leaf::Download(_) | Leaf::Plain(_) | Leaf::Capped(_) => Some(day.day.day),
    });
    let Some(first) = since.min() else { return if days.is_empty() { Ok(()) } else { Err((0, Finding::Nothing)) } };
    for (at, day) in days.iter().enumerate() {
        if let Some(Leaf::Sum(sum)) = day.leaves.last()
            && (sum.since > day.day.day || sum.since != first)
        {
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
