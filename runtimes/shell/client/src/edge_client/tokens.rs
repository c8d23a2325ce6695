//! Providers' tokens for objects that are not public, stored in the client's directory, so that a download that is
//! resumed on another day can get a new grant.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use swarmedge_core::role::client::io::ObjectRef;
use swarmedge_ground::edge_api::Token;
use swarmedge_ground::keys::replace_secret;

/// Name of the file in the client's directory.
const FILE: &str = "tokens.json";
/// Maximum number of stored tokens; the oldest are dropped first.
const TOKENS_MAX: usize = 256;

/// A store of the newest token of each object; clones share it.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Number of the token stored last. Each token in `tokens` is stored with a number, by which the oldest is found.
    last: u64,
    tokens: BTreeMap<String, (u64, Token)>,
}

fn name(object: &ObjectRef) -> String {
    format!("{}/{}", object.provider, object.path)
}

impl Tokens {
    /// Reads the tokens of the client's directory. A file that does not parse counts as empty: the user can get new
    /// tokens.
    pub fn open(state: &Path) -> io::Result<Self> {
        let path = state.join(FILE);
        let tokens: BTreeMap<String, (u64, Token)> = match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(e),
        };
        let last = tokens.values().map(|(n, _)| *n).max().unwrap_or(0);
        Ok(Self(Arc::new(Mutex::new(Kept { path, last, tokens }))))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an object's token durably, in place of an older one.
    pub fn put(&self, object: &ObjectRef, token: Token) -> io::Result<()> {
        let mut kept = self.lock();
        kept.last += 1;
        let number = kept.last;
        kept.tokens.insert(name(object), (number, token));
        while kept.tokens.len() > TOKENS_MAX {
            let oldest = kept.tokens.iter().min_by_key(|(_, (n, _))| *n).map(|(name, _)| name.clone());
            oldest.and_then(|name| kept.tokens.remove(&name));
        }
        replace_secret(&kept.path, &serde_json::to_vec(&kept.tokens)?)
    }

    /// Returns the token of an object, if any.
    #[must_use]
    pub fn get(&self, object: &ObjectRef) -> Option<Token> {
        self.lock().tokens.get(&name(object)).map(|(_, token)| token.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::ids::ProviderId;

    #[test]
    fn the_newest_tokens_survive_restarts_and_the_oldest_are_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let object = |n: usize| ObjectRef { provider: ProviderId(1), path: n.to_string() };
        let tokens = Tokens::open(dir.path()).expect("opens");
        tokens.put(&object(0), Token("old".into())).expect("kept");
        tokens.put(&object(0), Token("new".into())).expect("kept");
        let again = Tokens::open(dir.path()).expect("opens");
        assert_eq!(again.get(&object(0)).map(|t| t.0).as_deref(), Some("new"));
        assert_eq!(again.get(&object(1)), None);
        for n in 1..=TOKENS_MAX {
            again.put(&object(n), Token(format!("secret-{n}"))).expect("kept");
        }
        assert_eq!((again.get(&object(0)), again.get(&object(1)).is_some()), (None, true));
        assert!(!format!("{again:?}").contains("secret"), "no token in a debug form");
    }
}
