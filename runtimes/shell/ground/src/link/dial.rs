//! Opening links.

use super::{End, Event, Inlet, Link};
use crate::reach::{Way, host_and_port};
use crate::rt::Rt;
use futures_lite::future::or;
use futures_rustls::TlsConnector;
use rustls::pki_types::ServerName;
use std::io;
use std::time::Duration;
use swarmedge_core::ids::ConnId;
use swarmedge_core::wire::Wire;

/// Time-out for name resolution, connecting and the TLS handshake.
const DIAL_WITHIN: Duration = Duration::from_secs(5);

/// Opens a link to `server` (`host:port`), numbered `conn` by the machine; answers with `Opened` or `Closed`.
pub fn dial<R: Rt, Out, In, I>(rt: &R, way: impl Into<Way>, server: &str, conn: ConnId, inlet: &Inlet<Out, In, I>)
where
    Out: Wire + Clone + 'static,
    In: Wire + 'static,
    I: Send + 'static,
{
    let (rt2, way, inlet, server) = (rt.clone(), way.into(), inlet.clone(), server.to_owned());
    // what is closed while it is being opened must not open: the place in the table is taken at once
    let early = Link::new(inlet.cap);
    inlet.links.insert(conn, early.clone());
    rt.spawn(async move {
        let late = async {
            rt2.sleep_until(rt2.now() + DIAL_WITHIN).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let stream = or(connect(&rt2, way, &server), late).await;
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
    way: impl Into<Way>,
    server: &str,
) -> io::Result<futures_rustls::client::TlsStream<R::Tcp>> {
    let Way { tls, reach } = way.into();
    let (host, port) = host_and_port(server).ok_or_else(|| io::Error::other("not host:port"))?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let tcp = reach.connect(rt, host, port).await?;
    TlsConnector::from(tls).connect(name, tcp).await
}
