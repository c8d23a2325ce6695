//! Readiness: what keeps a process from doing all of its work, in plain sentences, as `/healthz` says it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Reasons why a process is not ready, by the part that has one. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, String>>>);

impl Health {
    /// Says why `part` cannot work and what to do, in one plain sentence. The last reason of a part counts.
    pub fn set(&self, part: &str, why: impl Into<String>) {
        // a reason takes one line, whatever an error's text contains
        let why = why.into().replace(char::is_control, " ");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part.to_owned(), why);
    }

    /// Says that `part` works.
    pub fn clear(&self, part: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// Every part that cannot work, and why: `part: why`, in the order of the parts.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.iter().map(|(part, why)| format!("{part}: {why}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_part_has_cleared_its_reason() {
        let health = Health::default();
        let part = health.clone();
        part.set("b", "the disk is full");
        part.set("a", "two\nlines");
        part.set("b", "the disk is broken");
        assert_eq!(health.reasons(), ["a: two lines", "b: the disk is broken"]);
        part.clear("a");
        part.clear("c");
        assert_eq!(health.reasons(), ["b: the disk is broken"]);
        part.clear("b");
        assert_eq!(health.reasons(), [""; 0]);
    }
}
