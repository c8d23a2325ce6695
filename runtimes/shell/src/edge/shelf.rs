//! The catalogue as a running edge sees it: read again when its file has changed.

use super::Error;
use super::catalogue::{Catalogue, Files, Stamp};
use crate::rt::Rt;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The file is looked at no more often than this.
const CHECK_EVERY: Duration = Duration::from_secs(1);

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
    checked: Instant,
}

impl<R: Rt> Shelf<R> {
    /// Reads the catalogue for the first time.
    pub fn open(rt: R, files: Files) -> Result<Self, Error> {
        let stamp = files.stamp();
        let catalogue = Arc::new(files.load()?);
        let view = Rc::new(RefCell::new(View { catalogue, stamp, checked: rt.now() }));
        Ok(Self { rt, files, view })
    }

    /// Where things are.
    #[must_use]
    pub const fn files(&self) -> &Files {
        &self.files
    }

    /// The catalogue, at most a second old. One that cannot be read leaves the view as it was.
    pub async fn catalogue(&self) -> Arc<Catalogue> {
        let now = self.rt.now();
        let (known, due) = {
            let mut view = self.view.borrow_mut();
            let due = now.saturating_duration_since(view.checked) >= CHECK_EVERY;
            if due {
                view.checked = now;
            }
            (view.stamp, due)
        };
        if due {
            let files = self.files.clone();
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
        }
        self.view.borrow().catalogue.clone()
    }
}
