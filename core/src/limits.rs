//! Bounds of the protocols, with assertions between those that depend on one another. A limit that a deployment may
//! want to change is a field of a role's configuration.

/// Longest frame, in bytes after its length field.
pub const FRAME_LEN_MAX: usize = 64 * 1024;
/// Bytes of a block, a leaf of the Merkle tree (BEP 52).
pub const BLOCK_LEN: u32 = 16 * 1024;
/// Bytes of the smallest piece.
pub const PIECE_LEN_MIN: u32 = 64 * 1024;
/// Bytes of the largest piece.
pub const PIECE_LEN_MAX: u32 = 16 * 1024 * 1024;
/// Most pieces of a version.
pub const PIECES_MAX: u32 = 1 << 21;
/// Most blocks of a piece.
pub const BLOCKS_PER_PIECE_MAX: u32 = PIECE_LEN_MAX / BLOCK_LEN;
/// Longest object path or name in a message, in bytes.
pub const PATH_LEN_MAX: usize = 1024;
/// Longest name of a server, in bytes.
pub const NAME_LEN_MAX: usize = 64;
/// Most versions that a CN adds in one message to a directory.
pub const INVENTORY_PAGE_MAX: usize = 1_500;
/// Most versions, each with its holder's ticket, that one page of a client's list of shared versions adds.
pub const TICKETS_PAGE_MAX: usize = 384;
/// Most edges' certificates in one page of a client's list of shared versions, by which its tickets were signed.
pub const TICKET_CERTS_MAX: usize = 8;
/// Most versions that one page of a client's list of shared versions removes.
pub const INVENTORY_REMOVED_MAX: usize = 400;
/// Most versions for which a directory lists one peer.
pub const SHARES_PER_PEER_MAX: usize = 65_536;
/// Most peers in the answer to a query.
pub const PEERS_PER_ANSWER_MAX: usize = 40;
/// Most hashes in the Merkle path of an introduction, whose answer is one Merkle tree.
pub const INTRO_PATH_MAX: usize = 6;
/// Most candidate addresses in a peer's NAT descriptor.
pub const CANDIDATES_MAX: usize = 20;
/// Most addresses of a peer with a STUN server's confirmation that the peer receives packets there.
pub const PROVEN_MAX: usize = 4;
/// Most TCP addresses at which a server could connect to a peer, and most TCP ports that the peer listens on.
pub const DOORS_MAX: usize = 2;
/// Most attempts by each of two peers at a simultaneous TCP open.
pub const CROSSINGS_MAX: u8 = 5;
/// Most secondary GUIDs that a login names.
pub const SECONDARY_GUIDS_MAX: usize = 5;
/// Most peer connections of a client.
pub const PEER_CONNECTIONS_MAX: usize = 64;
/// Most requests of one peer for blocks that wait to be served.
pub const QUEUED_REQUESTS_MAX: usize = 256;
/// Most data in one frame of a peer connection over TCP, in bytes.
pub const MUX_DATA_MAX: usize = 48 * 1024;
/// Most open streams of a peer connection over TCP: one for control, one for each request.
pub const MUX_STREAMS_MAX: usize = QUEUED_REQUESTS_MAX + 1;
/// Most bytes received on a peer connection over TCP that the client has not read yet (flow control).
pub const MUX_UNREAD_MAX: usize = 3 << 20;
/// Most bytes that wait to be sent on one stream of a peer connection over TCP.
pub const MUX_UNSENT_MAX: usize = 256 * 1024;
/// Most frames without data that wait to be sent on a peer connection over TCP.
pub const MUX_NOTES_MAX: usize = 4 * MUX_STREAMS_MAX;
/// Most memory that one peer can make a client use for buffers, in bytes.
pub const PEER_BUFFERED_MAX: usize = 4 << 20;
/// Longest sealed grant, in bytes, including the object's path.
pub const GRANT_LEN_MAX: usize = 1024 + PATH_LEN_MAX;
/// Longest provider's token, in bytes.
pub const TOKEN_LEN_MAX: usize = 4096;
/// Most token keys of a provider in use at a time: the present one and the one before.
pub const PROVIDER_KEYS_MAX: usize = 2;
/// Most unpublished versions that an edge remembers, and most that a client does.
pub const WITHDRAWN_MAX: usize = 10_000;
/// Longest statement of a notice, in bytes.
pub const NOTICE_BODY_MAX: usize = 4 * 1024;
/// Longest encoding of a notice, in bytes.
pub const NOTICE_LEN_MAX: usize = NOTICE_BODY_MAX + 64;
/// Most notices that a CN keeps, one a subject.
pub const NOTICES_MAX: usize = 16_384;
/// Most subjects in one message about notices.
pub const NOTICES_PAGE_MAX: usize = 1_024;
/// Most notices that wait for the acknowledgement of one session.
pub const NOTICES_WAITING_MAX: usize = 1_024;
/// Most notices that wait for the acknowledgement of all sessions of a CN.
pub const ALL_NOTICES_WAITING_MAX: usize = 1 << 20;
/// Most notices that are sent to one session and not acknowledged.
pub const NOTICES_UNACKED_MAX: usize = 64;
/// Bytes of a part in a possession challenge. Parts never cross a piece's end.
pub const PART_LEN: u64 = PIECE_LEN_MIN as u64;
/// Most parts that one challenge asks for.
pub const PARTS_MAX: usize = 8;
/// Most clients in quarantine at a time; clients beyond that are served like others, but not billed.
pub const QUARANTINED_MAX: usize = 65_536;
/// Most clients in quarantine because they took a new key under a quarantined GUID; the rest of [`QUARANTINED_MAX`]
/// is for GUIDs that an operator named.
pub const FOLLOWED_MAX: usize = QUARANTINED_MAX / 4 * 3;
/// Most GUIDs to which a quarantine is extended because they replaced the quarantined GUID, directly or through
/// others.
pub const HEIRS_MAX: usize = 1_024;
/// Most quarantined clients in one message of the ledger.
pub const QUARANTINE_PAGE_MAX: usize = 1_024;
/// Longest page of a have-map (a bit for each piece that a peer has), in bytes of 8 pieces each.
pub const HAVE_PAGE_MAX: usize = 32 * 1024;
/// Most introductions for which one usage record reports bytes.
pub const USAGE_SOURCES_MAX: usize = 256;
/// Most peers that a query may exclude.
pub const EXCLUDED_MAX: usize = 256;
/// Bytes that an uploader sends over an introduction before the first receipt.
pub const CREDIT_FIRST: u64 = 1 << 20;
/// Largest number of bytes that an uploader sends over an introduction without receipt.
pub const CREDIT_MAX: u64 = 32 << 20;
/// Longest time between a downloader's receipts while new bytes arrive, in seconds.
pub const RECEIPT_EVERY_S: u64 = 5;
/// Longest ledger record, in bytes.
pub const RECORD_LEN_MAX: usize = 48 * 1024;
/// Longest encoding of the byte ranges that an edge has sent of a download, in bytes: 2,048 ranges with the longest
/// numbers.
pub const SPANS_LEN_MAX: usize = 40 * 1024;
/// Smallest number of bytes that an edge reserves beyond those it has sent of a download. The reservation is made
/// before the first byte is sent, and kept while nothing is sent.
pub const RESERVE_FIRST: u64 = 1 << 20;
/// Largest number of bytes that an edge reserves beyond those it has sent of a download.
pub const RESERVE_MAX: u64 = 64 << 20;
/// Most edges, and most CNs, in the bootstrap document, from which a client learns its servers.
pub const SERVERS_MAX: usize = 32;

const _: () = assert!(PIECE_LEN_MIN.is_multiple_of(BLOCK_LEN) && PIECE_LEN_MIN.is_power_of_two());
const _: () = assert!(MUX_DATA_MAX + 64 <= FRAME_LEN_MAX);
// besides unread bytes: one incomplete frame, and the bytes that wait to be sent on two transfers and control
const _: () = assert!(MUX_UNREAD_MAX + FRAME_LEN_MAX + 3 * MUX_UNSENT_MAX <= PEER_BUFFERED_MAX);
const _: () = assert!(PEERS_PER_ANSWER_MAX <= 1 << INTRO_PATH_MAX);
const _: () = assert!(INVENTORY_PAGE_MAX * 34 + INVENTORY_REMOVED_MAX * 32 + 1024 <= FRAME_LEN_MAX);
const _: () = assert!(TICKETS_PAGE_MAX <= INVENTORY_PAGE_MAX);
const _: () =
    assert!(TICKETS_PAGE_MAX * 126 + TICKET_CERTS_MAX * 256 + INVENTORY_REMOVED_MAX * 32 + 1024 <= FRAME_LEN_MAX);
const _: () = assert!(HAVE_PAGE_MAX + 64 <= FRAME_LEN_MAX);
const _: () = assert!(EXCLUDED_MAX * 32 + GRANT_LEN_MAX + 1024 <= FRAME_LEN_MAX);
const _: () = assert!(USAGE_SOURCES_MAX * 168 + 1024 <= RECORD_LEN_MAX);
const _: () = assert!(SPANS_LEN_MAX + 1024 <= RECORD_LEN_MAX);
const _: () = assert!(RECORD_LEN_MAX + 1024 <= FRAME_LEN_MAX);
const _: () = assert!(NOTICE_LEN_MAX + 1024 <= FRAME_LEN_MAX);
const _: () = assert!(NOTICES_PAGE_MAX * 41 + 64 <= FRAME_LEN_MAX);
