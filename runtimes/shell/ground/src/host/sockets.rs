//! Listening sockets; errors name the address and the configuration entry to change.

use crate::error::{Code, Error};
use crate::quic;
use crate::rt::Rt;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Once;

/// Most connections that the kernel queues before they are accepted.
const BACKLOG: i32 = 1024;

/// Most bytes of a connection that wait in the kernel to be sent.
const UNSENT_MAX: u32 = 128 * 1024;

/// Opens a listening, non-blocking TCP socket; on `[::]` the socket takes IPv4 too. `key` names the configuration entry
/// in errors, such as `[cn] listen`.
pub fn listen_tcp(addr: SocketAddr, key: &str) -> Result<TcpListener, Error> {
    let bind = |addr: SocketAddr| {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // a restarted server must not wait for old connections in TIME_WAIT
        socket.set_reuse_address(true)?;
        bound_unsent(&socket)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    on_either(addr, bind).map_err(|e| refused(addr, "TCP", key, &e))
}

/// Opens a socket on `addr`. Where the system has no IPv6, `[::]` is every address of IPv4.
fn on_either<T>(addr: SocketAddr, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    static SAID: Once = Once::new();
    let error = match open(addr) {
        Err(error) if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && is_for_want_of_ipv6(&error) => error,
        opened => return opened,
    };
    SAID.call_once(|| tracing::warn!(%error, "this system has no IPv6: servers on [::] listen on 0.0.0.0 instead"));
    open((Ipv4Addr::UNSPECIFIED, addr.port()).into())
}

fn is_for_want_of_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

/// Bounds the bytes that the kernel keeps of each accepted connection before it can send them: for a client that takes
/// nothing. The bytes on their way are bounded by what the client has room for, so fast and distant clients stay fast.
fn bound_unsent(socket: &Socket) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return socket.set_tcp_notsent_lowat(UNSENT_MAX);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    socket.set_send_buffer_size(UNSENT_MAX as usize)
}

/// Listens on a TCP address for a runtime; returns the bound address too. `key` names the configuration entry in
/// errors, such as `[cn] listen`.
pub fn listen<R: Rt>(rt: &R, addr: SocketAddr, key: &str) -> Result<(R::Listener, SocketAddr), Error> {
    let failed = |e: io::Error| Error::io(format!("listen on {addr}"), &e);
    let socket = listen_tcp(addr, key)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((rt.listen(socket).map_err(failed)?, bound))
}

/// Opens a bound, non-blocking UDP socket; on `[::]` the socket takes IPv4 too. `key` names the configuration entry in
/// errors, such as `[stun] listen`.
pub fn bind_udp(addr: SocketAddr, key: &str) -> Result<UdpSocket, Error> {
    on_either(addr, quic::bind_udp).map_err(|e| refused(addr, "UDP", key, &e))
}

/// Makes the error for an address on which the server cannot listen.
fn refused(addr: SocketAddr, protocol: &str, key: &str, e: &io::Error) -> Error {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows")]
    match e.kind() {
        io::ErrorKind::AddrInUse => Error::new(Code::Usage, format!("{protocol} port {addr} is in use"))
            .next(format!("stop the other program, or change `{key}` in the configuration")),
        io::ErrorKind::AddrNotAvailable => Error::new(Code::Usage, format!("{addr} is no address of this machine"))
            .next(format!("change `{key}` in the configuration")),
        _ => Error::io(format!("listen on {protocol} {addr}"), e).next(format!("see `{key}` in the configuration")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_what_to_change() {
        let first = listen_tcp("127.0.0.1:0".parse().expect("an address"), "[cn] listen").expect("a port");
        let addr = first.local_addr().expect("bound");
        let error = listen_tcp(addr, "[cn] listen").expect_err("taken");
        assert_eq!(error.code(), Code::Usage);
        let text = error.to_string();
        assert!(text.contains(&addr.to_string()) && text.contains("[cn] listen"), "{text}");
        let udp = bind_udp("127.0.0.1:0".parse().expect("an address"), "[stun] listen").expect("a port");
        assert!(bind_udp(udp.local_addr().expect("bound"), "[stun] listen").is_err());
    }

    #[test]
    fn every_address_is_of_ipv4_alone_where_there_is_no_ipv6() {
        let any: SocketAddr = "[::]:7".parse().expect("an address");
        let open = |lacking: Errno| {
            move |addr: SocketAddr| if addr.is_ipv6() { Err(io::Error::from(lacking)) } else { Ok(addr) }
        };
        let fallback = Some("0.0.0.0:7".parse().expect("an address"));
        assert_eq!(on_either(any, open(Errno::AFNOSUPPORT)).ok(), fallback);
        assert_eq!(on_either(any, open(Errno::ADDRNOTAVAIL)).ok(), fallback);
        assert!(on_either(any, open(Errno::ADDRINUSE)).is_err(), "the port is taken");
        assert!(on_either("[::1]:7".parse().expect("an address"), open(Errno::AFNOSUPPORT)).is_err());
    }

    #[test]
    fn a_socket_on_every_address_takes_both_families() {
        let any = "[::]:0".parse().expect("an address");
        let listener = listen_tcp(any, "[cn] listen").expect("a port");
        let bound = listener.local_addr().expect("bound");
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, bound.port())).expect("IPv4");
        if bound.is_ipv6() && UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, bound.port())).expect("IPv6");
        }
        assert_eq!(bind_udp(any, "[stun] listen").and_then(|_| listen_tcp(any, "")).map(drop), Ok(()));
    }
}
