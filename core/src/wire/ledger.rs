//! CN, edge → ledger, over TLS on TCP: a record, and its acknowledgement once it is durable. A record may be sent again
//! until it is acknowledged; the ledger stores each id once.

use super::List;
use super::records::LedgerRecord;
use crate::ids::RecordId;

crate::wire! {
    /// A ledger message.
    pub enum LedgerMsg {
        /// Server: store this.
        Submit(LedgerRecord) = 1,
        /// Ledger: these are durable.
        Ack(LedgerAck) = 2,
        /// Either: still there?
        Ping = 3,
        /// Either: still here.
        Pong = 4,
    }
}

crate::wire! {
    /// See [`LedgerMsg::Ack`].
    pub struct LedgerAck {
        /// The records.
        pub ids: List<RecordId, 1024>,
    }
}
