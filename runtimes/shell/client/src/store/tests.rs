use super::*;
use bytes::Bytes;
use std::future::{Future, ready};
use std::net::SocketAddr;
use std::time::Instant;
use swarmedge_core::content::merkle;
use swarmedge_core::ids::ProviderId;
use swarmedge_core::role::client::io::{FetchEnd, Granted, ObjectRef, SourceName};
use swarmedge_core::wire::Text;
use swarmedge_ground::rt::Rt;

/// A runtime for tests without a network: blocking work runs on the calling thread.
#[derive(Clone)]
pub(super) struct Inline;

impl Rt for Inline {
    type Tcp = futures_lite::io::Cursor<Vec<u8>>;
    type Listener = ();
    const NAME: &'static str = "inline";
    fn now(&self) -> Instant {
        Instant::now()
    }
    fn sleep_until(&self, _: Instant) -> impl Future<Output = ()> + 'static {
        ready(())
    }
    fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        futures_lite::future::block_on(future);
    }
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + 'static {
        ready(work())
    }
    fn connect(&self, _: SocketAddr) -> impl Future<Output = io::Result<Self::Tcp>> + 'static {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }
    fn connecting(&self, _: std::net::TcpStream) -> impl Future<Output = io::Result<Self::Tcp>> + 'static {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }
    fn listen(&self, _: std::net::TcpListener) -> io::Result<Self::Listener> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn accept(&self, (): &Self::Listener) -> impl Future<Output = io::Result<(Self::Tcp, SocketAddr)>> {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }
    fn quic(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quinn::SmolRuntime)
    }
}

pub(super) fn run<T>(f: impl Future<Output = T>) -> T {
    futures_lite::future::block_on(f)
}

/// Makes content in which no two blocks are equal.
pub(super) fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i.wrapping_mul(2_654_435_761) >> 13) & 0xff).expect("a byte")).collect()
}

pub(super) fn manifest_of(bytes: &[u8], piece_len: u32) -> Manifest {
    let layout = Layout::new(bytes.len() as u64, piece_len).expect("a layout");
    let roots = layout.iter().zip(bytes.chunks(piece_len as usize));
    let roots = roots.map(|(p, data)| merkle::piece_root(&layout, p, &merkle::leaves(data))).collect();
    Manifest::new(ProviderId(1), Text::new("o").expect("short"), layout, roots).expect("a root a piece")
}

fn saved(store: &Store, save: Save) -> Result<(), StoreError> {
    let (tx, rx) = std::sync::mpsc::channel();
    store.save(save, move |result| tx.send(result).expect("the test waits"));
    rx.recv().expect("every save is answered")
}

pub(super) fn download(handle: u32, output: &Path, version: VersionId) -> DownloadRecord {
    let granted = Granted {
        download: DownloadId::numbered(handle),
        download_key: swarmedge_core::ids::PublicKey::numbered(handle),
        version,
        size: 0,
        policy: swarmedge_core::content::Policy::default(),
        order_seed: 0,
        expires_ms: 0,
        sealed: swarmedge_core::wire::records::SealedGrant {
            epoch: 0,
            nonce: [0; 24],
            sealed: swarmedge_core::wire::Blob::default(),
        },
        ticket: None,
    };
    DownloadRecord {
        handle: Handle(handle),
        object: ObjectRef { provider: ProviderId(1), path: "o".into() },
        output: output.to_str().expect("UTF-8").into(),
        replace: false,
        granted: Some(granted),
        state: DownloadState::Running,
        usage_seq: 0,
        active_ms: 0,
    }
}

pub(super) struct Rig {
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) bytes: Vec<u8>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) version: VersionId,
}

pub(super) const PIECE: u32 = 1 << 19;

pub(super) fn rig(len: usize) -> Rig {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(&dir.path().join("state")).expect("a fresh store");
    let bytes = content(len);
    let manifest = store.put_manifest(manifest_of(&bytes, PIECE));
    let version = manifest.version();
    saved(&store, Save::Download(download(1, &dir.path().join("out"), version))).expect("saved");
    Rig { dir, store, bytes, manifest, version }
}

impl Rig {
    fn blocks(&self, piece: u32, blocks: Range<u32>) -> Vec<u8> {
        let r = self.manifest.layout().block_range(PieceIndex(piece), blocks);
        self.bytes[usize::try_from(r.start).expect("small")..usize::try_from(r.end).expect("small")].to_vec()
    }

    fn whole(&self, piece: u32) -> Range<u32> {
        0..self.manifest.layout().blocks(PieceIndex(piece))
    }

    fn fetch(&self, piece: u32, blocks: Range<u32>, leaves: Option<Vec<Digest>>, data: Vec<u8>) -> FetchEnd {
        let sink = Sink::new(Inline, &self.store, self.version, (PieceIndex(piece), blocks), leaves);
        let mut sink = match sink {
            Ok(sink) => sink,
            Err(end) => return end,
        };
        // chunks as a network would cut them
        for chunk in data.chunks(1_371) {
            if let Err(end) = run(sink.push(Bytes::copy_from_slice(chunk))) {
                return end;
            }
        }
        run(sink.finish())
    }

    fn save(&self, piece: u32) -> Result<(), StoreError> {
        let from = vec![(SourceName::Edge, self.manifest.layout().piece_size(PieceIndex(piece)))];
        saved(&self.store, Save::Piece { handle: Handle(1), version: self.version, piece: PieceIndex(piece), from })
    }
}

#[test]
fn a_version_comes_in_is_placed_and_is_there_after_a_restart() {
    let r = rig(2 * PIECE as usize + 100_001);
    for piece in 0..3 {
        let leaves = (piece == 1).then(|| merkle::leaves(&r.blocks(1, r.whole(1))));
        assert_eq!(r.fetch(piece, r.whole(piece), leaves, r.blocks(piece, r.whole(piece))), FetchEnd::Fetched);
        r.save(piece).expect("journalled");
        assert_eq!(r.store.read_blocks(r.version, PieceIndex(piece), 1..3), Ok(r.blocks(piece, 1..3).into()));
        assert_eq!(r.store.leaves(r.version, PieceIndex(piece)), Ok(merkle::leaves(&r.blocks(piece, r.whole(piece)))));
    }
    saved(&r.store, Save::Finish { handle: Handle(1), version: r.version }).expect("placed");
    assert_eq!(std::fs::read(r.dir.path().join("out")).expect("the file"), r.bytes);
    saved(&r.store, Save::Uploads(false)).expect("saved");
    drop(r.store);
    let (store, restored) = Store::open(&r.dir.path().join("state")).expect("opens again");
    assert_eq!(restored.uploads, Some(false));
    assert_eq!(restored.cached, vec![(r.version, r.manifest.layout(), Bitfield::full(3))]);
    assert_eq!(restored.downloads.len(), 1);
    assert!(restored.downloads[0].1.is_full());
    assert_eq!(restored.sources[&Handle(1)][&SourceName::Edge], r.bytes.len() as u64);
    assert_eq!(store.manifest(r.version), Some(r.manifest));
}

#[test]
fn the_first_wrong_block_of_a_peer_is_named_and_not_written() {
    let r = rig(PIECE as usize);
    let leaves = merkle::leaves(&r.bytes);
    let mut wrong = r.bytes.clone();
    wrong[19 * 16_384 + 5] ^= 1;
    wrong[30 * 16_384] ^= 1;
    assert_eq!(r.fetch(0, r.whole(0), Some(leaves), wrong), FetchEnd::BadBlock { block: 19 });
    assert_eq!(r.save(0), Err(StoreError::Io), "an unverified piece is not journalled");
    assert_eq!(r.fetch(0, 19..32, None, r.blocks(0, 19..32)), FetchEnd::Fetched, "blocks before it were kept");
    assert_eq!(r.save(0), Ok(()));
}

#[test]
fn wrong_leaf_hashes_and_too_many_bytes_are_bad_blocks() {
    let r = rig(PIECE as usize);
    let mut leaves = merkle::leaves(&r.bytes);
    leaves[3].0[0] ^= 1;
    assert_eq!(r.fetch(0, 0..4, Some(leaves.clone()), r.blocks(0, 0..4)), FetchEnd::BadBlock { block: 0 });
    leaves.pop();
    assert_eq!(r.fetch(0, 0..4, Some(leaves), r.blocks(0, 0..4)), FetchEnd::BadBlock { block: 0 });
    let good = merkle::leaves(&r.bytes);
    assert_eq!(r.fetch(0, 0..4, Some(good.clone()), r.blocks(0, 0..5)), FetchEnd::BadBlock { block: 0 });
    assert_eq!(r.fetch(0, 0..4, Some(good), r.blocks(0, 0..3)), FetchEnd::Broken);
}

#[test]
fn a_corrupting_edge_is_found_at_the_end_of_the_piece() {
    let r = rig(PIECE as usize);
    let mut wrong = r.blocks(0, 0..16);
    wrong[7] ^= 1;
    assert_eq!(r.fetch(0, 0..16, None, wrong), FetchEnd::Fetched, "nothing to check against yet");
    assert_eq!(r.fetch(0, 16..32, None, r.blocks(0, 16..32)), FetchEnd::BadBlock { block: 16 });
    assert_eq!(r.save(0), Err(StoreError::Io));
    assert_eq!(r.fetch(0, 0..32, None, r.blocks(0, 0..32)), FetchEnd::Fetched);
    assert_eq!(r.save(0), Ok(()));
}

#[test]
fn unchecked_edge_bytes_are_dropped_if_leaf_hashes_contradict_them() {
    let r = rig(PIECE as usize);
    let leaves = merkle::leaves(&r.bytes);
    let mut wrong = r.blocks(0, 0..2);
    wrong[0] ^= 1;
    assert_eq!(r.fetch(0, 0..2, None, wrong), FetchEnd::Fetched);
    assert_eq!(r.fetch(0, 2..32, Some(leaves), r.blocks(0, 2..32)), FetchEnd::Fetched);
    assert_eq!(r.save(0), Err(StoreError::Io));
    let mut wrong = r.blocks(0, 0..2);
    wrong[16_384] ^= 1;
    assert_eq!(
        r.fetch(0, 0..2, None, wrong),
        FetchEnd::BadBlock { block: 1 },
        "now the edge is checked block by block"
    );
    assert_eq!(r.fetch(0, 0..2, None, r.blocks(0, 0..2)), FetchEnd::Fetched);
    assert_eq!(r.save(0), Ok(()));
}

#[test]
fn a_late_transfer_cannot_touch_a_journalled_piece() {
    let r = rig(PIECE as usize);
    let mut late = Sink::new(Inline, &r.store, r.version, (PieceIndex(0), 0..32), None).expect("open");
    assert_eq!(r.fetch(0, 0..32, None, r.bytes.clone()), FetchEnd::Fetched);
    r.save(0).expect("journalled");
    assert_eq!(r.fetch(0, 0..32, None, vec![7; PIECE as usize]), FetchEnd::Fetched, "thrown away");
    let end = run(late.push(Bytes::from(vec![7; PIECE as usize])));
    assert_eq!(end, Ok(()));
    assert!(matches!(run(late.finish()), FetchEnd::BadBlock { .. }));
    assert_eq!(r.store.read_blocks(r.version, PieceIndex(0), 0..32), Ok(r.bytes.clone().into()));
}

#[test]
fn a_version_is_deleted_when_the_last_that_keeps_it_goes() {
    let r = rig(PIECE as usize);
    assert_eq!(r.fetch(0, 0..32, None, r.bytes.clone()), FetchEnd::Fetched);
    r.save(0).expect("journalled");
    let data = r.dir.path().join("state/pieces").join(r.version.to_string());
    saved(&r.store, Save::Download(download(2, Path::new(""), r.version))).expect("saved");
    saved(&r.store, Save::Forget { handle: Handle(1) }).expect("forgotten");
    assert!(data.exists(), "download 2 keeps it");
    saved(&r.store, Save::Finish { handle: Handle(2), version: r.version }).expect("kept for sharing");
    saved(&r.store, Save::Forget { handle: Handle(2) }).expect("forgotten");
    assert!(data.exists(), "the cache keeps it");
    saved(&r.store, Save::Uncache { version: r.version }).expect("deleted");
    assert!(!data.exists());
    assert_eq!(r.store.manifest(r.version), None);
    drop(r.store);
    let (_, restored) = Store::open(&r.dir.path().join("state")).expect("opens again");
    assert!(restored.downloads.is_empty() && restored.cached.is_empty());
}

#[test]
fn keys_come_back_and_go_with_their_download() {
    let r = rig(PIECE as usize);
    let key = swarmedge_ground::keys::Key::from_seed([7; 32]);
    r.store.put_key(DownloadId::numbered(1), &key);
    saved(&r.store, Save::Uploads(true)).expect("saved");
    drop(r.store);
    let (store, _) = Store::open(&r.dir.path().join("state")).expect("opens again");
    let found = store.key(DownloadId::numbered(1)).expect("readable").expect("kept");
    assert_eq!(found.public(), key.public());
    saved(&store, Save::Forget { handle: Handle(1) }).expect("forgotten");
    assert!(store.key(DownloadId::numbered(1)).expect("readable").is_none());
}

#[test]
fn many_saves_at_once_are_answered_in_order() {
    let r = rig(PIECE as usize);
    let (tx, rx) = std::sync::mpsc::channel();
    for i in 0..1_000 {
        let tx = tx.clone();
        r.store.save(Save::Uploads(i % 2 == 0), move |result| tx.send((i, result)).expect("the test waits"));
    }
    drop(tx);
    let answers: Vec<_> = rx.iter().collect();
    assert_eq!(answers, (0..1_000).map(|i| (i, Ok(()))).collect::<Vec<_>>());
}

#[test]
fn a_second_client_is_told_who_has_the_directory() {
    let r = rig(PIECE as usize);
    let error = Store::open(&r.dir.path().join("state")).expect_err("locked");
    assert!(matches!(error, Error::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()));
}

#[test]
fn a_foreign_journal_is_refused_with_advice() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("state.redb"), content(70_000)).expect("written");
    let error = Store::open(dir.path()).expect_err("not a journal");
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");
}

#[test]
fn a_lost_data_file_is_noticed() {
    let r = rig(PIECE as usize);
    assert_eq!(r.fetch(0, 0..32, None, r.bytes.clone()), FetchEnd::Fetched);
    r.save(0).expect("journalled");
    drop(r.store);
    let state = r.dir.path().join("state");
    std::fs::remove_file(state.join("pieces").join(r.version.to_string())).expect("deleted");
    let (store, restored) = Store::open(&state).expect("opens again");
    assert!(restored.downloads[0].1.is_empty());
    assert!(store.manifest(r.version).is_some());
}

#[test]
fn an_empty_version_is_placed() {
    let r = rig(0);
    saved(&r.store, Save::Finish { handle: Handle(1), version: r.version }).expect("placed");
    assert_eq!(std::fs::read(r.dir.path().join("out")).expect("the file"), b"");
}

/// Fetches all missing pieces.
pub(super) fn fill(r: &Rig) {
    for piece in r.store.have(r.version).expect("known").missing() {
        assert_eq!(r.fetch(piece.0, r.whole(piece.0), None, r.blocks(piece.0, r.whole(piece.0))), FetchEnd::Fetched);
        r.save(piece.0).expect("journalled");
    }
}

pub(super) fn placed(len: usize) -> (Rig, PathBuf) {
    let r = rig(len);
    fill(&r);
    saved(&r.store, Save::Finish { handle: Handle(1), version: r.version }).expect("placed");
    let out = r.dir.path().join("out");
    (r, out)
}

/// Changes one byte of a file in place.
fn edit(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("within");
    file.write_all_at(&[!byte[0]], at).expect("written");
}

pub(super) fn names_of(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(path).expect("is there"))
}

/// Checks that every block a peer may request is right or refused; returns whether any was refused.
fn serves_only_right_bytes(r: &Rig, store: &Store) -> bool {
    let mut refused = false;
    for piece in r.manifest.layout().iter() {
        match store.read_blocks(r.version, piece, r.whole(piece.0)) {
            Ok(data) => assert_eq!(data, r.blocks(piece.0, r.whole(piece.0)), "{piece}"),
            Err(_) => refused = true,
        }
    }
    refused
}

pub(super) fn told_lost(store: &Store) -> std::sync::mpsc::Receiver<VersionId> {
    let (tx, rx) = std::sync::mpsc::channel();
    store.on_lost(move |loss| tx.send(loss.version).expect("the test waits"));
    rx
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_finished_file_is_no_second_copy() {
    let (r, out) = placed(3 * PIECE as usize);
    assert_eq!(names_of(&out), 2);
    assert!(!serves_only_right_bytes(&r, &r.store));
    saved(&r.store, Save::Uncache { version: r.version }).expect("deleted");
    saved(&r.store, Save::Forget { handle: Handle(1) }).expect("forgotten");
    assert_eq!(names_of(&out), 1);
    assert_eq!(std::fs::read(out).expect("the user's"), r.bytes, "the file outlives the cache");
}

#[test]
fn a_file_that_is_changed_in_place_is_noticed_and_no_wrong_byte_is_served() {
    let (r, out) = placed(3 * PIECE as usize);
    let lost = told_lost(&r.store);
    edit(&out, u64::from(PIECE) + 5);
    assert!(serves_only_right_bytes(&r, &r.store));
    assert_eq!(lost.recv_timeout(PATIENCE), Ok(r.version));
    assert!(!r.dir.path().join("state/pieces").join(r.version.to_string()).exists());
    assert_eq!(names_of(&out), 1, "the user's file is left alone");
    assert!(r.store.cached().is_empty());
    drop(r.store);
    let (_, restored) = Store::open(&r.dir.path().join("state")).expect("opens again");
    assert!(restored.cached.is_empty());
}

#[test]
fn a_file_that_is_cut_or_lengthened_is_noticed_and_left_as_it_is() {
    for len in [0, 100, 2 * u64::from(PIECE) + 1] {
        for restart in [false, true] {
            let (mut r, out) = placed(2 * PIECE as usize);
            if restart {
                drop(std::mem::replace(&mut r.store, Store::open(&r.dir.path().join("other")).expect("opens").0));
            }
            std::fs::OpenOptions::new().write(true).open(&out).expect("opens").set_len(len).expect("set");
            if restart {
                r.store = Store::open(&r.dir.path().join("state")).expect("opens again").0;
            }
            let lost = told_lost(&r.store);
            assert!(serves_only_right_bytes(&r, &r.store));
            if !restart {
                assert_eq!(lost.recv_timeout(PATIENCE), Ok(r.version));
            }
            assert_eq!(std::fs::metadata(&out).expect("is there").len(), len, "nobody else changes it");
        }
    }
}

#[test]
fn a_change_while_the_client_did_not_run_is_noticed() {
    let (r, out) = placed(2 * PIECE as usize);
    drop(r.store.clone());
    let Rig { dir, store, bytes, manifest, version } = r;
    drop(store);
    edit(&out, 3);
    let (store, restored) = Store::open(&dir.path().join("state")).expect("opens again");
    assert_eq!(restored.cached.len(), 1, "not looked at before it is asked for");
    let lost = told_lost(&store);
    let r = Rig { dir, store, bytes, manifest, version };
    assert!(serves_only_right_bytes(&r, &r.store));
    assert_eq!(lost.recv_timeout(PATIENCE), Ok(version));
}

#[test]
fn a_changed_byte_is_found_even_if_the_time_of_the_change_is_set_back() {
    let (r, out) = placed(2 * PIECE as usize);
    let lost = told_lost(&r.store);
    let before = std::fs::metadata(&out).expect("is there").modified().expect("a time");
    edit(&out, 3);
    std::fs::File::options().write(true).open(&out).and_then(|f| f.set_modified(before)).expect("set");
    assert!(serves_only_right_bytes(&r, &r.store));
    assert_eq!(lost.recv_timeout(PATIENCE), Ok(r.version));
}

#[test]
fn a_file_that_is_renamed_deleted_or_replaced_goes_on_being_shared() {
    let (r, out) = placed(2 * PIECE as usize);
    std::fs::rename(&out, r.dir.path().join("elsewhere")).expect("renamed");
    assert!(!serves_only_right_bytes(&r, &r.store));
    std::fs::write(&out, b"something else").expect("written");
    std::fs::remove_file(r.dir.path().join("elsewhere")).expect("deleted");
    assert!(!serves_only_right_bytes(&r, &r.store));
    drop(r.store);
    let (store, restored) = Store::open(&r.dir.path().join("state")).expect("opens again");
    assert_eq!(restored.cached.len(), 1);
    let r = Rig { store, ..r };
    assert!(!serves_only_right_bytes(&r, &r.store));
}

#[test]
fn two_outputs_of_a_version_never_share_their_bytes() {
    let (r, out) = placed(2 * PIECE as usize);
    saved(&r.store, Save::Finish { handle: Handle(1), version: r.version }).expect("it is there");
    assert_eq!(names_of(&out), 2);
    let second = r.dir.path().join("second");
    saved(&r.store, Save::Download(download(2, &second, r.version))).expect("saved");
    saved(&r.store, Save::Finish { handle: Handle(2), version: r.version }).expect("placed");
    edit(&out, 3);
    assert_eq!(std::fs::read(&second).expect("the file"), r.bytes);
}

#[test]
fn a_changed_output_is_fetched_anew_beside_the_users_file() {
    let (r, out) = placed(2 * PIECE as usize);
    let lost = told_lost(&r.store);
    edit(&out, 3);
    let edited = std::fs::read(&out).expect("the file");
    let second = r.dir.path().join("second");
    saved(&r.store, Save::Download(download(2, &second, r.version))).expect("saved");
    assert_eq!(saved(&r.store, Save::Finish { handle: Handle(2), version: r.version }), Err(StoreError::Io));
    assert_eq!(lost.try_recv(), Ok(r.version), "told before the save is answered");
    assert!(!second.exists());
    for piece in 0..2 {
        assert_eq!(r.fetch(piece, r.whole(piece), None, r.blocks(piece, r.whole(piece))), FetchEnd::Fetched);
        r.save(piece).expect("journalled");
    }
    saved(&r.store, Save::Finish { handle: Handle(2), version: r.version }).expect("placed");
    assert_eq!(std::fs::read(&second).expect("the file"), r.bytes);
    assert_eq!(std::fs::read(&out).expect("the file"), edited);
    assert!(!serves_only_right_bytes(&r, &r.store));
}

#[test]
fn copies_are_made_where_they_are_wanted() {
    let r = rig(PIECE as usize);
    r.store.set_links(false);
    assert_eq!(r.fetch(0, 0..32, None, r.bytes.clone()), FetchEnd::Fetched);
    r.save(0).expect("journalled");
    saved(&r.store, Save::Finish { handle: Handle(1), version: r.version }).expect("placed");
    let out = r.dir.path().join("out");
    assert_eq!(names_of(&out), 1);
    edit(&out, 3);
    assert!(!serves_only_right_bytes(&r, &r.store));
}

/// Kinds of damage to a data file of three pieces.
const DAMAGES: [(&str, fn(&Path)); 8] = [
    ("emptied", |file| std::fs::File::options().write(true).open(file).and_then(|f| f.set_len(0)).expect("set")),
    ("cut", |file| std::fs::File::options().write(true).open(file).and_then(|f| f.set_len(PIECE.into())).expect("set")),
    ("lengthened", |file| {
        std::fs::File::options().write(true).open(file).and_then(|f| f.set_len(4 * u64::from(PIECE))).expect("set");
    }),
    ("edited", |file| edit(file, 5)),
    ("edited and set back", |file| {
        let before = std::fs::metadata(file).expect("is there").modified().expect("a time");
        edit(file, 5);
        std::fs::File::options().write(true).open(file).and_then(|f| f.set_modified(before)).expect("set");
    }),
    ("punched", |file| {
        let file = std::fs::File::options().write(true).open(file).expect("opens");
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 100_000], 10).expect("written");
    }),
    ("replaced", |file| {
        let other = file.with_extension("other");
        std::fs::write(&other, content(3 * PIECE as usize - 1)).expect("written");
        std::fs::File::options().write(true).open(&other).and_then(|f| f.set_len(3 * u64::from(PIECE))).expect("set");
        std::fs::rename(other, file).expect("renamed");
    }),
    ("deleted", |file| std::fs::remove_file(file).expect("deleted")),
];

/// Scenario: data files of a partial download, and of a cached version beside a copy of its file, are damaged while
/// the client runs and while it does not.
#[test]
fn a_damaged_data_file_is_found_before_it_is_served_or_placed() {
    for (what, damage) in DAMAGES {
        for (restart, part) in [(false, false), (false, true), (true, false), (true, true)] {
            let what = format!("{what}, restart: {restart}, part: {part}");
            let mut r = rig(3 * PIECE as usize);
            r.store.set_links(false);
            for piece in 0..if part { 2 } else { 3 } {
                assert_eq!(r.fetch(piece, r.whole(piece), None, r.blocks(piece, r.whole(piece))), FetchEnd::Fetched);
                r.save(piece).expect("journalled");
            }
            let file = r.dir.path().join("state/pieces").join(r.version.to_string());
            if restart {
                drop(std::mem::replace(&mut r.store, Store::open(&r.dir.path().join("other")).expect("opens").0));
            }
            damage(&file);
            if restart {
                r.store = Store::open(&r.dir.path().join("state")).expect("opens again").0;
            }
            serves_only_right_bytes(&r, &r.store);
            let finish = || {
                // whatever was found out is done with
                saved(&r.store, Save::Uploads(true)).expect("saved");
                let get =
                    |piece: PieceIndex| r.fetch(piece.0, r.whole(piece.0), None, r.blocks(piece.0, r.whole(piece.0)));
                let missing = r.store.have(r.version).expect("known").missing().collect::<Vec<_>>();
                let all = missing.into_iter().all(|p| get(p) == FetchEnd::Fetched && r.save(p.0).is_ok());
                all && saved(&r.store, Save::Finish { handle: Handle(1), version: r.version }).is_ok()
            };
            // what is found damaged when it is written to or placed is fetched again
            assert!((0..4).any(|_| finish()), "{what}");
            assert_eq!(std::fs::read(r.dir.path().join("out")).expect("the file"), r.bytes, "{what}");
            assert!(!serves_only_right_bytes(&r, &r.store), "{what}");
        }
    }
}

#[test]
fn only_the_damaged_pieces_are_lost() {
    let mut r = rig(3 * PIECE as usize);
    fill(&r);
    drop(std::mem::replace(&mut r.store, Store::open(&r.dir.path().join("other")).expect("opens").0));
    let file = r.dir.path().join("state/pieces").join(r.version.to_string());
    edit(&file, u64::from(PIECE) + 5);
    r.store = Store::open(&r.dir.path().join("state")).expect("opens again").0;
    let (tx, lost) = std::sync::mpsc::channel();
    r.store.on_lost(move |loss| tx.send(loss).expect("the test waits"));
    r.store.check_soon(r.version);
    let loss = lost.recv_timeout(PATIENCE).expect("it is found without being asked for");
    assert_eq!(loss.left.iter().collect::<Vec<_>>(), [PieceIndex(0), PieceIndex(2)]);
    assert_eq!(loss.sources[&Handle(1)][&SourceName::Edge], 2 * u64::from(PIECE));
    assert_eq!(r.store.have(r.version), Some(loss.left));
}
