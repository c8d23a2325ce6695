//! Encoding of the journal's values: the canonical wire encoding, preceded by a format number if a value may be
//! extended.

use swarmedge_core::content::Policy;
use swarmedge_core::ids::{DownloadId, Handle, IntroId, PublicKey, VersionId};
use swarmedge_core::role::client::io::{
    CopyTerms, DownloadRecord, DownloadState, FailReason, Granted, KeptReceipt, ObjectRef, SourceName,
};
use swarmedge_core::wire::records::{SealedGrant, SignedHolderTicket};
use swarmedge_core::wire::{DecodeError, Reader, Wire};

/// The longest path of an output file (PATH_MAX of Linux).
const OUTPUT_LEN_MAX: usize = 4096;
/// First byte of a download's value: its current format.
const DOWNLOAD_FORMAT: u8 = 4;
/// The download format without `active_ms` and `replace`.
const DOWNLOAD_FORMAT_1: u8 = 1;
/// The download format without `replace`.
const DOWNLOAD_FORMAT_2: u8 = 2;
/// The download format without `ticket`.
const DOWNLOAD_FORMAT_3: u8 = 3;

fn put_text(text: &str, out: &mut Vec<u8>) {
    u32::try_from(text.len()).unwrap_or(u32::MAX).encode(out);
    out.extend_from_slice(text.as_bytes());
}

fn take_text(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let len = usize::try_from(u32::decode(r)?).map_err(|_| DecodeError::TooLong)?;
    if len > OUTPUT_LEN_MAX {
        return Err(DecodeError::TooLong);
    }
    std::str::from_utf8(r.take(len)?).map(str::to_owned).map_err(|_| DecodeError::Invalid)
}

fn put_ticket(ticket: Option<&SignedHolderTicket>, out: &mut Vec<u8>) {
    ticket.is_some().encode(out);
    if let Some(ticket) = ticket {
        ticket.encode(out);
    }
}

fn take_ticket(r: &mut Reader<'_>) -> Result<Option<Box<SignedHolderTicket>>, DecodeError> {
    Option::decode(r).map(|ticket| ticket.map(Box::new))
}

/// Encodes a download's record; `None` if its output path is longer than the journal allows.
pub(crate) fn encode_download(d: &DownloadRecord) -> Option<Vec<u8>> {
    if d.object.path.len() > OUTPUT_LEN_MAX || d.output.len() > OUTPUT_LEN_MAX {
        return None;
    }
    let mut out = vec![DOWNLOAD_FORMAT];
    d.handle.0.encode(&mut out);
    d.object.provider.encode(&mut out);
    put_text(&d.object.path, &mut out);
    put_text(&d.output, &mut out);
    d.usage_seq.encode(&mut out);
    d.active_ms.encode(&mut out);
    d.replace.encode(&mut out);
    out.push(state_number(d.state));
    d.granted.is_some().encode(&mut out);
    if let Some(g) = &d.granted {
        g.download.encode(&mut out);
        g.download_key.encode(&mut out);
        g.version.encode(&mut out);
        g.size.encode(&mut out);
        g.policy.encode(&mut out);
        g.order_seed.encode(&mut out);
        g.expires_ms.encode(&mut out);
        g.sealed.encode(&mut out);
        put_ticket(g.ticket.as_deref(), &mut out);
    }
    Some(out)
}

/// Decodes a value of [`encode_download`].
pub(crate) fn decode_download(bytes: &[u8]) -> Result<DownloadRecord, DecodeError> {
    let mut r = Reader::new(bytes);
    let format = u8::decode(&mut r)?;
    if !(DOWNLOAD_FORMAT_1..=DOWNLOAD_FORMAT).contains(&format) {
        return Err(DecodeError::Invalid);
    }
    let r = &mut r;
    let handle = Handle(Wire::decode(r)?);
    let object = ObjectRef { provider: Wire::decode(r)?, path: take_text(r)? };
    let output = take_text(r)?;
    let usage_seq = Wire::decode(r)?;
    let active_ms = if format >= DOWNLOAD_FORMAT_2 { Wire::decode(r)? } else { 0 };
    let replace = if format >= DOWNLOAD_FORMAT_3 { Wire::decode(r)? } else { false };
    let state = state_of(u8::decode(r)?)?;
    let granted = if bool::decode(r)? {
        Some(Granted {
            download: DownloadId::decode(r)?,
            download_key: PublicKey::decode(r)?,
            version: VersionId::decode(r)?,
            size: Wire::decode(r)?,
            policy: Policy::decode(r)?,
            order_seed: Wire::decode(r)?,
            expires_ms: Wire::decode(r)?,
            sealed: SealedGrant::decode(r)?,
            ticket: if format == DOWNLOAD_FORMAT { take_ticket(r)? } else { None },
        })
    } else {
        None
    };
    r.end()?;
    Ok(DownloadRecord { handle, object, output, replace, granted, state, usage_seq, active_ms })
}

/// Returns the number of a download's state in the journal.
const fn state_number(state: DownloadState) -> u8 {
    match state {
        DownloadState::Starting => 1,
        DownloadState::Running => 2,
        DownloadState::Paused => 3,
        DownloadState::Completed => 4,
        DownloadState::Failed(FailReason::NotFound) => 16,
        DownloadState::Failed(FailReason::Forbidden) => 17,
        DownloadState::Failed(FailReason::EdgeUnreachable) => 18,
        DownloadState::Failed(FailReason::VersionGone) => 19,
        DownloadState::Failed(FailReason::NoSpace) => 20,
        DownloadState::Failed(FailReason::Io) => 21,
        DownloadState::Failed(FailReason::EdgeCorrupt) => 22,
        DownloadState::Failed(FailReason::OutputTaken) => 23,
        DownloadState::Failed(FailReason::Expired) => 24,
        DownloadState::Failed(FailReason::TokenExpired) => 25,
        DownloadState::Failed(FailReason::Blocked) => 26,
    }
}

/// Returns the state with this number in the journal.
const fn state_of(number: u8) -> Result<DownloadState, DecodeError> {
    Ok(match number {
        1 => DownloadState::Starting,
        2 => DownloadState::Running,
        3 => DownloadState::Paused,
        4 => DownloadState::Completed,
        16 => DownloadState::Failed(FailReason::NotFound),
        17 => DownloadState::Failed(FailReason::Forbidden),
        18 => DownloadState::Failed(FailReason::EdgeUnreachable),
        19 => DownloadState::Failed(FailReason::VersionGone),
        20 => DownloadState::Failed(FailReason::NoSpace),
        21 => DownloadState::Failed(FailReason::Io),
        22 => DownloadState::Failed(FailReason::EdgeCorrupt),
        23 => DownloadState::Failed(FailReason::OutputTaken),
        24 => DownloadState::Failed(FailReason::Expired),
        25 => DownloadState::Failed(FailReason::TokenExpired),
        26 => DownloadState::Failed(FailReason::Blocked),
        _ => return Err(DecodeError::Invalid),
    })
}

/// Encodes the terms of a copy.
pub(crate) fn encode_terms(terms: &CopyTerms) -> Vec<u8> {
    let mut out = Vec::new();
    terms.policy.encode(&mut out);
    terms.spent.encode(&mut out);
    put_ticket(terms.ticket.as_deref(), &mut out);
    out
}

/// Decodes a value of [`encode_terms`].
pub(crate) fn decode_terms(bytes: &[u8]) -> Result<CopyTerms, DecodeError> {
    let mut r = Reader::new(bytes);
    let (policy, spent) = (Wire::decode(&mut r)?, Wire::decode(&mut r)?);
    let terms = CopyTerms { policy, spent, ticket: take_ticket(&mut r)? };
    r.end()?;
    Ok(terms)
}

/// Encodes a receipt.
pub(crate) fn encode_receipt(kept: &KeptReceipt) -> Vec<u8> {
    let mut out = Vec::new();
    kept.download.encode(&mut out);
    kept.version.encode(&mut out);
    kept.peer.encode(&mut out);
    out
}

/// Decodes a value of [`encode_receipt`].
pub(crate) fn decode_receipt(bytes: &[u8]) -> Result<KeptReceipt, DecodeError> {
    let mut r = Reader::new(bytes);
    let download = DownloadId::decode(&mut r)?;
    let kept = KeptReceipt { download, version: Wire::decode(&mut r)?, peer: Wire::decode(&mut r)? };
    r.end()?;
    Ok(kept)
}

/// Source that stands for a peer whose name was deleted.
const NAMELESS: SourceName = SourceName::Peer(IntroId([0; IntroId::LEN]), PublicKey([0; 32]));

/// Returns whether a source is a peer whose name is still stored.
pub(crate) fn names_a_peer(source: SourceName) -> bool {
    !matches!(source, SourceName::Edge) && source != NAMELESS
}

/// Returns the byte counts with all peers' names removed.
pub(crate) fn nameless(from: &[(SourceName, u32)]) -> Vec<(SourceName, u32)> {
    let name = |source| if source == SourceName::Edge { source } else { NAMELESS };
    from.iter().map(|(source, bytes)| (name(*source), *bytes)).collect()
}

/// Encodes a journalled piece: the download that fetched it, and the number of its bytes from each source.
pub(crate) fn encode_piece(handle: Handle, from: &[(SourceName, u32)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + from.len() * 53);
    handle.0.encode(&mut out);
    for (source, bytes) in from {
        match source {
            SourceName::Edge => out.push(0),
            SourceName::Peer(intro, key) => {
                out.push(1);
                intro.encode(&mut out);
                key.encode(&mut out);
            }
        }
        bytes.encode(&mut out);
    }
    out
}

/// Decodes a value of [`encode_piece`].
pub(crate) fn decode_piece(bytes: &[u8]) -> Result<(Handle, Vec<(SourceName, u32)>), DecodeError> {
    let mut r = Reader::new(bytes);
    let handle = Handle(Wire::decode(&mut r)?);
    let mut from = Vec::new();
    while !r.rest().is_empty() {
        let source = match u8::decode(&mut r)? {
            0 => SourceName::Edge,
            1 => SourceName::Peer(IntroId::decode(&mut r)?, PublicKey::decode(&mut r)?),
            _ => return Err(DecodeError::Invalid),
        };
        from.push((source, Wire::decode(&mut r)?));
    }
    Ok((handle, from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::ids::ProviderId;
    use swarmedge_core::wire::Blob;

    #[test]
    fn every_state_of_a_download_reads_back() {
        for number in 0..=u8::MAX {
            let Ok(state) = state_of(number) else { continue };
            assert_eq!(state_number(state), number);
            let sealed = SealedGrant { epoch: 3, nonce: [7; 24], sealed: Blob::new(vec![1; 99]).expect("short") };
            let granted = Granted {
                download: DownloadId::numbered(1),
                download_key: PublicKey::numbered(3),
                version: VersionId::numbered(2),
                size: 5,
                policy: Policy::default(),
                order_seed: 9,
                expires_ms: 10,
                sealed,
                ticket: (number % 3 == 0).then(|| Box::new(super::super::crash_tests::ticket(VersionId::numbered(2)))),
            };
            let record = DownloadRecord {
                handle: Handle(4),
                object: ObjectRef { provider: ProviderId(1), path: "a/b".into() },
                output: "/o".into(),
                replace: number % 3 == 0,
                granted: (number % 2 == 0).then_some(granted),
                state,
                usage_seq: 8,
                active_ms: 9,
            };
            let bytes = encode_download(&record).expect("short texts");
            assert_eq!(decode_download(&bytes), Ok(record));
            assert!(decode_download(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn the_sources_of_a_piece_read_back() {
        let from =
            vec![(SourceName::Edge, 16), (SourceName::Peer(IntroId::numbered(5), PublicKey::numbered(6)), u32::MAX)];
        assert_eq!(decode_piece(&encode_piece(Handle(7), &from)), Ok((Handle(7), from)));
        assert!(decode_piece(&[0, 0, 0, 1, 9]).is_err());
    }
}
