//! `ledger close-day`, `ledger export` and `audit`: the commands by which a provider can check an invoice.

mod evidence;
mod invoice;
mod seen;

use super::args::{AuditArgs, ExportFormat, LedgerCloseArgs, LedgerExportArgs};
use super::objects::no_section;
use super::{Code, Error, certificates};
use crate::config::{Bundle, ServerConfig};
use std::path::Path;
use swarmedge_core::accounting::audit::{Finding, ProviderDay, Totals, check_days};
use swarmedge_core::accounting::{CertError, Trust};
use swarmedge_core::ids::{ProviderId, PublicKey};
use swarmedge_core::wire::records::ServerRole;
use swarmedge_ground::files;
use swarmedge_ground::host::unix_ms;
use swarmedge_ground::keys::verify;
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::out::{note, print_json, say};
use swarmedge_ground::terminal::units::bytes;
use swarmedge_ledger::close::{Closed, Signer, close_days};
use swarmedge_ledger::config::LedgerConfig;
use swarmedge_ledger::parquet::Archive;
use swarmedge_ledger::{Day, Reader, Store, export};

/// First bytes of a Parquet file.
const PARQUET: &[u8] = b"PAR1";

/// Loads the `[ledger]` section of a configuration and checks the SQLite file, before this process opens it, for the
/// write-ahead log of another ledger.
pub(super) fn ledger_of(config: &Path) -> Result<LedgerConfig, Error> {
    let cfg = ServerConfig::load(config)?.ledger.ok_or_else(|| no_section(config.to_path_buf(), "ledger"))?;
    cfg.database.check_unopened()?;
    Ok(cfg)
}

/// Runs the command `swarmedge ledger close-day`.
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
        Some(day) if !args.force && cfg.last_due(today).is_none_or(|due| day > due) => {
            return Err(too_early(day, &cfg));
        }
        Some(day) => day,
        None => cfg.last_due(today).unwrap_or_default(),
    };
    cfg.database.check_there()?;
    let (lifetime_s, not_after_s) =
        (certificates::lifetime_s(signer.cert_body()), signer.cert_body().not_after_ms / 1000);
    let closed = R::block_on(|_| async move {
        let mut store = Store::open(&cfg.database).await?;
        let closed = close_days(&mut store, last, &signer, now_ms).await;
        store.close().await;
        closed
    })?;
    if let Some(days) = certificates::days_left_if_few(lifetime_s, not_after_s) {
        note!(
            "the ledger's certificate expires in {days} days: run `swarmedge certificates renew`, then restart the ledger"
        );
    }
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

fn too_early(day: Day, cfg: &LedgerConfig) -> Error {
    let due = Day(day.0.saturating_add(cfg.settle_days).saturating_add(1));
    Error::usage(format!(
        "{day} is due on {due}, by settle_days = {}: what comes after it is closed is never billed",
        cfg.settle_days
    ))
    .next("wait until then, or add --force to close it now, for good")
}

/// Runs the command `swarmedge ledger export`.
pub(super) fn export_days<R: Start>(args: &LedgerExportArgs, json: bool) -> Result<(), Error> {
    let cfg = ledger_of(&args.config.config)?;
    let (provider, from, to) = (ProviderId(args.provider), args.from, args.to.unwrap_or(args.from));
    if to < from {
        return Err(Error::usage(format!("--to {to} is before --from {from}")));
    }
    let (format, records, output) = (args.format, args.evidence, args.output.clone());
    files::refuse_present(&output, args.force)?;
    let statements = R::block_on(move |_| async move {
        let mut reader = Reader::open(&cfg.database).await?;
        match format {
            ExportFormat::Jsonl if records => evidence::export(&mut reader, provider, (from, to), &output).await,
            ExportFormat::Jsonl => export_lines(&mut reader, provider, (from, to), &output).await,
            ExportFormat::Parquet => export_parquet(&mut reader, provider, (from, to), &output).await,
        }
    })?;
    if json {
        return print_json(&serde_json::json!({"output": args.output, "statements": statements}));
    }
    say!("wrote {}: provider {provider}, {from} to {to}, {statements} statements", args.output.display())
}

/// Exports a provider's statements of these days as JSON lines; returns their number.
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

/// Exports a provider's statements of these days as a Parquet file; returns their number.
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

/// Runs the command `swarmedge audit`.
pub(super) fn audit(args: &AuditArgs, json: bool) -> Result<(), Error> {
    let root = root_of(args)?;
    let mut days: Vec<(ProviderDay, &Path)> = Vec::new();
    for file in &args.files {
        days.extend(days_of(file)?.into_iter().map(|day| (day, file.as_path())));
    }
    days.sort_by_key(|(day, _)| day.day.day);
    let (days, files): (Vec<ProviderDay>, Vec<&Path>) = days.into_iter().unzip();
    check_one_provider_and_no_repeats(&days, &files)?;
    let (Some(first), Some(last)) = (days.first(), days.last()) else {
        return Err(Error::usage("the files hold no day").next("`ledger export` writes them"));
    };
    let trust = Trust { root, verify };
    let totals = check_days(&trust, &days)
        .map_err(|(at, finding)| unproven(&days[at], files[at], &finding, is_foreign(&days[at], &trust)))?;
    let proven = args.evidence.as_ref().map(|file| evidence::check(file, &days)).transpose()?;
    if let Some(seen) = &args.seen {
        seen::compare(seen, &days)?;
    }
    let span = (first.provider, Day(first.day.day), Day(last.day.day));
    let compared = args.invoice.as_ref().map(|invoice| invoice::compare(invoice, span, &totals)).transpose()?;
    if json {
        return print_json(&serde_json::json!({
            "provider": first.provider.0, "from": span.1.to_string(), "to": span.2.to_string(),
            "days": days.len(), "totals": totals_json(&totals),
            "invoice_agrees": compared.as_ref().map(|_| true), "invoice_compared": compared,
            "receipts": proven.map(|p| p.receipts), "worthless_receipts": proven.map(|p| p.worthless),
        }));
    }
    say!(
        "provider {}, {} to {}: {} day(s), signed by {}",
        span.0,
        span.1,
        span.2,
        days.len(),
        &last.head.cert.body.name[..]
    )?;
    say_totals(&totals)?;
    say!("every statement is in its signed day and nothing is missing; every day follows the one before")?;
    if let Some(p) = proven {
        say!(
            "every download comes to its figures from its own records: {} receipts that its key has signed prove {}",
            p.receipts,
            bytes(p.peer_bytes)
        )?;
        if p.worthless > 0 {
            say!("  {} receipts are not its key's, and count for nothing", p.worthless)?;
        }
    }
    if let Some(compared) = compared {
        say!("the invoice agrees, to the byte: {}", compared.join(", "))?;
    }
    Ok(())
}

/// Prints the sums of the audited days.
fn say_totals(totals: &Totals) -> Result<(), Error> {
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
    )
}

/// Reads the days of an exported JSON-lines file.
fn days_of(file: &Path) -> Result<Vec<ProviderDay>, Error> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|e| Error::io(format!("read {name}"), &e))?;
    if bytes.starts_with(PARQUET) {
        return Err(Error::usage(format!("{name} is Parquet, which has no proofs"))
            .next("audit what `ledger export` writes with --format jsonl, its default"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::usage(format!("{name} is not text")).next("`ledger export` writes what can be audited"))?;
    export::from_lines(&text).map_err(|e| {
        let message = format!("{name}:{}: {}", e.line, e.why);
        if e.count_differs {
            Error::new(Code::Unproven, message).next(
                "was it copied whole? if so ask the operator for the day's records, and keep this file: it is evidence",
            )
        } else {
            Error::failed(message).next("this is no line of `ledger export`: take the file as the operator sent it")
        }
    })
}

/// Checks for mistakes of the user: days of several providers, or the same day given twice.
fn check_one_provider_and_no_repeats(days: &[ProviderDay], files: &[&Path]) -> Result<(), Error> {
    for (pair, file) in days.windows(2).zip(files.windows(2)) {
        let ([before, day], [a, b]) = (pair, file) else { continue };
        let (a, b) = (a.display(), b.display());
        if before.provider != day.provider {
            let message = format!("{a} is of provider {}, {b} of provider {}", before.provider, day.provider);
            return Err(Error::usage(message).next("audit the exports of one provider at a time"));
        }
        if before == day {
            let message = format!("{} is given twice, in {a} and in {b}", Day(day.day.day));
            return Err(Error::usage(message).next("name each export once"));
        }
    }
    Ok(())
}

/// Returns whether a signed head of this day has a certificate that the trusted root key did not sign.
fn is_foreign(day: &ProviderDay, trust: &Trust) -> bool {
    let mut heads = day.previous.iter().chain([&day.head]);
    heads.any(|h| trust.check_cert(&h.cert, ServerRole::Ledger, h.head.closed_ms) == Err(CertError::Signature))
}

fn unproven(day: &ProviderDay, file: &Path, finding: &Finding, foreign: bool) -> Error {
    let message = format!("{}: {}: {}", file.display(), Day(day.day.day), words(finding));
    #[expect(clippy::wildcard_enum_match_arm, reason = "what all other findings are evidence of is the same")]
    let next = match finding {
        Finding::Signature(CertError::Signature) if foreign => {
            "is the bundle or root key this operator's? if it is, keep this file: it is evidence"
        }
        Finding::Signature(CertError::Time) => {
            "ask the operator when the ledger's certificate was renewed; keep this file, it is evidence"
        }
        Finding::Gap => {
            "give the exports of all days of the span; if the operator has none, keep these: they are evidence"
        }
        _ => "ask the operator for the day's records; keep this file, it is evidence",
    };
    Error::new(Code::Unproven, message).next(next)
}

/// Returns the operator's root key, from the option or from the bundle.
fn root_of(args: &AuditArgs) -> Result<PublicKey, Error> {
    match (&args.root, &args.bundle) {
        (Some(root), _) => {
            root.parse().map_err(|_| Error::usage(format!("--root {root:?}: a key has 64 hexadecimal digits")))
        }
        (None, Some(bundle)) => Ok(Bundle::load(bundle)?.root),
        (None, None) => Err(Error::usage("whose ledger is it?").next("give --root KEY or --bundle bundle.toml")),
    }
}

/// Returns the sums of the audited days as JSON.
pub(super) fn totals_json(t: &Totals) -> serde_json::Value {
    serde_json::json!({
        "downloads": t.downloads, "completed": t.completed, "edge_bytes": t.edge_bytes, "peer_bytes": t.peer_bytes,
        "plain_bytes": t.plain_bytes,
    })
}

/// Returns a sentence for a finding of the audit.
fn words(finding: &Finding) -> String {
    match finding {
        Finding::Signature(CertError::Time) => {
            "not signed by a ledger of this operator: its certificate was not valid when it signed".into()
        }
        Finding::Signature(CertError::Role | CertError::Signature) => "not signed by a ledger of this operator".into(),
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
        Finding::Emptied => "the day was emptied: each day has a sum, zero where there was no traffic, from the \
            provider's first on"
            .into(),
        Finding::TooEarly => "the provider's first day is said to be another".into(),
        Finding::Nothing => "no day has a statement: nothing shows that there was no traffic".into(),
    }
}
