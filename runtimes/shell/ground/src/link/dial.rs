//! Opening links.

use super::{End, Event, Inlet, Link};
use crate::rt::Rt;
use futures_lite::future::or;
use futures_rustls::TlsConnector;
use rustls::pki_types::ServerName;
use std::io;
use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::ids::ConnId;
use swarmedge_core::wire::Wire;

/// Time-out for name resolution, connecting and the TLS handshake.
const DIAL_WITHIN: Duration = Duration::from_secs(5);

/// Opens a link to `server` (`host:port`), numbered `conn` by the machine; answers with `Opened` or `Closed`.
pub fn dial<R: Rt, Out, In, I>(
    rt: &R,
    tls: Arc<rustls::ClientConfig>,
    server: &str,
    conn: ConnId,
    inlet: &Inlet<Out, In, I>,
) where
    Out: Wire + Clone + 'static,
    In: Wire + 'static,
    I: Send + 'static,
{
    let (rt2, inlet, server) = (rt.clone(), inlet.clone(), server.to_owned());
    // what is closed while it is being opened must not open: the place in the table is taken at once
    let early = Link::new(inlet.cap);
    inlet.links.insert(conn, early.clone());
    rt.spawn(async move {
        let late = async {
            rt2.sleep_until(rt2.now() + DIAL_WITHIN).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let stream = or(connect(&rt2, tls, &server), late).await;
        if early.is_closing() {
            return;
        }
        let end = match stream {
            Ok(stream) => inlet.run(&rt2, conn, stream, None, None).await,
            Err(e) => {
                tracing::info!(%server, error = %e, "cannot connect");
                inlet.links.remove(conn);
                let _ = inlet.tell(conn, Event::Closed).await;
                return;
            }
        };
        match end {
            End::Closed | End::Gone | End::Unwanted => tracing::debug!(%server, "connection ended: {end}"),
            End::Broken(_) | End::Garbage(_) | End::Silent | End::Overflow => {
                tracing::info!(%server, "connection ended: {end}");
            }
        }
    });
}

/// A TLS connection to `server`, `host:port`.
pub async fn connect<R: Rt>(
    rt: &R,
    tls: Arc<rustls::ClientConfig>,
    server: &str,
) -> io::Result<futures_rustls::client::TlsStream<R::Tcp>> {
    let (host, _) = server.rsplit_once(':').ok_or_else(|| io::Error::other("not host:port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let addrs = match server.parse() {
        Ok(addr) => vec![addr],
        Err(_) => {
            let server = server.to_owned();
            rt.blocking(move || server.to_socket_addrs()).await?.collect()
        }
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for addr in addrs {
        match rt.connect(addr).await {
            Ok(tcp) => return TlsConnector::from(tls).connect(name, tcp).await,
            Err(e) => last = e,
        }
    }
    Err(last)
}
