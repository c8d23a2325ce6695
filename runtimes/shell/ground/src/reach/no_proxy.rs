//! `NO_PROXY`: the hosts that are reached directly, as curl and most tools read it.

use std::net::IpAddr;

/// The hosts that are reached without the proxy.
#[derive(Clone, Debug, Default)]
pub struct NoProxy(Vec<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    hosts: Hosts,
    /// The only port that the rule is for; `None`: all.
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum Hosts {
    All,
    /// A name and all names below it.
    Name(String),
    /// The network's address and the length of its prefix in bits.
    Net(IpAddr, u32),
}

impl NoProxy {
    /// Reads a list separated by commas or blanks: names, which stand for all names below them too, with or without a
    /// leading `.` or `*.`; IP addresses; networks such as `10.0.0.0/8`; `*`. All but networks may end in `:PORT`.
    #[must_use]
    pub fn parse(list: &str) -> Self {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
        Self(entries.filter_map(Rule::parse).collect())
    }

    /// Returns whether a host, given by a name or an address without brackets, is reached directly.
    #[must_use]
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let (name, ip) = (plain(host), address(host));
        self.0.iter().filter(|rule| rule.port.is_none_or(|only| only == port)).any(|rule| match (&rule.hosts, ip) {
            (Hosts::All, _) => true,
            (Hosts::Name(all), None) => {
                name.strip_suffix(all.as_str()).is_some_and(|left| left.is_empty() || left.ends_with('.'))
            }
            (Hosts::Net(net, bits), Some(ip)) => prefix(*net, *bits) == prefix(ip, *bits),
            (Hosts::Name(_), Some(_)) | (Hosts::Net(..), None) => false,
        })
    }
}

impl Rule {
    /// Reads one entry; `None` if nothing can match it.
    fn parse(entry: &str) -> Option<Self> {
        if let Some((net, bits)) = entry.split_once('/') {
            let (net, bits) = (unbracketed(net).parse::<IpAddr>().ok()?, bits.parse().ok()?);
            let widest = if net.is_ipv4() { 32 } else { 128 };
            return (bits <= widest).then_some(Self { hosts: Hosts::Net(net, bits), port: None });
        }
        let (host, port) = match entry.rsplit_once(':') {
            // a bare IPv6 address has colons of its own
            Some((host, port)) if address(entry).is_none() && port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (entry, None),
        };
        let hosts = match address(unbracketed(host)) {
            _ if host == "*" => Hosts::All,
            Some(ip) => Hosts::Net(ip, if ip.is_ipv4() { 32 } else { 128 }),
            None => Hosts::Name(plain(host.strip_prefix("*.").unwrap_or(host).trim_start_matches('.'))),
        };
        let empty = matches!(&hosts, Hosts::Name(name) if name.is_empty());
        (!empty).then_some(Self { hosts, port })
    }
}

/// Whether a host is this machine by its loopback interface.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = plain(host);
    address(host).map_or(name == "localhost" || name.ends_with(".localhost"), |ip| ip.is_loopback())
}

fn address(host: &str) -> Option<IpAddr> {
    host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Returns a name in small letters, without the final dot of the root.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Returns the family and the first bits of an address.
fn prefix(ip: IpAddr, bits: u32) -> (bool, u128) {
    let (all, width) = match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    (ip.is_ipv4(), all.checked_shr(width - bits.min(width)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_an_entry_covers_its_hosts_and_no_others() {
        for (list, covered, others) in [
            ("*", "a.example 10.0.0.1 ::1", ""),
            ("example.com", "example.com EXAMPLE.com. a.b.example.com", "myexample.com example.com.org 10.0.0.1"),
            (".example.com,*.example.org", "a.example.com example.com b.example.org", "example.net badexample.org"),
            ("10.1.2.3", "10.1.2.3 ::ffff:10.1.2.3", "10.1.2.4 10.1.2.3.example"),
            ("10.0.0.0/8 192.168.4.0/23", "10.255.0.1 192.168.5.9", "11.0.0.1 192.168.6.1 ten.example"),
            ("::1, [fe80::1], 2001:db8::/32", "::1 fe80::1 2001:db8:9::1", "::2 fe80::2 2001:db9::1 127.0.0.1"),
            ("0.0.0.0/0", "1.2.3.4 255.255.255.255", "::1 a.example"),
            ("10.0.0.0/33,/8,.,,x/y", "", "10.0.0.1 x a.example"),
        ] {
            let rules = NoProxy::parse(list);
            for host in covered.split_whitespace() {
                assert!(rules.covers(host, 443), "{list} covers {host}");
            }
            for host in others.split_whitespace() {
                assert!(!rules.covers(host, 443), "{list} does not cover {host}");
            }
        }
    }

    #[test]
    fn a_port_narrows_an_entry() {
        let rules = NoProxy::parse("a.example:8443,10.0.0.1:1,[::1]:2");
        assert!(rules.covers("a.example", 8443) && rules.covers("10.0.0.1", 1) && rules.covers("::1", 2));
        assert!(!rules.covers("a.example", 443) && !rules.covers("10.0.0.1", 2) && !rules.covers("::1", 1));
    }
}
