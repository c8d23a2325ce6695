//! Messages between CN and DN: frames over TLS on TCP. A CN registers its clients at the DN; when their connection
//! breaks, the DN drops these registrations and the CN sends them again. The DN signs nothing. Each direction has an
//! enum of its own, with message numbers that are unique over both enums.

use super::control::{Introduce, Shared};
use super::geo_location::Locality;
use super::records::ServerCert;
use super::{List, Text};
use crate::ids::{DownloadId, Guid, IntroId, PublicKey, SecondaryGuid, SessionId, VersionId};
use crate::limits;
use crate::nat::NatDescriptor;
use crate::nat::connectivity::Attempt;
use core::net::SocketAddr;

crate::wire! {
    /// Message from a CN to a DN.
    pub enum ToDn {
        /// First message of the CN.
        Hello(DirectoryHello) = 1,
        /// CN's registration of a client, or changes to an earlier registration.
        Peer(PeerEntry) = 3,
        /// CN's page of changes to the versions a client shares.
        Shares(PeerShares) = 4,
        /// CN's notice that a client's session has ended.
        Gone(PeerGone) = 5,
        /// CN's request to choose peers for a downloader.
        Select(Select) = 6,
        /// CN's request to pass an introduction on to the chosen peer's CN.
        Relay(Relay) = 8,
        /// CN's report of the result of an attempt to connect by two introduced clients.
        Outcome(PairOutcome) = 10,
        /// Keep-alive request of either side, answered by `Pong`.
        Ping = 11,
        /// Answer of either side to `Ping`.
        Pong = 12,
        /// CN's request to pass a signal of hole punching on to the CN of the introduction's other peer.
        Signal(Signal) = 13,
        /// CN's report that an introduction ended with bytes sent that no receipt covers.
        Unreceipted(Unreceipted) = 15,
        /// CN's notice that a client has a session, sent to the one DN that compares all sessions of its GUID.
        Seen(Seen) = 16,
        /// CN's answer to [`FromDn::Challenge`]: the session's client has just answered.
        Alive(OfSession) = 18,
        /// CN's notice that a client has proven to an edge that it has the right bytes of a version.
        Proven(ProvenCopy) = 22,
        /// CN's report that a client has blamed a copy of another client, to which it was introduced and connected.
        Blame(BlamedCopy) = 23,
    }
}

crate::wire! {
    /// Message from a DN to a CN.
    pub enum FromDn {
        /// DN's answer to `Hello`.
        Welcome(DirectoryWelcome) = 2,
        /// DN's answer to `Select`: the chosen peers.
        Selected(Selected) = 7,
        /// DN's request to the chosen peer's CN: hand this introduction to that client.
        Deliver(Deliver) = 9,
        /// Keep-alive request of either side, answered by `Pong`.
        Ping = 11,
        /// Answer of either side to `Ping`.
        Pong = 12,
        /// DN's delivery of a signal of hole punching from the CN of the introduction's other peer.
        Signalled(Signalled) = 14,
        /// DN's request to check that this session's client still answers, since another start with the same GUID has
        /// a session too.
        Challenge(OfSession) = 17,
        /// DN's notice that the session of the same GUID on another CN is alive too: two copies of one installation
        /// run.
        Cloned(OfSession) = 19,
        /// DN's answer to `Select` if no peer was chosen: the reason.
        Nobody(Nobody) = 20,
        /// DN's request to the CN of a blamed client: have it check its copy.
        CheckCopy(DoubtedCopy) = 21,
    }
}

crate::wire! {
    /// Identity of the CN.
    pub struct DirectoryHello {
        /// Highest protocol version the CN speaks: [`super::PROTOCOL`].
        pub protocol: u16,
        /// The CN's certificate. The certified key is the one that its TLS handshake proved.
        pub cert: ServerCert,
    }

    /// Identity of the DN.
    pub struct DirectoryWelcome {
        /// The highest protocol version that CN and DN both speak.
        pub protocol: u16,
        /// Name of the DN.
        pub name: Text<{ limits::NAME_LEN_MAX }>,
    }

    /// Client with a session on this CN.
    pub struct PeerEntry {
        /// Client's session on the CN.
        pub session: SessionId,
        /// Client's GUID, derived from its key.
        pub guid: Guid,
        /// Secondary GUID of the client's current start.
        pub secondary: SecondaryGuid,
        /// Session number as in [`super::control::Hello::incarnation`].
        pub incarnation: u64,
        /// Client's address as the CN sees it.
        pub observed: SocketAddr,
        /// Client's public upload key, new each day.
        pub upload_key: PublicKey,
        /// Whether the user allows uploads; otherwise the peer is never offered.
        pub uploads: bool,
        /// Client's candidate addresses and NAT behaviour.
        pub nat: NatDescriptor,
        /// Client's network and country by the CN's geolocation.
        pub locality: Locality,
    }

    /// Page of changes to the versions a client shares, as in [`super::control::Inventory`].
    pub struct PeerShares {
        /// Client's session on the CN.
        pub session: SessionId,
        /// Whether the DN discards everything from earlier pages.
        pub reset: bool,
        /// Versions the client shares from now on.
        pub add: List<Shared, { limits::INVENTORY_PAGE_MAX }>,
        /// Versions the client no longer shares.
        pub remove: List<VersionId, { limits::INVENTORY_REMOVED_MAX }>,
    }

    /// Notice that a client's session has ended.
    pub struct PeerGone {
        /// Client's session on the CN.
        pub session: SessionId,
    }

    /// Notice of a session to the DN that compares all sessions of its GUID. The DN forgets it when the session or
    /// the CN's connection ends.
    pub struct Seen {
        /// The session on the CN.
        pub session: SessionId,
        /// GUID of the session's client.
        pub guid: Guid,
        /// Secondary GUID of the client's current start.
        pub secondary: SecondaryGuid,
    }

    /// Number of one session, at the CN that sends or receives the message.
    pub struct OfSession {
        /// The session on the CN.
        pub session: SessionId,
    }

    /// Blame of a copy by a client.
    pub struct BlamedCopy {
        /// Session of the client that blames.
        pub session: SessionId,
        /// GUID of the copy's holder.
        pub holder: Guid,
        /// Version of the copy.
        pub version: VersionId,
    }

    /// Copy that is blamed.
    pub struct DoubtedCopy {
        /// Session of the copy's holder.
        pub session: SessionId,
        /// Version of the copy.
        pub version: VersionId,
    }

    /// Copy whose holder has proven that it has the right bytes.
    pub struct ProvenCopy {
        /// GUID of the copy's holder.
        pub holder: Guid,
        /// Version of the copy.
        pub version: VersionId,
    }

    /// Request to choose peers for a session that was registered by [`ToDn::Peer`].
    pub struct Select {
        /// Request number chosen by the CN, echoed in the answer.
        pub req: u64,
        /// Downloader's session on the CN.
        pub session: SessionId,
        /// Download that needs the peers.
        pub download: DownloadId,
        /// Version that the peers must hold.
        pub version: VersionId,
        /// Maximum number of peers the CN wants in the answer.
        pub want: u8,
        /// Upload keys of peers that must not be offered.
        pub exclude: List<PublicKey, { limits::EXCLUDED_MAX }>,
    }

    /// Answer to [`ToDn::Select`].
    pub struct Selected {
        /// Request number, copied from the request.
        pub req: u64,
        /// Chosen peers, best first.
        pub peers: List<SelectedPeer, { limits::PEERS_PER_ANSWER_MAX }>,
        /// Time in milliseconds for which the download gets no peers, because it gave its uploaders no receipts;
        /// `None` if it may have peers.
        pub edge_only_ms: Option<u32>,
    }

    /// Answer to a request for peers that yields none.
    pub struct Nobody {
        /// Request number, copied from the request.
        pub req: u64,
        /// Reason that no peer is chosen.
        pub why: WhyNobody,
    }

    /// Uploader's report of bytes without receipt, for an introduction that its CN has verified.
    pub struct Unreceipted {
        /// Download that the bytes were sent to.
        pub download: DownloadId,
        /// Introduction of the transfer without receipts.
        pub intro: IntroId,
        /// Bytes sent that no receipt covers, less an eighth of the receipted bytes, which may have been wasted.
        pub owed: u64,
        /// Bytes that the downloader's receipts cover.
        pub receipted: u64,
    }

    /// Peer chosen for a downloader.
    pub struct SelectedPeer {
        /// Number of the peer's session, to which the DN relays messages.
        pub route: Route,
        /// Peer's public upload key, new each day.
        pub upload_key: PublicKey,
        /// Peer's address as its CN sees it.
        pub observed: SocketAddr,
        /// Peer's candidate addresses and NAT behaviour.
        pub nat: NatDescriptor,
        /// Peer's GUID, by which a blame names it.
        pub guid: Guid,
    }

    /// Number of a client's session for messages that a DN relays: the CN's connection and the session on that CN.
    /// Valid while the connection lasts.
    pub struct Route {
        /// The DN's number for the CN's connection.
        pub link: u64,
        /// Client's session on that CN.
        pub session: SessionId,
    }

    /// Introduction for the DN to pass on to the chosen peer's CN.
    pub struct Relay {
        /// Chosen peer that receives the introduction.
        pub route: Route,
        /// Downloader's session, to which signals of hole punching are sent back.
        pub from: SessionId,
        /// Introduction to hand to the peer.
        pub introduce: Introduce,
    }

    /// Introduction for the receiving CN to hand to its client.
    pub struct Deliver {
        /// Session of the receiving CN's client.
        pub session: SessionId,
        /// Downloader's session, to which signals of hole punching are sent back.
        pub from: Route,
        /// Introduction to hand to the client.
        pub introduce: Introduce,
    }

    /// Signal between two introduced peers' CNs during hole punching, for the DN to pass on.
    pub struct Signal {
        /// Session of the client whose CN receives the signal.
        pub route: Route,
        /// Introduction of the two clients that connect.
        pub intro: IntroId,
        /// Signal that the sending CN reports.
        pub what: Step,
    }

    /// Signal between two introduced peers' CNs during hole punching, delivered by the DN.
    pub struct Signalled {
        /// Session of the receiving CN's client.
        pub session: SessionId,
        /// Introduction of the two clients that connect.
        pub intro: IntroId,
        /// Signal that the other peer's CN reports.
        pub what: Step,
    }

    /// Result of an attempt to connect by two introduced clients.
    pub struct PairOutcome {
        /// Downloader's session on the reporting CN.
        pub session: SessionId,
        /// Number of the uploader's session at its CN.
        pub route: Route,
        /// Result of the attempt to connect the two peers.
        pub attempt: Attempt,
    }
}
impl Copy for Route {}

crate::wire! {
    /// Signals between the CNs of two clients that open their NATs for each other by hole punching.
    pub enum Step {
        /// The uploader has opened its NAT.
        Opened = 1,
        /// Both peers shall start connectivity checks now.
        Go = 2,
    }
}
impl Copy for Step {}

impl Relay {
    /// Returns the id of the relayed introduction.
    #[must_use]
    pub const fn intro(&self) -> IntroId {
        self.introduce.intro.intro.id
    }
}

crate::wire! {
    /// Reasons that a DN chooses no peer.
    pub enum WhyNobody {
        /// No other client shares the version.
        NotShared = 1,
        /// Others share the version, but none of them can connect with the downloader.
        Unreachable = 2,
        /// All who share the version and can be reached are named in the request's `exclude`.
        AllKnown = 3,
        /// The download has been offered as many peers as it may be offered for now.
        OffersSpent = 4,
    }
}
impl Copy for WhyNobody {}
