//! The way from this process to a server that is named by host and port: directly, with all addresses of the name
//! racing, or through an HTTP proxy.

mod no_proxy;
mod proxy;
mod race;

pub use no_proxy::NoProxy;
pub use proxy::{Proxy, ProxyError};
pub use race::{Schedule, Step, first_of, interleave, race};

use crate::error::Error;
use crate::rt::Rt;
use no_proxy::is_loopback;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

/// Variables that name the proxy, in order of precedence. As with curl, `HTTP_PROXY` is for `http://` URLs, of which
/// there are none here.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// Variables that list the hosts to reach directly, in order of precedence.
const NO_PROXY_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];
/// Value of the option `--proxy` for no proxy at all.
const OFF: &str = "off";

/// The way to servers, directly or through a proxy. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Reach(Option<Arc<Proxied>>);

#[derive(Debug)]
struct Proxied {
    proxy: Proxy,
    except: NoProxy,
    /// Whether this machine itself is reached through the proxy too.
    loopback: bool,
}

impl Reach {
    /// Returns the way that the user has chosen: `option` (`--proxy`), else the environment's variables. Loopback is
    /// proxied with the option only.
    pub fn chosen(option: Option<&str>) -> Result<Self, Error> {
        Self::of(option, |name| std::env::var(name).ok())
    }

    fn of(option: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let first = |names: &[&'static str]| {
            let mut set =
                names.iter().filter_map(|name| Some((*name, variable(name).filter(|v| !v.trim().is_empty())?)));
            set.next()
        };
        let (url, loopback) = match (option, first(&PROXY_VARIABLES)) {
            (Some(OFF), _) | (None, None) => return Ok(Self::default()),
            (Some(url), _) => (("--proxy", url.to_owned()), true),
            (None, Some(named)) => (named, false),
        };
        let (name, url) = url;
        let next = if loopback { "give another, or off" } else { "change or unset it, or give --proxy off" };
        let proxy = Proxy::parse(&url).map_err(|why| Error::usage(format!("{name}: {why}")).next(next))?;
        let except = first(&NO_PROXY_VARIABLES).map(|(_, list)| NoProxy::parse(&list)).unwrap_or_default();
        Ok(Self(Some(Arc::new(Proxied { proxy, except, loopback }))))
    }

    /// Returns the proxy on the way to `host`, if there is one.
    #[must_use]
    pub fn proxy(&self, host: &str, port: u16) -> Option<&Proxy> {
        let Proxied { proxy, except, loopback } = self.0.as_deref()?;
        let direct = except.covers(host, port) || !loopback && is_loopback(host);
        (!direct).then_some(proxy)
    }

    /// Returns the proxy's URL without user and password, if there is a proxy.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        self.0.as_ref().map(|proxied| proxied.proxy.to_string())
    }

    /// Opens a TCP connection to a host, given by a name or an address without brackets. A proxy resolves the name.
    pub async fn connect<R: Rt>(&self, rt: &R, host: &str, port: u16) -> io::Result<R::Tcp> {
        match self.proxy(host, port) {
            Some(proxy) => proxy.tunnel(rt, &authority(host, port)).await,
            None => race(rt, resolve(rt, host, port).await?).await,
        }
    }
}

/// Settings for connections to servers: the TLS configuration with the trusted certificates, and the proxy, if any.
#[derive(Clone, Debug)]
pub struct Way {
    /// The TLS configuration.
    pub tls: Arc<rustls::ClientConfig>,
    /// The proxy, if any, and the hosts that are connected to without it.
    pub reach: Reach,
}

impl From<Arc<rustls::ClientConfig>> for Way {
    /// Makes settings without a proxy.
    fn from(tls: Arc<rustls::ClientConfig>) -> Self {
        Self { tls, reach: Reach::default() }
    }
}

/// Returns `host:port`, with an IPv6 address in brackets.
#[must_use]
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Splits `host:port`; the brackets of an IPv6 address are left out.
#[must_use]
pub fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.or_else(|| (!host.contains([':', '[', ']'])).then_some(host))?;
    Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

/// Returns the addresses of a host, by the system's resolver.
pub async fn resolve<R: Rt>(rt: &R, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let host = host.to_owned();
    rt.blocking(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(option: Option<&str>, variables: &[(&str, &str)]) -> Result<Reach, Error> {
        Reach::of(option, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_option_goes_before_lower_case_before_upper_case_before_all() {
        let all = [("ALL_PROXY", "http://d:4"), ("all_proxy", "http://c:3"), ("HTTPS_PROXY", "http://b:2")];
        let shown = |option, variables: &[_]| reach(option, variables).expect("well formed").shown();
        assert_eq!(shown(None, &all).as_deref(), Some("http://b:2"));
        assert_eq!(shown(None, &[&all[..], &[("https_proxy", "a:1")]].concat()).as_deref(), Some("http://a:1"));
        assert_eq!(shown(None, &[all[0], all[1], ("https_proxy", "")]).as_deref(), Some("http://c:3"));
        assert_eq!(shown(Some("u:p@z:9"), &all).as_deref(), Some("http://z:9"));
        assert_eq!((shown(Some("off"), &all), shown(None, &[("http_proxy", "http://e:5")])), (None, None));
    }

    #[test]
    fn loopback_is_proxied_by_option_only_and_excepted_hosts_never() {
        let env = [("HTTPS_PROXY", "http://p:1"), ("no_proxy", "intra.example")];
        let through =
            |option: Option<&str>, host: &str| reach(option, &env).expect("well formed").proxy(host, 443).is_some();
        for host in ["localhost", "a.localhost", "127.0.0.9", "::1", "::ffff:127.0.0.1"] {
            assert!(!through(None, host) && through(Some("http://p:1"), host), "{host}");
        }
        assert!(through(None, "edge.example") && through(None, "192.0.2.1"));
        assert!(!through(None, "a.intra.example") && !through(Some("http://p:1"), "intra.example"));
    }

    #[test]
    fn other_kinds_of_proxy_are_usage_errors_that_hide_the_password() {
        for url in ["socks5://u:secret@p:1", "https://u:secret@p:1", "http://u:secret@", "u:secret://x@p:1"] {
            let by_option = reach(Some(url), &[]).expect_err(url).to_string();
            let by_variable = reach(None, &[("ALL_PROXY", url)]).expect_err(url).to_string();
            assert!(by_option.starts_with("--proxy: ") && by_variable.starts_with("ALL_PROXY: "), "{by_variable}");
            assert!(by_variable.contains("http://[USER:PASSWORD@]HOST:PORT") && !by_variable.contains("secret"));
        }
    }

    #[test]
    fn an_authority_has_brackets_around_ipv6_alone() {
        for (host, text) in [("::1", "[::1]:9"), ("127.0.0.1", "127.0.0.1:9"), ("e.example", "e.example:9")] {
            assert_eq!(authority(host, 9), text);
            assert_eq!(host_and_port(text), Some((host, 9)));
        }
        for bad in ["::1:9", "[::1:9", "e.example", ":9", "[]:9", "a:b", "a:70000"] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }
}
