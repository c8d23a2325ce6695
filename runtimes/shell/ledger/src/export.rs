//! Export of a provider's closed days as JSON lines (EXPORT.md, beside this file): a day's first line holds the proofs,
//! each further line one statement. Parsing is strict, since hashes are computed over the canonical encoding of the
//! parsed values.

use super::day::Day;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use swarmedge_core::accounting::audit::{
    DayLeaf, DownloadStatement, Head, Leaf, Outcome, PlainStatement, ProviderDay, SignedHead, SumStatement, Totals,
};
use swarmedge_core::ids::{Digest, ParseIdError, ProviderId};
use swarmedge_core::wire::records::ServerCert;
use swarmedge_core::wire::{Text, Wire};
use swarmedge_ground::error::Error;

/// Value of `format` in the first line of each day.
const FORMAT: &str = "swarmedge-day/1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DayLine {
    format: String,
    provider: u32,
    day: String,
    day_leaves: u64,
    day_root: String,
    first: u64,
    statements: usize,
    range: Vec<String>,
    inclusion: Vec<String>,
    previous: Option<HeadText>,
    consistency: Vec<String>,
    head: HeadText,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadText {
    days: u64,
    root: String,
    day: String,
    closed_ms: u64,
    signature: String,
    certificate: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum LeafLine {
    Download {
        download: String,
        path: String,
        version: String,
        size: u64,
        outcome: OutcomeText,
        edge_bytes: u64,
        peer_bytes: u64,
        flagged_bytes: u64,
        evidence: String,
        max_peer_bytes: u64,
    },
    Plain {
        version: String,
        edge: String,
        bytes: u64,
    },
    Total {
        statements: u64,
        downloads: u64,
        completed: u64,
        edge_bytes: u64,
        peer_bytes: u64,
        plain_bytes: u64,
        since: String,
    },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeText {
    Unreported,
    Unfinished,
    Completed,
    Cancelled,
    Failed,
}

/// Formats a day as JSON lines.
pub fn to_lines(day: &ProviderDay) -> Result<String, Error> {
    let line = DayLine {
        format: FORMAT.into(),
        provider: day.provider.0,
        day: Day(day.day.day).to_string(),
        day_leaves: day.day.leaves,
        day_root: day.day.root.to_string(),
        first: day.first,
        statements: day.leaves.len(),
        range: hex(&day.range),
        inclusion: hex(&day.inclusion),
        previous: day.previous.as_ref().map(head_text),
        consistency: hex(&day.consistency),
        head: head_text(&day.head),
    };
    let mut text = serde_json::to_string(&line).map_err(unwritable)? + "\n";
    for leaf in &day.leaves {
        text += &serde_json::to_string(&leaf_line(leaf)).map_err(unwritable)?;
        text.push('\n');
    }
    Ok(text)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn unwritable(e: serde_json::Error) -> Error {
    Error::failed(format!("cannot write this as JSON: {e}"))
}

fn hex(digests: &[Digest]) -> Vec<String> {
    digests.iter().map(ToString::to_string).collect()
}

/// Returns a signed head of the log of days as exported text.
fn head_text(h: &SignedHead) -> HeadText {
    HeadText {
        days: h.head.days,
        root: h.head.root.to_string(),
        day: Day(h.head.day).to_string(),
        closed_ms: h.head.closed_ms,
        signature: h.signature.to_string(),
        certificate: BASE64.encode(&h.cert.to_bytes()),
    }
}

/// Returns a statement as a line of the export.
fn leaf_line(leaf: &Leaf) -> LeafLine {
    match leaf {
        Leaf::Download(d) => download_line(d),
        Leaf::Plain(p) => LeafLine::Plain { version: p.version.to_string(), edge: p.edge.to_string(), bytes: p.bytes },
        Leaf::Sum(s) => LeafLine::Total {
            statements: s.statements,
            downloads: s.totals.downloads,
            completed: s.totals.completed,
            edge_bytes: s.totals.edge_bytes,
            peer_bytes: s.totals.peer_bytes,
            plain_bytes: s.totals.plain_bytes,
            since: Day(s.since).to_string(),
        },
    }
}

/// Returns the statement of a download as a line of the export.
fn download_line(d: &DownloadStatement) -> LeafLine {
    LeafLine::Download {
        download: d.download.to_string(),
        path: d.path.to_string(),
        version: d.version.to_string(),
        size: d.size,
        outcome: match d.outcome {
            Outcome::Unreported => OutcomeText::Unreported,
            Outcome::Unfinished => OutcomeText::Unfinished,
            Outcome::Completed => OutcomeText::Completed,
            Outcome::Cancelled => OutcomeText::Cancelled,
            Outcome::Failed => OutcomeText::Failed,
        },
        edge_bytes: d.edge_bytes,
        peer_bytes: d.peer_bytes,
        flagged_bytes: d.flagged_bytes,
        evidence: d.evidence.to_string(),
        max_peer_bytes: d.max_peer_bytes,
    }
}

/// Tells a day's first line, which has a `format` member, from statements.
#[derive(Deserialize)]
struct Kind {
    format: Option<serde::de::IgnoredAny>,
}

/// Why an exported file does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidExport {
    /// Number of the line, from 1.
    pub line: usize,
    /// Description of the error.
    pub why: String,
    /// Whether every line is valid, but a day has another number of statements than announced.
    pub count_differs: bool,
}

/// Parses a file of one or more days, or returns the first invalid line.
pub fn from_lines(text: &str) -> Result<Vec<ProviderDay>, InvalidExport> {
    let mut days: Vec<ProviderDay> = Vec::new();
    // line number of each day, and the number of statements it announces
    let mut announced: Vec<(usize, usize)> = Vec::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong =
            |why: &dyn std::fmt::Display| InvalidExport { line: n + 1, why: why.to_string(), count_differs: false };
        let kind: Kind = serde_json::from_str(line).map_err(|e| wrong(&e))?;
        if kind.format.is_some() {
            let line: DayLine = serde_json::from_str(line).map_err(|e| wrong(&e))?;
            announced.push((n + 1, line.statements));
            days.push(day_of(&line).map_err(|e| wrong(&e))?);
        } else {
            let day = days.last_mut().ok_or_else(|| wrong(&"a statement before its day's line"))?;
            let line: LeafLine = serde_json::from_str(line).map_err(|e| wrong(&e))?;
            let leaf = leaf_of(line, day.provider, day.day.day).map_err(|e| wrong(&e))?;
            day.leaves.push(leaf);
        }
    }
    for (day, (line, announced)) in days.iter().zip(announced) {
        let (found, day) = (day.leaves.len(), Day(day.day.day));
        if found != announced {
            let what = if found < announced { "dropped" } else { "added" };
            let why = format!("{day}: a record was {what}: this line announces {announced}, {found} follow");
            return Err(InvalidExport { line, why, count_differs: true });
        }
    }
    Ok(days)
}

/// Parses a day's first line, without statements.
fn day_of(line: &DayLine) -> Result<ProviderDay, String> {
    if line.format != FORMAT {
        return Err(format!("format {:?} is not {FORMAT}", line.format));
    }
    Ok(ProviderDay {
        provider: ProviderId(line.provider),
        day: DayLeaf { day: day(&line.day)?, leaves: line.day_leaves, root: id(&line.day_root)? },
        first: line.first,
        leaves: Vec::new(),
        range: ids(&line.range)?,
        inclusion: ids(&line.inclusion)?,
        previous: line.previous.as_ref().map(head_of).transpose()?,
        consistency: ids(&line.consistency)?,
        head: head_of(&line.head)?,
    })
}

fn head_of(h: &HeadText) -> Result<SignedHead, String> {
    let cert = BASE64.decode(h.certificate.as_bytes()).ok().and_then(|bytes| ServerCert::from_bytes(&bytes).ok());
    Ok(SignedHead {
        head: Head { days: h.days, root: id(&h.root)?, day: day(&h.day)?, closed_ms: h.closed_ms },
        signature: id(&h.signature)?,
        cert: cert.ok_or("the certificate is none")?,
    })
}

/// Reads a statement back from a line of an export.
fn leaf_of(line: LeafLine, provider: ProviderId, day: u32) -> Result<Leaf, String> {
    Ok(match line {
        LeafLine::Download {
            download,
            path,
            version,
            size,
            outcome,
            edge_bytes,
            peer_bytes,
            flagged_bytes,
            evidence,
            max_peer_bytes,
        } => Leaf::Download(DownloadStatement {
            provider,
            day,
            download: id(&download)?,
            path: Text::new(&path).map_err(|e| e.to_string())?,
            version: id(&version)?,
            size,
            outcome: match outcome {
                OutcomeText::Unreported => Outcome::Unreported,
                OutcomeText::Unfinished => Outcome::Unfinished,
                OutcomeText::Completed => Outcome::Completed,
                OutcomeText::Cancelled => Outcome::Cancelled,
                OutcomeText::Failed => Outcome::Failed,
            },
            edge_bytes,
            peer_bytes,
            flagged_bytes,
            evidence: id(&evidence)?,
            max_peer_bytes,
        }),
        LeafLine::Plain { version, edge, bytes } => {
            Leaf::Plain(PlainStatement { provider, day, version: id(&version)?, edge: id(&edge)?, bytes })
        }
        LeafLine::Total { statements, downloads, completed, edge_bytes, peer_bytes, plain_bytes, since } => {
            let totals = Totals { downloads, completed, edge_bytes, peer_bytes, plain_bytes };
            Leaf::Sum(SumStatement { provider, day, statements, totals, since: self::day(&since)? })
        }
    })
}

pub(super) fn id<T: std::str::FromStr<Err = ParseIdError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: ParseIdError| format!("{text:?}: {e}"))
}

fn ids(texts: &[String]) -> Result<Vec<Digest>, String> {
    texts.iter().map(|text| id(text)).collect()
}

fn day(text: &str) -> Result<u32, String> {
    text.parse::<Day>().map(|day| day.0).map_err(|e| e.to_string())
}
