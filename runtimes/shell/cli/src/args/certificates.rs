//! Arguments of `swarmedge certificates`.

use super::ConfigArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Subcommands of `swarmedge certificates`.
#[derive(Clone, Debug, Subcommand)]
pub enum CertificatesCommand {
    /// List the servers' certificates and when they expire
    List(ConfigArgs),
    /// Make new certificates for the same servers and names, valid for a year
    Renew(RenewArgs),
}

/// Arguments of `swarmedge certificates renew`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Clients need nothing new: the operator's root key and CA stay. Names are taken from the certificates \
    that are there.\nWhat this operator's CA did not issue, as of Let's Encrypt, is left alone with its key: renew it \
    where it came from.\nServers take new certificates up at their next start.\n\n\
    Example:\n  swarmedge certificates renew --config my-cdn/server.toml --keys /media/safe"
)]
pub struct RenewArgs {
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The directory of root.key and ca.key.pem [default: beside the configuration]
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
}
