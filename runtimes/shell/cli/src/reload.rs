//! SIGHUP at servers: the configuration and the certificates are read again. What a running server can take is taken;
//! what it cannot is named. A broken file leaves the old one in force.

use super::Error;
use super::certificates::{self, Expiry};
use crate::config::ServerConfig;
use serde_json::Value;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use swarmedge_ground::files::Stamp;
use swarmedge_ground::host::Lives;
use swarmedge_ground::mailbox::Receiver;

/// The servers of this process and what they run with.
pub(super) struct Reload {
    /// The configuration file.
    path: PathBuf,
    /// Names of the roles that run.
    roles: Vec<&'static str>,
    /// The running servers.
    lives: Lives,
    /// The configuration at the start, whose file names stay in force.
    config: ServerConfig,
    /// The sections in force.
    sections: Value,
    /// Files that are read at the start only, with their states then.
    fixed: Vec<(PathBuf, Option<Stamp>)>,
    /// Expiries of the certificates, for warnings.
    expiries: Rc<RefCell<Vec<Expiry>>>,
}

/// Changed entries of the configuration, by name: those in force now, and those that need a restart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    taken: Vec<String>,
    needs_restart: Vec<String>,
}

impl Reload {
    /// Notes what servers of these roles begin with.
    pub(super) fn new(
        path: &Path,
        roles: Vec<&'static str>,
        config: ServerConfig,
        lives: Lives,
    ) -> Result<Self, Error> {
        let expiries = certificates::expiries(&config, |role| roles.contains(&role))?;
        let fixed = certificates::fixed_files(&config, |role| roles.contains(&role));
        let fixed = fixed.into_iter().map(|file| (file.to_owned(), Stamp::of(file))).collect();
        // a path that is not UTF-8 has no value: then nothing but certificates is taken
        let sections = serde_json::to_value(&config).unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            roles,
            lives,
            config,
            sections,
            fixed,
            expiries: Rc::new(RefCell::new(expiries)),
        })
    }

    /// Returns the expiries of the certificates in force.
    pub(super) fn expiries(&self) -> Rc<RefCell<Vec<Expiry>>> {
        self.expiries.clone()
    }

    /// Reads everything again whenever it is asked to.
    pub(super) async fn follow(mut self, mut asked: Receiver<()>) {
        while asked.recv().await.is_some() {
            let Found { taken, needs_restart } = self.read_again();
            let list = |all: &[String]| if all.is_empty() { "nothing".to_owned() } else { all.join(", ") };
            tracing::info!("SIGHUP: taken: {}; needs a restart: {}", list(&taken), list(&needs_restart));
        }
    }

    fn read_again(&mut self) -> Found {
        let mut found = Found::default();
        match ServerConfig::load(&self.path) {
            Ok(new) => self.take(&serde_json::to_value(&new).unwrap_or_default(), &mut found),
            Err(error) => tracing::error!(%error, "SIGHUP: the configuration in force stays"),
        }
        self.lives.each(|name, live| match live.read_tls_again() {
            Ok(true) => found.taken.push(format!("{name}'s TLS certificate")),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "SIGHUP: {name}'s TLS certificate in force stays"),
        });
        if let Ok(new) = certificates::expiries(&self.config, |role| self.roles.contains(&role)) {
            let mut all = self.expiries.borrow_mut();
            all.retain(|e| !e.is_of_tls());
            all.extend(new.into_iter().filter(Expiry::is_of_tls));
        }
        let changed = self.fixed.iter().filter(|(file, stamp)| Stamp::of(file) != *stamp);
        found.needs_restart.extend(changed.map(|(file, _)| file.display().to_string()));
        found
    }

    /// Takes from a new configuration what running servers can take.
    fn take(&mut self, new: &Value, found: &mut Found) {
        let sections = &mut self.sections;
        let changed = differing(&sections["operator"], &new["operator"]);
        found.needs_restart.extend(changed.iter().map(|key| in_words("operator", key)));
        self.lives.each(|name, live| {
            let changed = differing(&sections[name], &new[name]);
            let (live_keys, fixed): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| live.takes(key));
            found.needs_restart.extend(fixed.iter().map(|key| in_words(name, key)));
            if live_keys.is_empty() {
                return;
            }
            if let Err(error) = live.take(new[name].clone()) {
                return tracing::error!(error, "SIGHUP: [{name}] in force stays");
            }
            for key in live_keys {
                found.taken.push(in_words(name, &key));
                sections[name][&key] = new[name][&key].clone();
            }
        });
    }
}

fn in_words(section: &str, key: &str) -> String {
    format!("[{section}] {key}")
}

/// Returns the keys whose values differ between two sections.
fn differing(old: &Value, new: &Value) -> Vec<String> {
    let keys = |section: &Value| section.as_object().map_or_else(Vec::new, |o| o.keys().cloned().collect());
    let mut all: Vec<String> = [keys(old), keys(new)].concat();
    all.sort_unstable();
    all.dedup();
    all.retain(|key| old.get(key) != new.get(key));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_differ_that_are_new_gone_or_changed() {
        let old = json!({"same": 1, "changed": [1], "gone": true});
        let new = json!({"same": 1, "changed": [2], "new": {}});
        assert_eq!(differing(&old, &new), ["changed", "gone", "new"]);
        assert_eq!(differing(&old, &Value::Null), ["changed", "gone", "same"]);
        assert!(differing(&Value::Null, &Value::Null).is_empty());
    }
}
