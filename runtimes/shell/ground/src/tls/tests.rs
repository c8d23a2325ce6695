//! Handshakes in memory: which keys and certificates are accepted, and which are refused.

use super::*;
use rustls::{ClientConnection, ServerConnection};

/// Performs a handshake up to its end or first error; returns what server and client have learned about each other.
fn shake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &'static str,
) -> Result<(Option<PublicKey>, Option<PublicKey>), rustls::Error> {
    let mut c = ClientConnection::new(Arc::clone(client), name.try_into().expect("a name"))?;
    let mut s = ServerConnection::new(Arc::clone(server))?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        while c.wants_write() {
            c.write_tls(&mut wire).expect("memory");
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            s.read_tls(&mut wire).expect("memory");
            s.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while s.wants_write() {
            s.write_tls(&mut wire).expect("memory");
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            c.read_tls(&mut wire).expect("memory");
            c.process_new_packets()?;
        }
    }
    assert!(!c.is_handshaking() && !s.is_handshaking(), "the handshake ends");
    Ok((s.peer_certificates().and_then(peer_key), c.peer_certificates().and_then(peer_key)))
}

fn authority() -> (CertAuthority, Arc<ServerConfig>, Arc<ServerConfig>) {
    let ca = CertAuthority::new().expect("made");
    let (cert, key) = ca.issue(&["cn.example", "127.0.0.1"]).expect("issued");
    let asking = server_config(&cert, &key, true).expect("fits");
    let open = server_config(&cert, &key, false).expect("fits");
    (ca, asking, open)
}

#[test]
fn a_client_proves_its_key_to_a_server_of_the_ca() {
    let (ca, asking, open) = authority();
    let key = Key::generate();
    let client = client_config(ca.cert_pem(), Some(&key)).expect("fits");
    assert_eq!(shake(&client, &asking, "cn.example"), Ok((Some(key.public()), None)));
    assert_eq!(shake(&client, &asking, "127.0.0.1"), Ok((Some(key.public()), None)));
    let anonymous = client_config(ca.cert_pem(), None).expect("fits");
    assert_eq!(shake(&anonymous, &open, "cn.example"), Ok((None, None)), "an edge asks for no key");
}

#[test]
fn a_client_without_a_key_is_turned_away_where_one_is_asked_for() {
    let (ca, asking, _) = authority();
    let client = client_config(ca.cert_pem(), None).expect("fits");
    assert!(shake(&client, &asking, "cn.example").is_err());
}

#[test]
fn a_server_of_another_name_or_another_ca_is_turned_away() {
    let (ca, asking, _) = authority();
    let (other, ..) = authority();
    let key = Key::generate();
    let client = client_config(ca.cert_pem(), Some(&key)).expect("fits");
    assert!(shake(&client, &asking, "dn.example").is_err());
    let stranger = client_config(other.cert_pem(), Some(&key)).expect("fits");
    assert!(shake(&stranger, &asking, "cn.example").is_err());
}

#[test]
fn an_authority_read_back_issues_certificates_that_its_own_clients_accept() {
    let (ca, ..) = authority();
    let again = CertAuthority::load(ca.cert_pem(), &ca.key_pem()).expect("read");
    let (cert, key) = again.issue(&["dn.example"]).expect("issued");
    let server = server_config(&cert, &key, true).expect("fits");
    let client = client_config(ca.cert_pem(), Some(&Key::generate())).expect("fits");
    assert!(shake(&client, &server, "dn.example").is_ok());
}

#[test]
fn peers_prove_their_keys_to_each_other() {
    let (down, up) = (Key::generate(), Key::generate());
    let client = peer_client_config(&down, up.public(), Transport::Udp).expect("fits");
    let server = peer_server_config(&up, Transport::Udp).expect("fits");
    assert_eq!(shake(&client, &server, "peer"), Ok((Some(down.public()), Some(up.public()))));
}

#[test]
fn a_peer_with_another_key_than_introduced_is_turned_away() {
    let (down, up, other) = (Key::generate(), Key::generate(), Key::generate());
    let client = peer_client_config(&down, up.public(), Transport::Udp).expect("fits");
    let server = peer_server_config(&other, Transport::Udp).expect("fits");
    assert!(shake(&client, &server, "peer").is_err());
}

#[test]
fn a_peer_that_shows_a_key_it_does_not_hold_is_turned_away() {
    let (down, up, thief) = (Key::generate(), Key::generate(), Key::generate());
    let signer = provider().key_provider.load_private_key(thief.to_private_der()).expect("a key");
    let swapped = Arc::new(CertifiedKey::new(vec![spki(&up.public())], signer));
    let mut server = ServerConfig::clone(&peer_server_config(&thief, Transport::Udp).expect("fits"));
    server.cert_resolver = Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&swapped)));
    let client = peer_client_config(&down, up.public(), Transport::Udp).expect("fits");
    assert!(shake(&client, &Arc::new(server), "peer").is_err(), "as server");

    let mut client = ClientConfig::clone(&peer_client_config(&down, down.public(), Transport::Udp).expect("fits"));
    client.client_auth_cert_resolver = Arc::new(AlwaysResolvesClientRawPublicKeys::new(swapped));
    let server = peer_server_config(&down, Transport::Udp).expect("fits");
    assert!(shake(&Arc::new(client), &server, "peer").is_err(), "as client");
}

#[test]
fn a_peer_without_a_key_is_turned_away() {
    let up = Key::generate();
    let server = peer_server_config(&up, Transport::Udp).expect("fits");
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RawKey::only(up.public())))
        .with_no_client_auth();
    client.alpn_protocols = vec![alpn(Transport::Udp)];
    assert!(shake(&Arc::new(client), &server, "peer").is_err());
}

#[test]
fn unusable_files_are_named() {
    let (ca, ..) = authority();
    let (cert, _) = ca.issue(&["a.example"]).expect("issued");
    let (_, other_key) = ca.issue(&["b.example"]).expect("issued");
    assert!(server_config(&cert, &other_key, false).is_err(), "the key of another certificate");
    assert!(server_config(&cert, "garbage", false).is_err());
    assert!(client_config("garbage", None).is_err());
}
