//! CN, edge → ledger, over TLS on TCP: who it is, then records, each acknowledged once it is durable. A record may be
//! sent again until it is acknowledged; the ledger stores each id once.

use super::List;
use super::records::{LedgerRecord, ServerCert};
use crate::ids::RecordId;

crate::wire! {
    /// A ledger message.
    pub enum LedgerMsg {
        /// Server: the first message, who it is. The certified key is the one that its TLS handshake proved.
        Hello(ServerCert) = 1,
        /// Server: store this.
        Submit(LedgerRecord) = 2,
        /// Ledger: these are durable.
        Ack(LedgerAck) = 3,
        /// Either: still there?
        Ping = 4,
        /// Either: still here.
        Pong = 5,
    }
}

crate::wire! {
    /// See [`LedgerMsg::Ack`].
    pub struct LedgerAck {
        /// The records.
        pub ids: List<RecordId, 1024>,
    }
}
