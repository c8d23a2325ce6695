//! Tests NAT discovery: our STUN server and client recognize each kind of NAT, and independent programs agree.

#[path = "shared/binaries.rs"]
mod binaries;
#[path = "shared/coturn.rs"]
mod coturn;

use binaries::{Program, programs};
use coturn::Found;
use std::collections::BTreeMap;
use std::thread;
use swarmedge_natlab::cdn::Cdn;
use swarmedge_natlab::plan::Site;
use swarmedge_natlab::{Behaviour, Kind, Lab, Plan, require};

/// Result that the command `swarmedge nat` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    mapping: String,
    filtering: String,
    udp: bool,
    /// Whether the NAT's next port can be predicted.
    counts: bool,
}

/// Builds a lab with only the servers that discovery needs.
fn lab() -> Option<Lab> {
    let sites = Kind::ALL.into_iter().map(|k| Site::new(k.name(), k)).collect();
    let servers = vec![("edge".into(), 1), ("stun".into(), 2)];
    require::lab(&Plan { sites, servers, ..Plan::default() })
}

fn right(kind: Kind) -> Said {
    let name = |b: Behaviour| match b {
        Behaviour::EndpointIndependent => "endpoint_independent",
        Behaviour::AddressDependent => "address_dependent",
        Behaviour::AddressAndPortDependent => "address_and_port_dependent",
        Behaviour::Unknown => "unknown",
    };
    let (mapping, filtering) = kind.behaviour();
    Said {
        mapping: name(mapping).into(),
        filtering: name(filtering).into(),
        udp: kind != Kind::UdpBlocked,
        counts: kind == Kind::SymmetricSequential,
    }
}

/// Runs `ask` at every site at the same time; returns the results by kind of NAT.
fn everywhere<T: Send>(ask: impl Fn(Kind) -> T + Sync) -> BTreeMap<Kind, T> {
    thread::scope(|s| {
        let ask = &ask;
        let asked = Kind::ALL.map(|k| (k, s.spawn(move || ask(k))));
        asked.into_iter().map(|(k, asked)| (k, asked.join().expect("it answers"))).collect()
    })
}

/// Runs `swarmedge nat` at a peer.
fn ask(lab: &Lab, program: &Program, node: &str) -> Said {
    let server = Cdn::stun(lab).expect("a STUN server");
    let mut command = lab.command(node, program.path.to_str().expect("a path")).expect("a node");
    let out = command.args(["nat", "--json", "--stun", &server]).output().expect("it runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{node}: {e}: {out:?}"));
    let text = |name: &str| json[name].as_str().unwrap_or("missing").to_owned();
    Said {
        mapping: text("mapping"),
        filtering: text("filtering"),
        udp: json["udp"] == true,
        counts: json["step"].as_u64().is_some_and(|step| step > 0),
    }
}

fn expected() -> BTreeMap<Kind, Said> {
    Kind::ALL.into_iter().map(|k| (k, right(k))).collect()
}

/// Tests our STUN server and client on one runtime, and coturn's client against our server.
fn with_our_server(runtime: &str) {
    let Some(program) = programs().into_iter().find(|p| p.runtime == runtime) else { return };
    let Some(mut lab) = lab() else { return };
    if !coturn::is_here() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let _servers = Cdn::start(&lab, dir.path(), &program.path).expect("the servers start");
    let found = everywhere(|k| {
        let (ours, theirs) = (|| ask(&lab, &program, k.name()), || coturn::discover(&lab, k.name()));
        if k == Kind::SymmetricSequential {
            // if two programs open flows at the same time, neither sees the ports of the NAT increase by one
            return (ours(), theirs());
        }
        thread::scope(|s| {
            let ours = s.spawn(ours);
            let theirs = theirs();
            (ours.join().expect("it answers"), theirs)
        })
    });
    for (k, (ours, theirs)) in found {
        assert_eq!(ours, right(k), "{runtime}: {k}");
        let right = Found { mapping: k.mapping(), filtering: k.filtering() };
        assert_eq!(theirs, right, "coturn's client on {runtime}'s server: {k}");
    }
    // the client discovers the actual NAT, whatever the site's name says
    lab.become_kind("port-restricted", Kind::Symmetric).expect("another router");
    assert_eq!(ask(&lab, &program, "port-restricted"), right(Kind::Symmetric), "{runtime}");
}

#[test]
fn tokio_names_every_kind_and_coturns_client_agrees() {
    with_our_server("tokio");
}

#[test]
fn smol_names_every_kind_and_coturns_client_agrees() {
    with_our_server("smol");
}

#[test]
fn both_runtimes_name_every_kind_with_coturns_server() {
    let programs = programs();
    if programs.is_empty() || !coturn::is_here() {
        return;
    }
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let _server = coturn::Server::start(&lab, dir.path());
    for program in programs {
        assert_eq!(everywhere(|k| ask(&lab, &program, k.name())), expected(), "{}", program.runtime);
    }
}
