//! Tests that each assertion of the DN's `check` fails for a corruption of its own.

use super::*;
use crate::bench::assert_each_clause_fires;

/// Returns a DN with two CNs, a client that is registered and whose session its home DN knows, a download with one
/// report of missing receipts, and one whose offered peers are counted.
fn healthy() -> Dn {
    let mut b = bench();
    cn(&mut b, 1);
    cn(&mut b, 2);
    register(&mut b, 1, 1);
    register(&mut b, 1, 2);
    assert_eq!(select(&mut b, 1, 1).len(), 1);
    let session = SessionId(1);
    say(&mut b, 1, ToDn::Seen(Seen { session, guid: Guid::numbered(1), secondary: SecondaryGuid::numbered(1) }));
    let (download, intro) = (DownloadId::numbered(1), IntroId::numbered(1));
    say(&mut b, 1, ToDn::Unreceipted(Unreceipted { download, intro, owed: 1 << 20, receipted: 0 }));
    assert!(b.machine.offered.len() == 1 && b.machine.conduct.len() == 1);
    b.machine
}

fn downloads(most: usize) -> impl Iterator<Item = DownloadId> {
    (0..=u32::try_from(most).expect("few")).map(DownloadId::numbered)
}

#[test]
fn each_clause_about_the_connections_of_a_dn_fires() {
    assert_each_clause_fires(
        &healthy(),
        Dn::check,
        &[
            ("each connection has a time-out, and no other", |dn| dn.timers.clear(Timer::Silent(ConnId(1)))),
            ("each CN is found by its link", |dn| dn.by_link.clear()),
            ("each CN has a link that was given", |dn| dn.links = 0),
            ("no CN has two links", |dn| {
                dn.conns.values_mut().for_each(|cn| cn.key = PublicKey::numbered(1));
            }),
            ("each link is of a connection", |dn| _ = dn.by_link.insert(9, ConnId(1))),
            ("each time-out is of something that waits", |dn| {
                dn.timers.set(Timer::Silent(ConnId(77)), Some(Time(1)));
            }),
            ("stale registrations are swept in time", |dn| dn.directory.remove_link(9)),
        ],
    );
}

#[test]
fn each_clause_about_the_downloads_of_a_dn_fires() {
    assert_each_clause_fires(
        &healthy(),
        Dn::check,
        &[
            ("each download is forgiven in time", |dn| dn.timers.clear(Timer::Forgive(DownloadId::numbered(1)))),
            ("each count of offers is forgotten in time", |dn| {
                dn.timers.clear(Timer::Offer(DownloadId::numbered(9)));
            }),
            ("only downloads with offers are counted", |dn| {
                dn.offered.values_mut().for_each(|offers| *offers = 0);
            }),
            ("the downloads whose conduct is kept are bounded", |dn| {
                dn.conduct.extend(downloads(CONDUCT_MAX).map(|d| (d, Conduct::default())));
            }),
            ("the downloads whose offers are counted are bounded", |dn| {
                dn.offered.extend(downloads(OFFERED_MAX).map(|d| (d, 1)));
            }),
        ],
    );
}
