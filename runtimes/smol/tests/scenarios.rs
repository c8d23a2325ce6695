//! The scenarios of the whole system, on smol.

#[path = "../src/rt.rs"]
mod rt;
#[path = "../../shell/tests/shared/rig.rs"]
mod shared;

macro_rules! on_smol {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            shared::play::<rt::Smol>(stringify!($name));
        }
    )*};
}

on_smol!(
    peers_deliver_and_the_ledger_agrees,
    the_cn_dies,
    the_dn_dies_and_comes_back,
    a_seeder_dies,
    a_seeder_sends_wrong_bytes,
    there_is_no_control_plane,
    the_edge_is_away_for_a_while,
    an_edge_dies_and_another_goes_on,
    a_client_dies_and_resumes,
    uploads_off_means_off,
    a_withdrawn_object_is_shared_no_more,
    who_has_completed_proves_that_it_holds_what_peers_delivered,
    a_quarantined_client_is_served_by_the_edge_alone,
    the_sealing_keys_are_rotated_twice,
    pause_resume_cancel,
    two_copies_of_a_client_run,
    two_copies_of_a_client_run_on_two_cns,
    a_client_that_restarts_keeps_its_key,
);
