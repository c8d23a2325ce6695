//! What the tests of all crates share: the configuration of property tests, and the way to skip a test. A development
//! dependency only.
//!
//! All property tests of a process share one seed: `PROPTEST_RNG_SEED`, or else a fresh one. The seed is printed even
//! if all of them pass, so that every run can be repeated. The seed of a failing case is kept in a file that must be
//! committed: from then on every run begins with that case.

use proptest::prelude::{ProptestConfig, Rng as _};
use proptest::test_runner::{FileFailurePersistence, RngSeed, TestRunner};
use std::io::Write as _;
use std::panic::Location;
use std::path::Path;
use std::sync::LazyLock;

/// Returns the configuration of property tests with `cases` cases. Failed seeds are kept in the crate's folder
/// `proptest-regressions`; for tests in `tests/` they are kept beside the source as `.proptest-regressions`.
#[must_use]
#[track_caller]
pub fn random(cases: u32) -> ProptestConfig {
    // proptest searches for the crate root (lib.rs) above the file, and finds none from `tests/`
    let is_in_src = Path::new(Location::caller().file()).iter().any(|part| part == "src");
    let kept = if is_in_src { FileFailurePersistence::SourceParallel } else { FileFailurePersistence::WithSource };
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(kept("proptest-regressions"))),
        rng_seed: RngSeed::Fixed(*SEED),
        ..ProptestConfig::default()
    }
}

static SEED: LazyLock<u64> = LazyLock::new(|| {
    let seed = match ProptestConfig::default().rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => TestRunner::default().rng().next_u64(),
    };
    // not `eprintln!`, which the harness shows for failing tests only; and one write, since other threads write there
    // too
    let line = format!("random tests: PROPTEST_RNG_SEED={seed} plays them again\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    seed
});

/// Reports that a test is skipped, and why. The line goes past the test harness, which hides what a passing test
/// prints.
///
/// # Panics
/// If `SWARMEDGE_REQUIRE_ALL` is set, where no test may be skipped.
pub fn skip(why: &str) {
    assert!(std::env::var_os("SWARMEDGE_REQUIRE_ALL").is_none(), "needed for this test: {why}");
    let line = format!("SKIPPED: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_seed_of_a_test_in_src_is_played_again() {
        common::begins_with_the_kept_seed(random(4), file!());
    }
}
