//! Every table that servers keep of strangers stands in `docs/bounds.md` with the name of its bound.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files and folders with the servers' state. A table of another file that strangers can fill belongs here too.
const STATE: [&str; 18] = [
    "core/src/nat/broker.rs",
    "core/src/notice/server.rs",
    "core/src/role/cn",
    "core/src/role/dn.rs",
    "core/src/role/dn",
    "core/src/role/edge",
    "core/src/role/ledger.rs",
    "core/src/role/ledger",
    "core/src/role/stun.rs",
    "core/src/role/stun",
    "core/src/selection",
    "core/src/session/ledger_link.rs",
    "runtimes/shell/control/src/cn.rs",
    "runtimes/shell/control/src/dn.rs",
    "runtimes/shell/edge/src/answer.rs",
    "runtimes/shell/ground/src/link.rs",
    "runtimes/shell/ground/src/mailbox.rs",
    "runtimes/shell/ground/src/http/seats.rs",
];
/// Collections with a place for each key or item that comes from outside.
const TABLES: [&str; 7] = ["BTreeMap<", "BTreeSet<", "HashMap<", "HashSet<", "VecDeque<", "Deadlines<", "Holdings<"];
/// Rows of which the document says that there is no bound.
const UNBOUNDED: [&str; 1] = ["LedgerLink.records"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(at: &Path, found: &mut Vec<PathBuf>) {
    if at.is_dir() {
        let entries = fs::read_dir(at).expect("a folder").flatten();
        entries.for_each(|entry| files(&entry.path(), found));
    } else if at.extension().is_some_and(|e| e == "rs") && !at.ends_with("tests.rs") {
        found.push(at.to_owned());
    }
}

/// Returns the tables among the fields of a file's structs, as `Struct.field`.
fn tables(text: &str) -> Vec<String> {
    let mut inside = None;
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.replace("pub(super) ", "").replace("pub(crate) ", "").replace("pub ", "");
        if let Some(rest) = line.strip_prefix("struct ") {
            inside = rest.split(|c: char| !c.is_alphanumeric()).next().map(str::to_owned);
        } else if line.starts_with('}') {
            inside = None;
        }
        let field = line
            .strip_prefix("    ")
            .and_then(|l| l.split_once(": "))
            .filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        if let (Some(of), Some((name, kind))) = (&inside, field)
            && TABLES.iter().any(|t| kind.contains(t))
        {
            found.push(format!("{of}.{name}"));
        }
    }
    found
}

/// Rows of the document: file, table, bound.
fn rows() -> Vec<[String; 3]> {
    let text = fs::read_to_string(root().join("docs/bounds.md")).expect("the document");
    let (_, tables) = text.split_once("\n## Tables\n").expect("the second table");
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let rows = tables.lines().filter(|line| line.starts_with("| `")).map(|line| cells(line.trim()));
    rows.map(|row| <[String; 3]>::try_from(row).expect("file, table, bound")).collect()
}

/// Returns the names in backquotes.
fn names(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn state_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    STATE.iter().map(|at| root().join(at)).filter(|at| at.exists()).for_each(|at| files(&at, &mut found));
    found.retain(|path| !path.components().any(|c| c.as_os_str() == "tests"));
    found
}

#[test]
fn every_table_that_strangers_can_fill_has_a_bound() {
    let listed: BTreeSet<(String, String)> =
        rows().into_iter().map(|[file, table, _]| (file.replace('`', ""), table.replace('`', ""))).collect();
    let mut present = BTreeSet::new();
    for path in state_files() {
        let text = fs::read_to_string(&path).expect("a source file is text");
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        present.extend(tables(&text).into_iter().map(|table| (name.clone(), table)));
    }
    assert!(present.len() > 50, "the tables are found: {present:?}");
    let missing: Vec<_> = present.difference(&listed).collect();
    assert!(missing.is_empty(), "give these tables a bound, a rule for when it is reached, and a row: {missing:?}");
    let gone: Vec<_> = listed.difference(&present).collect();
    assert!(gone.is_empty(), "these rows are of no table: {gone:?}");
}

#[test]
fn each_bound_is_the_name_of_a_constant_or_setting_in_the_source() {
    let mut all = Vec::new();
    ["core/src", "runtimes/shell"].iter().for_each(|at| files(&root().join(at), &mut all));
    let source: String = all.iter().map(|p| fs::read_to_string(p).expect("a source file is text")).collect();
    let words: BTreeSet<&str> = source.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    for [_, table, bound] in rows() {
        let table = table.replace('`', "");
        let names = names(&bound);
        assert!(!names.is_empty(), "{table}: its bound has no name");
        for name in names {
            assert!(words.contains(name), "{table}: there is no {name}");
        }
        assert_eq!(bound.contains("**none**"), UNBOUNDED.contains(&table.as_str()), "{table}");
    }
}

#[test]
fn a_table_is_found_in_a_struct_and_nowhere_else() {
    let text = "pub struct Cn {\n    /// A comment.\n    pub(super) list: BTreeMap<u8, u8>,\n    few: u8,\n}\n\
                fn f() {\n    let x: BTreeSet<u8> = y;\n}\nstruct In<R>(Rc<R>);\nstruct Two<T> {\n    q: RefCell<VecDeque<T>>,\n}\n";
    assert_eq!(tables(text), ["Cn.list", "Two.q"]);
    assert_eq!(names("`a`, of `b` each"), ["a", "b"]);
}
