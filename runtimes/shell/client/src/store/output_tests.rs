//! Existing files at the user's path, and what is there after a download.

use super::crash_tests::saved;
use super::tests::{PIECE, Rig, download, fill, names_of, placed, rig};
use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use swarmedge_core::ids::Handle;
use swarmedge_core::role::client::io::DownloadRecord;

/// Completes a download into the file `output`.
fn finish(r: &Rig, handle: u32, output: &Path, replace: bool) -> Result<(), StoreError> {
    let record = DownloadRecord { replace, ..download(handle, output, r.version) };
    saved(&r.store, Save::Download(record)).expect("saved");
    saved(&r.store, Save::Finish { handle: Handle(handle), version: r.version })
}

fn whole(links: bool) -> Rig {
    let r = rig(2 * PIECE as usize);
    r.store.set_links(links);
    fill(&r);
    r
}

/// Returns the names in a directory, except the state directory's.
fn names(dir: &Path) -> Vec<String> {
    let all = fs::read_dir(dir).expect("a directory").flatten().map(|f| f.file_name().to_string_lossy().into_owned());
    let mut all: Vec<_> = all.filter(|name| name != "state").collect();
    all.sort();
    all
}

#[test]
fn a_file_that_was_made_meanwhile_is_only_replaced_on_demand() {
    for links in [false, true] {
        let r = whole(links);
        let out = r.dir.path().join("out");
        fs::write(&out, "mine").expect("writes");
        assert_eq!(finish(&r, 1, &out, false), Err(StoreError::Taken));
        assert_eq!(fs::read(&out).expect("there"), b"mine");
        // nothing of the download is lost
        let other = r.dir.path().join("other");
        assert_eq!(finish(&r, 1, &other, false), Ok(()));
        assert_eq!(fs::read(&other).expect("there"), r.bytes);
        assert_eq!(finish(&r, 2, &out, true), Ok(()));
        assert_eq!(fs::read(&out).expect("there"), r.bytes);
        assert_eq!(names(r.dir.path()), ["other", "out"]);
    }
}

/// Scenario: two copies of a client put the same file at the same path at the same time.
#[test]
fn the_same_file_made_meanwhile_is_the_file() {
    for links in [false, true] {
        let r = whole(links);
        let out = r.dir.path().join("out");
        fs::write(r.dir.path().join("theirs"), &r.bytes).expect("writes");
        let record = download(1, &out, r.version);
        saved(&r.store, Save::Download(record)).expect("saved");
        let done: Vec<_> = std::iter::repeat_with(|| {
            let (tx, rx) = std::sync::mpsc::channel();
            let what = Save::Finish { handle: Handle(1), version: r.version };
            r.store.save(what, move |result| tx.send(result).expect("the test waits"));
            rx
        })
        .take(8)
        .collect();
        drop(fs::hard_link(r.dir.path().join("theirs"), &out));
        assert!(done.into_iter().all(|rx| rx.recv().expect("answered") == Ok(())));
        assert_eq!(fs::read(&out).expect("there"), r.bytes);
        assert_eq!(names(r.dir.path()), ["out", "theirs"]);
    }
}

#[test]
fn what_its_user_has_edited_is_kept_and_what_nobody_has_is_the_file() {
    for links in [false, true] {
        let r = whole(links);
        let out = r.dir.path().join("out");
        assert_eq!(finish(&r, 1, &out, false), Ok(()));
        let inode = fs::metadata(&out).expect("there").ino();
        assert_eq!(finish(&r, 2, &out, false), Ok(()), "it is here already");
        assert_eq!(fs::metadata(&out).expect("there").ino(), inode);
        let object = download(1, &out, r.version).object;
        assert!((r.store.put_there())(&object, &out).expect("readable"));
        let mut edited = fs::read(&out).expect("there");
        edited.extend(b"one line more");
        fs::write(&out, &edited).expect("writes");
        assert!(!(r.store.put_there())(&object, &out).expect("readable"));
        assert_ne!(finish(&r, 2, &out, false), Ok(()));
        assert_eq!(fs::read(&out).expect("there"), edited);
    }
}

#[test]
fn a_device_a_fifo_a_socket_and_a_directory_are_never_replaced() {
    let r = whole(false);
    let at = |name: &str| r.dir.path().join(name);
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("binds");
    fs::create_dir(at("dir")).expect("made");
    symlink("/dev/null", at("null")).expect("made");
    for (name, kind) in [("fifo", Kind::Special), ("socket", Kind::Special), ("dir", Kind::Directory)] {
        for replace in [false, true] {
            assert_eq!(finish(&r, 1, &at(name), replace), Err(StoreError::Taken), "{name}");
            assert_eq!(Kind::at(&at(name)).expect("there"), kind);
        }
    }
    for replace in [false, true] {
        assert_eq!(finish(&r, 1, &at("null"), replace), Err(StoreError::Taken), "what the link points to");
    }
    assert_eq!(Kind::at(Path::new("/dev/null")).expect("there"), Kind::Special);
}

#[test]
fn a_symbolic_link_is_left_alone_or_written_through_on_demand() {
    for links in [false, true] {
        let r = whole(links);
        let at = |name: &str| r.dir.path().join(name);
        fs::create_dir(at("far")).expect("made");
        fs::write(at("far/file"), "mine").expect("writes");
        for (name, to) in [("link", "far/file"), ("dangling", "far/new")] {
            symlink(to, at(name)).expect("made");
            assert_eq!(finish(&r, 1, &at(name), false), Err(StoreError::Taken));
            assert_eq!(fs::read_link(at(name)).expect("a link"), Path::new(to));
            assert!(fs::read(at(to)).is_ok_and(|b| b == b"mine") || !at(to).exists());
            assert_eq!(finish(&r, 1, &at(name), true), Ok(()));
            assert_eq!(fs::read_link(at(name)).expect("a link"), Path::new(to));
            assert_eq!(fs::read(at(to)).expect("there"), r.bytes);
            assert_eq!(finish(&r, 2, &at(name), false), Ok(()), "it is here already");
        }
        symlink("ring", at("ring")).expect("made");
        assert_eq!(finish(&r, 1, &at("ring"), true), Err(StoreError::Io));
    }
}

#[test]
fn names_as_long_as_the_file_system_takes_are_taken() {
    for links in [false, true] {
        let r = whole(links);
        for name in [255, 254, 33, 32, 1].map(|n| "n".repeat(n)).into_iter().chain(["ü".repeat(127)]) {
            let out = r.dir.path().join(name);
            assert_eq!(finish(&r, 1, &out, false), Ok(()), "{}", out.display());
            assert_eq!(fs::read(&out).expect("there"), r.bytes);
            fs::remove_file(out).expect("deleted");
        }
        assert_eq!(finish(&r, 1, &r.dir.path().join("n".repeat(256)), false), Err(StoreError::Io));
        assert!(names(r.dir.path()).is_empty());
    }
}

#[test]
fn names_beside_a_file_cannot_be_foreseen_and_are_no_longer_than_its_own() {
    for len in [1, 12, 32, 33, 100, 255] {
        let file = Path::new("/out").join("n".repeat(len));
        let [one, other] = [(); 2].map(|()| temporary_name(&file).expect("a name"));
        assert_ne!(one, other);
        assert_eq!(one.parent(), file.parent());
        assert!(one.file_name().expect("a name").len() <= len.max(46));
    }
}

#[test]
fn a_file_that_is_being_made_is_its_owners_and_follows_no_link() {
    let dir = tempfile::tempdir().expect("a directory");
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").expect("writes");
    symlink(&victim, dir.path().join("link")).expect("made");
    assert!(make_private(&dir.path().join("link")).is_err());
    assert!(OsDisk.copy(&victim, &dir.path().join("link")).is_err());
    assert_eq!(fs::read(&victim).expect("there"), b"precious");
    let mode = make_private(&dir.path().join("new")).expect("made").metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o77, 0);
}

#[test]
fn an_older_version_that_nobody_has_edited_gives_way() {
    let (r, out) = placed(2 * PIECE as usize);
    let newer = super::tests::content(PIECE as usize);
    let manifest = r.store.put_manifest(super::tests::manifest_of(&newer, PIECE));
    let r = Rig { version: manifest.version(), bytes: newer, manifest, ..r };
    saved(&r.store, Save::Download(download(2, &out, r.version))).expect("saved");
    fill(&r);
    assert_eq!(finish(&r, 2, &out, false), Ok(()));
    assert_eq!(fs::read(&out).expect("there"), r.bytes);
    assert_eq!(names_of(&out), 2);
}

/// The mode that a user wants is that of the file, also where it shares its inode with a data file of another mode.
#[test]
fn a_new_file_has_the_mode_that_its_user_wants() {
    for links in [false, true] {
        let r = whole(links);
        for (n, mode) in [(1, 0o644), (2, 0o600), (3, 0o664), (4, 0o444)] {
            let out = r.dir.path().join(n.to_string());
            r.store.modes().set(&out, mode);
            assert_eq!(finish(&r, n, &out, false), Ok(()));
            assert_eq!(fs::metadata(&out).expect("there").permissions().mode() & 0o7777, mode, "{links} {n}");
            assert_eq!(fs::read(&out).expect("there"), r.bytes);
        }
        // what is there already keeps what its user has made of it
        let out = r.dir.path().join("1");
        fs::set_permissions(&out, fs::Permissions::from_mode(0o700)).expect("set");
        assert_eq!(finish(&r, 5, &out, false), Ok(()));
        assert_eq!(fs::metadata(&out).expect("there").permissions().mode() & 0o7777, 0o700);
    }
}
