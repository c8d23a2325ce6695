//! Changes of the journal's records, and how a commit writes them to its tables.

use super::journal::{
    CACHE, CHECKPOINT, DOWNLOADS, HARD_LINKED, KEYS, LEAVES, MANIFESTS, META, NOTICES, OWNER, PARTS, PIECES, RECEIPTS,
    STALE, TERMS, USAGE, WHY, decoded, piece_key,
};
use super::journal_key::JournalKey;
use super::records;
use redb::{ReadableTable as _, TableDefinition, TableHandle as _, WriteTransaction};
use std::io;
use swarmedge_core::content::Policy;
use swarmedge_core::ids::{DownloadId, Guid, Handle, PieceIndex, RecordId, VersionId};
use swarmedge_core::role::client::io::{CopyTerms, DownloadRecord, DownloadState, KeptReceipt, SourceName};
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::notice::{Notice, Terms};
use swarmedge_core::wire::records::{Side, SignedCheckpoint, SignedHolderTicket, UsageRecord, UsageState};
use swarmedge_ground::database::{bad, io_error};

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// First byte of a piece's value in the journal: whether the rest is encrypted, as it is if the value names a peer.
const PLAIN: u8 = 0;
const SEALED: u8 = 1;

/// A change of one record in the journal.
#[derive(Debug)]
pub(super) enum Change {
    Download(DownloadRecord),
    DropDownload(Handle),
    Piece {
        version: VersionId,
        piece: PieceIndex,
        handle: Handle,
        from: Vec<(SourceName, u32)>,
        leaves: Vec<u8>,
    },
    Cached {
        version: VersionId,
        at_ms: u64,
    },
    Uncached(VersionId),
    HardLinked(VersionId),
    NotHardLinked(VersionId),
    /// A partial output file in a user's directory exists (`there`), or no longer exists.
    Part {
        path: Vec<u8>,
        there: bool,
    },
    DropVersion(VersionId),
    DropPieces {
        version: VersionId,
        pieces: Vec<PieceIndex>,
    },
    Manifest {
        version: VersionId,
        bytes: Vec<u8>,
    },
    Key {
        download: DownloadId,
        bytes: Vec<u8>,
    },
    DropKey(DownloadId),
    Receipt(KeptReceipt),
    Usage(UsageRecord),
    DropUsage(Vec<RecordId>),
    /// The newest notice about a version, which replaces the earlier one.
    Notice(VersionId, Notice),
    DropNotice(VersionId),
    Checkpoint(Box<SignedCheckpoint>),
    Owner(Guid),
    Uploads(bool),
    Terms {
        version: VersionId,
        terms: CopyTerms,
    },
    /// Explanation of why a download has peers or none.
    Why {
        handle: Handle,
        text: Vec<u8>,
    },
}

pub(super) fn put_meta(tx: &WriteTransaction, name: &str, value: &[u8]) -> io::Result<()> {
    tx.open_table(META).map_err(io_error)?.insert(name, value).map_err(io_error).map(drop)
}

fn put(tx: &WriteTransaction, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
    tx.open_table(table).map_err(io_error)?.insert(key, value).map_err(io_error).map(drop)
}

fn delete(tx: &WriteTransaction, table: Table, key: &[u8]) -> io::Result<()> {
    tx.open_table(table).map_err(io_error)?.remove(key).map_err(io_error).map(drop)
}

/// Applies changes within a transaction. Returns whether a deleted record named peers, and records that fact in the
/// journal too.
pub(super) fn apply<'a>(
    tx: &WriteTransaction,
    secret: &JournalKey,
    changes: impl Iterator<Item = &'a Change>,
) -> io::Result<bool> {
    let mut stale = false;
    for change in changes {
        stale |= apply_one(tx, secret, change)?;
    }
    if stale {
        put_meta(tx, STALE, &[])?;
    }
    Ok(stale)
}

fn apply_one(tx: &WriteTransaction, secret: &JournalKey, change: &Change) -> io::Result<bool> {
    match change {
        Change::Download(d) => {
            let value = records::encode_download(d).ok_or_else(|| bad("the path of the file is too long"))?;
            let mut table = tx.open_table(DOWNLOADS).map_err(io_error)?;
            table.insert(d.handle.0, value.as_slice()).map_err(io_error)?;
            if let Some(granted) = &d.granted {
                let noticed = noticed_policy(tx, granted.version)?;
                let policy = noticed.as_ref().unwrap_or(&granted.policy);
                put_policy(tx, granted.version, policy, granted.ticket.as_deref())?;
            }
        }
        Change::DropDownload(handle) => {
            tx.open_table(DOWNLOADS).map_err(io_error)?.remove(handle.0).map_err(io_error)?;
            tx.open_table(WHY).map_err(io_error)?.remove(handle.0).map_err(io_error)?;
        }
        Change::Why { handle, text } => {
            tx.open_table(WHY).map_err(io_error)?.insert(handle.0, text.as_slice()).map_err(io_error)?;
        }
        Change::Piece { version, piece, handle, from, leaves } => {
            let key = piece_key(*version, *piece);
            put(tx, LEAVES, &key, leaves)?;
            put(tx, PIECES, &key, &seal_piece(secret, &key, *handle, from)?)?;
        }
        Change::Cached { version, at_ms } => {
            tx.open_table(CACHE).map_err(io_error)?.insert(version.0.as_slice(), at_ms).map_err(io_error)?;
        }
        Change::Uncached(version) => {
            tx.open_table(CACHE).map_err(io_error)?.remove(version.0.as_slice()).map_err(io_error)?;
        }
        Change::HardLinked(version) => put(tx, HARD_LINKED, &version.0, &[])?,
        Change::NotHardLinked(version) => delete(tx, HARD_LINKED, &version.0)?,
        Change::Part { path, there: true } => put(tx, PARTS, path, &[])?,
        Change::Part { path, there: false } => delete(tx, PARTS, path)?,
        Change::DropVersion(version) => drop_version(tx, *version)?,
        Change::DropPieces { version, pieces } => {
            for key in pieces.iter().map(|piece| piece_key(*version, *piece)) {
                delete(tx, PIECES, &key)?;
                delete(tx, LEAVES, &key)?;
            }
        }
        Change::Manifest { version, bytes } => put(tx, MANIFESTS, &version.0, bytes)?,
        Change::Key { download, bytes } => put(tx, KEYS, &download.0, bytes)?,
        Change::DropKey(download) => delete(tx, KEYS, &download.0)?,
        Change::Receipt(kept) => {
            let row = secret.row(kept.peer.intro);
            let sealed = secret.seal(RECEIPTS.name(), &row, &records::encode_receipt(kept))?;
            put(tx, RECEIPTS, &row, &sealed)?;
        }
        Change::Usage(record) => put_usage(tx, secret, record)?,
        Change::DropUsage(ids) => ids.iter().try_for_each(|id| drop_usage(tx, secret, *id))?,
        Change::Notice(version, notice) => {
            put(tx, NOTICES, &version.0, &notice.to_bytes())?;
            if let Some((_, Terms::Policy(policy))) = notice.terms() {
                put_policy(tx, *version, &policy, None)?;
            }
        }
        Change::DropNotice(version) => delete(tx, NOTICES, &version.0)?,
        Change::Checkpoint(newest) => put_meta(tx, CHECKPOINT, &newest.to_bytes())?,
        Change::Owner(guid) => return put_owner(tx, *guid),
        Change::Uploads(on) => put_meta(tx, "uploads", &[u8::from(*on)])?,
        Change::Terms { version, terms } => put(tx, TERMS, &version.0, &records::encode_terms(terms))?,
    }
    Ok(matches!(change, Change::DropUsage(_) | Change::DropVersion(_) | Change::DropPieces { .. }))
}

/// Returns the policy in the newest notice about a version, which overrides the policy in grants.
fn noticed_policy(tx: &WriteTransaction, version: VersionId) -> io::Result<Option<Policy>> {
    let table = tx.open_table(NOTICES).map_err(io_error)?;
    let Some(row) = table.get(version.0.as_slice()).map_err(io_error)? else { return Ok(None) };
    let notice = decoded(Notice::from_bytes(row.value()))?;
    Ok(notice.terms().and_then(|(_, terms)| if let Terms::Policy(policy) = terms { Some(policy) } else { None }))
}

/// Stores a version's policy, and a newer holder's ticket if there is one. Keeps the stored number of bytes sent to
/// peers.
fn put_policy(
    tx: &WriteTransaction,
    version: VersionId,
    policy: &Policy,
    newer: Option<&SignedHolderTicket>,
) -> io::Result<()> {
    let table = tx.open_table(TERMS).map_err(io_error)?;
    let before = table.get(version.0.as_slice()).map_err(io_error)?.map(|v| decoded(records::decode_terms(v.value())));
    drop(table);
    let (spent, ticket) = before.transpose()?.map_or((0, None), |terms| (terms.spent, terms.ticket));
    let terms = CopyTerms { policy: policy.clone(), spent, ticket: newer.cloned().map(Box::new).or(ticket) };
    put(tx, TERMS, &version.0, &records::encode_terms(&terms))
}

fn drop_version(tx: &WriteTransaction, version: VersionId) -> io::Result<()> {
    let (first, last) = (piece_key(version, PieceIndex(0)), piece_key(version, PieceIndex(u32::MAX)));
    for table in [PIECES, LEAVES] {
        let mut table = tx.open_table(table).map_err(io_error)?;
        table.retain_in(first.as_slice()..=last.as_slice(), |_, _| false).map_err(io_error)?;
    }
    delete(tx, HARD_LINKED, &version.0)?;
    delete(tx, TERMS, &version.0)?;
    delete(tx, MANIFESTS, &version.0)
}

fn put_owner(tx: &WriteTransaction, guid: Guid) -> io::Result<bool> {
    let before = tx.open_table(META).map_err(io_error)?.get(OWNER).map_err(io_error)?.map(|v| v.value().to_vec());
    let changed = before.is_some_and(|before| before != guid.0);
    if changed {
        for table in [USAGE, RECEIPTS] {
            tx.delete_table(table).map_err(io_error)?;
            tx.open_table(table).map_err(io_error)?;
        }
        tx.open_table(META).map_err(io_error)?.remove(CHECKPOINT).map_err(io_error)?;
    }
    put_meta(tx, OWNER, &guid.0)?;
    Ok(changed)
}

fn put_usage(tx: &WriteTransaction, secret: &JournalKey, record: &UsageRecord) -> io::Result<()> {
    put(tx, USAGE, &record.id.0, &secret.seal(USAGE.name(), &record.id.0, &record.to_bytes())?)?;
    // receipts that the usage record contains need no rows of their own
    let mut table = tx.open_table(RECEIPTS).map_err(io_error)?;
    for peer in record.peers.iter().filter(|p| p.receipt.is_some()) {
        let row = secret.row(peer.intro);
        let sealed = table.get(row.as_slice()).map_err(io_error)?.map(|v| v.value().to_vec());
        let Some(sealed) = sealed else { continue };
        let kept = decoded(records::decode_receipt(&secret.unseal(RECEIPTS.name(), &row, &sealed)?))?;
        if kept.is_in(record) {
            table.remove(row.as_slice()).map_err(io_error)?;
        }
    }
    Ok(())
}

/// Deletes a usage record that the ledger has acknowledged, and the peers' names from the pieces of its download, since
/// they are no longer needed.
fn drop_usage(tx: &WriteTransaction, secret: &JournalKey, id: RecordId) -> io::Result<()> {
    let mut table = tx.open_table(USAGE).map_err(io_error)?;
    let Some(sealed) = table.remove(id.0.as_slice()).map_err(io_error)?.map(|v| v.value().to_vec()) else {
        return Ok(());
    };
    let record = decoded(UsageRecord::from_bytes(&secret.unseal(USAGE.name(), &id.0, &sealed)?))?;
    if record.side == Side::Downloader { forget_sources(tx, secret, &record) } else { Ok(()) }
}

fn forget_sources(tx: &WriteTransaction, secret: &JournalKey, record: &UsageRecord) -> io::Result<()> {
    let downloads = tx.open_table(DOWNLOADS).map_err(io_error)?;
    let over = |handle: Handle| -> io::Result<bool> {
        let Some(row) = downloads.get(handle.0).map_err(io_error)? else { return Ok(true) };
        let download = decoded(records::decode_download(row.value()))?;
        let is_its = download.granted.is_some_and(|g| g.download == record.download);
        Ok(is_its && download.state == DownloadState::Completed && record.state == UsageState::Completed)
    };
    let (first, last) = (piece_key(record.version, PieceIndex(0)), piece_key(record.version, PieceIndex(u32::MAX)));
    let mut pieces = tx.open_table(PIECES).map_err(io_error)?;
    let mut anew = Vec::new();
    for row in pieces.range(first.as_slice()..=last.as_slice()).map_err(io_error)? {
        let (key, value) = row.map_err(io_error)?;
        if value.value().first() == Some(&PLAIN) {
            continue;
        }
        let (handle, from) = decoded(records::decode_piece(&unseal_piece(secret, key.value(), value.value())?))?;
        if over(handle)? {
            anew.push((key.value().to_vec(), seal_piece(secret, key.value(), handle, &records::nameless(&from))?));
        }
    }
    for (key, value) in anew {
        pieces.insert(key.as_slice(), value.as_slice()).map_err(io_error)?;
    }
    Ok(())
}

fn seal_piece(secret: &JournalKey, key: &[u8], handle: Handle, from: &[(SourceName, u32)]) -> io::Result<Vec<u8>> {
    let plain = records::encode_piece(handle, from);
    if from.iter().any(|(source, _)| records::names_a_peer(*source)) {
        Ok([&[SEALED], secret.seal(PIECES.name(), key, &plain)?.as_slice()].concat())
    } else {
        Ok([&[PLAIN], plain.as_slice()].concat())
    }
}

/// Decrypts a piece's value if it is encrypted; [`records::decode_piece`] reads the result.
pub(super) fn unseal_piece(secret: &JournalKey, key: &[u8], value: &[u8]) -> io::Result<Vec<u8>> {
    match value.split_first() {
        Some((&PLAIN, plain)) => Ok(plain.to_vec()),
        Some((&SEALED, sealed)) => secret.unseal(PIECES.name(), key, sealed),
        _ => Err(bad("a piece of no known kind")),
    }
}

/// Re-encrypts every encrypted record with another key.
pub(super) fn seal_anew(tx: &WriteTransaction, old: &JournalKey, new: &JournalKey) -> io::Result<()> {
    rewrite(tx, USAGE, |key, sealed| {
        let plain = old.unseal(USAGE.name(), key, sealed)?;
        Ok(Some((key.to_vec(), new.seal(USAGE.name(), key, &plain)?)))
    })?;
    rewrite(tx, RECEIPTS, |key, sealed| {
        let plain = old.unseal(RECEIPTS.name(), key, sealed)?;
        let row = new.row(decoded(records::decode_receipt(&plain))?.peer.intro);
        Ok(Some((row.to_vec(), new.seal(RECEIPTS.name(), &row, &plain)?)))
    })?;
    rewrite(tx, PIECES, |key, value| {
        let Some((&SEALED, sealed)) = value.split_first() else { return Ok(None) };
        let sealed = new.seal(PIECES.name(), key, &old.unseal(PIECES.name(), key, sealed)?)?;
        Ok(Some((key.to_vec(), [&[SEALED], sealed.as_slice()].concat())))
    })
}

type Row = (Vec<u8>, Vec<u8>);

/// Replaces each row of a table for which `anew` returns a new row.
fn rewrite(
    tx: &WriteTransaction,
    table: Table,
    anew: impl Fn(&[u8], &[u8]) -> io::Result<Option<Row>>,
) -> io::Result<()> {
    let mut table = tx.open_table(table).map_err(io_error)?;
    let mut rows = Vec::new();
    for row in table.iter().map_err(io_error)? {
        let (key, value) = row.map_err(io_error)?;
        rows.extend(anew(key.value(), value.value())?.map(|new| (key.value().to_vec(), new)));
    }
    for (old, (key, value)) in rows {
        table.remove(old.as_slice()).map_err(io_error)?;
        table.insert(key.as_slice(), value.as_slice()).map_err(io_error)?;
    }
    Ok(())
}
