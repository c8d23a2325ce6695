//! Does what the client machine's outputs say: each goes to the room that performs it.

use super::desk::Desk;
use crate::drive::Port;
use crate::edge_client::EdgeClient;
use crate::link::{self, Cap, Event, Inlet};
use crate::mailbox::Sender;
use crate::peers::Peers;
use crate::rt::Rt;
use crate::store::Store;
use std::collections::VecDeque;
use std::sync::Arc;
use swarmedge_core::ids::{ConnId, ReqId};
use swarmedge_core::role::client::Client;
use swarmedge_core::role::client::io::{Input, Notice, Output, Save, StoreError};
use swarmedge_core::wire::control::ControlMsg;

/// See the module.
pub(super) struct ClientPort<R: Rt> {
    pub(super) rt: R,
    pub(super) desk: Desk,
    pub(super) store: Store,
    pub(super) edges: EdgeClient<R>,
    pub(super) peers: Peers<R>,
    pub(super) control: Inlet<ControlMsg, Input>,
    /// Proves the GUID to a CN.
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) inbox: Sender<Input>,
}

/// An event of a control connection as the machine's input.
pub(super) fn control_input(conn: ConnId, event: Event<ControlMsg>) -> Option<Input> {
    Some(match event {
        Event::Opened(_) => Input::ControlOpened { conn },
        Event::Message(msg) => Input::Control { conn, msg },
        Event::Closed => Input::ControlClosed { conn },
    })
}

impl<R: Rt> Port<Client> for ClientPort<R> {
    fn perform(&mut self, output: Output, local: &mut VecDeque<Input>) {
        let Some(output) = self.peers.perform(output, local) else { return };
        let Some(output) = self.edges.perform(output, local) else { return };
        match output {
            Output::ControlDial { conn, cn } => self.dial(conn, cn, local),
            Output::ControlSend { conn, msg } => self.control.links.send(conn, &msg),
            Output::ControlClose { conn } => self.control.links.close(conn),
            Output::Save { req, what } => self.save(req, what, local),
            Output::Notice(notice) => {
                log(&notice);
                self.desk.notice(notice);
            }
            other @ (Output::EdgeAsk { .. }
            | Output::PeerDial { .. }
            | Output::PeerExpect { .. }
            | Output::PeerSend { .. }
            | Output::PeerClose { .. }
            | Output::Fetch { .. }
            | Output::CancelFetch { .. }
            | Output::Serve { .. }
            | Output::Refuse { .. }) => unreachable!("performed by peers or edges: {other:?}"),
        }
    }

    fn is_over(&self) -> bool {
        self.desk.is_over()
    }
}

impl<R: Rt> ClientPort<R> {
    fn dial(&self, conn: ConnId, cn: u32, local: &mut VecDeque<Input>) {
        let server = self.edges.directory().cns.get(cn as usize).cloned();
        match server {
            Some(server) => {
                link::dial(&self.rt, Arc::clone(&self.tls), &server, conn, &self.control, Cap::CLIENT);
            }
            None => local.push_back(Input::ControlClosed { conn }),
        }
    }

    fn save(&self, req: ReqId, what: Save, local: &mut VecDeque<Input>) {
        self.desk.saving(&what);
        match self.inbox.reserve() {
            Ok(permit) => self.store.save(what, move |result| permit.send(Input::Saved { req, result })),
            Err(_) => local.push_back(Input::Saved { req, result: Err(StoreError::Io) }),
        }
    }
}

fn log(notice: &Notice) {
    match notice {
        Notice::Done { req, result } => tracing::debug!(%req, ?result, "command done"),
        Notice::Download(status) => {
            let handle = status.handle;
            tracing::debug!(%handle, state = ?status.state, status.edge_bytes, status.peer_bytes, status.peers, "download");
        }
        Notice::SourceDropped { handle, source, why } => tracing::info!(%handle, ?source, ?why, "source dropped"),
        Notice::Session { connected } => tracing::info!(connected, "control session"),
    }
}
