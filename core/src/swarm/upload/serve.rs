//! Requests for blocks: the decision to serve, delay or refuse each, and the accounting of its bytes.

use super::io::Output;
use super::{Active, Conn, Context, Spending, Uploads};
use crate::ids::{ConnId, XferId};
use crate::limits::BLOCK_LEN;
use crate::swarm::outcome::CloseReason;
use crate::wire::peer::{PieceRequest, RefuseCode};
use crate::wire::records::Introduction;

/// Returns the output that reports bytes sent over an introduction. `last`: its connection has ended.
pub(super) const fn sent(intro: &Introduction, bytes: u64, last: bool) -> Output {
    Output::Sent {
        download: intro.download,
        version: intro.version,
        intro: intro.id,
        key: intro.downloader_key,
        bytes,
        last,
    }
}

impl Uploads {
    pub(super) fn on_request(&mut self, cx: &mut Context<'_>, conn: ConnId, xfer: XferId, request: &PieceRequest) {
        match self.decide(cx, conn, request) {
            Ok((bytes, intro)) if !self.must_wait(cx, conn, &intro, bytes) => {
                self.serve(cx, xfer, request, Active { conn, intro, bytes, stopping: false });
            }
            Ok(_) => {
                if let Some(Conn::Serving { held, .. }) = self.conns.get_mut(&conn) {
                    held.push_back((xfer, request.clone()));
                }
                self.await_receipt(cx, conn);
            }
            Err(why) => {
                cx.push(Output::Refuse { xfer, why });
                self.on_refused(cx, conn, request);
                if matches!(self.conns.get(&conn), Some(Conn::Waiting { .. })) {
                    self.close(cx, conn, CloseReason::Violation);
                }
            }
        }
    }

    /// Returns whether a request must wait for a receipt: too many bytes would be sent without receipt, or another
    /// request waits already.
    fn must_wait(&self, cx: &Context<'_>, conn: ConnId, intro: &Introduction, bytes: u64) -> bool {
        let waits = matches!(self.conns.get(&conn), Some(Conn::Serving { held, .. }) if !held.is_empty());
        waits || !self.accounts.get(&intro.id).is_some_and(|s| s.account.covers(&cx.cfg.credit, bytes))
    }

    /// Sets the deadline for the next receipt; the connection is closed if none arrives by then.
    fn await_receipt(&mut self, cx: &Context<'_>, conn: ConnId) {
        if self.receipt_due.get(conn).is_none() {
            self.receipt_due.set(conn, Some(cx.now.after(cx.cfg.receipt_within)));
        }
    }

    /// Serves requests that waited for a receipt, in order, as long as few enough bytes are without receipt.
    pub(super) fn serve_held(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        while let Some(Conn::Serving { held, .. }) = self.conns.get_mut(&conn) {
            let Some((xfer, request)) = held.pop_front() else { return self.receipt_due.clear(conn) };
            match self.decide(cx, conn, &request) {
                Err(why) => {
                    cx.push(Output::Refuse { xfer, why });
                    self.on_refused(cx, conn, &request);
                }
                Ok((bytes, intro)) => {
                    let covered = self.accounts.get(&intro.id).is_some_and(|s| s.account.covers(&cx.cfg.credit, bytes));
                    if !covered {
                        if let Some(Conn::Serving { held, .. }) = self.conns.get_mut(&conn) {
                            held.push_front((xfer, request));
                        }
                        return self.await_receipt(cx, conn);
                    }
                    self.serve(cx, xfer, &request, Active { conn, intro, bytes, stopping: false });
                }
            }
        }
    }

    /// Decides whether a request is allowed; returns its size in bytes and its introduction.
    fn decide(&self, cx: &Context<'_>, conn: ConnId, r: &PieceRequest) -> Result<(u64, Introduction), RefuseCode> {
        let Some(Conn::Serving { intro, active, held }) = self.conns.get(&conn) else {
            return Err(RefuseCode::NotAllowed);
        };
        let now_ms = self.wall.map_or(u64::MAX, |wall| wall.at(cx.now));
        if !self.allowed || now_ms >= intro.serve_until_ms {
            return Err(RefuseCode::NotAllowed);
        }
        let share = self.shares.get(&intro.version).ok_or(RefuseCode::NotHere)?;
        let end = u32::from(r.first_block) + u32::from(r.blocks);
        if !share.have.contains(r.piece) || r.blocks == 0 || end > share.layout.blocks(r.piece) {
            return Err(RefuseCode::NotHere);
        }
        if usize::from(*active) + held.len() >= usize::from(cx.cfg.requests_max) {
            return Err(RefuseCode::TooMany);
        }
        if share.policy.has_expired(now_ms) {
            return Err(RefuseCode::NotAllowed);
        }
        let range = share.layout.block_range(r.piece, u32::from(r.first_block)..end);
        let bytes = range.end - range.start;
        let spent = self.accounts.get(&intro.id).map_or(0, |s| s.account.spent);
        if spent.saturating_add(bytes) > intro.cap_bytes || share.spent.saturating_add(bytes) > share.cap() {
            return Err(RefuseCode::NotAllowed);
        }
        Ok((bytes, intro.clone()))
    }

    /// Notes that a version's limit of uploads is used up, if the request was refused for exceeding that limit.
    fn on_refused(&mut self, cx: &mut Context<'_>, conn: ConnId, r: &PieceRequest) {
        let Some(Conn::Serving { intro, .. }) = self.conns.get(&conn) else { return };
        let version = intro.version;
        let Some(share) = self.shares.get_mut(&version) else { return };
        let bytes = u64::from(r.blocks).saturating_mul(u64::from(BLOCK_LEN));
        if share.spent.saturating_add(bytes) > share.cap() && !core::mem::replace(&mut share.used_up, true) {
            cx.push(Output::UsedUp { version });
        }
    }

    fn serve(&mut self, cx: &mut Context<'_>, xfer: XferId, r: &PieceRequest, served: Active) {
        let Active { conn, bytes, .. } = served;
        let Introduction { id, version, .. } = served.intro;
        let mut rate_max = cx.cfg.rate_max;
        if let Some(share) = self.shares.get_mut(&version) {
            let over = share.spend(bytes);
            if share.policy.uploads_max > 0 {
                cx.push(Output::Spent { version, bytes: share.spent });
            }
            if over && !core::mem::replace(&mut share.used_up, true) {
                cx.push(Output::UsedUp { version });
            }
            rate_max = match (rate_max, share.policy.upload_rate_max) {
                (0, only) | (only, 0) => only,
                (a, b) => a.min(b),
            };
        }
        if let Some(Spending { account, .. }) = self.accounts.get_mut(&id) {
            account.spent = account.spent.saturating_add(bytes);
            account.promised = account.promised.saturating_add(bytes);
        }
        if let Some(Conn::Serving { active, .. }) = self.conns.get_mut(&conn) {
            *active += 1;
        }
        let first = u32::from(r.first_block);
        cx.push(Output::Serve {
            xfer,
            version,
            piece: r.piece,
            blocks: first..first + u32::from(r.blocks),
            leaves: r.want_leaves,
            rate_max,
        });
        self.active.insert(xfer, served);
    }

    /// Orders the shell to stop serving a request, whose end it still reports by `Served`.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>, xfer: XferId) {
        let Some(active) = self.active.get_mut(&xfer) else { return };
        if !active.stopping {
            active.stopping = true;
            cx.push(Output::Refuse { xfer, why: RefuseCode::NotAllowed });
        }
    }

    /// Handles the end of a request: bytes promised and not sent no longer count against the upload limits and the
    /// bytes without receipt.
    pub(super) fn on_served(&mut self, cx: &mut Context<'_>, xfer: XferId, bytes: u64) {
        let Some(Active { conn, intro, bytes: promised, .. }) = self.active.remove(&xfer) else { return };
        let bytes = bytes.min(promised);
        let unsent = promised - bytes;
        if let Some(share) = self.shares.get_mut(&intro.version).filter(|_| unsent > 0) {
            share.spent = share.spent.saturating_sub(unsent);
            if share.policy.uploads_max > 0 {
                cx.push(Output::Spent { version: intro.version, bytes: share.spent });
            }
        }
        if let Some(Spending { account, .. }) = self.accounts.get_mut(&intro.id) {
            account.spent = account.spent.saturating_sub(unsent);
        }
        if let Some(Conn::Serving { active, .. }) = self.conns.get_mut(&conn) {
            debug_assert!(*active > 0, "a request that ends was counted");
            *active = active.saturating_sub(1);
        }
        if unsent > 0 {
            self.serve_held(cx, conn);
        }
        let last = !self.conns.contains_key(&conn) && !self.active.values().any(|a| a.conn == conn);
        if bytes > 0 || last {
            cx.push(sent(&intro, bytes, last));
        }
        if last {
            self.report_end(cx, intro.id);
        }
    }
}
