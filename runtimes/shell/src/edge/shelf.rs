//! The catalogue as a running edge sees it: read again when its file has changed.

use super::Error;
use super::catalogue::{Catalogue, Files, Stamp};
use crate::rt::Rt;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// The published objects; clones share one view.
#[derive(Clone, Debug)]
pub struct Shelf<R> {
    rt: R,
    files: Files,
    view: Rc<RefCell<View>>,
}

#[derive(Debug)]
struct View {
    catalogue: Arc<Catalogue>,
    stamp: Option<Stamp>,
}

impl<R: Rt> Shelf<R> {
    /// Reads the catalogue for the first time.
    pub fn open(rt: R, files: Files) -> Result<Self, Error> {
        let stamp = files.stamp();
        let catalogue = Arc::new(files.load()?);
        Ok(Self { rt, files, view: Rc::new(RefCell::new(View { catalogue, stamp })) })
    }

    /// Where things are.
    #[must_use]
    pub const fn files(&self) -> &Files {
        &self.files
    }

    /// The catalogue, no older than this call: whoever publishes and then asks gets what was published. One that
    /// cannot be read leaves the view as it was.
    pub async fn catalogue(&self) -> Arc<Catalogue> {
        let known = self.view.borrow().stamp;
        let files = self.files.clone();
        // every caller looks for itself: another's look may have been before this call
        let fresh = self.rt.blocking(move || {
            let stamp = files.stamp();
            (stamp != known).then(|| (stamp, files.load()))
        });
        match fresh.await {
            None => {}
            Some((stamp, Ok(catalogue))) => {
                let mut view = self.view.borrow_mut();
                view.catalogue = Arc::new(catalogue);
                view.stamp = stamp;
            }
            Some((_, Err(error))) => tracing::error!(%error, "the catalogue cannot be read; the last view is kept"),
        }
        self.view.borrow().catalogue.clone()
    }
}
