//! What a client is started with.

use super::identity::machine_id;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use swarmedge_core::nat::HTTPS;
use swarmedge_ground::config::{Bundle, File};
use swarmedge_ground::error::Error;
use swarmedge_ground::files;

/// The bundle's copy in the client's directory.
const BUNDLE: &str = "bundle.toml";

/// A TCP port on which a client listens for peers that cannot use UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpPort {
    /// The number of the UDP port.
    AsUdp,
    /// This one.
    Port(u16),
    /// None.
    Off,
}

impl std::str::FromStr for TcpPort {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse::<u16>()) {
            ("off", _) => Ok(Self::Off),
            ("udp", _) => Ok(Self::AsUdp),
            (_, Ok(port)) if port >= 1024 || port == HTTPS => Ok(Self::Port(port)),
            _ => Err("use a port from 1024 up, 443, udp (the number of the UDP port) or off".into()),
        }
    }
}

/// What a client is started with.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Its directory.
    pub state: PathBuf,
    /// Whom it trusts and asks first.
    pub bundle: Bundle,
    /// Where its UDP socket is bound; by default a port of its own on every address.
    pub listen: Option<SocketAddr>,
    /// Where `/healthz` and `/metrics` are served, if at all.
    pub ops: Option<SocketAddr>,
    /// A finished file is the cached one under a second name, where the file system can; else it is a copy.
    pub links: bool,
    /// Where it listens for peers over TCP; the first two count.
    pub tcp: Vec<TcpPort>,
    /// Where nothing else connects two peers, many ports are tried, if both clients do so: up to 256 sockets and 1,024
    /// probes an attempt, which can fill the session table of a small router.
    pub birthday: bool,
    /// The router of this network is asked to forward a port (PCP, NAT-PMP, UPnP), so that every peer can reach this
    /// one.
    pub port_mapping: bool,
    /// It runs for one `get`, and for those that join it meanwhile: whoever still waits at its end goes on with
    /// another.
    pub one_shot: bool,
    /// The name of the machine, if it is known: an installation that finds itself on another was copied.
    pub machine: Option<String>,
}

impl ClientConfig {
    /// For the client in `state`, made if it is not there. A `bundle` that is given is kept there for later starts.
    pub fn load(state: &Path, bundle: Option<&Path>) -> Result<Self, Error> {
        make_private(state)?;
        let kept = state.join(BUNDLE);
        let bundle = match bundle {
            Some(path) => {
                let bundle = Bundle::load(path)?;
                files::replace(&kept, &bundle.to_toml())?;
                bundle
            }
            None if kept.exists() => Bundle::from_file(&File::read(&kept)?)?,
            None => {
                let next = "name the operator's bundle with --bundle FILE, once";
                return Err(Error::usage(format!("no client was installed in {}", state.display())).next(next));
            }
        };
        Ok(Self {
            state: state.to_owned(),
            bundle,
            listen: None,
            ops: None,
            links: true,
            tcp: vec![TcpPort::AsUdp],
            birthday: false,
            port_mapping: true,
            one_shot: false,
            machine: machine_id(),
        })
    }
}

/// Whether the client in `state` was given another bundle than this one.
pub(super) fn has_another_bundle(state: &Path, bundle: &Path) -> Result<bool, Error> {
    let kept = state.join(BUNDLE);
    Ok(kept.exists() && Bundle::from_file(&File::read(&kept)?)? != Bundle::load(bundle)?)
}

/// A directory that only its owner may look into: keys and the control socket lie there.
fn make_private(dir: &Path) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|e: io::Error| Error::io(format!("make directory {}", dir.display()), &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::ids::{ProviderId, PublicKey};
    use swarmedge_ground::error::Code;

    #[test]
    fn a_bundle_is_needed_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, file) = (dir.path().join("a/state"), dir.path().join("bundle.toml"));
        let error = ClientConfig::load(&state, None).expect_err("no bundle");
        assert_eq!(error.code(), Code::Usage);
        assert!(error.to_string().contains("--bundle"), "{error}");
        let bundle = Bundle {
            root: PublicKey::numbered(1),
            bootstrap: vec!["https://127.0.0.1:1".into()],
            provider: ProviderId(1),
            uploads: true,
            ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
        };
        fs::write(&file, bundle.to_toml()).expect("writes");
        assert_eq!(ClientConfig::load(&state, Some(&file)).expect("loads").bundle, bundle);
        assert_eq!(ClientConfig::load(&state, None).expect("kept").bundle, bundle);
        assert_eq!(has_another_bundle(&state, &file), Ok(false));
        fs::write(&file, Bundle { root: PublicKey::numbered(2), ..bundle }.to_toml()).expect("writes");
        assert_eq!(has_another_bundle(&state, &file), Ok(true));
        assert_eq!(has_another_bundle(dir.path(), &file), Ok(false), "none was given");
    }
}
