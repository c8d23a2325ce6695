//! A running lab: building it, running programs inside, removing it.

mod change;
mod count;
mod gateway;

pub use change::Lossy;
pub use count::Transport;
pub use gateway::{Gateway, Offers};

use crate::Kind;
use crate::janitor::{self, namespace, state_file};
use crate::plan::{Ipv6, Plan, Site, address};
use crate::rules::{Router, UDP_TIMEOUT_S};
use crate::run::{Error, run, script};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

/// A small internet of network namespaces. Dropping the value removes it, unless its plan gave it a name.
#[derive(Debug)]
pub struct Lab {
    state: State,
    kept: bool,
}

/// Description of a lab, with all that another process needs to use it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Name of the lab.
    pub lab: String,
    /// Servers, peers and routers by name.
    pub nodes: BTreeMap<String, Node>,
    /// Sites by name: number of the site, number of times that its address changed, and its plan.
    sites: BTreeMap<String, (u8, u8, Site)>,
}

/// A node of a lab: one network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Kind of the node.
    pub role: Role,
    /// Name of the namespace, for `ip netns exec`.
    pub namespace: String,
    /// Addresses of the node on its link towards the core.
    pub addresses: Vec<IpAddr>,
    /// Site that the node belongs to; `None` for servers and the core.
    pub site: Option<String>,
}

/// Kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Router between all sites.
    Core,
    /// Server attached to the core.
    Server,
    /// NAT or firewall of a site.
    Router,
    /// User's machine behind a router.
    Peer,
}

/// Commands that set up the namespaces: a shell script for each, which ends at its first failing command.
struct Setup {
    /// Scripts by node, in the order in which they run.
    scripts: Vec<(String, String)>,
    /// Lines `link add …` for the host's `ip -batch`; both ends of a link are created inside the lab.
    links: String,
}

const SYSCTL: &str = "\
w() { [ ! -e \"/proc/sys/net/$1\" ] || echo \"$2\" > \"/proc/sys/net/$1\"; }
for c in all default; do
  w ipv6/conf/$c/accept_dad 0; w ipv6/conf/$c/accept_ra 0; w ipv4/conf/$c/rp_filter 0
  w ipv4/conf/$c/send_redirects 0; w ipv4/conf/$c/accept_redirects 0; w ipv6/conf/$c/accept_redirects 0
done
w bridge/bridge-nf-call-iptables 0; w bridge/bridge-nf-call-ip6tables 0
ip link set lo up
";
const FORWARD: &str = "w ipv4/ip_forward 1; w ipv6/conf/all/forwarding 1\n";

impl Lab {
    /// Builds a lab by its plan. If that fails, everything built until then is removed again.
    pub fn up(plan: &Plan) -> Result<Self, Error> {
        plan.check()?;
        janitor::sweep()?;
        let name = plan.name.clone().unwrap_or_else(janitor::own_name);
        if name.is_empty() || name.len() > 12 || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            let why = format!("{name:?} is no name for a lab: up to 12 letters and digits");
            if plan.name.is_some() {
                return Err(Error::new(why));
            }
        }
        if janitor::labs()?.contains(&name) {
            return Err(Error::new(format!("the lab {name:?} is up already; take it down first")));
        }
        let making = janitor::making(&name);
        let state = State { lab: name, nodes: BTreeMap::new(), sites: BTreeMap::new() };
        // from here on, dropping the value removes what has been made
        let mut lab = Self { state, kept: false };
        lab.build(plan)?;
        drop(making);
        if plan.name.is_some() {
            lab.share()?;
            janitor::release(&lab.state.lab);
            lab.kept = true;
        }
        Ok(lab)
    }

    /// Opens a lab that another process has built and kept.
    pub fn open(name: &str) -> Result<Self, Error> {
        let file = state_file(name);
        let text = fs::read_to_string(&file).map_err(|e| Error::new(format!("no lab {name:?} is up ({e})")))?;
        let state = serde_json::from_str(&text).map_err(|e| Error::new(format!("{}: {e}", file.display())))?;
        Ok(Self { state, kept: true })
    }

    /// Removes the lab and reports errors, unlike dropping it.
    pub fn down(self) -> Result<(), Error> {
        janitor::remove(&self.state.lab)
    }

    /// Returns the lab's description.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns a node by name.
    pub fn node(&self, name: &str) -> Result<&Node, Error> {
        self.state.nodes.get(name).ok_or_else(|| {
            let all: Vec<_> = self.state.nodes.keys().map(String::as_str).collect();
            Error::new(format!("no node is called {name:?}; there are {}", all.join(", ")))
        })
    }

    /// Returns the first address of a node.
    pub fn address(&self, node: &str) -> Result<IpAddr, Error> {
        let first = self.node(node)?.addresses.first().copied();
        first.ok_or_else(|| Error::new(format!("{node} has no address")))
    }

    /// Returns the address by which a site is reached from the core: its outermost router's, or the peer's own address
    /// if nothing is translated.
    pub fn outside(&self, site: &str) -> Result<Ipv4Addr, Error> {
        let (n, moved, site) = self.site(site)?;
        let top = site.router_names().pop().unwrap_or_else(|| site.name.clone());
        Ok(match self.address(&top)? {
            _ if site.kind == Kind::Firewall => address::lan(*n, 2, true),
            IpAddr::V4(own) => own,
            IpAddr::V6(_) => address::outside(*n, *moved),
        })
    }

    /// Returns the arguments with which the command `ip` runs a program inside a node.
    pub fn inside(&self, node: &str, program: &str) -> Result<[String; 4], Error> {
        Ok(["netns".into(), "exec".into(), self.node(node)?.namespace.clone(), program.into()])
    }

    /// Returns a command that runs inside a node.
    pub fn command(&self, node: &str, program: &str) -> Result<Command, Error> {
        let mut command = Command::new("ip");
        command.args(self.inside(node, program)?);
        Ok(command)
    }

    /// Runs a shell script inside a node and returns its standard output.
    pub fn script(&self, node: &str, text: &str) -> Result<String, Error> {
        script(&self.node(node)?.namespace, text)
    }

    fn site(&self, name: &str) -> Result<&(u8, u8, Site), Error> {
        self.state.sites.get(name).ok_or_else(|| Error::new(format!("no site is called {name:?}")))
    }

    /// Writes the state file, so that other processes can open the lab while it exists.
    pub fn share(&self) -> Result<(), Error> {
        let file = state_file(&self.state.lab);
        let text = serde_json::to_string_pretty(&self.state).map_err(|e| Error::new(e.to_string()))?;
        let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&file, text));
        written.map_err(|e| Error::new(format!("write {}: {e}", file.display())))
    }

    fn build(&mut self, plan: &Plan) -> Result<(), Error> {
        let mut setup = Setup { scripts: Vec::new(), links: String::new() };
        let mut core = format!("{SYSCTL}{FORWARD}");
        self.add("core", Role::Core, Vec::new(), None);
        let mut at = 0;
        for (name, count) in &plan.servers {
            self.server(name, at..at + count, &mut setup, &mut core);
            at += count;
        }
        for (n, site) in (1..).zip(&plan.sites) {
            self.state.sites.insert(site.name.clone(), (n, 0, site.clone()));
            self.build_site(n, site, &mut setup, &mut core)?;
        }
        core.push_str(&change::loss_rules(0, Lossy::Everything));
        setup.scripts.insert(0, ("core".into(), core));
        let made: String = self.state.nodes.values().map(|n| format!("netns add {}\n", n.namespace)).collect();
        run("ip", &["-batch", "-"], &made)?;
        run("ip", &["-batch", "-"], &setup.links)?;
        setup.scripts.iter().try_for_each(|(node, text)| self.script(node, text).map(drop))
    }

    fn add(&mut self, name: &str, role: Role, addresses: Vec<IpAddr>, site: Option<&str>) -> String {
        let namespace = namespace(&self.state.lab, name);
        let node = Node { role, namespace: namespace.clone(), addresses, site: site.map(str::to_owned) };
        self.state.nodes.insert(name.to_owned(), node);
        namespace
    }

    fn server(&mut self, name: &str, at: std::ops::Range<u8>, setup: &mut Setup, core: &mut String) {
        let first = at.start;
        let v4 = at.clone().map(address::server);
        let v6 = at.map(address::server6);
        let addresses: Vec<IpAddr> = v4.map(IpAddr::V4).chain(v6.map(IpAddr::V6)).collect();
        let link = format!("server{first}");
        attach(core, &link, &addresses);
        let namespace = self.add(name, Role::Server, addresses.clone(), None);
        let text = format!("{SYSCTL}{}", uplink("eth0", &addresses));
        setup.scripts.push((name.to_owned(), text));
        setup.link(&namespace, "eth0", &self.namespace("core"), &link);
    }

    fn namespace(&self, node: &str) -> String {
        namespace(&self.state.lab, node)
    }

    fn build_site(&mut self, n: u8, site: &Site, setup: &mut Setup, core: &mut String) -> Result<(), Error> {
        let link = format!("site{n}");
        let mut outer: Vec<IpAddr> = vec![address::outside(n, 0).into()];
        if site.ipv6 != Ipv6::None {
            outer.push(address::outside6(n).into());
        }
        attach(core, &link, &outer);
        if let Some(rate) = site.rate_mbit {
            core.push_str(&shape(&link, rate));
        }
        let routers = site.router_names();
        let Some(top) = routers.last() else {
            let namespace = self.add(&site.name, Role::Peer, outer.clone(), Some(&site.name));
            let rate = site.rate_mbit.map(|r| shape("eth0", r)).unwrap_or_default();
            setup.scripts.push((site.name.clone(), format!("{SYSCTL}{}{rate}", uplink("eth0", &outer))));
            setup.link(&namespace, "eth0", &self.namespace("core"), &link);
            return Ok(());
        };
        if site.ipv6 != Ipv6::None {
            let via = address::outside6(n);
            _ = writeln!(core, "ip route add {}/64 via {via} dev {link}", address::lan6(n, 0));
            if routers.len() > 1 {
                _ = writeln!(core, "ip route add {}/64 via {via} dev {link}", address::carrier6(n, 0));
            }
        }
        if site.kind == Kind::Firewall {
            _ = writeln!(core, "ip route add {}/24 via {} dev {link} onlink", address::lan(n, 0, true), outer[0]);
        }
        setup.link(&namespace(&self.state.lab, top), "wan", &self.namespace("core"), &link);
        self.routers(n, site, &outer, setup)?;
        let routed = site.kind == Kind::Firewall;
        let gateway = address::lan(n, 1, routed);
        for (host, peer) in (2..).zip(site.peer_names()) {
            let v4 = address::lan(n, host, routed);
            let mut text = format!("{SYSCTL}ip link set eth0 up\nip addr add {v4}/24 dev eth0\n");
            _ = writeln!(text, "ip route add default via {gateway}");
            let mut addresses = vec![v4.into()];
            if site.ipv6 != Ipv6::None {
                let v6 = address::lan6(n, host);
                let via = address::LINK_LOCAL;
                _ = writeln!(text, "ip addr add {v6}/64 dev eth0 nodad\nip route add default via {via} dev eth0");
                addresses.push(v6.into());
            }
            let namespace = self.add(&peer, Role::Peer, addresses, Some(&site.name));
            setup.link(&namespace, "eth0", &self.namespace(&routers[0]), &format!("port{host}"));
            setup.scripts.push((peer, text));
        }
        Ok(())
    }

    /// Sets up the routers of a site, the carrier's first.
    fn routers(&mut self, n: u8, site: &Site, outer: &[IpAddr], setup: &mut Setup) -> Result<(), Error> {
        let routers = site.router_names();
        let two = routers.len() > 1;
        for (at, name) in routers.iter().enumerate().rev() {
            let carrier = two && at == 1;
            let mut text = format!("{SYSCTL}{FORWARD}");
            let addresses = if two && at == 0 {
                let mut addresses: Vec<IpAddr> = vec![address::carrier(n, 2).into()];
                let v4 = address::carrier(n, 2);
                _ = writeln!(text, "ip link set wan up\nip addr add {v4}/24 dev wan");
                _ = writeln!(text, "ip route add default via {}", address::carrier(n, 1));
                if site.ipv6 != Ipv6::None {
                    let v6 = address::carrier6(n, 2);
                    _ = writeln!(text, "ip addr add {v6}/64 dev wan nodad");
                    _ = writeln!(text, "ip route add default via {} dev wan", address::carrier6(n, 1));
                    addresses.push(v6.into());
                }
                addresses
            } else {
                text.push_str(&uplink("wan", outer));
                outer.to_vec()
            };
            if let Some(rate) = site.rate_mbit.filter(|_| at + 1 == routers.len()) {
                text.push_str(&shape("wan", rate));
            }
            text.push_str(&lan_side(n, site, carrier));
            let Some(&IpAddr::V4(wan)) = addresses.first() else { continue };
            let rules = Router::of(site.kind, carrier, site.hairpin, site.ipv6 == Ipv6::Firewall)
                .ok_or_else(|| Error::new(format!("a {} site has no router {name}", site.kind)))?;
            text.push_str(&load(&rules.ruleset(wan)));
            // after the rules, since loading them loads conntrack
            _ = writeln!(text, "w netfilter/nf_conntrack_udp_timeout 30");
            _ = writeln!(text, "w netfilter/nf_conntrack_udp_timeout_stream {UDP_TIMEOUT_S}");
            let namespace = self.add(name, Role::Router, addresses, Some(&site.name));
            setup.scripts.push((name.clone(), text));
            if two && at == 0 {
                setup.link(&namespace, "wan", &self.namespace(&routers[1]), "port2");
            }
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // if a signal is being handled, its thread removes the lab and ends the process
        let _turn = janitor::turn();
        if let Err(error) = janitor::remove(&self.state.lab) {
            eprintln!("the lab {} is not gone: {error}", self.state.lab);
        }
        janitor::release(&self.state.lab);
    }
}

impl Setup {
    fn link(&mut self, namespace: &str, device: &str, far: &str, far_device: &str) {
        _ = writeln!(self.links, "link add {device} netns {namespace} type veth peer name {far_device} netns {far}");
    }
}

/// Appends to `core` the commands for the core's end of a link, with a route to each address behind it.
fn attach(core: &mut String, link: &str, addresses: &[IpAddr]) {
    let (v4, v6) = (address::CORE, address::LINK_LOCAL);
    _ = writeln!(core, "ip link set {link} up\nip addr add {v4}/32 dev {link}\nip addr add {v6}/64 dev {link} nodad");
    addresses.iter().for_each(|a| _ = writeln!(core, "ip route add {a} dev {link}"));
}

/// Returns the commands for the node's end of a link.
fn uplink(device: &str, addresses: &[IpAddr]) -> String {
    let (v4, v6) = (address::CORE, address::LINK_LOCAL);
    let mut text = format!("ip link set {device} up\n");
    for a in addresses {
        let (bits, nodad) = if a.is_ipv4() { (32, "") } else { (128, " nodad") };
        _ = writeln!(text, "ip addr add {a}/{bits} dev {device}{nodad}");
    }
    _ = writeln!(text, "ip route add {v4} dev {device} scope link\nip route add default via {v4} dev {device}");
    if addresses.iter().any(IpAddr::is_ipv6) {
        _ = writeln!(text, "ip route add default via {v6} dev {device}");
    }
    text
}

/// Returns the commands for a bridge with the router's addresses, which are the gateways of the hosts behind it.
fn lan_side(n: u8, site: &Site, carrier: bool) -> String {
    let gateway = if carrier { address::carrier(n, 1) } else { address::lan(n, 1, site.kind == Kind::Firewall) };
    let mut text = String::from("ip link add lan type bridge stp_state 0 forward_delay 0\nip link set lan up\n");
    _ = writeln!(text, "ip addr add {gateway}/24 dev lan");
    let ports = if carrier { 2..3 } else { 2..2 + site.peers };
    for port in ports {
        _ = writeln!(text, "ip link set port{port} master lan up");
    }
    if site.ipv6 != Ipv6::None {
        let v6 = if carrier { address::carrier6(n, 1) } else { address::lan6(n, 1) };
        _ = writeln!(text, "ip addr add {v6}/64 dev lan nodad");
        if carrier {
            _ = writeln!(text, "ip route add {}/64 via {} dev lan", address::lan6(n, 0), address::carrier6(n, 2));
        } else {
            _ = writeln!(text, "ip addr add {}/64 dev lan nodad", address::LINK_LOCAL);
        }
    }
    text
}

/// Returns the command that limits a device's rate, with a burst of ten milliseconds and a queue of a tenth of a
/// second.
fn shape(device: &str, mbit: u32) -> String {
    let burst = (u64::from(mbit) * 1250).max(32_000);
    format!("tc qdisc add dev {device} root tbf rate {mbit}mbit burst {burst} latency 100ms\n")
}

fn load(ruleset: &str) -> String {
    format!("nft -f - <<'RULES'\n{ruleset}RULES\n")
}
