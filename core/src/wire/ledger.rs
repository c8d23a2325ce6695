//! CN, edge → ledger, over TLS on TCP: who it is, then records, each acknowledged once it is durable. A record may be
//! sent again until it is acknowledged; the ledger stores each id once.

use super::List;
use super::records::{LedgerRecord, ServerCert};
use crate::ids::{Guid, RecordId};
use crate::limits;

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
        /// Ledger to CN: who is quarantined, all of them, page by page; at the CN's coming and after each change.
        Quarantine(QuarantinePage) = 6,
    }
}

crate::wire! {
    /// See [`LedgerMsg::Quarantine`].
    pub struct QuarantinePage {
        /// Some of them.
        pub guids: List<Guid, { limits::QUARANTINE_PAGE_MAX }>,
        /// The list ends here: it counts from now on, in place of the one before.
        pub last: bool,
    }
}

crate::wire! {
    /// See [`LedgerMsg::Ack`].
    pub struct LedgerAck {
        /// The records.
        pub ids: List<RecordId, 1024>,
    }
}
