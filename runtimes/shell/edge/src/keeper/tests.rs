//! The keeper on a real runtime and real files.

use super::super::publish::{Publish, publish};
use super::*;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use swarmedge_core::ids::ProviderId;
use swarmedge_ground::rt::Start as _;
use swarmedge_smol::Smol as TestRt;

const LEN: usize = 200_000;

fn content() -> Vec<u8> {
    (0..LEN).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

fn put(dir: &Path, path: &str) -> VersionId {
    let file = dir.join("source");
    std::fs::write(&file, content()).expect("written");
    let what = Publish { file, provider: ProviderId(7), path: path.into(), access: None, policy: None };
    publish(&dir.join("objects"), &what).expect("published").version
}

/// Changes a byte of a stored file; sets its times back to what they were, as rot does.
fn flip(files: &Files, id: VersionId, at: u64) {
    let path = files.content(id);
    let file = File::options().read(true).write(true).open(&path).expect("there");
    let times = file.metadata().and_then(|m| Ok((m.accessed()?, m.modified()?))).expect("times");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
    file.set_times(std::fs::FileTimes::new().set_accessed(times.0).set_modified(times.1)).expect("set");
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Keeper<TestRt>, tempfile::TempDir) -> F + Send + 'static) {
    TestRt::block_on(move |rt| async move {
        let dir = tempfile::tempdir().expect("a directory");
        let keeper = Keeper::new(rt, Files::new(dir.path().join("objects")), Health::default());
        test(keeper, dir).await;
    });
}

fn bad(pieces: &[u32]) -> What {
    What::Pieces(pieces.iter().map(|p| PieceIndex(*p)).collect())
}

fn is_damaged<T>(found: &Result<T, Refused>, what: &What) -> bool {
    matches!(found, Err(Refused::Damaged(found)) if found == what)
}

#[test]
fn a_rotten_piece_is_refused_and_the_others_are_not() {
    run(|keeper, dir| async move {
        let id = put(dir.path(), "a");
        flip(keeper.files(), id, 70_000);
        let stored = keeper.open(id).await.expect("whole");
        for piece in [0, 2, 3] {
            assert!(keeper.admit(&stored, PieceIndex(piece)).await.is_ok(), "{piece}");
        }
        for _ in 0..2 {
            assert!(is_damaged(&keeper.admit(&stored, PieceIndex(1)).await, &bad(&[1])));
        }
        assert_eq!(keeper.damage().of(id), Some(bad(&[1])));
        let asked = async |ranges: &[Range<u64>]| keeper.prepare(&stored, ranges, true).await;
        assert!(asked(&[0..65_536, 131_072..200_000]).await.is_ok());
        assert!(
            is_damaged(&asked(std::slice::from_ref(&(0..65_537))).await, &bad(&[1])),
            "known before the answer begins"
        );
        assert!(asked(std::slice::from_ref(&(0..0))).await.is_ok());
    });
}

#[test]
fn a_file_of_another_length_or_without_a_manifest_is_damaged() {
    run(|keeper, dir| async move {
        let id = put(dir.path(), "a");
        let content = keeper.files().content(id);
        for stored in [0, 100, 300_000] {
            File::options().write(true).open(&content).and_then(|f| f.set_len(stored)).expect("cut");
            assert!(is_damaged(&keeper.open(id).await, &What::Length { stored, size: LEN as u64 }), "{stored}");
        }
        put(dir.path(), "a");
        assert!(keeper.open(id).await.is_ok());
        std::fs::write(keeper.files().manifest(id), "no manifest").expect("written");
        assert!(matches!(keeper.manifest(id).await, Err(Refused::Damaged(What::Unreadable(_)))));
        assert!(keeper.open(id).await.is_ok(), "the one in memory is right");
        std::fs::remove_file(content).expect("removed");
        assert!(matches!(keeper.open(id).await, Err(Refused::Damaged(What::Unreadable(_)))));
    });
}

#[test]
fn a_good_verdict_is_believed_by_answers_and_not_by_the_scrub() {
    run(|keeper, dir| async move {
        let id = put(dir.path(), "a");
        let stored = keeper.open(id).await.expect("whole");
        let piece = PieceIndex(0);
        let first = keeper.admit(&stored, piece).await.expect("right");
        let known =
            |identity| keeper.0.verdicts.borrow_mut().of(&Limits::PRODUCTION, keeper.now(), (id, identity), piece);
        keeper.record(&stored, first, piece, true);
        assert_eq!(known(first), Verdict::Good);
        // what rots changes no times; here they change, so the verdict is put back
        // file systems count time in steps
        std::thread::sleep(std::time::Duration::from_millis(50));
        flip(keeper.files(), id, 5);
        let rotten = stored.identity().expect("there");
        assert_eq!(known(rotten), Verdict::Unknown, "every write voids it");
        keeper.record(&stored, rotten, piece, true);
        assert!(keeper.admit(&stored, piece).await.is_ok(), "it is believed");
        assert!(is_damaged(&keeper.check(&stored, piece, By::Scrub).await, &bad(&[0])));
        assert!(is_damaged(&keeper.admit(&stored, piece).await, &bad(&[0])));
    });
}

#[test]
fn many_answers_wait_for_one_hash_of_a_piece() {
    run(|keeper, dir| async move {
        let id = put(dir.path(), "a");
        let stored = keeper.open(id).await.expect("whole");
        let piece = (id, PieceIndex(0));
        let checking = Checking::begin(&keeper.0.checking, piece);
        let mut waiting = std::pin::pin!(keeper.admit(&stored, piece.1));
        assert!(futures_lite::future::poll_once(&mut waiting).await.is_none(), "another answer hashes it");
        drop(checking);
        assert!(waiting.await.is_ok(), "the other one was dropped before its end");
        assert!(keeper.0.checking.borrow().is_empty());
    });
}

#[test]
fn manifests_are_kept_in_bounded_memory() {
    use swarmedge_core::content::Layout;
    use swarmedge_core::ids::Digest;
    let of = |pieces: u32| {
        let layout = Layout::new(u64::from(pieces) * 65_536, 65_536).expect("a layout");
        let roots = vec![Digest([0; 32]); pieces as usize];
        Arc::new(Manifest::new(ProviderId(7), swarmedge_core::wire::Text::default(), layout, roots).expect("fits"))
    };
    let mut all = Manifests::default();
    for n in 0..4 {
        all.put(VersionId::numbered(n), of(1 << 18));
        assert!(all.get(VersionId::numbered(0)).is_some(), "what is asked for stays");
    }
    assert!(all.get(VersionId::numbered(1)).is_none() && all.kept.len() == 3);
    all.put(VersionId::numbered(9), of(1 << 21));
    assert_eq!(all.kept.len(), 1, "one larger than all room is kept alone");
}
