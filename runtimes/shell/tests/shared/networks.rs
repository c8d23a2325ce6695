//! Tests networks as they are: IPv6, names of which some addresses are dead, and proxies.

use super::gets::{Cdn, SMALL};
use super::skip;
use crate::Rt as R;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use swarmedge_ground::reach::race;
use swarmedge_ground::rt::Start as _;

/// A proxy that tunnels to wherever it is asked to, for those with the right login; it tells every request.
struct TestProxy {
    addr: SocketAddr,
    asked: Receiver<String>,
}

impl TestProxy {
    /// Starts a proxy that wants `login`, in base64, if there is one.
    fn start(login: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let (tell, asked) = channel();
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let (tcp, tell) = (tcp.expect("accepted"), tell.clone());
                std::thread::spawn(move || {
                    // a client that leaves early is none of the proxy's business
                    let _ = serve(tcp, login, |request| drop(tell.send(request)));
                });
            }
        });
        Self { addr, asked }
    }

    fn requests(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

fn serve(mut tcp: TcpStream, login: Option<&str>, tell: impl Fn(String)) -> std::io::Result<()> {
    let mut head = Vec::new();
    for line in BufReader::new(tcp.try_clone()?).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let request = head.first().cloned().unwrap_or_default();
    tell(request.clone());
    let known = |login: &str| head.contains(&format!("Proxy-Authorization: Basic {login}"));
    if !login.is_none_or(known) {
        return tcp.write_all(b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n");
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    let mut there = TcpStream::connect(target)?;
    tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (tcp.try_clone()?, there.try_clone()?);
    std::thread::spawn(move || {
        let _ = pump(&mut from, &mut to);
    });
    pump(&mut there, &mut tcp)
}

fn pump(from: &mut TcpStream, to: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return to.shutdown(Shutdown::Write);
        }
        to.write_all(&buffer[..n])?;
    }
}

/// Makes a TCP address that answers no SYN: its queue of connections is full.
fn swallows() -> (SocketAddr, impl Sized) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("a port");
    socket.listen(0).expect("listens");
    let addr = socket.local_addr().expect("bound").as_socket().expect("IPv4");
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let tcp = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        tcp.set_nonblocking(true).expect("set");
        // it never connects, or waits to be accepted
        let _ = tcp.connect(&addr.into());
        waiting.push(tcp);
    }
    (addr, (socket, waiting))
}

#[test]
fn an_address_that_swallows_packets_delays_the_next_by_little() {
    let (dead, _held) = swallows();
    let open = TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = open.local_addr().expect("bound");
    R::block_on(move |rt| async move {
        let with_another = async { race(&rt, vec![dead, there]).await.is_ok() };
        // ends with the time-out of an attempt
        let alone = async { race(&rt, vec![dead]).await.is_ok() };
        assert!(futures_lite::future::or(with_another, alone).await, "the second address answers long before");
    });
}

#[test]
fn a_deployment_on_ipv6_publishes_serves_and_connects() {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return skip("this system has no IPv6");
    }
    let cdn = Cdn::start_at("::1");
    let bytes = cdn.publish("object", SMALL);
    let client = cdn.client_with(&[]);
    cdn.until("a control connection over IPv6", |status| status.control_connected);
    let mut get = cdn.get_with("object", "out", &[]);
    cdn.ends_well(&mut get, "out", &bytes);
    cdn.until("the STUN server's view", |status| {
        status.public_address.as_ref().is_some_and(|addr| addr.starts_with("[::1]:"))
    });
    drop(client);
}

#[test]
fn edges_and_control_plane_are_reached_through_a_proxy() {
    let cdn = Cdn::start_at("127.0.0.1");
    let bytes = cdn.publish("object", SMALL);
    let proxy = TestProxy::start(Some("dXNlcjpzZWNyZXQ="));
    let url = format!("http://user:secret@{}", proxy.addr);
    let client = cdn.client_with(&["--proxy", &url]);
    cdn.until("a control connection", |status| status.control_connected);
    let mut get = cdn.get_with("object", "out", &["--proxy", &url]);
    cdn.ends_well(&mut get, "out", &bytes);
    let asked = proxy.requests();
    for port in [cdn.made.ports.edge, cdn.made.ports.cn] {
        let wanted = format!("CONNECT 127.0.0.1:{port} HTTP/1.1");
        assert!(asked.contains(&wanted), "{wanted} in {asked:?}");
    }
    let shown = format!("http://{}", proxy.addr);
    cdn.until("the proxy without the password", |status| status.proxy.as_ref() == Some(&shown));
    assert!(!cdn.said("client").contains("secret"), "{}", cdn.said("client"));
    let mut other = cdn.get_with("object", "other", &["--proxy", "off"]);
    assert_eq!(other.code(), Some(2));
    assert!(cdn.said("other").contains(&shown), "{}", cdn.said("other"));
    drop(client);
}

#[test]
fn a_proxy_that_refuses_is_named_with_its_reason_and_the_password_hidden() {
    let cdn = Cdn::start_at("127.0.0.1");
    cdn.publish("object", SMALL);
    let proxy = TestProxy::start(Some("bm9ib2R5"));
    let url = |login: &str| format!("http://{login}{}", proxy.addr);
    for (proxy, code, words) in [
        (url("user:secret@"), 4, "it refuses this user and password (407)"),
        ("socks5://user:secret@127.0.0.1:1".into(), 2, "socks5 proxies are not supported: use http://"),
    ] {
        let mut get = cdn.get_with("object", "out", &["--proxy", &proxy]);
        assert_eq!(get.code(), Some(code), "{}", cdn.said("out"));
        let said = cdn.said("out");
        assert!(said.contains(words) && !said.contains("secret"), "{said}");
    }
}
