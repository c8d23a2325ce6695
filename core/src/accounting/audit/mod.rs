//! Audit (DESIGN §10): what each closed day came to, committed to so that a provider can check its invoice with public
//! keys and exported files alone.
//!
//! The settled downloads of a day are the leaves of a Merkle tree ([`tree`]), each provider's one after another and
//! their sum last. The days' roots are the leaves of a second tree, the log; the ledger signs the log's root each time
//! a day is closed. A provider's export shows all of its leaves of a day with one proof that these, and no others, are
//! that range of the day; that the day is in the log; and that the log still begins with the one signed before.

pub mod settled;
pub mod tree;

use super::{CertError, Trust};
use crate::ids::{Digest, DownloadId, ProviderId, PublicKey, Signature, VersionId};
use crate::limits;
use crate::wire::records::{Context, ServerCert, ServerRole};
use crate::wire::{Text, Wire};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

crate::wire! {
    /// How a download stood when its day was closed.
    pub enum Outcome {
        /// Granted; its client never reported.
        Unreported = 1,
        /// Its client's last report was that it goes on.
        Unfinished = 2,
        /// All bytes verified and durable.
        Completed = 3,
        /// Given up by its user.
        Cancelled = 4,
        /// Given up because of an error.
        Failed = 5,
    }
}
impl Copy for Outcome {}

crate::wire! {
    /// What was settled of one download.
    pub struct DownloadStatement {
        /// Who pays.
        pub provider: ProviderId,
        /// The day that it is billed on, counted from 1970-01-01 (UTC).
        pub day: u32,
        /// The download.
        pub download: DownloadId,
        /// The object's path.
        pub path: Text<{ limits::PATH_LEN_MAX }>,
        /// The version.
        pub version: VersionId,
        /// Bytes of the version.
        pub size: u64,
        /// How it ended.
        pub outcome: Outcome,
        /// Sent by edges, each byte counted once an edge.
        pub edge_bytes: u64,
        /// From peers, billed.
        pub peer_bytes: u64,
        /// Claimed from or by peers, and not billed.
        pub flagged_bytes: u64,
        /// SHA-256 over the records that it was settled from.
        pub evidence: Digest,
    }

    /// What was settled of one download, and under which ceiling.
    pub struct CappedStatement {
        /// What was settled.
        pub of: DownloadStatement,
        /// The most that peers may be billed for, as its first grant says.
        pub max_peer_bytes: u64,
    }

    /// Plain HTTP traffic of a version from one edge on one day.
    pub struct PlainStatement {
        /// Who pays.
        pub provider: ProviderId,
        /// The day.
        pub day: u32,
        /// The version.
        pub version: VersionId,
        /// The edge's key.
        pub edge: PublicKey,
        /// Bytes sent.
        pub bytes: u64,
    }

    /// What a provider owes for: sums over its statements.
    #[derive(Default)]
    pub struct Totals {
        /// Downloads granted.
        pub downloads: u64,
        /// Of them, completed.
        pub completed: u64,
        /// Sent by edges to clients.
        pub edge_bytes: u64,
        /// From peers, billed.
        pub peer_bytes: u64,
        /// Plain HTTP traffic.
        pub plain_bytes: u64,
    }

    /// The sum of a provider's statements of a day: its last leaf.
    pub struct TotalStatement {
        /// Who pays.
        pub provider: ProviderId,
        /// The day.
        pub day: u32,
        /// How many statements come before this one.
        pub statements: u64,
        /// What they come to.
        pub totals: Totals,
    }

    /// The sum of a provider's statements of a day, zero where there are none, and since when there is one each day.
    pub struct SumStatement {
        /// The sum.
        pub of: TotalStatement,
        /// The provider's first day with a statement: from then on each has a sum, so that none can be emptied.
        pub since: u32,
    }

    /// A day, as a leaf of the log.
    pub struct DayLeaf {
        /// The day.
        pub day: u32,
        /// Leaves of its tree.
        pub leaves: u64,
        /// The root of its tree.
        pub root: Digest,
    }

    /// The log after a day was closed.
    pub struct Head {
        /// Days in it.
        pub days: u64,
        /// Its root.
        pub root: Digest,
        /// The last day in it.
        pub day: u32,
        /// When that was closed, Unix milliseconds.
        pub closed_ms: u64,
    }

    /// A head under its ledger's signature ([`Context::LedgerHead`]).
    pub struct SignedHead {
        /// The head.
        pub head: Head,
        /// By the ledger, over the encoding of `head`.
        pub signature: Signature,
        /// Who the ledger is.
        pub cert: ServerCert,
    }
}

crate::wire! {
    /// A leaf of a day's tree.
    pub enum Leaf {
        /// Of a download, on days that were closed before statements told its ceiling: that was the version's size.
        Download(DownloadStatement) = 1,
        /// Of plain traffic.
        Plain(PlainStatement) = 2,
        /// Of a provider, on days that were closed before sums told since when there are any.
        Total(TotalStatement) = 3,
        /// Of a download.
        Capped(CappedStatement) = 4,
        /// Of a provider.
        Sum(SumStatement) = 5,
    }
}

impl Totals {
    /// Adds a statement. A sum is not added to a sum.
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

    /// Adds another day's.
    pub fn join(&mut self, other: &Self) {
        self.downloads = self.downloads.saturating_add(other.downloads);
        self.completed = self.completed.saturating_add(other.completed);
        self.edge_bytes = self.edge_bytes.saturating_add(other.edge_bytes);
        self.peer_bytes = self.peer_bytes.saturating_add(other.peer_bytes);
        self.plain_bytes = self.plain_bytes.saturating_add(other.plain_bytes);
    }
}

impl Leaf {
    /// Its hash in the day's tree.
    #[must_use]
    pub fn hash(&self) -> Digest {
        tree::leaf_hash(&self.to_bytes())
    }

    /// Whose it is, and on which day.
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

    /// What a provider's statements of a day come to, if it is their sum.
    #[must_use]
    pub const fn sum(&self) -> Option<&TotalStatement> {
        match self {
            Self::Total(s) => Some(s),
            Self::Sum(s) => Some(&s.of),
            Self::Download(_) | Self::Plain(_) | Self::Capped(_) => None,
        }
    }

    /// What was settled, if it is of a download, and the most that peers could be billed for.
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
    /// Its hash in the log.
    #[must_use]
    pub fn hash(&self) -> Digest {
        tree::leaf_hash(&self.to_bytes())
    }
}

/// A provider's statements of a closed day, with all that proves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderDay {
    /// Whose.
    pub provider: ProviderId,
    /// The day.
    pub day: DayLeaf,
    /// Where in the day's tree the statements begin.
    pub first: u64,
    /// The statements, their sum last; none before the provider's first day.
    pub leaves: Vec<Leaf>,
    /// [`tree::range`] of them in the day's tree.
    pub range: Vec<Digest>,
    /// The audit path of the day in the log of `head`, where it is the last leaf.
    pub inclusion: Vec<Digest>,
    /// The log before this day was closed; none for the first day.
    pub previous: Option<SignedHead>,
    /// Proves that the log of `head` begins with that of `previous`.
    pub consistency: Vec<Digest>,
    /// The log after this day was closed.
    pub head: SignedHead,
}

/// What an audit has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// A head's signature, or its ledger's certificate.
    Signature(CertError),
    /// The day is not the last in the signed log.
    NotInLog,
    /// The signed log does not begin with the one signed before: history was changed.
    Rewritten,
    /// A statement is of another provider or day.
    Foreign,
    /// Statements were dropped or added: there are `found` where the sum says `expected`.
    Count {
        /// What the sum says.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// Statements do not come to the sum.
    Sum,
    /// The statements are not those of the day's tree: one was changed, or all were replaced.
    Changed,
    /// More peer bytes are billed than edges left to deliver, or than the grant allowed.
    OverBilled(DownloadId),
    /// A download is billed more than once.
    BilledTwice(DownloadId),
    /// Two different signed histories of one ledger: the day was replaced.
    Replaced,
    /// The day before is not there, so something may be hidden.
    Gap,
    /// No statement, not even a sum of zero, though the provider had some before, or has some since before.
    Emptied,
    /// Statements of a day before that since which there are any.
    TooEarly,
    /// No day has a statement, so that nothing shows that there was no traffic.
    Nothing,
}

impl ProviderDay {
    /// Checks everything that one day shows, and returns what it comes to.
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

    /// The signatures, the day's place in the log, and the log's past.
    fn check_log(&self, trust: &Trust) -> Result<(), Finding> {
        let signed = |h: &SignedHead| {
            let by = (Context::LedgerHead, &h.head.to_bytes()[..], &h.signature);
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

    /// The statements agree with their sum, and none bills more than it may.
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

/// Checks a provider's days, in order, without a gap, and returns what they come to; or the first day that is wrong,
/// by its place.
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

/// Every day has a sum from the provider's first on, and none before it has a statement.
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
