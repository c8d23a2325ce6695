//! The binaries under test: those built beside this test.

use std::path::PathBuf;

/// Binary of one runtime.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) runtime: &'static str,
    pub(crate) path: PathBuf,
}

/// Returns the binaries of tokio and smol; returns none, and reports that the test is skipped, if they are not built.
pub(crate) fn programs() -> Vec<Program> {
    let test = std::env::current_exe().expect("this test's own file");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps/TEST");
    let all = [("tokio", "swarmedge"), ("smol", "swarmedge-smol")];
    let all = all.map(|(runtime, name)| Program { runtime, path: profile.join(name) });
    if let Some(missing) = all.iter().find(|p| !p.path.exists()) {
        let why = format!("{} is not built; run `cargo build`, with this test's --profile", missing.path.display());
        swarmedge_natlab::require::skip(&why);
        return Vec::new();
    }
    all.to_vec()
}
