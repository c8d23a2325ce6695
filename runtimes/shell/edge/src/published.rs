//! The files that a running edge reads again after they change: the catalogue and the providers' keys.
//!
//! `PublishedFiles` gives both; `Watched` keeps one file's last valid value.

use super::Error;
use super::catalogue::{Catalogue, Files};
use super::provider_keys::ProviderKeys;
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use swarmedge_ground::files::Stamp;
use swarmedge_ground::health::{Cause, Condition, Health};
use swarmedge_ground::rt::Rt;

/// The published objects and the providers' token keys; clones share one state.
#[derive(Clone, Debug)]
pub struct PublishedFiles<R> {
    files: Files,
    catalogue: Watched<R, Catalogue>,
    keys: Watched<R, ProviderKeys>,
}

impl<R: Rt> PublishedFiles<R> {
    /// Reads both files for the first time; an unreadable file is an error.
    pub fn open(rt: R, files: Files, health: &Health) -> Result<Self, Error> {
        let part = |name| Condition::new(health, name);
        let catalogue =
            Watched::open(rt.clone(), files.clone(), Files::catalogue, Files::load, part("edge's catalogue"))?;
        let keys =
            Watched::open(rt, files.clone(), Files::provider_keys, ProviderKeys::load, part("edge's provider keys"))?;
        Ok(Self { files, catalogue, keys })
    }

    /// Returns the paths below the objects directory.
    #[must_use]
    pub const fn files(&self) -> &Files {
        &self.files
    }

    /// Returns the catalogue, no older than this call, so that a request after a `publish` sees the new version.
    pub async fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.get().await
    }

    /// Returns the providers' keys, no older than this call.
    pub async fn provider_keys(&self) -> Arc<ProviderKeys> {
        self.keys.get().await
    }
}

/// The value of one file. While the file cannot be read, the last value stays in force and `/healthz` names the error.
#[derive(Debug)]
struct Watched<R, T> {
    rt: R,
    files: Files,
    path: fn(&Files) -> PathBuf,
    load: fn(&Files) -> Result<T, Error>,
    view: Rc<RefCell<View<T>>>,
}

#[derive(Debug)]
struct View<T> {
    value: Arc<T>,
    stamp: Option<Stamp>,
    condition: Condition,
}

impl<R: Clone, T> Clone for Watched<R, T> {
    fn clone(&self) -> Self {
        let Self { rt, files, path, load, view } = self;
        Self { rt: rt.clone(), files: files.clone(), path: *path, load: *load, view: Rc::clone(view) }
    }
}

impl<R: Rt, T: Send + Sync + 'static> Watched<R, T> {
    /// Loads a file that operators may change while the edge runs, and notes its stamp.
    fn open(
        rt: R,
        files: Files,
        path: fn(&Files) -> PathBuf,
        load: fn(&Files) -> Result<T, Error>,
        condition: Condition,
    ) -> Result<Self, Error> {
        let stamp = Stamp::of(&path(&files));
        let value = Arc::new(load(&files)?);
        Ok(Self { rt, files, path, load, view: Rc::new(RefCell::new(View { value, stamp, condition })) })
    }

    async fn get(&self) -> Arc<T> {
        let known = self.view.borrow().stamp;
        let (files, path, load) = (self.files.clone(), self.path, self.load);
        // each call checks the file itself: a check that another call began may be older than this call
        let fresh = self.rt.blocking(move || {
            let stamp = Stamp::of(&path(&files));
            (stamp != known).then(|| (stamp, load(&files)))
        });
        match fresh.await {
            None => self.view.borrow_mut().condition.succeeded(),
            Some((stamp, Ok(value))) => {
                let mut view = self.view.borrow_mut();
                view.value = Arc::new(value);
                view.stamp = stamp;
                view.condition.succeeded();
            }
            Some((_, Err(error))) => {
                let why = format!("{error} (mend the file; until then its last state counts)");
                let cause = if let Error::File { error, .. } = &error { Cause::of(error) } else { Cause::File };
                self.view.borrow_mut().condition.failed_by(cause, why);
            }
        }
        self.view.borrow().value.clone()
    }
}
