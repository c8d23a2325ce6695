//! Notices to the fleet ([`crate::notice`]): this CN asks edges for new ones every few seconds, sends them to the
//! clients that hold their subjects, and itself obeys those about versions.

use super::{Common, Context, Metric, Output, Timer};
use crate::content::Policy;
use crate::ids::{ConnId, VersionId};
use crate::machine::Machine as _;
use crate::notice::{Server, server};
use crate::wire::control::NoticeList;
use crate::wire::notice::{SignedNotice, Terms};
use alloc::vec::Vec;
use core::time::Duration;

/// Notices to the fleet, as this CN knows and obeys them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Notices {
    /// Newest notices of operator and providers, and who has yet to acknowledge which.
    server: Server,
}

impl Notices {
    /// Takes notices that an edge has published.
    pub(super) fn on_published(&mut self, cx: &mut Context<'_>, common: &mut Common, notices: Vec<SignedNotice>) {
        let now_ms = common.now_ms(cx.now);
        self.tell(cx, common, server::Input::Published { now_ms, notices });
    }

    /// Takes a client's report of the notices that it has.
    pub(super) fn on_held(&mut self, cx: &mut Context<'_>, common: &mut Common, conn: ConnId, list: NoticeList) {
        self.tell(cx, common, server::Input::Held { conn, held: list.notices.into_vec() });
    }

    pub(super) fn tell(&mut self, cx: &mut Context<'_>, common: &mut Common, input: server::Input) {
        self.run(cx, common, |server, cx| server.handle_input(cx, input));
    }

    /// Sends again the notices that were not acknowledged.
    pub(super) fn on_timer(&mut self, cx: &mut Context<'_>, common: &mut Common) {
        self.run(cx, common, |server, cx| server.handle_timeout(cx));
    }

    /// Runs the server of notices by `run`, and performs its outputs.
    fn run(
        &mut self,
        cx: &mut Context<'_>,
        common: &mut Common,
        run: impl FnOnce(&mut Server, &mut crate::machine::Cx<'_, Server>),
    ) {
        let cfg = server::Config { retry: cx.cfg.notice_retry, ..server::Config::new(cx.cfg.trust()) };
        let server = &mut self.server;
        for output in cx.child(&cfg, |cx| run(server, cx)) {
            cx.push(match output {
                server::Output::Send { conn, msg } => Output::ClientSend { conn, msg },
                server::Output::Learned(_) => Output::Count(Metric::NoticeLearned),
                server::Output::Refused(_) => Output::Count(Metric::NoticeRefused),
            });
        }
        common.timers.set(Timer::Notices, self.server.poll_timeout());
    }

    /// Returns the serial number of the newest notice about a version, and the version's terms in it.
    pub(super) fn newest_terms(&self, version: VersionId) -> Option<(u64, Terms)> {
        self.server.newest_terms(version)
    }

    /// Returns whether a version is withdrawn and may not be shared.
    pub(super) fn is_withdrawn(&self, version: VersionId) -> bool {
        self.server.terms(version) == Some(Terms::Withdrawn)
    }

    /// Returns whether the newest notice about a version, if there is one, lets clients download it from peers.
    pub(super) fn may_have_peers(&self, version: VersionId) -> bool {
        match self.server.terms(version) {
            None => true,
            Some(Terms::Withdrawn) => false,
            Some(Terms::Policy(Policy { peer_download, .. })) => peer_download,
        }
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        self.server.rebase(by);
    }

    /// Asserts that notices without acknowledgement are sent again.
    pub(super) fn check(&self, common: &Common) {
        self.server.check();
        let repeats = common.timers.get(Timer::Notices) == self.server.poll_timeout();
        assert!(repeats, "notices are sent again in time");
    }
}
