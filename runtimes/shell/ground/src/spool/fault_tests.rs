//! Failures and crashes at every disk operation of a spool, on a disk in memory that loses unsynced data at a crash and
//! marks pages clean after a failed sync.

use super::tests::{count, record};
use super::writing::attempt;
use super::*;
use crate::disk::mem::{Fault, Medium, MemDisk, coin};
use crate::health::Health;
use crate::mailbox::mailbox;
use crate::rt::{Rt as _, Start as _, testing::TestRt};
use std::collections::BTreeMap;
use std::time::Duration;
use swarmedge_core::ids::{RecordId, ReqId};
use swarmedge_core::wire::records::GrantRecord;

const PATH: &str = "/spool/edge.redb";
/// Time-out of a test step, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(disk: &MemDisk) -> Result<(Spool, SpoolContents), Error> {
    Spool::open_on(Arc::new(disk.clone()), Path::new(PATH))
}

fn disk(fault: Option<(usize, Fault)>) -> MemDisk {
    MemDisk::new(Medium::with(fault))
}

fn step(n: u32) -> Batch {
    Batch {
        records: (0..5).map(|i| record(10 * n + i)).collect(),
        counts: vec![count(Some(1), n), count(Some(n), n)],
        acked: (0..4).map(|i| RecordId::numbered((10 * n + i).saturating_sub(10))).collect(),
        ended: vec![DownloadId::numbered(n.saturating_sub(2))],
    }
}

/// Returns the expected contents of a spool after some steps.
fn expected(steps: impl IntoIterator<Item = u32>) -> SpoolContents {
    let (mut records, mut counts) = (BTreeMap::new(), BTreeMap::new());
    for batch in steps.into_iter().map(step) {
        records.extend(batch.records.into_iter().map(|r| (r.id(), r)));
        counts.extend(batch.counts.into_iter().map(|c| (count_key(&c), c)));
        batch.acked.iter().for_each(|id| drop(records.remove(id)));
        batch.ended.iter().for_each(|d| drop(counts.remove(d.0.as_slice())));
    }
    (records.into_values().collect(), counts.into_values().collect())
}

/// Opens a spool and writes the steps in order; returns how many became durable before the first failure, or `None` if
/// opening failed.
fn run(disk: &MemDisk) -> Option<usize> {
    let (spool, _) = open(disk).ok()?;
    Some((1..=6).take_while(|n| attempt(&spool, &[step(*n)], false).is_ok()).count())
}

/// Counts the disk operations until the spool is open, until the last step is durable, and in all.
fn operations() -> [usize; 3] {
    let disk = disk(None);
    let done = || disk.0.lock().expect("whole").operations;
    let (spool, _) = open(&disk).expect("an empty disk");
    let opened = done();
    (1..=6).for_each(|n| attempt(&spool, &[step(n)], false).expect("no fault"));
    let written = done();
    drop(spool);
    assert!(written > opened + 12 && done() > written, "{opened}, {written}, {}", done());
    [opened, written, done()]
}

fn after_crash(disk: &MemDisk, seed: u64) -> SpoolContents {
    let image = disk.0.lock().expect("whole").after_crash(coin(seed));
    open(&MemDisk::new(image)).unwrap_or_else(|e| panic!("seed {seed}: {e}")).1
}

#[test]
fn one_failed_disk_operation_refuses_nothing_and_survives_a_crash() {
    let [opened, _, all] = operations();
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for at in 1..=all {
            let disk = disk(Some((at, Fault::Error(kind))));
            let done = run(&disk);
            assert!(disk.0.lock().expect("whole").operations >= at, "{kind} at {at}: it never happened");
            let Some(done) = done else {
                assert!(at <= opened, "{kind} at {at}: not opened");
                continue;
            };
            assert_eq!(done, 6, "{kind} at {at}");
            for seed in 0..4 {
                assert_eq!(after_crash(&disk, seed), expected(1..=6), "{kind} at {at}, seed {seed}");
            }
        }
    }
}

#[test]
fn a_crash_at_any_disk_operation_loses_nothing_that_was_durable() {
    for at in 1..=operations()[2] {
        for seed in 0..4 {
            let disk = disk(Some((at, Fault::Crash)));
            let done = run(&disk).unwrap_or_default();
            let held = after_crash(&disk, seed);
            let done = u32::try_from(done).expect("few");
            // a step that was reported failed may be on disk all the same
            let may_be = [expected(1..=done), expected(1..=done + 1)];
            assert!(may_be.contains(&held), "crash at {at}, seed {seed}: {done} steps were durable");
        }
    }
}

#[test]
fn a_fault_that_lasts_ends_without_a_restart_and_loses_nothing() {
    let [opened, written, _] = operations();
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for at in opened + 1..=written {
            let disk = disk(Some((at, Fault::Lasting(kind))));
            let (spool, _) = open(&disk).expect("no fault yet");
            let write = |n: &u32| attempt(&spool, &[step(*n)], false).is_ok();
            let first: Vec<u32> = (1..=6).take_while(write).collect();
            assert!(first.len() < 6, "{kind} at {at}: it never happened");
            assert!(attempt(&spool, &[], true).is_err(), "{kind} at {at}");
            disk.0.lock().expect("whole").fault = None;
            attempt(&spool, &[], true).unwrap_or_else(|e| panic!("{kind} at {at}: {e}"));
            let next = u32::try_from(first.len()).expect("few") + 1;
            (next..=6).for_each(|n| assert!(write(&n), "{kind} at {at}"));
            for seed in 0..4 {
                assert_eq!(after_crash(&disk, seed), expected(1..=6), "{kind} at {at}, seed {seed}");
            }
        }
    }
}

/// Makes records with ids far apart, so that they lie on different pages.
fn far_apart(ids: std::ops::RangeInclusive<u8>) -> Vec<LedgerRecord> {
    let far = |id: u8| match record(1) {
        LedgerRecord::Granted(granted) => LedgerRecord::Granted(GrantRecord { id: RecordId([id; 16]), ..granted }),
        other => other,
    };
    ids.map(far).collect()
}

/// Scenario: after a failed sync the kernel marks the refused batch's pages clean. A later batch that depends on them
/// is durable only if they are written again.
#[test]
fn durable_data_survives_a_crash_after_a_refused_batch() {
    let batch = |ids| Batch { records: far_apart(ids), ..Batch::default() };
    let prepared = || {
        let disk = disk(None);
        let (spool, _) = open(&disk).expect("an empty disk");
        attempt(&spool, &[batch(1..=200)], false).expect("no fault");
        let at = disk.0.lock().expect("whole").operations;
        (disk, spool, at)
    };
    let (disk, spool, from) = prepared();
    spool.write(&[batch(201..=220)]).expect("no fault");
    let upto = disk.0.lock().expect("whole").operations;
    for at in from + 1..=upto {
        for seed in 0..4 {
            let (disk, spool, _) = prepared();
            disk.0.lock().expect("whole").fault = Some((at, Fault::Error(io::ErrorKind::Other)));
            spool.write(&[batch(201..=220)]).expect_err("refused");
            spool.write(&[batch(0..=0)]).expect("the disk works again");
            let (held, _) = after_crash(&disk, seed);
            let lost = far_apart(0..=200).into_iter().filter(|r| !held.contains(r)).count();
            assert_eq!(lost, 0, "at {at}, seed {seed}");
        }
    }
}

/// Waits until the health conditions satisfy `fits`.
async fn until(rt: &TestRt, health: &Health, fits: impl Fn(&[String]) -> bool) {
    let late = rt.now() + PATIENCE;
    while !fits(&health.reasons()) {
        assert!(rt.now() < late, "{:?}", health.reasons());
        rt.sleep_until(rt.now() + Duration::from_millis(10)).await;
    }
}

#[test]
fn health_names_a_failing_spool_and_clears_without_traffic() {
    TestRt::block_on(|rt| async move {
        let disk = disk(None);
        let health = Health::default();
        let (spool, _) = open(&disk).expect("an empty disk");
        let (inbox, mut saved) = mailbox(8);
        let (saver, writing) = write(rt.clone(), spool, &health, "spool", |req, ok| (req, ok));
        rt.spawn(writing);
        let fault = |fault| disk.0.lock().expect("whole").fault = fault;
        let say = |kind| Some((0, Fault::Lasting(kind)));
        for (n, kind) in (0..).zip([io::ErrorKind::StorageFull, io::ErrorKind::Other, io::ErrorKind::NotFound]) {
            let (first, second, third) = (3 * n, 3 * n + 1, 3 * n + 2);
            fault(say(kind));
            // the second batch is refused without a write
            for req in [first, second] {
                assert!(saver.save(&inbox, ReqId(req), step(1)));
                assert_eq!(saved.recv().await, Some((ReqId(req), false)), "{kind}");
            }
            let reasons = health.reasons();
            assert!(reasons[0].starts_with("spool: cannot write /spool/edge.redb: "), "{reasons:?}");
            fault(None);
            until(&rt, &health, <[String]>::is_empty).await;
            assert!(saver.save(&inbox, ReqId(third), step(1)));
            assert_eq!(saved.recv().await, Some((ReqId(third), true)), "{kind}");
        }
    });
}

#[test]
fn health_names_a_missing_spool_until_it_is_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, away) = (dir.path().join("spool.redb"), dir.path().join("away"));
    let (spool, _) = Spool::open(&path).expect("opened");
    attempt(&spool, &[step(1)], false).expect("written");
    spool.db.change(|open| *open = None);
    std::fs::rename(&path, &away).expect("moved");
    let gone = attempt(&spool, &[step(2)], false).expect_err("gone");
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    std::fs::write(&path, "").expect("written");
    assert!(attempt(&spool, &[], true).expect_err("emptied").to_string().contains("empty"));
    std::fs::rename(&away, &path).expect("moved");
    attempt(&spool, &[step(2)], true).expect("it is back");
    let second = Spool::open(&path).expect_err("it is locked all the time");
    assert!(second.to_string().contains("is in use"), "{second}");
    drop(spool);
    assert_eq!(Spool::open(&path).expect("opened").1, expected(1..=2));
}
