//! What running servers take from changed files: their TLS certificates, and the keys of their sections that need no
//! restart.

use crate::error::Error;
use crate::files::read;
use crate::tls::{LiveCert, live_server_config};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The TLS certificate of a server, with the files that it was read from.
#[derive(Clone, Debug)]
pub struct LiveTls {
    cert: PathBuf,
    key: PathBuf,
    live: Arc<LiveCert>,
}

/// Loads the TLS configuration of a server, which may ask clients for keys. Errors name the files.
pub fn load_tls(cert: &Path, key: &Path, asks_keys: bool) -> Result<(Arc<rustls::ServerConfig>, LiveTls), Error> {
    let failed = |e: Error| in_files(cert, key, &e);
    let live = LiveCert::new(&read(cert)?, &read(key)?).map_err(failed)?;
    let config = live_server_config(live.clone(), asks_keys).map_err(failed)?;
    Ok((config, LiveTls { cert: cert.into(), key: key.into(), live }))
}

fn in_files(cert: &Path, key: &Path, e: &Error) -> Error {
    Error::usage(format!("{} and {}: {e}", cert.display(), key.display()))
}

impl LiveTls {
    /// Reads the files again; new connections get what is in them. Returns whether they hold another certificate. An
    /// error leaves the old one in force.
    pub fn read_again(&self) -> Result<bool, Error> {
        self.live.replace(&read(&self.cert)?, &read(&self.key)?).map_err(|e| in_files(&self.cert, &self.key, &e))
    }
}

type Take = Box<dyn Fn(Value) -> Result<(), String> + Send>;

/// Settings and certificates that a running server can load again after SIGHUP.
#[derive(Default)]
pub struct Live {
    tls: Option<LiveTls>,
    keys: &'static [&'static str],
    take: Option<Take>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("tls", &self.tls).field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Live {
    /// A server that takes another certificate.
    #[must_use]
    pub fn tls(tls: LiveTls) -> Self {
        Self { tls: Some(tls), ..Self::default() }
    }

    /// Sets the configuration keys of the server's section that can change while the server runs, and the function
    /// which is called with the new section.
    #[must_use]
    pub fn section(
        mut self,
        keys: &'static [&'static str],
        take: impl Fn(Value) -> Result<(), String> + Send + 'static,
    ) -> Self {
        self.keys = keys;
        self.take = Some(Box::new(take));
        self
    }

    /// Reads the TLS files again, as [`LiveTls::read_again`].
    pub fn read_tls_again(&self) -> Result<bool, Error> {
        self.tls.as_ref().map_or(Ok(false), LiveTls::read_again)
    }

    /// Returns whether a running server takes this key of its section.
    #[must_use]
    pub fn takes(&self, key: &str) -> bool {
        self.keys.contains(&key)
    }

    /// Hands over the changed section, of which the server takes its keys.
    pub fn take(&self, section: Value) -> Result<(), String> {
        self.take.as_ref().map_or(Ok(()), |take| take(section))
    }
}

/// The servers of a process by name, once they are open. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Lives(Arc<Mutex<Vec<(&'static str, Live)>>>);

impl Lives {
    pub(super) fn add(&self, name: &'static str, live: Live) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name, live));
    }

    /// Calls `each` with every server.
    pub fn each(&self, mut each: impl FnMut(&'static str, &Live)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|(name, live)| each(name, live));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CertAuthority;
    use std::fs;

    #[test]
    fn changed_tls_files_are_taken_and_broken_ones_leave_the_old_certificate() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = (dir.path().join("tls.pem"), dir.path().join("tls.key.pem"));
        let ca = CertAuthority::new().expect("made");
        let issue = || ca.issue(&["localhost"]).expect("issued");
        let write = |(c, k): (String, String)| {
            fs::write(&cert, c).expect("written");
            fs::write(&key, k).expect("written");
        };
        write(issue());
        let (_, tls) = load_tls(&cert, &key, false).expect("loads");
        assert_eq!(tls.read_again(), Ok(false));
        write(issue());
        assert_eq!((tls.read_again(), tls.read_again()), (Ok(true), Ok(false)));
        fs::write(&cert, issue().0).expect("written");
        let error = tls.read_again().expect_err("the key of another").to_string();
        assert!(error.contains("tls.key.pem") && error.contains("do not fit"), "{error}");
        fs::remove_file(&key).expect("removed");
        assert!(tls.read_again().is_err());
        write(issue());
        assert_eq!(tls.read_again(), Ok(true));
    }
}
