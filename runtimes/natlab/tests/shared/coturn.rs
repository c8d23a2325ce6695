//! coturn, an independent STUN server and client, for comparison with the lab and with our own STUN.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use swarmedge_natlab::{Behaviour, Lab};

/// NAT behaviour between a peer and a server, as coturn's client finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) mapping: Behaviour,
    pub(crate) filtering: Behaviour,
}

/// Returns whether coturn is installed; if not, reports that the test is skipped.
pub(crate) fn is_here() -> bool {
    let here = Command::new("turnutils_natdiscovery").arg("-h").output().is_ok();
    if !here {
        swarmedge_natlab::require::skip("coturn is not installed (Debian: apt-get install coturn)");
    }
    here
}

/// coturn's server in the node `stun`; dropping the value kills it.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts the server on both addresses of `stun`, ports 3478 and 3479.
    pub(crate) fn start(lab: &Lab, dir: &std::path::Path) -> Self {
        let addresses = &lab.node("stun").expect("a STUN node").addresses;
        let listen = addresses.iter().filter(|a| a.is_ipv4()).flat_map(|a| ["-L".to_owned(), a.to_string()]);
        let options = "-n -p 3478 --alt-listening-port 3479 --stun-only --no-tls --no-dtls --no-cli --log-file stdout";
        let mut command = lab.command("stun", "turnserver").expect("a node");
        command.args(options.split(' ')).args(listen);
        command.arg("--pidfile").arg(dir.join("pid")).arg("--db").arg(dir.join("db"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self(child.expect("turnserver starts"));
        let until = Instant::now() + Duration::from_secs(10);
        let listening = || lab.script("stun", "ss -Hlun sport = 3478").is_ok_and(|text| !text.trim().is_empty());
        while !listening() {
            assert!(Instant::now() < until, "turnserver does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

/// Runs coturn's client at `node` against the server at the first address of `stun`.
pub(crate) fn discover(lab: &Lab, node: &str) -> Found {
    let server = lab.address("stun").expect("an address").to_string();
    let mut command = lab.command(node, "timeout").expect("a node");
    let out = command.args(["12", "turnutils_natdiscovery", "-m", "-f", "-p", "3478", &server]).output();
    let text = String::from_utf8_lossy(&out.expect("it runs").stdout).into_owned();
    let said = |what: &str| {
        let behaviours = [
            ("Endpoint Independent", Behaviour::EndpointIndependent),
            ("Address Dependent", Behaviour::AddressDependent),
            ("Address and Port Dependent", Behaviour::AddressAndPortDependent),
        ];
        behaviours
            .into_iter()
            .find(|(name, _)| text.contains(&format!("{name} {what}!")))
            .map_or(Behaviour::Unknown, |(_, b)| b)
    };
    Found { mapping: said("Mapping"), filtering: said("Filtering") }
}
