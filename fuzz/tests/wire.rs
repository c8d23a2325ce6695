//! Tests the codec's two promises for every message: decoding and encoding again gives the same bytes, and no bytes
//! make the decoder panic.

use arbitrary::{Arbitrary, Unstructured};
use proptest::prelude::*;
use swarmedge_core::content::Manifest;
use swarmedge_core::wire::control::{ToClient, ToCn};
use swarmedge_core::wire::directory::{FromDn, ToDn};
use swarmedge_core::wire::ledger::{FromLedger, ToLedger};
use swarmedge_core::wire::mux::MuxMsg;
use swarmedge_core::wire::peer::{PeerMsg, PieceAnswer, PieceRequest};
use swarmedge_core::wire::records::{
    LedgerRecord, SealedGrant, ServerCert, SignedGrant, SignedHolderTicket, SignedIntroduction,
};
use swarmedge_core::wire::{DecodeError, Framed, Wire, frame, frame_len};

/// Checks that bytes which decode are encoded to the same bytes again.
fn canonical<T: Wire>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(v) = T::from_bytes(bytes) {
        prop_assert_eq!(v.to_bytes(), bytes);
    }
    Ok(())
}

/// Checks the same for a frame with its extension tail.
fn canonical_frame<M: Wire + Clone>(content: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(Some(framed)) = Framed::<M>::decode(content) {
        let mut again = Vec::new();
        framed.encode(&mut again);
        prop_assert_eq!(&again[4..], content);
    }
    Ok(())
}

/// Checks that an arbitrary value drawn from `seed` survives encoding and decoding; truncated or changed bytes must be
/// refused or be canonical.
fn survives<T: Wire + for<'a> Arbitrary<'a>>(seed: &[u8], (at, to): (usize, u8)) -> Result<(), TestCaseError> {
    let Ok(v) = T::arbitrary(&mut Unstructured::new(seed)) else { return Ok(()) };
    let bytes = v.to_bytes();
    let read = T::from_bytes(&bytes);
    prop_assert!(read.is_ok());
    prop_assert_eq!(read.map(|v| v.to_bytes()), Ok(bytes.clone()));
    for len in [at % (bytes.len() + 1), bytes.len().saturating_sub(1)] {
        canonical::<T>(&bytes[..len])?;
    }
    let mut changed = bytes;
    if !changed.is_empty() {
        let at = at % changed.len();
        changed[at] = to;
        canonical::<T>(&changed)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(512))]

    #[test]
    fn every_message_survives_the_wire(seed in prop::collection::vec(any::<u8>(), 0..3_000), change in any::<(usize, u8)>()) {
        survives::<ToCn>(&seed, change)?;
        survives::<ToClient>(&seed, change)?;
        survives::<ToDn>(&seed, change)?;
        survives::<FromDn>(&seed, change)?;
        survives::<ToLedger>(&seed, change)?;
        survives::<FromLedger>(&seed, change)?;
        survives::<PeerMsg>(&seed, change)?;
        survives::<MuxMsg>(&seed, change)?;
        survives::<PieceRequest>(&seed, change)?;
        survives::<PieceAnswer>(&seed, change)?;
        survives::<SignedGrant>(&seed, change)?;
        survives::<SealedGrant>(&seed, change)?;
        survives::<ServerCert>(&seed, change)?;
        survives::<SignedIntroduction>(&seed, change)?;
        survives::<SignedHolderTicket>(&seed, change)?;
        survives::<LedgerRecord>(&seed, change)?;
    }

    #[test]
    fn random_bytes_are_canonical_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0..20_u8) {
        let typed = [&[kind], &bytes[..]].concat();
        for bytes in [&bytes, &typed] {
            canonical::<ToCn>(bytes)?;
            canonical::<ToClient>(bytes)?;
            canonical::<ToDn>(bytes)?;
            canonical::<FromDn>(bytes)?;
            canonical::<ToLedger>(bytes)?;
            canonical::<FromLedger>(bytes)?;
            canonical::<PeerMsg>(bytes)?;
            canonical::<MuxMsg>(bytes)?;
            canonical::<Manifest>(bytes)?;
            canonical::<SignedGrant>(bytes)?;
            canonical_frame::<ToCn>(bytes)?;
            canonical_frame::<ToClient>(bytes)?;
            canonical_frame::<ToDn>(bytes)?;
            canonical_frame::<FromDn>(bytes)?;
            canonical_frame::<ToLedger>(bytes)?;
            canonical_frame::<FromLedger>(bytes)?;
            canonical_frame::<PeerMsg>(bytes)?;
            let _ = frame_len(bytes);
        }
    }

    #[test]
    fn a_frame_keeps_the_extensions_of_a_later_version(tags in prop::collection::btree_map(any::<u16>(), prop::collection::vec(any::<u8>(), 0..20), 0..4)) {
        let mut content = ToCn::Ping.to_bytes();
        for (tag, bytes) in &tags {
            tag.encode(&mut content);
            u16::try_from(bytes.len()).expect("short").encode(&mut content);
            content.extend(bytes);
        }
        let framed = Framed::<ToCn>::decode(&content).expect("a valid frame").expect("a known type");
        prop_assert_eq!(&framed.msg, &ToCn::Ping);
        canonical_frame::<ToCn>(&content)?;
    }
}

#[test]
fn an_unknown_type_is_skipped_if_optional_and_refused_if_not() {
    assert_eq!(Framed::<ToCn>::decode(&[200, 1, 2, 3]), Ok(None));
    assert_eq!(Framed::<ToCn>::decode(&[100, 1, 2, 3]), Err(DecodeError::UnknownType(100)));
}

#[test]
fn extensions_out_of_order_or_twice_are_refused() {
    let with = |tags: &[u16]| {
        let mut content = ToCn::Ping.to_bytes();
        tags.iter().for_each(|t| content.extend([&t.to_be_bytes()[..], &[0, 0]].concat()));
        Framed::<ToCn>::decode(&content)
    };
    assert!(matches!(with(&[1, 2]), Ok(Some(_))));
    assert_eq!(with(&[2, 1]), Err(DecodeError::Invalid));
    assert_eq!(with(&[1, 1]), Err(DecodeError::Invalid));
}

#[test]
fn a_count_is_checked_before_anything_is_allocated() {
    // an inventory that claims 384 versions but has none; another that claims four billion
    let inventory = |count: u32| {
        let mut bytes = vec![3];
        1_u64.encode(&mut bytes);
        bytes.extend([0, 0]);
        0_u32.encode(&mut bytes);
        count.encode(&mut bytes);
        ToCn::from_bytes(&bytes)
    };
    assert_eq!(inventory(384), Err(DecodeError::Truncated));
    assert_eq!(inventory(u32::MAX), Err(DecodeError::TooLong));
}

#[test]
fn a_frame_with_an_absurd_length_is_refused() {
    let bytes = frame(&ToCn::Ping);
    assert_eq!(frame_len(&bytes), Ok(Some(5)));
    assert_eq!(frame_len(&bytes[..4]), Ok(None));
    assert_eq!(frame_len(&[0; 4]), Err(DecodeError::Invalid));
    assert_eq!(frame_len(&[0, 2, 0, 0]), Err(DecodeError::TooLong));
}
