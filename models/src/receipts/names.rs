//! Names and keys of the nodes and introductions in the [world of receipts](super).

use super::{PIECE, PIECES, SIZE};
use crate::scenario::{Name, Role};
use crate::sim::keys;
use crate::world::NodeIx;
use swarmedge_core::accounting::introductions;
use swarmedge_core::content::{Bitfield, Layout};
use swarmedge_core::ids::{ConnId, DownloadId, IntroId, PieceIndex, PublicKey, VersionId};
use swarmedge_core::wire::records::{Introduction, ServerRole, SignedIntroduction, SigningContext};

pub(super) fn layout() -> Layout {
    Layout::new(SIZE, 64 * 1024).expect("a layout")
}

pub(super) fn bytes(piece: PieceIndex) -> u64 {
    if piece.0 + 1 == PIECES { SIZE - PIECE } else { PIECE }
}

/// Returns the pieces that an uploader has. The second uploader has only the small piece: two identical uploaders
/// would double the number of states without new behaviour.
pub(super) fn has(up: NodeIx) -> Bitfield {
    if up == 1 { Bitfield::full(PIECES) } else { Bitfield::from_bytes(PIECES, &[0b0100_0000]).expect("two bits") }
}

pub(super) fn download_key() -> PublicKey {
    PublicKey::numbered(0xd)
}

/// Returns the id of an uploader's `visit`-th introduction; the connection's id encodes the same two numbers.
pub(super) fn intro_id(up: NodeIx, visit: u8) -> IntroId {
    IntroId::numbered(u32::from(up) << 8 | u32::from(visit))
}

pub(super) fn conn(intro: IntroId) -> ConnId {
    ConnId(u64::from(u32::from_be_bytes([intro.0[12], intro.0[13], intro.0[14], intro.0[15]])))
}

pub(super) fn uploader(conn: ConnId) -> NodeIx {
    NodeIx::try_from(conn.0 >> 8).unwrap_or(0)
}

pub(super) fn intro_of(conn: ConnId) -> IntroId {
    IntroId::numbered(u32::try_from(conn.0).unwrap_or(0))
}

/// Returns an introduction to the model's one download.
pub(super) fn introduction(id: IntroId) -> Introduction {
    Introduction {
        id,
        download: DownloadId::numbered(1),
        version: VersionId::numbered(1),
        downloader_key: download_key(),
        uploader_key: keys::upload_key(uploader(conn(id))),
        connect_before_ms: u64::MAX,
        serve_until_ms: u64::MAX,
        cap_bytes: SIZE,
    }
}

pub(super) fn shown(id: IntroId) -> SignedIntroduction {
    let intros = std::vec![introduction(id)];
    let cert = keys::cert(Name(Role::Cn, 0), ServerRole::Cn);
    let signature = keys::sign(&cert.body.key, SigningContext::Introductions, &introductions::root(&intros).0);
    introductions::sign(intros, signature, &cert).remove(0)
}
