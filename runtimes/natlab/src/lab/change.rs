//! Changes to a running lab: packet loss, lost mappings, new addresses, other routers.

use super::{Lab, load};
use crate::plan::{Ipv6, Site, address};
use crate::rules::Router;
use crate::{Error, Kind};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// Kind of packets that the core loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lossy {
    /// Packets of every protocol.
    Everything,
    /// UDP datagrams only: STUN, connectivity checks and QUIC, but not HTTPS or control connections.
    Udp,
}

/// Returns nftables rules that drop `percent` of the forwarded packets at random, in each direction.
pub(super) fn loss_rules(percent: u8, what: Lossy) -> String {
    let what = if what == Lossy::Udp { "meta l4proto udp " } else { "" };
    let rule =
        if percent == 0 { String::new() } else { format!("{what}numgen random mod 100 < {percent} counter drop\n") };
    load(&format!(
        "table inet loss {{}}\ndelete table inet loss\ntable inet loss {{\n\
         chain forward {{ type filter hook forward priority filter;\n{rule}}}\n}}\n"
    ))
}

/// Returns a shell command that deletes the conntrack entries selected by `which`, and succeeds if there are none.
fn delete(which: &str) -> String {
    format!(
        "said=$(conntrack -D {which} 2>&1) || case $said in *' 0 flow entries'*) ;; *) echo \"$said\" >&2; exit 1;; esac\n"
    )
}

/// Returns shell commands that empty the maps and sets of a router's rules.
fn empty(router: Router) -> String {
    router.remembers().iter().map(|(what, name)| format!("nft flush {what} ip nat {name}\n")).collect()
}

impl Lab {
    /// Makes the core lose `percent` of all packets from now on, in each direction; 0 ends the loss.
    pub fn lose(&self, percent: u8) -> Result<(), Error> {
        self.lose_of(percent, Lossy::Everything)
    }

    /// Makes the core lose `percent` of one kind of packets from now on, in each direction; 0 ends the loss.
    pub fn lose_of(&self, percent: u8, what: Lossy) -> Result<(), Error> {
        self.script("core", &loss_rules(percent.min(100), what)).map(drop)
    }

    /// Returns the names and properties of a site's routers, the one next to the peers first.
    fn routers_of(&self, name: &str) -> Result<Vec<(String, Router)>, Error> {
        let (.., site) = self.site(name)?;
        Ok(routers(site))
    }

    /// Makes a site's routers forget every mapping, as a reboot does.
    pub fn flush(&self, site: &str) -> Result<(), Error> {
        self.routers_of(site)?
            .iter()
            .try_for_each(|(node, router)| self.script(node, &format!("conntrack -F\n{}", empty(*router))).map(drop))
    }

    /// Makes the routers of two sites forget UDP flows between them; their mappings stay.
    pub fn separate(&self, a: &str, b: &str) -> Result<(), Error> {
        for (here, there) in [(a, b), (b, a)] {
            let there = self.outside(there)?;
            for (node, router) in self.routers_of(here)? {
                let mut forget = delete(&format!("-p udp --orig-dst {there}"));
                forget.push_str(&delete(&format!("-p udp --orig-src {there}")));
                if router.remembers().iter().any(|(_, name)| *name == "talked") {
                    forget.push_str("nft flush set ip nat talked\n");
                }
                self.script(&node, &forget)?;
            }
        }
        Ok(())
    }

    /// Replaces a site's routers by those of another kind, which have no UDP mappings. The peers keep the NAT type
    /// that they discovered before, so a CN may introduce a pair that it would not introduce otherwise. TCP
    /// connections stay.
    pub fn become_kind(&mut self, name: &str, kind: Kind) -> Result<(), Error> {
        self.act_as(name, kind)?;
        if let Some((.., site)) = self.state.sites.get_mut(name) {
            site.kind = kind;
        }
        if self.kept { self.share() } else { Ok(()) }
    }

    /// Replaces a site's routers for a while, like [`Lab::become_kind`]; `flush` and `rebind` still treat the site as
    /// being of its first kind.
    pub fn act_as(&self, name: &str, kind: Kind) -> Result<(), Error> {
        let (n, moved, old) = self.site(name)?;
        let new = Site { kind, ..old.clone() };
        let translates = |k: Kind| !matches!(k, Kind::Public | Kind::Firewall);
        if !translates(old.kind) || !translates(kind) || new.router_names().len() != old.router_names().len() {
            return Err(Error::new(format!("{name}: a {} site cannot become a {kind} one", old.kind)));
        }
        let all = routers(&new);
        for (at, (node, router)) in all.iter().enumerate() {
            let wan = if at + 1 == all.len() { address::outside(*n, *moved) } else { address::carrier(*n, 2) };
            self.script(node, &format!("{}{}", load(&router.ruleset(wan)), delete("-p udp")))?;
        }
        Ok(())
    }

    /// Gives a site another address and deletes all its mappings, as when a provider renumbers or a laptop moves.
    /// Returns the new address.
    pub fn rebind(&mut self, name: &str) -> Result<Ipv4Addr, Error> {
        let (n, moved, site) = self.site(name)?.clone();
        if site.kind == Kind::Firewall {
            return Err(Error::new("what stands behind a firewall has its own address: nothing can be rebound"));
        }
        self.renumber(name, address::outside(n, moved + 1))?;
        self.state.sites.insert(name.to_owned(), (n, moved + 1, site));
        if self.kept {
            self.share()?;
        }
        self.outside(name)
    }

    /// Gives a site the address `new` and deletes all its mappings.
    pub(super) fn renumber(&mut self, name: &str, new: Ipv4Addr) -> Result<(), Error> {
        let (n, _, site) = self.site(name)?.clone();
        let old = self.outside(name)?;
        let top = routers(&site).pop();
        let (node, device) = top.as_ref().map_or((&site.name, "eth0"), |(router, _)| (router, "wan"));
        self.script("core", &format!("ip route add {new} dev site{n}\nip route del {old} dev site{n}\n"))?;
        let mut text = format!("ip addr add {new}/32 dev {device}\nip addr del {old}/32 dev {device}\n");
        _ = writeln!(text, "ip route replace {} dev {device} scope link", address::CORE);
        _ = writeln!(text, "ip route replace default via {} dev {device}", address::CORE);
        if let Some((_, router)) = top {
            text.push_str(&load(&router.ruleset(new)));
        }
        self.script(node, &text)?;
        self.flush(name)?;
        if let Some(node) = self.state.nodes.get_mut(node) {
            node.addresses.retain(|a| *a != IpAddr::V4(old));
            node.addresses.insert(0, new.into());
        }
        Ok(())
    }
}

/// Returns the names and properties of a site's routers, the one next to the peers first.
fn routers(site: &Site) -> Vec<(String, Router)> {
    let names = site.router_names();
    let two = names.len() > 1;
    let is = |at| Router::of(site.kind, two && at == 1, site.hairpin, site.ipv6 == Ipv6::Firewall);
    names.into_iter().enumerate().filter_map(|(at, name)| Some((name, is(at)?))).collect()
}
