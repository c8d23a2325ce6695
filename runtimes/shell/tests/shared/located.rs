//! Tests geolocation on loopback: country and network of clients, as the CN sees them and as the ledger stores them.

use super::{R, any, run};
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use swarmedge_control::cn;
use swarmedge_control::config::CnConfig;
use swarmedge_core::ids::Guid;
use swarmedge_ground::rt::Rt as _;
use swarmedge_ledger::{Reader, Spot};

#[path = "mmdb.rs"]
mod mmdb;

/// Clients behind two loopback prefixes are located in two countries and networks, which the ledger stores. A broken
/// database stops the start with one clear error.
#[test]
fn clients_are_located_and_the_ledger_keeps_country_and_network_alone() {
    run::<R, _>(|net| async move {
        let (countries, networks) = (net.path("countries.mmdb"), net.path("networks.mmdb"));
        let prefixes = ["127.0.0.0/24", "127.0.7.0/24"];
        let of = |entries: [mmdb::Entry; 2]| mmdb::of(&[(prefixes[0], entries[0]), (prefixes[1], entries[1])]);
        let berlin = mmdb::Entry { at: Some((52.52, 13.4)), ..mmdb::country("DE", "EU") };
        std::fs::write(&countries, of([berlin, mmdb::country("FR", "EU")])).expect("written");
        std::fs::write(&networks, of([64_500, 64_501].map(mmdb::network))).expect("written");
        let (dn, ledger) = (net.dn(), net.ledger().await);
        let cfg = CnConfig {
            geo_countries: Some(countries.clone()),
            geo_networks: Some(networks),
            ..net.cn_config(dn, ledger)
        };
        let cn = net.start(cn::open(&net.rt, &net.operator(), &cfg, &net.stop, &net.health).expect("opens"));
        let far = from_address("127.0.7.1", cn);
        let mut ids = Vec::new();
        for (at, n) in [(cn, 1), (far, 2)] {
            ids.push(Guid::of(&net.client(at, n).await.key.public()));
        }
        let mut reader = Reader::open(&net.path("ledger.sqlite").into()).await.expect("opens");
        let spots = |all: &[(Guid, Spot)], guid: Guid| -> Vec<String> {
            all.iter().filter(|(of, _)| *of == guid).map(|(_, spot)| spot.to_string()).collect()
        };
        loop {
            let all = reader.places().await.expect("read");
            if all.len() >= 2 {
                assert_eq!(spots(&all, ids[0]), ["DE/64500"]);
                assert_eq!(spots(&all, ids[1]), ["FR/64501"]);
                break;
            }
            net.rt.sleep_until(net.rt.now() + Duration::from_millis(20)).await;
        }
        std::fs::write(&countries, "no database").expect("written");
        let error = cn::open(&net.rt, &net.operator(), &cfg, &net.stop, &net.health).expect_err("broken").to_string();
        assert!(error.contains("countries.mmdb"), "{error}");
    });
}

/// Opens a port that forwards connections to `to` from another loopback address.
fn from_address(from: &'static str, to: SocketAddr) -> SocketAddr {
    let listener = std::net::TcpListener::bind(any()).expect("a port");
    let addr = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let (near, far) = (near.expect("accepted"), connect_from(from, to));
            for (mut a, mut b) in [(&near, &far), (&far, &near)].map(|(a, b)| (copy_of(a), copy_of(b))) {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut a, &mut b);
                    let _ = b.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    addr
}

fn copy_of(tcp: &TcpStream) -> TcpStream {
    tcp.try_clone().expect("a handle")
}

fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from: SocketAddr = format!("{from}:0").parse().expect("an address");
    socket.bind(&from.into()).expect("loopback has it");
    socket.connect(&to.into()).expect("listening");
    socket.into()
}
