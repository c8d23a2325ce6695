//! Connections to rustls' own server, in memory, with the bytes between them divided in many ways.

use super::*;
use crate::tls::{CertAuthority, client_config, server_config};
use futures_lite::future::block_on;
use hyper::rt::{Read as _, ReadBuf, Write as _};
use rustls::{ServerConfig, ServerConnection};
use std::cell::{RefCell, RefMut};
use std::io::{Read as _, Write as _};
use std::rc::Rc;

/// The server's end: the TLS server, the bytes that it has sent, and how many of these the client gets at a time.
struct Server {
    tls: ServerConnection,
    wire: Vec<u8>,
    /// Number of bytes per read and per write of the client.
    step: usize,
    /// Number of bytes that the client still gets before the connection breaks.
    allowed: usize,
    /// Whether the client's bytes are altered in transit.
    spoil: bool,
    /// The result of the server's processing of the client's bytes.
    outcome: Result<(), rustls::Error>,
}

#[derive(Clone)]
struct Socket(Rc<RefCell<Server>>);

impl Socket {
    fn server(&self) -> RefMut<'_, Server> {
        self.0.borrow_mut()
    }

    /// Makes the server send something.
    fn says(&self, what: impl FnOnce(&mut ServerConnection)) {
        let mut server = self.server();
        what(&mut server.tls);
        server.encode();
    }

    /// Returns the plaintext that the server has received.
    fn heard(&self) -> Vec<u8> {
        let mut all = Vec::new();
        // "nothing more for now" is an error to `std::io::Read`
        let _ = self.server().tls.reader().read_to_end(&mut all);
        all
    }
}

impl Server {
    fn encode(&mut self) {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.wire).expect("memory");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let server = &mut *self.server();
        let n = buf.len().min(server.step).min(server.wire.len()).min(server.allowed);
        assert!(n > 0 || server.allowed == 0, "the client waits for more than the server has to say");
        buf[..n].copy_from_slice(&server.wire[..n]);
        server.wire.drain(..n);
        server.allowed -= n;
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let server = &mut *self.server();
        let n = buf.len().min(server.step);
        let mut bytes = buf[..n].to_vec();
        if let Some(last) = bytes.last_mut().filter(|_| server.spoil) {
            *last ^= 1;
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() && server.outcome.is_ok() {
            server.tls.read_tls(&mut bytes).expect("room");
            server.outcome = server.tls.process_new_packets().map(|_| ());
        }
        server.encode();
        Poll::Ready(Ok(n))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Lab {
    client: Arc<ClientConfig>,
    open: Arc<ServerConfig>,
    /// Configuration of a server that requires a client key; the client has none.
    asking: Arc<ServerConfig>,
}

impl Lab {
    fn new() -> Self {
        let ca = CertAuthority::new().expect("made");
        let (cert, key) = ca.issue(&["edge.example"]).expect("issued");
        let server = |asks| server_config(&cert, &key, asks).expect("fits");
        let client = client_config(ca.cert_pem(), None).expect("fits");
        Self { client, open: server(false), asking: server(true) }
    }

    fn socket(server: &Arc<ServerConfig>, step: usize) -> Socket {
        let tls = ServerConnection::new(Arc::clone(server)).expect("fits");
        Socket(Rc::new(RefCell::new(Server {
            tls,
            wire: Vec::new(),
            step,
            allowed: usize::MAX,
            spoil: false,
            outcome: Ok(()),
        })))
    }

    fn connect(&self, server: &Arc<ServerConfig>, step: usize) -> (io::Result<TlsStream<Socket>>, Socket) {
        let socket = Self::socket(server, step);
        let name = "edge.example".try_into().expect("a name");
        (block_on(TlsStream::connect(Arc::clone(&self.client), name, socket.clone())), socket)
    }

    fn connected(&self, step: usize) -> (TlsStream<Socket>, Socket) {
        let (stream, socket) = self.connect(&self.open, step);
        (stream.expect("shaken"), socket)
    }
}

/// Reads once into a buffer of `room` bytes.
fn read(stream: &mut TlsStream<Socket>, room: usize) -> io::Result<Vec<u8>> {
    let mut memory = vec![0; room];
    let mut buf = ReadBuf::new(&mut memory);
    block_on(poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, buf.unfilled())))?;
    Ok(buf.filled().to_vec())
}

/// Reads with buffers of `room` bytes until the server's `close_notify` or an error.
fn read_all(stream: &mut TlsStream<Socket>, room: usize) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    loop {
        match read(stream, room) {
            Ok(some) if some.is_empty() => return (all, Ok(())),
            Ok(some) => all.extend(some),
            Err(e) => return (all, Err(e)),
        }
    }
}

fn write_all(stream: &mut TlsStream<Socket>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = block_on(poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, bytes)))?;
        bytes = &bytes[n..];
    }
    block_on(poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)))
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect()
}

#[test]
fn records_arrive_whole_however_the_stream_is_cut() {
    let lab = Lab::new();
    let content = content(3 * RECORD_LEN + 1);
    for (step, room) in [(1, 64 << 10), (7, 1), (4096, 100), (RECORD_LEN, RECORD_LEN - 1), (usize::MAX, 1 << 20)] {
        let (mut stream, socket) = lab.connected(step);
        socket.says(|tls| {
            for part in [&content[..1], &content[1..100], &content[100..]] {
                tls.writer().write_all(part).expect("memory");
            }
            tls.send_close_notify();
        });
        let (all, end) = read_all(&mut stream, room);
        assert!(end.is_ok(), "{step} {room}: {end:?}");
        assert!(all == content, "{step} {room}: {} bytes", all.len());
        assert!(read(&mut stream, room).is_ok_and(|more| more.is_empty()), "the end stays the end");
    }
}

#[test]
fn a_stream_that_breaks_off_is_an_error_wherever_it_does() {
    let lab = Lab::new();
    let total = {
        let (_stream, socket) = lab.connected(usize::MAX);
        socket.says(|tls| tls.writer().write_all(b"abc").and(tls.writer().write_all(b"defg")).expect("memory"));
        socket.server().wire.len()
    };
    for cut in 0..=total {
        let (mut stream, socket) = lab.connected(usize::MAX);
        socket.says(|tls| tls.writer().write_all(b"abc").and(tls.writer().write_all(b"defg")).expect("memory"));
        socket.server().allowed = cut;
        let (all, end) = read_all(&mut stream, 1000);
        assert_eq!(end.expect_err("not the end").kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        assert!(b"abcdefg".starts_with(&all) && (cut < total || all.len() == 7), "{cut}: {all:?}");
    }
}

#[test]
fn a_handshake_that_breaks_off_is_an_error() {
    let lab = Lab::new();
    for cut in (0..600).step_by(59) {
        let socket = Lab::socket(&lab.open, usize::MAX);
        socket.server().allowed = cut;
        let name = "edge.example".try_into().expect("a name");
        let end = block_on(TlsStream::connect(Arc::clone(&lab.client), name, socket)).expect_err("no handshake");
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
    }
}

#[test]
fn keys_change_in_mid_stream_and_session_tickets_pass_unseen() {
    let lab = Lab::new();
    for step in [1, 50, usize::MAX] {
        let (mut stream, socket) = lab.connected(step);
        // the tickets lie before all this on the wire
        assert!(!socket.server().wire.is_empty(), "the server sends tickets");
        socket.says(|tls| tls.writer().write_all(b"old keys, ").expect("memory"));
        socket.says(|tls| tls.refresh_traffic_keys().expect("TLS 1.3"));
        socket.says(|tls| tls.writer().write_all(b"new keys").expect("memory"));
        let mut all = Vec::new();
        while all.len() < 18 {
            all.extend(read(&mut stream, 1000).expect("read"));
        }
        assert_eq!(all, b"old keys, new keys");
        // the server has asked for new keys from us too: it can read what it gets
        write_all(&mut stream, b"and ours").expect("written");
        assert_eq!(socket.server().outcome, Ok(()));
        assert_eq!(socket.heard(), b"and ours");
    }
}

#[test]
fn what_is_written_arrives_in_order_however_little_the_socket_takes() {
    let lab = Lab::new();
    let content = content(2 * RECORD_LEN + 5);
    for step in [13, RECORD_LEN, usize::MAX] {
        let (mut stream, socket) = lab.connected(step);
        socket.server().tls.set_buffer_limit(None);
        // what the server has said before does not get lost on the way
        socket.says(|tls| tls.writer().write_all(b"early").expect("memory"));
        assert!(read(&mut stream, 1).is_ok_and(|first| first == b"e"));
        let mut heard = Vec::new();
        for part in content.chunks(1000) {
            write_all(&mut stream, part).expect("written");
            heard.extend(socket.heard());
        }
        assert!(heard == content, "{step}");
        assert!(read(&mut stream, 10).is_ok_and(|rest| rest == b"arly"));
        block_on(poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx))).expect("closed");
        let state = socket.server().tls.process_new_packets().expect("good");
        assert!(state.peer_has_closed(), "the server is told that this was all");
    }
}

#[test]
fn a_changed_record_is_refused_and_the_server_gets_an_alert() {
    let lab = Lab::new();
    let (mut stream, socket) = lab.connected(usize::MAX);
    socket.says(|tls| tls.writer().write_all(b"good").expect("memory"));
    socket.says(|tls| tls.writer().write_all(b"bad").expect("memory"));
    *socket.server().wire.last_mut().expect("a record") ^= 1;
    let (all, end) = read_all(&mut stream, 1000);
    assert_eq!(all, b"good");
    let end = end.expect_err("refused");
    let cause = end.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    assert_eq!(cause, Some(&rustls::Error::DecryptError));
    let told = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
    assert_eq!(socket.server().outcome, Err(told));
}

#[test]
fn what_the_server_objects_to_is_what_the_error_says() {
    let lab = Lab::new();
    let (stream, _socket) = lab.connect(&lab.asking, usize::MAX);
    let text = stream.expect_err("refused").to_string();
    assert!(text.contains("received fatal alert") && text.contains("HandshakeFailure"), "{text}");

    let (mut stream, socket) = lab.connected(usize::MAX);
    socket.says(|tls| tls.writer().write_all(b"so far").expect("memory"));
    socket.server().spoil = true;
    write_all(&mut stream, b"spoilt on the way").expect("written");
    let (all, end) = read_all(&mut stream, 1000);
    assert_eq!(all, b"so far");
    let text = end.expect_err("refused").to_string();
    assert!(text.contains("received fatal alert") && text.contains("BadRecordMac"), "{text}");
}

#[test]
fn a_server_of_another_authority_is_refused_and_told_so() {
    let lab = Lab::new();
    let (stream, socket) = lab.connect(&Lab::new().open, usize::MAX);
    let e = stream.expect_err("refused");
    let cause = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    assert!(matches!(cause, Some(rustls::Error::InvalidCertificate(_))), "{e}");
    assert!(matches!(socket.server().outcome, Err(rustls::Error::AlertReceived(_))));
}
