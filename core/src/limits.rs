//! Every bound of the protocols, with asserts between those that depend on one another (DESIGN §12). A limit that a
//! deployment may want to change is a field of a role's config instead; its default stands here.

/// Bytes of a frame after its length field.
pub const FRAME_LEN_MAX: usize = 64 * 1024;
/// Bytes of a block, the leaf of the Merkle tree (BEP 52).
pub const BLOCK_LEN: u32 = 16 * 1024;
/// The smallest and largest piece.
pub const PIECE_LEN_MIN: u32 = 64 * 1024;
/// See [`PIECE_LEN_MIN`].
pub const PIECE_LEN_MAX: u32 = 16 * 1024 * 1024;
/// Pieces of a version.
pub const PIECES_MAX: u32 = 1 << 21;
/// Blocks of a piece.
pub const BLOCKS_PER_PIECE_MAX: u32 = PIECE_LEN_MAX / BLOCK_LEN;
/// Bytes of an object path or a name in a message.
pub const PATH_LEN_MAX: usize = 1024;
/// Bytes of a server's name.
pub const NAME_LEN_MAX: usize = 64;
/// Entries of an inventory page.
pub const INVENTORY_PAGE_MAX: usize = 1_500;
/// Versions no longer shared that a page of an inventory names beside those.
pub const INVENTORY_REMOVED_MAX: usize = 400;
/// Versions that a directory lists a peer for.
pub const SHARES_PER_PEER_MAX: usize = 65_536;
/// Peers in an answer to a query.
pub const PEERS_PER_ANSWER_MAX: usize = 40;
/// Levels of the Merkle path of an introduction within its answer.
pub const INTRO_PATH_MAX: usize = 6;
/// Addresses of a peer.
pub const CANDIDATES_MAX: usize = 20;
/// Addresses of a peer that STUN servers vouch for.
pub const PROVEN_MAX: usize = 4;
/// TCP endpoints of a peer that was reached there, and ports that it listens on.
pub const DOORS_MAX: usize = 2;
/// Tries of a TCP connection that two peers open at once, by each of them.
pub const CROSSINGS_MAX: u8 = 5;
/// Secondary GUIDs told at login.
pub const SECONDARY_GUIDS_MAX: usize = 5;
/// Peer connections of a client.
pub const PEER_CONNECTIONS_MAX: usize = 64;
/// Requests of one peer that wait to be served.
pub const QUEUED_REQUESTS_MAX: usize = 256;
/// Bytes of a data frame of a peer connection over TCP.
pub const MUX_DATA_MAX: usize = 48 * 1024;
/// Streams of one at a time: one for control, the others a request each.
pub const MUX_STREAMS_MAX: usize = QUEUED_REQUESTS_MAX + 1;
/// Bytes of its streams that have come and were not read.
pub const MUX_UNREAD_MAX: usize = 3 << 20;
/// Bytes of one of its streams that wait to be sent.
pub const MUX_UNSENT_MAX: usize = 256 * 1024;
/// Its frames without data that wait to be sent.
pub const MUX_NOTES_MAX: usize = 4 * MUX_STREAMS_MAX;
/// Bytes that one peer may make a client hold.
pub const PEER_BUFFERED_MAX: usize = 4 << 20;
/// Bytes of a sealed grant, with the object's path.
pub const GRANT_LEN_MAX: usize = 1024 + PATH_LEN_MAX;
/// Bytes of a provider's token.
pub const TOKEN_LEN_MAX: usize = 4096;
/// Keys of a provider that count at a time: the present one and the one before.
pub const PROVIDER_KEYS_MAX: usize = 2;
/// Withdrawn versions that a CN keeps in mind.
pub const WITHDRAWN_MAX: usize = 10_000;
/// Withdrawn versions in a message.
pub const WITHDRAWN_PAGE_MAX: usize = 256;
/// Bytes of a part that a possession challenge may ask for: parts never cross a piece's end.
pub const PART_LEN: u64 = PIECE_LEN_MIN as u64;
/// Parts that one challenge asks for, at most.
pub const PARTS_MAX: usize = 8;
/// Clients that may be in quarantine at a time; those beyond are served like others, and not billed.
pub const QUARANTINED_MAX: usize = 65_536;
/// Of them, those that only follow who was named: the rest of the room is for those that are.
pub const FOLLOWED_MAX: usize = QUARANTINED_MAX / 4 * 3;
/// GUIDs that one GUID may become, one after the other or side by side, and be followed to: far more than there are
/// machines with one image. Who makes more needs no link to make yet another.
pub const HEIRS_MAX: usize = 1_024;
/// Of those in quarantine, in one message of a ledger.
pub const QUARANTINE_PAGE_MAX: usize = 1_024;
/// Bytes of a have-map page; 8 pieces a byte.
pub const HAVE_PAGE_MAX: usize = 32 * 1024;
/// Sources named in a usage record.
pub const USAGE_SOURCES_MAX: usize = 256;
/// Keys a query may exclude.
pub const EXCLUDED_MAX: usize = 256;
/// Bytes that an uploader sends before the first receipt of an introduction.
pub const CREDIT_FIRST: u64 = 1 << 20;
/// Bytes that an uploader sends without receipt, at most.
pub const CREDIT_MAX: u64 = 32 << 20;
/// Anything new is receipted this many seconds after the receipt before.
pub const RECEIPT_EVERY_S: u64 = 5;
/// Bytes of a ledger record.
pub const RECORD_LEN_MAX: usize = 48 * 1024;
/// Bytes of the ranges that an edge has sent of a download, in a record: 2,048 ranges at their longest.
pub const SPANS_LEN_MAX: usize = 40 * 1024;
/// Bytes that an edge reserves of a download before it has sent any, and keeps reserved when it sends none.
pub const RESERVE_FIRST: u64 = 1 << 20;
/// Bytes that an edge reserves ahead of what it sends, at most.
pub const RESERVE_MAX: u64 = 64 << 20;
/// Edges and CNs named by the bootstrap.
pub const SERVERS_MAX: usize = 32;

const _: () = assert!(PIECE_LEN_MIN.is_multiple_of(BLOCK_LEN) && PIECE_LEN_MIN.is_power_of_two());
const _: () = assert!(MUX_DATA_MAX + 64 <= FRAME_LEN_MAX);
// beside what was not read: a frame that has not come whole, and what of two transfers and control waits to be sent
const _: () = assert!(MUX_UNREAD_MAX + FRAME_LEN_MAX + 3 * MUX_UNSENT_MAX <= PEER_BUFFERED_MAX);
const _: () = assert!(PEERS_PER_ANSWER_MAX <= 1 << INTRO_PATH_MAX);
const _: () = assert!(INVENTORY_PAGE_MAX * 34 + INVENTORY_REMOVED_MAX * 32 + 1024 <= FRAME_LEN_MAX);
const _: () = assert!(HAVE_PAGE_MAX + 64 <= FRAME_LEN_MAX);
const _: () = assert!(EXCLUDED_MAX * 32 + GRANT_LEN_MAX + 1024 <= FRAME_LEN_MAX);
const _: () = assert!(USAGE_SOURCES_MAX * 168 + 1024 <= RECORD_LEN_MAX);
const _: () = assert!(SPANS_LEN_MAX + 1024 <= RECORD_LEN_MAX);
const _: () = assert!(RECORD_LEN_MAX + 1024 <= FRAME_LEN_MAX);
