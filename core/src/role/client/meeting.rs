//! Connection attempts between introduced peers: passes events of the session, the QUIC socket and the links to the
//! connectivity machine, and performs its outputs.

use super::common::Timer;
use super::io::{Meeting, Notice, Output, PeerOutput};
use super::links::End;
use super::{Client, Context};
use crate::Cx;
use crate::Machine;
use crate::ids::IntroId;
use crate::nat::connectivity::{self, Attempt, Connectivity, Failure, Offer, Role, Rung, Ticket};
use crate::session::client as session;
use crate::wire::control::Introduce;
use alloc::vec::Vec;

/// Returns the outcome of an attempt in which the peer was dialled directly, without connectivity checks.
pub(super) const fn direct(connected: bool) -> Attempt {
    let failure = if connected { None } else { Some(Failure::NoHandshake) };
    Attempt { failure, rung: Rung::Direct, probes: 0, took_ms: 0 }
}

impl Client {
    /// Returns the connectivity machine.
    #[must_use]
    pub const fn connectivity(&self) -> &Connectivity {
        &self.connectivity
    }

    pub(super) fn tell_connectivity(&mut self, cx: &mut Context<'_>, input: connectivity::Input) {
        self.run_connectivity(cx, |c, cx| c.handle_input(cx, input));
    }

    /// Runs the connectivity machine by `f`, and performs its outputs.
    pub(super) fn run_connectivity(
        &mut self,
        cx: &mut Context<'_>,
        f: impl FnOnce(&mut Connectivity, &mut Cx<'_, Connectivity>),
    ) {
        let cfg = &cx.cfg.connectivity;
        for output in self.common.run_child(cx, cfg, Timer::Connectivity, &mut self.connectivity, f) {
            self.on_connectivity_output(cx, output);
        }
    }

    fn on_connectivity_output(&mut self, cx: &mut Context<'_>, output: connectivity::Output) {
        match output {
            connectivity::Output::Send { to, bytes, ttl } => {
                cx.push(Output::Peer(PeerOutput::Probe { to, bytes, ttl }))
            }
            connectivity::Output::Scatter(scatter) => cx.push(Output::Peer(PeerOutput::Scatter(scatter))),
            connectivity::Output::Opened(intro) => self.tell_session(cx, session::Input::NatOpened(intro)),
            connectivity::Output::RawTcp(command) => cx.push(Output::Peer(PeerOutput::RawTcp(command))),
            connectivity::Output::Path { intro, addr, along } => {
                self.links.dial_along(&mut self.common, cx, intro, addr, along);
            }
            connectivity::Output::Moved(nat) => self.tell_session(cx, session::Input::Network(nat)),
            connectivity::Output::Ended { intro, attempt } => {
                let failure = attempt.failure;
                self.attempt_ended(cx, intro, attempt);
                if let Some(conn) = self.links.of_intro(intro).filter(|_| failure.is_some()) {
                    self.end_link(cx, conn, End::NoPath);
                }
            }
        }
    }

    /// Reports the outcome of a connection attempt to the user and, through the session, to the CN.
    pub(super) fn attempt_ended(&mut self, cx: &mut Context<'_>, intro: IntroId, attempt: Attempt) {
        cx.push(Output::Notice(Notice::Meeting(intro, Meeting::Ended(attempt.clone()))));
        self.tell_session(cx, session::Input::Outcome { intro, attempt });
    }

    /// Starts connectivity checks for an introduction, as downloader or uploader.
    pub(super) fn meet(
        &mut self,
        cx: &mut Context<'_>,
        (intro, role): (IntroId, Role),
        ticket: Ticket,
        nat: crate::nat::NatDescriptor,
    ) {
        if let Some(observed) = self.session.observed() {
            self.tell_connectivity(cx, connectivity::Input::Observed(observed));
        }
        self.tell_connectivity(cx, connectivity::Input::Offer(Offer { intro, role, ticket, nat }));
    }

    /// Prepares for a downloader that will connect to this client: by connectivity checks if the CN gave a ticket,
    /// else by datagrams that open the NAT.
    pub(super) fn expect_peer(&mut self, cx: &mut Context<'_>, introduce: Introduce) {
        let Introduce { intro, nat, ticket } = introduce;
        if let Some(ticket) = ticket {
            return self.meet(cx, (intro.intro.id, Role::Uploader), ticket, nat);
        }
        let addrs: Vec<_> = nat.candidates.iter().map(|c| c.addr).collect();
        if !addrs.is_empty() {
            cx.push(Output::Peer(PeerOutput::Expect { addrs }));
        }
    }
}
