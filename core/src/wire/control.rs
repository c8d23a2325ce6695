//! Client ↔ CN, over TLS on TCP, persistent. One enum for both directions; a side that receives a message which only it
//! may send closes the connection.

use super::records::{Logged, SealedGrant, ServerCert, SignedCheckpoint, SignedIntroduction, SignedRekey};
use super::{List, Text};
use crate::ids::{Guid, IntroId, PublicKey, RecordId, SecondaryGuid, VersionId};
use crate::limits;
use crate::nat::NatDescriptor;
use crate::nat::connectivity::{Attempt, Ticket};
use core::net::SocketAddr;

crate::wire! {
    /// A control message.
    pub enum ControlMsg {
        /// Client: the first message.
        Hello(Hello) = 1,
        /// CN: the answer to `Hello`.
        Welcome(Welcome) = 2,
        /// Client: what it shares has changed.
        Inventory(Inventory) = 3,
        /// CN: tell me all you share, from the first page.
        ReaddRequest(ReaddRequest) = 4,
        /// Client: who has this version?
        Query(Query) = 5,
        /// CN: these.
        Introductions(Introductions) = 6,
        /// CN: why there are none.
        QueryFailed(QueryFailed) = 7,
        /// CN to the chosen uploader: a peer will come.
        Introduce(Introduce) = 8,
        /// Client: what became of an introduction.
        Outcome(Outcome) = 9,
        /// Client: a usage record, in its place in the client's log.
        Usage(Logged) = 10,
        /// CN: these records are durable in the ledger.
        UsageAck(UsageAck) = 11,
        /// Client: uploads or reachability have changed.
        Update(Update) = 12,
        /// CN: it is about to stop; go to another, not before the given time.
        Drain(RetryAfter) = 13,
        /// CN: not now.
        Busy(RetryAfter) = 14,
        /// Either: still there?
        Ping = 15,
        /// Either: still here.
        Pong = 16,
        /// CN: why it closes the connection.
        Refused(Refused) = 17,
        /// Client: my NAT is open for this introduction.
        Opened(Opened) = 18,
        /// CN: both have opened, or had time to: check now.
        Go(Go) = 19,
        /// CN: these are no longer published: stop sharing them.
        Withdraw(Withdraw) = 20,
        /// Client: an introduction ended with bytes that no receipt covers.
        Unreceipted(Unreceipted) = 21,
        /// CN: two copies of this installation run. Take another key; both do, and both go on.
        Rekey = 22,
        /// Client: it has made one, and keeps it.
        Rekeyed(SignedRekey) = 23,
        /// CN: the old GUID's end is durable in the ledger: the new key may be used, and the old one forgotten.
        Retired(Retired) = 24,
    }
}

crate::wire! {
    /// Who the client is. Its key was proven in the TLS handshake; `guid` must be that key's.
    pub struct Hello {
        /// [`super::PROTOCOL`].
        pub protocol: u16,
        /// Who.
        pub guid: Guid,
        /// The secondary GUIDs of the last starts, newest first.
        pub secondary: List<SecondaryGuid, { limits::SECONDARY_GUIDS_MAX }>,
        /// Which start's session this is: rises within one secondary GUID, so that an older session never overwrites
        /// a newer.
        pub incarnation: u64,
        /// K_u: the key of the day, shown to other clients.
        pub upload_key: PublicKey,
        /// The user allows uploads.
        pub uploads: bool,
        /// How it can be reached.
        pub nat: NatDescriptor,
        /// Client version, `major << 16 | minor << 8 | patch`.
        pub client_version: u32,
        /// Operating system and architecture.
        pub platform: Text<32>,
        /// The newest checkpoint of its logs, of whatever CN: a CN that never saw them knows by it how they go on.
        pub checkpoint: Option<SignedCheckpoint>,
    }

    /// The session is open.
    pub struct Welcome {
        /// The highest protocol both speak.
        pub protocol: u16,
        /// The CN's clock, Unix milliseconds: the client measures its offset.
        pub now_ms: u64,
        /// The address the CN sees.
        pub observed: SocketAddr,
        /// Who the CN is.
        pub cert: ServerCert,
        /// The client sends `Ping` after this much silence, in milliseconds.
        pub ping_ms: u32,
        /// The CN knows nothing of this client: it must send its inventory from the first page.
        pub want_inventory: bool,
    }

    /// A page of changes. The pages of a whole inventory carry `reset` on the first and `last` on the last.
    pub struct Inventory {
        /// Rises with each page of a session, from 1; a gap is a protocol error.
        pub seq: u64,
        /// Forget all that came before.
        pub reset: bool,
        /// No more pages for now.
        pub last: bool,
        /// Versions now shared.
        pub add: List<Shared, { limits::INVENTORY_PAGE_MAX }>,
        /// Versions no longer shared.
        pub remove: List<VersionId, { limits::INVENTORY_REMOVED_MAX }>,
    }

    /// A version that a client shares.
    pub struct Shared {
        /// Which.
        pub version: VersionId,
        /// It has every piece.
        pub complete: bool,
    }

    /// See [`ControlMsg::ReaddRequest`].
    pub struct ReaddRequest {
        /// Wait up to this long, drawn at random, in milliseconds.
        pub spread_ms: u32,
    }

    /// See [`ControlMsg::Query`].
    pub struct Query {
        /// Echoed in the answer.
        pub query: u32,
        /// The right to ask.
        pub grant: SealedGrant,
        /// How many peers, at most.
        pub want: u8,
        /// K_u of peers not to be offered: connected or tried already.
        pub exclude: List<PublicKey, { limits::EXCLUDED_MAX }>,
    }

    /// See [`ControlMsg::Introductions`].
    pub struct Introductions {
        /// The query's number.
        pub query: u32,
        /// The peers, best first.
        pub peers: List<IntroducedPeer, { limits::PEERS_PER_ANSWER_MAX }>,
    }

    /// A peer and the right to connect to it.
    pub struct IntroducedPeer {
        /// The right.
        pub intro: SignedIntroduction,
        /// Where to try.
        pub nat: NatDescriptor,
        /// How to meet. Without one the peer is dialled at once.
        pub ticket: Option<Ticket>,
    }

    /// See [`ControlMsg::QueryFailed`].
    pub struct QueryFailed {
        /// The query's number.
        pub query: u32,
        /// Why.
        pub why: QueryError,
        /// Ask again after, in milliseconds.
        pub retry_after_ms: u32,
    }

    /// See [`ControlMsg::Introduce`].
    pub struct Introduce {
        /// The right that the downloader will show.
        pub intro: SignedIntroduction,
        /// Where it will come from.
        pub nat: NatDescriptor,
        /// How to meet.
        pub ticket: Option<Ticket>,
    }

    /// See [`ControlMsg::Outcome`].
    pub struct Outcome {
        /// Which introduction.
        pub intro: IntroId,
        /// How the attempt to connect ended.
        pub attempt: Attempt,
    }

    /// See [`ControlMsg::Opened`].
    pub struct Opened {
        /// Which introduction.
        pub intro: IntroId,
    }

    /// See [`ControlMsg::Go`].
    pub struct Go {
        /// Which introduction.
        pub intro: IntroId,
    }

    /// See [`ControlMsg::UsageAck`].
    pub struct UsageAck {
        /// The records.
        pub ids: List<RecordId, 256>,
        /// The newest place among theirs in the client's log.
        pub checkpoint: Option<SignedCheckpoint>,
    }

    /// See [`ControlMsg::Update`].
    pub struct Update {
        /// The user allows uploads.
        pub uploads: bool,
        /// How the client can be reached.
        pub nat: NatDescriptor,
    }

    /// See [`ControlMsg::Drain`] and [`ControlMsg::Busy`].
    pub struct RetryAfter {
        /// In milliseconds.
        pub retry_after_ms: u32,
    }

    /// See [`ControlMsg::Withdraw`].
    pub struct Withdraw {
        /// The versions.
        pub versions: List<VersionId, { limits::WITHDRAWN_PAGE_MAX }>,
    }

    /// See [`ControlMsg::Unreceipted`]. The newest word on an introduction counts.
    pub struct Unreceipted {
        /// The introduction, as its downloader has shown it.
        pub intro: SignedIntroduction,
        /// Bytes sent that no receipt covers, waste allowed for.
        pub owed: u64,
        /// Bytes receipted.
        pub receipted: u64,
    }

    /// See [`ControlMsg::Retired`].
    pub struct Retired {
        /// The new key's GUID.
        pub new: Guid,
    }

    /// See [`ControlMsg::Refused`].
    pub struct Refused {
        /// Why.
        pub why: Refusal,
    }
}

crate::wire! {
    /// Why a query found nobody.
    pub enum QueryError {
        /// The grant is expired, forged, or of a key epoch that this CN lacks: get a new one.
        Regrant = 1,
        /// The grant is of another client.
        NotYours = 2,
        /// The provider's policy forbids peers for this object.
        PeersForbidden = 3,
        /// More queries than a session may send.
        TooMany = 4,
        /// No DN answers at present.
        Unavailable = 5,
        /// Uploaders were left without receipts for what they gave to this download: for now only the edge serves it.
        Unreceipted = 6,
    }
}
impl Copy for QueryError {}

crate::wire! {
    /// Why a CN closes a session.
    pub enum Refusal {
        /// No protocol in common.
        Protocol = 1,
        /// `guid` is not that of the proven key.
        WrongKey = 2,
        /// A newer session of the same GUID has begun.
        Replaced = 3,
        /// A message that makes no sense at this point.
        Violation = 4,
        /// Silent for too long.
        Idle = 5,
    }
}
impl Copy for Refusal {}
