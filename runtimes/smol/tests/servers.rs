//! The runtime itself, and the control plane's servers on it.

#[path = "../src/rt.rs"]
mod rt;
#[path = "../../shell/tests/shared/servers.rs"]
mod shared;

macro_rules! on_smol {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {$(
        #[test]
        $(#[$meta])*
        fn $name() {
            shared::$name::<rt::Smol>();
        }
    )*};
}

on_smol!(
    two_clients_are_introduced_and_the_ledger_keeps_their_record,
    a_forged_grant_introduces_nobody,
    garbage_on_every_port_disturbs_nobody,
    stun_answers_over_udp_and_tcp,
    stun_answers_from_its_other_address,
    clients_are_located_and_the_ledger_keeps_country_and_network_alone,
    a_stopping_cn_drains_its_clients,
    a_port_in_use_is_one_clear_error,
    the_runtime_keeps_its_promises,
    #[should_panic(expected = "on the pool")]
    a_panic_on_the_blocking_pool_reaches_its_caller,
    tasks_end_with_their_shard,
);
