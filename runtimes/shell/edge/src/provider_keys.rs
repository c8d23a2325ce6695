//! The keys that providers sign their tokens with, in a file beside the catalogue.
//!
//! A provider has at most two keys, the current and the previous one, so that tokens made before a rotation stay valid
//! until they expire or the next rotation comes.

use super::Error;
use super::catalogue::Files;
use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use swarmedge_core::accounting::edge_auth::TokenKey;
use swarmedge_core::ids::ProviderId;
use swarmedge_core::limits::PROVIDER_KEYS_MAX;
use swarmedge_ground::keys::replace_secret;

/// Default name of the query parameter, header field or cookie with the token.
pub const TOKEN_NAME: &str = "__token__";
/// Format number of the file.
const FORMAT: u32 = 1;
/// Permitted lengths of a key, bytes.
const KEY_LEN: std::ops::RangeInclusive<usize> = 8..=64;

/// Token keys of all providers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderKeys(BTreeMap<ProviderId, Provider>);

/// One provider's token name and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The name of the query parameter, header field or cookie that carries a token.
    pub token_name: String,
    /// The current key, then the previous one.
    pub keys: Vec<TokenKey>,
}

impl Default for Provider {
    fn default() -> Self {
        Self { token_name: TOKEN_NAME.into(), keys: Vec::new() }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    providers: BTreeMap<u32, ProviderText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderText {
    token_name: String,
    keys: Vec<KeyText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyText {
    /// Bytes of the key, hexadecimal.
    key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    salt: String,
}

/// Arguments of a key rotation.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// The new key, hexadecimal; `None` draws a random one.
    pub key: Option<String>,
    /// Salt that is signed with each token and never sent; empty: none.
    pub salt: String,
    /// New name of the token's parameter; `None` keeps the name.
    pub token_name: Option<String>,
}

impl ProviderKeys {
    /// Reads the file; a missing file means no keys.
    pub fn load(files: &Files) -> Result<Self, Error> {
        let path = files.provider_keys();
        match std::fs::read(&path) {
            Ok(json) => Self::from_json(&json).map_err(|why| Error::Damaged(path, why)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Error::at(&path)(e)),
        }
    }

    /// Returns a provider's keys; `None` if it has none.
    #[must_use]
    pub fn of(&self, provider: ProviderId) -> Option<&Provider> {
        self.0.get(&provider)
    }

    /// Iterates over the providers that have a key.
    pub fn iter(&self) -> impl Iterator<Item = (ProviderId, &Provider)> {
        self.0.iter().map(|(id, provider)| (*id, provider))
    }

    fn rotate(&mut self, provider: ProviderId, key: TokenKey, token_name: Option<String>) {
        let provider = self.0.entry(provider).or_default();
        provider.keys.retain(|k| *k != key);
        provider.keys.insert(0, key);
        provider.keys.truncate(PROVIDER_KEYS_MAX);
        if let Some(name) = token_name {
            provider.token_name = name;
        }
    }

    fn save(&self, files: &Files) -> Result<(), Error> {
        let key = |k: &TokenKey| KeyText { key: HEX.encode(&k.key), salt: k.salt.clone() };
        let provider = |(id, p): (&ProviderId, &Provider)| {
            (id.0, ProviderText { token_name: p.token_name.clone(), keys: p.keys.iter().map(key).collect() })
        };
        let text = Text { format: FORMAT, providers: self.0.iter().map(provider).collect() };
        let path = files.provider_keys();
        replace_secret(&path, &serde_json::to_vec_pretty(&text).unwrap_or_default()).map_err(Error::at(&path))
    }

    fn from_json(json: &[u8]) -> Result<Self, String> {
        // the text of a serde error could quote a key
        let text: Text = serde_json::from_slice(json).map_err(|e| format!("line {} is wrong", e.line()))?;
        if text.format != FORMAT {
            return Err(format!("format {} is not known to this version", text.format));
        }
        let provider = |(id, p): (u32, ProviderText)| {
            let key = |k: KeyText| Ok(TokenKey { key: parse_key(&k.key)?, salt: k.salt });
            let keys = p.keys.into_iter().take(PROVIDER_KEYS_MAX).map(key).collect::<Result<_, String>>()?;
            Ok((ProviderId(id), Provider { token_name: p.token_name, keys }))
        };
        text.providers.into_iter().map(provider).collect::<Result<_, String>>().map(Self)
    }
}

/// Makes `new` the provider's current key and keeps the previous one valid. Returns the new key, hexadecimal.
pub fn rotate(objects: &Path, provider: ProviderId, new: &NewKey) -> Result<String, Error> {
    let wrong = |why: String| Error::ProviderKey(why);
    let key = match &new.key {
        Some(text) => parse_key(text).map_err(wrong)?,
        None => {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|e| Error::at(objects)(e.into()))?;
            key.to_vec()
        }
    };
    if new.salt.contains('~') {
        return Err(wrong("the salt must not contain \"~\", which parts a token's fields".into()));
    }
    if let Some(name) = &new.token_name {
        check_name(name).map_err(wrong)?;
    }
    let text = HEX.encode(&key);
    change(objects, |keys| {
        keys.rotate(provider, TokenKey { key, salt: new.salt.clone() }, new.token_name.clone());
        Ok(text)
    })
}

/// Removes all keys of a provider, so that no new download of its non-public objects can begin.
pub fn remove(objects: &Path, provider: ProviderId) -> Result<(), Error> {
    let missing = || Error::ProviderKey(format!("provider {provider} has no key"));
    change(objects, |keys| keys.0.remove(&provider).map(drop).ok_or_else(missing))
}

fn change<T>(objects: &Path, change: impl FnOnce(&mut ProviderKeys) -> Result<T, Error>) -> Result<T, Error> {
    let files = Files::new(objects);
    files.create()?;
    let _turn = files.lock()?;
    let mut keys = ProviderKeys::load(&files)?;
    let result = change(&mut keys)?;
    keys.save(&files)?;
    Ok(result)
}

fn parse_key(text: &str) -> Result<Vec<u8>, String> {
    let key = HEX.decode(text.trim().as_bytes()).map_err(|_| "a key is written in hexadecimal".to_owned())?;
    if KEY_LEN.contains(&key.len()) { Ok(key) } else { Err("a key has 8 to 64 bytes (16 to 128 digits)".into()) }
}

/// Checks that a name fits a query parameter, a cookie (RFC 6265 §4.1.1) and a header field (RFC 9110 §5.1) unescaped.
fn check_name(name: &str) -> Result<(), String> {
    let ok = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if ok {
        Ok(())
    } else {
        Err(format!("a token cannot be called {name:?}: use letters, digits, \"-\", \"_\", \".\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_keeps_the_key_before_and_drops_the_one_before_that() {
        let dir = tempfile::tempdir().expect("a directory");
        let give = |byte: &str, salt: &str| {
            let new = NewKey { key: Some(byte.repeat(8)), salt: salt.into(), ..NewKey::default() };
            rotate(dir.path(), ProviderId(7), &new).expect("rotates")
        };
        let (a, b, c) = (give("aa", ""), give("bb", "pepper"), give("cc", ""));
        let keys = ProviderKeys::load(&Files::new(dir.path())).expect("reads");
        let seven = keys.of(ProviderId(7)).expect("there");
        assert_eq!(seven.token_name, TOKEN_NAME);
        assert_eq!(seven.keys.iter().map(|k| HEX.encode(&k.key)).collect::<Vec<_>>(), [c, b]);
        assert_eq!(seven.keys[1].salt, "pepper");
        assert_ne!(a, HEX.encode(&seven.keys[1].key));
        let made = rotate(dir.path(), ProviderId(8), &NewKey::default()).expect("rotates");
        assert_eq!(made.len(), 64, "a key of its own");
        remove(dir.path(), ProviderId(7)).expect("removes");
        assert!(remove(dir.path(), ProviderId(7)).is_err());
        assert!(ProviderKeys::load(&Files::new(dir.path())).expect("reads").of(ProviderId(8)).is_some());
    }

    #[test]
    fn the_file_is_its_owners_alone_and_errors_quote_no_key() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        rotate(dir.path(), ProviderId(7), &NewKey::default()).expect("rotates");
        let path = Files::new(dir.path()).provider_keys();
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let secret = "s3cr3t-s3cr3t-s3cr3t";
        for json in [
            format!(r#"{{"format":1,"providers":{{"7":{{"token_name":"t","keys":"{secret}"}}}}}}"#),
            format!(r#"{{"format":1,"providers":{{"7":{{"token_name":"t","keys":[{{"key":"{secret}"}}]}}}}}}"#),
        ] {
            std::fs::write(&path, json).expect("written");
            let error = ProviderKeys::load(&Files::new(dir.path())).expect_err("damaged").to_string();
            assert!(!error.contains(secret), "{error}");
        }
    }

    #[test]
    fn invalid_keys_salts_and_names_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let refused = |new: NewKey| rotate(dir.path(), ProviderId(7), &new).is_err();
        assert!(refused(NewKey { key: Some("aa".into()), ..NewKey::default() }));
        assert!(refused(NewKey { key: Some("x".repeat(32)), ..NewKey::default() }));
        assert!(refused(NewKey { salt: "a~b".into(), ..NewKey::default() }));
        for name in ["", "a b", "a=b", "a;b"] {
            assert!(refused(NewKey { token_name: Some(name.into()), ..NewKey::default() }), "{name:?}");
        }
    }
}
