//! The client's side of the edge: bootstrap, grants, manifests, content. Does what the client machine's outputs about
//! edges say and reports what becomes of it; each command's last report has its place in the mailbox reserved.

mod ask;
mod content;
mod directory;
mod possession;
pub mod tokens;
mod trouble;

pub use directory::Directory;
pub use trouble::{News, Trouble};

use crate::edge_client::tokens::Tokens;
use crate::store::Store;
use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use swarmedge_core::ids::XferId;
use swarmedge_core::role::client::io::{EdgeError, FetchEnd, FetchSource, Input, Output};
use swarmedge_ground::http::{Client, Origin, Signal};
use swarmedge_ground::keys::Key;
use swarmedge_ground::mailbox::Sender;
use swarmedge_ground::rt::Rt;

/// All of a client's edges. Clones share them.
pub struct EdgeClient<R: Rt>(Rc<Inner<R>>);

impl<R: Rt> Clone for EdgeClient<R> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

type Listener = Box<dyn Fn(News)>;

struct Inner<R: Rt> {
    rt: R,
    http: Client<R>,
    store: Store,
    /// Proves the GUID.
    key: Key,
    /// What providers have given this client, for what is not public.
    tokens: Tokens,
    inbox: Sender<Input>,
    directory: RefCell<Directory>,
    known: Signal,
    lanes: RefCell<BTreeMap<Origin, content::Lane>>,
    fetches: RefCell<BTreeMap<XferId, content::Cancel>>,
    listener: RefCell<Option<Listener>>,
}

impl<R: Rt> EdgeClient<R> {
    /// A client that knows the edges of its install bundle, and trusts whom `tls` trusts.
    #[must_use]
    pub fn new(
        rt: R,
        tls: Arc<rustls::ClientConfig>,
        bundle: Vec<Origin>,
        key: Key,
        tokens: Tokens,
        store: Store,
        inbox: Sender<Input>,
    ) -> Self {
        Self(Rc::new(Inner {
            http: Client::new(rt.clone(), tls),
            rt,
            store,
            key,
            tokens,
            inbox,
            directory: RefCell::new(Directory::new(bundle)),
            known: Signal::default(),
            lanes: RefCell::default(),
            fetches: RefCell::default(),
            listener: RefCell::default(),
        }))
    }

    /// Performs an output if it is about edges, else gives it back. What ends at once goes to `local`.
    pub fn perform(&self, output: Output, local: &mut VecDeque<Input>) -> Option<Output> {
        match output {
            Output::EdgeAsk { req, edge, ask } => match (self.0.inbox.reserve(), self.edge(edge)) {
                (Ok(permit), Some(origin)) => ask::start(self, origin, req, ask, permit),
                (Err(_), _) | (_, None) => {
                    local.push_back(Input::Edge { req, answer: Err(EdgeError::Unreachable) });
                }
            },
            Output::Fetch { xfer, version, source: FetchSource::Edge { edge, grant }, piece, blocks, .. } => {
                let layout = self.0.store.manifest(version).map(|manifest| manifest.layout());
                match (self.0.inbox.reserve(), self.edge(edge), layout) {
                    (Ok(permit), Some(origin), Some(layout)) => {
                        let bytes = layout.block_range(piece, blocks.clone());
                        content::fetch(
                            self,
                            origin,
                            content::Job { xfer, version, grant, piece, blocks, bytes, permit },
                        );
                    }
                    (Err(_), _, _) | (_, None, _) | (_, _, None) => {
                        local.push_back(Input::FetchEnded { xfer, end: FetchEnd::Broken });
                    }
                }
            }
            // of one that is not known its end is on its way
            Output::CancelFetch { xfer } => content::cancel(self, xfer),
            Output::NetworkChanged => self.0.http.forget(),
            other @ (Output::ControlDial { .. }
            | Output::ControlSend { .. }
            | Output::ControlClose { .. }
            | Output::PeerDial { .. }
            | Output::PeerExpect { .. }
            | Output::Probe { .. }
            | Output::Scatter(_)
            | Output::Line(_)
            | Output::PeerSend { .. }
            | Output::PeerClose { .. }
            | Output::Fetch { source: FetchSource::Peer(_), .. }
            | Output::Serve { .. }
            | Output::Refuse { .. }
            | Output::SignReceipt { .. }
            | Output::ProbeNetwork
            | Output::SignHead { .. }
            | Output::MakeKey { .. }
            | Output::AdoptKey
            | Output::Save { .. }
            | Output::Notice(_)) => return Some(other),
        }
        None
    }

    /// Has `listener` told what the user should know of the edges.
    pub fn on_news(&self, listener: impl Fn(News) + 'static) {
        self.0.listener.replace(Some(Box::new(listener)));
    }

    fn tell(&self, news: News) {
        if let Some(listener) = self.0.listener.borrow().as_ref() {
            listener(news);
        }
    }

    /// What is known of the deployment.
    #[must_use]
    pub fn directory(&self) -> Ref<'_, Directory> {
        self.0.directory.borrow()
    }

    /// The providers' tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// Completes once a bootstrap has been answered.
    pub async fn known(&self) {
        self.0.known.wait().await;
    }

    fn edge(&self, number: u32) -> Option<Origin> {
        self.directory().edges.get(number as usize).cloned()
    }
}
