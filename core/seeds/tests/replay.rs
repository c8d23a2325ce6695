//! Tests that failed seeds of tests in `tests/` are kept and replayed.

mod common;

#[test]
fn a_kept_seed_of_a_test_in_tests_is_played_again() {
    common::begins_with_the_kept_seed(swarmedge_seeds::random(4), file!());
}

#[test]
fn all_random_tests_of_a_process_share_one_seed() {
    assert_eq!(swarmedge_seeds::random(1).rng_seed, swarmedge_seeds::random(2).rng_seed);
}
