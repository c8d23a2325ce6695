//! Arguments of the commands on sealing keys (`keys`), on providers' token keys (`provider-keys`) and on providers'
//! policies (`policy`).

use super::ConfigArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Subcommands of `swarmedge provider-keys`.
#[derive(Clone, Debug, Subcommand)]
pub enum ProviderKeysCommand {
    /// Give a provider a new key; the previous one stays valid until the next rotation
    Rotate(ProviderKeysRotateArgs),
    /// List which providers have keys
    List(ConfigArgs),
    /// Remove a provider's keys, so that none of its tokens is valid any more
    Remove(ProviderKeysRemoveArgs),
}

/// Arguments of `swarmedge policy`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The file has the keys that `publish --help` shows, and replaces the one that was set before. An object's \
    own keys count before the provider's. Edges take it up at once, and clients that hold or download an object within a \
    minute.\n\n\
    Example:\n  swarmedge policy provider.toml --provider 1 --config my-cdn/server.toml"
)]
pub struct PolicyArgs {
    /// The policy: a TOML file
    pub file: PathBuf,
    /// The provider (CP code)
    #[arg(long, value_name = "N")]
    pub provider: u32,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Subcommands of `swarmedge keys`.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// Rotate the sealing keys: the next epoch begins, and the key of the one after it is generated
    Rotate(KeysRotateArgs),
}

/// Arguments of `swarmedge keys rotate`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Running edges and CNs take the keys up within a second, without a restart and without a gap: each opens \
    what was sealed in the epoch before, the present and the next. Servers on other machines need a copy of the file \
    before the next rotation. Downloads whose grant is two rotations old ask for a new one.\n\n\
    Example:\n  swarmedge keys rotate --config my-cdn/server.toml"
)]
pub struct KeysRotateArgs {
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge provider-keys rotate`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Prints the key for the provider's signer (EdgeAuth 2.0, HMAC-SHA256). Running edges take it up at once.\n\
    A request shows its token as a URL parameter, a header field or a cookie.\n\n\
    Example:\n  \
    swarmedge provider-keys rotate --provider 1 --config my-cdn/server.toml\n  \
    curl 'https://127.0.0.1:8443/1/games/beta.iso?__token__=exp=1800000000~acl=/1/games/*~hmac=...'"
)]
pub struct ProviderKeysRotateArgs {
    /// The provider (CP code)
    #[arg(long, value_name = "N")]
    pub provider: u32,
    /// The key, hexadecimal [default: a new one]
    #[arg(long, value_name = "HEX")]
    pub key: Option<String>,
    /// What the provider signs with each token and never sends
    #[arg(long, default_value = "", hide_default_value = true)]
    pub salt: String,
    /// The name of parameter, field or cookie [default: __token__, or as before]
    #[arg(long, value_name = "NAME")]
    pub token_name: Option<String>,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge provider-keys remove`.
#[derive(Clone, Debug, Args)]
pub struct ProviderKeysRemoveArgs {
    /// The provider (CP code)
    #[arg(long, value_name = "N")]
    pub provider: u32,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}
