//! Backups, detection of a lost ledger or log, and the single file that a clean shutdown leaves.

use super::backup::backup;
use super::tests::{edge, got, granted};
use super::{Database, DownloadUsage, Filter, Reader, Store};
use futures_lite::future::block_on;
use std::fs;
use std::path::{Path, PathBuf};
use swarmedge_core::wire::records::LedgerRecord;
use swarmedge_ground::error::{Code, Error};

struct Books {
    dir: tempfile::TempDir,
    file: PathBuf,
    database: Database,
}

fn books() -> Books {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ledger.sqlite");
    Books { database: file.clone().into(), file, dir }
}

fn batch(n: u32) -> Vec<LedgerRecord> {
    vec![granted(n, 7, "games/a.iso"), edge(1000 + n, Some(n), 1, 60), got(2000 + n, n, 1, 2, &[])]
}

fn shown(database: &Database) -> Result<Vec<DownloadUsage>, Error> {
    block_on(async { Reader::open(database).await?.downloads(&Filter::default()).await })
}

/// Copies those of the ledger's files whose endings are in `with` (such as `-wal`, the log) to another path, as a
/// killed machine would leave them.
fn moved(books: &Books, to: &str, with: &[&str]) -> Books {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join(to);
    for end in with {
        let name = |file: &Path| PathBuf::from(format!("{}{end}", file.display()));
        fs::copy(name(&books.file), name(&file)).expect("copied");
    }
    Books { database: file.clone().into(), file, dir }
}

fn log_len(books: &Books) -> u64 {
    fs::metadata(books.dir.path().join("ledger.sqlite-wal")).map_or(0, |meta| meta.len())
}

#[test]
fn a_clean_shutdown_leaves_one_whole_file_despite_readers() {
    let books = books();
    block_on(async {
        let mut store = Store::open(&books.database).await.expect("opens");
        let mut reader = Reader::open(&books.database).await.expect("opens");
        store.store(&batch(1), 5).await.expect("stored");
        reader.downloads(&Filter::default()).await.expect("reads");
        assert!(log_len(&books) > 0);
        store.close_with_empty_log().await;
        assert_eq!(log_len(&books), 0, "the reader is still there");
    });
    let copy = moved(&books, "ledger.sqlite", &[""]);
    assert_eq!(shown(&copy.database).expect("reads").len(), 1);
}

#[test]
fn a_backup_made_beside_the_writer_can_replace_the_ledger() {
    let books = books();
    let copy = books.dir.path().join("copy.sqlite");
    block_on(async {
        let mut store = Store::open(&books.database).await.expect("opens");
        for n in 1..=20 {
            store.store(&batch(n), 5).await.expect("stored");
        }
        let copied = backup(&books.database, &copy).await.expect("copied");
        assert_eq!((copied.records, copied.days, copied.bytes), (60, 0, fs::metadata(&copy).expect("there").len()));
        store.store(&batch(21), 5).await.expect("goes on");
        store.close_with_empty_log().await;
    });
    let all = shown(&books.database).expect("reads");
    assert_eq!(shown(&Database::from(copy.clone())).expect("reads"), all[..20], "the books of that moment");
    // the backup is restored in place of a newer ledger
    fs::copy(&copy, &books.file).expect("put back");
    assert_eq!(shown(&books.database).expect("reads"), all[..20]);
    for _ in 0..2 {
        block_on(async {
            let mut store = Store::open(&books.database).await.expect("opens");
            store.store(&batch(30), 5).await.expect("stored");
            store.close().await;
        });
        assert_eq!(shown(&books.database).expect("reads").len(), 21);
    }
}

#[test]
fn a_backup_overwrites_no_file_and_leaves_no_partial_one() {
    let books = books();
    let copy = books.dir.path().join("copy.sqlite");
    fs::write(&copy, "").expect("written");
    let absent = block_on(backup(&books.database, &copy)).expect_err("no ledger");
    assert_eq!(absent.code(), Code::NotFound);
    block_on(async { Store::open(&books.database).await.expect("opens").close().await });
    for there in ["", "somebody's"] {
        fs::write(&copy, there).expect("written");
        let error = block_on(backup(&books.database, &copy)).expect_err("there already");
        assert!(error.code() == Code::Usage && error.to_string().contains("there already"), "{error}");
        assert_eq!(fs::read_to_string(&copy).expect("there"), there);
    }
    let nowhere = books.dir.path().join("none/copy.sqlite");
    assert_eq!(block_on(backup(&books.database, &nowhere)).expect_err("no such folder").code(), Code::NotFound);
    // a failed backup removes its file
    fs::remove_file(&copy).expect("removed");
    fs::write(&books.file, vec![7; 8192]).expect("written");
    block_on(backup(&books.database, &copy)).expect_err("no database");
    assert!(!copy.exists());
    let names = fs::read_dir(books.dir.path()).expect("there").flatten().map(|f| f.file_name());
    assert!(names.into_iter().all(|n| !n.to_string_lossy().contains("part")), "nothing beside it");
    let far = Database::from("postgres://me:secret@db.example/books".to_owned());
    let error = block_on(backup(&far, &copy)).expect_err("not ours").to_string();
    assert!(error.contains("pg_dump") && !error.contains("secret"), "{error}");
}

#[test]
fn a_lost_ledger_is_not_recreated_until_its_loss_is_accepted() {
    for is_emptied in [false, true] {
        let books = books();
        assert_eq!(block_on(books.database.loss()), Ok(None), "never begun");
        block_on(async { Store::open(&books.database).await.expect("opens").close().await });
        assert_eq!(block_on(books.database.loss()), Ok(None));
        if is_emptied { fs::write(&books.file, "") } else { fs::remove_file(&books.file) }.expect("lost");
        for error in [block_on(Store::open(&books.database)).map(|_| ()), shown(&books.database).map(|_| ())] {
            let error = error.expect_err("lost");
            assert!(error.to_string().contains("accept-loss ledger"), "{error}");
        }
        assert_eq!(books.file.exists(), is_emptied, "nothing was made");
        assert!(block_on(books.database.loss()).expect("looked").is_some());
        swarmedge_ground::files::mark::Mark::of(&books.file).forget().expect("accepted");
        block_on(async { Store::open(&books.database).await.expect("begins anew").close().await });
    }
}

#[test]
fn a_ledger_without_its_log_is_refused_until_the_log_is_back() {
    let books = books();
    block_on(async {
        let mut store = Store::open(&books.database).await.expect("opens");
        store.store(&batch(1), 5).await.expect("stored");
        let (all, without) = (&["", "-wal", ".mark"][..], &["", ".mark"][..]);
        // the state that a killed process would leave
        let whole = moved(&books, "a", all);
        let lacking = moved(&books, "b", without);
        let before = fs::read(&lacking.file).expect("there");
        let error = Store::open(&lacking.database).await.expect_err("lacks").to_string();
        assert!(error.contains("lacks") && error.contains("b-wal"), "{error}");
        assert!(shown(&lacking.database).is_err());
        assert_eq!(fs::read(&lacking.file).expect("there"), before);
        assert_eq!(shown(&whole.database).expect("reads").len(), 1);
        // the log is put back
        fs::copy(books.dir.path().join("ledger.sqlite-wal"), lacking.dir.path().join("b-wal")).expect("copied");
        Store::open(&lacking.database).await.expect("opens").close().await;
        assert_eq!(shown(&lacking.database).expect("reads").len(), 1);
        // lost changes are noticed too when earlier ones are already in the file
        store.checkpoint().await;
        store.store(&batch(2), 5).await.expect("stored");
        let lacking = moved(&books, "c", without);
        let loss = lacking.database.loss().await.expect("looked").expect("the second batch");
        assert!(loss.contains("lacks 1 of"), "{loss}");
    });
}

#[test]
fn a_foreign_log_beside_the_file_is_not_replayed() {
    let books = books();
    let copy = books.dir.path().join("copy.sqlite");
    block_on(async {
        let mut store = Store::open(&books.database).await.expect("opens");
        store.store(&batch(1), 5).await.expect("stored");
        backup(&books.database, &copy).await.expect("copied");
        store.store(&batch(2), 5).await.expect("stored");
        let killed = moved(&books, "a", &["", "-wal", ".mark"]);
        // the backup replaces the file but not its log
        fs::copy(&copy, &killed.file).expect("put back");
        let error = killed.database.check_unopened().expect_err("another's log").to_string();
        assert!(error.contains("a-wal") && error.contains("move the log away"), "{error}");
        fs::remove_file(killed.dir.path().join("a-wal")).expect("moved away");
        killed.database.check_unopened().expect("its own");
        Store::open(&killed.database).await.expect("opens").close().await;
        assert_eq!(shown(&killed.database).expect("reads").len(), 1);
        // a log without its file, and no mark yet
        let orphan = moved(&books, "b", &["-wal"]);
        let error = Store::open(&orphan.database).await.expect_err("its file is gone").to_string();
        assert!(error.contains("b-wal"), "{error}");
    });
}
