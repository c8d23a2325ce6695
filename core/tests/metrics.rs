//! Every metric of the source stands in `docs/metrics.md` with its meaning.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(at: &Path, found: &mut String) {
    if at.is_dir() {
        let entries = fs::read_dir(at).expect("a folder").flatten();
        entries.filter(|e| e.file_name() != "tests").for_each(|entry| sources(&entry.path(), found));
    } else if at.extension().is_some_and(|e| e == "rs") {
        found.push_str(&fs::read_to_string(at).expect("a source file is text"));
    }
}

/// Returns the names of metrics between two of these marks.
fn names(text: &str, mark: char) -> BTreeSet<String> {
    let is_name = |word: &&str| {
        let rest = word.strip_prefix("swarmedge_");
        rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    text.split(mark).filter(is_name).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_described_and_every_description_is_of_a_metric() {
    let mut source = String::new();
    ["core/src", "runtimes/shell"].iter().for_each(|at| sources(&root().join(at), &mut source));
    let mut present = names(&source, '"');
    // a unit test's own
    present.remove("swarmedge_test_total");
    assert!(present.len() > 60, "the metrics are found: {present:?}");
    let text = fs::read_to_string(root().join("docs/metrics.md")).expect("the document");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `swarmedge_")).collect();
    let described: BTreeSet<String> = rows.iter().flat_map(|row| names(row, '`')).collect();
    assert_eq!(rows.len(), described.len(), "each is described once");
    let missing: Vec<_> = present.difference(&described).collect();
    let gone: Vec<_> = described.difference(&present).collect();
    assert!(missing.is_empty() && gone.is_empty(), "describe {missing:?}; there is no {gone:?}");
    for row in rows {
        assert!(row.split(" | ").nth(1).is_some_and(|what| what.len() > 12), "{row} says nothing");
    }
}
