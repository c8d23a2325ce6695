//! CN, edge → ledger, over TLS on TCP: who it is, then records, each acknowledged once it is durable. A record may be
//! sent again until it is acknowledged; the ledger stores each id once. Each direction has an enum of its own,
//! with numbers that are unique over both.

use super::List;
use super::records::{LedgerRecord, ServerCert};
use crate::ids::{Guid, RecordId};
use crate::limits;

crate::wire! {
    /// Message from a server to the ledger.
    pub enum ToLedger {
        /// Server: the first message, who it is. The certified key is the one that its TLS handshake proved.
        Hello(ServerCert) = 1,
        /// Server's record to be stored.
        Submit(LedgerRecord) = 2,
        /// Keep-alive request of either side, answered by `Pong`.
        Ping = 4,
        /// Answer of either side to `Ping`.
        Pong = 5,
    }
}

crate::wire! {
    /// Message from the ledger to a server.
    pub enum FromLedger {
        /// Ledger: these are durable.
        Ack(LedgerAck) = 3,
        /// Keep-alive request of either side, answered by `Pong`.
        Ping = 4,
        /// Answer of either side to `Ping`.
        Pong = 5,
        /// Ledger to CN: who is quarantined, all of them, page by page; at the CN's coming and after each change.
        Quarantine(QuarantinePage) = 6,
    }
}

crate::wire! {
    /// Page of the list of quarantined GUIDs.
    pub struct QuarantinePage {
        /// Quarantined GUIDs of this page.
        pub guids: List<Guid, { limits::QUARANTINE_PAGE_MAX }>,
        /// The list ends here: it counts from now on, in place of the one before.
        pub last: bool,
    }
}

crate::wire! {
    /// Ledger's acknowledgement of durably stored records.
    pub struct LedgerAck {
        /// Ids of the stored records.
        pub ids: List<RecordId, 1024>,
    }
}
