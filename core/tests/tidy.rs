//! House rules that the compiler does not check, tested on the source text.

mod tidy {
    pub(crate) mod floors;
    pub(crate) mod tokens;
}

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidy::{floors, tokens};

const FILE_LINES_MAX: usize = 600;
const LINE_WIDTH_MAX: usize = 120;

struct Source {
    path: String,
    text: String,
}

/// Returns every Rust file below the given folders of the workspace.
fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = folders.iter().map(|f| root.join(f)).collect();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("the workspace has this folder").flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is text");
                let path = path.strip_prefix(&root).expect("it lies below the root").display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no source below {folders:?}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Returns the lines that contain one of `banned` outside comments, as `path:line: text`.
fn lines_with(sources: &[Source], banned: &[&str]) -> Vec<String> {
    let mut hits = Vec::new();
    for s in sources {
        for (n, line) in s.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if banned.iter().any(|b| code.contains(b)) {
                hits.push(format!("{}:{}: {}", s.path, n + 1, line.trim()));
            }
        }
    }
    hits
}

const ALL: &[&str] = &["core/src", "core/tests", "core/no_std_guard", "core/seeds", "runtimes", "models", "fuzz"];

/// Source folders of the crates whose files must not import one another in circles.
const ROOTS: [&str; 11] = [
    "core/src/",
    "fuzz/src/",
    "models/src/",
    "models/src/bin/swarmedge-models/",
    "runtimes/natlab/src/",
    "runtimes/shell/cli/src/",
    "runtimes/shell/client/src/",
    "runtimes/shell/control/src/",
    "runtimes/shell/edge/src/",
    "runtimes/shell/ground/src/",
    "runtimes/shell/ledger/src/",
];

/// Returns the files with random tests that are not configured by `swarmedge_seeds`, so that their seeds would be
/// neither printed nor kept.
fn unseeded(sources: &[Source]) -> Vec<String> {
    // split with `concat!`, so that this file does not match
    let own = [concat!("Proptest", "Config"), concat!("failure_", "persistence"), concat!("Test", "Runner")];
    let mut hits = lines_with(sources, &own);
    for s in sources {
        let blocks = s.text.split(concat!("proptest", "! {")).skip(1);
        let bare = blocks.filter(|b| !b.trim_start().starts_with("#![proptest_config(swarmedge_seeds::random("));
        hits.extend(bare.map(|_| s.path.clone()));
    }
    hits
}

#[test]
fn the_seeds_of_random_tests_are_printed_and_kept() {
    let others: Vec<_> = sources(ALL).into_iter().filter(|s| !s.path.starts_with("core/seeds/")).collect();
    let hits = unseeded(&others);
    assert!(hits.is_empty(), "random tests begin with `#![proptest_config(swarmedge_seeds::random(…))]`: {hits:#?}");
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = sources(ALL)
        .iter()
        .map(|s| (s.text.lines().count(), s.path.clone()))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX} lines, move a wall: {long:?}");
}

#[test]
fn no_comment_is_too_wide() {
    // rustfmt formats code, but leaves comments alone
    let comment = |l: &str| l.trim_start().starts_with("//");
    let wide: Vec<_> = sources(ALL)
        .iter()
        .flat_map(|s| s.text.lines().enumerate().map(|(n, l)| (format!("{}:{}", s.path, n + 1), l)).collect::<Vec<_>>())
        .filter(|(_, line)| comment(line) && line.chars().count() > LINE_WIDTH_MAX)
        .map(|(place, _)| place)
        .collect();
    assert!(wide.is_empty(), "over {LINE_WIDTH_MAX} columns: {wide:?}");
}

#[test]
fn the_core_has_no_ambient_clock_randomness_or_unordered_map() {
    let banned = [
        "Instant::now",
        "SystemTime",
        "std::time",
        "thread_rng",
        "rand::",
        "getrandom",
        "HashMap",
        "HashSet",
        "std::net::Tcp",
        "std::fs",
        "std::thread::",
        "tracing::",
        "println!",
    ];
    let hits = lines_with(&sources(&["core/src"]), &banned);
    assert!(hits.is_empty(), "every input of the core is an argument:\n{}", hits.join("\n"));
}

#[test]
fn the_core_keeps_no_floats() {
    let hits = lines_with(&sources(&["core/src"]), &[": f32", ": f64", "<f32", "<f64", "as f32", "as f64"]);
    assert!(hits.is_empty(), "states must be Eq and Hash:\n{}", hits.join("\n"));
}

#[test]
fn no_unfinished_or_ignored_code_is_left() {
    // split with `concat!`, so that this file does not match
    let banned = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("#[ig", "nore"), concat!("dbg", "!(")];
    let hits = lines_with(&sources(ALL), &banned);
    assert!(hits.is_empty(), "unfinished or switched off:\n{}", hits.join("\n"));
}

/// Asserts that skips are reported by `swarmedge_seeds::skip`; the harness hides all else that a passing test prints.
#[test]
fn a_skipped_test_is_seen() {
    let banned = [concat!("print", "ln!(\"SKIPPED")];
    let hits = lines_with(&sources(ALL), &banned);
    assert!(hits.is_empty(), "nobody sees this:\n{}", hits.join("\n"));
}

#[test]
fn the_runtimes_hold_only_their_runtime() {
    for s in sources(&["runtimes/tokio/src", "runtimes/smol/src"]) {
        let lines = s.text.lines().count();
        assert!(lines <= 300, "{} has {lines} lines: what is not a runtime belongs in shell/ or core/", s.path);
    }
}

/// Circles of imports between two files that are left on purpose: source folder, module names, and the reason.
const ONE_IDEA: [(&str, &str, &str); 5] = [
    ("core/src/", "nat::connectivity::pair nat::connectivity::tcp", "a pair of hosts, and its attempts over TCP"),
    ("runtimes/shell/cli/src/", "report::balance report::balance_html", "one statement as text and as HTML"),
    ("runtimes/shell/client/src/", "peers::conn peers::watch", "a connection, and who watches it"),
    ("runtimes/shell/client/src/", "store::change store::journal", "the journal, and the changes to it"),
    ("runtimes/shell/client/src/", "store::output store::writer", "the store's jobs, and the one that takes long"),
];

#[test]
fn the_files_of_a_crate_import_without_circles() {
    let mut wrong = Vec::new();
    let mut listed: BTreeSet<_> = ONE_IDEA.iter().map(|(root, names, _)| format!("{root}: {names}")).collect();
    for root in ROOTS {
        for circle in floors::circles(&sources(&[root]), root) {
            let names = format!("{root}: {}", circle.names.join(" "));
            if !listed.remove(&names) {
                wrong.push(format!("{names}\n    {}", circle.imports.join("\n    ")));
            }
        }
    }
    assert!(wrong.is_empty(), "circles of imports; move what they share below them:\n{}", wrong.join("\n"));
    assert!(listed.is_empty(), "no circles any more: {listed:?}");
}

const FUNCTION_LINES_MAX: usize = 70;
const PARAMETERS_MAX: usize = 5;

/// Returns the functions that have too many lines or parameters, `self` not counted.
fn unwieldy(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for s in sources {
        for f in tokens::functions(&tokens::tokens(&s.text)) {
            if f.lines > FUNCTION_LINES_MAX || f.parameters > PARAMETERS_MAX {
                found
                    .push(format!("{}:{}: {}, {} lines, {} parameters", s.path, f.line, f.name, f.lines, f.parameters));
            }
        }
    }
    found
}

#[test]
fn functions_are_short_and_take_few_parameters() {
    let found = unwieldy(&sources(ALL));
    let rule = format!("at most {FUNCTION_LINES_MAX} lines and {PARAMETERS_MAX} parameters");
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// Words with which a doc comment should not begin, since they leave its subject unnamed.
const UNNAMED: [&str; 17] = [
    "Of", "Who", "What", "Whom", "Whose", "Which", "That", "This", "It", "Its", "They", "Them", "Those", "These",
    "The same", "See", "Theirs",
];
/// Doc comments that may have three words or fewer: most are lines of `--help`.
const SHORT_COMMENTS_MAX: usize = 150;
/// Doc comments that may begin with one of [`UNNAMED`].
const UNNAMED_COMMENTS_MAX: usize = 60;
const NAME_LEN_MAX: usize = 70;

/// Returns the doc comments of a source file, each as one line.
fn doc_comments(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        match (line.trim().strip_prefix("///"), is_inside) {
            (Some(words), false) => blocks.push(words.trim().to_string()),
            (Some(words), true) => {
                blocks.iter_mut().last().into_iter().for_each(|b| *b = format!("{b} {}", words.trim()))
            }
            (None, _) => {}
        }
        is_inside = line.trim().starts_with("///");
    }
    blocks
}

fn is_unnamed(comment: &str) -> bool {
    let begins = |word: &&str| comment.strip_prefix(*word).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric));
    UNNAMED.iter().any(begins)
}

#[test]
fn doc_comments_and_tests_have_plain_names() {
    let all = sources(ALL);
    let comments: Vec<_> = all.iter().flat_map(|s| doc_comments(&s.text)).collect();
    let short = comments.iter().filter(|c| c.split_whitespace().count() <= 3).count();
    let unnamed = comments.iter().filter(|c| is_unnamed(c)).count();
    println!("{} doc comments, {short} of three words or fewer, {unnamed} of an unnamed subject", comments.len());
    assert!(short <= SHORT_COMMENTS_MAX, "{short} doc comments have three words or fewer");
    assert!(unnamed <= UNNAMED_COMMENTS_MAX, "{unnamed} doc comments begin with a pronoun or a relative");
    let functions = all.iter().flat_map(|s| s.text.split("fn ").skip(1));
    let names = functions.filter_map(|f| f.split(|c: char| !c.is_alphanumeric() && c != '_').next());
    let long: Vec<_> = names.filter(|name| name.len() > NAME_LEN_MAX).collect();
    assert!(long.is_empty(), "names of more than {NAME_LEN_MAX} characters: {long:?}");
    assert!(
        is_unnamed("Whose it is.")
            && !is_unnamed("Offers a peer.")
            && doc_comments("/// a\n/// b\nx\n/// c").len() == 2
    );
}

/// Returns the passages of a text between backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn the_map_names_files_and_functions_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("the map is there");
    assert!(map.lines().count() < 150, "the map has {} lines", map.lines().count());
    let (mut steps, mut wrong) = (0, Vec::new());
    for quoted in quoted(&map).into_iter().filter(|q| q.contains('/') && !q.starts_with('/')) {
        let (path, function) = quoted.split_once(": ").unwrap_or((quoted, ""));
        let text = fs::read_to_string(root.join(path)).unwrap_or_default();
        let is_there = text.contains(&format!("fn {function}(")) || text.contains(&format!("fn {function}<"));
        if !root.join(path).exists() || !function.is_empty() && !is_there {
            wrong.push(quoted);
        }
        steps += usize::from(!function.is_empty());
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md names what does not exist: {wrong:?}");
    assert!(steps >= 40, "the four walks have {steps} steps");
}

#[test]
fn the_rules_detect_violations() {
    let room = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let circles = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(path, text)| room(path, text)).collect();
        floors::circles(&files, "s/").into_iter().map(|circle| circle.names.join(" ")).collect::<Vec<_>>()
    };
    let inline = ("s/b/c.rs", "fn f() { crate::a::g() }");
    assert_eq!(circles(&[("s/a.rs", "use crate::b::X;"), ("s/b/mod.rs", ""), inline]), ["a b"]);
    // within a folder, in a group, and through what the folder shares
    let parent = ("s/p/mod.rs", "mod a;\nmod b;\nuse b::{X, Y as Z};\npub use self::a::W;");
    assert_eq!(circles(&[parent, ("s/p/a.rs", "use super::{V, Z};"), ("s/p/b.rs", "use super::W;")]), ["p::a p::b"]);
    // a parent and its child, tests, comments and strings
    let child = ("s/p/a.rs", "use super::V;\n// use super::b::Z;\n#[cfg(test)]\nmod tests { use super::super::b::Z; }");
    assert!(circles(&[parent, child, ("s/p/b.rs", "use super::W; const S: &str = \"use crate::a::V;\";")]).is_empty());

    let function = |text: &str| unwieldy(&[room("x.rs", text)]);
    let six = "fn f(&self, a: Map<u8, u8>, (b, c): (u8, u8), d: impl Fn(u8, u8), e: u8, g: u8, h: u8) {}";
    assert_eq!(function(six), ["x.rs:1: f, 1 lines, 6 parameters"]);
    assert!(function(&six.replace(", h: u8", "")).is_empty());
    let long = format!("\nfn f<T>() -> [u8; 2]\nwhere T: A {{\n{}}}", "{ '}'; }\n".repeat(69));
    assert_eq!(function(&long), ["x.rs:2: f, 72 lines, 0 parameters"]);

    let bad = [Source { path: "x.rs".into(), text: "let t = Instant::now();\n// Instant::now is banned\n".into() }];
    assert_eq!(lines_with(&bad, &["Instant::now"]), ["x.rs:1: let t = Instant::now();"]);

    let random = |rest: &str| unseeded(&[room("x.rs", &format!("{}{rest}", concat!("proptest", "! {\n")))]).len();
    assert_eq!(random("    #![proptest_config(swarmedge_seeds::random(9))]\n"), 0);
    assert_eq!(random("    #[test]\n"), 1);
    assert_eq!(random(concat!("#![proptest_config(swarmedge_seeds::random(9))] failure_", "persistence: None")), 1);
}

/// Deployed binaries must not depend, directly or indirectly, on crates that serve only proofs.
#[test]
fn no_deployed_binary_depends_on_what_is_for_proofs() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p} {f}", "--offline"])
        .args(["-p", "swarmedge", "-p", "swarmedge-smol"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.contains("swarmedge-core v"), "{tree}");
    let banned_words =
        ["arbitrary", "libfuzzer-sys", "lies", "loom", "proptest", "stateright", "swarmedge-fuzz", "swarmedge-models"];
    for banned in banned_words {
        let found = tree.lines().find(|line| line.split([' ', ',']).any(|word| word == banned));
        assert_eq!(found, None, "{banned} is in the default build");
    }
}
