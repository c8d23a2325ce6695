//! A disk in memory for tests: fails at a chosen operation, and forgets at a crash what was not synced.

use crate::disk::{Disk, DiskFile, Kind, Room, Stamp};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fault injected at the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The operation and all later ones fail: the machine stops here.
    Crash,
    /// The operation alone fails, with this error.
    Error(io::ErrorKind),
    /// The operation and all later ones fail, until the fault is removed.
    Lasting(io::ErrorKind),
}

/// A file with its contents, whatever its names are.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The bytes that reads return.
    now: Vec<u8>,
    /// The bytes certain to survive a crash.
    durable: Vec<u8>,
    /// The writes and new lengths since the last sync, in order.
    pending: Vec<Pending>,
    /// Time of the last change of the bytes, as in a stamp.
    changed: i64,
    touched: i64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    node: usize,
    /// Whether the name is certain to survive a crash.
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
    pub(crate) names: BTreeMap<PathBuf, Name>,
    /// All files, never removed: a file without a name may be open.
    pub(crate) nodes: Vec<Node>,
    /// Clock for stamps, raised by every operation on a file.
    pub(crate) clock: i64,
    pub(crate) operations: usize,
    /// Bytes that are reported as used; the others of 2⁶⁴ are free.
    pub(crate) used: u64,
    pub(crate) fault: Option<(usize, Fault)>,
    pub(crate) down: bool,
    /// Seeded defect: syncs of data files do nothing.
    pub(crate) lies: bool,
    /// Whether hard links fail, as if every file were on a file system of its own.
    pub(crate) cannot_link: bool,
}

#[allow(dead_code, reason = "each crate uses a part")]
impl Medium {
    /// Makes an empty disk on which this fault happens at the operation with this number, counted from 1.
    pub(crate) fn with(fault: Option<(usize, Fault)>) -> Self {
        Self { fault, ..Self::default() }
    }

    pub(crate) const fn linking(mut self, cannot_link: bool) -> Self {
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

    /// Changes one byte of a file, and nothing of its stamp.
    pub(crate) fn rot(&mut self, path: &Path, at: usize) {
        let node = self.at(path).expect("a file");
        self.nodes[node].now[at] ^= 1;
    }

    pub(crate) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        self.at(path).ok().map(|node| self.nodes[node].now.clone())
    }

    fn stamp(&self, node: usize) -> Stamp {
        let Node { now, changed, touched, .. } = &self.nodes[node];
        let names = self.names.values().filter(|n| n.node == node).count();
        let (changed, touched) = ((*changed, 0), (*touched, 0));
        Stamp { kind: Kind::File, file: (1, node as u64), len: now.len() as u64, changed, touched, names: names as u64 }
    }

    /// Changes a file's bytes durably, as another program would. Returns `false` if there is no such file.
    pub(crate) fn change(&mut self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Ok(node) = self.at(path) else { return false };
        self.touch(node);
        let file = &mut self.nodes[node];
        change(&mut file.now);
        file.durable.clone_from(&file.now);
        file.changed = file.touched;
        true
    }

    /// Returns whether any file, a deleted one included, contains these bytes.
    pub(crate) fn holds(&self, what: &[u8]) -> bool {
        self.nodes.iter().any(|node| node.now.windows(what.len()).any(|part| part == what))
    }

    /// Returns the contents of the only file whose name satisfies `fits`.
    pub(crate) fn only(&self, fits: impl Fn(&str) -> bool) -> Vec<u8> {
        let fits = |path: &Path| path.file_name().and_then(|n| n.to_str()).is_some_and(&fits);
        let mut found = self.names.iter().filter(|(path, _)| fits(path));
        let (_, name) = found.next().expect("one");
        assert!(found.next().is_none(), "more than one");
        self.nodes[name.node].now.clone()
    }

    /// Returns the disk after a power failure: each unsynced change is kept or lost, as `coin` decides.
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
    fn set_mode(&self, path: &Path, _: u32) -> io::Result<()> {
        let mut m = lock(&self.0);
        m.step()?;
        let node = m.at(path)?;
        m.touch(node);
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
    fn room(&self, _path: &Path) -> io::Result<Room> {
        Ok(Room { device: 1, free: u64::MAX - lock(&self.0).used })
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

/// Returns a coin whose throws depend on the seed only (a linear congruential generator; Knuth's constants).
pub(crate) fn coin(mut seed: u64) -> impl FnMut() -> bool {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 63 == 1
    }
}
