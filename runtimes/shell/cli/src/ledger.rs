//! `ledger show` (records and billed bytes), `ledger forks` (logs that contradict themselves), `ledger backup` and
//! `ledger erase`.

use super::args::{LedgerBackupArgs, LedgerEraseArgs, LedgerForksArgs, LedgerShowArgs};
use super::audit::ledger_of;
use super::objects::print_json;
use super::{Code, Error};
use std::collections::BTreeMap;
use swarmedge_core::accounting::logs::Fork;
use swarmedge_core::ids::{DownloadId, Guid, ProviderId, RecordId};
use swarmedge_core::wire::records::{SignedHead, SignedRekey};
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::out::say;
use swarmedge_ground::terminal::units::{bytes, percent};
use swarmedge_ledger::backup::backup;
use swarmedge_ledger::erase;
use swarmedge_ledger::{Database, DownloadUsage, Filter, PlainUsage, Reader, Store};

/// Reads the usage of one download; `None` if the ledger has no record. The demo calls this.
pub(super) fn ask<R: Start>(database: &Database, download: DownloadId) -> Result<Option<DownloadUsage>, Error> {
    let filter = Filter { download: Some(download), ..Filter::default() };
    let (downloads, _, _) = read::<R>(database.clone(), filter)?;
    Ok(downloads.into_iter().next())
}

/// Runs the command `swarmedge ledger show`.
pub(super) fn show<R: Start>(args: &LedgerShowArgs, json: bool) -> Result<(), Error> {
    let ledger = ledger_of(&args.config.config)?;
    let parse = |id: &String| {
        id.parse::<DownloadId>()
            .map_err(|e| Error::usage(format!("{id:?}: {e}")).next("an id has 32 hexadecimal digits"))
    };
    let filter = Filter {
        provider: args.provider.map(ProviderId),
        path: args.path.clone(),
        download: args.download.as_ref().map(parse).transpose()?,
    };
    let one = filter.download.is_some();
    let (downloads, plain, set_aside) = read::<R>(ledger.database, filter)?;
    if one && downloads.is_empty() {
        return Err(Error::new(Code::NotFound, "the ledger knows no such download"));
    }
    let plain = if one || args.path.is_some() { Vec::new() } else { plain };
    if json {
        let record = |(id, why): &(RecordId, String)| serde_json::json!({"id": id.to_string(), "why": why});
        let set_aside: Vec<_> = set_aside.iter().map(record).collect();
        return print_json(&serde_json::json!({"downloads": downloads, "plain": plain, "set_aside": set_aside}));
    }
    say!("{}", text(&downloads, &plain, one).trim_end())?;
    if let Some((id, why)) = set_aside.first() {
        say!("{} records were refused by the database and set aside; they count for nothing", set_aside.len())?;
        say!("  the first is {id}: {why}")?;
    }
    Ok(())
}

/// Runs the command `swarmedge ledger forks`.
pub(super) fn forks<R: Start>(args: &LedgerForksArgs, json: bool) -> Result<(), Error> {
    let ledger = ledger_of(&args.config.config)?;
    let database = ledger.database;
    let (forks, retired) = R::block_on(|_| async move {
        let mut reader = Reader::open(&database).await?;
        Ok::<_, Error>((reader.forks().await?, reader.retired().await?))
    })?;
    if json {
        let head = |s: &SignedHead| {
            serde_json::json!({
                "start": s.head.start.to_string(), "place": s.head.place, "before": s.head.before.to_string(),
                "digest": s.head.digest.to_string(), "key": s.key.to_string(), "signature": s.signature.to_string(),
            })
        };
        let fork = |f: &Fork| serde_json::json!({"guid": f.guid.to_string(), "heads": f.heads.iter().map(head).collect::<Vec<_>>()});
        let rekey = |(at_ms, s): &(u64, SignedRekey)| {
            serde_json::json!({
                "guid": Guid::of(&s.rekey.old).to_string(), "new_guid": Guid::of(&s.rekey.new).to_string(),
                "start": s.rekey.start.to_string(), "at_ms": at_ms, "key": s.rekey.old.to_string(),
                "new_key": s.rekey.new.to_string(), "signature": s.by_old.to_string(),
                "new_signature": s.by_new.to_string(),
            })
        };
        let forks: Vec<_> = forks.iter().map(fork).collect();
        let retired: Vec<_> = retired.iter().map(rekey).collect();
        return print_json(&serde_json::json!({"forks": forks, "retired": retired}));
    }
    for (_, SignedRekey { rekey, .. }) in &retired {
        let (old, new) = (Guid::of(&rekey.old), Guid::of(&rekey.new));
        say!("client {old} has become {new}: copies of it ran, and this was start {}", rekey.start)?;
    }
    if forks.is_empty() {
        return say!("no log contradicts itself");
    }
    for f in &forks {
        let [a, b] = &f.heads;
        say!("client {}: two heads of log {} contradict each other, both under key {}", f.guid, a.head.start, a.key)?;
        for s in [a, b] {
            say!("  place {}: digest {} after {}", s.head.place, s.head.digest, s.head.before)?;
        }
    }
    say!("{} of a kind that restored or cloned machines leave behind; --json prints the signatures", forks.len())
}

/// Runs the command `swarmedge ledger erase`.
pub(super) fn erase<R: Start>(args: &LedgerEraseArgs, json: bool) -> Result<(), Error> {
    let database = ledger_of(&args.config.config)?.database;
    database.check_there()?;
    let text = &args.guid;
    let guid: Guid =
        text.parse().map_err(|e| Error::usage(format!("{text:?}: {e}")).next("a GUID has 32 hexadecimal digits"))?;
    let erased = R::block_on(move |_| async move {
        let mut store = Store::open(&database).await?;
        let erased = erase::erase(&mut store, guid).await;
        store.close().await;
        erased
    })?;
    if json {
        return print_json(&erased);
    }
    say!("client {guid}: events erased: {}; downloads whose records are erased: {}", erased.events, erased.downloads)?;
    if erased.open_downloads > 0 {
        say!("  {} downloads of days that are not closed yet stay: erase again then", erased.open_downloads)?;
    }
    Ok(())
}

/// Runs the command `swarmedge ledger backup`.
pub(super) fn back_up<R: Start>(args: &LedgerBackupArgs, json: bool) -> Result<(), Error> {
    let database = ledger_of(&args.config.config)?.database;
    let file = args.file.clone();
    let copied = R::block_on(move |_| async move { backup(&database, &file).await })?;
    if json {
        return print_json(&copied);
    }
    let (file, size) = (args.file.display(), bytes(copied.bytes));
    say!("{file}: {size}, {} records and {} closed days, read back", copied.records, copied.days)
}

type Books = (Vec<DownloadUsage>, Vec<PlainUsage>, Vec<(RecordId, String)>);

fn read<R: Start>(database: Database, filter: Filter) -> Result<Books, Error> {
    R::block_on(|_| async move {
        let mut reader = Reader::open(&database).await?;
        let plain = reader.plain(filter.provider).await?;
        Ok((reader.downloads(&filter).await?, plain, reader.set_aside().await?))
    })
}

fn text(downloads: &[DownloadUsage], plain: &[PlainUsage], details: bool) -> String {
    let mut text = String::new();
    if downloads.is_empty() && plain.is_empty() {
        return "nothing is recorded\n".into();
    }
    if !downloads.is_empty() {
        text += "download                          state      object                        size      edge  peers billed   share\n";
    }
    for d in downloads {
        let object = format!("{}/{}", d.provider, d.path);
        text += &format!(
            "{:32}  {:9}  {object:24} {:>9} {:>9} {:>13} {:>7}\n",
            d.download,
            d.state,
            bytes(d.size),
            bytes(d.edge_unique),
            bytes(d.peers_billed),
            percent(d.peers_billed, d.peers_billed.saturating_add(d.edge_unique)),
        );
        if details {
            text += &of_one(d);
        }
    }
    let mut totals: BTreeMap<u32, (u64, u64, u64)> = BTreeMap::new();
    for d in downloads {
        let t = totals.entry(d.provider).or_default();
        *t = (t.0.saturating_add(d.edge_unique), t.1.saturating_add(d.peers_billed), t.2);
    }
    for p in plain {
        let t = &mut totals.entry(p.provider).or_default().2;
        *t = t.saturating_add(p.bytes);
    }
    let outstanding = downloads.iter().filter(|d| d.edge_claimed > d.edge_unique).count();
    if outstanding > 0 {
        text += &format!(
            "of {outstanding} of these the client says that more came from edges than is on record: edges tell what they \
             have sent some seconds later\n"
        );
    }
    for (provider, (edge, peers, plain)) in totals {
        text += &format!(
            "provider {provider}: {} from edges to clients, {} from peers, {} plain HTTPS\n",
            bytes(edge),
            bytes(peers),
            bytes(plain)
        );
    }
    text
}

/// Returns the text about one download: bytes of the edge and of peers, as counted and as reported.
fn of_one(d: &DownloadUsage) -> String {
    let mut text = format!(
        "  client {}\n  version {}\n  edge: {} bytes sent once each, {} in all; the client says {}\n  \
         peers: {} bytes received, {} sent, {} billed; {} flagged\n",
        d.guid,
        d.version,
        d.edge_unique,
        d.edge_total,
        d.edge_claimed,
        d.peers_received,
        d.peers_sent,
        d.peers_billed,
        d.flagged
    );
    if let Some(outcome) = d.possession {
        text += &format!("  proof that the client holds what peers delivered: {outcome}\n");
    }
    for u in &d.uploaders {
        text += &format!("  uploader {}: sent {}, received {}, agreed {}\n", u.guid, u.sent, u.received, u.agreed);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(edge_claimed: u64, edge_unique: u64) -> DownloadUsage {
        DownloadUsage {
            download: DownloadId::numbered(1).to_string(),
            provider: 7,
            path: "a".into(),
            version: String::new(),
            guid: String::new(),
            size: 100,
            issued_ms: 0,
            state: "completed",
            elapsed_ms: 1,
            edge_unique,
            edge_total: edge_unique,
            edge_claimed,
            peers_received: 0,
            peers_sent: 0,
            peers_receipted: 0,
            peers_billed: 0,
            flagged: 0,
            possession: None,
            uploaders: Vec::new(),
        }
    }

    #[test]
    fn edge_bytes_that_only_the_client_has_reported_are_noted() {
        assert!(text(&[completed(100, 0), completed(100, 100)], &[], false).contains("of 1 of these the client says"));
        assert!(!text(&[completed(100, 100)], &[], false).contains("the client says"));
    }
}
