//! The arguments that name a published object.

use clap::Args;
use swarmedge_client::client::protocol::parse_url;
use swarmedge_core::role::client::io::ObjectRef;
use swarmedge_ground::error::Error;

/// Names an object: as `PROVIDER/PATH`, by its URL, or by provider and path.
#[derive(Clone, Debug, Args)]
pub struct ObjectArgs {
    /// The object: PROVIDER/PATH, as it is, or its URL
    #[arg(conflicts_with_all = ["provider", "path"])]
    pub object: Option<String>,
    /// The object's provider, who pays (CP code)
    #[arg(long, value_name = "N", required_unless_present = "object")]
    pub provider: Option<u32>,
    /// The object's path in URLs, without a leading slash
    #[arg(long, required_unless_present = "object")]
    pub path: Option<String>,
}

impl ObjectArgs {
    /// Returns the object that is named.
    pub fn named(&self) -> Result<ObjectRef, Error> {
        match (&self.object, self.provider, &self.path) {
            (Some(name), ..) => Ok(parse_url(name)?),
            (None, Some(provider), Some(path)) => {
                Ok(ObjectRef { provider: swarmedge_core::ids::ProviderId(provider), path: path.clone() })
            }
            (None, ..) => Err(Error::usage("no object is named").next("name it as PROVIDER/PATH")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        file: String,
        #[command(flatten)]
        object: ObjectArgs,
    }

    #[test]
    fn an_object_has_three_names() {
        let named = |args: &[&str]| Line::try_parse_from([&["x", "file"], args].concat()).map(|l| l.object.named());
        for args in [
            &["1/a%b?c"][..],
            &["swarmedge://1/a%25b%3Fc"],
            &["https://edge:8443/1/a%25b%3Fc"],
            &["--provider", "1", "--path", "a%b?c"],
        ] {
            let object = named(args).expect("parses").expect("an object");
            assert_eq!((object.provider.0, &object.path[..]), (1, "a%b?c"), "{args:?}");
        }
        for args in [&["1/a", "--path", "a"][..], &["--provider", "1"], &[]] {
            assert!(named(args).is_err(), "{args:?}");
        }
        assert!(named(&["a"]).expect("parses").is_err());
    }
}
