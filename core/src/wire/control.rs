//! Messages of the control connection between client and CN: frames over TLS on TCP, persistent. Each direction has
//! an enum of its own, so a message sent in the wrong direction does not decode. Message numbers are unique over both
//! enums.

use super::notice::{Known, SignedNotice};
use super::records::{
    HolderTicket, Logged, SealedGrant, ServerCert, SignedCheckpoint, SignedHolderTicket, SignedIntroduction,
    SignedRekey,
};
use super::{List, Text};
use crate::ids::{Guid, IntroId, PieceIndex, ProviderId, PublicKey, RecordId, SecondaryGuid, Signature, VersionId};
use crate::limits;
use crate::nat::NatDescriptor;
use crate::nat::connectivity::{Attempt, Ticket};
use core::net::SocketAddr;

crate::wire! {
    /// Message from a client to its CN.
    pub enum ToCn {
        /// First message of the client: opens a session.
        Hello(Hello) = 1,
        /// Client's list of changes to the versions that it shares, or one page of it.
        Inventory(Inventory) = 3,
        /// Client's request for peers that hold a version.
        Query(Query) = 5,
        /// Client's report of the result of an attempt to connect to an introduced peer.
        Outcome(Outcome) = 9,
        /// Client's usage record, with its position in the client's log.
        Usage(Logged) = 10,
        /// Client's notice that its upload setting or its reachability has changed.
        Update(Update) = 12,
        /// Keep-alive request of either side, answered by `Pong`.
        Ping = 15,
        /// Answer of either side to `Ping`.
        Pong = 16,
        /// Uploader's notice that its NAT now lets packets of the introduced downloader in.
        Opened(Opened) = 18,
        /// Uploader's report that an introduction ended with bytes sent that no receipt covers.
        Unreceipted(Unreceipted) = 21,
        /// Client's notice of its new key, created after [`ToClient::Rekey`] and already stored on disk.
        Rekeyed(SignedRekey) = 23,
        /// Downloader's report that an introduced peer, to which it was connected, has sent a wrong block.
        Blame(Blame) = 25,
        /// Client's newest durable notices about the versions that it holds: after the login, and as acknowledgement.
        NoticesHeld(NoticeList) = 30,
    }
}

crate::wire! {
    /// Message from a CN to its client.
    pub enum ToClient {
        /// CN's answer to `Hello`: the session is open.
        Welcome(Welcome) = 2,
        /// CN's request for the complete list of versions that the client shares, from the first page.
        ReaddRequest(ReaddRequest) = 4,
        /// CN's answer to a query: peers with permission to connect.
        Introductions(Introductions) = 6,
        /// CN's answer to a query that yields no peers, with the reason.
        QueryFailed(QueryFailed) = 7,
        /// CN's notice to the chosen uploader that a downloader will connect.
        Introduce(Introduce) = 8,
        /// CN's acknowledgement of usage records that the ledger has stored durably.
        UsageAck(UsageAck) = 11,
        /// CN's notice that it will stop: reconnect to another CN, not before the given time.
        Drain(RetryAfter) = 13,
        /// CN's refusal of a new session while overloaded: retry after the given time.
        Busy(RetryAfter) = 14,
        /// Keep-alive request of either side, answered by `Pong`.
        Ping = 15,
        /// Answer of either side to `Ping`.
        Pong = 16,
        /// CN's last message before it closes the connection, with the reason.
        Refused(Refused) = 17,
        /// CN's signal to both peers of an introduction to start connectivity checks now: they have opened their
        /// NATs, or had time to.
        Go(Go) = 19,
        /// CN's notice that two copies of this installation run: each copy must create a new key, and may continue.
        Rekey = 22,
        /// CN's notice that the ledger has stored the client's change of key: use the new key and delete the old one.
        Retired(Retired) = 24,
        /// CN's request to hash the copy of a version again, since downloaders have blamed this client.
        CheckCopy(CheckCopy) = 26,
        /// CN's list of subjects with newer notices, sent to all clients; a client answers with those that concern it.
        NoticesChanged(NoticeList) = 31,
        /// Newest notice about a version that the client holds; repeated until [`ToCn::NoticesHeld`] acknowledges it.
        Notice(SignedNotice) = 32,
        /// CN's notice that it does not offer some of the client's copies, since their holder's tickets are not valid.
        TicketsRefused(TicketsRefused) = 33,
    }
}

crate::wire! {
    /// Client's identity and state, its first message in a session. The TLS handshake has proven its key; `guid` must
    /// be derived from that key.
    pub struct Hello {
        /// Highest protocol version the client speaks: [`super::PROTOCOL`].
        pub protocol: u16,
        /// Client's GUID, derived from its TLS key.
        pub guid: Guid,
        /// Secondary GUIDs of the client's last starts, newest first.
        pub secondary: List<SecondaryGuid, { limits::SECONDARY_GUIDS_MAX }>,
        /// Session number, rising from session to session of one start of the client, so that an older session never
        /// overwrites a newer one.
        pub incarnation: u64,
        /// Client's public upload key, new each day, by which other clients recognise it as an uploader.
        pub upload_key: PublicKey,
        /// Whether the user allows uploads.
        pub uploads: bool,
        /// Client's candidate addresses and NAT behaviour, for peers.
        pub nat: NatDescriptor,
        /// Client version, `major << 16 | minor << 8 | patch`.
        pub client_version: u32,
        /// Operating system and architecture.
        pub platform: Text<32>,
        /// Newest signed checkpoint of the client's log of usage records, from any CN; a CN that never received
        /// records of this log learns from it how the log continues.
        pub checkpoint: Option<SignedCheckpoint>,
    }

    /// CN's acceptance of the session.
    pub struct Welcome {
        /// The highest protocol version that client and CN both speak.
        pub protocol: u16,
        /// The CN's clock, Unix milliseconds: the client measures its offset.
        pub now_ms: u64,
        /// Client's address as the CN sees it.
        pub observed: SocketAddr,
        /// CN's certificate, signed by the operator's root.
        pub cert: ServerCert,
        /// The client sends `Ping` after this much silence, in milliseconds.
        pub ping_ms: u32,
        /// Whether the client must send the complete list of versions that it shares, because the CN does not have
        /// it.
        pub want_inventory: bool,
    }

    /// A page of changes to the list of versions that a client shares. If the pages contain the complete list, the
    /// first has `reset` set. The last page has `last` set.
    pub struct Inventory {
        /// Page number within the session, from 1; a gap is a protocol error.
        pub seq: u64,
        /// Whether the receiver discards everything from earlier pages.
        pub reset: bool,
        /// Whether no more pages follow for now.
        pub last: bool,
        /// Certificates of the edges that have signed the tickets in `add`.
        pub certs: List<ServerCert, { limits::TICKET_CERTS_MAX }>,
        /// Versions the client shares from now on.
        pub add: List<Held, { limits::TICKETS_PAGE_MAX }>,
        /// Versions the client no longer shares.
        pub remove: List<VersionId, { limits::INVENTORY_REMOVED_MAX }>,
    }

    /// A version that a client shares, with the ticket by which an edge has granted it to the client.
    pub struct Held {
        /// Version of which the client holds pieces.
        pub version: VersionId,
        /// Whether the client holds every piece.
        pub complete: bool,
        /// Holder's ticket for the version.
        pub ticket: ShownTicket,
    }

    /// Holder's ticket ([`super::records::HolderTicket`]) without client and version, which its page names.
    pub struct ShownTicket {
        /// Provider of the object.
        pub provider: ProviderId,
        /// Serial number of the newest notice about the version at the time of issue; 0: there was none.
        pub policy_serial: u64,
        /// Time of issue, Unix milliseconds.
        pub issued_ms: u64,
        /// Expiry of the object by its policy at the time of issue, Unix milliseconds; 0: none.
        pub until_ms: u64,
        /// Index in [`Inventory::certs`] of the signing edge's certificate.
        pub cert: u8,
        /// Edge's signature over the encoding of the whole ticket.
        pub signature: Signature,
    }

    /// A version that a client shares.
    pub struct Shared {
        /// Version of which the client holds pieces.
        pub version: VersionId,
        /// Whether the client holds every piece.
        pub complete: bool,
    }

    /// Request for the complete list of versions that a client shares, delayed at random so that many clients do not
    /// answer at once.
    pub struct ReaddRequest {
        /// Upper bound of the random delay before the answer, in milliseconds.
        pub spread_ms: u32,
    }

    /// Request for peers that hold the granted version.
    pub struct Query {
        /// Query number chosen by the client, echoed in the answer.
        pub query: u32,
        /// Sealed grant that permits the download, and so the query.
        pub grant: SealedGrant,
        /// Most peers the client wants in the answer.
        pub want: u8,
        /// Upload keys of peers that must not be offered, because the client is connected to them or has tried to.
        pub exclude: List<PublicKey, { limits::EXCLUDED_MAX }>,
    }

    /// Answer to a query: the peers that the client may connect to.
    pub struct Introductions {
        /// Query number, copied from the query.
        pub query: u32,
        /// Introduced peers, best first.
        pub peers: List<IntroducedPeer, { limits::PEERS_PER_ANSWER_MAX }>,
    }

    /// Introduced peer: permission to connect, and where to reach it.
    pub struct IntroducedPeer {
        /// CN-signed permission to connect to the peer.
        pub intro: SignedIntroduction,
        /// Peer's candidate addresses and NAT behaviour.
        pub nat: NatDescriptor,
        /// Schedule for hole punching; `None`: the downloader dials the peer at once.
        pub ticket: Option<Ticket>,
    }

    /// Answer to a query that yields no peers.
    pub struct QueryFailed {
        /// Query number, copied from the query.
        pub query: u32,
        /// Reason that no peers are returned.
        pub why: QueryError,
        /// Delay before the client may query again, in milliseconds.
        pub retry_after_ms: u32,
    }

    /// Notice to an uploader that a downloader will connect to it.
    pub struct Introduce {
        /// Introduction that the downloader will present when it connects.
        pub intro: SignedIntroduction,
        /// Downloader's candidate addresses and NAT behaviour.
        pub nat: NatDescriptor,
        /// Schedule for hole punching; `None` if the downloader dials this client directly.
        pub ticket: Option<Ticket>,
    }

    /// Result of one attempt to connect to an introduced peer.
    pub struct Outcome {
        /// Introduction that the message is about.
        pub intro: IntroId,
        /// Result of the attempt to connect.
        pub attempt: Attempt,
    }

    /// Uploader's notice that its NAT now lets an introduced downloader's packets in.
    pub struct Opened {
        /// Introduction that the message is about.
        pub intro: IntroId,
    }

    /// CN's signal to start connectivity checks with a peer.
    pub struct Go {
        /// Introduction that the message is about.
        pub intro: IntroId,
    }

    /// Acknowledgement of durably stored usage records.
    pub struct UsageAck {
        /// Ids of the usage records that the ledger stores.
        pub ids: List<RecordId, 256>,
        /// CN-signed checkpoint of the newest log position among these records.
        pub checkpoint: Option<SignedCheckpoint>,
    }

    /// Changed upload setting or reachability of a client.
    pub struct Update {
        /// Whether the user allows uploads.
        pub uploads: bool,
        /// Client's new candidate addresses and NAT behaviour.
        pub nat: NatDescriptor,
    }

    /// Delay of [`ToClient::Drain`] and [`ToClient::Busy`].
    pub struct RetryAfter {
        /// Least delay before the client reconnects, in milliseconds.
        pub retry_after_ms: u32,
    }

    /// Subjects of notices, each with the serial number of the newest notice that the sender has.
    pub struct NoticeList {
        /// Subjects and serial numbers.
        pub notices: List<Known, { limits::NOTICES_PAGE_MAX }>,
    }

    /// Uploader's report of bytes without receipt; a newer report on the same introduction replaces it.
    pub struct Unreceipted {
        /// Introduction of the transfer, as its downloader presented it.
        pub intro: SignedIntroduction,
        /// Bytes sent that no receipt covers, less an eighth of the receipted bytes, which may have been wasted.
        pub owed: u64,
        /// Bytes that the downloader's receipts cover.
        pub receipted: u64,
    }

    /// Confirmation that the ledger has stored a client's change of key, so that its old GUID is no longer used.
    pub struct Retired {
        /// GUID derived from the new key.
        pub new: Guid,
    }

    /// Downloader's report of a wrong block. It is a vote, not a proof: blocks are not signed by who sends them.
    pub struct Blame {
        /// Introduction under which the block was sent.
        pub intro: IntroId,
        /// Piece of the block.
        pub piece: PieceIndex,
        /// Index of the block within the piece: the first one whose hash was not that in the manifest's tree.
        pub block: u32,
    }

    /// Request to hash the copy of a version again, and to share only what is right.
    pub struct CheckCopy {
        /// Version whose copy is in doubt.
        pub version: VersionId,
    }

    /// Copies whose holder's tickets are not valid.
    pub struct TicketsRefused {
        /// Versions of the copies.
        pub versions: List<VersionId, { limits::TICKETS_PAGE_MAX }>,
    }

    /// CN's last message before it closes a session.
    pub struct Refused {
        /// Reason that the session is closed.
        pub why: Refusal,
    }
}

crate::wire! {
    /// Reasons that a query yields no peers.
    pub enum QueryError {
        /// The grant has expired, is forged, or is sealed with a key that this CN does not have: the client must get
        /// a new grant.
        Regrant = 1,
        /// The grant was issued to another client.
        NotYours = 2,
        /// The provider's policy forbids peers for this object.
        PeersForbidden = 3,
        /// The session has sent more queries than allowed.
        TooMany = 4,
        /// No DN answers at present; retry later.
        Unavailable = 5,
        /// The download gave its uploaders no receipts for some bytes, so for a time it gets no peers.
        Unreceipted = 6,
        /// The operator has limited peering for this installation.
        Limited = 7,
        /// The object's version is no longer published.
        Withdrawn = 8,
        /// No other client shares the version at present; retry later.
        NotShared = 9,
        /// Others share the version, but none of them can connect with this client; retry later.
        Unreachable = 10,
        /// All who share the version and can be reached are known to the download already; retry later.
        AllKnown = 11,
        /// The download has been offered as many peers as it may be offered for now; retry later.
        OffersSpent = 12,
    }
}
impl Copy for QueryError {}

crate::wire! {
    /// Reasons that a CN closes a session.
    pub enum Refusal {
        /// Client and CN share no protocol version.
        Protocol = 1,
        /// The client's GUID does not match the key that its TLS handshake proved.
        WrongKey = 2,
        /// A newer session of the same GUID has begun.
        Replaced = 3,
        /// The client sent a message that is not allowed at this point.
        Violation = 4,
        /// The client sent nothing for too long.
        Idle = 5,
        /// The client's version is older than the operator lets take part: the edges alone serve it.
        Outdated = 6,
    }
}
impl Copy for Refusal {}

impl Held {
    /// Returns a shared version with its ticket. `cert`: index in the page of the signing edge's certificate.
    #[must_use]
    pub const fn new(complete: bool, signed: &SignedHolderTicket, cert: u8) -> Self {
        let HolderTicket { guid: _, version, provider, policy_serial, issued_ms, until_ms } = signed.ticket;
        let signature = signed.signature;
        let ticket = ShownTicket { provider, policy_serial, issued_ms, until_ms, cert, signature };
        Self { version, complete, ticket }
    }

    /// Returns the whole ticket as the client `guid` shows it; `None` if the page lacks the edge's certificate.
    #[must_use]
    pub fn signed_ticket(&self, guid: Guid, certs: &[ServerCert]) -> Option<SignedHolderTicket> {
        let ShownTicket { provider, policy_serial, issued_ms, until_ms, cert, signature } = self.ticket;
        let ticket = HolderTicket { guid, version: self.version, provider, policy_serial, issued_ms, until_ms };
        Some(SignedHolderTicket { ticket, signature, cert: certs.get(usize::from(cert))?.clone() })
    }
}
