//! An HTTP proxy: connections are tunnelled through it with CONNECT (RFC 9110 §9.3.6).

use super::{authority, race, resolve};
use crate::rt::Rt;
use data_encoding::BASE64;
use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _};
use hyper::StatusCode;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::io;

/// Most bytes of a proxy's answer before the tunnel.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Port of an `http` URL without one.
const PORT: u16 = 80;
const PROXY_FORM: &str = "http://[USER:PASSWORD@]HOST:PORT";

/// An HTTP proxy. It is shown without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// User and password as in the field `Proxy-Authorization`.
    login: Option<String>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The reason why a proxy gives no connection.
#[derive(Debug)]
pub struct ProxyError {
    proxy: Proxy,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Unreachable(io::Error),
    /// The proxy wants to know who asks (407).
    Login,
    /// The proxy answers with a status other than 2xx.
    Refused(StatusCode),
    /// The answer is not HTTP.
    NotHttp,
}

impl ProxyError {
    /// Returns advice to the user; may be empty.
    #[must_use]
    pub const fn next(&self) -> &'static str {
        match self.why {
            Why::Login => "give both in the proxy's URL: http://USER:PASSWORD@HOST:PORT in --proxy or HTTPS_PROXY",
            Why::Refused(_) => "ask the proxy's operator for that host and port, or go without it by --proxy off",
            Why::NotHttp => "check the proxy's URL in --proxy or HTTPS_PROXY: it must be an HTTP proxy",
            Why::Unreachable(_) => "check the proxy's URL in --proxy or HTTPS_PROXY, or go without it by --proxy off",
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "through the proxy {}: ", self.proxy)?;
        match &self.why {
            Why::Unreachable(e) => e.fmt(f),
            Why::Login if self.proxy.login.is_some() => f.write_str("it refuses this user and password (407)"),
            Why::Login => f.write_str("it wants a user and a password (407)"),
            Why::Refused(status) => write!(f, "it answers {status}"),
            Why::NotHttp => f.write_str("it does not answer as an HTTP proxy"),
        }
    }
}

impl std::error::Error for ProxyError {}

impl Proxy {
    /// Reads `http://[USER:PASSWORD@]HOST[:PORT]`; the scheme may be left out. An error never repeats the password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
        let bad = || format!("this is no proxy's URL: use {PROXY_FORM}");
        if !scheme.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(bad());
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(format!("{scheme} proxies are not supported: use {PROXY_FORM}"));
        }
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let host = host.split(['/', '?', '#']).next().unwrap_or_default();
        let parsed: hyper::http::uri::Authority = host.parse().map_err(|_| bad())?;
        let port = match host.strip_prefix(parsed.host()) {
            Some("") => PORT,
            Some(port) => port.strip_prefix(':').and_then(|p| p.parse().ok()).filter(|p| *p > 0).ok_or_else(bad)?,
            None => return Err(bad()),
        };
        let host = parsed.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(bad());
        }
        Ok(Self { host, port, login: user.filter(|user| !user.is_empty()).map(login) })
    }

    /// Opens a connection to `target`, `host:port`, through the proxy.
    pub(super) async fn tunnel<R: Rt>(&self, rt: &R, target: &str) -> io::Result<R::Tcp> {
        let failed = |why| {
            let kind = if let Why::Unreachable(e) = &why { e.kind() } else { io::ErrorKind::Other };
            io::Error::new(kind, ProxyError { proxy: self.clone(), why })
        };
        let answered = async {
            let mut tcp = race(rt, resolve(rt, &self.host, self.port).await?).await?;
            tcp.write_all(self.request(target).as_bytes()).await?;
            tcp.flush().await?;
            let mut head = Vec::new();
            let mut buffer = [0; 512];
            // nobody speaks in the tunnel before this side does: nothing but the head can come
            loop {
                if let Some(status) = status(&head) {
                    return Ok((tcp, status));
                }
                let n = tcp.read(&mut buffer).await?;
                if n == 0 || head.len() > HEAD_LEN_MAX {
                    return Ok((tcp, None));
                }
                head.extend_from_slice(&buffer[..n]);
            }
        };
        match answered.await.map_err(|e| failed(Why::Unreachable(e)))? {
            (tcp, Some(status)) if status.is_success() => Ok(tcp),
            (_, Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED)) => Err(failed(Why::Login)),
            (_, Some(status)) => Err(failed(Why::Refused(status))),
            (_, None) => Err(failed(Why::NotHttp)),
        }
    }

    fn request(&self, target: &str) -> String {
        let login = self.login.as_ref().map_or_else(String::new, |l| format!("Proxy-Authorization: Basic {l}\r\n"));
        let agent = concat!("swarmedge/", env!("CARGO_PKG_VERSION"));
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {agent}\r\n{login}\r\n")
    }
}

/// Encodes the user part of a URL for the field `Proxy-Authorization` (RFC 7617).
fn login(user: &str) -> String {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let mut both: Vec<u8> = percent_decode_str(user).collect();
    both.push(b':');
    both.extend(percent_decode_str(password));
    BASE64.encode(&both)
}

/// Returns the status of an answer whose head is complete, `Some(None)` if it is no HTTP; `None` before.
fn status(head: &[u8]) -> Option<Option<StatusCode>> {
    const BEGIN: &[u8] = b"HTTP/1.";
    let known = head.len().min(BEGIN.len());
    if head[..known] != BEGIN[..known] {
        return Some(None);
    }
    let complete = head.windows(4).any(|w| w == b"\r\n\r\n") || head.windows(2).any(|w| w == b"\n\n");
    complete.then(|| StatusCode::from_bytes(head.get(9..12)?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{Start as _, testing::TestRt};
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    #[test]
    fn a_url_has_host_port_and_login() {
        let proxy = Proxy::parse("http://us%40er:p%3Ass@[::1]:3128/").expect("well formed");
        assert_eq!((proxy.to_string(), format!("{proxy:?}")), ("http://[::1]:3128".into(), "http://[::1]:3128".into()));
        assert_eq!(proxy.login.as_deref(), Some(&*BASE64.encode(b"us@er:p:ss")));
        assert_eq!(Proxy::parse("HTTP://proxy").expect("well formed").to_string(), "http://proxy:80");
        assert_eq!(Proxy::parse("u:p@s@proxy:8").expect("well formed").login, Some(BASE64.encode(b"u:p@s")));
        for bad in ["", "http://", "http://:1", "http://p:0", "http://p:x", "http://p q", "socks5h://p:1"] {
            assert!(Proxy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_head_is_read_when_it_is_complete_and_only_if_it_is_http() {
        for (head, expected) in [
            ("", None),
            ("HTTP/1.1 200 OK\r\n", None),
            ("HTTP/1.1 200 OK\r\nVia: x\r\n\r\n", Some(Some(StatusCode::OK))),
            ("HTTP/1.0 407 No\n\n", Some(Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED))),
            ("HTTP/1.1 abc\r\n\r\n", Some(None)),
            ("HTTP/1.\r\n\r\n", Some(None)),
            ("\x05\x00", Some(None)),
            ("SSH-2.0", Some(None)),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head:?}");
        }
    }

    /// Makes a proxy that answers every request with `answer`; returns what was asked and how it ended.
    fn ask(answer: &'static str, login: &str) -> (String, Result<(), String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let serving = std::thread::spawn(move || {
            let (mut tcp, _) = listener.accept().expect("somebody comes");
            let lines = BufReader::new(tcp.try_clone().expect("cloned")).lines();
            let asked: Vec<_> = lines.map(|l| l.expect("text")).take_while(|l| !l.is_empty()).collect();
            tcp.write_all(answer.as_bytes()).expect("sent");
            asked.join("|")
        });
        let url = format!("http://{login}127.0.0.1:{port}");
        let ended = TestRt::block_on(|rt| async move {
            let proxy = Proxy::parse(&url).expect("well formed");
            proxy.tunnel(&rt, "edge.example:443").await.map(drop).map_err(|e| e.to_string())
        });
        let ended = ended.map_err(|e| e.replace(&format!("127.0.0.1:{port}"), "P"));
        (serving.join().expect("no panic"), ended)
    }

    #[test]
    fn a_tunnel_is_asked_for_by_name_and_refusals_are_told_apart() {
        let (asked, ended) = ask("HTTP/1.1 200 Connection established\r\n\r\n", "u:p@");
        assert_eq!(ended, Ok(()));
        assert!(asked.starts_with("CONNECT edge.example:443 HTTP/1.1|Host: edge.example:443|"), "{asked}");
        assert!(asked.ends_with("|Proxy-Authorization: Basic dTpw"), "{asked}");
        for (answer, login, expected) in [
            ("HTTP/1.1 407 Who\r\n\r\n", "", "it wants a user and a password (407)"),
            ("HTTP/1.1 407 Who\r\n\r\n", "u:p@", "it refuses this user and password (407)"),
            ("HTTP/1.1 403 No\r\n\r\n", "", "it answers 403 Forbidden"),
            ("hello\r\n", "", "it does not answer as an HTTP proxy"),
            ("", "", "it does not answer as an HTTP proxy"),
        ] {
            let (_, ended) = ask(answer, login);
            assert_eq!(ended, Err(format!("through the proxy http://P: {expected}")));
        }
    }
}
