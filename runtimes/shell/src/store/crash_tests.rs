//! Crashes and failures at every single disk operation, on a disk in memory that forgets at a crash what was not
//! synced.

use super::tests::{Inline, content, manifest_of, run};
use super::*;
use crate::disk::{Disk, DiskFile, Kind, Stamp};
use bytes::Bytes;
use swarmedge_core::ids::{ProviderId, PublicKey};
use swarmedge_core::role::client::io::{FetchEnd, Granted, ObjectRef, SourceName};
use swarmedge_core::wire::Blob;
use swarmedge_core::wire::records::SealedGrant;

/// What happens at the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It and everything after it fails: the machine stops here.
    Crash,
    /// It fails once.
    Error(io::ErrorKind),
    /// It and everything after it fails, until the fault is taken away.
    Lasting(io::ErrorKind),
}

/// A file, whatever its names are.
#[derive(Debug, Default)]
struct Node {
    /// What reads see.
    now: Vec<u8>,
    /// What is on the medium for certain.
    durable: Vec<u8>,
    /// What has been done since the last sync, in order: a write, or a new length.
    pending: Vec<Pending>,
    /// The times of a stamp.
    changed: i64,
    touched: i64,
}

#[derive(Clone, Copy, Debug)]
struct Name {
    node: usize,
    /// Whether the name is on the medium for certain.
    durable: bool,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(u64, Vec<u8>),
    Len(u64),
}

impl Pending {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let at = usize::try_from(*at).expect("small");
                let end = at + data.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[at..end].copy_from_slice(data);
            }
            Self::Len(len) => to.resize(usize::try_from(*len).expect("small"), 0),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Medium {
    names: BTreeMap<PathBuf, Name>,
    /// Never forgotten: a file without a name may be open.
    nodes: Vec<Node>,
    /// Rises with everything that is done to a file.
    clock: i64,
    pub(crate) operations: usize,
    pub(crate) fault: Option<(usize, Fault)>,
    down: bool,
    /// Syncs of data files do nothing.
    lies: bool,
    /// Every name is on a file system of its own.
    cannot_link: bool,
}

impl Medium {
    /// An empty one on which this will happen.
    pub(crate) fn with(fault: Option<(usize, Fault)>) -> Self {
        Self { fault, ..Self::default() }
    }

    pub(super) const fn linking(mut self, cannot_link: bool) -> Self {
        self.cannot_link = cannot_link;
        self
    }

    fn step(&mut self) -> io::Result<()> {
        if self.down {
            return Err(io::Error::other("crashed"));
        }
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Lasting(kind))) if at <= self.operations => Err(kind.into()),
            Some((at, fault)) if at == self.operations => match fault {
                Fault::Crash => {
                    self.down = true;
                    Err(io::Error::other("crashed"))
                }
                Fault::Error(kind) | Fault::Lasting(kind) => Err(kind.into()),
            },
            _ => Ok(()),
        }
    }

    fn at(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).map(|n| n.node).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn make(&mut self, path: &Path, node: Node) -> usize {
        self.nodes.push(node);
        let node = self.nodes.len() - 1;
        self.names.insert(path.to_owned(), Name { node, durable: false });
        node
    }

    fn touch(&mut self, node: usize) {
        self.clock += 1;
        self.nodes[node].touched = self.clock;
    }

    pub(super) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        self.at(path).ok().map(|node| self.nodes[node].now.clone())
    }

    fn stamp(&self, node: usize) -> Stamp {
        let Node { now, changed, touched, .. } = &self.nodes[node];
        let names = self.names.values().filter(|n| n.node == node).count();
        let (changed, touched) = ((*changed, 0), (*touched, 0));
        Stamp { kind: Kind::File, file: (1, node as u64), len: now.len() as u64, changed, touched, names: names as u64 }
    }

    /// Changes what a file holds, and nobody is told. `false`: there is no such file.
    pub(super) fn change(&mut self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Ok(node) = self.at(path) else { return false };
        self.touch(node);
        let file = &mut self.nodes[node];
        change(&mut file.now);
        file.durable.clone_from(&file.now);
        file.changed = file.touched;
        true
    }

    /// Every byte that anybody could find on it.
    pub(super) fn holds(&self, what: &[u8]) -> bool {
        self.nodes.iter().any(|node| node.now.windows(what.len()).any(|part| part == what))
    }

    /// The file of the one name that fits.
    pub(super) fn only(&self, fits: impl Fn(&str) -> bool) -> Vec<u8> {
        let fits = |path: &Path| path.file_name().and_then(|n| n.to_str()).is_some_and(&fits);
        let mut found = self.names.iter().filter(|(path, _)| fits(path));
        let (_, name) = found.next().expect("one");
        assert!(found.next().is_none(), "more than one");
        self.nodes[name.node].now.clone()
    }

    /// The files after a power failure: of what was not synced, each change is there or not, as `coin` says.
    pub(crate) fn after_crash(&self, mut coin: impl FnMut() -> bool) -> Self {
        let mut after = Self { clock: self.clock, ..Self::default() };
        for node in &self.nodes {
            let mut bytes = node.durable.clone();
            node.pending.iter().filter(|_| coin()).for_each(|p| p.apply(&mut bytes));
            let (changed, touched) = (node.changed, node.touched);
            after.nodes.push(Node { now: bytes.clone(), durable: bytes, pending: Vec::new(), changed, touched });
        }
        let names = self.names.iter().filter(|(_, name)| name.durable || coin());
        after.names = names.map(|(path, name)| (path.clone(), Name { durable: true, ..*name })).collect();
        after
    }
}

#[derive(Clone, Debug)]
pub(crate) struct MemDisk(pub(crate) Arc<Mutex<Medium>>);

impl MemDisk {
    pub(crate) fn new(medium: Medium) -> Self {
        Self(Arc::new(Mutex::new(medium)))
    }
}

#[derive(Debug)]
struct MemFile(Arc<Mutex<Medium>>, usize, PathBuf);

impl Disk for MemDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut m = lock(&self.0);
        m.step()?;
        let node = m.at(path).unwrap_or_else(|_| m.make(path, Node::default()));
        Ok(Arc::new(MemFile(Arc::clone(&self.0), node, path.to_owned())))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut m = lock(&self.0);
        m.step()?;
        if let Some(name) = m.names.remove(path) {
            m.touch(name.node);
        }
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut m = lock(&self.0);
        m.step()?;
        let name = m.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        m.touch(name.node);
        m.names.insert(to.to_owned(), Name { durable: false, ..name });
        Ok(())
    }
    fn read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let m = lock(&self.0);
        Ok(Arc::new(MemFile(Arc::clone(&self.0), m.at(path)?, path.to_owned())))
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let there = lock(&self.0).names.contains_key(to);
        if there { Err(io::ErrorKind::AlreadyExists.into()) } else { self.rename(from, to) }
    }
    fn follow(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut m = lock(&self.0);
        m.step()?;
        if m.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = m.bytes(from).ok_or(io::ErrorKind::NotFound)?;
        m.make(to, Node { now: bytes.clone(), durable: bytes, ..Node::default() });
        Ok(())
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut m = lock(&self.0);
        m.step()?;
        if m.cannot_link {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let node = m.at(from)?;
        if m.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        m.touch(node);
        m.names.insert(to.to_owned(), Name { node, durable: false });
        Ok(())
    }
    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        let m = lock(&self.0);
        m.at(path).map(|node| m.stamp(node))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut m = lock(&self.0);
        m.step()?;
        m.names.iter_mut().filter(|(p, _)| p.parent() == Some(dir)).for_each(|(_, n)| n.durable = true);
        Ok(())
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let m = lock(&self.0);
        Ok(m.names.keys().filter(|p| p.parent() == Some(dir)).cloned().collect())
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let m = lock(&self.0);
        let at = usize::try_from(offset).expect("small");
        let from = m.nodes[self.1].now.get(at..at + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.change(Pending::Write(offset, data.to_vec()))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Pending::Len(len))
    }
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0).nodes[self.1].now.len() as u64)
    }
    fn stamp(&self) -> io::Result<Stamp> {
        Ok(lock(&self.0).stamp(self.1))
    }
    fn backdate(&self) -> io::Result<()> {
        let mut m = lock(&self.0);
        m.step()?;
        m.touch(self.1);
        let clock = m.clock;
        m.nodes[self.1].changed = -clock;
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        let mut m = lock(&self.0);
        let synced = m.step();
        let down = m.down;
        if m.lies && self.2.starts_with("/state/pieces") {
            return synced;
        }
        let node = &mut m.nodes[self.1];
        if synced.is_ok() {
            node.pending.iter().for_each(|p| p.apply(&mut node.durable));
        }
        // a failed sync marks pages clean: a later one succeeds without having written them
        if !down {
            node.pending.clear();
        }
        synced
    }
}

impl MemFile {
    fn change(&self, change: Pending) -> io::Result<()> {
        let mut m = lock(&self.0);
        m.step()?;
        m.touch(self.1);
        let clock = m.clock;
        let node = &mut m.nodes[self.1];
        node.changed = clock;
        change.apply(&mut node.now);
        node.pending.push(change);
        Ok(())
    }
}

/// A coin that falls the same way for the same seed (a linear congruential generator; Knuth's constants).
pub(crate) fn coin(mut seed: u64) -> impl FnMut() -> bool {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 63 == 1
    }
}

pub(super) fn record(handle: u32, version: VersionId, size: u64) -> DownloadRecord {
    let granted = Granted {
        download: DownloadId::numbered(handle),
        download_key: PublicKey::numbered(handle),
        version,
        size,
        policy: swarmedge_core::content::Policy::default(),
        order_seed: 0,
        expires_ms: 0,
        sealed: SealedGrant { epoch: 0, nonce: [0; 24], sealed: Blob::default() },
    };
    DownloadRecord {
        handle: Handle(handle),
        object: ObjectRef { provider: ProviderId(1), path: "o".into() },
        output: "/out/file".into(),
        replace: false,
        granted: Some(granted),
        state: DownloadState::Running,
        usage_seq: 0,
        active_ms: 0,
    }
}

pub(super) const AT_ONCE: Waits = Waits { gather: Duration::ZERO, shred: Duration::ZERO };

/// What a client has been told is durable.
#[derive(Debug, Default)]
pub(super) struct Promised {
    download: bool,
    pieces: Vec<PieceIndex>,
    placed: bool,
}

pub(super) fn saved(store: &Store, save: Save) -> Result<(), StoreError> {
    let (tx, rx) = std::sync::mpsc::channel();
    store.save(save, move |result| tx.send(result).expect("the test waits"));
    rx.recv().expect("every save is answered")
}

pub(super) fn fetch(store: &Store, manifest: &Manifest, bytes: &[u8], piece: PieceIndex) -> Result<(), StoreError> {
    let layout = manifest.layout();
    let range = layout.piece_range(piece);
    let range = usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small");
    let data = Bytes::copy_from_slice(&bytes[range]);
    let blocks = layout.blocks(piece);
    let sink = Sink::new(Inline, store, manifest.version(), piece, 0..blocks, None);
    let end = match sink {
        Ok(mut sink) => match run(sink.push(data)) {
            Ok(()) => run(sink.finish()),
            Err(end) => end,
        },
        Err(end) => end,
    };
    match end {
        FetchEnd::Fetched => Ok(()),
        FetchEnd::Store(e) => Err(e),
        other => panic!("right bytes ended as {other:?}"),
    }
}

pub(super) fn save_piece(store: &Store, manifest: &Manifest, piece: PieceIndex) -> Result<(), StoreError> {
    let from = vec![(SourceName::Edge, manifest.layout().piece_size(piece))];
    saved(store, Save::Piece { handle: Handle(1), version: manifest.version(), piece, from })
}

pub(super) fn fetch_and_save(
    store: &Store,
    manifest: &Manifest,
    bytes: &[u8],
    piece: PieceIndex,
) -> Result<(), StoreError> {
    fetch(store, manifest, bytes, piece)?;
    save_piece(store, manifest, piece)
}

/// A whole download; each failed step is tried `tries` times. Returns what was promised before the first lasting
/// failure.
pub(super) fn download(store: &Store, manifest: &Manifest, bytes: &[u8], tries: u32) -> Promised {
    let mut promised = Promised::default();
    let version = manifest.version();
    let again = |step: &mut dyn FnMut() -> Result<(), StoreError>| (0..tries).any(|_| step().is_ok());
    store.put_manifest(manifest.clone());
    promised.download = again(&mut || saved(store, Save::Download(record(1, version, bytes.len() as u64))));
    for piece in manifest.layout().iter() {
        if again(&mut || fetch_and_save(store, manifest, bytes, piece)) {
            promised.pieces.push(piece);
        }
    }
    promised.placed = again(&mut || saved(store, Save::Finish { handle: Handle(1), version }));
    promised
}

pub(super) fn open(medium: Medium) -> (MemDisk, Result<(Store, Restored), Error>) {
    let disk = MemDisk::new(medium);
    let opened = Store::open_on(Arc::new(disk.clone()), Path::new("/state"), AT_ONCE, None);
    (disk, opened)
}

/// After a crash: whatever was promised is there, and whatever is journalled has the right bytes.
fn check(disk: &MemDisk, seed: u64, manifest: &Manifest, bytes: &[u8], promised: &Promised, what: &str) {
    let image = lock(&disk.0).after_crash(coin(seed));
    let out = image.bytes(Path::new("/out/file"));
    let (disk, opened) = open(image);
    let (store, restored) = opened.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(!promised.download || restored.downloads.len() == 1, "{what}: the download was promised");
    let have = store.have(manifest.version()).unwrap_or_else(|| Bitfield::empty(manifest.layout().pieces()));
    for piece in &promised.pieces {
        assert!(have.contains(*piece), "{what}: {piece} was promised");
    }
    for piece in have.iter() {
        let blocks = manifest.layout().blocks(piece);
        let data = store.read_blocks(manifest.version(), piece, 0..blocks).expect("journalled");
        let start = usize::try_from(manifest.layout().piece_range(piece).start).expect("small");
        assert_eq!(data, bytes[start..start + data.len()], "{what}: {piece} is journalled and wrong");
        let leaves = store.leaves(manifest.version(), piece).expect("journalled");
        assert_eq!(leaves, swarmedge_core::content::merkle::leaves(&data), "{what}");
    }
    if promised.placed {
        assert_eq!(out.as_deref(), Some(bytes), "{what}: the file was promised");
        assert_eq!(restored.cached.len(), 1, "{what}");
    }
    assert!(out.is_none_or(|o| o == bytes), "{what}: a half file under the user's name");
    let left: Vec<_> = lock(&disk.0).names.keys().filter(|p| p.starts_with("/out")).cloned().collect();
    assert!(left.iter().all(|p| p == Path::new("/out/file")), "{what}: {left:?} is left in the user's directory");
}

pub(super) const SIZE: usize = 3 * 65_536 - 20_000;

/// Both ways to place a file.
pub(super) const CANNOT_LINK: [bool; 2] = [false, true];

pub(super) fn operations_of_a_download(manifest: &Manifest, bytes: &[u8], cannot_link: bool) -> usize {
    let (disk, opened) = open(Medium::default().linking(cannot_link));
    let (store, _) = opened.expect("an empty disk");
    let promised = download(&store, manifest, bytes, 1);
    assert!(promised.download && promised.placed && promised.pieces.len() == 3);
    drop(store);
    let n = lock(&disk.0).operations;
    assert!(n > 30, "only {n} operations");
    n
}

#[test]
fn a_crash_at_any_disk_operation_leaves_only_true_journal_bits() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    for cannot_link in CANNOT_LINK {
        for at in 1..=operations_of_a_download(&manifest, &bytes, cannot_link) {
            for seed in [1, 2, 3] {
                let (disk, opened) = open(Medium::with(Some((at, Fault::Crash))).linking(cannot_link));
                let promised = opened.map_or_else(|_| Promised::default(), |(s, _)| download(&s, &manifest, &bytes, 1));
                check(&disk, seed, &manifest, &bytes, &promised, &format!("crash at {at}, seed {seed}"));
            }
        }
    }
}

/// After a crash on the way to the user's place the file may be there and be changed before the client runs again.
#[test]
fn a_file_that_is_changed_between_a_crash_and_the_restart_is_never_served() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    let mut seen = 0;
    for at in 1..=operations_of_a_download(&manifest, &bytes, false) {
        let (disk, opened) = open(Medium { fault: Some((at, Fault::Crash)), ..Medium::default() });
        drop(opened.map(|(store, _)| download(&store, &manifest, &bytes, 1)));
        let image = lock(&disk.0).after_crash(|| true);
        let out = Path::new("/out/file");
        if image.bytes(out).is_none() {
            continue;
        }
        seen += 1;
        let disk = MemDisk::new(image);
        let file = disk.open(out).expect("there");
        file.write_at(&[!bytes[5]], 5).expect("changed");
        let opened = Store::open_on(Arc::new(disk.clone()), Path::new("/state"), AT_ONCE, None);
        let (store, _) = opened.expect("opens again");
        let first = store.read_blocks(manifest.version(), PieceIndex(0), 0..4);
        assert!(first.is_err(), "crash at {at}");
        // what comes anew goes into a file of its own
        store.put_manifest(manifest.clone());
        saved(&store, Save::Download(record(2, manifest.version(), bytes.len() as u64))).expect("saved");
        for piece in manifest.layout().iter() {
            fetch_and_save(&store, &manifest, &bytes, piece).expect("fetched anew");
        }
        let mut changed = [0];
        file.read_at(&mut changed, 5).expect("there");
        assert_eq!(changed, [!bytes[5]], "crash at {at}: the user's file was written to");
        assert_eq!(store.read_blocks(manifest.version(), PieceIndex(0), 0..4).as_deref(), Ok(&bytes[..65_536]));
    }
    assert!(seen > 2, "only {seen} crashes left a file");
}

/// The tooth of the crash tests.
#[test]
#[should_panic(expected = "was promised")]
fn data_that_was_not_synced_is_found_out() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    for seed in 0..100 {
        let (disk, opened) = open(Medium { lies: true, cannot_link: true, ..Medium::default() });
        let (store, _) = opened.expect("an empty disk");
        let promised = download(&store, &manifest, &bytes, 1);
        drop(store);
        check(&disk, seed, &manifest, &bytes, &promised, "a disk that lies");
    }
}

#[test]
fn after_one_failed_disk_operation_the_download_ends_and_survives_a_crash() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for (cannot_link, at) in CANNOT_LINK
            .into_iter()
            .flat_map(|c| (1..=operations_of_a_download(&manifest, &bytes, c)).map(move |at| (c, at)))
        {
            let (disk, opened) = open(Medium::with(Some((at, Fault::Error(kind)))).linking(cannot_link));
            // the first operations are those of opening: the user sees the error and starts again
            let Ok((store, _)) = opened else { continue };
            let promised = download(&store, &manifest, &bytes, 3);
            assert!(promised.download && promised.placed && promised.pieces.len() == 3, "{kind} at {at}: {promised:?}");
            check(&disk, 7, &manifest, &bytes, &promised, &format!("{kind} at {at}"));
        }
    }
}

#[test]
fn what_was_written_before_a_failed_sync_is_written_again_before_it_is_journalled() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    for seed in 0..20 {
        let (disk, opened) = open(Medium::default());
        let (store, _) = opened.expect("an empty disk");
        store.put_manifest(manifest.clone());
        saved(&store, Save::Download(record(1, manifest.version(), bytes.len() as u64))).expect("room");
        fetch(&store, &manifest, &bytes, PieceIndex(0)).expect("written");
        fetch(&store, &manifest, &bytes, PieceIndex(1)).expect("written");
        let sync = lock(&disk.0).operations + 1;
        lock(&disk.0).fault = Some((sync, Fault::Error(io::ErrorKind::Other)));
        assert_eq!(save_piece(&store, &manifest, PieceIndex(0)), Err(StoreError::Io));
        assert_eq!(save_piece(&store, &manifest, PieceIndex(0)), Err(StoreError::Io), "it must come in again");
        save_piece(&store, &manifest, PieceIndex(1)).expect("the disk works again");
        let promised = Promised { download: true, pieces: vec![PieceIndex(1)], placed: false };
        check(&disk, seed, &manifest, &bytes, &promised, &format!("seed {seed}"));
    }
}
