//! Tests that every manipulation of an export is found and that the honest export passes.

use super::*;
use crate::accounting::certs::tests::{ROOT, cert, fake_sign, trust};
use alloc::vec;

const LEDGER: PublicKey = PublicKey([5; 32]);
const US: ProviderId = ProviderId(7);

fn download(provider: ProviderId, day: u32, n: u32) -> Leaf {
    Leaf::Download(DownloadStatement {
        provider,
        day,
        download: DownloadId::numbered(day * 1_000 + n),
        path: Text::new("a/b").expect("short"),
        version: VersionId::numbered(1),
        size: 100,
        outcome: Outcome::Completed,
        edge_bytes: 30,
        peer_bytes: 70,
        flagged_bytes: 0,
        evidence: Digest::numbered(n),
        max_peer_bytes: 80,
    })
}

/// Returns the download's statement in a leaf, to be changed by a test.
fn of(leaf: &mut Leaf) -> &mut DownloadStatement {
    let Leaf::Download(d) = leaf else { panic!("a download") };
    d
}

/// Returns a provider's statements of a day with `n` downloads.
fn leaves(provider: ProviderId, day: u32, n: u32) -> Vec<Leaf> {
    let mut leaves: Vec<Leaf> = (0..n).map(|i| download(provider, day, i)).collect();
    let (version, edge) = (VersionId::numbered(1), PublicKey::numbered(1));
    leaves.push(Leaf::Plain(PlainStatement { provider, day, version, edge, bytes: 11 }));
    close(provider, day, leaves)
}

/// Appends the sum statement to a provider's statements of a day.
fn close(provider: ProviderId, day: u32, mut leaves: Vec<Leaf>) -> Vec<Leaf> {
    let mut totals = Totals::default();
    leaves.iter().for_each(|leaf| totals.add(leaf));
    let statements = leaves.len() as u64;
    leaves.push(Leaf::Sum(SumStatement { provider, day, statements, totals, since: 100 }));
    leaves
}

fn sign(head: Head) -> SignedHead {
    let signature = fake_sign(&LEDGER, SigningContext::LedgerHead, &head.to_bytes());
    SignedHead { head, signature, cert: cert(ServerRole::Ledger, LEDGER) }
}

/// Closes consecutive days from `first` on, each with other providers' leaves before and after ours.
fn ledger(first: u32, ours: &[Vec<Leaf>]) -> Vec<ProviderDay> {
    let mut log: Vec<Digest> = Vec::new();
    let mut previous: Option<SignedHead> = None;
    let mut days = Vec::new();
    for (day, ours) in (first..).zip(ours) {
        let before = leaves(ProviderId(1), day, 3);
        let all: Vec<Digest> =
            before.iter().chain(ours).chain(&leaves(ProviderId(9), day, 2)).map(Leaf::hash).collect();
        let leaf = DayLeaf { day, leaves: all.len() as u64, root: tree::root(&all) };
        log.push(leaf.hash());
        let days_in_log = log.len() as u64;
        let head = sign(Head { days: days_in_log, root: tree::root(&log), day, closed_ms: 5_000 });
        days.push(ProviderDay {
            provider: US,
            first: before.len() as u64,
            leaves: ours.clone(),
            range: tree::range(&all, before.len()..before.len() + ours.len()),
            inclusion: tree::inclusion(&log, log.len() - 1),
            consistency: tree::consistency(&log, log.len() - 1),
            previous: previous.replace(head.clone()),
            day: leaf,
            head,
        });
    }
    days
}

fn honest() -> Vec<ProviderDay> {
    ledger(100, &[leaves(US, 100, 5), leaves(US, 101, 1), close(US, 102, Vec::new()), leaves(US, 103, 8)])
}

#[test]
fn the_honest_ledger_is_accepted_and_its_totals_are_sums() {
    let days = honest();
    let totals = check_days(&trust(), &days).expect("honest");
    let expected = Totals { downloads: 14, completed: 14, edge_bytes: 420, peer_bytes: 980, plain_bytes: 33 };
    assert_eq!(totals, expected);
    assert_eq!(check_days(&trust(), &days[1..]).map(|t| t.downloads), Ok(9), "from any day on");
}

#[test]
fn a_changed_statement_is_found_even_if_the_sum_is_made_to_agree() {
    let mut days = honest();
    of(&mut days[0].leaves[2]).evidence.0[31] ^= 1;
    assert_eq!(days[0].check(&trust()), Err(Finding::Changed));
    let mut days = honest();
    of(&mut days[0].leaves[2]).peer_bytes -= 1;
    assert_eq!(days[0].check(&trust()), Err(Finding::Sum));
    days[0].leaves.pop();
    days[0].leaves = close(US, 100, days[0].leaves.clone());
    assert_eq!(days[0].check(&trust()), Err(Finding::Changed));
}

#[test]
fn dropped_and_added_statements_are_found() {
    let mut days = honest();
    days[3].leaves.remove(4);
    assert_eq!(check_days(&trust(), &days), Err((3, Finding::Count { expected: 9, found: 8 })));
    let mut days = honest();
    days[3].leaves.insert(0, download(US, 103, 99));
    assert_eq!(check_days(&trust(), &days), Err((3, Finding::Count { expected: 9, found: 10 })));
    for change in [Vec::pop, |l: &mut Vec<Leaf>| Some(l.remove(0))] {
        let mut leaves = leaves(US, 103, 8);
        leaves.pop();
        change(&mut leaves);
        let mut days = honest();
        days[3].leaves = close(US, 103, leaves);
        assert_eq!(check_days(&trust(), &days), Err((3, Finding::Changed)));
    }
}

#[test]
fn an_emptied_day_is_found_wherever_it_stands() {
    let empty = |day: &mut ProviderDay| {
        day.leaves.clear();
        day.range.clear();
    };
    for at in 0..4 {
        let mut days = honest();
        empty(&mut days[at]);
        assert_eq!(check_days(&trust(), &days), Err((at, Finding::Emptied)));
        assert!(check_days(&trust(), &days[at..]).is_err(), "as the first of its range");
    }
    let mut days = honest();
    days.iter_mut().for_each(empty);
    assert_eq!(check_days(&trust(), &days), Err((0, Finding::Nothing)));
}

#[test]
fn days_before_a_providers_first_are_empty() {
    let since = |leaves: Vec<Leaf>, since: u32| -> Vec<Leaf> {
        let with = |leaf| if let Leaf::Sum(s) = leaf { Leaf::Sum(SumStatement { since, ..s }) } else { leaf };
        leaves.into_iter().map(with).collect()
    };
    let days =
        |of: u32| ledger(100, &[Vec::new(), since(leaves(US, 101, 1), of), Vec::new(), since(leaves(US, 103, 1), 101)]);
    assert_eq!(check_days(&trust(), &days(101)[..2]).map(|t| t.downloads), Ok(1));
    assert_eq!(check_days(&trust(), &days(101)), Err((2, Finding::Emptied)));
    assert_eq!(check_days(&trust(), &days(100)[..2]), Err((0, Finding::Emptied)));
    assert_eq!(check_days(&trust(), &days(102)[..2]), Err((1, Finding::TooEarly)));
    assert_eq!(check_days(&trust(), &days(100)), Err((0, Finding::Emptied)));
}

#[test]
fn a_replaced_day_is_found_by_the_days_around_it() {
    let other = ledger(100, &[leaves(US, 100, 5), leaves(US, 101, 2), close(US, 102, Vec::new()), leaves(US, 103, 8)]);
    let mut days = honest();
    days[1] = other[1].clone();
    assert!(days[1].check(&trust()).is_ok(), "validly signed by itself");
    assert_eq!(check_days(&trust(), &days), Err((2, Finding::Replaced)));
    let mut days = honest();
    days.insert(2, other[1].clone());
    assert_eq!(check_days(&trust(), &days), Err((2, Finding::Replaced)), "two histories of one day");
    let mut days = honest();
    days[1].previous = other[1].previous.clone().map(|mut p| {
        p.head.root.0[0] ^= 1;
        sign(p.head)
    });
    assert_eq!(days[1].check(&trust()), Err(Finding::Rewritten));
    let mut days = honest();
    days.remove(2);
    assert_eq!(check_days(&trust(), &days), Err((2, Finding::Gap)));
}

#[test]
fn only_the_operators_ledger_is_believed() {
    let mut days = honest();
    days[0].head.head.closed_ms += 1;
    assert_eq!(days[0].check(&trust()), Err(Finding::Signature(CertError::Signature)));
    for (role, finding) in [(ServerRole::Cn, CertError::Role), (ServerRole::Edge, CertError::Role)] {
        let mut days = honest();
        days[0].head.cert = cert(role, LEDGER);
        assert_eq!(days[0].check(&trust()), Err(Finding::Signature(finding)));
    }
    let stranger = Trust { root: PublicKey::numbered(1), ..trust() };
    assert_eq!(honest()[0].check(&stranger), Err(Finding::Signature(CertError::Signature)));
    assert_ne!(stranger.root, ROOT);
}

#[test]
fn another_providers_day_and_a_double_bill_are_found() {
    let mut days = honest();
    days[0].provider = ProviderId(9);
    assert_eq!(days[0].check(&trust()), Err(Finding::Foreign));
    let mut twice = leaves(US, 101, 1);
    of(&mut twice[0]).download = DownloadId::numbered(100_000);
    assert_eq!(
        check_days(&trust(), &ledger(100, &[leaves(US, 100, 5), twice])),
        Err((1, Finding::BilledTwice(DownloadId::numbered(100_000))))
    );
    // more than edges have not sent, and more than was granted
    for (edge_bytes, peer_bytes) in [(30, 71), (10, 81)] {
        let mut over = vec![download(US, 100, 1)];
        let d = of(&mut over[0]);
        (d.edge_bytes, d.peer_bytes) = (edge_bytes, peer_bytes);
        let id = d.download;
        let days = ledger(100, &[close(US, 100, over)]);
        assert_eq!(days[0].check(&trust()), Err(Finding::OverBilled(id)));
    }
}

#[test]
fn a_flipped_bit_in_any_proof_is_found() {
    let days = honest();
    let proofs: [fn(&mut ProviderDay) -> &mut Vec<Digest>; 3] =
        [|d| &mut d.range, |d| &mut d.inclusion, |d| &mut d.consistency];
    for proof in proofs {
        let n = proof(&mut days[3].clone()).len();
        assert!(n > 0);
        for at in 0..n {
            let mut day = days[3].clone();
            proof(&mut day)[at].0[7] ^= 4;
            assert!(day.check(&trust()).is_err());
            let mut day = days[3].clone();
            proof(&mut day).remove(at);
            assert!(day.check(&trust()).is_err());
        }
    }
}
