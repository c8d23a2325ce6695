//! The install bundle: everything that a client needs to find and trust a deployment. It is one file, so that it can be
//! shipped inside an installer.

use super::File;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::path::Path;
use swarmedge_core::ids::{ProviderId, PublicKey};

/// Contents of the file `install/bundle.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The operator's root key, which certifies the servers that sign grants and introductions.
    pub root: PublicKey,
    /// Edges that a new client asks first, as `https://host:port`; at least one.
    pub bootstrap: Vec<String>,
    /// Provider that ships this client.
    pub provider: ProviderId,
    /// Whether a new installation uploads to others.
    pub uploads: bool,
    /// The operator's CA for HTTPS and control connections, PEM.
    pub ca: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    root: String,
    bootstrap: Vec<String>,
    provider: u32,
    uploads: bool,
    ca: String,
}

impl Bundle {
    /// Reads and checks a bundle.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::from_file(&File::read(path)?)
    }

    /// Parses and checks the text of a bundle.
    pub fn from_file(file: &File) -> Result<Self, Error> {
        let text: Text = file.parse()?;
        let root = text.root.parse().map_err(|_| file.error_at(&["root"], "must be 64 hexadecimal digits"))?;
        if text.bootstrap.is_empty() {
            return Err(file.error_at(&["bootstrap"], "must name at least one edge as https://host:port"));
        }
        if let Some(bad) = text.bootstrap.iter().find(|u| !is_origin(u)) {
            return Err(file.error_at(&["bootstrap"], &format!("{bad:?} is not https://host:port")));
        }
        if !text.ca.contains("-----BEGIN CERTIFICATE-----") {
            return Err(file.error_at(&["ca"], "must be a certificate in PEM"));
        }
        let provider = ProviderId(text.provider);
        Ok(Self { root, bootstrap: text.bootstrap, provider, uploads: text.uploads, ca: text.ca })
    }

    /// Returns the text of the bundle file, with comments.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let list = self.bootstrap.iter().map(|u| format!("{u:?}")).collect::<Vec<_>>().join(", ");
        format!(
            "# Swarmedge install bundle: what a client needs to trust and find this deployment.\n\
             # Nothing in it is secret.\n\n\
             # The operator's root key.\nroot = \"{}\"\n\
             # Edges that are asked first.\nbootstrap = [{list}]\n\
             # The provider that ships this client.\nprovider = {}\n\
             # Whether a new installation uploads to others; its user may change it at any time.\nuploads = {}\n\
             # The operator's CA.\nca = '''\n{}'''\n",
            self.root, self.provider, self.uploads, self.ca
        )
    }
}

/// Returns whether a text is `https://host:port` without a path.
fn is_origin(url: &str) -> bool {
    url.strip_prefix("https://").is_some_and(|host| {
        !host.is_empty() && !host.contains(['/', '?', '#', '@', '"']) && !host.contains(char::is_whitespace)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        Bundle {
            root: PublicKey::numbered(7),
            bootstrap: vec!["https://127.0.0.1:8443".into(), "https://[::1]:8443".into()],
            provider: ProviderId(3),
            uploads: true,
            ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
        }
    }

    fn read(text: String) -> Result<Bundle, Error> {
        Bundle::from_file(&File::from_text(Path::new("bundle.toml"), text))
    }

    #[test]
    fn a_bundle_reads_back() {
        assert_eq!(read(bundle().to_toml()), Ok(bundle()));
    }

    #[test]
    fn errors_in_a_bundle_are_named_with_their_line() {
        let text = bundle().to_toml();
        for (from, to, expected) in [
            (
                "\"https://127.0.0.1:8443\", ",
                "\"http://127.0.0.1\", ",
                "bundle.toml:7:13: bootstrap: \"http://127.0.0.1\"",
            ),
            ("root = \"00", "root = \"", "bundle.toml:5:8: root: must be 64 hexadecimal digits"),
            ("provider = 3", "provder = 3", "bundle.toml:9:1: unknown key \"provder\""),
        ] {
            let error = read(text.replacen(from, to, 1)).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
