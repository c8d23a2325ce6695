//! Repairs damaged content from other copies of the same bytes on this edge: the same content under another path, and
//! older versions of the object. Without such a copy the operator must publish the content again; this task notices
//! that, too.

use super::catalogue::{Catalogue, Files, Version};
use super::damage::What;
use super::error::Error;
use super::keeper::{Keeper, Refused};
use super::published::PublishedFiles;
use super::stored::{By, Stored, identity};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::content::{Manifest, merkle};
use swarmedge_core::ids::{PieceIndex, VersionId};
use swarmedge_ground::rt::Rt;

/// Interval of checks for damaged versions, and for damaged versions that were published again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Repairs damaged versions for as long as the runtime runs.
pub(super) async fn follow<R: Rt>(rt: R, keeper: Keeper<R>, published: PublishedFiles<R>) {
    loop {
        for id in keeper.damage().versions() {
            let catalogue = published.catalogue().await;
            match catalogue.versions.get(&id) {
                Some(version) => mend(&rt, &keeper, &catalogue, (id, version)).await,
                None => keeper.damage().clear(id),
            }
        }
        rt.sleep_until(rt.now() + LOOK_EVERY).await;
    }
}

/// Checks a damaged version again, and repairs the pieces that other copies have.
async fn mend<R: Rt>(rt: &R, keeper: &Keeper<R>, catalogue: &Catalogue, (id, version): (VersionId, &Version)) {
    let path = keeper.files().content(id);
    let now = rt.blocking(move || File::open(path).and_then(|file| identity(&file)).ok()).await;
    if !keeper.damage().is_due(id, now.map(|(identity, _)| identity)) {
        return;
    }
    let sources = sources(catalogue, id, version);
    let opened = keeper.open(id).await;
    let pieces = match (&opened, keeper.damage().of(id)) {
        (_, None) => return,
        (Ok(_), Some(What::Pieces(pieces))) => pieces,
        // the file is whole again; its pieces are hashed before they are sent
        (Ok(_), Some(_)) => return keeper.damage().clear(id),
        (Err(Refused::Busy(_)), _) => return,
        (Err(Refused::Damaged(what)), _) => {
            keeper.damage().note(id, &version.key, what.clone());
            if !sources.is_empty() {
                mend_file(rt, keeper, (id, version), &sources).await;
            }
            return;
        }
    };
    let Ok(stored) = opened else { return };
    for piece in pieces {
        let good = keeper.check(&stored, piece, By::Scrub).await;
        if matches!(good, Ok(Some(_))) {
            keeper.damage().mended(id, piece);
        } else if good.is_err() && mend_piece(rt, keeper, &stored.manifest, (id, piece), &sources).await {
            let again = keeper.check(&stored, piece, By::Read).await;
            if matches!(again, Ok(Some(_))) {
                keeper.damage().mended(id, piece);
            }
        }
    }
}

/// Returns the versions that may have the same bytes: those of the same content first.
fn sources(catalogue: &Catalogue, id: VersionId, version: &Version) -> Vec<VersionId> {
    let same = |v: &Version| (v.size, v.sha256) == (version.size, version.sha256);
    let others = || catalogue.versions.iter().filter(|(other, _)| **other != id);
    let equal = others().filter(|(_, v)| same(v)).map(|(id, _)| *id);
    let related = others().filter(|(_, v)| v.key == version.key && !same(v)).map(|(id, _)| *id);
    equal.chain(related).collect()
}

/// Rebuilds a content file that is missing or of the wrong length, as far as other copies have its pieces.
async fn mend_file<R: Rt>(rt: &R, keeper: &Keeper<R>, (id, version): (VersionId, &Version), sources: &[VersionId]) {
    let Ok(manifest) = keeper.manifest(id).await else { return };
    let (files, size) = (keeper.files().clone(), version.size);
    let made = rt.blocking(move || stretch(&files, id, size)).await;
    let stored = match made {
        Ok(file) => Stored { id, file: Arc::new(file), manifest },
        Err(error) => return tracing::warn!(version = %id, %error, "damaged content cannot be repaired"),
    };
    let mut missing = 0_u32;
    for piece in stored.manifest.layout().iter() {
        let good = keeper.check(&stored, piece, By::Read).await;
        let good = matches!(good, Ok(Some(_))) || mend_piece(rt, keeper, &stored.manifest, (id, piece), sources).await;
        missing = missing.saturating_add(u32::from(!good));
    }
    if missing == 0 {
        keeper.damage().clear(id);
    }
}

/// Opens a content file for repair and gives it its length.
fn stretch(files: &Files, id: VersionId, size: u64) -> io::Result<File> {
    let (path, other) = (files.content(id), |error: Error| io::Error::other(error.to_string()));
    let ownership = files.ownership().map_err(other)?;
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    ownership.give_readable(&file)?;
    file.set_len(size)?;
    Ok(file)
}

/// Repairs a piece from the first copy that has it; returns whether the piece was repaired.
async fn mend_piece<R: Rt>(
    rt: &R,
    keeper: &Keeper<R>,
    manifest: &Arc<Manifest>,
    (id, piece): (VersionId, PieceIndex),
    sources: &[VersionId],
) -> bool {
    let (files, manifest, sources) = (keeper.files().clone(), Arc::clone(manifest), sources.to_vec());
    let mended = rt.blocking(move || {
        let found = sources.iter().find_map(|from| Some((*from, copy_of(&files, *from, &manifest, piece)?)));
        let Some((from, bytes)) = found else { return Ok(None) };
        let file = File::options().write(true).open(files.content(id))?;
        file.write_all_at(&bytes, manifest.layout().piece_range(piece).start)?;
        file.sync_data()?;
        Ok::<_, io::Error>(Some(from))
    });
    match mended.await {
        Ok(Some(from)) => {
            metrics::counter!("swarmedge_edge_pieces_repaired_total").increment(1);
            tracing::warn!(version = %id, %piece, %from, "a damaged piece was repaired from another copy");
            true
        }
        Ok(None) => false,
        Err(error) => {
            tracing::warn!(version = %id, %piece, %error, "a damaged piece cannot be written");
            false
        }
    }
}

/// Returns the bytes of a piece from another version that has a piece of the same root, if they are right.
fn copy_of(files: &Files, from: VersionId, manifest: &Manifest, piece: PieceIndex) -> Option<Vec<u8>> {
    let (layout, root) = (manifest.layout(), manifest.root(piece)?);
    let theirs = files.load_manifest(from).ok()?;
    let same_place = theirs.root(piece) == Some(root);
    let found = || theirs.layout().iter().find(|p| theirs.root(*p) == Some(root));
    let at = if same_place { piece } else { found()? };
    let range = theirs.layout().piece_range(at);
    if range.end - range.start != u64::from(layout.piece_size(piece)) {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
    File::open(files.content(from)).ok()?.read_exact_at(&mut bytes, range.start).ok()?;
    (merkle::piece_root(&layout, piece, &merkle::leaves(&bytes)) == root).then_some(bytes)
}
