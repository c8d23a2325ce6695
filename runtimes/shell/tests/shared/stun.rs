//! Tests the STUN server on a real runtime.

use super::{R, any, run};
use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::net::{SocketAddr, UdpSocket};
use swarmedge_control::config::StunConfig;
use swarmedge_control::stun;
use swarmedge_core::nat::stun::{Attribute, Class, Message, TransactionId};
use swarmedge_ground::rt::{Rt as _, Start};

pub(super) fn stun_config() -> StunConfig {
    StunConfig { listen: any(), alternate: None, seal_key: None, also: Vec::new(), ops: None }
}

pub(super) async fn ask_over_tcp<R: Start>(tcp: &mut R::Tcp) -> SocketAddr {
    let id = TransactionId([3; 12]);
    tcp.write_all(&Message::request(id).encode()).await.expect("sent");
    let mut answer = vec![0; 20];
    tcp.read_exact(&mut answer).await.expect("answered");
    let len = usize::from(u16::from_be_bytes([answer[2], answer[3]]));
    answer.resize(20 + len, 0);
    tcp.read_exact(&mut answer[20..]).await.expect("answered");
    match Message::decode(&answer) {
        Ok(m) if m.id == id && m.class == Class::Success => m.mapped().expect("mapped"),
        other => panic!("unexpected: {other:?}"),
    }
}

/// The STUN server returns the source address of a request, over UDP and over TCP.
#[test]
fn stun_answers_over_udp_and_tcp() {
    run::<R, _>(|net| async move {
        let stun = net.start(stun::open(&net.rt, &stun_config(), &net.stop, &net.health).expect("opens"));
        let udp = UdpSocket::bind(any()).expect("a port");
        let own = udp.local_addr().expect("bound");
        udp.send_to(&Message::request(TransactionId([2; 12])).encode(), stun).expect("sent");
        let answer = net.rt.blocking(move || {
            let mut bytes = [0; 600];
            let (len, from) = udp.recv_from(&mut bytes).expect("answered");
            assert_eq!(from, stun, "from the address that was asked");
            Message::decode(&bytes[..len])
        });
        let answer = answer.await.expect("a message");
        assert_eq!((answer.class, answer.id, answer.mapped()), (Class::Success, TransactionId([2; 12]), Some(own)));
        let mut tcp = net.rt.connect(stun).await.expect("connected");
        let first = ask_over_tcp::<R>(&mut tcp).await;
        assert_eq!(ask_over_tcp::<R>(&mut tcp).await, first, "one request after another");
    });
}

/// With two addresses the STUN server answers from the other one when asked, and tells its address.
#[test]
fn stun_answers_from_its_other_address() {
    run::<R, _>(|net| async move {
        let open = || {
            let free = |ip: &str| {
                let socket = UdpSocket::bind((ip, 0)).expect("loopback has two addresses");
                socket.local_addr().expect("bound")
            };
            let cfg = StunConfig { listen: free("127.0.0.1"), alternate: Some(free("127.0.0.2")), ..stun_config() };
            // another process may have taken one of the four ports in the meantime
            stun::open(&net.rt, &cfg, &net.stop, &net.health).ok().map(|server| (server, cfg))
        };
        let (server, cfg) = (0..16).find_map(|_| open()).expect("four free ports");
        let stun = net.start(server);
        let udp = UdpSocket::bind(any()).expect("a port");
        let both = Attribute::ChangeRequest { address: true, port: true };
        let request = Message::new(Class::Request, TransactionId([4; 12]), vec![both]).encode();
        udp.send_to(&request, stun).expect("sent");
        let answer = net.rt.blocking(move || {
            let mut bytes = [0; 600];
            let (len, from) = udp.recv_from(&mut bytes).expect("answered");
            (Message::decode(&bytes[..len]).expect("a message"), from)
        });
        let (answer, from) = answer.await;
        assert_eq!(Some(from), cfg.alternate);
        assert_eq!((answer.class, answer.other_address()), (Class::Success, cfg.alternate));
    });
}
