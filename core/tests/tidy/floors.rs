//! Imports between the files of a crate, and the circles among them.

use std::collections::{BTreeMap, BTreeSet};

use super::tokens::{Token, closing, tokens, without_tests};
use crate::Source;

/// A module's path from its crate's root.
type Path = Vec<String>;

/// One file of a crate: the paths that it names, and for each imported name the path it stands for.
#[derive(Default)]
struct File {
    used: BTreeSet<Path>,
    bound: BTreeMap<String, Path>,
}

/// Files or folders that import one another, with the imports between them.
#[derive(Debug)]
pub(crate) struct Circle {
    pub(crate) names: Vec<String>,
    pub(crate) imports: Vec<String>,
}

type Edges = BTreeMap<Path, BTreeMap<Path, BTreeSet<String>>>;

/// Returns the circles of imports below `root`.
///
/// A file imports another when it names something that the other declares, be it through what a third file imports.
/// Between a file and the one above it that declares it (`mod child;`) nothing counts: a child may use what its
/// parent shares, and a parent its children. All other imports count at the folder where both ends part, for the
/// file or folder on either side: `store::sink` that imports `client::api` makes `store` stand above `client`.
/// So the children of each module stand on floors. What only tests compile may import anything.
pub(crate) fn circles(sources: &[Source], root: &str) -> Vec<Circle> {
    let edges = edges(&files(sources, root));
    let below = |node: &Path| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![node.clone()]);
        while let Some(next) = todo.pop() {
            let used = edges.get(&next).into_iter().flat_map(BTreeMap::keys);
            todo.extend(used.filter(|u| seen.insert((*u).clone())).cloned());
        }
        seen
    };
    let reach: BTreeMap<_, _> = edges.keys().map(|node| (node, below(node))).collect();
    let mut found = BTreeSet::new();
    for (node, seen) in reach.iter().filter(|(node, seen)| seen.contains(**node)) {
        let with = seen.iter().filter(|other| reach.get(other).is_some_and(|back| back.contains(*node)));
        found.insert(with.collect::<Vec<_>>());
    }
    let circle = |nodes: Vec<&Path>| {
        let between = nodes.iter().flat_map(|from| edges[*from].iter().filter(|(to, _)| nodes.contains(to)));
        Circle {
            names: nodes.iter().map(|path| path.join("::")).collect(),
            imports: between.flat_map(|(_, imports)| imports.clone()).collect(),
        }
    };
    found.into_iter().map(circle).collect()
}

/// Returns, for each file or folder, the siblings in its folder that it imports, each with the imports.
fn edges(files: &BTreeMap<Path, File>) -> Edges {
    let mut edges = Edges::new();
    for (from, file) in files {
        for path in &file.used {
            let to = home(files, path, 0);
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if shared < from.len() && shared < to.len() {
                let used = edges.entry(from[..=shared].to_vec()).or_default().entry(to[..=shared].to_vec());
                used.or_default().insert(format!("{} uses {}", from.join("::"), path.join("::")));
            }
        }
    }
    edges
}

/// Returns the file that declares what `path` names; re-exports on the way are followed.
fn home(files: &BTreeMap<Path, File>, path: &[String], depth: usize) -> Path {
    let mut at = Path::new();
    for (n, name) in path.iter().enumerate() {
        at.push(name.clone());
        if files.contains_key(&at) {
            continue;
        }
        at.pop();
        let imported = files.get(&at).and_then(|file| file.bound.get(name)).filter(|_| depth < 8);
        return imported.map_or(at, |to| home(files, &[to, &path[n + 1..]].concat(), depth + 1));
    }
    at
}

fn files(sources: &[Source], root: &str) -> BTreeMap<Path, File> {
    let mut files = BTreeMap::new();
    for s in sources {
        let inside = s.path.strip_prefix(root).and_then(|path| path.strip_suffix(".rs")).expect("below the root");
        let mut module: Path = inside.split('/').map(String::from).collect();
        if module.iter().any(|part| part.ends_with("tests")) || module[0] == "bin" {
            continue;
        }
        if ["mod", "lib", "main"].contains(&module[module.len() - 1].as_str()) {
            module.pop();
        }
        files.insert(module.clone(), file(&without_tests(&tokens(&s.text)), &module));
    }
    files
}

/// Reads a file's imports, and the paths in it that begin with `crate`, `self` or `super`.
fn file(tokens: &[Token], module: &[String]) -> File {
    let mut file = File::default();
    let children: Vec<_> =
        tokens.windows(3).filter(|w| w[0].text == "mod" && w[2].text == ";").map(|w| w[1].text).collect();
    // modules that are written within the file, with where they end
    let mut within: Vec<(String, usize)> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        within.retain(|(_, end)| at < *end);
        let text = |n: usize| tokens.get(at + n).map_or("", |t| t.text);
        let mut here = module.to_vec();
        here.extend(within.iter().map(|(name, _)| name.clone()));
        if text(0) == "mod" && text(2) == "{" {
            within.push((text(1).into(), closing(tokens, at + 2)));
        } else if text(0) == "use" {
            at = tree(tokens, at + 1, &[], &mut |mut path, name| {
                if path.first().is_some_and(|first| children.contains(&first.as_str())) {
                    path.insert(0, "self".into());
                }
                if let Some(path) = absolute(&path, &here) {
                    file.used.insert(path.clone());
                    file.bound.insert(name, path);
                }
            });
        } else if ["crate", "super", "self"].contains(&text(0)) && text(1) == "::" {
            let mut path = vec![text(0).to_string()];
            while tokens.get(at + 1).is_some_and(|t| t.text == "::") {
                path.extend(tokens.get(at + 2).map(|t| t.text.to_string()));
                at += 2;
            }
            // a macro is exported at the crate's root, wherever it is written
            if tokens.get(at + 1).is_none_or(|t| t.text != "!") {
                file.used.extend(absolute(&path, &here));
            }
        }
        at += 1;
    }
    file
}

/// Reads the tree of a `use` from `at`, passes each path and the name it is given to `tell`, and returns where it
/// ends.
fn tree(tokens: &[Token], mut at: usize, before: &[String], tell: &mut impl FnMut(Path, String)) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at).map_or(";", |t| t.text) {
            "::" => {}
            "{" => {
                while matches!(tokens[at].text, "{" | ",") {
                    at = tree(tokens, at + 1, &path, tell);
                }
                return at + 1;
            }
            "as" => {
                tell(path, tokens[at + 1].text.into());
                return at + 2;
            }
            ";" | "," | "}" => {
                if path.len() > before.len() {
                    path.retain(|name| name != "*");
                    let name = path.iter().rfind(|name| *name != "self").cloned().unwrap_or_default();
                    tell(path, name);
                }
                return at;
            }
            name => path.push(name.into()),
        }
        at += 1;
    }
}

/// Returns the path from the crate's root, or `None` for one of another crate.
fn absolute(path: &[String], here: &[String]) -> Option<Path> {
    let mut base = match path.first()?.as_str() {
        "crate" => Path::new(),
        "self" | "super" => here.to_vec(),
        _ => return None,
    };
    for name in path {
        match name.as_str() {
            "crate" | "self" => {}
            "super" => drop(base.pop()),
            _ => base.push(name.clone()),
        }
    }
    Some(base)
}
