//! Messages between a server (edge or CN) and the ledger, over TLS on TCP. The server sends its certificate, then
//! records; the ledger acknowledges each record once it is durable. A record may be sent again until it is
//! acknowledged; the ledger stores each id once. Each direction has an enum of its own, with message numbers that are
//! unique over both enums.

use super::List;
use super::directory::ProvenCopy;
use super::records::{LedgerRecord, ServerCert};
use crate::ids::{Guid, RecordId};
use crate::limits;

crate::wire! {
    /// Message from a server to the ledger.
    pub enum ToLedger {
        /// First message of the server, its certificate. The certified key must be the one that its TLS handshake
        /// proved.
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
        /// Ledger's acknowledgement that records are durable.
        Ack(LedgerAck) = 3,
        /// Keep-alive request of either side, answered by `Pong`.
        Ping = 4,
        /// Answer of either side to `Ping`.
        Pong = 5,
        /// Page of the complete list of quarantined clients. The ledger sends the list to each CN when it connects
        /// and after each change.
        Quarantine(QuarantinePage) = 6,
        /// Ledger's notice to CNs that a blamed client has proven to an edge that it has the right bytes.
        Proven(ProvenCopy) = 7,
    }
}

crate::wire! {
    /// Page of the list of quarantined GUIDs.
    pub struct QuarantinePage {
        /// Quarantined GUIDs of this page.
        pub guids: List<Guid, { limits::QUARANTINE_PAGE_MAX }>,
        /// Whether this is the list's last page, after which the list replaces the earlier one.
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
