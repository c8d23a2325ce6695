//! Checks stored content: a piece is sent only if its hash was found right lately and its file is unchanged since.
//!
//! Hashing a piece costs about as much as sending it, so the result, its verdict, is remembered
//! ([`swarmedge_core::content::verdicts`]). Requests for the same piece wait for one hash computation.

use super::Error;
use super::catalogue::{Files, ObjectKey};
use super::damage::{Damage, What};
use super::stored::{By, Stored, identity};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use swarmedge_core::content::Manifest;
use swarmedge_core::content::verdicts::{FileIdentity, Limits, Verdict, Verdicts};
use swarmedge_core::ids::{PieceIndex, VersionId};
use swarmedge_core::machine::Time;
use swarmedge_ground::health::{Cause, Health, LogLimiter, file_trouble};
use swarmedge_ground::http::Signal;
use swarmedge_ground::rt::Rt;

/// Maximum number of piece roots in memory, over all manifests; each has 32 bytes.
const ROOTS_MAX: usize = 1 << 20;
/// Maximum number of attempts to hash a piece while somebody writes to its file.
const TRIES_MAX: u32 = 4;

/// Why content cannot be sent.
#[derive(Debug)]
pub enum Refused {
    /// Stored content is missing or wrong.
    Damaged(What),
    /// A resource of the system is lacking; a later attempt may succeed.
    Busy(io::Error),
}

/// Handle to the stored content. Clones share the verdicts and manifests.
#[derive(Clone, Debug)]
pub struct Keeper<R>(Rc<Inner<R>>);

#[derive(Debug)]
struct Inner<R> {
    rt: R,
    files: Files,
    began: Instant,
    verdicts: RefCell<Verdicts>,
    manifests: RefCell<Manifests>,
    /// Pieces that are being hashed, each with the signal for the tasks that wait for its verdict.
    checking: RefCell<BTreeMap<(VersionId, PieceIndex), Signal>>,
    damage: Damage,
    /// Rate limit of the log lines about content that cannot be read for lack of a resource.
    busy: LogLimiter,
}

/// Cache of the most recently requested manifests.
#[derive(Debug, Default)]
struct Manifests {
    kept: BTreeMap<VersionId, (Arc<Manifest>, u64)>,
    asked: u64,
}

impl Manifests {
    fn get(&mut self, id: VersionId) -> Option<Arc<Manifest>> {
        self.asked += 1;
        let (manifest, asked) = self.kept.get_mut(&id)?;
        *asked = self.asked;
        Some(Arc::clone(manifest))
    }

    fn put(&mut self, id: VersionId, manifest: Arc<Manifest>) {
        self.asked += 1;
        self.kept.insert(id, (manifest, self.asked));
        let roots = |kept: &BTreeMap<_, (Arc<Manifest>, u64)>| kept.values().map(|(m, _)| m.roots().len() + 1).sum();
        while self.kept.len() > 1 && ROOTS_MAX < roots(&self.kept) {
            let oldest = self.kept.iter().min_by_key(|(_, (_, asked))| *asked).map(|(id, _)| *id);
            oldest.map(|id| self.kept.remove(&id));
        }
    }
}

impl<R: Rt> Keeper<R> {
    /// Creates a keeper for the content below these paths.
    pub fn new(rt: R, files: Files, health: Health) -> Self {
        let began = rt.now();
        Self(Rc::new(Inner {
            rt,
            files,
            began,
            verdicts: RefCell::default(),
            manifests: RefCell::default(),
            checking: RefCell::default(),
            damage: Damage::new(health),
            busy: LogLimiter::default(),
        }))
    }

    /// Returns the list of damaged versions.
    #[must_use]
    pub fn damage(&self) -> &Damage {
        &self.0.damage
    }

    /// Returns the paths of stored content.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.0.files
    }

    fn now(&self) -> Time {
        Time::ZERO.after(self.0.rt.now().saturating_duration_since(self.0.began))
    }

    /// Opens a version's content file, which must have the version's size.
    pub async fn open(&self, id: VersionId) -> Result<Stored, Refused> {
        let (known, files) = (self.0.manifests.borrow_mut().get(id), self.0.files.clone());
        let is_new = known.is_none();
        let opened = self.0.rt.blocking(move || open(&files, id, known)).await;
        if let Ok(stored) = &opened
            && is_new
        {
            self.0.manifests.borrow_mut().put(id, Arc::clone(&stored.manifest));
        }
        opened
    }

    /// Reads a version's manifest, whose hash is the version's id.
    pub async fn manifest(&self, id: VersionId) -> Result<Arc<Manifest>, Refused> {
        let files = self.0.files.clone();
        let read = self.0.rt.blocking(move || load_manifest(&files, id)).await;
        if let Ok(manifest) = &read {
            self.0.manifests.borrow_mut().put(id, Arc::clone(manifest));
        }
        read
    }

    /// Counts a refused answer and reports the reason: damage in log and health, a lacking resource in the log.
    pub fn note(&self, id: VersionId, key: &ObjectKey, why: &Refused) {
        metrics::counter!("swarmedge_edge_content_refused_total").increment(1);
        match why {
            Refused::Damaged(what) => self.0.damage.note(id, key, what.clone()),
            Refused::Busy(error) => self.0.busy.say(|left_out| {
                tracing::error!(left_out, "{}", file_trouble("read", &self.0.files.content(id), error));
            }),
        }
    }

    /// Checks before an answer begins whether its bytes can be sent. Of the pieces in `ranges`, those that were found
    /// bad are hashed again if that is due, and the first one is checked if `first` is set.
    pub async fn prepare(&self, stored: &Stored, ranges: &[Range<u64>], first: bool) -> Result<(), Refused> {
        let identity = stored.identity().map_err(|e| unreadable(&self.0.files.content(stored.id), &e))?;
        let suspects = self.0.verdicts.borrow().suspects((stored.id, identity));
        let layout = stored.manifest.layout();
        let asked = |piece: &PieceIndex| {
            let range = layout.piece_range(*piece);
            ranges.iter().any(|r| r.start < range.end && range.start < r.end)
        };
        let begin = ranges.iter().find(|r| first && !r.is_empty()).map(|r| stored.piece_of(r.start));
        let mut damaged = BTreeSet::new();
        for piece in suspects.into_iter().filter(asked).chain(begin) {
            match self.admit(stored, piece).await {
                Err(Refused::Damaged(What::Pieces(pieces))) => damaged.extend(pieces),
                other => drop(other?),
            }
        }
        if damaged.is_empty() { Ok(()) } else { Err(Refused::Damaged(What::Pieces(damaged))) }
    }

    /// Waits until a piece is found right; returns the identity of its file at that time.
    pub async fn admit(&self, stored: &Stored, piece: PieceIndex) -> Result<FileIdentity, Refused> {
        for _ in 0..TRIES_MAX {
            let identity = stored.identity().map_err(|e| unreadable(&self.0.files.content(stored.id), &e))?;
            let verdict =
                self.0.verdicts.borrow_mut().of(&Limits::PRODUCTION, self.now(), (stored.id, identity), piece);
            match verdict {
                Verdict::Good => return Ok(identity),
                Verdict::Bad => return Err(Refused::Damaged(What::Pieces([piece].into()))),
                Verdict::Unknown => {}
            }
            let others = self.0.checking.borrow().get(&(stored.id, piece)).cloned();
            if let Some(others) = others {
                others.wait().await;
                continue;
            }
            if let Some(identity) = self.check(stored, piece, By::Read).await? {
                return Ok(identity);
            }
        }
        Err(Refused::Busy(io::Error::other("somebody writes to the file")))
    }

    /// Hashes a piece regardless of earlier verdicts, and remembers the new one. Returns the file's identity if the
    /// hash is right, and `None` if somebody wrote to the file meanwhile.
    pub async fn check(&self, stored: &Stored, piece: PieceIndex, by: By) -> Result<Option<FileIdentity>, Refused> {
        let _checking = Checking::begin(&self.0.checking, (stored.id, piece));
        let own = stored.clone();
        let checked = self.0.rt.blocking(move || {
            let (before, settled) = identity(&own.file)?;
            let good = own.check_piece(piece, by)?;
            Ok((before, settled, good, before == own.identity()?))
        });
        metrics::counter!("swarmedge_edge_pieces_checked_total", "by" => by.word()).increment(1);
        let (before, settled, good, same) = match checked.await {
            Ok(checked) => checked,
            Err(error) => return Err(self.read_failed(stored, piece, &error)),
        };
        if !same {
            return Ok(None);
        }
        if good {
            if settled {
                self.record(stored, before, piece, true);
            }
            return Ok(Some(before));
        }
        Err(self.found_bad(stored, before, piece))
    }

    fn record(&self, stored: &Stored, identity: FileIdentity, piece: PieceIndex, good: bool) {
        let file = (stored.id, identity, stored.manifest.layout().pieces());
        self.0.verdicts.borrow_mut().record(&Limits::PRODUCTION, self.now(), file, (piece, good));
    }

    fn found_bad(&self, stored: &Stored, identity: FileIdentity, piece: PieceIndex) -> Refused {
        self.record(stored, identity, piece, false);
        metrics::counter!("swarmedge_edge_pieces_damaged_total").increment(1);
        let what = What::Pieces([piece].into());
        self.0.damage.note(stored.id, &stored.key(), what.clone());
        Refused::Damaged(what)
    }

    fn read_failed(&self, stored: &Stored, piece: PieceIndex, error: &io::Error) -> Refused {
        let size = stored.manifest.layout().size();
        let path = self.0.files.content(stored.id);
        let why = match (stored.file.metadata(), stored.identity()) {
            (Ok(m), _) if m.len() != size => Refused::Damaged(What::Length { stored: m.len(), size }),
            // only this piece is unreadable: the rest of the file can be read
            (Ok(_), Ok(identity)) if Cause::of(error) == Cause::File => {
                tracing::debug!("{}", file_trouble("read", &path, error));
                return self.found_bad(stored, identity, piece);
            }
            _ => unreadable(&path, error),
        };
        if let Refused::Damaged(what) = &why {
            self.0.damage.note(stored.id, &stored.key(), what.clone());
        }
        why
    }

    /// Starts to hash the next piece if it has no verdict, so that the answer, which ends at byte `end`, need not wait.
    pub fn look_ahead(&self, stored: &Stored, piece: PieceIndex, end: u64) {
        let next = PieceIndex(piece.0.saturating_add(1));
        let range = stored.manifest.layout().piece_range(next);
        if range.is_empty() || range.start >= end || self.0.checking.borrow().contains_key(&(stored.id, next)) {
            return;
        }
        let Ok(identity) = stored.identity() else { return };
        let verdict = self.0.verdicts.borrow_mut().of(&Limits::PRODUCTION, self.now(), (stored.id, identity), next);
        if verdict == Verdict::Unknown {
            let (keeper, stored) = (self.clone(), stored.clone());
            self.0.rt.spawn(async move {
                // the answer handles the verdict when it comes to this piece
                let _ = keeper.check(&stored, next, By::Read).await;
            });
        }
    }
}

/// Mark of a piece that is being hashed. Dropping the mark wakes the waiting tasks, which then read the verdict.
struct Checking<'a> {
    table: &'a RefCell<BTreeMap<(VersionId, PieceIndex), Signal>>,
    piece: (VersionId, PieceIndex),
    done: Signal,
}

impl<'a> Checking<'a> {
    fn begin(table: &'a RefCell<BTreeMap<(VersionId, PieceIndex), Signal>>, piece: (VersionId, PieceIndex)) -> Self {
        let done = table.borrow_mut().entry(piece).or_default().clone();
        Self { table, piece, done }
    }
}

impl Drop for Checking<'_> {
    fn drop(&mut self) {
        self.table.borrow_mut().remove(&self.piece);
        self.done.set();
    }
}

fn open(files: &Files, id: VersionId, known: Option<Arc<Manifest>>) -> Result<Stored, Refused> {
    let path = files.content(id);
    let file = File::open(&path).map_err(|e| unreadable(&path, &e))?;
    let m = file.metadata().map_err(|e| unreadable(&path, &e))?;
    let manifest = known.map_or_else(|| load_manifest(files, id), Ok)?;
    let (stored, size) = (m.len(), manifest.layout().size());
    if !m.is_file() {
        return Err(Refused::Damaged(What::Unreadable(format!("{} is no file", path.display()))));
    }
    if stored != size {
        return Err(Refused::Damaged(What::Length { stored, size }));
    }
    Ok(Stored { id, file: Arc::new(file), manifest })
}

fn load_manifest(files: &Files, id: VersionId) -> Result<Arc<Manifest>, Refused> {
    files.load_manifest(id).map(Arc::new).map_err(|error| {
        if let Error::File { path, error } = &error {
            return unreadable(path, error);
        }
        Refused::Damaged(What::Unreadable(error.to_string()))
    })
}

fn unreadable(path: &std::path::Path, error: &io::Error) -> Refused {
    if Cause::of(error) == Cause::OpenFiles {
        return Refused::Busy(io::Error::new(error.kind(), error.to_string()));
    }
    Refused::Damaged(What::Unreadable(file_trouble("read", path, error)))
}

#[cfg(test)]
mod tests;
