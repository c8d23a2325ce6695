//! Introductions: the CN builds the introductions of an answer and signs them with one signature, and both peers
//! check them. The introductions of an answer are the leaves of a Merkle tree (leaf and node hashes prefixed as in
//! RFC 9162 §2.1, padded with zero digests to a power of two), whose root is signed; each introduction contains the
//! hashes on its path to the root.

use super::{CertError, Trust};
use crate::ids::{Digest, Signature};
use crate::limits;
use crate::wire::records::{Introduction, ServerCert, ServerRole, SignedIntroduction, SigningContext};
use crate::wire::{List, Wire};
use alloc::vec::Vec;
use sha2::Digest as _;

/// Reason for not accepting an introduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntroError {
    /// The CN's certificate, or its signature over the root, is not valid.
    Chain(CertError),
    /// The introduction's leaf index in the Merkle tree does not fit the length of its path.
    Path,
    /// The introduction's time to connect, to serve or to be reported on is over.
    Time,
}

fn leaf(intro: &Introduction) -> Digest {
    Digest(sha2::Sha256::new_with_prefix([0]).chain_update(intro.to_bytes()).finalize().into())
}

fn node(left: &Digest, right: &Digest) -> Digest {
    Digest(sha2::Sha256::new_with_prefix([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// Returns the Merkle root that a CN signs for the introductions of one answer, at most
/// [`limits::PEERS_PER_ANSWER_MAX`].
#[must_use]
pub fn root(intros: &[Introduction]) -> Digest {
    levels(intros).last().and_then(|top| top.first().copied()).unwrap_or(Digest([0; 32]))
}

/// Returns the introductions with their Merkle paths and the CN's `signature` over their [`root`].
#[must_use]
pub fn sign(intros: Vec<Introduction>, signature: Signature, cert: &ServerCert) -> Vec<SignedIntroduction> {
    debug_assert!(intros.len() <= limits::PEERS_PER_ANSWER_MAX, "an answer has no more introductions than paths reach");
    let levels = levels(&intros);
    let path = |i: usize| {
        let below_root = levels.len().saturating_sub(1);
        List::truncated(levels.iter().take(below_root).enumerate().map(|(height, level)| level[(i >> height) ^ 1]))
    };
    let paths: Vec<_> = (0..intros.len()).map(path).collect();
    intros
        .into_iter()
        .zip(paths)
        .zip(0..=u8::MAX)
        .map(|((intro, path), index)| SignedIntroduction { intro, index, path, signature, cert: cert.clone() })
        .collect()
}

/// Returns all levels of the Merkle tree over these introductions, leaves first.
fn levels(intros: &[Introduction]) -> Vec<Vec<Digest>> {
    let mut level: Vec<Digest> = intros.iter().map(leaf).collect();
    level.resize(intros.len().next_power_of_two(), Digest([0; 32]));
    let mut all = Vec::new();
    while level.len() > 1 {
        let above = level.chunks_exact(2).map(|pair| node(&pair[0], &pair[1])).collect();
        all.push(core::mem::replace(&mut level, above));
    }
    all.push(level);
    all
}

/// Returns the Merkle root computed from an introduction and its path.
fn root_of(signed: &SignedIntroduction) -> Result<Digest, IntroError> {
    if usize::from(signed.index) >> signed.path.len() != 0 {
        return Err(IntroError::Path);
    }
    let climb = |(hash, index): (Digest, u8), sibling: &Digest| match index & 1 {
        0 => (node(&hash, sibling), index >> 1),
        _ => (node(sibling, &hash), index >> 1),
    };
    Ok(signed.path.iter().fold((leaf(&signed.intro), signed.index), climb).0)
}

/// Checks that a certified CN has signed this introduction and that its peers may still connect.
pub fn check(trust: &Trust, signed: &SignedIntroduction, now_ms: u64) -> Result<(), IntroError> {
    if now_ms >= signed.intro.connect_before_ms || now_ms >= signed.intro.serve_until_ms {
        return Err(IntroError::Time);
    }
    check_signed(trust, signed, now_ms)
}

/// Time after an introduction's `serve_until_ms` in which its uploader may report the bytes without receipt, in
/// milliseconds.
pub const TOLD_WITHIN_MS: u64 = 5 * 60_000;

/// Checks that a certified CN has signed this introduction and that its uploader may still report how it ended.
pub fn check_ended(trust: &Trust, signed: &SignedIntroduction, now_ms: u64) -> Result<(), IntroError> {
    if now_ms > signed.intro.serve_until_ms.saturating_add(TOLD_WITHIN_MS) {
        return Err(IntroError::Time);
    }
    check_signed(trust, signed, now_ms)
}

fn check_signed(trust: &Trust, signed: &SignedIntroduction, now_ms: u64) -> Result<(), IntroError> {
    let root = root_of(signed)?;
    trust
        .check_signed(&signed.cert, ServerRole::Cn, now_ms, (SigningContext::Introductions, &root.0, &signed.signature))
        .map_err(IntroError::Chain)
}

const _: () = assert!(limits::PEERS_PER_ANSWER_MAX <= u8::MAX as usize);

#[cfg(test)]
pub(crate) mod tests {
    use super::super::certs::tests::{cert, fake_sign, trust};
    use super::*;
    use crate::ids::{DownloadId, IntroId, PublicKey, VersionId};

    pub(crate) const CN_KEY: PublicKey = PublicKey([0xc; 32]);

    pub(crate) fn intro(n: u32) -> Introduction {
        Introduction {
            id: IntroId::numbered(n),
            download: DownloadId::numbered(1),
            version: VersionId::numbered(1),
            downloader_key: PublicKey::numbered(1),
            uploader_key: PublicKey::numbered(100 + n),
            connect_before_ms: 10_000,
            serve_until_ms: 20_000,
            cap_bytes: 1,
        }
    }

    pub(crate) fn answer(intros: Vec<Introduction>) -> Vec<SignedIntroduction> {
        let signature = fake_sign(&CN_KEY, SigningContext::Introductions, &root(&intros).0);
        sign(intros, signature, &cert(ServerRole::Cn, CN_KEY))
    }

    #[test]
    fn every_introduction_of_an_answer_of_any_length_checks() {
        for n in 1..=40 {
            let signed = answer((0..n).map(intro).collect());
            assert_eq!(signed.len(), n as usize);
            for s in &signed {
                assert_eq!(check(&trust(), s, 5_000), Ok(()), "{} of {n}", s.index);
            }
        }
    }

    #[test]
    fn a_changed_introduction_index_or_path_is_refused() {
        let good = answer((0..5).map(intro).collect()).remove(3);
        let forged = Err(IntroError::Chain(CertError::Signature));
        let mut s = good.clone();
        s.intro.cap_bytes += 1;
        assert_eq!(check(&trust(), &s, 5_000), forged);
        let mut s = good.clone();
        s.index = 2;
        assert_eq!(check(&trust(), &s, 5_000), forged);
        let mut s = good.clone();
        s.index = 8 + 3;
        assert_eq!(check(&trust(), &s, 5_000), Err(IntroError::Path));
        let mut s = good;
        s.path = List::truncated(s.path.into_vec().into_iter().rev());
        assert_eq!(check(&trust(), &s, 5_000), forged);
    }

    #[test]
    fn an_inner_node_cannot_pass_as_an_introduction_of_a_shorter_path() {
        let good = answer((0..4).map(intro).collect()).remove(0);
        let mut s = good;
        s.path = List::truncated(s.path.into_vec().into_iter().skip(1));
        assert_eq!(check(&trust(), &s, 5_000), Err(IntroError::Chain(CertError::Signature)));
    }

    #[test]
    fn an_introduction_by_an_edge_or_after_its_time_is_refused() {
        let mut s = answer((0..1).map(intro).collect()).remove(0);
        assert_eq!(check(&trust(), &s, 9_999), Ok(()));
        assert_eq!(check(&trust(), &s, 10_000), Err(IntroError::Time));
        s.cert = cert(ServerRole::Edge, CN_KEY);
        assert_eq!(check(&trust(), &s, 5_000), Err(IntroError::Chain(CertError::Role)));
    }
}
