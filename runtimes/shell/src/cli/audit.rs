//! `ledger close-day`, `ledger export` and `audit`: an invoice that its payer can check.

use super::Error;
use super::args::{AuditArgs, ExportFormat, LedgerCloseArgs, LedgerExportArgs};
use super::objects::no_section;
use crate::config::{Bundle, ServerConfig};
use crate::host::unix_ms;
use crate::keys::verify;
use crate::rt::Start;
use crate::server::config::LedgerConfig;
use crate::server::ledger::close::{Closed, Signer};
use crate::server::ledger::parquet::Archive;
use crate::server::ledger::{Day, Reader, Store, export};
use crate::terminal::out::{print_json, say};
use crate::terminal::units::bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use swarmedge_core::accounting::Trust;
use swarmedge_core::accounting::audit::{Finding, ProviderDay, Totals, check_days};
use swarmedge_core::ids::{ProviderId, PublicKey};

/// The `[ledger]` section of a configuration.
pub(super) fn ledger_of(config: &Path) -> Result<LedgerConfig, Error> {
    ServerConfig::load(config)?.ledger.ok_or_else(|| no_section(config.to_path_buf(), "ledger"))
}

/// `swarmedge ledger close-day`.
pub(super) fn close_day<R: Start>(args: &LedgerCloseArgs, json: bool) -> Result<(), Error> {
    let cfg = ledger_of(&args.config.config)?;
    let no_key = || {
        Error::usage("[ledger] has no signing_key and certificate, so nothing can be signed")
            .next("`init` makes them for new deployments")
    };
    let signer = Signer::load(&cfg)?.ok_or_else(no_key)?;
    let now_ms = unix_ms();
    let today = Day::of_ms(now_ms);
    let last = match args.day {
        Some(day) if day >= today => return Err(Error::usage(format!("{day} is not over")).next("days are UTC")),
        Some(day) => day,
        None => cfg.last_due(today).unwrap_or_default(),
    };
    let closed = R::block_on(|_| async move {
        let mut store = Store::open(&cfg.database).await?;
        let closed = store.close_days(last, &signer, now_ms).await;
        store.close().await;
        closed
    })?;
    if json {
        let line = |c: &Closed| serde_json::json!({"day": c.day.to_string(), "statements": c.leaves, "root": c.head.head.root.to_string()});
        return print_json(&serde_json::json!({"closed": closed.iter().map(line).collect::<Vec<_>>()}));
    }
    for c in &closed {
        say!(
            "closed {}: {} statements, signed head of {} days {}",
            c.day,
            c.leaves,
            c.head.head.days,
            c.head.head.root
        )?;
    }
    if closed.is_empty() {
        say!("nothing to close up to {last}")?;
    }
    Ok(())
}

/// `swarmedge ledger export`.
pub(super) fn export_days<R: Start>(args: &LedgerExportArgs, json: bool) -> Result<(), Error> {
    let cfg = ledger_of(&args.config.config)?;
    let (provider, from, to) = (ProviderId(args.provider), args.from, args.to.unwrap_or(args.from));
    if to < from {
        return Err(Error::usage(format!("--to {to} is before --from {from}")));
    }
    let (format, output) = (args.format, args.output.clone());
    let statements = R::block_on(move |_| async move {
        let mut reader = Reader::open(&cfg.database).await?;
        match format {
            ExportFormat::Jsonl => export_lines(&mut reader, provider, (from, to), &output).await,
            ExportFormat::Parquet => export_parquet(&mut reader, provider, (from, to), &output).await,
        }
    })?;
    if json {
        return print_json(&serde_json::json!({"output": args.output, "statements": statements}));
    }
    say!("wrote {}: provider {provider}, {from} to {to}, {statements} statements", args.output.display())
}

async fn export_lines(
    reader: &mut Reader,
    provider: ProviderId,
    (from, to): (Day, Day),
    output: &Path,
) -> Result<usize, Error> {
    let (mut text, mut statements) = (String::new(), 0);
    for day in (from.0..=to.0).map(Day) {
        let closed = reader.provider_day(provider, day).await?;
        statements += closed.leaves.len();
        text += &export::to_lines(&closed)?;
    }
    std::fs::write(output, text).map_err(|e| Error::io(format!("write {}", output.display()), &e))?;
    Ok(statements)
}

async fn export_parquet(
    reader: &mut Reader,
    provider: ProviderId,
    (from, to): (Day, Day),
    output: &Path,
) -> Result<usize, Error> {
    let mut archive = Archive::create(output)?;
    for day in (from.0..=to.0).map(Day) {
        let spots = reader.spots(provider, day).await?;
        archive.add(&reader.provider_day(provider, day).await?, &spots)?;
    }
    archive.finish()
}

/// `swarmedge audit`.
pub(super) fn audit(args: &AuditArgs, json: bool) -> Result<(), Error> {
    let root = root_of(args)?;
    let mut days: Vec<(ProviderDay, &Path)> = Vec::new();
    for file in &args.files {
        let text = std::fs::read_to_string(file).map_err(|e| Error::io(format!("read {}", file.display()), &e))?;
        let read = export::from_lines(&text)
            .map_err(|(line, why)| Error::failed(format!("{}:{line}: {why}", file.display())))?;
        days.extend(read.into_iter().map(|day| (day, file.as_path())));
    }
    days.sort_by_key(|(day, _)| day.day.day);
    let (days, files): (Vec<ProviderDay>, Vec<&Path>) = days.into_iter().unzip();
    let (Some(first), Some(last)) = (days.first(), days.last()) else {
        return Err(Error::usage("the files hold no day").next("`ledger export` writes them"));
    };
    let totals = check_days(&Trust { root, verify }, &days).map_err(|(at, finding)| {
        let (day, file) = (Day(days[at].day.day), files[at].display());
        Error::failed(format!("{file}: {day}: {}", words(&finding)))
            .next("ask the operator for the day's records; keep this file, it is evidence")
    })?;
    if let Some(seen) = &args.seen {
        compare_seen(seen, &days)?;
    }
    if let Some(invoice) = &args.invoice {
        compare_invoice(invoice, &totals)?;
    }
    if json {
        return print_json(&serde_json::json!({
            "provider": first.provider.0, "from": Day(first.day.day).to_string(), "to": Day(last.day.day).to_string(),
            "days": days.len(), "totals": totals_json(&totals), "invoice_agrees": args.invoice.as_ref().map(|_| true),
        }));
    }
    say!(
        "provider {}, {} to {}: {} day(s), signed by {}",
        first.provider,
        Day(first.day.day),
        Day(last.day.day),
        days.len(),
        &last.head.cert.body.name[..]
    )?;
    say!(
        "  downloads    {} ({} completed)\n  from edges   {} ({})\n  from peers   {} ({})\n  plain HTTPS  {} ({})",
        totals.downloads,
        totals.completed,
        totals.edge_bytes,
        bytes(totals.edge_bytes),
        totals.peer_bytes,
        bytes(totals.peer_bytes),
        totals.plain_bytes,
        bytes(totals.plain_bytes)
    )?;
    say!("every statement is in its signed day and nothing is missing; every day follows the one before")?;
    if args.invoice.is_some() {
        say!("the invoice agrees, to the byte")?;
    }
    Ok(())
}

fn root_of(args: &AuditArgs) -> Result<PublicKey, Error> {
    match (&args.root, &args.bundle) {
        (Some(root), _) => {
            root.parse().map_err(|_| Error::usage(format!("--root {root:?}: a key has 64 hexadecimal digits")))
        }
        (None, Some(bundle)) => Ok(Bundle::load(bundle)?.root),
        (None, None) => Err(Error::usage("whose ledger is it?").next("give --root KEY or --bundle bundle.toml")),
    }
}

pub(super) fn totals_json(t: &Totals) -> serde_json::Value {
    serde_json::json!({
        "downloads": t.downloads, "completed": t.completed, "edge_bytes": t.edge_bytes, "peer_bytes": t.peer_bytes,
        "plain_bytes": t.plain_bytes,
    })
}

/// The invoice is a JSON object with the figures at its top or under `totals`, as `report --format json` writes them.
fn compare_invoice(invoice: &Path, totals: &Totals) -> Result<(), Error> {
    let text = std::fs::read_to_string(invoice).map_err(|e| Error::io(format!("read {}", invoice.display()), &e))?;
    let wrong = |why: String| Error::failed(format!("{}: {why}", invoice.display()));
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let figures = json.get("totals").unwrap_or(&json);
    let proven = totals_json(totals);
    let mut compared = 0;
    for (name, proven) in proven.as_object().into_iter().flatten() {
        if let Some(billed) = figures.get(name) {
            compared += 1;
            if billed != proven {
                return Err(wrong(format!(
                    "{name} is {billed} in the invoice, the proven statements come to {proven}"
                )));
            }
        }
    }
    if compared == 0 {
        return Err(wrong("no figure to compare".into()).next("write at least edge_bytes, peer_bytes and plain_bytes"));
    }
    Ok(())
}

/// Lines of `day days root` of every head seen before: a day once seen must never come signed otherwise.
fn compare_seen(path: &PathBuf, days: &[ProviderDay]) -> Result<(), Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io(format!("read {}", path.display()), &e)),
    };
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for line in text.lines() {
        let (day, head) = line.split_once(' ').unwrap_or((line, ""));
        seen.insert(day.to_owned(), head.to_owned());
    }
    let heads = days.iter().flat_map(|d| d.previous.iter().chain([&d.head]));
    for h in heads {
        let (day, head) = (Day(h.head.day).to_string(), format!("{} {}", h.head.days, h.head.root));
        if seen.get(&day).is_some_and(|before| *before != head) {
            return Err(Error::failed(format!("{day} was replaced: an earlier audit saw it signed otherwise"))
                .next(format!("{} keeps what was seen; keep both exports, they are evidence", path.display())));
        }
        seen.insert(day, head);
    }
    let text: String = seen.iter().map(|(day, head)| format!("{day} {head}\n")).collect();
    std::fs::write(path, text).map_err(|e| Error::io(format!("write {}", path.display()), &e))
}

fn words(finding: &Finding) -> String {
    match finding {
        Finding::Signature(why) => format!("not signed by a ledger of this operator ({why:?})"),
        Finding::NotInLog => "the day is not in the signed log".into(),
        Finding::Rewritten => "the signed log does not begin with the one before: history was changed".into(),
        Finding::Foreign => "statements of another provider or day".into(),
        Finding::Count { expected, found } if found < expected => {
            format!("a record was dropped: {expected} statements were settled, {found} are here")
        }
        Finding::Count { expected, found } => {
            format!("a record was added: {expected} statements were settled, {found} are here")
        }
        Finding::Sum => "a record was changed: the statements do not come to their sum".into(),
        Finding::Changed => "a record was changed: the statements are not those of the signed day".into(),
        Finding::OverBilled(id) => {
            format!("download {id} bills more than one copy of the version, or than was granted")
        }
        Finding::BilledTwice(id) => format!("download {id} is billed twice"),
        Finding::Replaced => "the day was replaced: two signed histories disagree about it".into(),
        Finding::Gap => "the day before it is missing".into(),
    }
}
