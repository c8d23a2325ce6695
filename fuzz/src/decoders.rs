//! Fuzz bodies for decoders: each decoded value must have a single encoding, and no bytes may cause a panic.

use crate::play::value;
use std::fmt::Debug;
use swarmedge_core::accounting::Trust;
use swarmedge_core::content::{Bitfield, Manifest};
use swarmedge_core::ids::PublicKey;
use swarmedge_core::nat::NatDescriptor;
use swarmedge_core::nat::stun;
use swarmedge_core::notice::{NoticeError, check};
use swarmedge_core::wire::control::{ToClient, ToCn};
use swarmedge_core::wire::notice::{Notice, SignedNotice, Terms};
use swarmedge_core::wire::peer::{PeerMsg, PieceAnswer, PieceRequest};
use swarmedge_core::wire::records::{
    EdgeRecord, LedgerRecord, SealedGrant, ServedRecord, SignedGrant, SignedHolderTicket, SignedIntroduction,
    SignedReceipt, SignedRekey, UsageRecord,
};
use swarmedge_core::wire::{Framed, Wire, frame_len};

/// Time at which the certificate of the golden messages is valid, Unix milliseconds.
const NOW_MS: u64 = 3;

/// Checks that a frame's content is the only encoding of its message.
pub(crate) fn framed<M: Wire + Clone + PartialEq + Debug>(content: &[u8]) {
    if let Ok(Some(frame)) = Framed::<M>::decode(content) {
        let mut back = Vec::new();
        frame.encode(&mut back);
        assert_eq!(&back[4..], content, "another encoding of the same message");
    }
}

/// Checks a frame's content against the messages of both directions of a protocol. A message that is known in both
/// directions can only be the keep-alive, of one byte.
pub(crate) fn both_ways<A: Wire + Clone + PartialEq + Debug, B: Wire + Clone + PartialEq + Debug>(content: &[u8]) {
    framed::<A>(content);
    framed::<B>(content);
    if let (Ok(Some(a)), Ok(Some(b))) = (Framed::<A>::decode(content), Framed::<B>::decode(content)) {
        assert_eq!((a.msg.to_bytes().len(), b.msg.to_bytes().len()), (1, 1), "one number for two messages");
    }
}

pub(crate) fn decode_peer(bytes: &[u8]) {
    framed::<PeerMsg>(bytes);
    value::<PieceRequest>(bytes);
    value::<PieceAnswer>(bytes);
    if let (Ok(PeerMsg::HaveMap(map)), Some(&n)) = (PeerMsg::from_bytes(bytes), bytes.first()) {
        let _ = Bitfield::from_bytes(u32::from(n), &map.bits);
    }
}

pub(crate) fn decode_records(bytes: &[u8]) {
    value::<LedgerRecord>(bytes);
    value::<UsageRecord>(bytes);
    value::<SignedReceipt>(bytes);
    value::<EdgeRecord>(bytes);
    value::<ServedRecord>(bytes);
    value::<SignedGrant>(bytes);
    value::<SealedGrant>(bytes);
    value::<SignedIntroduction>(bytes);
    value::<SignedHolderTicket>(bytes);
    value::<SignedRekey>(bytes);
    value::<NatDescriptor>(bytes);
}

/// Checks a notice's encoding, and that the statement of a notice with a valid signature decodes.
pub(crate) fn decode_notice(bytes: &[u8]) {
    value::<Notice>(bytes);
    value::<SignedNotice>(bytes);
    value::<Terms>(bytes);
    let trust = Trust { root: PublicKey::numbered(1), verify: |_, _, _, _| true };
    let signed = SignedNotice::from_bytes(bytes);
    if let Ok(notice) = signed.map_err(|_| NoticeError::Unknown).and_then(|signed| check(&trust, NOW_MS, &signed)) {
        assert!(notice.serial > 0 && notice.terms().is_some(), "a notice that nobody can obey: {notice:?}");
    }
}

/// Splits a stream of bytes into frames, as a connection's reader does, and decodes each frame in every protocol.
pub(crate) fn decode_frame(mut stream: &[u8]) {
    while let Ok(Some(n)) = frame_len(stream) {
        assert!(n > 4 && n <= stream.len(), "a frame of {n} bytes in {}", stream.len());
        both_ways::<ToCn, ToClient>(&stream[4..n]);
        stream = &stream[n..];
    }
}

pub(crate) fn decode_manifest(bytes: &[u8]) {
    if let Ok(m) = Manifest::from_bytes(bytes) {
        assert_eq!(m.to_bytes(), bytes, "another encoding of the same manifest");
        assert_eq!(m.roots().len(), m.layout().pieces() as usize);
    }
}

pub(crate) fn decode_stun(bytes: &[u8]) {
    let _ = stun::integrity::check(bytes, b"key");
    if let Ok(mut m) = stun::Message::decode(bytes) {
        m.unknown.clear();
        let again = stun::Message::decode(&m.encode());
        assert_eq!(again.as_ref(), Ok(&m), "a message changed on its way through the codec");
    }
}

/// Checks decoders of answers and requests of port-mapping gateways (PCP, NAT-PMP).
pub(crate) fn decode_mapping(bytes: &[u8]) {
    use swarmedge_core::nat::mapping::{natpmp, pcp};
    if let Ok(answer) = pcp::Answer::decode(bytes) {
        assert_eq!(pcp::Answer::decode(&answer.encode()), Ok(answer), "an answer changed on its way");
    }
    if let Ok(request) = pcp::decode_request(bytes) {
        assert_eq!(pcp::decode_request(&request.encode()), Ok(request), "a request changed on its way");
    }
    if let Ok(answer) = natpmp::Answer::decode(bytes) {
        assert_eq!(natpmp::Answer::decode(&answer.encode()), Ok(answer), "an answer changed on its way");
    }
    if let Ok(request) = natpmp::Request::decode(bytes) {
        assert_eq!(natpmp::Request::decode(&request.encode()), Ok(request), "a request changed on its way");
    }
}
