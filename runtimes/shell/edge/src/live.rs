//! The `[edge]` section of the configuration, some keys of which can change while the edge runs.

use super::config::EdgeConfig;
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The configuration of a running edge. Clones share it.
#[derive(Clone, Debug)]
pub struct LiveConfig(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    now: RwLock<Arc<EdgeConfig>>,
    rate: Arc<AtomicU64>,
    scrub_rate: Arc<AtomicU64>,
}

impl LiveConfig {
    /// Keys of `[edge]` whose changes take effect without a restart.
    pub const KEYS: &[&str] = &[
        "rate_limit",
        "scrub_rate",
        "region",
        "client_version_min",
        "client_versions_blocked",
        "cns",
        "edges",
        "stun",
    ];

    /// Creates the configuration of a starting edge from its section.
    #[must_use]
    pub fn new(cfg: &EdgeConfig) -> Self {
        let rate = Arc::new(AtomicU64::new(cfg.rate_limit.0));
        let scrub_rate = Arc::new(AtomicU64::new(cfg.scrub_rate.0));
        Self(Arc::new(Shared { now: RwLock::new(Arc::new(cfg.clone())), rate, scrub_rate }))
    }

    /// Returns the section as it is now.
    #[must_use]
    pub fn get(&self) -> Arc<EdgeConfig> {
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the present limit of bytes a second; 0: no limit.
    #[must_use]
    pub fn rate(&self) -> Arc<AtomicU64> {
        self.0.rate.clone()
    }

    /// Returns the present rate of reading stored content again, bytes a second; 0: not at all.
    #[must_use]
    pub fn scrub_rate(&self) -> Arc<AtomicU64> {
        self.0.scrub_rate.clone()
    }

    /// Applies the values of [`Self::KEYS`] in a changed section; ignores its other keys.
    pub fn take(&self, section: Value) -> Result<(), String> {
        let whole: EdgeConfig = serde_json::from_value(section).map_err(|e| e.to_string())?;
        let section = serde_json::to_value(whole).map_err(|e| e.to_string())?;
        let mut now = self.0.now.write().unwrap_or_else(PoisonError::into_inner);
        let mut merged = serde_json::to_value(&**now).map_err(|e| e.to_string())?;
        let Some(values) = merged.as_object_mut() else { return Err("the section is no table".into()) };
        for key in Self::KEYS {
            match section.get(key) {
                Some(value) => drop(values.insert((*key).to_owned(), value.clone())),
                None => drop(values.remove(*key)),
            }
        }
        let new: EdgeConfig = serde_json::from_value(merged).map_err(|e| e.to_string())?;
        self.0.rate.store(new.rate_limit.0, Ordering::Relaxed);
        self.0.scrub_rate.store(new.scrub_rate.0, Ordering::Relaxed);
        *now = Arc::new(new);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::minimal;
    use swarmedge_ground::terminal::units::Rate;

    #[test]
    fn the_keys_of_a_running_edge_are_taken_and_others_stay() {
        let live = LiveConfig::new(&minimal());
        let rate = live.rate();
        let new = EdgeConfig {
            rate_limit: Rate(7),
            scrub_rate: Rate(8),
            stun: vec!["s:1".into()],
            edges: vec!["https://e:1".into()],
            region: "r".into(),
            client_version_min: "9.0.0".into(),
            client_versions_blocked: vec!["0.0.9".into()],
            name: "another".into(),
            ..minimal()
        };
        live.take(serde_json::to_value(&new).expect("a section")).expect("taken");
        assert_eq!(*live.get(), EdgeConfig { name: minimal().name, ..new.clone() });
        assert_eq!((rate.load(Ordering::Relaxed), live.scrub_rate().load(Ordering::Relaxed)), (7, 8));
        let (old, new) = (serde_json::to_value(minimal()), serde_json::to_value(new));
        let (old, new) = (old.expect("a section"), new.expect("a section"));
        let changed = new.as_object().expect("keys").iter().filter(|(key, value)| old.get(key) != Some(value));
        assert!(changed.map(|(key, _)| key).all(|key| LiveConfig::KEYS.contains(&key.as_str()) || key == "name"));
        assert!(live.take(Value::Null).is_err());
    }
}
