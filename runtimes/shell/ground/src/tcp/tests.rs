use super::*;
use crate::keys::Key;
use crate::rt::Start as _;
use crate::rt::testing::TestRt;
use crate::tls::{peer_client_config, peer_key, peer_server_config};
use bytes::Bytes;
use std::net::TcpListener;
use swarmedge_core::nat::Transport;
use swarmedge_core::wire::frame;
use swarmedge_core::wire::mux::MuxMsg;

/// Makes the two ends of a connection on loopback.
async fn pair(rt: &TestRt) -> (Connection, Connection) {
    let (up, down) = (Key::generate(), Key::generate());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let addr = listener.local_addr().expect("bound");
    let listener = rt.listen(listener).expect("listens");
    let client = peer_client_config(&down, up.public(), Transport::Tcp).expect("fits");
    let server = peer_server_config(&up, Transport::Tcp).expect("fits");
    let accepted = async {
        let (tcp, from) = rt.accept(&listener).await.expect("somebody");
        accept(rt, server, tcp, from).await.expect("a handshake")
    };
    let dialled = async {
        let tcp = rt.connect(addr).await.expect("connected");
        connect(rt, client, tcp, addr).await.expect("a handshake")
    };
    let (dialled, (accepted, certs)) = futures_lite::future::zip(dialled, accepted).await;
    assert_eq!(peer_key(&certs), Some(down.public()));
    (dialled, accepted)
}

#[test]
fn streams_of_both_sides_wait_for_each_other() {
    TestRt::block_on(|rt| async move {
        let (a, b) = pair(&rt).await;
        let (mut send, mut recv) = a.open_bi().await.expect("a stream");
        let long = vec![3_u8; 5 << 20];
        let sent = Bytes::from(long.clone());
        rt.spawn(async move {
            send.write_chunk(sent).await.expect("taken");
            send.finish().expect("open");
        });
        let (mut answer, mut question) = b.accept_bi().await.expect("a stream");
        let mut got = Vec::new();
        while let Some(chunk) = question.read_chunk(usize::MAX).await.expect("bytes") {
            got.extend_from_slice(&chunk);
        }
        assert!(got == long, "what was sent has come, more than any window holds");
        answer.reset(7);
        assert_eq!(recv.read_chunk(1).await, Err(ReadError::Reset(7)));
        b.close(5);
        a.closed().await;
        assert_eq!((a.close_code(), b.close_code()), (Some(5), Some(5)));
        assert!(a.open_bi().await.is_none() && b.accept_bi().await.is_none());
        b.over().await;
    });
}

#[test]
fn who_breaks_the_rules_is_closed_and_who_falls_silent_too() {
    TestRt::block_on(|rt| async move {
        let (a, b) = pair(&rt).await;
        // the side that was dialled opens nothing
        let (mut send, _recv) = a.open_bi().await.expect("a stream");
        send.write_chunk(Bytes::from_static(b"x")).await.expect("taken");
        let (mut back, _question) = b.accept_bi().await.expect("a stream");
        back.write_chunk(Bytes::from_static(b"y")).await.expect("taken");
        let violation = a.with(|mux| mux.received(&frame(&MuxMsg::Open(1))));
        assert!(violation.is_err());
        a.close(VIOLATION);
        b.closed().await;
        assert_eq!(b.close_code(), Some(VIOLATION));
    });
}

#[test]
fn keys_are_pinned() {
    TestRt::block_on(|rt| async move {
        let (up, down, other) = (Key::generate(), Key::generate(), Key::generate());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("set");
        let addr = listener.local_addr().expect("bound");
        let listener = rt.listen(listener).expect("listens");
        let server = peer_server_config(&other, Transport::Tcp).expect("fits");
        let client = peer_client_config(&down, up.public(), Transport::Tcp).expect("fits");
        let accepted = async {
            let (tcp, from) = rt.accept(&listener).await.expect("somebody");
            accept(&rt, server, tcp, from).await.is_ok()
        };
        let dialled = async {
            let tcp = rt.connect(addr).await.expect("connected");
            connect(&rt, client, tcp, addr).await.is_ok()
        };
        let (dialled, _) = futures_lite::future::zip(dialled, accepted).await;
        assert!(!dialled, "another key has answered");
    });
}
