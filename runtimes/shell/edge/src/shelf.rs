//! Files that a running edge reads again when they have changed: the catalogue, and the providers' keys.

use super::Error;
use super::catalogue::{Catalogue, Files};
use super::provider_keys::ProviderKeys;
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use swarmedge_ground::files::Stamp;
use swarmedge_ground::health::{Condition, Health};
use swarmedge_ground::rt::Rt;

/// The published objects and who may sign for them; clones share one view.
#[derive(Clone, Debug)]
pub struct Shelf<R> {
    files: Files,
    catalogue: Watched<R, Catalogue>,
    keys: Watched<R, ProviderKeys>,
}

impl<R: Rt> Shelf<R> {
    /// Reads everything for the first time.
    pub fn open(rt: R, files: Files, health: &Health) -> Result<Self, Error> {
        let part = |name| Condition::new(health, name);
        let catalogue =
            Watched::open(rt.clone(), files.clone(), Files::catalogue, Files::load, part("edge's catalogue"))?;
        let keys =
            Watched::open(rt, files.clone(), Files::provider_keys, ProviderKeys::load, part("edge's provider keys"))?;
        Ok(Self { files, catalogue, keys })
    }

    /// Where things are.
    #[must_use]
    pub const fn files(&self) -> &Files {
        &self.files
    }

    /// The catalogue, no older than this call: whoever publishes and then asks gets what was published.
    pub async fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.get().await
    }

    /// The providers' keys, no older than this call.
    pub async fn provider_keys(&self) -> Arc<ProviderKeys> {
        self.keys.get().await
    }
}

/// One file's value. A file that cannot be read leaves the last value in force.
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
        // every caller looks for itself: another's look may have been before this call
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
                self.view.borrow_mut().condition.failed(why);
            }
        }
        self.view.borrow().value.clone()
    }
}
