//! Links to other servers, as metrics and `/healthz` show them.

use crate::health::{Cause, Health};
use std::time::Duration;

/// Time without a connection before it is reported: servers start one after another, and links are dialled again.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The link of a server to another one. A link that is down is only a warning, since its data is kept until it is up.
#[derive(Debug)]
pub struct WatchedLink {
    health: Health,
    server: &'static str,
    to: String,
    part: String,
    /// Whether the link was up at the last call of [`Self::note`]; `None` before.
    up: Option<bool>,
}

impl WatchedLink {
    /// Creates the watch of a link from `server` to the server that `to` names.
    #[must_use]
    pub fn new(health: &Health, server: &'static str, to: impl Into<String>) -> Self {
        let to = to.into();
        let part = format!("{server}'s link to {to}");
        Self { health: health.clone(), server, to, part, up: None }
    }

    /// Notes whether the link is up now.
    pub fn note(&mut self, up: bool) {
        if self.up.replace(up) == Some(up) {
            return;
        }
        let gauge = metrics::gauge!("swarmedge_link_up", "server" => self.server, "to" => self.to.clone());
        gauge.set(f64::from(u8::from(up)));
        if up {
            return self.health.clear(&self.part);
        }
        let why = "there is no connection (see to that server, and to the way there; what is for it is kept)";
        self.health.warn_after(PATIENCE, &self.part, Cause::LinkDown, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::View;

    #[test]
    fn a_link_is_told_when_it_has_been_down_for_a_while_and_not_when_it_is_up() {
        let health = Health::default();
        let mut link = WatchedLink::new(&health, "edge", "the ledger");
        link.note(false);
        assert_eq!(health.told(View::Operator), [], "not at once");
        health.warn("edge's link to the ledger", Cause::LinkDown, "");
        assert_eq!(health.told(View::Operator)[0].part, "edge's link to the ledger");
        link.note(false);
        link.note(true);
        assert_eq!((health.told(View::Operator), health.has(Cause::LinkDown)), (Vec::new(), false));
    }
}
