//! CN ↔ DN, over TLS on TCP. Registrations belong to the connection: when it breaks, the DN drops them and the CN adds
//! them again. The DN signs nothing.

use super::control::{Introduce, Shared};
use super::place::Locality;
use super::records::ServerCert;
use super::{List, Text};
use crate::ids::{DownloadId, Guid, IntroId, PublicKey, SecondaryGuid, SessionId, VersionId};
use crate::limits;
use crate::nat::NatDescriptor;
use crate::nat::connectivity::Attempt;
use core::net::SocketAddr;

crate::wire! {
    /// A directory message.
    pub enum DirectoryMsg {
        /// CN: the first message.
        Hello(DirectoryHello) = 1,
        /// DN: the answer.
        Welcome(DirectoryWelcome) = 2,
        /// CN: a client is here, or has changed.
        Peer(PeerEntry) = 3,
        /// CN: what a client shares has changed.
        Shares(PeerShares) = 4,
        /// CN: a client has gone.
        Gone(PeerGone) = 5,
        /// CN: choose peers.
        Select(Select) = 6,
        /// DN: the chosen ones.
        Selected(Selected) = 7,
        /// CN: pass this introduction on to the chosen peer's CN.
        Relay(Relay) = 8,
        /// DN to the chosen peer's CN: hand this to that client.
        Deliver(Deliver) = 9,
        /// CN: what became of an introduction.
        Outcome(PairOutcome) = 10,
        /// Either: still there?
        Ping = 11,
        /// Either: still here.
        Pong = 12,
        /// CN: pass this on to the CN of the other peer of an introduction.
        Signal(Signal) = 13,
        /// DN: what that CN passes on.
        Signalled(Signalled) = 14,
        /// CN: an introduction ended with bytes that no receipt covers.
        Unreceipted(Unreceipted) = 15,
        /// CN to the GUID's home DN: a session of it.
        Seen(Seen) = 16,
        /// DN: there is another session of the same GUID, of another start: does this one's client still answer?
        Challenge(OfSession) = 17,
        /// CN: it does.
        Alive(OfSession) = 18,
        /// DN: so does the other's, on another CN. There are two copies of one installation.
        Cloned(OfSession) = 19,
    }
}

crate::wire! {
    /// Who the CN is.
    pub struct DirectoryHello {
        /// [`super::PROTOCOL`].
        pub protocol: u16,
        /// The CN's certificate. The certified key is the one that its TLS handshake proved.
        pub cert: ServerCert,
    }

    /// Who the DN is.
    pub struct DirectoryWelcome {
        /// The highest protocol both speak.
        pub protocol: u16,
        /// The DN's name.
        pub name: Text<{ limits::NAME_LEN_MAX }>,
    }

    /// A client of this CN.
    pub struct PeerEntry {
        /// Its session on the CN.
        pub session: SessionId,
        /// Who.
        pub guid: Guid,
        /// Which start of the client.
        pub secondary: SecondaryGuid,
        /// See [`super::control::Hello::incarnation`].
        pub incarnation: u64,
        /// The address that the CN sees.
        pub observed: SocketAddr,
        /// K_u.
        pub upload_key: PublicKey,
        /// Its user allows uploads: only then it is ever offered.
        pub uploads: bool,
        /// How it can be reached.
        pub nat: NatDescriptor,
        /// Where it is, as the CN's geolocation says.
        pub locality: Locality,
    }

    /// What it shares. Pages as in [`super::control::Inventory`].
    pub struct PeerShares {
        /// Its session on the CN.
        pub session: SessionId,
        /// Forget all that came before.
        pub reset: bool,
        /// Versions now shared.
        pub add: List<Shared, { limits::INVENTORY_PAGE_MAX }>,
        /// Versions no longer shared.
        pub remove: List<VersionId, { limits::INVENTORY_REMOVED_MAX }>,
    }

    /// See [`DirectoryMsg::Gone`].
    pub struct PeerGone {
        /// Its session on the CN.
        pub session: SessionId,
    }

    /// See [`DirectoryMsg::Seen`]. It ends with the session or the CN's connection, like a registration.
    pub struct Seen {
        /// The session on the CN.
        pub session: SessionId,
        /// Whose it is.
        pub guid: Guid,
        /// Of which start.
        pub secondary: SecondaryGuid,
    }

    /// See [`DirectoryMsg::Challenge`].
    pub struct OfSession {
        /// The session on the CN.
        pub session: SessionId,
    }

    /// See [`DirectoryMsg::Select`]. The querier must have been told by [`DirectoryMsg::Peer`].
    pub struct Select {
        /// Echoed in the answer.
        pub req: u64,
        /// The querier's session.
        pub session: SessionId,
        /// For which download.
        pub download: DownloadId,
        /// What it looks for.
        pub version: VersionId,
        /// How many, at most.
        pub want: u8,
        /// K_u of peers not to be offered.
        pub exclude: List<PublicKey, { limits::EXCLUDED_MAX }>,
    }

    /// See [`DirectoryMsg::Selected`].
    pub struct Selected {
        /// The request's number.
        pub req: u64,
        /// The peers, best first.
        pub peers: List<SelectedPeer, { limits::PEERS_PER_ANSWER_MAX }>,
        /// The download has left its uploaders without receipts: no peers for so long, in milliseconds.
        pub edge_only_ms: Option<u32>,
    }

    /// See [`DirectoryMsg::Unreceipted`]: an uploader's word, for an introduction that its CN has checked.
    pub struct Unreceipted {
        /// The download.
        pub download: DownloadId,
        /// The introduction.
        pub intro: IntroId,
        /// Bytes sent that no receipt covers, waste allowed for.
        pub owed: u64,
        /// Bytes receipted.
        pub receipted: u64,
    }

    /// A chosen peer.
    pub struct SelectedPeer {
        /// How to reach its CN.
        pub route: Route,
        /// K_u.
        pub upload_key: PublicKey,
        /// Where its CN sees it.
        pub observed: SocketAddr,
        /// Where to try.
        pub nat: NatDescriptor,
    }

    /// A client as a DN names it to other CNs; valid as long as its CN's connection.
    pub struct Route {
        /// The DN's number for the CN's connection.
        pub link: u64,
        /// The session on that CN.
        pub session: SessionId,
    }

    /// See [`DirectoryMsg::Relay`].
    pub struct Relay {
        /// To whom.
        pub route: Route,
        /// The querier's session, for what is signalled back.
        pub from: SessionId,
        /// What.
        pub introduce: Introduce,
    }

    /// See [`DirectoryMsg::Deliver`].
    pub struct Deliver {
        /// To which client of the receiving CN.
        pub session: SessionId,
        /// The querier, for what is signalled back.
        pub from: Route,
        /// What.
        pub introduce: Introduce,
    }

    /// See [`DirectoryMsg::Signal`].
    pub struct Signal {
        /// To the CN of this client.
        pub route: Route,
        /// Of which introduction.
        pub intro: IntroId,
        /// What.
        pub what: Step,
    }

    /// See [`DirectoryMsg::Signalled`].
    pub struct Signalled {
        /// Of which client of the receiving CN.
        pub session: SessionId,
        /// Of which introduction.
        pub intro: IntroId,
        /// What.
        pub what: Step,
    }

    /// See [`DirectoryMsg::Outcome`].
    pub struct PairOutcome {
        /// The downloader.
        pub session: SessionId,
        /// The uploader.
        pub route: Route,
        /// How the attempt to connect them ended.
        pub attempt: Attempt,
    }
}
impl Copy for Route {}

crate::wire! {
    /// A step of two peers that meet.
    pub enum Step {
        /// The uploader has opened its NAT.
        Opened = 1,
        /// Both are to check now.
        Go = 2,
    }
}
impl Copy for Step {}

impl Relay {
    /// The introduction's id.
    #[must_use]
    pub const fn intro(&self) -> IntroId {
        self.introduce.intro.intro.id
    }
}
