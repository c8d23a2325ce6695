//! The client's side of the edge's HTTP interface: bootstrap, grants, manifests, content and possession proofs.
//! [`EdgeClient`] performs the client machine's outputs for edges. Before each output, space for its completion is
//! reserved in the machine's mailbox, so that every command is answered exactly once.

mod ask;
mod content;
mod directory;
mod kept;
mod names;
mod possession;
mod request;
pub mod tokens;
mod trouble;

pub use directory::Directory;
pub use trouble::{News, Trouble};

use crate::edge_client::tokens::Tokens;
use crate::store::Store;
use futures_lite::future::or;
use hyper::Request;
use std::cell::{Cell, Ref, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use swarmedge_core::ids::XferId;
use swarmedge_core::role::client::io::{EdgeError, EdgeOutput, FetchEnd, Input};
use swarmedge_ground::edge_api::Bootstrap;
use swarmedge_ground::http::{Body, Client, Origin, Signal};
use swarmedge_ground::keys::Key;
use swarmedge_ground::mailbox::Sender;
use swarmedge_ground::reach::Way;
use swarmedge_ground::rt::Rt;

/// Time-out of the question by which a name's edge is found out.
const IDENTIFIED_WITHIN: Duration = Duration::from_secs(2);

/// HTTP client of all edges; clones share its state.
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
    /// The client's key, which proves its GUID.
    key: Key,
    /// Providers' tokens for objects that are not public.
    tokens: Tokens,
    inbox: Sender<Input>,
    directory: RefCell<Directory>,
    /// Set once an edge has answered a bootstrap request.
    known: Signal,
    /// Whether an edge has refused a request since the last bootstrap because of its timestamp, or because the edge
    /// calls itself otherwise.
    needs_bootstrap: Cell<bool>,
    /// Set once the STUN servers of the kept bootstrap may be used.
    located: Signal,
    /// Directory in which bootstraps are kept, and the one that is kept there.
    kept_in: RefCell<Option<PathBuf>>,
    kept: RefCell<Option<Bootstrap>>,
    queues: RefCell<BTreeMap<Origin, content::EdgeQueue>>,
    fetches: RefCell<BTreeMap<XferId, content::Cancel>>,
    listener: RefCell<Option<Listener>>,
}

/// Key and tokens that a client shows to edges, and the store for the content that edges send.
#[derive(Debug)]
pub struct Own {
    /// The client's key, which proves its GUID.
    pub key: Key,
    /// Providers' tokens for objects that are not public.
    pub tokens: Tokens,
    /// The store of the client.
    pub store: Store,
}

impl<R: Rt> EdgeClient<R> {
    /// Makes a client that knows the edges of its install bundle and reaches them by `way`.
    #[must_use]
    pub fn new(rt: R, way: Way, bundle: Vec<Origin>, own: Own, inbox: Sender<Input>) -> Self {
        let Own { key, tokens, store } = own;
        Self(Rc::new(Inner {
            http: Client::new(rt.clone(), way),
            rt,
            store,
            key,
            tokens,
            inbox,
            directory: RefCell::new(Directory::new(bundle)),
            known: Signal::default(),
            needs_bootstrap: Cell::new(false),
            located: Signal::default(),
            kept_in: RefCell::default(),
            kept: RefCell::default(),
            queues: RefCell::default(),
            fetches: RefCell::default(),
            listener: RefCell::default(),
        }))
    }

    /// Performs an output of the client machine. Completions of outputs that fail at once are pushed to `local`.
    pub fn perform(&self, output: EdgeOutput, local: &mut VecDeque<Input>) {
        match output {
            EdgeOutput::Ask { req, edge, ask } => match (self.0.inbox.reserve(), self.edge(edge)) {
                (Ok(permit), Some(origin)) => ask::start(self, origin, req, ask, permit),
                (Err(_), _) | (_, None) => {
                    local.push_back(Input::Edge { req, answer: Err(EdgeError::Unreachable) });
                }
            },
            EdgeOutput::Fetch { xfer, edge, grant, version, piece, blocks } => {
                let layout = self.0.store.manifest(version).map(|manifest| manifest.layout());
                match (self.0.inbox.reserve(), self.edge(edge), layout) {
                    (Ok(permit), Some(origin), Some(layout)) => {
                        let bytes = layout.block_range(piece, blocks.clone());
                        let turn = content::Turn::Together;
                        let job = content::Job { xfer, version, grant, piece, blocks, bytes, permit, turn };
                        content::fetch(self, origin, job);
                    }
                    (Err(_), _, _) | (_, None, _) | (_, _, None) => {
                        local.push_back(Input::FetchEnded { xfer, end: FetchEnd::Broken });
                    }
                }
            }
            // an unknown transfer has ended already, and its completion is in the mailbox
            EdgeOutput::CancelFetch { xfer } => content::cancel(self, xfer),
            EdgeOutput::DropConnections => self.0.http.forget(),
        }
    }

    /// Sets the listener for news about edges, which are shown to a waiting user.
    pub fn on_news(&self, listener: impl Fn(News) + 'static) {
        self.0.listener.replace(Some(Box::new(listener)));
    }

    fn tell(&self, news: News) {
        if let Some(listener) = self.0.listener.borrow().as_ref() {
            listener(news);
        }
    }

    /// Asks the edge that is reached by `name`, which a user has given, for its own URL; [`News::Name`] is the answer.
    pub async fn identify(&self, name: Origin) {
        let request = || Request::get("/v1/bootstrap").body(Body::empty()).unwrap_or_default();
        let asked = async {
            let answer = self.0.http.send(&name, request).await.ok()?;
            let body = answer.collect(request::JSON_LEN_MAX).await.ok()?;
            ask::own_url(&serde_json::from_slice(&body).ok()?)
        };
        let rt = &self.0.rt;
        let too_late = async {
            rt.sleep_until(rt.now() + IDENTIFIED_WITHIN).await;
            None
        };
        let own = or(asked, too_late).await;
        self.tell(News::Name { name, own });
    }

    /// Starts a task on the client's runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.rt.spawn(task);
    }

    /// Returns the known servers of the deployment.
    #[must_use]
    pub fn directory(&self) -> Ref<'_, Directory> {
        self.0.directory.borrow()
    }

    /// Returns the stored tokens of providers.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// Waits until an edge has answered a bootstrap request.
    pub async fn known(&self) {
        self.0.known.wait().await;
    }

    fn edge(&self, number: u32) -> Option<Origin> {
        self.directory().edges.get(number as usize).cloned()
    }
}
