//! The sealing keys of a running server. [`Seals`] rereads them within about a second of a change of their file, so
//! that a rotation needs no restart; [`rotate`] performs one.

use crate::error::Error;
use crate::files::Stamp;
use crate::keys::SealRing;
use crate::mailbox::Sender;
use crate::rt::Rt;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use swarmedge_core::accounting::epochs::Epochs;
use swarmedge_core::nat::cookie::CookieKeys;
use swarmedge_core::wire::records::{SealedGrant, SignedGrant};

/// Interval at which a running server checks the file.
pub const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The sealing keys of a server, following their file. Clones share the keys.
#[derive(Clone, Debug)]
pub struct Seals {
    path: PathBuf,
    ring: Rc<RefCell<SealRing>>,
}

impl Seals {
    /// Reads the keys for the first time.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { path: path.to_owned(), ring: Rc::new(RefCell::new(SealRing::load(path)?)) })
    }

    /// Seals a grant so that only the control plane can read it.
    #[must_use]
    pub fn seal(&self, grant: &SignedGrant) -> SealedGrant {
        self.ring.borrow().seal(grant)
    }

    /// Opens a grant sealed in the current, next or previous epoch.
    #[must_use]
    pub fn unseal(&self, grant: &SealedGrant) -> Option<SignedGrant> {
        self.ring.borrow().open(grant)
    }

    /// Rereads the file whenever it changes, until the runtime ends. An unreadable file leaves the keys as they were.
    pub async fn follow<R: Rt>(self, rt: R) {
        let stamp = |path: PathBuf| rt.blocking(move || Stamp::of(&path));
        let mut known = stamp(self.path.clone()).await;
        // the file may have changed between `open` and the first stamp
        self.reload(&rt).await;
        loop {
            rt.sleep_until(rt.now() + CHECK_EVERY).await;
            let now = stamp(self.path.clone()).await;
            if now != known {
                known = now;
                self.reload(&rt).await;
            }
        }
    }

    /// Sends a machine the cookie keys, now and whenever they change, until its mailbox is closed.
    pub async fn send_cookie_keys<R: Rt, I: Send>(self, rt: R, inbox: Sender<I>, wrap: fn(CookieKeys) -> I) {
        let mut sent = None;
        loop {
            let keys = self.ring.borrow().cookie_keys();
            if sent.as_ref() != Some(&keys) {
                sent = Some(keys.clone());
                if inbox.send(wrap(keys)).await.is_err() {
                    return;
                }
            }
            rt.sleep_until(rt.now() + CHECK_EVERY).await;
        }
    }

    async fn reload<R: Rt>(&self, rt: &R) {
        let path = self.path.clone();
        match rt.blocking(move || SealRing::load(&path)).await {
            Ok(ring) if ring == *self.ring.borrow() => {}
            Ok(ring) => {
                tracing::info!(epochs = ?ring.epochs(), "sealing keys were rotated");
                *self.ring.borrow_mut() = ring;
            }
            Err(error) => tracing::error!(%error, "cannot read the sealing keys; those in use stay"),
        }
    }
}

/// Rotates the keys in all of these files, which must be equal before. Returns the epochs that they hold afterwards.
pub fn rotate(files: &[&Path]) -> Result<Epochs, Error> {
    let Some(first) = files.first() else {
        return Err(Error::usage("no [edge], [cn] or [stun] section names a seal_key"));
    };
    let ring = SealRing::load(first)?;
    for other in &files[1..] {
        if SealRing::load(other)? != ring {
            let differ = format!("{} and {} hold different keys", first.display(), other.display());
            return Err(Error::usage(differ).next("copy the newer one over the other, then rotate"));
        }
    }
    let rotated = ring.rotated();
    for file in files {
        rotated.replace(file)?;
    }
    Ok(rotated.epochs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{Start as _, testing::TestRt};
    use std::time::Instant;

    #[test]
    fn a_rotation_reaches_all_files_and_refuses_files_that_differ() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        SealRing::fresh().save(&a).expect("written");
        std::fs::copy(&a, &b).expect("copied");
        assert_eq!(rotate(&[&a, &b]).expect("rotates"), Epochs { previous: Some(1), current: 2, next: Some(3) });
        assert_eq!(SealRing::load(&a).expect("reads"), SealRing::load(&b).expect("reads"));
        rotate(&[&a]).expect("rotates");
        assert!(rotate(&[&a, &b]).expect_err("refused").to_string().contains("different"));
    }

    #[test]
    fn a_server_follows_its_file_and_keeps_its_keys_when_the_file_is_broken() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("seal.key");
        SealRing::fresh().save(&path).expect("written");
        TestRt::block_on(move |rt| async move {
            let seals = Seals::open(&path).expect("opens");
            rt.spawn(seals.clone().follow(rt.clone()));
            let epochs = || seals.ring.borrow().epochs();
            for (current, change) in [(2, true), (2, false), (3, true)] {
                if change {
                    rotate(&[&path]).expect("rotates");
                } else {
                    let whole = std::fs::read(&path).expect("reads");
                    std::fs::write(&path, "broken").expect("written");
                    rt.sleep_until(rt.now() + 2 * CHECK_EVERY).await;
                    std::fs::write(&path, whole).expect("written");
                }
                let until = Instant::now() + Duration::from_secs(60);
                while epochs().current != current && Instant::now() < until {
                    rt.sleep_until(rt.now() + CHECK_EVERY / 10).await;
                }
                assert_eq!(epochs().current, current);
            }
        });
    }
}
