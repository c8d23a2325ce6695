//! The port of the client machine: passes each output to the part of the client that performs it (store, edges,
//! peers, control connection).

use super::api_state::ApiState;
use super::identity::{Identity, adopt_key};
use crate::edge_client::EdgeClient;
use crate::peers::Peers;
use crate::store::Store;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use swarmedge_core::ids::{ConnId, DownloadId, Handle, ReqId, VersionId};
use swarmedge_core::role::client::Client;
use swarmedge_core::role::client::io::{
    ControlOutput, DownloadState, Input, KeyOutput, Notice, Output, Save, StoreError,
};
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::control::{ToClient, ToCn};
use swarmedge_core::wire::records::{Receipt, SigningContext};
use swarmedge_ground::drive::Port;
use swarmedge_ground::keys::Key;
use swarmedge_ground::link::{self, Event, Inlet};
use swarmedge_ground::mailbox::Sender;
use swarmedge_ground::reach::Way;
use swarmedge_ground::rt::Rt;

/// Names of the metrics: verified bytes from edges, verified bytes from peers, and bytes received and discarded.
const METRICS: [&str; 3] =
    ["swarmedge_client_edge_bytes_total", "swarmedge_client_peer_bytes_total", "swarmedge_client_wasted_bytes_total"];

/// Maximum number of download keys (K_d, one key pair per download, named in its grant) held in memory.
const KEYS_MAX: usize = 256;

/// The port of the client machine.
pub(super) struct ClientPort<R: Rt> {
    pub(super) rt: R,
    pub(super) api_state: ApiState,
    pub(super) store: Store,
    pub(super) edges: EdgeClient<R>,
    pub(super) peers: Peers<R>,
    pub(super) control: Inlet<ToCn, ToClient, Input>,
    /// The installation's key: it signs the heads of its log of usage records, and the change to another key.
    pub(super) identity: Identity,
    /// The state directory, which holds the keys.
    pub(super) state: PathBuf,
    /// Route to CNs: the certificates that are trusted, the proxy, and the client's key, which proves its GUID.
    pub(super) way: Way,
    pub(super) inbox: Sender<Input>,
    /// Sender that triggers a new observation of the network (addresses, NAT).
    pub(super) looks: Sender<()>,
    /// Byte counts of each download that the metrics include already, in the order of [`METRICS`].
    pub(super) counted: BTreeMap<Handle, [u64; 3]>,
    /// Keys K_d of downloads, which sign receipts; never more than [`KEYS_MAX`].
    pub(super) keys: Rc<RefCell<BTreeMap<DownloadId, Key>>>,
}

/// Converts an event of a control connection to an input of the machine.
pub(super) fn control_input(conn: ConnId, event: Event<ToClient>) -> Option<Input> {
    Some(match event {
        Event::Opened(_) => Input::ControlOpened { conn },
        Event::Message(msg) => Input::Control { conn, msg },
        Event::Closed => Input::ControlClosed { conn },
    })
}

impl<R: Rt> Port<Client> for ClientPort<R> {
    fn perform(&mut self, output: Output, local: &mut VecDeque<Input>) {
        match output {
            Output::Peer(output) => self.peers.perform(output, local),
            Output::Edge(output) => self.edges.perform(output, local),
            Output::Control(output) => self.perform_control(output, local),
            Output::Key(output) => self.perform_key(output, local),
            Output::Save { req, what } => self.save(req, what, local),
            Output::ProbeNetwork => {
                // a request that is queued already serves as well
                let _ = self.looks.try_send(());
            }
            Output::CheckCopy { version } => self.check_copy(version, local),
            Output::Notice(notice) => {
                log(&notice);
                if notice == Notice::Outdated {
                    self.say_outdated();
                }
                self.count(&notice);
                let explained = explained(&notice);
                self.api_state.notice(notice);
                self.keep_why(explained);
            }
        }
    }

    fn observe(&mut self, client: &Client) {
        let gauge =
            |name: &'static str, n: usize| metrics::gauge!(name).set(f64::from(u32::try_from(n).unwrap_or(u32::MAX)));
        gauge("swarmedge_client_peers", self.peers.connected());
        let running = client.downloads().filter(|(_, state)| *state == DownloadState::Running).count();
        gauge("swarmedge_client_downloads_running", running);
    }

    fn is_over(&self) -> bool {
        self.api_state.is_over()
    }
}

impl<R: Rt> ClientPort<R> {
    /// Performs an output for the connection to a CN.
    fn perform_control(&self, output: ControlOutput, local: &mut VecDeque<Input>) {
        match output {
            ControlOutput::Dial { conn, cn } => self.dial(conn, cn, local),
            ControlOutput::Send { conn, msg } => self.control.links.send(conn, &msg),
            ControlOutput::Close { conn } => self.control.links.close(conn),
        }
    }

    /// Performs an output that needs the client's keys.
    fn perform_key(&self, output: KeyOutput, local: &mut VecDeque<Input>) {
        match output {
            KeyOutput::SignReceipt { req, receipt } => self.sign(req, &receipt, local),
            KeyOutput::SignHead { req, head } => {
                let signature = self.identity.key.sign(SigningContext::LogHead, &head.to_bytes());
                local.push_back(Input::HeadSigned { req, signature });
            }
            KeyOutput::Make { req } => {
                let made = self.identity.make_key(&self.state);
                if let Err(error) = &made {
                    tracing::warn!(%error, "no new key can be made");
                }
                local.push_back(Input::KeyMade { req, made: made.ok().map(Box::new) });
            }
            KeyOutput::Adopt => {
                tracing::info!("another copy of this client runs: this one goes on under a key of its own");
                // if it fails, the next start tries again with the old key
                if let Err(error) = adopt_key(&self.state) {
                    tracing::warn!(%error, "the new key cannot take the old one's place");
                }
                self.api_state.begin_anew();
            }
        }
    }

    /// Says once, in the log and from then on in `status` and `why`, that the CNs refuse this version of the client.
    fn say_outdated(&self) {
        let least = self.edges.directory().client_version_min.clone();
        let least = if least.is_empty() { String::new() } else { format!(" (they want {least})") };
        let own = env!("CARGO_PKG_VERSION");
        let why = format!(
            "the operator's connection nodes refuse this version {own} of the client{least}: the edge alone delivers, and \
             nothing is uploaded; update the client"
        );
        if self.api_state.outdated(why.clone()) {
            tracing::warn!("{why}");
        }
    }

    fn dial(&self, conn: ConnId, cn: u32, local: &mut VecDeque<Input>) {
        let server = self.edges.directory().cns.get(cn as usize).cloned();
        match server {
            Some(server) => {
                link::dial(&self.rt, self.way.clone(), &server, conn, &self.control);
            }
            None => local.push_back(Input::ControlClosed { conn }),
        }
    }

    /// Adds a download's new bytes to the metrics, by source.
    fn count(&mut self, notice: &Notice) {
        let Notice::Download(status) = notice else { return };
        let now = [status.edge_bytes, status.peer_bytes, status.wasted_bytes];
        // the first figures contain the bytes of earlier starts, which are not counted again
        let Some(before) = self.counted.insert(status.handle, now) else { return };
        for ((name, now), before) in METRICS.into_iter().zip(now).zip(before) {
            metrics::counter!(name).increment(now.saturating_sub(before));
        }
    }

    /// Signs a receipt with the download's key, read from the store at first use and then cached.
    fn sign(&self, req: ReqId, receipt: &Receipt, local: &mut VecDeque<Input>) {
        let message = receipt.to_bytes();
        if let Some(key) = self.keys.borrow().get(&receipt.download) {
            let signature = Some(key.sign(SigningContext::Receipt, &message));
            return local.push_back(Input::Signed { req, signature });
        }
        let Ok(permit) = self.inbox.reserve() else {
            return local.push_back(Input::Signed { req, signature: None });
        };
        let (rt, store, keys) = (self.rt.clone(), self.store.clone(), Rc::clone(&self.keys));
        let download = receipt.download;
        self.rt.spawn(async move {
            let key = rt.blocking(move || store.key(download)).await.ok().flatten();
            let signature = key.as_ref().map(|key| key.sign(SigningContext::Receipt, &message));
            if let Some(key) = key {
                let mut keys = keys.borrow_mut();
                if keys.len() >= KEYS_MAX {
                    keys.clear();
                }
                keys.insert(download, key);
            }
            permit.send(Input::Signed { req, signature });
        });
    }

    /// Gives the store the text that explains a download's peers after its end; the next saved record makes it durable.
    fn keep_why(&self, handle: Option<Handle>) {
        if let Some((handle, why)) = handle.and_then(|handle| Some((handle, self.api_state.why_to_keep(handle)?))) {
            self.store.put_why(handle, why);
        }
    }

    fn check_copy(&self, version: VersionId, local: &mut VecDeque<Input>) {
        tracing::info!(%version, "peers say that blocks of this copy are wrong: it is hashed again");
        let checked = move |is_right: bool| {
            if !is_right {
                tracing::warn!(%version, "a copy that peers have blamed is damaged or cannot be read");
            }
            Input::CopyChecked { version, is_right }
        };
        match self.inbox.reserve() {
            Ok(permit) => self.store.check_copy(version, move |is_right| permit.send(checked(is_right))),
            Err(_) => local.push_back(checked(false)),
        }
    }

    fn save(&self, req: ReqId, what: Save, local: &mut VecDeque<Input>) {
        self.api_state.saving(&what);
        let (api_state, usage) =
            (self.api_state.clone(), if let Save::Usage(record) = &what { Some(record.id) } else { None });
        let saved = move |result: Result<(), StoreError>| {
            if let Some(id) = usage.filter(|_| result.is_err()) {
                api_state.usage_not_saved(id);
            }
            Input::Saved { req, result }
        };
        match self.inbox.reserve() {
            Ok(permit) => self.store.save(what, move |result| permit.send(saved(result))),
            Err(_) => local.push_back(saved(Err(StoreError::Io))),
        }
    }
}

/// Returns the download whose explanation is to be stored after a notice.
const fn explained(notice: &Notice) -> Option<Handle> {
    match notice {
        Notice::Download(status) => match status.state {
            DownloadState::Completed | DownloadState::Failed(_) | DownloadState::Paused => Some(status.handle),
            DownloadState::Starting | DownloadState::Running => None,
        },
        Notice::NoPeers { handle, .. } => Some(*handle),
        Notice::Done { .. } | Notice::SourceDropped { .. } | Notice::Meeting(..) => None,
        Notice::Session { .. } | Notice::Outdated | Notice::TicketsRefused(_) => None,
    }
}

/// Logs a notice of the machine.
fn log(notice: &Notice) {
    match notice {
        Notice::Done { req, result } => tracing::debug!(%req, ?result, "command done"),
        Notice::Download(status) => {
            let handle = status.handle;
            tracing::debug!(%handle, state = ?status.state, status.edge_bytes, status.peer_bytes, status.peers, "download");
        }
        Notice::SourceDropped { handle, source, why } => tracing::info!(%handle, ?source, ?why, "source dropped"),
        Notice::Meeting(intro, meeting) => tracing::debug!(%intro, ?meeting, "introduction"),
        Notice::NoPeers { handle, why } => tracing::debug!(%handle, ?why, "no peers"),
        Notice::Session { connected } => tracing::info!(connected, "control session"),
        Notice::TicketsRefused(versions) => {
            let copies = versions.len();
            tracing::warn!(
                copies,
                "the control plane refuses the holder's tickets of copies, and offers them to nobody"
            );
        }
        Notice::Outdated => {}
    }
}
