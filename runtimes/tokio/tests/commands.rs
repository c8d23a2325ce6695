//! The built binary on tokio, as a user runs it.

#[path = "../../shell/tests/shared/commands.rs"]
mod shared;

macro_rules! with_binary {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            shared::$name(env!("CARGO_BIN_EXE_swarmedge"));
        }
    )*};
}

with_binary!(
    a_deployment_is_made_and_a_slip_in_it_is_named,
    failures_have_their_exit_codes,
    an_auditor_finds_what_was_bent_and_accepts_what_was_not,
    a_small_demo_ends_well,
    a_killed_demo_leaves_no_process,
    a_short_crash_loop_bills_what_was_delivered,
);
