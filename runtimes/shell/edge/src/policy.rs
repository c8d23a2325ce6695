//! A provider's policy as text: the file given to `publish`, the catalogue, and the answer to a grant request.

use super::Error;
use serde::{Deserialize, Serialize};
use std::path::Path;
use swarmedge_core::content::Access;
use swarmedge_ground::config::File;
pub use swarmedge_ground::policy::{PolicyKeys, PolicyText};

/// Text form of [`Access`] in the catalogue, in answers and on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AccessText {
    /// Whoever knows the URL may download the object.
    #[default]
    Public,
    /// Whoever has a token that the provider signed may download the object.
    Token,
}

impl From<Access> for AccessText {
    fn from(access: Access) -> Self {
        match access {
            Access::Public => Self::Public,
            Access::Token => Self::Token,
        }
    }
}

impl From<AccessText> for Access {
    fn from(access: AccessText) -> Self {
        match access {
            AccessText::Public => Self::Public,
            AccessText::Token => Self::Token,
        }
    }
}

/// Reads a policy file (TOML).
pub fn load(path: &Path) -> Result<PolicyKeys, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::at(path))?;
    File::from_text(path, text).parse().map_err(|e| Error::Policy(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::content::Policy;

    #[test]
    fn a_policy_file_changes_what_it_names_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("policy.toml");
        std::fs::write(&file, "peer_upload = false\nrate_min = 1000000\n").expect("written");
        let expected = Policy { peer_upload: false, rate_min: 1_000_000, ..Policy::default() };
        assert_eq!(load(&file).expect("valid").over(Policy::default()), expected);
        assert_eq!(PolicyText::from(expected).changed(), "peer_upload = false, rate_min = 1000000");
        assert_eq!(PolicyText::default().changed(), "");
        std::fs::write(&file, "edge_rate_max = \"20MB/s\"\nupload_rate_max = 5\n").expect("written");
        let expected = Policy { edge_rate_max: 20_000_000, upload_rate_max: 5, ..Policy::default() };
        assert_eq!(load(&file).expect("valid").over(Policy::default()), expected);
        assert_eq!(PolicyText::from(expected).changed(), "edge_rate_max = 20000000, upload_rate_max = 5");
        std::fs::write(&file, "rate_min = \"fast\"\n").expect("written");
        let error = load(&file).expect_err("no rate").to_string();
        assert!(
            error.contains("policy.toml:1:12: rate_min: invalid value: string \"fast\", expected a rate"),
            "{error}"
        );
        std::fs::write(&file, "peer_uploads = false\n").expect("written");
        assert!(load(&file).expect_err("a wrong key").to_string().contains("\"peer_upload\"?"));
    }
}
