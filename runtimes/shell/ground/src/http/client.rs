//! An HTTPS client that keeps idle connections for further requests.

use super::Body;
use crate::reach::{Way, authority};
use crate::rt::Rt;
use crate::tls::TlsStream;
use bytes::{Bytes, BytesMut};
use futures_lite::future::or;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{HOST, HeaderValue};
use hyper::http::response::Parts;
use hyper::{Request, Response};
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// Maximum number of idle connections kept per server.
const IDLE_MAX: usize = 4;
/// Time-out for connecting and the TLS handshake together.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Time-out for the next bytes of an answer.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A server: the host and port of an `https` URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Host name, or IP address without brackets.
    pub host: String,
    /// The TCP port of the server.
    pub port: u16,
}

impl Origin {
    /// Parses `https://host[:port]`; a path after it is ignored. `None` for anything else.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let uri: hyper::Uri = url.parse().ok()?;
        let host = uri.host().filter(|h| !h.is_empty())?.trim_matches(['[', ']']);
        let https = uri.scheme_str() == Some("https");
        https.then(|| Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(443) })
    }

    /// Returns `host:port`, as in a `Host` header field.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

/// The reason why a request got no answer.
#[derive(Debug)]
pub enum Error {
    /// The name cannot be resolved, or no connection can be opened.
    Connect(io::Error),
    /// The TLS handshake failed, as when the server's certificate is not trusted.
    Tls(io::Error),
    /// The connection broke, or the answer is not valid HTTP.
    Http(hyper::Error),
    /// The server sent nothing within the time-out.
    Silent,
    /// The answer is longer than the caller permits.
    TooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(e) => write!(f, "cannot connect: {e}"),
            Self::Tls(e) => write!(f, "TLS: {e}"),
            Self::Http(e) => write!(f, "HTTP: {e}"),
            Self::Silent => f.write_str("no answer in time"),
            Self::TooLong => f.write_str("the answer is too long"),
        }
    }
}

impl std::error::Error for Error {}

type Pool = Rc<RefCell<BTreeMap<Origin, Vec<SendRequest<Body>>>>>;

/// An HTTPS client; clones share its connections.
#[derive(Clone)]
pub struct Client<R> {
    rt: R,
    way: Way,
    pool: Pool,
}

/// An answer whose body is still to be read. After its last byte is read, the connection is kept for the next
/// request.
pub struct Answer<R> {
    /// Status and header fields of the answer.
    pub head: Parts,
    body: Incoming,
    rt: R,
    silence: Silence,
    home: Option<(Pool, Origin, SendRequest<Body>)>,
}

impl<R: Rt> Client<R> {
    /// A client that reaches servers by `way`, and trusts whom that trusts.
    pub fn new(rt: R, way: impl Into<Way>) -> Self {
        Self { rt, way: way.into(), pool: Pool::default() }
    }

    /// Sends a request whose URI is only the path. `request` is called again if a kept connection turns out to be
    /// closed.
    pub async fn send(&self, origin: &Origin, request: impl Fn() -> Request<Body>) -> Result<Answer<R>, Error> {
        while let Some(mut kept) = self.kept(origin) {
            if kept.ready().await.is_err() {
                continue;
            }
            match self.exchange(&mut kept, origin, request()).await {
                Ok(response) => return Ok(self.answer(response, origin, kept)),
                // closed by the server while it was idle: not a word of the request was heeded
                Err(Error::Http(e)) if e.is_canceled() || e.is_closed() || e.is_incomplete_message() => {}
                Err(e) => return Err(e),
            }
        }
        let mut fresh = self.connect(origin).await?;
        let response = self.exchange(&mut fresh, origin, request()).await?;
        Ok(self.answer(response, origin, fresh))
    }

    /// Returns the URL of the proxy on the way to a server, if there is one.
    #[must_use]
    pub fn proxy(&self, origin: &Origin) -> Option<String> {
        self.way.reach.proxy(&origin.host, origin.port).map(ToString::to_string)
    }

    /// Closes what is kept: the network has changed, and no connection leads anywhere any more.
    pub fn forget(&self) {
        self.pool.borrow_mut().clear();
    }

    fn kept(&self, origin: &Origin) -> Option<SendRequest<Body>> {
        let mut pool = self.pool.borrow_mut();
        let kept = pool.get_mut(origin)?;
        kept.retain(|c| !c.is_closed());
        kept.pop()
    }

    /// Sends a request on an open connection and waits for the head of the answer.
    async fn exchange(
        &self,
        sender: &mut SendRequest<Body>,
        origin: &Origin,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        if let Ok(host) = HeaderValue::from_str(&origin.authority()) {
            request.headers_mut().insert(HOST, host);
        }
        within(&self.rt, SILENCE_MAX, sender.send_request(request)).await?.map_err(Error::Http)
    }

    fn answer(&self, response: Response<Incoming>, origin: &Origin, sender: SendRequest<Body>) -> Answer<R> {
        let (head, body) = response.into_parts();
        let silence = Silence { heard: self.rt.now(), timer: None };
        Answer { head, body, rt: self.rt.clone(), silence, home: Some((self.pool.clone(), origin.clone(), sender)) }
    }

    async fn connect(&self, origin: &Origin) -> Result<SendRequest<Body>, Error> {
        within(&self.rt, CONNECT_WITHIN, async {
            let name = ServerName::try_from(origin.host.clone())
                .map_err(|e| Error::Connect(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
            let tcp = self.way.reach.connect(&self.rt, &origin.host, origin.port).await.map_err(Error::Connect)?;
            let tls = TlsStream::connect(self.way.tls.clone(), name, tcp).await.map_err(Error::Tls)?;
            let (sender, connection) = hyper::client::conn::http1::handshake(tls).await.map_err(Error::Http)?;
            self.rt.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "HTTPS connection ended");
                }
            });
            Ok(sender)
        })
        .await?
    }
}

async fn within<R: Rt, T>(rt: &R, limit: Duration, work: impl Future<Output = T>) -> Result<T, Error> {
    let late = rt.sleep_until(rt.now() + limit);
    or(async { Ok(work.await) }, async {
        late.await;
        Err(Error::Silent)
    })
    .await
}

/// A time-out that expires when nothing was received for [`SILENCE_MAX`]. One timer serves a whole body.
struct Silence {
    heard: Instant,
    timer: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Silence {
    fn poll<R: Rt>(&mut self, cx: &mut Context<'_>, rt: &R) -> Poll<()> {
        loop {
            let due = self.heard + SILENCE_MAX;
            let timer = self.timer.get_or_insert_with(|| Box::pin(rt.sleep_until(due)));
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
            if rt.now() >= due {
                return Poll::Ready(());
            }
        }
    }
}

impl<R: Rt> Answer<R> {
    /// Returns the next bytes of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            match self.frame().await {
                Some(Err(e)) => return Some(Err(e)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Some(Ok(data)),
                    Err(_trailers) => {}
                },
                None => {
                    self.give_back();
                    return None;
                }
            }
        }
    }

    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, Error>> {
        let Self { body, rt, silence, .. } = self;
        let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|f| f.map_err(Error::Http))),
            Poll::Pending => silence.poll(cx, rt).map(|()| Some(Err(Error::Silent))),
        })
        .await;
        silence.heard = rt.now();
        frame
    }

    /// Reads the whole body; fails if it is longer than `len_max` bytes.
    pub async fn collect(mut self, len_max: usize) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(data) = self.chunk().await {
            let data = data?;
            if all.len() + data.len() > len_max {
                return Err(Error::TooLong);
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }

    fn give_back(&mut self) {
        let Some((pool, origin, sender)) = self.home.take() else { return };
        let mut pool = pool.borrow_mut();
        let kept = pool.entry(origin).or_default();
        if kept.len() < IDLE_MAX && !sender.is_closed() {
            kept.push(sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_https_urls_with_an_optional_port() {
        let origin = |host: &str, port| Some(Origin { host: host.into(), port });
        assert_eq!(Origin::parse("https://localhost:8443/x?y"), origin("localhost", 8443));
        assert_eq!(Origin::parse("https://example.org"), origin("example.org", 443));
        assert_eq!(Origin::parse("https://[::1]:9"), origin("::1", 9));
        assert_eq!(Origin::parse("https://[::1]:9").map(|o| o.authority()), Some("[::1]:9".into()));
        for bad in ["http://a", "https://", "a:1", "https://:1"] {
            assert_eq!(Origin::parse(bad), None, "{bad}");
        }
    }
}
