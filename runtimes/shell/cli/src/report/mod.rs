//! `report`: a provider's traffic and bill by day, object and place, and the traffic balance among networks.

mod balance;
mod balance_html;
mod csv;
mod html;
mod plot;
mod text;

use super::args::{ReportArgs, ReportFormat};
use super::audit::ledger_of;
use super::{Code, Error};
use serde::Serialize;
use swarmedge_core::ids::ProviderId;
use swarmedge_ground::host::unix_ms;
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::out::{note, print_document};
use swarmedge_ledger::report::Report;
use swarmedge_ledger::{Day, Reader};

/// Longest span of a report in days, so that a mistyped year makes no huge table.
const DAYS_MAX: u32 = 3_660;

/// Runs the command `swarmedge report`.
pub(super) fn run<R: Start>(args: &ReportArgs, json: bool) -> Result<(), Error> {
    let format = match (args.format, json) {
        (None | Some(ReportFormat::Json), true) => ReportFormat::Json,
        (Some(_), true) => {
            return Err(Error::usage("--json and --format ask for two things").next("leave one of them out"));
        }
        (format, false) => format.unwrap_or(ReportFormat::Text),
    };
    let cfg = ledger_of(&args.config.config)?;
    let provider = args.provider.map(ProviderId);
    let (from, to, as_balance) = (args.from, args.to, args.as_balance);
    let text = R::block_on(move |_| async move {
        let mut reader = Reader::open(&cfg.database).await?;
        let (first, last) = span(&mut reader, provider, from, to).await?;
        match provider {
            Some(provider) if !as_balance => formatted(&reader.report(provider, first, last).await?, format),
            provider => balance::formatted(&reader.balance(provider, first, last).await?, format),
        }
    })?;
    match &args.output {
        None => print_document(text.trim_end_matches('\n'))?,
        Some(path) => {
            std::fs::write(path, text).map_err(|e| Error::io(format!("write {}", path.display()), &e))?;
            note!("wrote {}", path.display());
        }
    }
    Ok(())
}

/// Returns the first and last day of the report; by default those with traffic.
async fn span(
    reader: &mut Reader,
    provider: Option<ProviderId>,
    from: Option<Day>,
    to: Option<Day>,
) -> Result<(Day, Day), Error> {
    let known = match provider {
        Some(provider) => {
            let unknown = || {
                Error::new(Code::NotFound, format!("the ledger has nothing of provider {provider}"))
                    .next("`ledger show` says which providers it knows")
            };
            Some(reader.days_of(provider).await?.ok_or_else(unknown)?)
        }
        None => reader.days_of_all().await?,
    };
    let today = Day::of_ms(unix_ms());
    let (first, last) = known.unwrap_or((today, today));
    let (first, last) = (from.unwrap_or(first), to.unwrap_or(last));
    if last < first || last.0 - first.0 > DAYS_MAX {
        return Err(Error::usage(format!("{first} to {last} is no span of days")).next("see --from and --to"));
    }
    Ok((first, last))
}

/// Returns a report in the format that the user asked for.
fn formatted(report: &Report, format: ReportFormat) -> Result<String, Error> {
    Ok(match format {
        ReportFormat::Text => text::of(report),
        ReportFormat::Csv => csv::of(report)?,
        ReportFormat::Html => html::of(report)?,
        ReportFormat::Json => json(report)?,
    })
}

fn json<T: Serialize>(report: &T) -> Result<String, Error> {
    let text = serde_json::to_string(report);
    Ok(text.map_err(|e| Error::failed(format!("cannot write this as JSON: {e}")))? + "\n")
}

#[cfg(test)]
mod browser_tests;

#[cfg(test)]
mod tests {
    use super::Report;
    use swarmedge_ledger::report::{Figures, Row, Speeds};

    /// Returns a report without traffic that names one day and one object.
    pub(super) fn of_names(day: &str, object: &str) -> Report {
        let row = |name: &str| Row { name: name.into(), ..Row::default() };
        Report {
            provider: 1,
            from: day.into(),
            to: day.into(),
            final_up_to: None,
            totals: Figures::default(),
            days: vec![row(day)],
            objects: vec![row(object)],
            countries: Vec::new(),
            networks: Vec::new(),
            speed_edge_only: Speeds::default(),
            speed_with_peers: Speeds::default(),
            quarantine: Default::default(),
            unknown: Vec::new(),
        }
    }
}
