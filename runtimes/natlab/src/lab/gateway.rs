//! Gateway daemon on a site's router: miniupnpd, which answers PCP, NAT-PMP and UPnP and forwards ports by rules in
//! the kernel.

use super::{Lab, load};
use crate::plan::address;
use crate::{Error, Kind};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Time-out for the daemon to begin to listen.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Protocols that the daemon answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offers {
    /// PCP, NAT-PMP and UPnP.
    Everything,
    /// NAT-PMP and UPnP; PCP requests get no answer.
    NatPmp,
    /// UPnP alone, without PCP and NAT-PMP.
    Upnp,
}

/// A running daemon; dropping the value kills it.
#[derive(Debug)]
pub struct Gateway {
    router: String,
    child: Child,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    /// Returns the number of ports that the router forwards at present.
    pub fn forwards(&self, lab: &Lab) -> Result<usize, Error> {
        let rules = lab.script(&self.router, "nft list chain inet upnp pre\n")?;
        Ok(rules.lines().filter(|line| line.contains(" dnat ")).count())
    }
}

/// Returns the nftables chains into which the daemon writes its rules. Packets to forwarded ports pass the router's
/// own filter, the daemon's own ports are open to the LAN, and packets that match `refused` are dropped first.
fn rules(refused: &str) -> String {
    load(&format!(
        "table inet upnp {{}}\ndelete table inet upnp\ntable inet upnp {{\n\
         chain forward {{\n}}\nchain pre {{\n}}\nchain post {{\n}}\n\
         chain prerouting {{ type nat hook prerouting priority dstnat; iifname \"wan\" jump pre\n}}\n\
         chain postrouting {{ type nat hook postrouting priority srcnat - 1; oifname \"wan\" jump post\n}}\n\
         chain refused {{ type filter hook input priority filter - 1;\n{refused}}}\n}}\n"
    )) + "nft insert rule inet filter input iifname \"lan\" accept\n"
}

impl Lab {
    /// Starts a daemon on the router of a site. The site's address changes to a public one, because daemons refuse to
    /// work on documentation addresses. The daemon's files are written to `dir`.
    pub fn gateway(&mut self, site: &str, offers: Offers, dir: &Path) -> Result<Gateway, Error> {
        let (n, _, plan) = self.site(site)?.clone();
        let [router] = &plan.router_names()[..] else {
            return Err(Error::new(format!("{site}: a {} site has no single router", plan.kind)));
        };
        if plan.kind == Kind::Firewall {
            return Err(Error::new(format!("{site}: a router that does not translate forwards no ports")));
        }
        if self.outside(site)? != address::routable(n) {
            self.renumber(site, address::routable(n))?;
        }
        // a PCP message begins with its version, after the 8 bytes of the UDP header
        let refused = if offers == Offers::NatPmp { "udp dport 5351 @th,64,8 2 drop\n" } else { "" };
        self.script(router, &rules(refused))?;
        let config = dir.join(format!("{site}-gateway.conf"));
        let natpmp = if offers == Offers::Upnp { "no" } else { "yes" };
        let text = format!(
            "ext_ifname=wan\nlistening_ip=lan\nport=0\nenable_natpmp={natpmp}\nenable_upnp=yes\nsecure_mode=yes\n\
             upnp_table_name=upnp\nupnp_nat_table_name=upnp\nupnp_forward_chain=forward\nupnp_nat_chain=pre\n\
             upnp_nat_postrouting_chain=post\nallow 1024-65535 0.0.0.0/0 1024-65535\n\
             uuid=00000000-0000-0000-0000-0000000000{n:02x}\n"
        );
        let log = dir.join(format!("{site}-gateway.log"));
        let failed = |e: std::io::Error| Error::new(format!("start miniupnpd below {}: {e}", dir.display()));
        fs::write(&config, text).map_err(failed)?;
        let out = fs::File::create(&log).map_err(failed)?;
        let mut command = self.command(router, "miniupnpd")?;
        command.args(["-d", "-P"]).arg(dir.join(format!("{site}-gateway.pid"))).arg("-f").arg(&config);
        command.stdin(Stdio::null()).stdout(out.try_clone().map_err(failed)?).stderr(out);
        let mut gateway = Gateway { router: router.clone(), child: command.spawn().map_err(failed)? };
        let until = Instant::now() + READY_WITHIN;
        let port = if offers == Offers::Upnp { 1900 } else { 5351 };
        while self.script(router, &format!("ss -Hlun sport = :{port}\n"))?.trim().is_empty() {
            let ended = gateway.child.try_wait().map_err(failed)?.is_some();
            if ended || Instant::now() > until {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(Error::new(format!("miniupnpd does not listen: {said}")));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(gateway)
    }
}
