//! Links on loopback: messages arrive, and each kind of misbehaviour ends the link.

use super::*;
use crate::keys::Key;
use crate::mailbox::{Receiver, mailbox};
use crate::rt::{Start, testing::TestRt};
use crate::tls::{CertAuthority, client_config, server_config};
use std::sync::Arc;
use swarmedge_core::ids::RecordId;
use swarmedge_core::wire::List;
use swarmedge_core::wire::ledger::{FromLedger, LedgerAck};

/// A connection's id with an event; in these tests both sides send the messages of a ledger.
type Heard = (ConnId, Event<FromLedger>);

struct Side {
    inlet: Inlet<FromLedger, FromLedger, Heard>,
    inbox: Receiver<Heard>,
}

fn side(capacity: usize) -> Side {
    let (tx, inbox) = mailbox(capacity);
    Side {
        inlet: Inlet { inbox: tx, links: Links::default(), wrap: |conn, event| Some((conn, event)), cap: Cap::SERVER },
        inbox,
    }
}

struct Deployment {
    rt: TestRt,
    addr: SocketAddr,
    client_tls: Arc<rustls::ClientConfig>,
    key: Key,
}

/// Makes a listening `server` and what is needed to dial it.
fn listen(rt: &TestRt, server: &Side, cap: Cap, connections_max: usize) -> Deployment {
    let ca = CertAuthority::new().expect("made");
    let (cert, tls_key) = ca.issue(&["127.0.0.1"]).expect("issued");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = socket.local_addr().expect("bound");
    let accept_from = Accept {
        listener: rt.listen(socket).expect("listening"),
        tls: server_config(&cert, &tls_key, true).expect("fits"),
        connections_max,
        server: "test",
    };
    rt.spawn(accept(rt.clone(), accept_from, Inlet { cap, ..server.inlet.clone() }));
    let key = Key::generate();
    let client_tls = client_config(ca.cert_pem(), Some(&key)).expect("fits");
    Deployment { rt: rt.clone(), addr, client_tls, key }
}

impl Deployment {
    fn dial(&self, client: &Side, conn: ConnId) {
        let tls = Arc::clone(&self.client_tls);
        dial(&self.rt, tls, &self.addr.to_string(), conn, &client.inlet);
    }

    /// Opens a link from `client`; returns the server's id of the connection.
    async fn open(&self, server: &mut Side, client: &mut Side, conn: ConnId) -> ConnId {
        self.dial(client, conn);
        assert!(matches!(client.inbox.recv().await, Some((c, Event::Opened(None))) if c == conn));
        let Some((accepted, Event::Opened(Some(peer)))) = server.inbox.recv().await else { panic!("not accepted") };
        assert_eq!(peer.key, self.key.public());
        accepted
    }
}

/// Makes the longest message that a ledger can send.
fn large(n: u32) -> FromLedger {
    let ids = (0..1024).map(|i| RecordId::numbered(n + i));
    FromLedger::Ack(LedgerAck { ids: List::truncated(ids) })
}

#[test]
fn messages_arrive_in_order_both_ways_and_a_close_is_seen() {
    TestRt::block_on(|rt| async move {
        let (mut server, mut client) = (side(4), side(4));
        let net = listen(&rt, &server, Cap::SERVER, 8);
        let conn = ConnId(7);
        let accepted = net.open(&mut server, &mut client, conn).await;
        for n in 0..50 {
            client.inlet.links.send(conn, &large(n));
        }
        client.inlet.links.send(conn, &FromLedger::Ping);
        for n in 0..50 {
            let Some((_, Event::Message(msg))) = server.inbox.recv().await else { panic!("no message") };
            assert_eq!(msg, large(n));
        }
        assert!(matches!(server.inbox.recv().await, Some((c, Event::Message(FromLedger::Ping))) if c == accepted));
        server.inlet.links.send(accepted, &FromLedger::Pong);
        server.inlet.links.close(accepted);
        assert!(
            matches!(client.inbox.recv().await, Some((_, Event::Message(FromLedger::Pong)))),
            "sent before the end"
        );
        assert!(matches!(client.inbox.recv().await, Some((c, Event::Closed)) if c == conn));
    });
}

#[test]
fn who_cannot_be_reached_is_closed() {
    TestRt::block_on(|rt| async move {
        let (server, mut client) = (side(4), side(4));
        let mut net = listen(&rt, &server, Cap::SERVER, 8);
        // a port that was just free
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        net.addr = socket.local_addr().expect("bound");
        drop(socket);
        net.dial(&client, ConnId(1));
        assert!(matches!(client.inbox.recv().await, Some((ConnId(1), Event::Closed))));
    });
}

#[test]
fn garbage_and_half_open_connections_disturb_nobody() {
    TestRt::block_on(|rt| async move {
        let (mut server, mut client) = (side(4), side(4));
        let net = listen(&rt, &server, Cap::SERVER, 64);
        let silent: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(net.addr).expect("connected")).collect();
        for n in 0..8_u8 {
            let mut noisy = std::net::TcpStream::connect(net.addr).expect("connected");
            // it may be refused in the middle
            let _ = std::io::Write::write_all(&mut noisy, &[n.wrapping_mul(31) ^ 0x5a; 5000]);
        }
        let accepted = net.open(&mut server, &mut client, ConnId(1)).await;
        client.inlet.links.send(ConnId(1), &FromLedger::Ping);
        assert!(matches!(server.inbox.recv().await, Some((c, Event::Message(FromLedger::Ping))) if c == accepted));
        drop(silent);
    });
}

#[test]
fn a_frame_that_is_no_message_ends_its_link_only() {
    TestRt::block_on(|rt| async move {
        let (mut server, mut client) = (side(4), side(4));
        let net = listen(&rt, &server, Cap::SERVER, 8);
        let good = net.open(&mut server, &mut client, ConnId(1)).await;
        let mut stream = connect(&rt, Arc::clone(&net.client_tls), &net.addr.to_string()).await.expect("open");
        let Some((bad, Event::Opened(_))) = server.inbox.recv().await else { panic!("not accepted") };
        stream.write_all(&[0xff; 64]).await.expect("sent");
        stream.flush().await.expect("sent");
        assert!(matches!(server.inbox.recv().await, Some((c, Event::Closed)) if c == bad));
        client.inlet.links.send(ConnId(1), &FromLedger::Ping);
        assert!(matches!(server.inbox.recv().await, Some((c, Event::Message(_))) if c == good));
    });
}

#[test]
fn a_peer_that_does_not_read_overflows_and_is_closed() {
    TestRt::block_on(|rt| async move {
        let mut server = side(4);
        let net = listen(&rt, &server, Cap { items: 4096, bytes: 256 * 1024 }, 8);
        let stream = connect(&rt, Arc::clone(&net.client_tls), &net.addr.to_string()).await.expect("open");
        let Some((conn, Event::Opened(_))) = server.inbox.recv().await else { panic!("not accepted") };
        let mut sent = 0;
        // the kernel's buffers take some of it
        loop {
            server.inlet.links.send(conn, &large(0));
            sent += 1;
            futures_lite::future::yield_now().await;
            if let Some((closed, event)) = server.inbox.try_recv() {
                assert!(matches!(event, Event::Closed) && closed == conn);
                break;
            }
            assert!(sent < 100_000, "the queue is bounded");
        }
        drop(stream);
    });
}

#[test]
fn a_full_mailbox_stops_the_reader_and_loses_nothing() {
    TestRt::block_on(|rt| async move {
        let (mut server, mut client) = (side(1), side(4));
        let net = listen(&rt, &server, Cap::SERVER, 8);
        net.open(&mut server, &mut client, ConnId(1)).await;
        for n in 0..200 {
            client.inlet.links.send(ConnId(1), &large(n));
        }
        client.inlet.links.close(ConnId(1));
        for n in 0..200 {
            let Some((_, Event::Message(msg))) = server.inbox.recv().await else { panic!("message {n} is lost") };
            assert_eq!(msg, large(n));
        }
        assert!(matches!(server.inbox.recv().await, Some((_, Event::Closed))));
    });
}

#[test]
fn connections_above_the_limit_are_refused() {
    TestRt::block_on(|rt| async move {
        let (mut server, mut client) = (side(4), side(4));
        let net = listen(&rt, &server, Cap::SERVER, 1);
        net.open(&mut server, &mut client, ConnId(1)).await;
        net.dial(&client, ConnId(2));
        assert!(matches!(client.inbox.recv().await, Some((ConnId(2), Event::Closed))));
        client.inlet.links.send(ConnId(1), &FromLedger::Ping);
        assert!(matches!(server.inbox.recv().await, Some((_, Event::Message(_)))));
    });
}
