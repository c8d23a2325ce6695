//! Requirements of a lab on the machine, and how tests report that one is missing.

use crate::janitor::{self, namespace, own_name};
use crate::plan::Plan;
use crate::run::{Error, run, script};
use crate::{Kind, Lab, rules};

/// Checks that labs can be built on this machine; the error says in words what is missing.
pub fn check() -> Result<(), Error> {
    let root = run("id", &["-u"], "")?;
    if root.trim() != "0" {
        return Err(Error::new("network namespaces need root: run this with sudo"));
    }
    for (program, args) in [("nft", "--version"), ("conntrack", "--version"), ("tc", "-Version")] {
        run(program, &[args], "")?;
    }
    let name = own_name();
    let ns = namespace(&name, "check");
    let making = janitor::making(&name);
    run("ip", &["netns", "add", &ns], "").map_err(|e| {
        Error::new(format!("this machine makes no network namespaces (in a container, it must be privileged): {e}"))
    })?;
    let tried = try_in(&ns);
    run("ip", &["netns", "del", &ns], "")?;
    janitor::release(&name);
    drop(making);
    tried
}

fn try_in(ns: &str) -> Result<(), Error> {
    script(ns, "ip link set lo up\n")?;
    for kind in Kind::ALL {
        for (_, ruleset) in rules(kind) {
            run("ip", &["netns", "exec", ns, "nft", "-f", "-"], &ruleset)
                .map_err(|e| Error::new(format!("this kernel cannot be a {kind} router: {e}")))?;
        }
    }
    script(ns, "tc qdisc add dev lo root tbf rate 1mbit burst 9k latency 9ms\n").map(drop)
}

/// Builds a lab for a test. On a machine that cannot build labs it prints that the test is skipped and returns `None`;
/// with `SWARMEDGE_REQUIRE_ALL` set, the test fails instead.
///
/// # Panics
/// If building the lab fails on a machine that can build labs, or that must be able to.
#[must_use]
pub fn lab(plan: &Plan) -> Option<Lab> {
    if let Err(missing) = check() {
        skip(&missing.to_string());
        return None;
    }
    Some(Lab::up(plan).unwrap_or_else(|e| panic!("the lab cannot be built: {e}")))
}

/// Returns whether the gateway daemon (for PCP, NAT-PMP and UPnP) is installed; if not, reports that the test is
/// skipped.
#[must_use]
pub fn gateway() -> bool {
    let here = std::process::Command::new("miniupnpd").arg("--version").output().is_ok();
    if !here {
        skip("miniupnpd is not installed (Debian: apt-get install miniupnpd-nftables)");
    }
    here
}

/// Prints that a test is skipped, and why.
///
/// # Panics
/// If `SWARMEDGE_REQUIRE_ALL` is set.
pub fn skip(why: &str) {
    assert!(std::env::var_os("SWARMEDGE_REQUIRE_ALL").is_none(), "needed for this test: {why}");
    // not `eprintln!`, which the harness shows for failing tests only
    let line = format!("SKIPPED: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
