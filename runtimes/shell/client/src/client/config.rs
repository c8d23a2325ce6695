//! A client's start-up configuration, and the copy of the install bundle in its directory.

use super::identity::machine_id;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use swarmedge_core::nat::HTTPS;
use swarmedge_ground::config::{Bundle, File};
use swarmedge_ground::error::Error;
use swarmedge_ground::files;
use swarmedge_ground::reach::Reach;

/// File name of the install bundle's copy in the client's directory.
const BUNDLE: &str = "bundle.toml";

/// A TCP port on which a client listens for peers that cannot use UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpPort {
    /// The port with the same number as the client's UDP socket.
    AsUdp,
    /// A fixed port number.
    Port(u16),
    /// No TCP port for peers.
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

/// A client's start-up configuration.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The client's directory: keys, store and control socket.
    pub state: PathBuf,
    /// The operator's install bundle: trust anchors and bootstrap URLs.
    pub bundle: Bundle,
    /// Bind address of the UDP socket; by default any free port on every address.
    pub listen: Option<SocketAddr>,
    /// Listening address for `/healthz` and `/metrics`; `None` serves neither.
    pub ops: Option<SocketAddr>,
    /// Whether a finished file is a hard link to the data file in the store, where the file system can make one;
    /// otherwise it is a copy.
    pub links: bool,
    /// TCP listening ports for peers; only the first two are used.
    pub tcp: Vec<TcpPort>,
    /// Whether birthday probing (many ports opened at once, so that two symmetric NATs match by chance) is tried as
    /// the last resort, if both clients allow it: up to 256 sockets and 1,024 probes an attempt, which can fill the
    /// session table of a small router.
    pub birthday: bool,
    /// Whether the router is asked for a port mapping (PCP, NAT-PMP, UPnP), so that every peer can reach this client.
    pub port_mapping: bool,
    /// Whether the client runs for one `get` and those that join meanwhile; a `get` still waiting when the client ends
    /// continues with another client.
    pub one_shot: bool,
    /// The way to edges and CNs.
    pub reach: Reach,
    /// The machine's name, if known: an installation that starts on another machine was copied.
    pub machine: Option<String>,
}

impl ClientConfig {
    /// Loads the configuration of the client in the directory `state`, created if absent. Copies `bundle`, if given,
    /// to it.
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
            reach: Reach::default(),
            machine: machine_id(),
        })
    }
}

/// Returns whether the client in `state` was started with a bundle other than `bundle`.
pub(super) fn has_another_bundle(state: &Path, bundle: &Path) -> Result<bool, Error> {
    let kept = state.join(BUNDLE);
    Ok(kept.exists() && Bundle::from_file(&File::read(&kept)?)? != Bundle::load(bundle)?)
}

/// Returns whether the install bundle of the client in `state` allows uploads; `None` if there is none.
pub(super) fn installed_uploads(state: &Path) -> Option<bool> {
    let kept = File::read(&state.join(BUNDLE)).ok()?;
    Bundle::from_file(&kept).ok().map(|bundle| bundle.uploads)
}

/// Creates a directory that only its owner can read: it holds keys and the control socket.
pub(super) fn make_private(dir: &Path) -> Result<(), Error> {
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
