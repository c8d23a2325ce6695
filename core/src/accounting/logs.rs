//! A client's log: a hash chain of its usage records. The client signs the chain's end, the log head, after each
//! record. Each start of a client begins a new log, named by the random secondary GUID of the start. A record is
//! durable before it gets a place (a number from 1) in the log, and is sent only with the signed head of that place.
//! So an honest client never signs two heads for one place, whenever it crashes: two such heads are evidence, of a
//! restored or cloned machine, or, with more evidence, of fraud.
//!
//! The CN confirms records that are durable in the ledger by a signed checkpoint. The client stores the newest
//! checkpoint and sends it at login, so that a CN without earlier records of the log can check how it continues.

use super::Trust;
use crate::ids::{Digest, Guid, PublicKey, RecordId, SecondaryGuid, Signature};
use crate::wire::Wire as _;
use crate::wire::records::{
    Head, LogEvent, LogRecord, Logged, ServerRole, SignedCheckpoint, SignedHead, SigningContext, UsageRecord, Verify,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use sha2::Digest as _;

/// A client's log in memory: the number of its last record and the hash of the chain up to that record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    place: u64,
    digest: Digest,
}

impl Default for Log {
    fn default() -> Self {
        Self { place: 0, digest: Digest([0; 32]) }
    }
}

impl Log {
    /// Asserts that an empty log has no digest.
    fn check(&self) {
        debug_assert!(self.place > 0 || self.digest == Digest([0; 32]), "an empty log has no digest");
    }

    /// Appends a durable record to the log named `start` and returns the new head, which the client is to sign.
    pub fn append(&mut self, start: SecondaryGuid, record: &UsageRecord) -> Head {
        self.check();
        self.place = self.place.saturating_add(1);
        let before = self.digest;
        self.digest = digest(start, self.place, &before, record);
        Head { start, place: self.place, before, digest: self.digest }
    }
}

/// Returns the digest that a correct log head has: SHA-256 over the log's name, the record's place, the previous
/// digest and the record.
#[must_use]
pub fn digest(start: SecondaryGuid, place: u64, before: &Digest, record: &UsageRecord) -> Digest {
    let hash = sha2::Sha256::new_with_prefix(start.0).chain_update(place.to_be_bytes()).chain_update(before.0);
    Digest(hash.chain_update(record.to_bytes()).finalize().into())
}

/// Returns the record id of a log head. It depends on the head alone, so the ledger stores a head once even if it
/// arrives repeatedly or through several CNs.
#[must_use]
pub fn head_id(head: &Head) -> RecordId {
    let mut id = [0; RecordId::LEN];
    id.copy_from_slice(&head.digest.0[..RecordId::LEN]);
    RecordId(id)
}

/// Returns a ledger record with only the log head of a usage record. The ledger stores it if it has the usage record
/// already with another head, because a client puts its unacknowledged records into a new log at each start.
#[must_use]
pub fn head_alone(logged: &Logged, at_ms: u64) -> LogRecord {
    let (id, guid) = (head_id(&logged.head.head), logged.record.reporter);
    LogRecord { id, at_ms, guid, event: LogEvent::Head(logged.head.clone()) }
}

/// Returns a usage record as the first record of a log, with an all-zero signature; for tests and benchmarks that do
/// not check log heads.
#[must_use]
pub fn unsigned(record: UsageRecord) -> Logged {
    let head = Log::default().append(SecondaryGuid::numbered(1), &record);
    Logged { record, head: SignedHead { head, key: PublicKey::numbered(0), signature: Signature([0; 64]) } }
}

/// Reason for not accepting a usage record as one that its reporter logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogError {
    /// The head belongs to another record.
    Digest,
    /// The signing key is not the reporter's.
    Foreign,
    /// The signature does not match the key.
    Signature,
}

/// Checks that a head belongs to its record and is signed by the record's reporter.
pub fn check(verify: Verify, logged: &Logged) -> Result<(), LogError> {
    let Logged { record, head: SignedHead { head, key, .. } } = logged;
    if digest(head.start, head.place, &head.before, record) != head.digest {
        return Err(LogError::Digest);
    }
    if Guid::of(key) != record.reporter {
        return Err(LogError::Foreign);
    }
    if is_signed(verify, &logged.head) { Ok(()) } else { Err(LogError::Signature) }
}

/// Returns whether a log head has a valid signature of the key that it names.
#[must_use]
pub fn is_signed(verify: Verify, signed: &SignedHead) -> bool {
    verify(&signed.key, SigningContext::LogHead, &signed.head.to_bytes(), &signed.signature)
}

/// Returns whether a certified CN signed this checkpoint and the client `guid` signed the log head in it. The CN's
/// certificate, which lasts a day at most, must be valid at the time of the checkpoint.
#[must_use]
pub fn is_checkpoint_of(guid: Guid, trust: &Trust, signed: &SignedCheckpoint) -> bool {
    let SignedCheckpoint { checkpoint, signature, cert } = signed;
    let said = (SigningContext::Checkpoint, &checkpoint.to_bytes()[..], signature);
    Guid::of(&checkpoint.head.key) == guid
        && is_signed(trust.verify, &checkpoint.head)
        && trust.check_signed(cert, ServerRole::Cn, checkpoint.at_ms, said).is_ok()
}

/// Returns whether two log heads of one client contradict each other: they differ at the same place of one log, or
/// one follows directly on the other's place but does not contain its digest.
#[must_use]
pub fn contradict(a: &Head, b: &Head) -> bool {
    let breaks =
        |first: &Head, next: &Head| first.place.checked_add(1) == Some(next.place) && next.before != first.digest;
    a.start == b.start && (a.place == b.place && a != b || breaks(a, b) || breaks(b, a))
}

/// A contradiction between two heads of one client's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fork {
    /// GUID of the client that signed both heads.
    pub guid: Guid,
    /// Two signed heads that cannot both belong to one log; the client's public key suffices to check them.
    pub heads: [SignedHead; 2],
}

/// Finds forked logs, in which two heads contradict each other ([`contradict`]). Returns the first contradiction of
/// each log. Heads without a valid signature are no evidence; lost, repeated and late heads cause no contradiction.
#[must_use]
pub fn forks(verify: Verify, heads: impl IntoIterator<Item = SignedHead>) -> Vec<Fork> {
    let mut logs: BTreeMap<(Guid, SecondaryGuid), BTreeMap<u64, SignedHead>> = BTreeMap::new();
    let mut found: BTreeMap<(Guid, SecondaryGuid), [SignedHead; 2]> = BTreeMap::new();
    for signed in heads.into_iter().filter(|s| is_signed(verify, s)) {
        let name = (Guid::of(&signed.key), signed.head.start);
        let log = logs.entry(name).or_default();
        let place = signed.head.place;
        let near = [place, place.wrapping_sub(1), place.wrapping_add(1)];
        let against = near.iter().filter_map(|p| log.get(p)).find(|s| contradict(&s.head, &signed.head)).cloned();
        match against {
            Some(against) => {
                debug_assert!(contradict(&against.head, &signed.head), "a fork is a contradiction");
                found.entry(name).or_insert([against, signed]);
            }
            None => {
                log.insert(place, signed);
            }
        }
    }
    found.into_iter().map(|((guid, _), heads)| Fork { guid, heads }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::certs::tests::{fake_sign, fake_verify};
    use super::*;
    use crate::ids::{DownloadId, VersionId};
    use crate::wire::List;
    use crate::wire::records::{Side, UsageState};

    const KEY: PublicKey = PublicKey([7; 32]);
    const START: SecondaryGuid = SecondaryGuid([3; 20]);

    fn record(n: u32) -> UsageRecord {
        UsageRecord {
            id: RecordId::numbered(n),
            reporter: Guid::of(&KEY),
            side: Side::Downloader,
            download: DownloadId::numbered(1),
            version: VersionId::numbered(1),
            seq: n,
            state: UsageState::Running,
            edge_bytes: 0,
            peers: List::default(),
            elapsed_ms: 0,
            cause: None,
        }
    }

    fn logged(log: &mut Log, n: u32) -> Logged {
        let record = record(n);
        let head = log.append(START, &record);
        let signature = fake_sign(&KEY, SigningContext::LogHead, &head.to_bytes());
        Logged { record, head: SignedHead { head, key: KEY, signature } }
    }

    #[test]
    fn an_honest_log_does_not_fork_in_whatever_order_it_comes() {
        let mut log = Log::default();
        let all: Vec<_> = (1..9).map(|n| logged(&mut log, n)).collect();
        assert!(all.iter().all(|l| check(fake_verify, l).is_ok()));
        let heads = || all.iter().map(|l| l.head.clone());
        assert_eq!(forks(fake_verify, heads().rev().chain(heads())), []);
        assert_eq!(forks(fake_verify, heads().step_by(3)), [], "with some of them lost");
    }

    #[test]
    fn a_changed_moved_or_foreign_record_is_refused() {
        let good = logged(&mut Log::default(), 1);
        let with = |change: fn(&mut Logged)| {
            let mut logged = good.clone();
            change(&mut logged);
            check(fake_verify, &logged)
        };
        assert_eq!(with(|l| l.record.edge_bytes += 1), Err(LogError::Digest));
        assert_eq!(with(|l| l.head.head.place += 1), Err(LogError::Digest));
        assert_eq!(with(|l| l.head.head.before = Digest([1; 32])), Err(LogError::Digest));
        assert_eq!(with(|l| l.head.key = PublicKey([8; 32])), Err(LogError::Foreign));
        assert_eq!(with(|l| l.head.signature.0[0] ^= 1), Err(LogError::Signature));
    }

    #[test]
    fn two_records_at_one_place_are_evidence() {
        let mut log = Log::default();
        let first = logged(&mut log, 1);
        let mut copy = log;
        let (one, other) = (logged(&mut log, 2), logged(&mut copy, 3));
        let found = forks(fake_verify, [first.head, one.head.clone(), other.head.clone()]);
        assert_eq!(found, [Fork { guid: Guid::of(&KEY), heads: [one.head, other.head] }]);
        assert!(found[0].heads.iter().all(|h| is_signed(fake_verify, h)));
    }

    #[test]
    fn a_rewritten_past_is_found_by_the_next_head() {
        let mut log = Log::default();
        let first = logged(&mut log, 1);
        let mut other = Log::default();
        logged(&mut other, 9);
        let second = logged(&mut other, 2);
        assert_eq!(forks(fake_verify, [first.head.clone(), second.head.clone()]).len(), 1);
        assert_eq!(forks(fake_verify, [second.head, first.head]).len(), 1, "in either order");
    }

    #[test]
    fn unsigned_heads_prove_nothing() {
        let mut log = Log::default();
        let mut copy = log;
        let (one, mut other) = (logged(&mut log, 1), logged(&mut copy, 2));
        other.head.signature.0[0] ^= 1;
        assert_eq!(forks(fake_verify, [one.head, other.head]), []);
    }
}
