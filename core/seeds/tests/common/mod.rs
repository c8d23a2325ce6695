//! Checks shared by the tests in `src/` and in `tests/`.

use proptest::prelude::{ProptestConfig, any};
use proptest::test_runner::TestRunner;
use std::cell::RefCell;

/// A number that nobody draws by chance: the kept seed of each of the two files produces it.
const KEPT: u64 = 15_769_900_653_955_020_037;

/// Checks that a property test of the file `source` begins with the seed that is kept for it.
pub(crate) fn begins_with_the_kept_seed(config: ProptestConfig, source: &'static str) {
    let (seen, cases) = (RefCell::new(Vec::new()), config.cases as usize);
    let mut runner = TestRunner::new(ProptestConfig { source_file: Some(source), ..config });
    let ran = runner.run(&any::<u64>(), |n| {
        seen.borrow_mut().push(n);
        Ok(())
    });
    assert_eq!((ran, seen.borrow().len()), (Ok(()), 1 + cases), "the kept seed and fresh ones");
    assert_eq!(seen.borrow()[0], KEPT);
}
