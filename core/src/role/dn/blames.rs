//! Blames of copies, as CNs report them: see [`crate::selection::blames`] for their consequences.

use super::{Dn, Metric, Output, Timer};
use crate::machine::{Cx, Time};
use crate::selection::PeerKey;
use crate::selection::blames::{Accuser, Blames, CopyId};
use crate::wire::directory::{BlamedCopy, DoubtedCopy, FromDn, ProvenCopy};
use alloc::vec::Vec;

impl Dn {
    /// Returns the votes about copies, for checks and reports.
    #[must_use]
    pub const fn blames(&self) -> &Blames {
        &self.blames
    }

    /// Counts a client's blame of a copy, and has the holder check it.
    pub(super) fn on_blame(&mut self, cx: &mut Cx<'_, Self>, link: u64, blamed: &BlamedCopy) {
        let BlamedCopy { session, holder, version } = *blamed;
        let Some(by) = self.directory.get(PeerKey { link, session }) else { return };
        let by = Accuser::new(by.guid, by.observed.ip(), &by.locality);
        let copy = CopyId { holder, version };
        let verdict = self.blames.accuse(&cx.cfg.blames, cx.now, copy, by);
        cx.push(Output::Count(if verdict.counts { Metric::Blamed } else { Metric::BlameIgnored }));
        if verdict.tell_holder {
            self.tell_holder(cx, copy);
        }
        self.apply_standings(cx, verdict.touched);
    }

    fn tell_holder(&self, cx: &mut Cx<'_, Self>, copy: CopyId) {
        let Some(PeerKey { link, session }) = self.directory.newest(copy.holder) else { return };
        if let Some(conn) = self.by_link.get(&link) {
            let doubted = DoubtedCopy { session, version: copy.version };
            cx.push(Output::CnSend { conn: *conn, msg: FromDn::CheckCopy(doubted) });
        }
    }

    /// Ends the suspension of a copy, since its holder has proven that it has the right bytes.
    pub(super) fn on_proven(&mut self, cx: &mut Cx<'_, Self>, proven: ProvenCopy) {
        let copy = CopyId { holder: proven.holder, version: proven.version };
        if self.blames.on_proof(copy) {
            cx.push(Output::Count(Metric::Cleared));
            self.apply_standings(cx, alloc::vec![copy]);
        }
    }

    /// Handles the time at which votes expire or suspensions end.
    pub(super) fn on_blames_timer(&mut self, cx: &mut Cx<'_, Self>) {
        let touched = self.blames.expire(cx.now);
        self.apply_standings(cx, touched);
    }

    fn apply_standings(&mut self, cx: &mut Cx<'_, Self>, touched: Vec<CopyId>) {
        for copy in touched {
            let standing = self.blames.standing(&cx.cfg.blames, copy);
            let news = self.directory.set_standing(copy, standing);
            if news == Some(true) {
                cx.push(Output::Count(Metric::Unlisted));
            }
        }
        self.timers.set(Timer::Blames, self.blames.poll_timeout());
    }

    /// Asserts that the directory knows the consequences of the votes, and that votes expire.
    pub(super) fn check_blames(&self) {
        self.blames.check();
        let next: Option<Time> = self.blames.poll_timeout();
        assert!(self.timers.get(Timer::Blames) == next, "votes expire in time");
        let is_blamed = |copy: CopyId| self.blames.copies().any(|of| of == copy);
        assert!(self.directory.standings().all(|(copy, _)| is_blamed(copy)), "only a blamed copy has a standing");
    }
}
