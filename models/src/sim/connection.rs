//! A connection between two nodes, and the messages on it.

use crate::world::{Lane, NodeIx};
use swarmedge_core::ids::{ConnId, PublicKey};
use swarmedge_core::wire::control::{ToClient, ToCn};
use swarmedge_core::wire::directory::{FromDn, ToDn};
use swarmedge_core::wire::ledger::{FromLedger, ToLedger};
use swarmedge_core::wire::peer::PeerMsg;

/// Kind of a connection, by its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Control connection from a client to a CN.
    Control,
    /// Connection from a CN to a DN.
    Directory,
    /// Connection from a CN or an edge to the ledger.
    Ledger,
    /// Connection from a downloader to an uploader.
    Peer,
}

/// A connection between two nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Kind of the connection.
    pub kind: Kind,
    /// Dialling node, and its number for the connection.
    pub from: (NodeIx, ConnId),
    /// Accepting node, and its number for the connection.
    pub to: (NodeIx, ConnId),
    /// Key that the dialler proves.
    pub key: PublicKey,
    /// Whether the connection was accepted.
    pub open: bool,
    /// Whether the connection is half open: the dialler has lost it, and the acceptor has not noticed.
    pub half: bool,
    /// Whether messages on the connection are lost without any notice.
    pub silent: bool,
    /// Whether a CN has welcomed its client on the connection.
    pub welcomed: bool,
}

impl Link {
    /// Returns the end of the connection opposite to `node`.
    #[must_use]
    pub fn other(&self, node: NodeIx) -> (NodeIx, ConnId) {
        if self.from.0 == node { self.to } else { self.from }
    }
}

/// A message of any protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Msg {
    /// Message from a client to a CN.
    ToCn(ToCn),
    /// Message from a CN to a client.
    ToClient(ToClient),
    /// Message from a CN to a DN.
    ToDn(ToDn),
    /// Message from a DN to a CN.
    FromDn(FromDn),
    /// Message from a CN or an edge to the ledger.
    ToLedger(ToLedger),
    /// Message from the ledger to a CN or an edge.
    FromLedger(FromLedger),
    /// Message between two clients.
    Peer(PeerMsg),
}

/// Returns the lane of messages on a link towards `to`.
#[must_use]
pub fn lane(kind: Kind, id: u64, to: NodeIx) -> Lane {
    let what = match kind {
        Kind::Control => "control",
        Kind::Directory => "directory",
        Kind::Ledger => "ledger",
        Kind::Peer => "peer",
    };
    Lane { to, what, id }
}
