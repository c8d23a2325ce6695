//! The configuration of the random tests of all crates; a development dependency only.
//!
//! The random tests of a process share one seed: `PROPTEST_RNG_SEED`, or else a fresh one. The seed is printed even
//! where all of them pass, so that every run can be played again. A case that fails is kept by a seed of its own, in a
//! file that belongs into the repository: from then on every run begins with that case.

use proptest::prelude::{ProptestConfig, Rng as _};
use proptest::test_runner::{FileFailurePersistence, RngSeed, TestRunner};
use std::io::Write as _;
use std::panic::Location;
use std::path::Path;
use std::sync::LazyLock;

/// The configuration of random tests with so many cases. Seeds that failed are kept in the crate's folder
/// `proptest-regressions`, those of tests in `tests/` beside their source as `.proptest-regressions`.
#[must_use]
#[track_caller]
pub fn random(cases: u32) -> ProptestConfig {
    // proptest looks for the folder above the file, and finds none from `tests/`
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
    // not `eprintln!`: the harness would show that of tests that fail only; and one write, as others write there too
    let line = format!("random tests: PROPTEST_RNG_SEED={seed} plays them again\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    seed
});

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
