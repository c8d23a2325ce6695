//! Peer connections on smol.

#[path = "../src/rt.rs"]
mod rt;
#[path = "../../shell/tests/shared/peers.rs"]
mod shared;

macro_rules! on_smol {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            shared::$name::<rt::Smol>();
        }
    )*};
}

on_smol!(stun_passes_on_the_same_socket_during_a_transfer, the_peer_bench_runs);

macro_rules! over {
    ($transport:ident: $($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            crate::shared::$name::<crate::rt::Smol>(swarmedge_core::nat::Transport::$transport);
        }
    )*};
}

macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod quic {
            over!(Udp: $($name),*);
        }
        mod tcp {
            over!(Tcp: $($name),*);
        }
    };
}

over_both!(
    a_version_goes_from_peer_to_peer,
    control_messages_arrive_in_order_both_ways,
    a_corrupting_peer_is_named_by_its_first_wrong_block,
    a_cancelled_transfer_ends_on_both_sides,
    a_refusal_says_why_before_and_during_a_transfer,
    a_broken_connection_ends_everything_on_it_once,
    only_the_introduced_key_may_answer,
);
