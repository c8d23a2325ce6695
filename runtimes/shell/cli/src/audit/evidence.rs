//! `ledger export --evidence` and `audit --evidence`: the records behind bills, and their check by receipts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use swarmedge_core::accounting::audit::settled::{Doubt, Proven};
use swarmedge_core::accounting::audit::{DownloadStatement, ProviderDay};
use swarmedge_core::ids::{DownloadId, ProviderId};
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::keys::verify;
use swarmedge_ledger::{Day, Reader, evidence};

/// Writes the records from which the downloads of a provider's closed days were settled; returns their number.
pub(super) async fn export(
    reader: &mut Reader,
    provider: ProviderId,
    (from, to): (Day, Day),
    output: &Path,
) -> Result<usize, Error> {
    let failed = |e: std::io::Error| Error::io(format!("write {}", output.display()), &e);
    let mut file = BufWriter::new(File::create(output).map_err(failed)?);
    let mut downloads = 0;
    for day in (from.0..=to.0).map(Day) {
        let closed = reader.provider_day(provider, day).await?;
        downloads += reader.evidence(&closed, |line| file.write_all(line.as_bytes()).map_err(failed)).await?;
    }
    file.flush().map_err(failed)?;
    Ok(downloads)
}

/// Recomputes every billed download of these days from its records in `file`, and compares the figures.
pub(super) fn check(file: &Path, days: &[ProviderDay]) -> Result<Proven, Error> {
    let of = |day: &ProviderDay| {
        let closed_ms = day.head.head.closed_ms;
        let downloads = day.leaves.iter().filter_map(|leaf| leaf.download());
        downloads.map(|of| (of.download, (of.clone(), closed_ms))).collect::<Vec<_>>()
    };
    let mut billed: BTreeMap<DownloadId, (DownloadStatement, u64)> = days.iter().flat_map(of).collect();
    let failed = |e: std::io::Error| Error::io(format!("read {}", file.display()), &e);
    let mut proven = Proven::default();
    for (n, line) in BufReader::new(File::open(file).map_err(failed)?).lines().enumerate() {
        let at = |why: String| Error::failed(format!("{}:{}: {why}", file.display(), n + 1));
        let settled = evidence::from_line(&line.map_err(failed)?).map_err(at)?;
        let of = |why: &str| {
            let message = format!("{}:{}: download {}: {why}", file.display(), n + 1, settled.download);
            Error::new(Code::Unproven, message).next("keep both files: they are evidence")
        };
        let Some((statement, closed_ms)) = billed.remove(&settled.download) else {
            return Err(of("no statement bills it, or its records came before in this file"));
        };
        let p = settled.check(verify, &statement, closed_ms).map_err(|doubt| of(&words(&doubt)))?;
        proven.receipts += p.receipts;
        proven.worthless += p.worthless;
        proven.peer_bytes = proven.peer_bytes.saturating_add(p.peer_bytes);
    }
    match billed.pop_first() {
        None => Ok(proven),
        Some((download, _)) => {
            let file = file.display();
            let message = format!("{file}: download {download} is billed, and its records are not here");
            Err(Error::new(Code::Unproven, message)
                .next("ask the operator for `ledger export --evidence` of the same days"))
        }
    }
}

/// Returns a sentence for a doubt about the records behind a statement.
fn words(doubt: &Doubt) -> String {
    match doubt {
        Doubt::Records => {
            "its records are not those that its statement commits to: one was changed, dropped or added".into()
        }
        Doubt::Receipt(intro) => format!(
            "a receipt was changed: the one for introduction {intro} is not signed with the download's key, and the \
             records are not those that its statement commits to"
        ),
        Doubt::Ungranted => "its records hold no grant of this provider for what is billed".into(),
        Doubt::Beyond { billed, proven } => {
            format!("{billed} bytes from peers are billed, and receipts prove {proven}")
        }
        Doubt::Figures => "its records come to other figures than its statement".into(),
    }
}
