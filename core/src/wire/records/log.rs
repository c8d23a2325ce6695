//! What CNs log of clients.

use super::{SignedHead, SignedRekey};
use crate::codec::List;
use crate::ids::{DownloadId, Guid, IntroId, PublicKey, RecordId, SecondaryGuid, VersionId};
use crate::limits;
use crate::wire::place::Place;
use core::net::SocketAddr;

crate::wire! {
    /// What a CN saw of a client (the paper's section 4.1): for figures and for finding out who cheats. Of these only
    /// [`Offered`] touches bills: bytes of an introduction that no CN has recorded are not billed.
    pub struct LogRecord {
        /// Record's unique id.
        pub id: RecordId,
        /// Time of the event, Unix milliseconds.
        pub at_ms: u64,
        /// Client that the event is about.
        pub guid: Guid,
        /// Event that the CN recorded.
        pub event: LogEvent,
    }

    /// A session was opened.
    pub struct Login {
        /// Where the CN saw the client.
        pub observed: SocketAddr,
        /// The secondary GUIDs of its last starts, newest first.
        pub secondary: List<SecondaryGuid, { limits::SECONDARY_GUIDS_MAX }>,
        /// K_u of the session: offers name it.
        pub upload_key: PublicKey,
        /// Whether the user allows uploads.
        pub uploads: bool,
        /// Client version, `major << 16 | minor << 8 | patch`.
        pub client_version: u32,
    }

    /// The client has begun to share versions; told to the DNs.
    pub struct Registered {
        /// Versions that the client registered.
        pub versions: List<VersionId, { limits::INVENTORY_PAGE_MAX }>,
    }

    /// A DN has chosen peers for the client's download, and they were introduced.
    pub struct Offered {
        /// Download that needs the peers.
        pub download: DownloadId,
        /// Version that is downloaded.
        pub version: VersionId,
        /// Peers that were introduced.
        pub peers: List<OfferedPeer, { limits::PEERS_PER_ANSWER_MAX }>,
    }

    /// Peer introduced to the client's download.
    pub struct OfferedPeer {
        /// Id of the peer's introduction.
        pub intro: IntroId,
        /// K_u: whose it is, its [`Login`] says.
        pub upload_key: PublicKey,
    }
}

crate::wire! {
    /// See [`LogRecord`].
    pub enum LogEvent {
        /// A session was opened.
        Login(Login) = 1,
        /// Versions were registered.
        Registered(Registered) = 2,
        /// Peers were offered.
        Offered(Offered) = 3,
        /// A usage record came, and this is its place in the client's log. Two that contradict each other are evidence.
        Head(SignedHead) = 4,
        /// The GUID is retired: its installation has taken another key. Two of one GUID were two copies.
        Rekeyed(SignedRekey) = 5,
        /// Where the client of a session is that was opened at this moment; only where geolocation knows.
        Located(Place) = 8,
    }
}
