//! `audit --invoice`: compares an invoice with the proven days.

use super::super::{Code, Error};
use super::totals_json;
use serde_json::Value;
use std::path::Path;
use swarmedge_core::accounting::audit::Totals;
use swarmedge_core::ids::ProviderId;
use swarmedge_ground::files;
use swarmedge_ledger::Day;

/// Figures that an invoice must have; a missing or misspelt one could hide a wrong figure.
const REQUIRED: [&str; 3] = ["edge_bytes", "peer_bytes", "plain_bytes"];

/// Compares the invoice in a file with the proven days; returns the names of the compared entries.
pub(super) fn compare(invoice: &Path, span: (ProviderId, Day, Day), totals: &Totals) -> Result<Vec<String>, Error> {
    compared(&files::read(invoice)?, span, totals)
        .map_err(|(code, why, next)| Error::new(code, format!("{}: {why}", invoice.display())).next(next))
}

type Wrong = (Code, String, &'static str);

/// Compares an invoice: a JSON object with the figures at top level or under `totals`, as `report --format json`
/// writes.
fn compared(text: &str, (provider, from, to): (ProviderId, Day, Day), totals: &Totals) -> Result<Vec<String>, Wrong> {
    let unusable = |why: String| (Code::Usage, why, "`report --format json` writes an invoice that can be compared");
    let json: Value = serde_json::from_str(text).map_err(|e| unusable(e.to_string()))?;
    let figures = json.get("totals").unwrap_or(&json);
    if let Some(missing) = REQUIRED.iter().find(|name| figures.get(**name).is_none()) {
        return Err(unusable(format!("it has no {missing}")));
    }
    let mut names = Vec::new();
    let mut compare_entry = |name: &str, billed: Option<&Value>, proven: &Value| {
        let Some(billed) = billed else { return Ok(()) };
        if billed != proven {
            let why = format!("{name} is {billed} in the invoice, {proven} in the proven days");
            return Err((Code::Disagrees, why, "ask the operator which days and provider it is for, and why"));
        }
        names.push(name.to_owned());
        Ok(())
    };
    compare_entry("provider", json.get("provider"), &provider.0.into())?;
    compare_entry("from", json.get("from"), &from.to_string().into())?;
    compare_entry("to", json.get("to"), &to.to_string().into())?;
    for (name, proven) in totals_json(totals).as_object().into_iter().flatten() {
        compare_entry(name, figures.get(name), proven)?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: (ProviderId, Day, Day) = (ProviderId(7), Day(20_000), Day(20_001));
    const TOTALS: Totals = Totals { downloads: 3, completed: 2, edge_bytes: 30, peer_bytes: 20, plain_bytes: 10 };

    fn against(text: &str) -> Result<Vec<String>, Code> {
        compared(text, SPAN, &TOTALS).map_err(|(code, ..)| code)
    }

    #[test]
    fn an_invoice_without_one_of_the_three_figures_does_not_agree() {
        let whole = r#"{"edge_bytes":30,"peer_bytes":20,"plain_bytes":10}"#;
        let names = against(whole).expect("all three agree");
        assert_eq!(names, REQUIRED);
        for name in REQUIRED {
            assert_eq!(against(&whole.replace(name, "peers_bytes")), Err(Code::Usage), "{name} is misspelt");
        }
        for none in ["", "[]", "{}", "30"] {
            assert_eq!(against(none), Err(Code::Usage), "{none:?}");
        }
    }

    #[test]
    fn an_invoice_of_another_figure_provider_or_span_disagrees() {
        let report = |change: &dyn Fn(&mut Value)| {
            let mut report = serde_json::json!({
                "provider": 7, "from": SPAN.1.to_string(), "to": SPAN.2.to_string(), "totals": totals_json(&TOTALS),
            });
            change(&mut report);
            against(&report.to_string())
        };
        assert_eq!(report(&|_| ()).expect("as a report is").len(), 8, "everything was compared");
        for name in ["provider", "from", "to"] {
            assert_eq!(report(&|r| r[name] = 6.into()), Err(Code::Disagrees), "{name}");
        }
        for name in ["downloads", "completed", "edge_bytes", "peer_bytes", "plain_bytes"] {
            assert_eq!(report(&|r| r["totals"][name] = 6.into()), Err(Code::Disagrees), "{name}");
        }
    }
}
