//! Fuzz bodies for signed data: grants, clients' record logs, and the audit of the ledger's exports.

use crate::play::value;
use arbitrary::{Result, Unstructured};
use std::net::{IpAddr, Ipv4Addr};
use swarmedge_core::accounting::Trust;
use swarmedge_core::accounting::audit::{
    self, DayLeaf, DownloadStatement, Leaf, Outcome, ProviderDay, SumStatement, Totals, tree,
};
use swarmedge_core::accounting::edge_auth::{self, Shown, TokenKey};
use swarmedge_core::accounting::epochs::Epochs;
use swarmedge_core::accounting::grants::{
    self, Decision, GrantAsked, Lifetimes, ObjectFacts, Renewal, SKEW_MS, check_shown, decide,
};
use swarmedge_core::accounting::logs::{self, Log};
use swarmedge_core::content::{Access, Policy};
use swarmedge_core::ids::{Digest, DownloadId, Guid, ProviderId, PublicKey, RecordId, ReqId, SecondaryGuid, VersionId};
use swarmedge_core::wire::records::{
    Checkpoint, Grant, Head, Logged, SealedGrant, ServerRole, Side, SignedCheckpoint, SignedGrant, SignedHead,
    SigningContext, UsageRecord, UsageState,
};
use swarmedge_core::wire::{List, Reader, Text, Wire};
use swarmedge_models::rng::Seeded;
use swarmedge_models::scenario::{Name, Role};
use swarmedge_models::sim::keys;

fn trust() -> Trust {
    Trust { root: keys::root(), verify: keys::verify }
}

/// Returns `of` decoded from its encoding with one byte changed; `None` if the changed bytes do not decode.
fn tampered<T: Wire>(u: &mut Unstructured<'_>, of: &T) -> Result<Option<T>> {
    let mut bytes = of.to_bytes();
    let at = u.choose_index(bytes.len().max(1))?;
    let by = u.int_in_range(1..=255)?;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= by;
    }
    Ok(T::from_bytes(&bytes).ok())
}

const LIVES: Lifetimes = Lifetimes { valid_ms: 900_000, renew_ms: 600_000, whole_ms: 3_000_000 };

/// Checks that a provider's forged access tokens are rejected, then plays an edge and a CN with issued and forged
/// grants.
pub(crate) fn grants(bytes: &[u8]) {
    let key = TokenKey { key: b"a key that the fuzzer does not guess".to_vec(), salt: String::new() };
    let from = std::net::IpAddr::from([192, 0, 2, 1]);
    let shown = Shown { provider: ProviderId(1), path: "a/b", from, now_s: 1 };
    assert!(edge_auth::check(&[key], &String::from_utf8_lossy(bytes), &shown).is_err(), "a forged token");
    let _ = play_grants(&mut Unstructured::new(bytes));
}

fn signed(grant: Grant) -> SignedGrant {
    let cert = keys::cert(Name(Role::Edge, 0), ServerRole::Edge);
    let signature = keys::sign(&cert.body.key, SigningContext::Grant, &grant.to_bytes());
    SignedGrant { grant, signature, cert }
}

/// Plays an edge and a CN with arbitrary grants. Both must accept only grants that an edge issued, from the client
/// that each names and during its lifetime; a renewal may change only times and policy.
fn play_grants(u: &mut Unstructured<'_>) -> Result<()> {
    let (mut now_ms, mut rng, mut issued) = (10_000_000_u64, Seeded::new(1), Vec::<SignedGrant>::new());
    while !u.is_empty() {
        now_ms += 1 << u.int_in_range(0..=20_u32)?;
        let shown = match issued.len() {
            0 => None,
            n => Some(issued[u.choose_index(n)?].clone()),
        };
        let shown = match shown {
            Some(genuine) if u.ratio(1, 2)? => tampered(u, &genuine)?,
            genuine => genuine,
        };
        let genuine = shown.as_ref().is_some_and(|s| issued.contains(s));
        let key = PublicKey::numbered(u.int_in_range(0..=2)?);
        let guid = Guid::of(&key);
        match (u.int_in_range(0..=3_u8)?, shown) {
            (0, Some(shown)) => {
                let g = &shown.grant;
                let timely = now_ms + SKEW_MS >= g.issued_ms && now_ms < g.expires_ms;
                if check_shown(&trust(), &shown, guid, now_ms).is_ok() {
                    assert!(genuine && g.guid == guid && timely, "a grant that nobody has issued: {shown:?}");
                }
            }
            (1, Some(shown)) => {
                let epochs = Epochs { current: u.int_in_range(1..=3)?, ..Epochs::FIRST };
                let sealed = SealedGrant { epoch: u.int_in_range(0..=4)?, ..keys::seal(&shown, epochs) };
                let opened = keys::open(&sealed, epochs);
                assert!(opened.is_none() || opened == Some(shown) && epochs.opens(sealed.epoch), "another grant");
            }
            (_, shown) => {
                let renew = shown
                    .map(|grant| Ok(Renewal { grant: Some(grant), proven: u.ratio(3, 4)?, edge_only: u.ratio(1, 4)? }))
                    .transpose()?;
                let asked = asked(u, key, renew)?;
                let Ok(Decision { grant, first }) = decide(&trust(), LIVES, now_ms, &mut rng, &asked) else { continue };
                assert_eq!(first, asked.renew.is_none());
                if let Some(Renewal { grant: Some(old), proven, .. }) = &asked.renew {
                    let in_time = now_ms <= old.grant.expires_ms + LIVES.renew_ms;
                    assert!(genuine && *proven && in_time && old.grant.guid == guid, "renewed without right");
                    let Grant { policy, issued_ms, expires_ms, max_peer_bytes, .. } = grant.clone();
                    // a renewal that loses its peers is another download
                    let loses_peers = grant.is_edge_only() && !old.grant.is_edge_only();
                    assert_eq!(grant.download != old.grant.download, loses_peers, "the wrong download goes on");
                    let download = grant.download;
                    let kept = Grant { download, policy, issued_ms, expires_ms, max_peer_bytes, ..old.grant.clone() };
                    assert_eq!(grant, kept, "a renewal that changes what it must keep");
                    assert!(max_peer_bytes <= old.grant.max_peer_bytes, "a wider ceiling");
                }
                let grant = signed(grant);
                assert!(grants::check(&trust(), &grant, now_ms).is_ok() || grant.grant.expires_ms <= now_ms);
                issued.push(grant);
            }
        }
    }
    Ok(())
}

/// Draws a request for a grant.
fn asked(u: &mut Unstructured<'_>, key: PublicKey, renew: Option<Renewal>) -> Result<GrantAsked> {
    let object = ObjectFacts {
        provider: ProviderId(u.int_in_range(0..=1)?),
        path: Text::default(),
        version: VersionId::numbered(u.int_in_range(0..=1)?),
        size: u.int_in_range(0..=1000)?,
        access: Access::Public,
        policy: Policy { peer_download: u.ratio(3, 4)?, ..u.arbitrary()? },
    };
    let download_key = PublicKey::numbered(u.int_in_range(10..=12)?);
    Ok(GrantAsked {
        req: ReqId(1),
        guid: Guid::of(&key),
        key,
        download_key,
        object,
        token: None,
        version: None,
        renew,
        from: IpAddr::V4(Ipv4Addr::LOCALHOST),
        time_ms: 0,
        nonce: Default::default(),
    })
}

/// Checks clients' record logs. A fork reported between arbitrary heads must be signed on both sides and contradict
/// itself. Records of one log in any order must show no fork; changed records, heads and checkpoints must be
/// rejected.
pub(crate) fn client_logs(bytes: &[u8]) {
    value::<Logged>(bytes);
    value::<SignedCheckpoint>(bytes);
    let mut rest = Unstructured::new(bytes);
    let mut heads = Vec::new();
    while let (Ok([start, place, before, digest]), true) = (rest.arbitrary::<[u8; 4]>(), heads.len() < 64) {
        let of = |n: u8| Digest::numbered(u32::from(n % 4));
        let start = SecondaryGuid::numbered(u32::from(start % 2));
        let head = Head { start, place: u64::from(place % 4), before: of(before), digest: of(digest) };
        let key = PublicKey::numbered(u32::from(place >> 7));
        // some signatures are by another key
        let by = if digest > 250 { PublicKey::numbered(9) } else { key };
        let signature = keys::sign(&by, SigningContext::LogHead, &head.to_bytes());
        heads.push(SignedHead { head, key, signature });
    }
    for fork in logs::forks(keys::verify, heads) {
        let [a, b] = &fork.heads;
        assert!(fork.heads.iter().all(|s| logs::is_signed(keys::verify, s) && Guid::of(&s.key) == fork.guid));
        let (first, second) = if a.head.place <= b.head.place { (&a.head, &b.head) } else { (&b.head, &a.head) };
        let same_place = first.place == second.place && first != second;
        let no_sequel = first.place + 1 == second.place && second.before != first.digest;
        assert!(first.start == second.start && (same_place || no_sequel), "no contradiction");
    }
    let _ = play_log(&mut Unstructured::new(bytes));
}

const LOGGER: PublicKey = PublicKey([7; 32]);

/// Draws a usage record with this sequence number.
fn record(u: &mut Unstructured<'_>, seq: u32) -> Result<UsageRecord> {
    Ok(UsageRecord {
        id: RecordId::numbered(seq),
        reporter: Guid::of(&LOGGER),
        side: if u.arbitrary()? { Side::Downloader } else { Side::Uploader },
        download: DownloadId::numbered(u.int_in_range(0..=2)?),
        version: VersionId::numbered(1),
        seq,
        state: UsageState::Running,
        edge_bytes: u.arbitrary()?,
        peers: List::default(),
        elapsed_ms: 0,
        cause: None,
    })
}

fn play_log(u: &mut Unstructured<'_>) -> Result<()> {
    let (mut log, mut all) = (Log::default(), Vec::new());
    let start = SecondaryGuid::numbered(1);
    for seq in 1..=u.int_in_range(1..=12)? {
        let record = record(u, seq)?;
        let head = log.append(start, &record);
        let signature = keys::sign(&LOGGER, SigningContext::LogHead, &head.to_bytes());
        all.push(Logged { record, head: SignedHead { head, key: LOGGER, signature } });
    }
    let mut heard = Vec::new();
    while !u.is_empty() && heard.len() < 64 {
        let logged = u.choose(&all)?;
        assert!(logs::check(keys::verify, logged).is_ok());
        heard.push(logged.head.clone());
        if let Some(other) = tampered(u, logged)? {
            assert!(logs::check(keys::verify, &other).is_err(), "a record that was never logged: {other:?}");
        }
        let checkpoint = Checkpoint { head: logged.head.clone(), at_ms: 5 };
        let cert = keys::cert(Name(Role::Cn, 0), ServerRole::Cn);
        let signature = keys::sign(&cert.body.key, SigningContext::Checkpoint, &checkpoint.to_bytes());
        let signed = SignedCheckpoint { checkpoint, signature, cert };
        assert!(logs::is_checkpoint_of(Guid::of(&LOGGER), &trust(), &signed));
        if let Some(other) = tampered(u, &signed)? {
            assert!(!logs::is_checkpoint_of(Guid::of(&LOGGER), &trust(), &other), "a checkpoint that no CN has signed");
        }
    }
    assert_eq!(logs::forks(keys::verify, heard), [], "an honest log forks");
    Ok(())
}

/// Checks Merkle proofs of the audit: arbitrary ones are refused without a panic, and only the true proof of a real
/// tree is accepted.
pub(crate) fn audit_proofs(bytes: &[u8]) {
    value::<Leaf>(bytes);
    value::<audit::SignedHead>(bytes);
    let mut r = Reader::new(bytes);
    let (Ok(n), Ok(at), Ok(size)) = (u8::decode(&mut r), u64::decode(&mut r), u64::decode(&mut r)) else { return };
    let proof: Vec<Digest> = r.rest().chunks_exact(32).map(|c| Digest::from_bytes(c).expect("32 bytes")).collect();
    let leaves: Vec<Digest> = (0..n % 64 + 1).map(|i| tree::leaf_hash(&[i])).collect();
    let top = tree::root(&leaves);
    for size in [size, leaves.len() as u64] {
        let _ = tree::is_consistent((at, &leaves[0]), (size, &top), &proof);
        let _ = tree::is_range(at, &leaves[1..], size, &proof, &top);
        if tree::is_included(&leaves[0], at, size, &proof, &top) && size == leaves.len() as u64 {
            assert!(at == 0 && proof == tree::inclusion(&leaves, 0), "a false path");
        }
        if tree::is_range(at, &leaves[..1], size, &proof, &top) && size == leaves.len() as u64 {
            assert!(at == 0 && proof == tree::range(&leaves, 0..1), "a false range");
        }
    }
    let old = usize::try_from(at).map_or(0, |at| at % (leaves.len() + 1));
    consistency(&leaves, old, &proof);
}

/// Checks that of all consistency proofs between the first `old` leaves and all of them only the true one is
/// accepted.
fn consistency(leaves: &[Digest], old: usize, other: &[Digest]) {
    let (old_root, root) = (tree::root(&leaves[..old]), tree::root(leaves));
    let (older, newer) = ((old as u64, &old_root), (leaves.len() as u64, &root));
    let proof = tree::consistency(leaves, old);
    assert!(tree::is_consistent(older, newer, &proof), "a true proof is refused");
    if old == 0 {
        return;
    }
    assert!(other == proof || !tree::is_consistent(older, newer, other), "a false proof");
    let rewritten = tree::root(&leaves[1..].iter().chain(&leaves[..1]).copied().collect::<Vec<_>>());
    let same = leaves.len() == 1;
    assert!(same || !tree::is_consistent(older, (newer.0, &rewritten), &proof), "history was changed unnoticed");
}

/// Checks that an honest export of several days passes the audit, and that a changed export fails it.
pub(crate) fn audit_days(bytes: &[u8]) {
    let _ = play_audit(&mut Unstructured::new(bytes));
}

fn statement(u: &mut Unstructured<'_>, day: u32, n: u32) -> Result<Leaf> {
    let size = u64::from(u.arbitrary::<u16>()?);
    let edge_bytes = u.int_in_range(0..=size)?;
    let max_peer_bytes = u.int_in_range(0..=size)?;
    Ok(Leaf::Download(DownloadStatement {
        provider: ProviderId(1),
        day,
        download: DownloadId::numbered(day << 8 | n),
        path: Text::default(),
        version: VersionId::numbered(1),
        size,
        outcome: Outcome::Completed,
        edge_bytes,
        peer_bytes: u.int_in_range(0..=max_peer_bytes.min(size - edge_bytes))?,
        flagged_bytes: 0,
        evidence: Digest::numbered(n),
        max_peer_bytes,
    }))
}

/// Returns several days of a ledger, in each of which a provider's statements follow those of another provider.
fn days(u: &mut Unstructured<'_>) -> Result<Vec<ProviderDay>> {
    let (mut log, mut previous, mut all) = (Vec::new(), None, Vec::new());
    let cert = keys::cert(Name(Role::Ledger, 0), ServerRole::Ledger);
    for day in 100..=u.int_in_range(100..=103)? {
        let mut leaves = (0..u.int_in_range(1..=5)?).map(|n| statement(u, day, n)).collect::<Result<Vec<_>>>()?;
        let (statements, mut totals) = (leaves.len() as u64, Totals::default());
        leaves.iter().for_each(|leaf| totals.add(leaf));
        leaves.push(Leaf::Sum(SumStatement { provider: ProviderId(1), day, statements, totals, since: 100 }));
        let first = u.int_in_range(0..=3_u8)?;
        let strangers = (0..first).map(|n| tree::leaf_hash(&[n]));
        let tree: Vec<Digest> = strangers.chain(leaves.iter().map(Leaf::hash)).collect();
        let leaf = DayLeaf { day, leaves: tree.len() as u64, root: tree::root(&tree) };
        log.push(leaf.hash());
        let head = audit::Head { days: log.len() as u64, root: tree::root(&log), day, closed_ms: 5 };
        let signature = keys::sign(&cert.body.key, SigningContext::LedgerHead, &head.to_bytes());
        let head = audit::SignedHead { head, signature, cert: cert.clone() };
        all.push(ProviderDay {
            provider: ProviderId(1),
            first: first.into(),
            range: tree::range(&tree, first.into()..tree.len()),
            inclusion: tree::inclusion(&log, log.len() - 1),
            consistency: tree::consistency(&log, log.len() - 1),
            previous: previous.replace(head.clone()),
            day: leaf,
            leaves,
            head,
        });
    }
    Ok(all)
}

fn play_audit(u: &mut Unstructured<'_>) -> Result<()> {
    let honest = days(u)?;
    assert!(audit::check_days(&trust(), &honest).is_ok(), "an honest ledger is refused: {honest:?}");
    while !u.is_empty() {
        let mut days = honest.clone();
        let day = u.choose_index(days.len())?;
        bend(u, &mut days[day])?;
        if days[day] != honest[day] {
            assert!(audit::check_days(&trust(), &days).is_err(), "unnoticed: {:?}", days[day]);
        }
    }
    Ok(())
}

/// Changes one part of a day at random.
fn bend(u: &mut Unstructured<'_>, day: &mut ProviderDay) -> Result<()> {
    let leaf = u.choose_index(day.leaves.len())?;
    match u.int_in_range(0..=9_u8)? {
        0 => day.leaves[leaf] = tampered(u, &day.leaves[leaf])?.unwrap_or_else(|| day.leaves[leaf].clone()),
        1 => _ = day.leaves.remove(leaf),
        2 => day.leaves.insert(leaf, day.leaves[leaf].clone()),
        3 => day.leaves.swap(leaf, 0),
        4 => day.day = tampered(u, &day.day)?.unwrap_or_else(|| day.day.clone()),
        5 => day.head = tampered(u, &day.head)?.unwrap_or_else(|| day.head.clone()),
        6 => {
            if let Some(previous) = &mut day.previous {
                *previous = tampered(u, previous)?.unwrap_or_else(|| previous.clone());
            }
        }
        7 => day.first = u.int_in_range(0..=9)?,
        8 => {
            day.leaves.clear();
            day.range.clear();
        }
        _ => {
            // the first day has no past to be consistent with
            let which = u.choose_index(if day.previous.is_some() { 3 } else { 2 })?;
            let proofs = [&mut day.range, &mut day.inclusion, &mut day.consistency];
            let proof = proofs.into_iter().nth(which).expect("there are three");
            let at = u.choose_index(proof.len() + 1)?;
            match proof.get_mut(at) {
                Some(hash) => *hash = Digest::numbered(7),
                None => proof.push(Digest::numbered(7)),
            }
        }
    }
    Ok(())
}
