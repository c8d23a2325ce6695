//! Listening sockets; errors name the address and the configuration entry to change.

use crate::error::{Code, Error};
use crate::rt::Rt;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Most connections that the kernel queues before they are accepted.
const BACKLOG: i32 = 1024;

/// Opens a listening, non-blocking TCP socket. `key` names the configuration entry in errors, as in `[cn] listen`.
pub fn listen_tcp(addr: SocketAddr, key: &str) -> Result<TcpListener, Error> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        // a restarted server must not wait for old connections in TIME_WAIT
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    bind().map_err(|e| refused(addr, "TCP", key, &e))
}

/// Listens on a TCP address for a runtime; returns the bound address too. `key` as in [`listen_tcp`].
pub fn listen<R: Rt>(rt: &R, addr: SocketAddr, key: &str) -> Result<(R::Listener, SocketAddr), Error> {
    let failed = |e: io::Error| Error::io(format!("listen on {addr}"), &e);
    let socket = listen_tcp(addr, key)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((rt.listen(socket).map_err(failed)?, bound))
}

/// Opens a bound, non-blocking UDP socket; `key` as in [`listen_tcp`].
pub fn bind_udp(addr: SocketAddr, key: &str) -> Result<UdpSocket, Error> {
    let bind = || {
        let socket = UdpSocket::bind(addr)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    bind().map_err(|e| refused(addr, "UDP", key, &e))
}

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
}
