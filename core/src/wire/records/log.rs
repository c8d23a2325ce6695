//! Events of clients, as CNs log them.

use super::{SignedHead, SignedRekey};
use crate::codec::List;
use crate::ids::{DownloadId, Guid, IntroId, PieceIndex, PublicKey, RecordId, SecondaryGuid, VersionId};
use crate::limits;
use crate::wire::geo_location::GeoLocation;
use core::net::SocketAddr;

crate::wire! {
    /// CN's record of an event of a client, for statistics and for finding cheaters. Only [`Offered`] affects bills:
    /// bytes of an introduction that no CN has recorded are not billed.
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

    /// Opening of a session.
    pub struct Login {
        /// Source address of the client, as its CN observed it.
        pub observed: SocketAddr,
        /// Secondary GUIDs of the client's last starts, newest first.
        pub secondary: List<SecondaryGuid, { limits::SECONDARY_GUIDS_MAX }>,
        /// Upload key under which the client is offered to downloaders in this session.
        pub upload_key: PublicKey,
        /// Whether the user allows uploads.
        pub uploads: bool,
        /// Client version, `major << 16 | minor << 8 | patch`.
        pub client_version: u32,
    }

    /// Versions that the client has begun to share.
    pub struct Registered {
        /// Versions that were registered at a DN.
        pub versions: List<VersionId, { limits::INVENTORY_PAGE_MAX }>,
    }

    /// Introduction of peers that a DN chose for the client's download.
    pub struct Offered {
        /// Download that needs the peers.
        pub download: DownloadId,
        /// Version that is downloaded.
        pub version: VersionId,
        /// Peers that were introduced.
        pub peers: List<OfferedPeer, { limits::PEERS_PER_ANSWER_MAX }>,
    }

    /// Client's blame of a peer that was introduced to it, and to which it was connected.
    pub struct Blamed {
        /// Introduction of the peer.
        pub intro: IntroId,
        /// GUID of the peer.
        pub holder: Guid,
        /// Version of the wrong block.
        pub version: VersionId,
        /// Piece of the wrong block.
        pub piece: PieceIndex,
        /// Index of the wrong block within its piece.
        pub block: u32,
    }

    /// Peer introduced to the client's download.
    pub struct OfferedPeer {
        /// Id of the peer's introduction.
        pub intro: IntroId,
        /// Peer's upload key; the [`Login`] with the same key names the peer.
        pub upload_key: PublicKey,
    }
}

crate::wire! {
    /// Events that a CN records.
    pub enum LogEvent {
        /// Client has opened a session.
        Login(Login) = 1,
        /// Client has begun to share versions.
        Registered(Registered) = 2,
        /// Peers were introduced to the client.
        Offered(Offered) = 3,
        /// The client sent a usage record with this log head. Two heads that contradict each other are evidence of a
        /// copied installation or a lie.
        Head(SignedHead) = 4,
        /// Client's installation has changed its key, so its GUID is no longer used. Two such events of one GUID show
        /// two copies of an installation.
        Rekeyed(SignedRekey) = 5,
        /// Location of the client's address when it opened a session, if geolocation knows it.
        Located(GeoLocation) = 8,
        /// The client says that an introduced peer has sent it a wrong block.
        Blamed(Blamed) = 9,
    }
}
